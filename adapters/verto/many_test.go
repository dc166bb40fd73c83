package verto_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// descriptors counts what this process has open, 0 where that cannot be seen.
func descriptors() int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(list)
}

// TestHundredSessionsAtOnce has fifty phones place a call and take one each, drops
// every socket in the middle, and counts: media at both ends, every frame of the
// server, every session's story, and what is left of goroutines and descriptors.
func TestHundredSessionsAtOnce(t *testing.T) {
	const phones = 50
	var users []vertotest.User
	for i := range phones {
		number := fmt.Sprint(2001 + i)
		users = append(users, vertotest.User{Login: number + "@demo.local", Password: number})
	}
	goroutines, open := runtime.NumGoroutine(), descriptors()

	var mu sync.Mutex
	sent := make(map[string]int) // frames of the server, by sessid
	s, err := vertotest.New(vertotest.Options{
		Users:    users,
		Dialplan: func(*vertotest.Leg) vertotest.Route { return vertotest.Route{Bridged: true} },
		Trace: func(f vertotest.Frame) {
			if f.Sent {
				mu.Lock()
				sent[f.Sessid]++
				mu.Unlock()
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	stopMedia, media := runMedia(t)
	ctx, cancel := context.WithCancel(context.Background())
	type desk struct {
		login, sessid string
		phone         *verto.Phone
		o             *observed
		legs          []*vertotest.Leg
	}
	desks := make([]*desk, phones)
	var running sync.WaitGroup
	for i, u := range users {
		d := &desk{login: u.Login, sessid: fmt.Sprintf("9f0c7d52-0000-4000-8000-%012d", i), o: newObserved()}
		desks[i] = d
		d.phone, err = verto.NewPhone(quick(s.URL()), verto.User{
			Login: u.Login, Password: verto.Secret(u.Password), SessID: verto.Secret(d.sessid), Answer: verto.AnswerAlways,
		}, media, d.o, nil)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			if err := d.phone.Run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for _, d := range desks {
		d.o.registered(t)
	}

	var placing sync.WaitGroup
	for _, d := range desks {
		placing.Go(func() {
			id, err := d.phone.Call(t.Context(), "1002")
			if err != nil {
				t.Error(err)
				return
			}
			legs, err := s.Originate(d.login, vertotest.Call{CallerNumber: "1003"})
			if err != nil {
				t.Error(err)
				return
			}
			d.legs = append(legs, s.Leg(id))
		})
	}
	if placing.Wait(); t.Failed() {
		t.FailNow()
	}
	var all []*vertotest.Leg
	for _, d := range desks {
		all = append(all, d.legs...)
		for _, l := range d.legs {
			d.o.reaches(t, l.ID(), events.DialogActive)
		}
	}
	flows(t, desks[0].o, all...)
	if n := len(s.Legs("")); n != 2*phones {
		t.Fatalf("%d legs at once, want %d", n, 2*phones)
	}
	heard := func() { // all that the server has to say
		for _, d := range desks {
			d.o.until(t, "every frame", func() bool {
				if !s.Settled(d.login) {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				return d.o.framed() == sent[d.sessid]
			})
		}
	}
	heard() // what is under way when a socket breaks is lost
	if n := s.Drop(""); n != phones {
		t.Fatalf("dropped %d sockets", n)
	}
	for _, d := range desks {
		for _, l := range d.legs {
			d.o.until(t, "taken up again", func() bool {
				return slices.ContainsFunc(d.o.of(l.ID()), func(e engine.SessionObservation) bool {
					return e.State == events.DialogActive && e.Attempt == 1
				})
			})
		}
	}
	flows(t, desks[0].o, all...)
	for _, d := range desks {
		placing.Go(func() {
			d.legs[0].Hangup("NORMAL_CLEARING")
			if err := d.phone.Hangup(t.Context(), d.legs[1].ID(), "NORMAL_CLEARING"); err != nil {
				t.Error(err)
			}
		})
	}
	placing.Wait()
	for _, d := range desks {
		for _, l := range d.legs {
			_, st := d.o.ended(t, l.ID())
			// How many had to be thrown away at the end depends on the machine's load.
			if n := l.Counts(); st.PacketsReceived == 0 || st.PacketsReceived > int64(n.Sent) || n.Received < 20 || n.Received > uint64(st.PacketsSent) {
				t.Errorf("%s: the phone counts %d in and %d out, the server %+v", l.ID(), st.PacketsReceived, st.PacketsSent, n)
			}
		}
	}
	heard()
	cancel()
	running.Wait()
	s.Close()
	stopMedia()

	placed := "requesting trying active detached recovering answering active hangup ended: bye"
	received := "ringing answering active detached recovering answering active hangup ended: bye"
	for _, d := range desks {
		for i, want := range []string{received, placed} {
			if got := strings.Join(d.o.states(d.legs[i].ID(), events.LayerDialog), " "); got != want {
				t.Errorf("%s: the dialog went %s, want %s", d.login, got, want)
			}
		}
		d.o.accountedFor(t, sent[d.sessid])
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		g, fd := runtime.NumGoroutine(), descriptors()
		if g <= goroutines && fd <= open {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d goroutines and %d descriptors before, %d and %d after", goroutines, open, g, fd)
		}
	}
}

// framed counts the frames of the server.
func (o *observed) framed() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for _, in := range o.inputs {
		if !in.Unframed {
			n++
		}
	}
	return n
}

// accountedFor checks that each frame of the server is one input, and that no
// input is lost or doubled on its way: each connection numbers its own.
func (o *observed) accountedFor(t *testing.T, frames int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	framed, next := 0, make(map[string]uint64)
	for _, in := range o.inputs {
		if !in.Unframed {
			framed++
		}
		if next[in.Source.Connection]++; in.Source.Sequence != next[in.Source.Connection] {
			t.Errorf("input %d of a connection, want %d", in.Source.Sequence, next[in.Source.Connection])
		}
	}
	if framed != frames {
		t.Errorf("%d frames received, the server sent %d", framed, frames)
	}
}
