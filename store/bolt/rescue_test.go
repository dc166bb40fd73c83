//go:build linux

package bolt

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// rescued makes a damaged copy of the specimen and rescues it.
func (sp *specimen) rescued(t *testing.T, damage func(dir string)) (from, to string, d *Damage) {
	t.Helper()
	from, to = t.TempDir(), filepath.Join(t.TempDir(), "new")
	if _, err := sp.harmed(from, nil); err != nil {
		t.Fatal(err)
	}
	damage(from)
	d, _, err := Rescue(t.Context(), from, to, func(p uint64) []byte { return []byte("nothing yet") })
	if err != nil {
		t.Fatal(err)
	}
	return from, to, d
}

// spoil changes a byte of an event's record.
func (sp *specimen) spoil(t *testing.T, dir string, position uint64) {
	t.Helper()
	record := sp.deps[position][2]
	name := filepath.Join(dir, record.file)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[record.to-1] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRescueKeepsItsPlace: all but the lost event is in the new log as it was in
// the old one, with positions, numbers, totals, checkpoint and base.
func TestRescueKeepsItsPlace(t *testing.T) {
	sp := newSpecimen(t, memoryDir(t))
	gone := []uint64{sp.first + 10, sp.first + 11, sp.last}
	from, to, d := sp.rescued(t, func(dir string) {
		for _, p := range gone {
			sp.spoil(t, dir, p)
		}
	})
	if want := []Stretch{{gone[0], gone[1]}, {sp.last, sp.last}}; !reflect.DeepEqual(d.Lost, want) || len(d.LostFrames) != 0 || d.Unsure || d.BaseLost {
		t.Errorf("damage %+v, want %v lost", d, want)
	}
	for _, p := range gone {
		e := sp.events[p]
		if !slices.ContainsFunc(d.Calls, func(c LostCall) bool { return c.Account == e.Account && c.Call == e.Call && c.First <= p }) {
			t.Errorf("call %s of event %d is not among those that lost events: %v", e.Key(), p, d.Calls)
		}
	}
	old, log := mustOpen(t, from, &Options{ReadOnly: true}), mustOpen(t, to, nil)
	if log.ID() == old.ID() || log.Last() != old.Last() || log.Frames() != old.Frames() {
		t.Errorf("log %s to %d, %+v; the old one %s to %d, %+v", log.ID(), log.Last(), log.Frames(), old.ID(), old.Last(), old.Frames())
	}
	base, state, err := log.Base()
	oldBase, oldState, oldErr := old.Base()
	if base != oldBase || string(state) != string(oldState) || errors.Join(err, oldErr) != nil {
		t.Errorf("base %d %q, was %d %q, %v", base, state, oldBase, oldState, errors.Join(err, oldErr))
	}
	c, err := log.Checkpoint("outbox")
	if was, oldErr := old.Checkpoint("outbox"); c == 0 || c != was || errors.Join(err, oldErr) != nil {
		t.Errorf("checkpoint %d, was %d", c, was)
	}
	if err := sp.l.checkQuarantine(log, framesOf(t, old)); err != nil {
		t.Error(err)
	}
	at := sp.events[gone[0]]
	found := false
	if err := log.ReadCall(t.Context(), at.Key(), func(e *events.Event) error {
		lost, is := e.Payload.(*events.LogLost)
		found = found || is && e.Position == gone[0] && lost.Log == old.ID()
		return nil
	}); err != nil || !found {
		t.Errorf("the call does not tell of the event that it lost, %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(to), ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, _, err := Rescue(t.Context(), from, to, nil); !errors.Is(err, store.ErrInUse) && !errors.Is(err, fs.ErrExist) {
		t.Errorf("rescued over a log: %v", err)
	}
}

func framesOf(t *testing.T, s *Store) (all []events.Quarantined) {
	t.Helper()
	if err := s.Quarantine(t.Context(), 1, func(q *events.Quarantined) error { all = append(all, *q); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no quarantined frame")
	}
	return all
}

func TestRescueWithoutBase(t *testing.T) {
	sp := newSpecimen(t, memoryDir(t))
	_, to, d := sp.rescued(t, func(dir string) {
		if err := os.Remove(filepath.Join(dir, BaseName)); err != nil {
			t.Fatal(err)
		}
	})
	if !d.BaseLost || len(d.Lost) != 0 {
		t.Errorf("damage %+v", d)
	}
	log := mustOpen(t, to, nil)
	if p, state, err := log.Base(); p != sp.first-1 || string(state) != "nothing yet" || err != nil {
		t.Errorf("base %d %q, %v", p, state, err)
	}
	if got := positionsFrom(t, log, 1); !slices.Equal(got, upTo(sp.first, sp.last)) {
		t.Errorf("rescued %v", got)
	}
}

func TestRescueWithoutDamage(t *testing.T) {
	sp := newSpecimen(t, memoryDir(t))
	_, to, d := sp.rescued(t, func(string) {})
	if !d.Whole() {
		t.Errorf("damage %+v", d)
	}
	if _, err := os.Stat(to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder was made: %v", err)
	}
}

// TestInspectVersion: a version far from any is damage, a newer one is not.
func TestInspectVersion(t *testing.T) {
	for _, version := range []uint64{formatVersion + 1, 1 << 43} {
		dir := t.TempDir()
		s := inFiles(t, dir, 2)
		rolled(t, s, "[1-4 5-8]")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		changed(t, filepath.Join(dir, sealedName(1)), func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyVersion, u64(version)) })
		d, err := Inspect(t.Context(), dir)
		if newer := version == formatVersion+1; newer != errors.Is(err, store.ErrVersion) {
			t.Errorf("version %d: %v", version, err)
		} else if !newer && (err != nil || d.Whole() || len(d.Lost) > 0) {
			t.Errorf("version %d: %+v, %v", version, d, err)
		}
	}
}

func TestInspectWhatIsNone(t *testing.T) {
	dir := t.TempDir()
	_, err := Inspect(context.Background(), dir)
	wantHint(t, err, store.ErrMissing, dir)
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(strings.Repeat("not a log\n", 4000)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Inspect(context.Background(), dir)
	wantHint(t, err, store.ErrForeign, dir)
	open := t.TempDir()
	mustOpen(t, open, &Options{LockTimeout: time.Millisecond})
	_, err = Inspect(context.Background(), open)
	wantHint(t, err, store.ErrInUse, open)
	if _, _, err := Rescue(context.Background(), open, t.TempDir(), nil); !errors.Is(err, store.ErrInUse) {
		t.Errorf("rescued what is written: %v", err)
	}
}
