package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/events/cti"
)

// demoSwitch is one switch behind two servers: what happens to the legs of the
// Verto server is raised on the Webitel server as FreeSWITCH would
// (reference/verto-protocol.md, 16.4).
type demoSwitch struct {
	pbx   *webiteltest.Server // set before the first call
	verto *vertotest.Server

	sequence atomic.Uint64

	mu   sync.Mutex // guards what follows
	legs map[string]*demoLeg
}

// demoLeg is what the switch knows of a leg.
type demoLeg struct {
	from, to string // numbers
	clicked  string // the number that a click-to-call is for
	other    string // id of the far leg
	placed   bool   // the phone called
	created  int64
	answered int64
}

// startDemoSwitch starts the switch's Verto server.
func startDemoSwitch(opts vertotest.Options) (*demoSwitch, error) {
	s := &demoSwitch{legs: map[string]*demoLeg{}}
	s.sequence.Store(1 << 40) // apart from the numbers of what is played there
	observe := opts.Observe
	opts.Observe = func(ev vertotest.Event) {
		if ev.Leg != nil {
			s.raise(&ev)
		}
		if observe != nil {
			observe(ev)
		}
	}
	var err error
	s.verto, err = vertotest.New(opts)
	return s, err
}

func (s *demoSwitch) Close() { s.verto.Close() }

// ring calls a web phone from a number. clicked is the number that the call is for
// where the agent himself asked for it.
func (s *demoSwitch) ring(login, from, clicked string) (*vertotest.Leg, error) {
	return s.call(login, clicked, vertotest.Call{CallerNumber: from})
}

func (s *demoSwitch) call(login, clicked string, c vertotest.Call) (*vertotest.Leg, error) {
	id := uuid.NewString()
	number, _ := cti.SplitAccount(login)
	s.mu.Lock()
	s.legs[id] = &demoLeg{from: c.CallerNumber, to: number, clicked: clicked, other: uuid.NewString()}
	s.mu.Unlock()
	c.CallID = id
	legs, err := s.verto.Originate(login, c)
	if err != nil {
		s.mu.Lock()
		delete(s.legs, id)
		s.mu.Unlock()
		return nil, err
	}
	return legs[0], nil
}

// bridge tells that the far end of a leg is there.
func (s *demoSwitch) bridge(l *vertotest.Leg) {
	if d, ok := s.leg(l, func(*demoLeg) {}); ok {
		s.event(l, &d, "CHANNEL_BRIDGE", "Bridge-A-Unique-ID", l.ID(), "Bridge-B-Unique-ID", d.other, "Other-Leg-Unique-ID", d.other)
	}
}

// leg changes what is known of a leg, and returns it.
func (s *demoSwitch) leg(l *vertotest.Leg, change func(*demoLeg)) (demoLeg, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.legs[l.ID()]
	if d == nil {
		if !l.Placed() {
			return demoLeg{}, false
		}
		number, _ := cti.SplitAccount(l.Login())
		d = &demoLeg{from: number, to: l.Destination(), other: uuid.NewString(), placed: true}
		s.legs[l.ID()] = d
	}
	change(d)
	return *d, true
}

func (s *demoSwitch) raise(ev *vertotest.Event) {
	l, now := ev.Leg, time.Now().UnixMicro()
	d, ok := s.leg(l, func(d *demoLeg) {
		switch ev.Kind {
		case vertotest.Invited, vertotest.Offered:
			d.created = now
		case vertotest.Answered:
			d.answered = now
		}
	})
	if !ok {
		return
	}
	switch ev.Kind {
	case vertotest.Invited, vertotest.Offered:
		s.event(l, &d, "CHANNEL_CREATE")
		s.event(l, &d, "CHANNEL_CALLSTATE", "Channel-Call-State", "RINGING")
	case vertotest.Answered:
		s.event(l, &d, "CHANNEL_ANSWER", "Answer-State", "answered")
		s.event(l, &d, "CHANNEL_CALLSTATE", "Channel-Call-State", "ACTIVE", "Answer-State", "answered")
		if d.clicked == "" {
			s.bridge(l)
		}
	case vertotest.Held:
		s.event(l, &d, "CHANNEL_CALLSTATE", "Channel-Call-State", "HELD", "Answer-State", "answered")
		s.event(l, &d, "CHANNEL_HOLD", "Channel-Call-State", "HELD", "Answer-State", "answered")
	case vertotest.Unheld:
		s.event(l, &d, "CHANNEL_CALLSTATE", "Channel-Call-State", "UNHELD", "Answer-State", "answered")
		s.event(l, &d, "CHANNEL_UNHOLD", "Channel-Call-State", "UNHELD", "Answer-State", "answered")
	case vertotest.Digits:
		for _, digit := range ev.Text {
			s.event(l, &d, "DTMF", "DTMF-Digit", string(digit), "DTMF-Duration", "2000", "DTMF-Source", "APP")
		}
	case vertotest.Ended:
		s.ended(l, &d, ev.Text, now)
	}
}

func (s *demoSwitch) ended(l *vertotest.Leg, d *demoLeg, cause string, now int64) {
	for _, end := range [][2]string{
		{"CHANNEL_HANGUP", "CS_HANGUP"},
		{"CHANNEL_UNBRIDGE", "CS_HANGUP"},
		{"CHANNEL_CALLSTATE", "CS_HANGUP"},
		{"CHANNEL_HANGUP_COMPLETE", "CS_REPORTING"},
		{"CHANNEL_DESTROY", "CS_DESTROY"},
		{"CHANNEL_STATE", "CS_DESTROY"},
	} {
		s.event(l, d, end[0], "Channel-State", end[1], "Channel-Call-State", "HANGUP", "Answer-State", "hangup",
			"Bridge-A-Unique-ID", l.ID(), "Bridge-B-Unique-ID", d.other, "Hangup-Cause", cause, "variable_hangup_cause", cause, "Caller-Channel-Hangup-Time", strconv.FormatInt(now, 10))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.legs, l.ID())
}

// event raises one event of a leg, with further headers given as name, value.
func (s *demoSwitch) event(l *vertotest.Leg, d *demoLeg, name string, more ...string) {
	_, domain := cti.SplitAccount(l.Login())
	direction, call := "outbound", d.other
	if d.placed {
		direction, call = "inbound", l.ID()
	}
	h := map[string]string{
		"Event-Name": name, "Core-UUID": s.pbx.Core(), "FreeSWITCH-Switchname": demoSwitchName,
		"Event-Date-Timestamp": strconv.FormatInt(time.Now().UnixMicro(), 10),
		"Event-Sequence":       strconv.FormatUint(s.sequence.Add(1), 10),
		"Unique-ID":            l.ID(), "Channel-Call-UUID": call, "Channel-Name": "verto.rtc/" + d.to,
		"Channel-Presence-ID": l.Login(), "Channel-Presence-Data": domain, "variable_domain_name": domain,
		"Channel-State": "CS_EXECUTE", "Channel-Call-State": "ACTIVE", "Answer-State": "ringing",
		"Call-Direction": direction, "Caller-Logical-Direction": direction, "Channel-HIT-Dialplan": strconv.FormatBool(d.placed),
		"Caller-Caller-ID-Number": d.from, "Caller-Callee-ID-Number": d.to, "Caller-Destination-Number": d.to,
		"Caller-Channel-Created-Time":  strconv.FormatInt(d.created, 10),
		"Caller-Channel-Answered-Time": strconv.FormatInt(d.answered, 10), "Caller-Channel-Hangup-Time": "0",
		"variable_verto_user": l.Login(), "variable_media_webrtc": "true",
	}
	switch {
	case d.clicked != "":
		h["variable_w_jsclient_originate_number"], h["Channel-Call-UUID"] = d.clicked, l.ID()
	case !d.placed:
		h["Other-Leg-Unique-ID"], h["variable_originating_leg_uuid"] = d.other, d.other
	}
	for i := 0; i+1 < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	b, err := json.Marshal(h)
	if err == nil {
		_, err = s.pbx.Raise(b)
	}
	if err != nil {
		panic(fmt.Sprintf("raise %s: %v", name, err)) // our own JSON
	}
}

// demoSwitchName is what the recordings call their switch.
const demoSwitchName = "fs-demo"
