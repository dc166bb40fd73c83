package verto

import (
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// adapterName is the Source.Adapter of everything that comes from here.
const adapterName = "verto"

// observations is what the step says to the engine, without account and time.
func (s Step) observations(server string) []engine.SessionObservation {
	var list []engine.SessionObservation
	if s.Registered {
		list = append(list, engine.SessionObservation{Kind: engine.SessionRegistered, Transport: transport, Server: server})
	}
	for _, c := range s.Changes {
		list = append(list, c.Observations()...)
	}
	if s.Lost != "" {
		list = append(list, engine.SessionObservation{Kind: engine.SessionUnregistered, Transport: transport, Reason: s.Lost})
	}
	return list
}

// source numbers the inputs of one phone.
type source struct {
	account    string
	server     string
	connection string
	inputs     uint64
}

// input gives an observation its account, time and number; o may be nil for a
// frame that says nothing.
func (s *source) input(o *engine.SessionObservation, at events.Time, framed bool) engine.Input {
	s.inputs++
	in := engine.Input{
		ReceivedAt: at, Unframed: !framed,
		Source: events.Source{Adapter: adapterName, Connection: s.connection, Sequence: s.inputs},
	}
	if o != nil {
		c := *o
		c.At, c.Account = at, s.account
		in.Session = &c
	}
	return in
}

// step turns a step into inputs. A frame of the server gives one that is framed
// and no more, whatever it did.
func (s *source) step(st Step, at events.Time, framed bool) []engine.Input {
	var list []engine.Input
	for _, o := range st.observations(s.server) {
		list = append(list, s.input(&o, at, framed && len(list) == 0))
	}
	if framed && len(list) == 0 {
		list = append(list, s.input(nil, at, true))
	}
	return list
}

// Replay turns a recorded conversation of one phone into the inputs that it would
// have given at the time, without what only its media could tell.
type Replay struct {
	Dialogs

	src source
}

// NewReplay begins a recording of an account's phone.
func NewReplay(account, server string) *Replay {
	return &Replay{src: source{account: account, server: server, connection: "replay"}}
}

// Frame takes the next frame, which the phone sent or received at that time.
func (r *Replay) Frame(raw []byte, sent bool, at events.Time) []engine.Input {
	f, err := Decode(raw)
	switch {
	case err != nil && sent:
		return nil
	case err != nil:
		in := r.src.input(nil, at, true)
		in.Quarantine = quarantine(raw, err)
		return []engine.Input{in}
	case sent:
		return append(r.src.step(r.Sent(&f), at, false), r.destroy(at)...)
	}
	list := r.src.step(r.Received(&f), at, true)
	if f.Method == MethodClientReady {
		list = append(list, r.src.step(r.Settled(), at, false)...)
	}
	return append(list, r.destroy(at)...)
}

// Lost takes the loss of the socket.
func (r *Replay) Lost(reason string, at events.Time) []engine.Input {
	return append(r.src.step(r.Disconnected(reason), at, false), r.destroy(at)...)
}

// destroy ends what is over: there is no media to close first.
func (r *Replay) destroy(at events.Time) []engine.Input {
	var list []engine.Input
	for _, id := range r.Over() {
		list = append(list, r.src.step(r.Destroy(id), at, false)...)
	}
	return list
}
