//go:build linux

package bolt

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/callstate/callstate/store"
)

// liveOn lives as run does, but with a disk that refuses now and then: what was
// refused is done again once there is space.
func (l *life) liveOn(batches int, space func()) error {
	for err := l.open(); err != nil; err = l.open() {
		if !errors.Is(err, store.ErrFull) {
			return err
		}
		space()
	}
	again := func(do func() error) error {
		err := do()
		for range 3 {
			if err == nil || !outOfSpace(err) {
				return err
			}
			synctest.Wait() // for the index
			space()
			err = do()
		}
		return err
	}
	for i := range batches {
		b := l.next()
		l.batches = append(l.batches, b)
		err := again(func() error {
			err := l.s.Append(context.Background(), b)
			if err != nil && !errors.Is(err, store.ErrFull) {
				return errors.Join(errors.New("not ErrFull"), err)
			}
			if err != nil && (b.Events[0].Position != 0 || l.s.Last() != endOf(l.batches[:i])) {
				return errors.New("stored in part")
			}
			return err
		})
		if err != nil {
			return err
		}
		l.answered++
		l.settle()
		switch i % 8 {
		case 1, 4:
			err = l.checkpoint()
		case 3:
			err = again(l.snapshot)
		case 7:
			err = again(l.drop)
		}
		if err != nil {
			return err
		}
	}
	return l.s.Close()
}

// TestDiskFullAtEveryWrite fills the disk at each write, new file and new name of
// a log's life, for one refusal or for several: nothing answered is lost, and the
// same store goes on when there is space.
func TestDiskFullAtEveryWrite(t *testing.T) {
	const batches = 16
	whole := bubble(t, func(l *life) {
		if err := l.liveOn(batches, func() {}); err != nil {
			t.Fatal(err)
		}
	})
	step := 7
	if *long {
		step = 1
	}
	tried := 0
	for at, o := range whole.d.ops {
		if !takesSpace(o) || at%step != 0 && o.kind == opWrite && !o.meta {
			continue
		}
		for _, refusals := range []int{1, 4} {
			tried++
			l := bubble(t, func(l *life) {
				left := refusals
				l.d.fault = func(n int, o diskOp) error {
					if n >= at && left > 0 && takesSpace(o) {
						left--
						return syscall.ENOSPC
					}
					return nil
				}
				if err := l.liveOn(batches, func() { left = 0 }); err != nil {
					t.Errorf("full at operation %d, %d times: %v", at, refusals, err)
					l.s.Close()
				}
				l.d.fault = nil
			})
			if err := l.check(l.dir, l.answered); err != nil {
				t.Errorf("full at operation %d, %d times, then: %v", at, refusals, err)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	t.Logf("%d times of %d operations", tried, len(whole.d.ops))
}

func takesSpace(o diskOp) bool {
	return slices.Contains([]opKind{opWrite, opName, opRename}, o.kind)
}

// TestSyncFailsOnce lets one sync of a log's life fail. Whatever it was of, no
// batch that was answered is lost. After that of a batch, or of the folder when a
// new file begins, the store answers nothing but the error; opened anew, it has
// what the disk holds.
func TestSyncFailsOnce(t *testing.T) {
	const batches = 16
	whole := bubble(t, func(l *life) {
		if err := l.run(batches); err != nil {
			t.Fatal(err)
		}
	})
	step := 5
	if *long {
		step = 1
	}
	refused := 0
	for at, o := range whole.d.ops {
		if at%step != 0 && o.kind == opWrite && !o.meta || at == 0 {
			continue
		}
		l := bubble(t, func(l *life) {
			failed := false
			switch o.kind {
			case opWrite: // and a sync of bbolt's after it
				l.d.syncFault = func(n int, _ diskOp) bool {
					failed = failed || n == at
					return n == at
				}
			case opSync, opSyncDir:
				l.d.fault = func(n int, o diskOp) error {
					if n == at && (o.kind == opSync || o.kind == opSyncDir) {
						failed = true
						return syscall.EIO
					}
					return nil
				}
			default:
				return
			}
			err := l.run(batches)
			if l.s == nil { // the first Open failed
				l.d.mendAll()
				return
			}
			if err != nil && failed && !l.closed && l.s.failure() != nil {
				refused++
				stillRefused(t, l, at)
			}
			l.d.mendAll()
			l.s.Close() //nolint:errcheck // it may have failed
			l.batches = l.batches[:min(len(l.batches), l.answered+1)]
		})
		if l.s == nil {
			continue
		}
		if err := l.check(l.dir, l.answered); err != nil {
			t.Fatalf("sync failed at operation %d: %v", at, err)
		}
	}
	if refused < batches {
		t.Errorf("%d failed syncs made the store refuse; each of %d batches has one at its end", refused, batches)
	}
	t.Logf("%d failed syncs ended the store", refused)
}

// stillRefused checks that a store that failed stays so when the disk works again.
func stillRefused(t *testing.T, l *life, at int) {
	t.Helper()
	l.d.mendAll()
	last := l.s.Last()
	for range 3 {
		if err := l.s.Append(context.Background(), batchOf(1)); !errors.Is(err, l.s.failure()) {
			t.Errorf("sync failed at operation %d, then append: %v", at, err)
		}
	}
	if err := l.s.SetCheckpoint("outbox", 1); err == nil {
		t.Errorf("sync failed at operation %d, then a checkpoint was taken", at)
	}
	if l.s.Last() != last {
		t.Errorf("sync failed at operation %d, then the log grew", at)
	}
	base, _, err := l.s.Base()
	if err != nil {
		t.Error(err)
	}
	if got := positionsFrom(t, l.s, 1); !slices.Equal(got, upTo(base+1, last)) {
		t.Errorf("sync failed at operation %d, then it reads %v", at, got)
	}
}

// TestDiskFullSaidTooLate: a disk that takes the write that ends a transaction and
// says afterwards that it is full. The batch may be stored, so that trying again
// might store it twice.
func TestDiskFullSaidTooLate(t *testing.T) {
	l := bubble(t, func(l *life) {
		if err := errors.Join(l.open(), l.append(), l.append()); err != nil {
			t.Fatal(err)
		}
		l.d.late = true
		l.d.fault = func(_ int, o diskOp) error {
			if o.meta {
				return syscall.ENOSPC
			}
			return nil
		}
		err := l.append()
		if err == nil || errors.Is(err, store.ErrFull) || l.s.failure() == nil {
			t.Errorf("append: %v", err)
		}
		stillRefused(t, l, len(l.d.ops))
		l.s.Close() //nolint:errcheck // it failed
	})
	if err := l.check(l.dir, l.answered); err != nil {
		t.Error(err)
	}
}
