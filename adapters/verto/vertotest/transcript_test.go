package vertotest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pion/webrtc/v4"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/testdata/captures"
)

// TestTranscripts plays the client's part of each recording of mod_verto against
// the server, and what the far ends did, and compares what the server says: method,
// order, codes, texts, causes, the members of every object and the shape of every
// description. Media are real.
func TestTranscripts(t *testing.T) {
	names, err := captures.List("verto/*.jsonl")
	if err != nil || len(names) != 21 {
		t.Fatalf("recordings: %v, %v", names, err)
	}
	for _, name := range append(names, "freeswitch/17-verto-frames.jsonl") {
		t.Run(strings.TrimSuffix(path.Base(name), ".jsonl"), func(t *testing.T) {
			t.Parallel()
			opts := Options{Dialplan: func(l *Leg) Route {
				return Route{Ring: -1, Bridged: l.Destination() != "8001", Far: Echo}
			}}
			switch {
			case strings.Contains(name, "keepalive"):
				opts.KeepAlive = 2 * time.Second
			case strings.Contains(name, "verto-frames"):
				opts.EventChannels = []string{"FSevent", "presence"}
			case strings.Contains(name, "detach-timeout"):
				opts.DetachTimeout = time.Millisecond
			}
			lines, err := captures.Transcript(name)
			if err != nil {
				t.Fatal(err)
			}
			p := player{
				t: t, s: newServer(t, opts), lines: lines, probes: make(map[int]*probe),
				ids: make(map[string]string), peers: make(map[string]*peer), offers: make(map[string]string), answers: make(map[string]string),
			}
			for i := range lines {
				if p.play(i); t.Failed() {
					t.Fatalf("at line %d: %s", i+1, abridged(lines[i]))
				}
			}
			p.silent()
		})
	}
}

// player plays one recording.
type player struct {
	t      *testing.T
	s      *Server
	lines  []captures.Line
	probes map[int]*probe // by conn
	lost   int            // probes whose sockets are gone

	ids     map[string]string // callIDs: the recording's, and ours where it differs
	ringing int               // invites of the server that are still to be read
	peers   map[string]*peer  // by callID
	offers  map[string]string // of the server, by callID
	answers map[string]string // our answers to them
}

func abridged(l captures.Line) string {
	return fmt.Sprintf("%d %s conn %d %s %.200s", l.T, l.Dir, l.Conn, l.Note, l.Frame)
}

func (p *player) play(i int) {
	l := &p.lines[i]
	out := l.Dir == "out"
	probe := p.probes[l.Conn]
	if probe == nil {
		probe = p.dial(l.Conn)
	}
	switch {
	case l.Note != "" && out:
		p.act(probe, l.Note)
	case l.Note != "":
		p.closed(probe, l.Note)
	case bytes.HasPrefix(l.Frame, []byte(`"`)):
		var text string
		if err := json.Unmarshal(l.Frame, &text); err != nil {
			p.t.Fatal(err)
		}
		probe.write(p.t, []byte(text))
	case out:
		p.send(probe, i)
	default:
		p.receive(probe, i)
	}
}

// dial opens the next socket, when the server has noticed the loss of the others.
func (p *player) dial(conn int) *probe {
	live := len(p.probes) - p.lost
	within(p.t, "end of the lost sockets", func() bool { return p.s.Sockets("") <= live })
	if strings.Contains(p.t.Name(), "detach-timeout") && conn > 1 {
		within(p.t, "end of the lost call", func() bool { return len(p.s.Legs("")) == 0 })
	}
	p.probes[conn] = dial(p.t, p.s)
	return p.probes[conn]
}

// act does what was no message.
func (p *player) act(probe *probe, note string) {
	control := map[string]struct {
		kind int
		data string
	}{
		"websocket control PING, payload hello": {websocket.PingMessage, "hello"},
		"websocket control PING, no payload":    {websocket.PingMessage, ""},
		"websocket control PONG, no payload":    {websocket.PongMessage, ""},
		"websocket CLOSE 1000":                  {websocket.CloseMessage, string(websocket.FormatCloseMessage(1000, ""))},
	}
	c, ok := control[note]
	switch {
	case note == "TCP connection dropped without a close frame":
		_ = probe.ws.Close()
	case !ok:
		p.t.Fatalf("unknown note %q", note)
	default:
		if err := probe.ws.WriteControl(c.kind, []byte(c.data), time.Now().Add(time.Second)); err != nil {
			p.t.Fatal(err)
		}
	}
}

// closed follows the end of a socket, which the note tells.
func (p *player) closed(probe *probe, note string) {
	p.lost++
	if strings.Contains(note, "use of closed network connection") {
		_ = probe.ws.Close() // the client's own doing
		return
	}
	within(p.t, "end of the socket", func() bool {
		probe.mu.Lock()
		defer probe.mu.Unlock()
		return probe.code == websocket.CloseNormalClosure
	})
}

// send sends a recorded message, with real secrets and descriptions.
func (p *player) send(probe *probe, i int) {
	frame := p.lines[i].Frame
	for recorded, ours := range p.ids {
		frame = bytes.ReplaceAll(frame, []byte(recorded), []byte(ours))
	}
	f, err := verto.Decode(frame)
	if err != nil {
		p.t.Fatal(err)
	}
	var params map[string]json.RawMessage
	if f.Kind != verto.KindRequest || json.Unmarshal(f.Params, &params) != nil {
		_ = probe.ws.WriteMessage(websocket.TextMessage, frame) // may come after the end of the socket, as recorded
		return
	}
	if params["passwd"] != nil {
		params["passwd"], _ = json.Marshal(p.password(i, &f))
	}
	if params["sdp"] != nil {
		params["sdp"], _ = json.Marshal(p.describe(&f))
	}
	if f.Params, err = json.Marshal(params); err != nil {
		p.t.Fatal(err)
	}
	b, err := f.Encode()
	if err != nil {
		p.t.Fatal(err)
	}
	_ = probe.ws.WriteMessage(websocket.TextMessage, b)
}

// password is right if it was right in the recording.
func (p *player) password(i int, f *verto.Frame) string {
	var l verto.Login
	if err := verto.Read(f.Params, &l); err != nil {
		p.t.Fatal(err)
	}
	for _, later := range p.lines[i+1:] {
		a, err := verto.Decode(later.Frame)
		if err != nil || later.Conn != p.lines[i].Conn || string(a.ID) != string(f.ID) || a.Kind == verto.KindRequest {
			continue
		}
		switch {
		case a.Kind == verto.KindResult:
			number, _, _ := strings.Cut(l.Login, "@")
			return number
		case a.Error.Message == "Missing passwd":
			return ""
		}
		break
	}
	return "wrong"
}

// describe returns a real description that is as good or as bad as the recorded.
func (p *player) describe(f *verto.Frame) string {
	var r verto.CallRequest
	if err := verto.Read(f.Params, &r); err != nil {
		p.t.Fatal(err)
	}
	id := r.Dialog.CallID
	if !strings.Contains(r.SDP, "m=audio") {
		return r.SDP // junk
	}
	var sdp string
	switch {
	case f.Method == verto.MethodInvite:
		if p.peers[id] != nil {
			break // a callID in use: any offer will do
		}
		p.peers[id] = newPeer(p.t, webrtc.MimeTypePCMU, strings.Contains(r.SDP, telephoneEvent[len("audio/"):]))
		sdp = p.peers[id].offer(p.t)
	case f.Method == verto.MethodModify:
		d, err := p.peers[id].pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
		sdp = p.peers[id].local(p.t, d, err)
	case p.offers[id] == "":
		sdp = p.answers[id] // once more
	default:
		if p.peers[id] != nil {
			p.peers[id].close()
		}
		p.peers[id] = newPeer(p.t, webrtc.MimeTypePCMU, strings.Contains(r.SDP, telephoneEvent[len("audio/"):]))
		offer := p.offers[id]
		if strings.Contains(r.SDP, "a=sendrecv") {
			offer = strings.Replace(offer, "a=sendonly", "a=sendrecv", 1)
		}
		sdp = p.peers[id].answer(p.t, offer)
		p.offers[id], p.answers[id] = "", sdp
	}
	if sdp == "" {
		return r.SDP
	}
	if strings.Contains(r.SDP, "c=IN IP4 0.0.0.0") {
		sdp = strings.Replace(sdp, "c=IN IP4 127.0.0.1", "c=IN IP4 0.0.0.0", 1)
	}
	if strings.Contains(r.SDP, "m=audio 0 ") {
		head, tail, _ := strings.Cut(sdp, "m=audio ")
		_, rest, _ := strings.Cut(tail, " ")
		sdp = head + "m=audio 0 " + rest
	}
	if !strings.Contains(r.SDP, "a=candidate") {
		lines := slices.DeleteFunc(strings.SplitAfter(sdp, "\r\n"), func(l string) bool { return strings.HasPrefix(l, "a=candidate") })
		sdp = strings.Join(lines, "")
	}
	return sdp
}

// receive has the far ends do what makes the server say the recorded, and waits
// for that.
func (p *player) receive(probe *probe, i int) {
	want, err := verto.Decode(p.lines[i].Frame)
	if err != nil {
		p.t.Fatal(err)
	}
	if want.Method == verto.MethodEvent {
		return // of a subscription; there are none here
	}
	if want.Kind != verto.KindRequest {
		got := probe.answer(p.t, string(want.ID))
		p.compare("answer", want.Result, got.Result)
		p.compareErrors(want.Error, got.Error)
		var r verto.CallResult
		if verto.Read(got.Result, &r) == nil && r.SDP != "" {
			p.peers[r.CallID].accept(p.t, r.SDP)
		}
		return
	}
	c := readCall(p.t, want)
	ours := c.CallID
	if id := p.ids[ours]; id != "" {
		ours = id
	}
	if l := p.s.Leg(ours); l != nil {
		switch want.Method {
		case verto.MethodAnswer:
			l.Answer()
		case verto.MethodMedia:
			l.Early()
		case verto.MethodBye:
			l.Hangup(c.Cause)
		}
	} else if want.Method == verto.MethodInvite && p.ringing == 0 {
		call := Call{
			CallID: c.CallID, CallerName: c.CallerIDName, CallerNumber: c.CallerIDNumber, CalleeName: c.CalleeIDName,
			Variables: c.Shared(), Headers: make(map[string]string),
		}
		for name := range c.Extra {
			call.Headers[strings.TrimPrefix(name, "verto_h_")] = "x"
		}
		legs, err := p.s.Originate("1001@demo.local", call)
		if err != nil {
			p.t.Fatal(err)
		}
		p.ringing = len(legs)
	}
	got := probe.request(p.t, want.Method)
	p.compare(want.Method, want.Params, got.Params)
	g := readCall(p.t, got)
	switch want.Method {
	case verto.MethodInvite:
		p.ringing--
		p.ids[c.CallID] = g.CallID
		p.offers[g.CallID] = g.SDP
	case verto.MethodAttach:
		p.offers[g.CallID] = g.SDP
	case verto.MethodAnswer, verto.MethodMedia:
		if g.SDP != "" {
			p.peers[g.CallID].accept(p.t, g.SDP)
		}
	}
}

// silent checks that the server said nothing more than the recorded.
func (p *player) silent() {
	for conn, probe := range p.probes {
		probe.mu.Lock()
		for _, f := range probe.requests {
			p.t.Errorf("conn %d: %s %.200s was sent, and never was in the recording", conn, f.Method, f.Params)
		}
		probe.mu.Unlock()
	}
}

func (p *player) compareErrors(want, got *verto.Error) {
	if (want == nil) != (got == nil) {
		p.t.Errorf("error %+v, recorded %+v", got, want)
	}
	if want == nil || got == nil {
		return
	}
	w, g := *want, *got
	w.Extra, g.Extra = nil, nil
	if fmt.Sprint(w) != fmt.Sprint(g) || !slices.Equal(slices.Sorted(maps.Keys(want.Extra)), slices.Sorted(maps.Keys(got.Extra))) {
		p.t.Errorf("error %+v, recorded %+v", got, want)
	}
}

func (p *player) compare(what string, want, got json.RawMessage) {
	if (want == nil) != (got == nil) {
		p.t.Errorf("%s: got %s, recorded %s", what, got, want)
	}
	if want == nil || got == nil {
		return
	}
	var w, g any
	if json.Unmarshal(want, &w) != nil || json.Unmarshal(got, &g) != nil {
		p.t.Fatalf("%s: %s or %s is no JSON", what, want, got)
	}
	if d := differs(what, "", w, g); d != "" {
		p.t.Errorf("%s\n got %s\nwant %s", d, got, want)
	}
}

// exact are the members whose values must be the recorded ones; of the others only
// the type is compared.
var exact = []string{
	"message", "cause", "causeCode", "action", "holdState", "display_direction", "subscribedChannels", "unauthorizedChannels",
}

func differs(path, key string, want, got any) string {
	if fmt.Sprintf("%T", want) != fmt.Sprintf("%T", got) {
		return path + ": type"
	}
	switch w := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		wk, gk := slices.Sorted(maps.Keys(w)), slices.Sorted(maps.Keys(g))
		if !slices.Equal(wk, gk) {
			return fmt.Sprintf("%s: members %v, recorded %v", path, gk, wk)
		}
		for k := range w {
			if d := differs(path+"."+k, k, w[k], g[k]); d != "" {
				return d
			}
		}
		return ""
	case []any:
		if g, _ := got.([]any); len(g) != len(w) {
			return path + ": length"
		}
	case string:
		if g, _ := got.(string); key == "sdp" && shapeOf(w) != shapeOf(g) {
			return fmt.Sprintf("%s: got\n%s\nrecorded\n%s", path, shapeOf(g), shapeOf(w))
		}
	}
	if slices.Contains(exact, key) && fmt.Sprint(want) != fmt.Sprint(got) {
		return fmt.Sprintf("%s: %v, recorded %v", path, got, want)
	}
	return ""
}

// masks hide what differs from call to call in a description.
var masks = []struct{ pattern, with string }{
	{`(?m)^o=FreeSWITCH \d+ \d+`, "o=FreeSWITCH # #"},
	{`(?m)^m=audio [1-9]\d*`, "m=audio #"},
	{`(?m)^a=rtcp:\d+`, "a=rtcp:#"},
	{`(?m)^a=candidate:\d{10} (.*) [1-9]\d* typ`, "a=candidate:# $1 # typ"},
	{`(?m)^a=ssrc:\d+`, "a=ssrc:#"},
	{`(?m)^a=fingerprint:sha-256 ([0-9A-F]{2}:){31}[0-9A-F]{2}`, "a=fingerprint:#"},
	{`(?m)^a=(ice-\w+):[0-9A-Za-z]+`, "a=$1:#"},
	{`\b[0-9A-Za-z]{32}(a0)?\b`, "#$1"},
	{`cname:[0-9A-Za-z]{16}`, "cname:#"},
}

func shapeOf(sdp string) string {
	for _, m := range masks {
		sdp = regexp.MustCompile(m.pattern).ReplaceAllString(sdp, m.with)
	}
	return sdp
}
