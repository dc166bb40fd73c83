package main

import (
	"encoding/csv"
	"encoding/json"
	"maps"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

func TestMaskString(t *testing.T) {
	for _, c := range []struct{ key, in, want string }{
		{"callerId", "+380671112233", "+**********33"},
		{"callerId", "+380 67 111-22-33", "+*** ** ***-**-33"},
		{"callerId", "1001", "**01"},
		{"callerId", "7", "7"},
		{"callerId", "", ""},
		{"callerId", "anonymous", "a***"},
		{"callerId", "٠٦٧١١١٢٢٣٣", "********٣٣"},
		{"calledId", "sip:+380671112233@carrier.example", "sip:+**********33@carrier.example"},
		{"calledId", "894071f3-0a81-4407-a487-01285b193be5", "894071f3-0a81-4407-a487-01285b193be5"},
		{"account", "1001@demo.local", "**01@demo.local"},
		{"account", "anna@demo.local", "a***@demo.local"},
		{"callerName", "Anna Maria Kovalenko", "A.M.K."},
		{"callerName", "Олена Коваль", "О.К."},
		{"callerName", "+380671112233", "***"},
		{"callerName", "a b c d", "a.b.c."},
		{"digits", "1234#", "xxxxx"},
		{"data", `{"name":"Anna"}`, "***"},
		{"channel", "sofia/internal/1001@10.20.30.40:5060", "sofia/internal/**01@**.**.**.40:**60"},
		{"channel", "sofia/internal/anna@10.20.30.40:5060", "sofia/internal/a***@**.**.**.40:**60"},
		{"channel", "verto.rtc/anna", "verto.rtc/a***"},
		{"channel", "verto.rtc/u:894071f3-0a81-4407-a487-01285b193be5", "verto.rtc/u:894071f3-0a81-4407-a487-01285b193be5"},
		{"callId", "894071f3-0a81-4407-a487-01285b193be5-2", "894071f3-0a81-4407-a487-01285b193be5-2"},
		{"cause", "NORMAL_CLEARING", "NORMAL_CLEARING"},
		{"queue", "line 2", "line 2"},
	} {
		if got := maskString(c.key, c.in); got != c.want {
			t.Errorf("maskString(%s, %q) = %q, want %q", c.key, c.in, got, c.want)
		}
		if got := maskString(c.key, c.in); maskString(c.key, got) != got && c.key != "callerName" {
			t.Errorf("masking %q twice gives another text", c.in)
		}
	}
	id := "894071f3-0a81-4407-a487-01285b193be5:1001@demo.local@1763805600000000:0"
	if got, want := maskEventID(id), "894071f3-0a81-4407-a487-01285b193be5:**01@demo.local@1763805600000000:0"; got != want {
		t.Errorf("maskEventID = %q, want %q", got, want)
	}
}

const (
	poisonNumber = "+380671112233"
	poisonName   = "Kovalenko"
)

// fill puts s into every string that v leads to.
func fill(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), s)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), s)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), s)
	case reflect.Uint8:
		v.SetUint('7')
	}
}

// TestMaskLeavesNoNumberAnywhere: a number in any field of any payload or view,
// also in those that no number belongs in.
func TestMaskLeavesNoNumberAnywhere(t *testing.T) {
	check := func(name string, in, out any) {
		t.Helper()
		b, err := json.Marshal(out)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if run := regexp.MustCompile(`[0-9]{3,}`).FindString(strings.ReplaceAll(string(b), `"version":1`, "")); run != "" {
			t.Errorf("%s: %s is left in %s", name, run, b)
		}
		if b, _ := json.Marshal(in); !strings.Contains(string(b), poisonNumber) && strings.Contains(string(b), `":"`) {
			t.Errorf("%s: masking changed what it was given", name)
		}
	}
	for _, ty := range events.Types() {
		p, version := events.NewPayload(ty)
		fill(reflect.ValueOf(p).Elem(), poisonNumber)
		ev := events.Event{
			ID: "x:" + poisonNumber + "@demo.local@1:0", Version: version, Account: poisonNumber, Call: poisonNumber,
			Leg: poisonNumber, Conversation: poisonNumber, Source: events.Source{Connection: poisonNumber, Switch: poisonNumber}, Payload: p,
		}
		check(string(ty), ev, masked(ev))
	}
	var ev cti.Event
	fill(reflect.ValueOf(&ev).Elem(), poisonNumber)
	check("cti.Event", ev, masked(ev))
	var line cti.LineView
	fill(reflect.ValueOf(&line).Elem(), poisonNumber)
	check("cti.LineView", line, masked(line))
	for name := range maskKindsOf(t) {
		v := engine.Evidence{Field: name, Value: poisonNumber}
		if m := masked(v); !figures.MatchString(name) && strings.Contains(m.Value, "067") {
			t.Errorf("evidence of %s: %q", name, m.Value)
		}
	}
}

func maskKindsOf(t *testing.T) map[string]bool {
	names := map[string]bool{}
	ty := reflect.TypeFor[cti.Call]()
	for i := range ty.NumField() {
		name, _, _ := strings.Cut(ty.Field(i).Tag.Get("json"), ",")
		names[name] = true
	}
	if len(names) < 30 {
		t.Fatal("the call's view has lost its fields")
	}
	return names
}

// TestMaskKnowsEveryName: a field whose name says that it holds a person's name
// is masked as one.
func TestMaskKnowsEveryName(t *testing.T) {
	var ev cti.Event
	fill(reflect.ValueOf(&ev).Elem(), poisonName)
	m := masked(ev)
	if m.Call.CallerName != "K." || m.Call.CalledName != "K." || m.Call.Data != hidden || m.UserNote != hidden || m.Line.AgentNote != hidden {
		t.Errorf("masked: %+v %+v", m.Call, m.Line)
	}
	asked := masked[events.Payload](&events.CommandRequested{Method: "holdCall", By: "Anna " + poisonName}).(*events.CommandRequested)
	ended := masked[events.Payload](&events.CallHungup{Hangup: events.Hangup{By: "account"}}).(*events.CallHungup)
	if asked.By != "A***" || asked.Method != "holdCall" || ended.By != "account" {
		t.Errorf("asked by %q, ended by %q", asked.By, ended.By)
	}
}

// TestMaskedOutputHoldsNoCapturedNumber runs every verb that prints with --mask
// on the recordings, and looks for any three digits in a row of any number that
// the recordings hold.
func TestMaskedOutputHoldsNoCapturedNumber(t *testing.T) {
	data := capturesLog(t)
	numbers, names := capturedParties(t, data)
	if len(numbers) < 5 || len(names) < 2 {
		t.Fatalf("the recordings hold numbers %v and names %v", numbers, names)
	}
	capture := filepath.Join("..", "..", "testdata", "captures", "freeswitch", "07-attended-transfer-webitel.jsonl.gz")
	const call = "f88e0fbf-f2a1-44d3-a9ea-fef01ca5ccdd"
	at := "2026-11-22T21:46:30Z"
	outputs := map[string][]string{
		"calls":                {"calls"},
		"calls json":           {"calls", "--json"},
		"history":              {"history", call},
		"history json":         {"history", "--json", call},
		"history conversation": {"history", "--conversation", call},
		"history explain":      {"history", "--explain", call},
		"history explain json": {"history", "--explain", "--json", call},
		"at":                   {"at", at},
		"at json":              {"at", "--json", at},
		"export":               {"export"},
		"export jsonl":         {"export", "--format", "jsonl"},
		"export events":        {"export", "--events"},
		"export events jsonl":  {"export", "--events", "--format", "jsonl"},
	}
	for name, args := range outputs {
		out, _ := runVerb(t, append(args, "--data", data, "--mask")...)
		noNumber(t, name, out, numbers, names)
	}
	out, _ := runVerb(t, "project", "--quiet", "--mask", capture)
	noNumber(t, "project", out, numbers, names)
	for _, g := range []string{"02-inbound-answered", "08-dtmf", "10-blind-transfer"} {
		out, _ := runVerb(t, "project", "--mask", filepath.Join("..", "..", "testdata", "goldens", g+".json"))
		if strings.Contains(out, "380") || strings.Contains(out, `"1004"`) {
			t.Errorf("golden %s:\n%s", g, out)
		}
	}
}

// TestEveryVerbThatPrintsMasks: but for those that print nothing of calls.
func TestEveryVerbThatPrintsMasks(t *testing.T) {
	prints := map[string]string{
		"run": "a log, masked by itself", "replay": "counts", "bench": "figures", "conformance": "names of goldens, and what differs in them",
		"version": "its version", "recording": "the name of a file", "config": "what the operator has written",
	}
	for _, cmd := range newRoot(&env{getenv: func(string) string { return "" }}).Commands() {
		switch has := cmd.Flags().Lookup("mask") != nil; {
		case cmd.GroupID == groupControl: // what was asked for, and whether it was done
		case has == (prints[cmd.Name()] != ""):
			t.Errorf("%s: --mask is there: %t", cmd.Name(), has)
		}
	}
}

// notNumbers are what a number's digits may turn up in by chance: ids, times,
// durations, counters, and the numbers that JSON writes without quotes.
var notNumbers = regexp.MustCompile(opaqueForm +
	`|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+Z)?|\d\d:\d\d:\d\d\.\d+|@\d{16}:|:\d+:\d+|":-?\d+(\.\d+)?|[A-Za-z]+(Ms|Set|Code|Sec)=\S+` +
	`|\b\d+\.\d+s\b|(?m:^ *\d+  )|\[[0-9a-f]{8}\]|leg [0-9a-f]{8}|\b[0-9a-f]{8}\b`)

func noNumber(t *testing.T, name, out string, numbers, names []string) {
	t.Helper()
	if out == "" {
		t.Errorf("%s: nothing printed", name)
	}
	if strings.HasPrefix(name, "export") && !strings.Contains(name, "jsonl") {
		out = withoutFigures(t, out)
	}
	for line := range strings.Lines(out) {
		if name == "history explain json" && regexp.MustCompile(`"field":"\w+(At|Ms)"`).MatchString(line) {
			continue
		}
		rest := notNumbers.ReplaceAllString(line, "~")
		if name == "history explain" {
			rest = regexp.MustCompile(` \d+ `).ReplaceAllString(rest, " ")
		}
		for _, n := range numbers {
			for i := 0; i+3 <= len(n); i++ {
				if strings.Contains(rest, n[i:i+3]) {
					t.Errorf("%s: %s of %s is left in\n%s", name, n[i:i+3], n, line)
					return
				}
			}
		}
		for _, n := range names {
			if strings.Contains(rest, n) {
				t.Errorf("%s: name %s is left in\n%s", name, n, line)
				return
			}
		}
	}
}

// withoutFigures empties the columns of a CSV that hold counters and durations.
func withoutFigures(t *testing.T, out string) string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(out)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, row := range rows {
		for i, name := range rows[0] {
			if !regexp.MustCompile(`_ms$|_code$|position$|^(version|sequence|digits)$`).MatchString(name) {
				b.WriteString(row[i] + "\t")
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// capturedParties are the numbers, as digits, and the names in the log.
func capturedParties(t *testing.T, data string) (numbers, names []string) {
	t.Helper()
	found, named := map[string]bool{}, map[string]bool{}
	out, _ := runVerb(t, "export", "--data", data, "--format", "jsonl")
	for line := range strings.Lines(out) {
		var row struct {
			Account, Caller, Called string
			Target                  string `json:"transfer_target"`
			CallerName              string `json:"caller_name"`
			CalledName              string `json:"called_name"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		account, _, _ := strings.Cut(row.Account, "@")
		for _, n := range []string{account, row.Caller, row.Called, row.Target} {
			d := strings.Map(func(r rune) rune {
				if unicode.IsDigit(r) {
					return r
				}
				return -1
			}, n)
			if len(d) > 2 {
				found[d] = true
			}
		}
		for _, n := range []string{row.CallerName, row.CalledName} {
			for word := range strings.FieldsSeq(n) {
				if len([]rune(word)) > 3 {
					named[word] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(found)), slices.Sorted(maps.Keys(named))
}

// TestMaskKeepsWhatIsNoNumber: --mask changes nothing but what it must.
func TestMaskKeepsWhatIsNoNumber(t *testing.T) {
	v := cti.CallView{Position: 12345, Call: cti.Call{
		ID: "954e8d54-41db-4c55-baf8-481bb97b3c74", CallFeaturesSet: 1816, Features: cti.Features(1816).Names(),
		RingMs: 380671, StartedAt: 1795401419995584, Outcome: cti.OutcomeAnswered, Cause: "NORMAL_CLEARING",
	}}
	if got := masked(v); !reflect.DeepEqual(got, v) {
		t.Errorf("got %+v, want %+v", got, v)
	}
}
