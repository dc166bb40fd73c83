//go:build linux

package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// specimen is a closed log of several files, with base, snapshot and quarantine.
type specimen struct {
	l      *life
	names  []string
	files  map[string][]byte
	events map[uint64]events.Event // as they were stored
	deps   map[uint64][]span       // the bytes that each needs to be found by
	first  uint64
	last   uint64
}

type span struct {
	file     string
	from, to int
}

func newSpecimen(t *testing.T, dir string) *specimen {
	t.Helper()
	l := bubbleIn(t, dir, func(l *life) {
		if err := l.run(24); err != nil {
			t.Fatal(err)
		}
	})
	sp := &specimen{l: l, files: map[string][]byte{}, events: map[uint64]events.Event{}, deps: map[uint64][]span{}}
	names, err := filepath.Glob(filepath.Join(l.dir, "callstate*"))
	if err != nil || len(names) < 5 {
		t.Fatalf("files %v, %v", names, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sp.names = append(sp.names, filepath.Base(name))
		sp.files[filepath.Base(name)] = b
		if strings.HasSuffix(name, ".db") {
			sp.learn(t, name)
		}
	}
	for _, b := range l.batches {
		for _, e := range b.Events {
			if sp.last = e.Position; sp.deps[e.Position] != nil {
				sp.events[e.Position] = e
				if sp.first == 0 {
					sp.first = e.Position
				}
			}
		}
	}
	if d, err := Inspect(t.Context(), l.dir); err != nil || !d.Whole() || d.First != sp.first || d.Last != sp.last {
		t.Fatalf("the whole log is %+v, %v; want events %d to %d", d, err, sp.first, sp.last)
	}
	return sp
}

// learn notes for every event of a file where its record, the element that leads
// there and the head of its page are.
func (sp *specimen) learn(t *testing.T, name string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := readWreck(filepath.Base(name), f, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := sp.files[w.name]
	for _, r := range w.events {
		for page := int(r.at) / int(w.pageSize) * int(w.pageSize); ; page -= int(w.pageSize) {
			h := parsePageHead(b[page:])
			if h.id != uint64(page)/uint64(w.pageSize) || h.flags != flagLeaf {
				continue // what belongs to a page of before
			}
			e := page + pageHeader
			for range h.count {
				if at := e + int(binary.NativeEndian.Uint32(b[e+4:])) + int(binary.NativeEndian.Uint32(b[e+8:])); at == int(r.at) {
					sp.deps[r.n] = []span{{w.name, page, page + pageHeader}, {w.name, e, e + elemSize}, {w.name, at - 8, at + r.size}}
				}
				e += elemSize
			}
			break
		}
		if sp.deps[r.n] == nil {
			t.Fatalf("event %d is nowhere in %s", r.n, name)
		}
	}
}

// harm is one thing that is done to a file.
type harm struct {
	kind byte
	file string
	at   int
	n    int // bytes; of the last kind the bit
	seed uint64
}

func (h harm) String() string {
	kinds := []string{"flip bits", "zero", "garble", "cut", "copy over", "remove", "flip one bit"}
	return fmt.Sprintf("%s %s at %d, %d", kinds[h.kind], h.file, h.at, h.n)
}

const harms = 6 // that are done at random

// do returns the file's content after it, and which bytes have changed.
func (h harm) do(b []byte) []byte {
	r := rand.New(rand.NewPCG(h.seed, 1))
	to := min(h.at+h.n, len(b))
	switch h.kind {
	case 0:
		for range 1 + r.IntN(3) {
			b[h.at+r.IntN(max(to-h.at, 1))] ^= 1 << r.IntN(8)
		}
	case 1:
		clear(b[h.at:to])
	case 2:
		for i := h.at; i < to; i++ {
			b[i] = byte(r.Uint32())
		}
	case 3:
		b = b[:h.at]
	case 4: // a page of the file in the place of another
		from := r.IntN(len(b)/4096+1) * 4096
		copy(b[h.at/4096*4096:], b[from:min(from+4096, len(b))])
	case 6:
		b[h.at] ^= 1 << h.n
	}
	return b
}

// harmed makes a copy of the specimen with damage done to it.
func (sp *specimen) harmed(dir string, hs []harm) (after map[string][]byte, err error) {
	after = map[string][]byte{}
	for name, b := range sp.files {
		after[name] = slices.Clone(b)
	}
	for _, h := range hs {
		switch b, there := after[h.file]; {
		case !there || len(b) == 0 || h.at >= len(b):
		case h.kind == 5:
			delete(after, h.file)
		default:
			after[h.file] = h.do(b)
		}
	}
	for name, b := range after {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	return after, nil
}

// survives reports whether all that an event needs is as it was. Damage may speak of
// events that never were.
func (sp *specimen) survives(n uint64, after map[string][]byte) bool {
	for _, d := range sp.deps[n] {
		if b := after[d.file]; len(b) < d.to || string(b[d.from:d.to]) != string(sp.files[d.file][d.from:d.to]) {
			return false
		}
	}
	return sp.deps[n] != nil
}

// check looks at a damaged copy in every way there is: no event may be another one
// than was stored, every loss must be found, and what survives be rescued.
func (sp *specimen) check(dir string, after map[string][]byte) error {
	read, openErr := sp.checkReading(dir)
	d, err := Inspect(context.Background(), dir)
	if err != nil {
		if _, head := after[FileName]; head && !errors.Is(err, store.ErrVersion) {
			return fmt.Errorf("inspect: %w", err)
		}
		return nil
	}
	to := filepath.Join(dir, "new")
	rescued, id, err := Rescue(context.Background(), dir, to, func(uint64) []byte { return []byte("empty") })
	if err != nil {
		return fmt.Errorf("rescue: %w", err)
	}
	if d.Whole() {
		if openErr != nil {
			return fmt.Errorf("nothing is damaged by Inspect, and: %w", openErr)
		}
		if read != int(sp.last-sp.first)+1 {
			return fmt.Errorf("nothing is damaged by Inspect, %d events of %d to %d", read, sp.first, sp.last)
		}
		return nil
	}
	if !reflect.DeepEqual(d.Lost, rescued.Lost) || id == sp.l.s.ID() {
		return fmt.Errorf("rescue into %s says that %v is lost, Inspect %v", id, rescued.Lost, d.Lost)
	}
	return sp.checkRescued(to, rescued, after)
}

// checkReading reads the damaged log as the engine does.
func (sp *specimen) checkReading(dir string) (read int, err error) {
	s, err := Open(dir, &Options{ReadOnly: true})
	if err != nil {
		if _, hint := errors.AsType[*store.HintError](err); !hint {
			return 0, fmt.Errorf("no hint: %w", err)
		}
		return 0, err
	}
	defer s.Close()
	same := func(e *events.Event) error {
		if want := sp.events[e.Position]; !reflect.DeepEqual(want, *e) {
			return fmt.Errorf("event %d is %+v, was %+v", e.Position, e, want)
		}
		return nil
	}
	ctx := context.Background()
	err = s.Read(ctx, 1, func(e *events.Event) error { read++; return same(e) })
	wrong := func(err error) error {
		if err == nil || errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrForeign) || errors.Is(err, store.ErrVersion) {
			return nil
		}
		return err
	}
	if w := wrong(err); w != nil {
		return read, w
	}
	callsErr := s.Calls(ctx, "", func(key events.CallKey, _, _ uint64) error {
		return wrong(s.ReadCall(ctx, key, func(e *events.Event) error {
			if e.Key() != key {
				return fmt.Errorf("event %d of %s came for %s", e.Position, e.Key(), key)
			}
			return same(e)
		}))
	})
	quarantineErr := s.Quarantine(ctx, 1, func(*events.Quarantined) error { return nil })
	_, _, baseErr := s.Base()
	p, state, snapErr := s.Snapshot(s.Last())
	if p != 0 && string(state) != sp.l.snaps[p] {
		return read, fmt.Errorf("snapshot %d is %.40q", p, state)
	}
	for _, e := range []error{callsErr, quarantineErr, baseErr, snapErr} {
		if w := wrong(e); w != nil {
			return read, w
		}
		err = errors.Join(err, e)
	}
	return read, err
}

func (sp *specimen) checkRescued(dir string, d *Damage, after map[string][]byte) error {
	s, err := Open(dir, nil)
	if err != nil {
		return fmt.Errorf("open what was rescued: %w", err)
	}
	defer s.Close()
	if whole, err := Inspect(context.Background(), dir); err == nil || !errors.Is(err, store.ErrInUse) {
		return fmt.Errorf("inspected while it is open: %+v, %w", whole, err)
	}
	var lost []Stretch
	at := d.First
	err = s.Read(context.Background(), 1, func(e *events.Event) error {
		if e.Position != at {
			return fmt.Errorf("event %d after %d", e.Position, at-1)
		}
		at++
		if _, gone := e.Payload.(*events.LogLost); gone {
			if sp.survives(e.Position, after) && sp.listed(e.Position, after) {
				return fmt.Errorf("event %d is whole and was not rescued", e.Position)
			}
			lost = appendStretch(lost, Stretch{e.Position, e.Position})
			return nil
		}
		if want := sp.events[e.Position]; !reflect.DeepEqual(want, *e) {
			return fmt.Errorf("event %d is %+v, was %+v", e.Position, e, want)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("what was rescued: %w", err)
	}
	if !reflect.DeepEqual(lost, d.Lost) || s.Last() != d.Last {
		return fmt.Errorf("lost are %v of %d, said to be %v of %d", lost, s.Last(), d.Lost, d.Last)
	}
	for p := at; p <= sp.last; p++ {
		if sp.survives(p, after) {
			return fmt.Errorf("event %d is whole and was not rescued: the new log ends with %d", p, at-1)
		}
	}
	if at <= sp.last && !d.Unsure && len(after) == len(sp.files) {
		return fmt.Errorf("the loss of the events from %d on is not told", at)
	}
	return s.Append(context.Background(), batchOf(1))
}

// listed reports whether the list of free pages of the event's file is as it was,
// which tells a page that no tree leads to any more from one of before.
func (sp *specimen) listed(n uint64, after map[string][]byte) bool {
	name := sp.deps[n][0].file
	w := sp.files[name]
	m, err := newestMeta(strings.NewReader(string(w)), os.Getpagesize())
	if err != nil {
		return false
	}
	from := int(m.freelist) * os.Getpagesize()
	to := min(from+os.Getpagesize(), len(w))
	return len(after[name]) >= to && string(after[name][from:to]) == string(w[from:to])
}

// try does damage and checks, within a deadline: nothing may hang.
func (sp *specimen) try(t *testing.T, hs []harm) {
	t.Helper()
	dir, err := os.MkdirTemp(sp.l.dir, "harmed-*") //nolint:usetesting // in memory, and gone at once
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	after, err := sp.harmed(dir, hs)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- sp.check(dir, after) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%v: %v", hs, err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("%v: it hangs", hs)
	}
}

func (sp *specimen) random(r *rand.Rand) harm {
	h := harm{kind: byte(r.IntN(harms)), file: sp.names[r.IntN(len(sp.names))], seed: r.Uint64()}
	size := len(sp.files[h.file])
	h.at = r.IntN(size)
	h.n = []int{1, 16, 100, 512, 4096, 20000}[r.IntN(6)]
	if h.kind == 5 && r.IntN(4) > 0 { // files are not gone as often as the rest
		h.kind = 0
	}
	if r.IntN(2) == 0 { // of whole sectors
		h.at = h.at / 512 * 512
	}
	return h
}

// TestDamageAnywhere damages any file of a log in one to three places.
func TestDamageAnywhere(t *testing.T) {
	sp := newSpecimen(t, memoryDir(t))
	n := 200
	if *long {
		n = 20_000
	}
	for i := range n {
		r := rand.New(rand.NewPCG(7, uint64(i)))
		var hs []harm
		for range 1 + r.IntN(3) {
			hs = append(hs, sp.random(r))
		}
		sp.try(t, hs)
	}
}

// TestDamagedRoot flips each bit of the page in which a file's trees begin, with the
// buckets that are part of it. None of it has a checksum, and bbolt follows all of it.
func TestDamagedRoot(t *testing.T) {
	sp := newSpecimen(t, memoryDir(t))
	step := 37 // a prime: any bit of a number in its turn
	if *long {
		step = 1
	}
	for _, name := range sp.names {
		if !strings.HasSuffix(name, ".db") {
			continue
		}
		b := sp.files[name]
		m, err := newestMeta(bytes.NewReader(b), os.Getpagesize())
		if err != nil {
			t.Fatal(err)
		}
		root := int(m.root) * os.Getpagesize()
		for bit := 0; bit < 8*contentEnd(b[root:root+os.Getpagesize()]); bit += step {
			sp.try(t, []harm{{kind: 6, file: name, at: root + bit/8, n: bit % 8}})
		}
	}
}

// TestTruncationAnywhere cuts each file at every page and inside each.
func TestTruncationAnywhere(t *testing.T) {
	sp := newSpecimen(t, memoryDir(t))
	step := 4
	if *long {
		step = 1
	}
	for _, name := range sp.names {
		for at := 0; at < len(sp.files[name]); at += step * os.Getpagesize() {
			sp.try(t, []harm{{kind: 3, file: name, at: at}})
			sp.try(t, []harm{{kind: 3, file: name, at: min(at+1000, len(sp.files[name])-1)}})
		}
	}
}

// FuzzDamage is TestDamageAnywhere with what the fuzzer thinks of.
func FuzzDamage(f *testing.F) {
	f.Add(byte(0), uint16(0), uint32(8), uint16(1), uint64(1))
	f.Add(byte(4), uint16(1), uint32(20000), uint16(1), uint64(2))
	dir := memoryDir(f)
	var sp *specimen
	f.Fuzz(func(t *testing.T, kind byte, file uint16, at uint32, n uint16, seed uint64) {
		if sp == nil {
			sp = newSpecimen(t, dir)
		}
		name := sp.names[int(file)%len(sp.names)]
		sp.try(t, []harm{{kind % harms, name, int(at) % len(sp.files[name]), int(n), seed}})
	})
}
