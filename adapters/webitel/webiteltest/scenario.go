package webiteltest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Scenario is a recording of FreeSWITCH events, prepared to be played many times.
// It does not change and may be shared.
type Scenario struct {
	Name string
	// Domain is that of the accounts in it, and Agents are their numbers, in the
	// order in which they appear.
	Domain string
	Agents []string
	// Outside are the other numbers that take part: trunk callers and what was
	// dialled.
	Outside []string

	steps []step
	took  time.Duration
	first int64          // microseconds, the recording's own
	names map[string]int // ids of the recording and their places in a filling
	core  int            // the id that is the one Core-UUID; -1 if there are several
	seqLo uint64
	seqN  uint64 // how many sequence numbers it spans
}

// step is one event.
type step struct {
	name    string
	at      time.Duration // since the first event
	leg     int           // id of its Unique-ID; -1 if it has none
	ending  bool          // CHANNEL_DESTROY, or a state after it
	vars    bool
	custom  bool
	full    template // the event with presence data
	size    int      // about that of full
	account template // nil if no account gets it
	routing [3]template
}

// template is text with holes.
type template []piece

type piece struct {
	text []byte // nil for a hole
	kind hole
	n    int64
}

type hole uint8

const (
	holeID      hole = iota + 1 // n is the id
	holeMicros                  // n is the time in the recording, microseconds
	holeSeconds                 // n is the time in the recording, seconds
	holeDate                    // n is the time in the recording, seconds; written as a date
	holeSeq                     // n counts from the first sequence number
	holeNumber                  // text holds the number
	holeDomain
)

const dateLayout = "2006-01-02 15:04:05"

// ParseScenario reads a recording: one FreeSWITCH event a line.
func ParseScenario(name string, lines [][]byte) (*Scenario, error) {
	return parseScenario(name, lines, nil)
}

// parseScenario lets edit change each event first; nil means not.
func parseScenario(name string, lines [][]byte, edit func(fields) fields) (*Scenario, error) {
	c := compiler{sc: &Scenario{Name: name, names: make(map[string]int)}, numbers: make(map[string]bool), routed: make(map[string]bool)}
	var events []fields
	for i, l := range lines {
		if len(bytes.TrimSpace(l)) == 0 {
			continue
		}
		f, err := parseFields(l)
		if err != nil {
			return nil, fmt.Errorf("%s line %d: %w", name, i+1, err)
		}
		if edit != nil {
			f = edit(f)
		}
		events = append(events, f)
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("webiteltest: %s: no events", name)
	}
	c.survey(events)
	for _, f := range events {
		c.add(f)
	}
	return c.sc, nil
}

// compiler finds what differs from one playing to the next.
type compiler struct {
	sc      *Scenario
	numbers map[string]bool // numbers that take part
	routed  map[string]bool // legs whose dialplan has set the domain
	last    int64           // of the recording, microseconds
	// literals are the domain and the SIP call ids, which have no form of their own.
	literals []string
}

// survey learns the names of things.
func (c *compiler) survey(events []fields) {
	sc := c.sc
	sc.first, sc.seqLo, sc.core = 1<<62, 1<<62, -1
	cores := make(map[string]bool)
	domains := make(map[string]int)
	var seqHi uint64
	literals := make(map[string]bool)
	for _, f := range events {
		cores[f.get("Core-UUID")] = true
		if n, err := strconv.ParseInt(f.get("Event-Date-Timestamp"), 10, 64); err == nil {
			sc.first, c.last = min(sc.first, n), max(c.last, n)
		}
		if n, err := strconv.ParseUint(f.get("Event-Sequence"), 10, 64); err == nil {
			sc.seqLo, seqHi = min(sc.seqLo, n), max(seqHi, n)
		}
		if d := f.first("variable_domain_name", "variable_dialed_domain", "variable_sip_auth_realm"); d != "" {
			domains[d]++
		}
		if id := f.get("variable_sip_call_id"); id != "" {
			literals[id] = true
		}
	}
	for d, n := range domains {
		if n > domains[sc.Domain] {
			sc.Domain = d
		}
	}
	sc.seqN = seqHi - min(sc.seqLo, seqHi) + 1
	sc.took = time.Duration(c.last-sc.first) * time.Microsecond
	for _, f := range events {
		number, domain, _ := strings.Cut(f.get("Channel-Presence-ID"), "@")
		if domain == sc.Domain && domain != "" {
			if !slices.Contains(sc.Agents, number) {
				sc.Agents = append(sc.Agents, number)
			}
			c.numbers[number] = true
		}
	}
	for _, f := range events {
		number, _, _ := strings.Cut(f.get("Channel-Presence-ID"), "@")
		for _, v := range []string{number, f.get("Caller-Destination-Number"), f.get("Caller-Caller-ID-Number")} {
			v = strings.TrimPrefix(v, "+")
			if v != "" && strings.Trim(v, "0123456789") == "" && !c.numbers[v] && len(v) > 3 {
				c.numbers[v] = true
				sc.Outside = append(sc.Outside, v)
			}
		}
	}
	c.literals = slices.Sorted(maps.Keys(literals)) // sorted, so that a seed gives the same ids
	for _, id := range c.literals {
		c.id(id)
	}
	if sc.Domain != "" {
		c.literals = append(c.literals, sc.Domain)
	}
	if len(cores) == 1 {
		for core := range cores {
			sc.core = c.id(core)
		}
	}
}

func (c *compiler) id(s string) int {
	n, ok := c.sc.names[s]
	if !ok {
		n = len(c.sc.names)
		c.sc.names[s] = n
	}
	return n
}

// add prepares one event. Accounts' legs get the domain as presence data, as the
// directory of the captures' rig sets it, other legs from the moment on when the
// dialplan has put them into the domain.
func (c *compiler) add(f fields) {
	sc := c.sc
	leg := f.get("Unique-ID")
	if f.get("variable_domain_name") == sc.Domain && sc.Domain != "" {
		c.routed[leg] = true
	}
	_, domain, _ := strings.Cut(f.get("Channel-Presence-ID"), "@")
	if domain != "" && !f.has("Channel-Presence-Data") && (domain == sc.Domain || c.routed[leg]) {
		f = f.set("Channel-Presence-Data", sc.Domain)
	}
	r, full := f.routing(), f.encode()
	at, _ := strconv.ParseInt(f.get("Event-Date-Timestamp"), 10, 64)
	st := step{
		name: r.name, leg: -1, vars: f.hasVariables(), custom: r.custom,
		at:      max(0, time.Duration(at-sc.first)*time.Microsecond),
		ending:  r.name == "CHANNEL_DESTROY" || f.get("Channel-State") == "CS_DESTROY",
		full:    c.template(full),
		size:    len(full) + 64,
		routing: [3]template{c.template([]byte(r.presence)), c.template([]byte(r.data)), c.template([]byte(r.domain))},
	}
	if leg != "" {
		st.leg = c.id(leg)
	}
	if accountNames[r.name] && !r.custom && r.presence != "" {
		st.account = c.template(f.accountFrame())
	}
	sc.steps = append(sc.steps, st)
}

// template cuts text at what differs from playing to playing.
func (c *compiler) template(b []byte) template {
	var t template
	from := 0
	for i := 0; i < len(b); {
		n := c.word(b, i)
		if n == 0 {
			i++
			continue
		}
		p, ok := c.hole(b[i:i+n], bytes.HasSuffix(b[:i], []byte(`"Event-Sequence":"`)))
		if ok {
			if i > from {
				t = append(t, piece{text: b[from:i]})
			}
			t = append(t, p)
			from = i + n
		}
		i += n
	}
	if from < len(b) {
		t = append(t, piece{text: b[from:]})
	}
	return t
}

// word returns the length of the word at b[i] that may differ, 0 if there is none.
func (c *compiler) word(b []byte, i int) int {
	for _, l := range c.literals {
		if b[i] == l[0] && len(b)-i >= len(l) && string(b[i:i+len(l)]) == l {
			return len(l)
		}
	}
	const uuidForm, dateForm = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "0000-00-00 00:00:00"
	switch {
	case !isHex(b[i]):
		return 0
	case hasForm(b[i:], uuidForm):
		return len(uuidForm)
	case !isDigit(b[i]):
		return 0
	case hasForm(b[i:], dateForm):
		return len(dateForm)
	}
	n := 1
	for i+n < len(b) && isDigit(b[i+n]) {
		n++
	}
	return n
}

// hasForm reports whether b begins in a form where x is a hexadecimal and 0 a
// decimal digit.
func hasForm(b []byte, form string) bool {
	if len(b) < len(form) {
		return false
	}
	for i := range len(form) {
		switch c := b[i]; form[i] {
		case 'x':
			if !isHex(c) {
				return false
			}
		case '0':
			if !isDigit(c) {
				return false
			}
		default:
			if c != form[i] {
				return false
			}
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' }

// hole says what a word stands for.
func (c *compiler) hole(word []byte, sequence bool) (piece, bool) {
	s := string(word)
	if s == c.sc.Domain {
		return piece{text: word, kind: holeDomain}, true
	}
	if _, known := c.sc.names[s]; known || len(s) == 36 && s[8] == '-' {
		return piece{kind: holeID, n: int64(c.id(s))}, true
	}
	if sequence {
		n, err := strconv.ParseUint(s, 10, 64)
		return piece{kind: holeSeq, n: int64(n - c.sc.seqLo)}, err == nil
	}
	if len(s) == len(dateLayout) && s[4] == '-' {
		d, err := time.Parse(dateLayout, s)
		return piece{kind: holeDate, n: d.Unix()}, err == nil
	}
	if c.numbers[s] {
		return piece{text: word, kind: holeNumber}, true
	}
	const day = 86_400_000_000
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil:
	case len(s) == 16 && n > c.sc.first-day && n < c.last+day:
		return piece{kind: holeMicros, n: n}, true
	case len(s) == 10 && n*1_000_000 > c.sc.first-day && n*1_000_000 < c.last+day:
		return piece{kind: holeSeconds, n: n}, true
	}
	return piece{}, false
}

// filling is what one playing puts into the holes.
type filling struct {
	ids     []string
	shift   int64 // microseconds
	seq     uint64
	numbers map[string]string
	domain  string
}

// fill makes new ids. Several cores in one recording, as after a crash, each get
// a new one.
func (sc *Scenario) fill(core string, shift int64, seq uint64, numbers map[string]string, domain string, rnd *rand.Rand) *filling {
	f := &filling{ids: make([]string, len(sc.names)), shift: shift, seq: seq, numbers: numbers, domain: domain}
	for i := range f.ids {
		f.ids[i] = newID(rnd)
	}
	if sc.core >= 0 {
		f.ids[sc.core] = core
	}
	return f
}

func newID(rnd *rand.Rand) string {
	if rnd == nil {
		return uuid.NewString()
	}
	var id uuid.UUID
	for i := range id {
		id[i] = byte(rnd.Uint32())
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id.String()
}

func (t template) render(b []byte, f *filling) []byte {
	for i := range t {
		p := &t[i]
		switch p.kind {
		case holeID:
			b = append(b, f.ids[p.n]...)
		case holeMicros:
			b = strconv.AppendInt(b, p.n+f.shift, 10)
		case holeSeconds:
			b = strconv.AppendInt(b, p.n+f.shift/1_000_000, 10)
		case holeDate:
			b = time.Unix(p.n+f.shift/1_000_000, 0).UTC().AppendFormat(b, dateLayout)
		case holeSeq:
			b = strconv.AppendUint(b, f.seq+uint64(p.n), 10)
		case holeNumber:
			if v, ok := f.numbers[string(p.text)]; ok {
				b = append(b, v...)
			} else {
				b = append(b, p.text...)
			}
		case holeDomain:
			if f.domain != "" {
				b = append(b, f.domain...)
			} else {
				b = append(b, p.text...)
			}
		default:
			b = append(b, p.text...)
		}
	}
	return b
}
