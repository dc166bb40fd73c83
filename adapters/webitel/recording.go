package webitel

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// ErrRecording is matched by the errors of [ReadRecording]: the input is in none
// of the forms that it knows.
var ErrRecording = errors.New("webitel: not a recording")

// Recording is a file of frames, to be read again offline.
type Recording struct {
	Domains  []string // whose accounts are agents, as far as the recording says
	Account  string   // a golden's or an account transcript's own account
	Golden   *Golden  // set if the file is a golden
	Captured []Captured
}

// Captured is one line of a recording. A line that is no server frame has nil
// Raw and a note or stimulus instead.
type Captured struct {
	Raw      []byte
	After    int64  // milliseconds from the recording's begin; -1 if it does not say
	Sent     bool   // by the client
	Stimulus string // a golden's "$action", "$socket", "$verto"
}

// Golden is a recorded scenario with what is expected of it
// (reference/goldens/README.md).
type Golden struct {
	Name     string            `json:"name"`
	Account  string            `json:"account"`
	Config   GoldenConfig      `json:"config"`
	Frames   []json.RawMessage `json:"frames"`
	Expected []json.RawMessage `json:"expected"`
}

// GoldenConfig are the connector's settings; an absent one has the reference's default.
type GoldenConfig struct {
	UseWebPhone                  bool  `json:"useWebPhone"`
	UseVideo                     bool  `json:"useVideo"`
	IsSIPAutoAnswerHeaderSupport *bool `json:"isSipAutoAnswerHeaderSupported"`
}

// Answerable reports whether the connector offers CAN_ANSWER.
func (c GoldenConfig) Answerable() bool {
	return c.UseWebPhone || c.IsSIPAutoAnswerHeaderSupport == nil || *c.IsSIPAutoAnswerHeaderSupport
}

// ReadRecording reads a golden, or lines of: server frames as they came, FreeSWITCH
// events as they are, or a transcript ({"t","dir","frame"}). gzip is recognised.
func ReadRecording(r io.Reader) (*Recording, error) {
	br := bufio.NewReaderSize(r, 1<<16)
	if magic, _ := br.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRecording, err)
		}
		br = bufio.NewReaderSize(zr, 1<<16)
	}
	text, err := io.ReadAll(br)
	if err != nil {
		return nil, fmt.Errorf("read recording: %w", err)
	}
	var g Golden
	if json.Unmarshal(text, &g) == nil && len(g.Frames) > 0 {
		return readGolden(&g), nil
	}
	return readLines(text)
}

func readGolden(g *Golden) *Recording {
	_, domain, _ := strings.Cut(g.Account, "@")
	rec := &Recording{Domains: []string{domain}, Account: g.Account, Golden: g}
	for _, f := range g.Frames {
		var stimulus map[string]json.RawMessage
		c := Captured{Raw: f, After: -1}
		if json.Unmarshal(f, &stimulus) == nil {
			for name := range stimulus {
				if strings.HasPrefix(name, "$") {
					c = Captured{Stimulus: name, After: -1}
				}
			}
		}
		rec.Captured = append(rec.Captured, c)
	}
	return rec
}

// transcriptLine is one line of a transcript.
type transcriptLine struct {
	T     *int64          `json:"t"`
	Dir   string          `json:"dir"`
	Frame json.RawMessage `json:"frame"`
	Raw   *string         `json:"raw"`
}

func readLines(text []byte) (*Recording, error) {
	rec := &Recording{}
	domains := map[string]bool{}
	for n, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		var t transcriptLine
		err := json.Unmarshal(line, &t)
		switch {
		case err == nil && t.Dir != "" && t.T != nil:
			rec.addTranscript(&t, domains)
		case err != nil && n == 0 && line[0] != '{':
			return nil, fmt.Errorf("%w: line 1 is no JSON object", ErrRecording)
		default:
			rec.Captured = append(rec.Captured, Captured{Raw: line, After: -1})
			domainsOf(line, domains)
		}
	}
	if len(rec.Captured) == 0 {
		return nil, fmt.Errorf("%w: no frame in it", ErrRecording)
	}
	if len(rec.Domains) == 0 {
		for d := range domains {
			rec.Domains = append(rec.Domains, d)
		}
	}
	return rec, nil
}

func (rec *Recording) addTranscript(t *transcriptLine, domains map[string]bool) {
	c := Captured{After: *t.T, Sent: t.Dir == "out"}
	switch {
	case t.Frame != nil && t.Dir != "note":
		c.Raw = t.Frame
	case t.Raw != nil && t.Dir == "in":
		c.Raw = []byte(*t.Raw)
	default:
		return
	}
	rec.Captured = append(rec.Captured, c)
	if c.Sent {
		return
	}
	domainsOf(c.Raw, domains)
	var reply struct {
		Response struct {
			Login  string `json:"login"`
			Domain string `json:"domain"`
		} `json:"exec-response"`
	}
	if json.Unmarshal(c.Raw, &reply) == nil && reply.Response.Domain != "" && len(rec.Domains) == 0 {
		rec.Domains = []string{reply.Response.Domain}
		rec.Account = reply.Response.Login
	}
}

// domainsOf notes the domain that a frame says its accounts are in. Of a trunk's
// leg variable_domain_name says nothing of the sort.
func domainsOf(frame []byte, domains map[string]bool) {
	if !bytes.Contains(frame, []byte("variable_dialed_domain")) && !bytes.Contains(frame, []byte("variable_sip_auth_realm")) {
		return
	}
	var f struct {
		Dialed string `json:"variable_dialed_domain"`
		Realm  string `json:"variable_sip_auth_realm"`
	}
	if json.Unmarshal(frame, &f) != nil {
		return
	}
	for _, d := range []string{f.Dialed, f.Realm} {
		if d != "" {
			domains[d] = true
		}
	}
}

// Inputs turns the recording into inputs, one for each captured line: nil Input
// pointers stand for lines that no frame of the server is. The clock of arrival
// is the recording's: the event's own time where it has one, else the
// transcript's; it never runs backwards.
func (rec *Recording) Inputs() []*engine.Input {
	ins := make([]*engine.Input, len(rec.Captured))
	src := events.Source{Adapter: "webitel", Connection: "recording"}
	lists := map[string]bool{} // ids of api account list commands
	base, clock := rec.begin()
	for i := range rec.Captured {
		c := &rec.Captured[i]
		if c.Raw == nil {
			continue
		}
		if c.Sent {
			if cmd, err := Decode(c.Raw); err == nil && bytes.Contains(c.Raw, []byte(`"api account list"`)) {
				lists[cmd.Reply.ID] = true
			}
			continue
		}
		if c.After >= 0 && base != 0 {
			clock = max(clock, base+events.Time(c.After*1000))
		}
		src.Sequence = uint64(i) + 1
		in := Observe(c.Raw, src, clock)
		if in.Leg != nil && in.Leg.At > clock {
			clock = in.Leg.At
			in.ReceivedAt = clock
		}
		if f, err := Decode(c.Raw); err == nil && lists[f.Reply.ID] && f.Kind == KindReply && len(rec.Domains) > 0 {
			in.Agents, _ = AccountList(f.Reply.Response, rec.Domains[0]) // a list that was refused tells of nobody
		}
		in.Origin = events.Import
		ins[i] = &in
	}
	return ins
}

// begin returns the time at which a transcript's clock was zero and the time of
// the first line, both as far as the first frame with a time tells; 0 if none has.
func (rec *Recording) begin() (zero, first events.Time) {
	for i := range rec.Captured {
		c := &rec.Captured[i]
		if c.Raw == nil || c.Sent {
			continue
		}
		in := Observe(c.Raw, events.Source{}, 0)
		if in.Leg == nil {
			continue
		}
		at := max(in.Leg.At, in.Leg.CreatedAt, in.Leg.AnsweredAt, in.Leg.HungupAt)
		if at == 0 {
			continue
		}
		if c.After < 0 {
			return 0, at
		}
		zero = at - events.Time(c.After*1000)
		return zero, zero
	}
	return 0, 0
}
