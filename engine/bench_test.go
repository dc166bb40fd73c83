package engine

import (
	"testing"

	"github.com/callstate/callstate/events"
)

// foldBench folds the events of a call with hold, digits and a bridge, each call
// new, so that nothing is repeated.
func foldBench(b *testing.B, mute bool) {
	evs := benchCall()
	p := NewProjection("bench")
	if mute {
		p.mute = ^uint64(0)
	}
	b.ReportAllocs()
	i, n := 0, 0
	id := ""
	for b.Loop() {
		if i == 0 {
			n++
			id = "call-" + string(rune('a'+n%26)) + string(rune('a'+n/26%26))
		}
		ev := evs[i]
		ev.Position, ev.Call = uint64(n*len(evs)+i), id
		ev.RecordedAt += events.Time(n) * 10e6
		p.Apply(&ev)
		i = (i + 1) % len(evs)
	}
}

func benchCall() []events.Event {
	at := events.Time(1_790_000_000_000_000)
	mk := func(p events.Payload) events.Event {
		at += 500_000
		return events.Event{
			Account: "1001@demo.local", Domain: "demo.local", Leg: "954e8d54-41db-4c55-baf8-481bb97b3c75",
			Conversation: "954e8d54-41db-4c55-baf8-481bb97b3c74", OccurredAt: at, RecordedAt: at, Version: 1, Payload: p,
		}
	}
	return []events.Event{
		mk(&events.CallNew{Direction: events.In, Answerable: true, Parties: events.Parties{CallerNumber: "+380671112233", CalledNumber: "1001"}}),
		mk(&events.CallAccepted{}),
		mk(&events.CallBridged{Partner: "954e8d54-41db-4c55-baf8-481bb97b3c76"}),
		mk(&events.CallHeld{}), mk(&events.CallUnheld{}),
		mk(&events.CallDTMF{Digit: "1"}), mk(&events.CallDTMF{Digit: "2"}),
		mk(&events.CallUnbridged{Partner: "954e8d54-41db-4c55-baf8-481bb97b3c76"}),
		mk(&events.CallHungup{Hangup: events.Hangup{Cause: "NORMAL_CLEARING", CauseCode: 16}}),
		mk(&events.CallDetails{Hangup: events.Hangup{Cause: "NORMAL_CLEARING", CauseCode: 16, By: "other"}}),
	}
}

func BenchmarkFold(b *testing.B)      { foldBench(b, false) }
func BenchmarkFoldMuted(b *testing.B) { foldBench(b, true) }
