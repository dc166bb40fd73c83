package vertotest

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/events"
)

// State is how far a leg is.
type State uint8

// The states.
const (
	Ringing State = iota + 1 // the client, or whom it calls
	Early                    // and early media flows
	Up                       // answered
	Over
)

// Leg is one dialog: the channel of FreeSWITCH between the server and a client.
// Its callID is the channel's Unique-ID. Methods are safe for concurrent use.
type Leg struct {
	s         *Server
	id        string
	login     string
	sessid    string
	number    uint64 // in the order of their beginnings
	placed    bool   // by the client
	invited   verto.CallRequest
	far       FarEnd
	counts    counters
	net       *network
	ssrc      uint32
	camera    camera
	answered  chan struct{} // closed when it is answered
	ended     chan struct{} // closed when it is over
	refusals  atomic.Int32  // answers of the client still to be refused
	variables map[string]string
	race      []*Leg // all that ring for the same call

	mu       sync.Mutex // guards what follows
	state    State
	cause    string
	route    Route
	party    verto.Call // caller and callee as the client is told
	media    *media
	origin   origin
	agreed   []webrtc.RTPCodecParameters
	held     bool
	shown    bool          // the client was told who answered
	detached chan struct{} // closed when the client is back; nil while it is there
}

func (s *Server) newLeg(id, login, sessid string) *Leg {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = letters[rand.IntN(len(letters))]
		}
		return string(b)
	}
	l := &Leg{
		s: s, id: id, login: login, sessid: sessid, number: s.requests.Add(1), state: Ringing, ssrc: rand.Uint32(),
		answered: make(chan struct{}), ended: make(chan struct{}),
		origin: origin{id: time.Now().Unix() - int64(rand.IntN(40_000)), stream: word(32), cname: word(16)},
	}
	l.origin.version = l.origin.id
	l.net = &network{Net: s.net}
	l.camera.net, l.camera.ssrc = &network{Net: s.net}, rand.Uint32()
	return l
}

// add makes a leg known, unless its callID is taken.
func (s *Server) add(l *Leg) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.legs[l.id] != nil {
		return false
	}
	s.legs[l.id] = l
	return true
}

// ID returns the callID.
func (l *Leg) ID() string { return l.id }

// Login returns the user that the leg belongs to.
func (l *Leg) Login() string { return l.login }

// Placed reports whether the client called.
func (l *Leg) Placed() bool { return l.placed }

// Destination returns what the client dialled.
func (l *Leg) Destination() string { return l.invited.Dialog.DestinationNumber }

// Variables returns the userVariables of the client's invite.
func (l *Leg) Variables() map[string]string { return l.invited.Dialog.UserVariables }

// Answered is closed when the leg is answered.
func (l *Leg) Answered() <-chan struct{} { return l.answered }

// Ended is closed when the leg is over.
func (l *Leg) Ended() <-chan struct{} { return l.ended }

// State returns how far the leg is.
func (l *Leg) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Cause returns why the leg ended.
func (l *Leg) Cause() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cause
}

// Held reports whether the client holds the call.
func (l *Leg) Held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held
}

// Attached reports whether the client has a socket for the leg.
func (l *Leg) Attached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.detached == nil
}

// Counts returns the packets so far.
func (l *Leg) Counts() Counts {
	l.counts.mu.Lock()
	digits := string(l.counts.digits)
	l.counts.mu.Unlock()
	return Counts{
		Sent: l.counts.sent.Load(), Received: l.counts.received.Load(), Lost: l.counts.lost.Load(), Digits: digits,
		Video: l.camera.counted(),
	}
}

func (l *Leg) tell(kind Kind, text string) {
	l.s.opts.Observe(Event{Kind: kind, Login: l.login, Sessid: l.sessid, Leg: l, Text: text})
}

// request queues a request for the socket that the leg's client has now; nothing
// while it has none.
func (l *Leg) request(method string, params *verto.Call) {
	l.s.mu.Lock()
	k := l.s.bound[l.sessid]
	l.s.mu.Unlock()
	if k != nil {
		params.CallID = l.id
		k.request(method, params, time.Now())
	}
}

// build makes the leg's next PeerConnection in place of the one before.
func (l *Leg) buildLocked(codecs []webrtc.RTPCodecParameters) error {
	if l.media != nil {
		l.media.close(true)
		l.media = nil
	}
	m, err := l.s.newMedia(l.net, codecs, l.ssrc, &l.counts,
		func(m *media) source { return &track{stream: stream{m: m}, far: l.far, ts: l.ssrc} }, func() { l.s.run(l.secured) })
	if err != nil {
		return err
	}
	l.media = m
	return nil
}

// secured runs when DTLS is up. A client that called a phone is now told who
// answered.
func (l *Leg) secured() {
	l.tell(MediaUp, "")
	l.introduce()
}

// introduce tells a client whose call is answered the remote party, once.
func (l *Leg) introduce() {
	l.mu.Lock()
	due := !l.shown && l.state == Up
	l.shown = l.shown || due
	l.mu.Unlock()
	if due {
		l.display()
	}
}

// display tells the client the remote party.
func (l *Leg) display() {
	l.mu.Lock()
	p, bridged := l.party, l.route.Bridged || !l.placed
	l.mu.Unlock()
	if !bridged {
		return
	}
	p.DisplayName, p.DisplayNumber = p.Remote()
	l.request(verto.MethodDisplay, withParty(p))
}

// withParty makes the four members that name the parties be there, if empty.
func withParty(p verto.Call) *verto.Call {
	p.Extra = maps.Clone(p.Extra)
	for name, v := range map[string]string{
		"caller_id_name": p.CallerIDName, "caller_id_number": p.CallerIDNumber,
		"callee_id_name": p.CalleeIDName, "callee_id_number": p.CalleeIDNumber,
	} {
		if v != "" {
			continue
		}
		if p.Extra == nil {
			p.Extra = make(map[string]json.RawMessage)
		}
		p.Extra[name] = json.RawMessage(`""`)
	}
	return &p
}

// flowLocked lets RTP flow, or not. A held client hears nothing and is heard.
func (l *Leg) flowLocked() {
	there := (l.state == Up || l.state == Early) && l.detached == nil
	open := there && !l.held
	for _, m := range []*media{l.media, l.camera.media} {
		if m == nil {
			continue
		}
		m.hears.Store(there)
		if m.open.Swap(open) == open {
			continue
		}
		if open {
			l.s.startPacing(m)
		} else {
			l.s.stopPacing(m)
		}
	}
}

// takeLocked takes the leg's media away, to be closed by what it returns.
func (l *Leg) takeLocked() (closeSilently func()) {
	gone := []*media{l.media, l.camera.media}
	l.media, l.camera.media = nil, nil
	return func() {
		for _, m := range gone {
			if m != nil {
				m.close(true) // FreeSWITCH leaves DTLS open
			}
		}
	}
}

// end ends the leg. byClient says that it knows; otherwise it gets a bye.
func (l *Leg) end(cause string, byClient bool) bool {
	l.mu.Lock()
	if l.state == Over {
		l.mu.Unlock()
		return false
	}
	l.state, l.cause = Over, cause
	l.flowLocked()
	closeMedia := l.takeLocked()
	l.mu.Unlock()
	l.s.mu.Lock()
	delete(l.s.legs, l.id)
	l.s.mu.Unlock()
	close(l.ended)
	l.s.runOrDo(closeMedia)
	if !byClient {
		l.request(verto.MethodBye, &verto.Call{Cause: cause, CauseCode: verto.Number(events.CauseCode(cause))})
	}
	l.tell(Ended, cause)
	return true
}

// abandon releases what a leg has when the server closes.
func (l *Leg) abandon() {
	l.mu.Lock()
	closeMedia := l.takeLocked()
	l.state = Over
	l.mu.Unlock()
	closeMedia()
}

// detach runs when the client's socket is gone. An answered call waits for the
// client; any other ends.
func (l *Leg) detach() {
	l.mu.Lock()
	up, back := l.state == Up, make(chan struct{})
	if up && l.detached != nil {
		l.mu.Unlock()
		return // and still waiting
	}
	if up {
		l.detached = back
		l.flowLocked()
	}
	l.mu.Unlock()
	recoverable := l.invited.Dialog.RecoverCall == nil || *l.invited.Dialog.RecoverCall
	switch {
	case !up:
		l.end("DESTINATION_OUT_OF_ORDER", false)
		return
	case !recoverable:
		l.end("NORMAL_CLEARING", false)
		return
	}
	l.tell(Detached, "")
	l.s.run(func() {
		timer := time.NewTimer(l.s.opts.DetachTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			l.end("RECOVERY_ON_TIMER_EXPIRE", false)
		case <-back:
		case <-l.ended:
		case <-l.s.done:
		}
	})
}

// reoffer makes the verto.attach of a detached leg, nil if there is nothing to
// offer. Port, fingerprint and SSRC stay; the rest is new.
func (l *Leg) reoffer() (*verto.Call, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state != Up || l.detached == nil {
		return nil, nil //nolint:nilnil // nothing is no error
	}
	sdp, err := l.offerLocked(l.agreed, attachForm)
	if err != nil {
		return nil, err
	}
	p := l.party
	p.CallID, p.SDP, p.Variables = l.id, sdp, l.s.channelData(l.variables)
	return withParty(p), nil
}

// offerLocked builds the PeerConnections of the leg and their offer in FreeSWITCH's
// form.
func (l *Leg) offerLocked(codecs []webrtc.RTPCodecParameters, f form) (string, error) {
	if err := l.buildLocked(codecs); err != nil {
		return "", err
	}
	local, err := l.media.offer()
	if err != nil {
		return "", err
	}
	locals := []string{local}
	if l.camera.codec != nil {
		offer, err := l.offerVideoLocked()
		if err != nil {
			return "", err
		}
		locals = append(locals, offer)
	}
	return describe(f, &l.origin, locals...)
}

// answerOfferLocked takes a client's offer with PeerConnections that are built for
// it, and returns FreeSWITCH's answer.
func (l *Leg) answerOfferLocked(offer string) (string, error) {
	o, err := readOffered(offer)
	if err != nil {
		return "", err
	}
	if l.media == nil {
		if l.agreed, err = choose(o.codecs, l.s.opts.Codecs); err != nil {
			return "", err
		}
		if err := l.buildLocked(l.agreed); err != nil {
			return "", err
		}
	}
	local, err := l.media.answer(o.text)
	if err != nil {
		return "", err
	}
	locals := []string{local}
	if o.names {
		locals = append(locals, l.answerVideoLocked(&o))
	}
	return describe(answerForm, &l.origin, locals...)
}

// acceptLocked takes a client's answer.
func (l *Leg) acceptLocked(answer string) error {
	o, err := readOffered(answer)
	if err != nil {
		return err
	}
	agreed, err := choose(o.codecs, l.s.opts.Codecs)
	if err != nil {
		return err
	}
	if err := l.media.accept(o.text); err != nil {
		return fmt.Errorf("%w: %w", errMedia, err)
	}
	l.acceptVideoLocked(&o)
	l.agreed = agreed
	l.origin.sendonly = l.origin.sendonly || o.zero
	return nil
}
