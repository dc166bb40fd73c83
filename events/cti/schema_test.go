package cti

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"

	"github.com/callstate/callstate/events"
)

var update = flag.Bool("update", false, "rewrite the schemas in schema/")

// schemaRow says what an event's schema has beside the members of every event.
type schemaRow struct {
	about    string
	call     bool     // it is about a call: callId, seq and call are there
	required []string // arguments that it always has
	optional []string // arguments that it may have
}

var schemaRows = map[Name]schemaRow{
	Initialized:        {about: "The link to the PBX is up and the account is known; implies line flags 2."},
	Disconnected:       {about: "The link to the PBX is lost; implies line flags 0.", optional: []string{"reason"}},
	CallStarted:        {about: "A call began for the account, in either direction.", call: true},
	CallFinished:       {about: "The call ended; cause, outcome and durations are in call.", call: true},
	CommutationStarted: {about: "The parties hear each other.", call: true},
	Hold:               {about: "The account put the call on hold.", call: true},
	Unhold:             {about: "The account took the call back.", call: true},
	CurrentCallChanged: {about: "Another call became the line's active call.", call: true},
	CallInfoChanged:    {about: "Numbers, names or flags of the call changed.", call: true},
	LineStateChanged: {
		about:    "What the account can do now changed.",
		required: []string{"callFeaturesSet"}, optional: []string{"featuresCallId"},
	},
	AgentStateChanged: {
		about:    "The agent's state changed.",
		required: []string{"userState"}, optional: []string{"userStateNote"},
	},
	DTMFEntered:        {about: "One digit was entered in the call.", call: true, required: []string{"digits"}},
	WebRTCStarted:      {about: "The call has a media session in a browser.", call: true, optional: []string{"sessionId"}},
	WebRTCVideoStarted: {about: "That session has video.", call: true, optional: []string{"sessionId"}},
	WebRTCDestroyed:    {about: "That session ended; the call may go on.", call: true, optional: []string{"sessionId"}},
	AgentAnswered:      {about: "Click-to-call: the agent's own device picked up.", call: true},
	CallAliased: {
		about: "The call got another id; its call id stays.", call: true,
		required: []string{"alias"}, optional: []string{"aliasReason"},
	},
	CallTransferred: {about: "The outcome of a transfer that the account made.", call: true, required: []string{"transfer"}},
	CallParked:      {about: "The call was parked.", call: true},
	CallUnparked:    {about: "The call was taken back from parking.", call: true},
	CallReinstated:  {about: "An inferred end proved wrong and is withdrawn.", call: true, optional: []string{"reason"}},
	CallDetails:     {about: "What the switch told of the call after its end.", call: true},
	SessionQuality:  {about: "The figures of the call's media session so far.", call: true, optional: []string{"sessionId"}},
}

// reflector maps the types whose JSON form is not that of their Go kind.
func reflector(t *testing.T) *jsonschema.Reflector {
	t.Helper()
	r := &jsonschema.Reflector{
		Anonymous: true, AllowAdditionalProperties: true, ExpandedStruct: true,
		Mapper: func(typ reflect.Type) *jsonschema.Schema {
			switch typ {
			case reflect.TypeFor[events.Time]():
				return &jsonschema.Schema{Type: "string", Format: "date-time"}
			case reflect.TypeFor[events.Origin]():
				return &jsonschema.Schema{Type: "string", Enum: []any{"live", "resync", "import"}}
			case reflect.TypeFor[events.Direction]():
				return &jsonschema.Schema{Type: "string", Enum: []any{events.In, events.Out}}
			case reflect.TypeFor[State]():
				return &jsonschema.Schema{Type: "integer", Minimum: "0", Maximum: "6"}
			case reflect.TypeFor[Features]():
				return &jsonschema.Schema{Type: "integer", Minimum: "0", Maximum: "16383"}
			}
			return nil
		},
	}
	if err := r.AddGoComments("github.com/callstate/callstate/events/cti", "."); err != nil {
		t.Fatal(err)
	}
	return r
}

// schemaOf generates the schema of one event.
func schemaOf(t *testing.T, n Name) []byte {
	t.Helper()
	row, ok := schemaRows[n]
	if !ok {
		t.Fatalf("%s has no row in schemaRows", n)
	}
	s := reflector(t).Reflect(Event{})
	s.ID = jsonschema.ID("urn:callstate:schema:" + DefaultPrefix + ":" + string(n))
	s.Title, s.Description = string(n), row.about

	name, _ := s.Properties.Get("event")
	name.Const, name.Description = string(n), ""
	if row.call {
		s.Required = append(s.Required, "seq", "callId", "call")
	}
	args := slices.Concat(row.required, row.optional)
	for i := range reflect.TypeFor[Arguments]().NumField() {
		tag := reflect.TypeFor[Arguments]().Field(i).Tag.Get("json")
		arg := tag[:bytes.IndexByte([]byte(tag+","), ',')]
		if p, ok := s.Properties.Get(arg); !ok {
			t.Fatalf("argument %q is not in the schema", arg)
		} else if !slices.Contains(args, arg) {
			s.Properties.Delete(arg)
		} else if p.Ref == "" && arg != "callFeaturesSet" {
			p.Description = "" // the Go comment names the events
		}
	}
	for _, arg := range args {
		if _, ok := s.Properties.Get(arg); !ok {
			t.Fatalf("%s: there is no argument %q", n, arg)
		}
	}
	s.Required = append(s.Required, row.required...)
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func TestSchemasAreCurrent(t *testing.T) {
	want := map[string]bool{}
	for _, n := range Names() {
		file := filepath.Join("schema", string(n)+".json")
		want[file] = true
		schema := schemaOf(t, n)
		if *update {
			if err := os.WriteFile(file, schema, 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		have, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(have), string(schema)); d != "" {
			t.Errorf("%s is out of date, run go test ./events/cti -update (-file +types):\n%s", file, d)
		}
		if got, ok := Schema(n); !ok || !bytes.Equal(got, have) {
			t.Errorf("Schema(%s) is not the file", n)
		}
	}
	files, err := filepath.Glob("schema/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !want[f] {
			t.Errorf("%s belongs to no event", f)
		}
	}
	if len(schemaRows) != len(Names()) {
		t.Errorf("%d rows, %d names", len(schemaRows), len(Names()))
	}
}

// Every member that the design demands of a call is required by its schema, the
// times excepted: an unknown time is left out.
func TestSchemaRequiresWhatTheDesignPromises(t *testing.T) {
	if *update {
		t.Skip("the embedded schemas are those of before -update")
	}
	b, _ := Schema(CallStarted)
	var s struct {
		Required []string
		Defs     map[string]struct {
			Required   []string
			Properties map[string]any
		} `json:"$defs"`
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{"event", "position", "seq", "lineSeq", "domain", "account", "callId", "call"} {
		if !slices.Contains(s.Required, m) {
			t.Errorf("%s is not required", m)
		}
	}
	call := s.Defs["Call"]
	for _, m := range []string{
		"id", "aliases", "state", "stateName", "oldState", "direction", "callback", "callerId", "calledId",
		"callFeaturesSet", "features", "redirectingId", "redirectionId", "deviceId", "otherLegUUID", "cause", "causeCode",
		"ringMs", "talkMs", "holdMs", "legs", "origin",
	} {
		if !slices.Contains(call.Required, m) {
			t.Errorf("call.%s is not required", m)
		}
	}
	for _, m := range []string{"startedAt", "answeredAt", "bridgedAt", "endedAt"} {
		if _, ok := call.Properties[m]; !ok || slices.Contains(call.Required, m) {
			t.Errorf("call.%s must be known and optional", m)
		}
	}
}
