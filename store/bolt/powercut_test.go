//go:build linux

package bolt

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"testing"
)

// long makes the fault tests try every point and many fates at each.
var long = flag.Bool("long", false, "the long form of the fault tests: every point, and more ways at each")

// cutEverywhere tries power cuts after the operations of a life from one on, and
// returns how many recovered, and how many were refused with a clear error.
func cutEverywhere(t *testing.T, l *life, from, step, rounds int) (recovered, refused int) {
	t.Helper()
	p := newPlatter()
	for k, o := range l.d.ops {
		p.do(o)
		if k < from || (k-from)%step != 0 && o.kind != opRename && o.kind != opName && o.kind != opRemove && !o.meta {
			continue
		}
		for c, cut := range cuts {
			for round := range rounds {
				r := rand.New(rand.NewPCG(uint64(k), uint64(c*rounds+round)))
				err := cutOnce(l, p, cut.fate(r), cut.folder(r))
				switch {
				case err == nil:
					recovered++
				case cut.torn && isClear(err):
					refused++
				default:
					t.Errorf("power cut after operation %d of %d, %s is on the disk, round %d: %v", k, len(l.d.ops), cut.name, round, err)
					if recovered++; t.Failed() && recovered > 50 {
						t.FailNow()
					}
				}
			}
		}
	}
	return recovered, refused
}

func cutOnce(l *life, p *platter, f fate, kept func(i, n int) bool) error {
	dir, err := os.MkdirTemp(l.dir, "cut-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := p.cut(dir, f, kept); err != nil {
		return err
	}
	return l.check(dir, p.acked)
}

// TestPowerCut cuts the power after the operations of a log's life: what was not
// synced is gone, there, or there in part and in any order. All that was answered
// must be there, and nothing else.
func TestPowerCut(t *testing.T) {
	batches, step, rounds := 24, 29, 1
	if *long {
		batches, step, rounds = 48, 1, 3
	}
	l := bubble(t, func(l *life) {
		if err := l.run(batches); err != nil {
			t.Fatal(err)
		}
	})
	if len(l.bases) == 0 || len(l.snaps) == 0 {
		t.Fatalf("%d drops, %d snapshots", len(l.bases), len(l.snaps))
	}
	recovered, refused := cutEverywhere(t, l, 0, step, rounds)
	t.Logf("%d operations; %d power cuts, %d refused", len(l.d.ops), recovered+refused, refused)
	if refused > recovered/10 {
		t.Errorf("%d of %d were refused", refused, recovered+refused)
	}
}

// TestPowerCutAfterKill kills the process at an operation, starts it again on
// what the system still has in memory, and then cuts the power: what the second
// process has shown must be there.
func TestPowerCutAfterKill(t *testing.T) {
	whole := bubble(t, func(l *life) {
		if err := l.run(16); err != nil {
			t.Fatal(err)
		}
	})
	step, cuts := 17, 8
	if *long {
		step, cuts = 1, 2
	}
	recovered, refused := 0, 0
	for at, o := range whole.d.ops {
		if at%step != 0 || o.kind == opAck || o.kind == opSync {
			continue
		}
		for _, late := range []bool{false, true} {
			if late && !o.meta {
				continue
			}
			l := bubble(t, func(l *life) {
				l.d.late = late
				killAndGoOn(t, l, at)
			})
			a, b := cutEverywhere(t, l, l.sure, cuts, 1)
			recovered, refused = recovered+a, refused+b
			if t.Failed() {
				t.Fatalf("killed at operation %d, which was done: %t", at, late)
			}
		}
	}
	t.Logf("%d power cuts, %d refused", recovered+refused, refused)
}

// killAndGoOn kills a life before an operation and lives a second one.
func killAndGoOn(t *testing.T, l *life, at int) {
	l.d.fault = func(n int, _ diskOp) error {
		if n >= at {
			return errKilled
		}
		return nil
	}
	if err := l.run(16); !errors.Is(err, errKilled) {
		t.Fatalf("killed before operation %d: %v", at, err)
	}
	if l.s != nil {
		l.s.Close() //nolint:errcheck // it is dead
	}
	l.d.killed()
	if err := l.open(); err != nil {
		t.Fatalf("after a kill before operation %d: %v", at, err)
	}
	if held := l.held(); held < l.answered {
		t.Fatalf("after a kill before operation %d: %d batches, %d were answered", at, held, l.answered)
	}
	l.batches = l.batches[:l.held()]
	l.answered = len(l.batches)
	l.settle()
	l.sure = len(l.d.ops) - 1
	for range 2 {
		if err := l.append(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.s.Close(); err != nil {
		t.Fatal(err)
	}
	l.d.settled(l.answered)
}

// held is how many of the batches the open log has.
func (l *life) held() int {
	n := uint64(0)
	for i, b := range l.batches {
		if n += uint64(len(b.Events)); n > l.s.Last() {
			return i
		}
	}
	return len(l.batches)
}

// TestPowerCutIsSeen: the test itself would notice a log whose syncs do nothing.
func TestPowerCutIsSeen(t *testing.T) {
	l := bubble(t, func(l *life) {
		if err := l.run(8); err != nil {
			t.Fatal(err)
		}
	})
	for _, tt := range []struct {
		name string
		skip opKind
	}{{"files", opSync}, {"the folder", opSyncDir}} {
		p, lost := newPlatter(), 0
		for k, o := range l.d.ops {
			if o.kind == tt.skip {
				continue
			}
			p.do(o)
			if k%10 == 0 {
				r := rand.New(rand.NewPCG(1, uint64(k)))
				for _, cut := range cuts {
					if err := cutOnce(l, p, cut.fate(r), cut.folder(r)); err != nil {
						lost++
					}
				}
			}
		}
		if lost == 0 {
			t.Errorf("without a sync of %s nothing was lost", tt.name)
		}
	}
}
