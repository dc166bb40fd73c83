package webitel

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/callstate/callstate/engine"
)

// nameWatch finds the server events that fell silent while others go on
// (protocol 6.5, point 4). A leg's events imply one another: a channel that ended
// had a CREATE, one that was answered an ANSWER. Each name is judged on its own,
// by the legs that began and ended on this connection.
//
// Of many legs a sample tells as much as all of them. Which legs are in it their
// ids decide, so that a leg is watched from its first frame to its last or not at
// all.
type nameWatch struct {
	domain string
	settle time.Duration // from a subscription until it is in force

	mu     sync.Mutex // guards what follows
	since  time.Time  // legs that were created before it and are not watched tell nothing
	came   uint16     // names that came since they were taken
	thin   uint64     // bits that are 0 in the hash of a leg in the sample
	legs   map[string]*watchedLeg
	ending []*watchedLeg // in order of their end
}

// watchedLeg is what was seen of a leg. came has a bit for each of serverEvents.
type watchedLeg struct {
	id            string
	came, implied uint16
	ended         time.Time
	held          bool // by its call state
	partly        bool // it began too early to tell
}

// graceOfEnd is what a leg's last frames get.
const graceOfEnd = 2 * time.Second

// maxWatched bounds the legs that are watched at once. When they are reached, half
// of them leave the sample; when few are left, it takes in twice as many.
const maxWatched = 1 << 11

var sampleSeed = maphash.MakeSeed()

// sampled reports whether a leg is in the sample.
func (w *nameWatch) sampled(leg string) bool { return maphash.String(sampleSeed, leg)&w.thin == 0 }

// makeRoom thins the sample out while there are too many.
func (w *nameWatch) makeRoom() {
	for len(w.legs) >= maxWatched {
		w.thin = w.thin<<1 | 1
		maps.DeleteFunc(w.legs, func(id string, _ *watchedLeg) bool { return !w.sampled(id) })
	}
}

// widen takes in more legs where few are watched: those that begin from now on.
func (w *nameWatch) widen(now time.Time) {
	if w.thin != 0 && len(w.legs) < maxWatched/4 {
		w.thin, w.since = w.thin>>1, now
	}
}

func newNameWatch(domain string, settle time.Duration) *nameWatch {
	w := &nameWatch{domain: domain, settle: settle}
	w.renewed(time.Now())
	return w
}

// bit returns a name's place in the masks, 0 for one that is not subscribed to.
func bit(event string) uint16 {
	if i := slices.IndexFunc(serverEvents, func(n string) bool { return n[len("SE:"):] == event }); i >= 0 {
		return 1 << i
	}
	return 0
}

var (
	bitsOfAny = bit("CHANNEL_CREATE") | bit("CHANNEL_STATE") | bit("CHANNEL_CALLSTATE") |
		bit("CHANNEL_HANGUP") | bit("CHANNEL_HANGUP_COMPLETE") | bit("CHANNEL_DESTROY")
	bitsOfEnd = bit("CHANNEL_HANGUP") | bit("CHANNEL_HANGUP_COMPLETE") | bit("CHANNEL_DESTROY")
	bitAnswer = bit("CHANNEL_ANSWER")
	bitHold   = bit("CHANNEL_HOLD")
	bitUnhold = bit("CHANNEL_UNHOLD")
	bitBridge = bit("CHANNEL_BRIDGE")
	bitUnbrdg = bit("CHANNEL_UNBRIDGE")
)

// renewed forgets what came before: names that were taken anew owe nothing yet.
func (w *nameWatch) renewed(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since, w.came, w.thin, w.legs, w.ending = now, 0, 0, map[string]*watchedLeg{}, nil
}

// note takes a frame of a leg on the server path. The leg counts only if it was
// created after the subscriptions were in force, by the switch's own clock: its
// age at this frame is the difference of two of its times.
func (w *nameWatch) note(f *Frame, o *engine.LegObservation, now time.Time) {
	name := bit(f.Event)
	if name == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.came |= name
	l := w.legs[o.Leg]
	if l == nil {
		if o.Ending || !w.sampled(o.Leg) {
			return
		}
		age := time.Duration(o.At-o.CreatedAt) * time.Microsecond
		whole := o.CreatedAt != 0 && o.At != 0 && age >= 0 && now.Add(-age).After(w.since.Add(w.settle))
		l = &watchedLeg{id: o.Leg, implied: bitsOfEnd, partly: !whole}
		if strings.HasSuffix(o.Presence, "@"+w.domain) {
			l.implied = bitsOfAny // of a trunk's leg comes what carries variables (protocol 6.5, point 3)
		}
		w.legs[o.Leg] = l
		w.makeRoom()
	}
	if l.partly {
		if name&bitsOfEnd != 0 {
			delete(w.legs, o.Leg)
		}
		return
	}
	l.came |= name
	if o.AnsweredAt != 0 {
		l.implied |= bitAnswer
	}
	switch state := f.text(hCallState); {
	case state == "HELD":
		l.held = true
		l.implied |= bitHold
	case l.held && (state == "ACTIVE" || state == "UNHELD"):
		l.implied |= bitUnhold
	}
	switch name {
	case bitUnbrdg:
		l.implied |= bitBridge
	case bitBridge:
		l.implied |= bitUnbrdg
	}
	if name&bitsOfEnd != 0 && l.ended.IsZero() {
		l.ended = now
		w.ending = append(w.ending, l)
	}
}

// judge returns the names that legs which ended some time ago should have raised
// and did not, and of each whether another leg raised it since it was taken.
func (w *nameWatch) judge(now time.Time) map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.widen(now)
	silent := map[string]bool{}
	for len(w.ending) > 0 && w.ending[0].ended.Before(now.Add(-graceOfEnd)) {
		l := w.ending[0]
		w.ending = w.ending[1:]
		delete(w.legs, l.id)
		for i, name := range serverEvents {
			if l.implied&^l.came&(1<<i) != 0 {
				silent[name] = w.came&(1<<i) != 0
			}
		}
	}
	return silent
}
