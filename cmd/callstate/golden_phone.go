package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// goldenPhone turns a golden's "$verto" stimuli, the states that a browser's media
// session goes through, into what the Verto adapter says of such changes.
type goldenPhone struct {
	useVideo bool
	sessions map[string]*verto.Change // as they are now
	sequence uint64
}

// vertoStimulus is a "$verto" input (reference/goldens/README.md).
type vertoStimulus struct {
	State     string `json:"$verto"`
	CallID    string `json:"callID"`
	Direction string `json:"direction"`
	SDP       string `json:"sdp"`
}

// dialogStates are those that a session goes through, and its end.
var dialogStates = []string{
	events.DialogRequesting, events.DialogTrying, events.DialogEarly, events.DialogRinging, events.DialogAnswering,
	events.DialogActive, events.DialogHeld, events.DialogRecovering, events.DialogHangup, "destroy",
}

// container is the stimulus of a media session that asks for its media element.
const container = "container"

func (p *goldenPhone) observations(raw []byte) ([]engine.SessionObservation, error) {
	var v vertoStimulus
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, err
	}
	switch {
	case v.CallID == "":
		return nil, fmt.Errorf("$verto %q names no callID", v.State)
	case v.State != container && !slices.Contains(dialogStates, v.State):
		return nil, fmt.Errorf("$verto %q is no state of a session", v.State)
	}
	if v.State == container { // a browser asks when it makes its PeerConnection
		return []engine.SessionObservation{{
			Kind: engine.SessionState, Session: v.CallID, Layer: events.LayerICE, State: "new",
		}}, nil
	}
	c := p.sessions[v.CallID]
	if c == nil {
		c = &verto.Change{CallID: v.CallID, Direction: events.Out, Video: p.useVideo && strings.Contains(v.SDP, "m=video")}
		if v.Direction == "inbound" {
			c.Direction = events.In
		}
		if p.sessions == nil {
			p.sessions = map[string]*verto.Change{}
		}
		p.sessions[v.CallID] = c
	}
	c.From, c.To = c.To, v.State
	return c.Observations(), nil
}

// session plays a stimulus of the media session.
func (r *goldenRun) session(at int, raw []byte, now events.Time) error {
	obs, err := r.phone.observations(raw)
	if err != nil {
		return err
	}
	for i := range obs {
		o := &obs[i]
		o.Account, o.At = r.golden.Account, now
		r.phone.sequence++
		err := r.observe(at, &engine.Input{
			ReceivedAt: now, Origin: events.Import, Session: o, Unframed: i > 0,
			Source: events.Source{Adapter: "verto", Connection: "golden", Sequence: r.phone.sequence},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// phoneMethods are the goldens' names of what a media session is told.
var phoneMethods = map[engine.Action]string{
	engine.ActionCall: "newCall", engine.ActionAnswer: "answer", engine.ActionAutoAnswer: "answer", engine.ActionHold: "hold",
	engine.ActionUnhold: "unhold", engine.ActionHangup: "hangup", engine.ActionDTMF: "dtmf", engine.ActionVideo: "setMuteVideo",
}

func (r *goldenRun) phoneCall(at int, c engine.Command) {
	e := entry{"at": at, "verto": phoneMethods[c.Action]}
	if c.Leg != "" {
		e["callID"] = c.Leg
	}
	r.out = append(r.out, e)
}
