package engine

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/looplab/fsm"
	"pgregory.net/rapid"

	"github.com/callstate/callstate/events/cti"
)

// TestTransitions has a row for each state and trigger. "" is a refusal.
func TestTransitions(t *testing.T) {
	states := []string{stateNone, stateAlerting, stateConnected, stateHeld, stateConferenced, stateEnded}
	want := map[string][]string{
		//                  none           alerting          connected         held              conferenced       ended
		triggerNew:         {stateAlerting, "", "", "", "", ""},
		triggerAgentAnswer: {"", stateAlerting, "", "", "", ""},
		triggerAnswer:      {"", stateConnected, stateConnected, stateHeld, stateConferenced, ""},
		triggerBridge:      {"", stateConnected, stateConnected, stateHeld, stateConferenced, ""},
		triggerHold:        {"", stateHeld, stateHeld, stateHeld, stateHeld, ""},
		triggerRetrieve:    {"", "", stateConnected, stateConnected, "", ""},
		triggerResumeRing:  {"", stateAlerting, "", stateAlerting, "", ""},
		triggerJoin:        {"", stateConferenced, stateConferenced, stateConferenced, stateConferenced, ""},
		triggerLeave:       {"", "", stateConnected, "", stateConnected, ""},
		triggerHangup:      {"", stateEnded, stateEnded, stateEnded, stateEnded, ""},
		triggerReinstate:   {"", "", "", "", "", stateAlerting},
	}
	named := map[string]bool{}
	for _, e := range transitions {
		named[e.Name] = true
	}
	if len(named) != len(want) {
		t.Errorf("%d triggers in the table, %d rows here", len(named), len(want))
	}
	m := newMachine()
	for trigger, row := range want {
		for i, from := range states {
			to, changed, err := m.next(from, trigger)
			switch {
			case row[i] == "":
				var refused *TransitionError
				if !errors.Is(err, ErrTransition) || !errors.As(err, &refused) || refused.State != from || refused.Trigger != trigger {
					t.Errorf("%s of a call that is %s: %v, want a refusal", trigger, from, err)
				}
				if to != from || changed {
					t.Errorf("%s of a call that is %s was refused and still gave %s", trigger, from, to)
				}
			case err != nil || to != row[i] || changed != (row[i] != from):
				t.Errorf("%s of a call that is %s gave %s, changed %v, %v; want %s", trigger, from, to, changed, err, row[i])
			}
		}
	}
}

func TestFeatures(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    facts
		want cti.Features
	}{
		{"ended", facts{state: stateEnded}, 2},
		{"ended, though a consultation was on the line", facts{state: stateEnded, role: roleConsulting}, 2},
		{"rings in, can be answered", facts{state: stateAlerting, inbound: true, answerable: true}, 12},
		{"rings in, cannot be answered", facts{state: stateAlerting, inbound: true}, 8},
		{"rings out", facts{state: stateAlerting}, 8},
		{"rings out; answering is of no use there", facts{state: stateAlerting, answerable: true}, 8},
		{"consultation rings", facts{state: stateAlerting, role: roleConsult}, 0},
		{"connected", facts{state: stateConnected}, 1048},
		{"connected and bridged", facts{state: stateConnected, bridged: true}, 1816},
		{"held", facts{state: stateHeld, bridged: true}, 1568},
		{"held before the answer (Q31)", facts{state: stateHeld}, 1568},
		{"in a conference", facts{state: stateConferenced, bridged: true}, 1048},
		{"consultation connected", facts{state: stateConnected, role: roleConsult}, 1048},
		{"consultation bridged", facts{state: stateConnected, role: roleConsult, bridged: true}, 1048},
		{"consultation held", facts{state: stateHeld, role: roleConsult}, 1568},
		{"main call, consultation rings", facts{state: stateHeld, role: roleConsulting, bridged: true}, 0},
		{"main call, consultation bridged", facts{state: stateHeld, role: roleConsulting, bridged: true, consultBridged: true}, 128},
		{"main call never held, consultation bridged (Q12)", facts{state: stateConnected, role: roleConsulting, consultBridged: true}, 128},
	} {
		if got := features(tt.f); got != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.name, got, got, tt.want)
		}
	}
}

// TestParties has a row for each of the client semantics, section 4.2, and for
// what the client gets wrong there.
func TestParties(t *testing.T) {
	const phone = "u:fe821b89-5162-43ec-998d-ad15a46e480c"
	for _, tt := range []struct {
		name           string
		o              LegObservation
		dir            string
		caller, called string
	}{
		{"called leg", LegObservation{CallerNumber: "380", CalleeNumber: "1004"}, "in", "380", "1004"},
		{"called leg that entered the dialplan", LegObservation{CallerNumber: "1004", CalleeNumber: "380", HitDialplan: true}, "in", "380", "1004"},
		{"dialled on the phone, callee not known yet", LegObservation{Inbound: true, LogicalInbound: true, Leg: "a", ChannelCall: "a", CallerNumber: "1004", Destination: "380"}, "out", "1004", "380"},
		{"dialled on the phone, answered by another number", LegObservation{Inbound: true, LogicalInbound: true, Leg: "a", ChannelCall: "a", CallerNumber: "1004", CalleeNumber: "381", Destination: "380"}, "out", "1004", "381"},
		{"click-to-call rings", LegObservation{OriginateNumber: "380", CallerNumber: "1004", CalleeNumber: "1004"}, "out", "1004", "380"},
		{"click-to-call in the dialplan", LegObservation{OriginateNumber: "380", HitDialplan: true, CallerNumber: "1004", CalleeNumber: "380"}, "out", "1004", "380"},
		{"a web phone's address on the own side", LegObservation{CallerNumber: "380", CalleeNumber: phone}, "in", "380", "1004"},
		{"a web phone's address on the other side (quirk 20)", LegObservation{CallerNumber: phone, CalleeNumber: "1004"}, "in", "", "1004"},
	} {
		got := parties(&tt.o, dirOf(tt.dir), "1004@acme.example")
		if got.CallerNumber != tt.caller || got.CalledNumber != tt.called {
			t.Errorf("%s: %s > %s, want %s > %s", tt.name, got.CallerNumber, got.CalledNumber, tt.caller, tt.called)
		}
	}
}

func TestNamesGoWithNumbers(t *testing.T) {
	o := LegObservation{CallerNumber: "1004", CallerName: "Agent", CalleeNumber: "380", CalleeName: "Customer", HitDialplan: true}
	got := parties(&o, "in", "1004@acme.example")
	if got.CallerName != "Customer" || got.CalledName != "Agent" {
		t.Errorf("caller %q, called %q: the names stayed behind (client quirk 19)", got.CallerName, got.CalledName)
	}
}

// TestSequenceWindow: of the last numbers a repeat is known, whatever the order; of
// those before nothing is.
func TestSequenceWindow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w seqWindow
		seq := rapid.Uint64Range(0, 1<<40).Draw(t, "base")
		seen := map[uint64]bool{}
		top := uint64(0)
		for i := range rapid.IntRange(1, 250).Draw(t, "n") {
			step := rapid.OneOf(rapid.Int64Range(-70, 70), rapid.Int64Range(-2*seqWindowSize, 2*seqWindowSize)).Draw(t, fmt.Sprint(i))
			seq = uint64(max(0, int64(seq)+step))
			top = max(top, seq)
			if want := seen[seq] && top-seq < seqWindowSize; w.has(seq) != want {
				t.Fatalf("%d known: %v, want %v", seq, w.has(seq), want)
			}
			w.add(seq)
			seen[seq] = true
		}
	})
}

// TestSeqWindowLeap: a number that no switch comes to does not end what is known of the
// others, be it the first or a later one.
func TestSeqWindowLeap(t *testing.T) {
	const absurd = 999_999_999_999_999_999
	for _, numbers := range [][]uint64{{absurd, 1000, 1001}, {1000, absurd, 1001}, {1000, 1001, absurd}} {
		var w seqWindow
		for _, seq := range numbers {
			w.add(seq)
		}
		if !w.has(1000) || !w.has(1001) || w.has(1002) {
			t.Errorf("after %d it knows 1000: %t, 1001: %t, 1002: %t", numbers, w.has(1000), w.has(1001), w.has(1002))
		}
	}
}

// BenchmarkMachine is a transition of the call machine beside a looplab machine
// of the call's own, with a callback: the same work, and no memory a call.
func BenchmarkMachine(b *testing.B) {
	b.Run("shared", func(b *testing.B) {
		m := newMachine()
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := m.next(stateConnected, triggerHold); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("own", func(b *testing.B) {
		f := fsm.NewFSM(stateConnected, transitions, fsm.Callbacks{"enter_state": func(context.Context, *fsm.Event) {}})
		triggers := []string{triggerHold, triggerRetrieve}
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if err := f.Event(context.Background(), triggers[i&1]); err != nil {
				b.Fatal(err)
			}
			i++
		}
	})
}
