package verto

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/testdata/captures"
)

// stories is what each recording is of (its README) in the words of a session:
// one line a session, in order of appearance, and one for the phone.
var stories = map[string][]string{
	"freeswitch/17-verto-frames.jsonl": {
		"auth-failed registered",
		"out: requesting trying active held active hangup, bye NORMAL_CLEARING 16 by account",
		"in: ringing answering active held active hangup, bye NORMAL_CLEARING 16 by other",
		"in: ringing answering active hangup, bye NORMAL_CLEARING 16 by other",
		"in: ringing hangup, bye ORIGINATOR_CANCEL 487 by other",
	},
	"verto/01-login.jsonl": {
		"registered closed",
		"out: requesting, failed INVALID_MSG_UNSPECIFIED 95",
		"out: requesting trying, socket-lost",
	},
	"verto/02-login-failure.jsonl": {
		"auth-failed registered closed auth-failed registered closed registered closed registered closed auth-failed registered closed registered displaced",
	},
	"verto/03-outgoing.jsonl": {
		"registered closed",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/04-incoming.jsonl": {
		"registered closed",
		"in: ringing answering active hangup, bye NORMAL_CLEARING 16 by other",
	},
	"verto/05-hold.jsonl": {
		"registered closed",
		"out: requesting trying active held active held active hangup, bye NORMAL_CLEARING 16 by account",
		"out: requesting trying hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/06-dtmf.jsonl": {
		"registered closed",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by account",
		"in: ringing answering active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/07-causes.jsonl": {
		"registered closed",
		"out: requesting trying hangup, bye USER_BUSY 17 by other",
		"out: requesting trying hangup, bye CALL_REJECTED 21 by other",
		"out: requesting trying hangup, bye NO_ROUTE_DESTINATION 3 by other",
		"out: requesting trying hangup, bye NORMAL_TEMPORARY_FAILURE 41 by other",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by other",
		"out: requesting trying active hangup, bye ALLOTTED_TIMEOUT 802 by other",
		"in: ringing hangup, bye USER_BUSY 17 by account",
		"in: ringing hangup, bye CALL_REJECTED 21 by account",
		"in: ringing hangup, bye NO_ANSWER 19 by account",
		"in: ringing hangup, bye NORMAL_CLEARING 16 by account",
		"in: ringing hangup, bye NORMAL_CLEARING 16 by account",
		"in: ringing hangup, bye ORIGINATOR_CANCEL 487 by other",
		"out: requesting trying hangup, bye ORIGINATOR_CANCEL 487 by account",
		"out: requesting trying hangup, bye NORMAL_CLEARING 16 by account",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/08-click-to-call.jsonl": {
		"registered closed",
		"in: ringing answering active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/09-reattach.jsonl": {
		"registered closed registered closed registered closed registered closed",
		"out: requesting trying active detached recovering(1) answering active detached recovering(2) answering active held detached recovering(3) answering held active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/10-reattach-incoming.jsonl": {
		"registered closed registered closed",
		"in: ringing answering active detached recovering(1) answering active hangup, bye NORMAL_CLEARING 16 by other",
	},
	"verto/11-detach-timeout.jsonl": {
		"registered closed registered closed",
		"out: requesting trying active detached, not-reattached",
	},
	"verto/12-drop-unanswered.jsonl": {
		"registered closed registered closed registered closed registered closed",
		"out: requesting trying, socket-lost",
		"out: requesting trying active, socket-lost",
		"out: requesting trying active detached recovering(1) answering active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/13-same-sessid.jsonl": {
		"registered registered displaced closed",
		"out: requesting trying active, displaced; out: recovering answering active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/14-two-sockets.jsonl": {
		"registered registered closed closed",
		"in: ringing answering active hangup, bye NORMAL_CLEARING 16 by account",
		"in: ringing hangup, bye LOSE_RACE 702 by other",
	},
	"verto/15-keepalive.jsonl": {
		"registered closed",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/16-update-media.jsonl": {
		"registered closed",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/17-transfer.jsonl": {
		"registered closed",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by other",
		"out: requesting trying active held hangup, bye NORMAL_CLEARING 16 by other",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by other",
	},
	"verto/18-early-media.jsonl": {
		"registered closed",
		"out: requesting trying early active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/19-zero-address-trap.jsonl": {
		"registered closed registered closed registered closed",
		"in: ringing answering active detached recovering(1) answering active detached recovering(2) answering active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/20-refused-media.jsonl": {
		"registered closed",
		"out: requesting trying hangup, bye INCOMPATIBLE_DESTINATION 88 by other",
		"out: requesting trying hangup, bye INCOMPATIBLE_DESTINATION 88 by other",
		"in: ringing answering ringing answering active hangup, bye NORMAL_CLEARING 16 by account",
	},
	"verto/21-media-lost.jsonl": {
		"registered closed",
		"out: requesting trying active hangup, bye NORMAL_CLEARING 16 by account",
	},
}

// story plays a recording and tells what its sessions did.
func story(t *testing.T, name string, lines []captures.Line) []string {
	t.Helper()
	phones := make(map[int]*Replay)
	told := make(map[string]*strings.Builder)
	var order []string
	say := func(key, format string, args ...any) {
		if told[key] == nil {
			told[key] = new(strings.Builder)
			order = append(order, key)
		}
		fmt.Fprintf(told[key], format, args...)
	}
	framed, frames := 0, 0
	for _, l := range lines {
		who := 0
		switch name { // two phones; elsewhere it is one phone on several sockets
		case "verto/13-same-sessid.jsonl", "verto/14-two-sockets.jsonl":
			who = l.Conn
		}
		if phones[who] == nil {
			phones[who] = NewReplay("1001@demo.local", "pbx:8081")
		}
		var inputs []engine.Input
		at := events.Time(l.T * 1000)
		switch {
		case isFrame(l):
			inputs = phones[who].Frame(l.Frame, l.Dir == "out", at)
			if l.Dir == "in" {
				frames++
			}
		case l.Note == "TCP connection dropped without a close frame", strings.HasPrefix(l.Note, "socket closed"):
			inputs = phones[who].Lost(events.SessionClosed, at)
		}
		for _, in := range inputs {
			if !in.Unframed {
				framed++
			}
			o := in.Session
			if o == nil {
				continue
			}
			if o.Account != "1001@demo.local" || o.At != at || in.Source.Sequence == 0 {
				t.Errorf("%s: %+v from %+v", name, o, in.Source)
			}
			switch o.Kind {
			case engine.SessionRegistered:
				say("", "registered ")
			case engine.SessionUnregistered:
				say("", "%s ", o.Reason)
			case engine.SessionNew:
				if told[o.Session] != nil {
					say(o.Session, "; ")
				}
				say(o.Session, "%s: %s", o.Direction, o.State)
			case engine.SessionState:
				say(o.Session, " %s", o.State)
				if o.State == events.DialogRecovering {
					say(o.Session, "(%d)", o.Attempt)
				}
			case engine.SessionEnded:
				say(o.Session, ", %s", o.Reason)
				if o.Cause != "" {
					say(o.Session, " %s %d", o.Cause, o.CauseCode)
				}
				if o.By != "" {
					say(o.Session, " by %s", o.By)
				}
			}
		}
	}
	if framed != frames {
		t.Errorf("%s: %d frames of the server gave %d inputs", name, frames, framed)
	}
	var list []string
	for _, key := range order {
		list = append(list, strings.TrimSpace(told[key].String()))
	}
	return list
}

func TestRecordingsTellTheirStory(t *testing.T) {
	for name, lines := range transcripts(t) {
		got := story(t, name, lines)
		if diff := cmp.Diff(stories[name], got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestDialogsKeepTheirStateAgainstNonsense(t *testing.T) {
	var d Dialogs
	in := func(method, params string) Step {
		t.Helper()
		f, err := Decode([]byte(`{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":` + params + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return d.Received(&f)
	}
	if s := in(MethodInvite, `{"callID":"a","sdp":"v=0"}`); len(s.Changes) != 1 || s.Fault != "" {
		t.Fatalf("an invite gave %+v", s)
	}
	for _, tt := range []struct{ method, params string }{
		{MethodInvite, `{"callID":"a"}`},                                           // again
		{MethodInvite, `{"sdp":"v=0"}`},                                            // of no call
		{MethodMedia, `{"callID":"a"}`},                                            // a call that we did not place
		{MethodAnswer, `{"callID":"a"}`},                                           // the same
		{MethodAttach, `{"callID":"a"}`},                                           // a call that was not answered
		{MethodMedia, `{"callID":"b"}`},                                            // a call that is not ours
		{MethodAnswer, `{"callID":[]}`},                                            // no text
		{MethodInvite, `{"callID":null}`},                                          // nothing
		{MethodInvite, `{"callID":"` + strings.Repeat("a", events.MaxID+1) + `"}`}, // no id of a switch
	} {
		if s := in(tt.method, tt.params); s.Fault == "" || len(s.Changes) > 0 {
			t.Errorf("%s %s gave %+v, want a fault and nothing else", tt.method, tt.params, s)
		}
	}
	if state, over := d.State("a"); state != events.DialogRinging || over {
		t.Errorf("state %q, over %v", state, over)
	}
	if s := in(MethodBye, `{"callID":"b"}`); s.Fault != "" || len(s.Changes) > 0 {
		t.Errorf("the bye of a call that is gone gave %+v", s)
	}
}

// TestFloodOfInvites: a server that offers calls without end has no more taken than
// a phone can have, and those that end make room.
func TestFloodOfInvites(t *testing.T) {
	var d Dialogs
	in := func(method string, n int) Step {
		t.Helper()
		f, err := Decode(fmt.Appendf(nil, `{"jsonrpc":"2.0","id":1,"method":"%s","params":{"callID":"%d","sdp":"v=0"}}`, method, n))
		if err != nil {
			t.Fatal(err)
		}
		return d.Received(&f)
	}
	for n := range 1000 {
		if s := in([]string{MethodInvite, MethodAttach}[n%2], n); (s.Fault != "") != (n >= maxDialogs) || len(s.Changes) > 0 && s.Fault != "" {
			t.Fatalf("offer %d gave %+v", n, s)
		}
	}
	if got := len(d.calls); got != maxDialogs {
		t.Errorf("%d calls", got)
	}
	in(MethodBye, 0)
	d.Destroy("0")
	if s := in(MethodInvite, 1000); s.Fault != "" || len(s.Changes) != 1 {
		t.Errorf("an invite when there is room gave %+v", s)
	}
}

// Both sides hang up at once: one end, and it is told once.
func TestByesCross(t *testing.T) {
	var d Dialogs
	send := func(b []byte, err error) Step {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		f, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		return d.Sent(&f)
	}
	get := func(text string) Step {
		t.Helper()
		f, err := Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d.Received(&f)
	}
	get(`{"id":9,"method":"verto.invite","params":{"callID":"a"}}`)
	s := send(EncodeRequest(1, MethodBye, &CallRequest{Dialog: Dialog{CallID: "a"}}))
	s.add(get(`{"id":10,"method":"verto.bye","params":{"callID":"a","cause":"ORIGINATOR_CANCEL"}}`))
	s.add(get(`{"id":1,"error":{"code":-32002,"message":"CALL DOES NOT EXIST"}}`))
	s.add(d.Destroy("a"))
	s.add(d.Destroy("a"))
	var to []string
	for _, c := range s.Changes {
		to = append(to, c.To)
	}
	if diff := cmp.Diff([]string{events.DialogHangup, dialogDestroyed}, to); diff != "" {
		t.Error(diff)
	}
	if last := s.Changes[len(s.Changes)-1]; last.By != byAccount || last.Reason != events.SessionBye {
		t.Errorf("ended %+v", last)
	}
}

func TestVideoIsToldWhereThePhoneTakesIt(t *testing.T) {
	for _, tt := range []struct {
		takes bool
		sdp   string
		want  int // SessionVideo while it is active, held and active
	}{
		{true, "v=0\r\nm=audio 1 X 0\r\nm=video 2 X 96\r\n", 2},
		{true, "v=0\r\nm=audio\r\nm=video", 2},
		{true, "v=0\r\nm=audio 1 X 0\r\nm=video 0 X 96\r\n", 0},
		{true, "v=0\r\nm=audio 1 X 0\r\n", 0},
		{false, "v=0\r\nm=video 2 X 96\r\n", 0},
	} {
		d := Dialogs{TakesVideo: tt.takes}
		c := d.open("a", events.In, tt.sdp)
		s := c.begin(events.DialogRinging)
		for _, state := range []string{events.DialogAnswering, events.DialogActive, events.DialogHeld, events.DialogActive} {
			s.add(c.to(state))
		}
		n := 0
		for _, o := range s.observations("") {
			if o.Kind == engine.SessionVideo {
				n++
			}
		}
		if n != tt.want || s.Fault != "" {
			t.Errorf("%q: video was told %d times, want %d; %s", tt.sdp, n, tt.want, s.Fault)
		}
	}
}

// Whatever frames come in whatever order: a dialog begins once, moves only where
// it may, and ends once; and a socket's loss and the time after it leave nothing
// behind that nobody will end.
func TestDialogsUnderAnyConversation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d Dialogs
		state := make(map[string]string) // by call; absent: not begun, or over
		take := func(s Step) {
			for _, c := range s.Changes {
				was, lives := state[c.CallID]
				switch {
				case c.From == "" && lives:
					t.Fatalf("%s begins again in %s", c.CallID, was)
				case c.From != was:
					t.Fatalf("%s was %q, told as %q", c.CallID, was, c.From)
				case c.From != "" && !mayFollow(c.From, c.To):
					t.Fatalf("%s went from %s to %s", c.CallID, c.From, c.To)
				}
				state[c.CallID] = c.To
				if c.To == dialogDestroyed {
					if c.Reason == "" {
						t.Fatalf("%s ended without a reason", c.CallID)
					}
					delete(state, c.CallID)
				}
			}
		}
		call := rapid.SampledFrom([]string{"a", "b", "c"})
		var asked []uint64
		for id := range uint64(rapid.IntRange(1, 60).Draw(t, "steps")) {
			f := Frame{Kind: KindRequest, Version: Version, ID: number(id)}
			body := func(o Object) json.RawMessage {
				b, err := EncodeResult(nil, o)
				if err != nil {
					t.Fatal(err)
				}
				g, err := Decode(b)
				if err != nil {
					t.Fatal(err)
				}
				return g.Result
			}
			switch rapid.IntRange(0, 6).Draw(t, "what") {
			case 0, 1:
				f.Method = rapid.SampledFrom([]string{MethodInvite, MethodMedia, MethodAnswer, MethodBye, MethodAttach}).Draw(t, "received")
				f.Params = body(&Call{CallID: call.Draw(t, "call"), Cause: "NORMAL_CLEARING"})
				take(d.Received(&f))
			case 2, 3:
				f.Method = rapid.SampledFrom([]string{MethodInvite, MethodAnswer, MethodAttach, MethodModify, MethodBye}).Draw(t, "sent")
				f.Params = body(&CallRequest{Dialog: Dialog{CallID: call.Draw(t, "call")}})
				asked = append(asked, id)
				take(d.Sent(&f))
			case 4:
				if len(asked) == 0 {
					continue
				}
				f.ID, f.Kind = number(rapid.SampledFrom(asked).Draw(t, "id")), KindResult
				f.Result = body(&CallResult{HoldState: rapid.SampledFrom([]string{HoldStateHeld, HoldStateActive, ""}).Draw(t, "hold")})
				if rapid.Bool().Draw(t, "refused") {
					f.Kind, f.Error = KindError, &Error{Code: CodeSession, Message: rapid.SampledFrom([]string{"CODEC ERROR", "CALL DOES NOT EXIST"}).Draw(t, "error")}
				}
				take(d.Received(&f))
			case 5:
				take(d.Disconnected(rapid.SampledFrom([]string{events.SessionClosed, events.SessionDisplaced}).Draw(t, "loss")))
				if rapid.Bool().Draw(t, "settled") {
					take(d.Settled())
				}
			case 6:
				for _, id := range d.Over() {
					take(d.Destroy(id))
				}
			}
		}
		take(d.Disconnected(events.SessionClosed))
		take(d.Settled())
		for _, id := range d.Over() {
			take(d.Destroy(id))
		}
		if len(state) > 0 || len(d.calls) > 0 {
			t.Fatalf("left behind: %v", state)
		}
	})
}
