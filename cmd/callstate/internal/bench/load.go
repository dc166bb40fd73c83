package bench

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// eventLoad gives events without end, as an engine writes them: the calls of the
// recordings, many at once, each round with new ids and later times.
type eventLoad struct {
	round  [][]byte    // stored form of each event of a round
	holes  [][]hole    // of each of them
	ids    []uuid.UUID // that differ from round to round
	base   uint64      // Event-Sequence numbers of a round
	took   events.Time
	rnd    *rand.Rand
	n      int
	rounds int
}

// hole is a place of an id.
type hole struct {
	at, id int
	text   bool
}

const uuidLen = 36

// newEventLoad plays calls offline. With until the calls stay up: see
// webiteltest.LoadOptions.
func newEventLoad(calls, atOnce int, scenarios []*webiteltest.Scenario, until string) (*eventLoad, error) {
	pbx := newPBX()
	defer pbx.Close()
	load, err := pbx.Render(webiteltest.LoadOptions{
		Scenarios: scenarios, Agents: webiteltest.Numbers(1001, agents), Domain: domain,
		AtOnce: atOnce, Calls: calls, Until: until, Seed: 1,
	})
	if err != nil {
		return nil, err
	}
	l := &eventLoad{rnd: rand.New(rand.NewPCG(1, 2))}
	o := engine.NewOffline(engine.Rules{Domains: []string{domain}}, engine.Policies{}, "bench")
	known := map[string]int{}
	first, now := events.Time(0), events.At(time.Now())
	for i := range load.Len() {
		now += 100 // microseconds
		steps, err := o.Observe(webitel.Observe(load.Payload(i), frameSource, now))
		if err != nil {
			return nil, err
		}
		for j := range steps {
			ev := &steps[j].Event
			if first == 0 {
				first = ev.RecordedAt
			}
			l.took = ev.RecordedAt - first + 1000
			l.base = max(l.base, ev.Source.Sequence)
			if err := l.add(ev, pbx.Core(), known); err != nil {
				return nil, err
			}
		}
	}
	if len(l.round) == 0 {
		return nil, fmt.Errorf("the recordings give no events")
	}
	return l, nil
}

// add keeps an event with the places of its ids; the switch stays the same. An id
// that is a field by itself is stored as its bytes, one within a text as it is.
func (l *eventLoad) add(ev *events.Event, core string, known map[string]int) error {
	b, err := events.AppendBinary(nil, ev)
	if err != nil {
		return err
	}
	text, err := json.Marshal(ev)
	if err != nil {
		return err
	}
	var holes []hole
	seen := map[string]bool{core: true}
	for i := 0; i+uuidLen <= len(text); i++ {
		id := string(text[i : i+uuidLen])
		if text[i+8] != '-' || text[i+13] != '-' || seen[id] {
			continue
		}
		raw, err := uuid.Parse(id)
		if err != nil {
			continue
		}
		seen[id] = true
		n, ok := known[id]
		if !ok {
			n = len(l.ids)
			known[id] = n
			l.ids = append(l.ids, raw)
		}
		for at := range places(b, raw[:]) {
			holes = append(holes, hole{at: at, id: n})
		}
		for at := range places(b, []byte(id)) {
			holes = append(holes, hole{at: at, id: n, text: true})
		}
	}
	l.round, l.holes = append(l.round, b), append(l.holes, holes)
	return nil
}

// places are where part stands in b.
func places(b, part []byte) iter.Seq[int] {
	return func(yield func(int) bool) {
		for from := 0; ; {
			i := bytes.Index(b[from:], part)
			if i < 0 || !yield(from+i) {
				return
			}
			from += i + len(part)
		}
	}
}

// next returns the next event.
func (l *eventLoad) next() (events.Event, error) {
	i := l.n % len(l.round)
	if i == 0 && l.n > 0 {
		l.rounds++
		for j := range l.ids {
			l.ids[j] = l.newID()
		}
	}
	l.n++
	b := bytes.Clone(l.round[i])
	for _, h := range l.holes[i] {
		if h.text {
			copy(b[h.at:], l.ids[h.id].String())
		} else {
			copy(b[h.at:], l.ids[h.id][:])
		}
	}
	ev, err := events.DecodeBinary(b)
	if err != nil {
		return ev, err
	}
	later := events.Time(l.rounds) * l.took
	ev.OccurredAt += later
	ev.RecordedAt += later
	if seq := ev.Source.Sequence; seq != 0 && l.rounds > 0 {
		ev.Source.Sequence += uint64(l.rounds) * l.base
		ev.ID = strings.Replace(ev.ID, fmt.Sprint(":", seq, ":"), fmt.Sprint(":", ev.Source.Sequence, ":"), 1)
	}
	return ev, nil
}

func (l *eventLoad) newID() (id uuid.UUID) {
	binary.NativeEndian.PutUint64(id[:], l.rnd.Uint64())
	binary.NativeEndian.PutUint64(id[8:], l.rnd.Uint64())
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// batch returns the next n events.
func (l *eventLoad) batch(n int) ([]events.Event, error) {
	evs := make([]events.Event, n)
	for i := range evs {
		var err error
		if evs[i], err = l.next(); err != nil {
			return nil, err
		}
	}
	return evs, nil
}

// heap is the memory that is in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // finalizers and pools need the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func humanBytes(n uint64) string {
	if n < 10<<10 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}
