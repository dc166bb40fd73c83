package vertotest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/pion/webrtc/v4"

	"github.com/callstate/callstate/adapters/verto"
)

// Call is a call to a user.
type Call struct {
	// CallID is the Unique-ID of the leg, as origination_uuid sets it; empty makes
	// one. Where the user has several sockets the others' legs get ids of their own.
	CallID                   string
	CallerName, CallerNumber string
	CalleeName               string            // default "Outbound Call"
	Variables                map[string]string // verto_svar_ variables, named without the prefix
	Headers                  map[string]string // verto_h_ variables, named without the prefix
	Far                      FarEnd
	Video                    bool // the offer has video
	RefuseAnswers            int  // how many answers of each client get CODEC ERROR
	Deaf                     bool // no packet comes through: ICE fails
}

// Originate calls a user on all its sockets and returns a leg for each. The first
// to answer has the call; the others lose the race.
func (s *Server) Originate(login string, c Call) ([]*Leg, error) {
	sockets := s.socketsOf(login)
	if len(sockets) == 0 {
		return nil, fmt.Errorf("vertotest: call %s: not registered", login)
	}
	if c.CallID == "" {
		c.CallID = uuid.NewString()
	}
	if c.CalleeName == "" {
		c.CalleeName = "Outbound Call"
	}
	number, _, _ := strings.Cut(login, "@")
	codecs := make([]webrtc.RTPCodecParameters, len(s.opts.Codecs))
	for i, codec := range s.opts.Codecs {
		codecs[i] = codecParameters[codec]
	}
	var legs []*Leg
	var offers []*verto.Call
	for i, k := range sockets {
		id := c.CallID
		if i > 0 {
			id = uuid.NewString()
		}
		l := s.newLeg(id, login, k.sessionID())
		l.far, l.variables = c.Far, c.Variables
		l.refusals.Store(int32(c.RefuseAnswers))
		if c.Video {
			l.camera.codec = &vp8
		}
		l.party = verto.Call{
			CallerIDName: c.CallerName, CallerIDNumber: c.CallerNumber,
			CalleeIDName: c.CalleeName, CalleeIDNumber: number, DisplayDirection: verto.DisplayOutbound,
		}
		for name, v := range c.Headers {
			if l.party.Extra == nil {
				l.party.Extra = make(map[string]json.RawMessage)
			}
			l.party.Extra["verto_h_"+name] = json.RawMessage(strconv.Quote(v))
		}
		if !s.add(l) {
			return nil, fmt.Errorf("vertotest: call %s: callID %s is in use", login, id)
		}
		legs = append(legs, l)
		l.mu.Lock()
		sdp, err := l.offerLocked(codecs, inviteForm)
		if err == nil && c.Deaf {
			l.Cut(true)
		}
		offer := l.party
		l.mu.Unlock()
		if err != nil {
			l.end("DESTINATION_OUT_OF_ORDER", false)
			return nil, fmt.Errorf("vertotest: call %s: %w", login, err)
		}
		offer.CallID, offer.SDP, offer.Variables = id, sdp, s.channelData(c.Variables)
		offers = append(offers, withParty(offer))
	}
	for _, l := range legs {
		l.race = legs
	}
	for i, l := range legs {
		sockets[i].request(verto.MethodInvite, offers[i], time.Now())
		l.tell(Offered, "")
	}
	return slices.Clone(legs), nil
}

// Answer has the far end of a client's call answer. It does nothing for a leg that
// does not ring.
func (l *Leg) Answer() {
	l.mu.Lock()
	if !l.placed || l.state != Ringing && l.state != Early {
		l.mu.Unlock()
		return
	}
	params := &verto.Call{Variables: l.s.channelData(nil)}
	if l.media == nil {
		sdp, err := l.answerOfferLocked(l.invited.SDP)
		if err != nil {
			l.mu.Unlock()
			l.s.log.Debug("answer refused", "call_id", l.id, "err", err)
			l.end("INCOMPATIBLE_DESTINATION", false)
			return
		}
		params.SDP = sdp
	}
	l.state = Up
	l.flowLocked()
	secure := l.media.pc.ConnectionState() == webrtc.PeerConnectionStateConnected
	l.mu.Unlock()
	l.request(verto.MethodAnswer, params)
	close(l.answered)
	l.tell(Answered, "")
	if secure {
		l.introduce()
	}
}

// Early has the far end of a client's call send early media.
func (l *Leg) Early() {
	l.mu.Lock()
	if !l.placed || l.state != Ringing {
		l.mu.Unlock()
		return
	}
	sdp, err := l.answerOfferLocked(l.invited.SDP)
	if err != nil {
		l.mu.Unlock()
		l.end("INCOMPATIBLE_DESTINATION", false)
		return
	}
	l.state = Early
	l.flowLocked()
	l.mu.Unlock()
	l.request(verto.MethodMedia, &verto.Call{SDP: sdp, Variables: l.s.channelData(nil)})
	l.tell(EarlyMedia, "")
}

// Hangup ends the leg from the other side, with a cause of FreeSWITCH's such as
// USER_BUSY. A leg that is over stays as it is.
func (l *Leg) Hangup(cause string) { l.end(cause, false) }

// SendDigits sends digits (0-9, *, #, A-D) as telephone-event. FreeSWITCH 1.10.12
// itself never does; it reports whether the client said that it knows them.
func (l *Leg) SendDigits(digits string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.media == nil {
		return false
	}
	t, ok := l.media.source.(*track)
	return ok && t.queue(digits)
}

// Display tells the client another remote party.
func (l *Leg) Display(name, number string) {
	l.mu.Lock()
	if l.placed {
		l.party.CalleeIDName, l.party.CalleeIDNumber = name, number
	} else {
		l.party.CallerIDName, l.party.CallerIDNumber = name, number
	}
	p := l.party
	l.mu.Unlock()
	p.DisplayName, p.DisplayNumber = name, number
	l.request(verto.MethodDisplay, withParty(p))
}

// Cut lets no packet of the leg through any more, in either direction, or lets
// them through again. The call goes on.
func (l *Leg) Cut(cut bool) {
	l.net.cut.Store(cut)
	l.camera.net.cut.Store(cut)
}

// CutVideo does that with the video alone.
func (l *Leg) CutVideo(cut bool) { l.camera.net.cut.Store(cut) }

// RefreshVideo asks the client for a key frame, as uuid_video_refresh does, and
// reports whether there is video.
func (l *Leg) RefreshVideo() bool {
	l.mu.Lock()
	m := l.camera.media
	l.mu.Unlock()
	return m != nil && m.askForKeyFrame()
}

// CloseDTLS ends the leg's PeerConnections so that the client hears of it. The call
// goes on without media.
func (l *Leg) CloseDTLS() {
	l.mu.Lock()
	both := []*media{l.media, l.camera.media}
	l.mu.Unlock()
	for _, m := range both {
		if m != nil {
			m.close(false)
		}
	}
}
