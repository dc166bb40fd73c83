package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, dir string) store.Store { return mustOpen(t, dir, nil) }

func mustOpen(t *testing.T, dir string, opts *Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestStore(t *testing.T) { storetest.Run(t, open) }

func batchOf(n int) *events.Batch {
	b := &events.Batch{}
	for i := range n {
		b.Events = append(b.Events, storetest.Event(storetest.Key(1, i), i))
	}
	return b
}

// wantHint checks the sentinel and that the hint tells which folder.
func wantHint(t *testing.T, err, sentinel error, dir string) {
	t.Helper()
	if !errors.Is(err, sentinel) {
		t.Fatalf("got %v, want %v", err, sentinel)
	}
	he, ok := errors.AsType[*store.HintError](err)
	if !ok || !strings.Contains(he.Hint, dir) {
		t.Errorf("the hint of %v does not name %s", err, dir)
	}
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, nil)
	for _, readOnly := range []bool{false, true} {
		_, err := Open(dir, &Options{ReadOnly: readOnly, LockTimeout: time.Millisecond})
		wantHint(t, err, store.ErrInUse, dir)
	}
}

func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(dir, &Options{ReadOnly: true})
	wantHint(t, err, store.ErrMissing, dir)
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("opening for reading left %v", entries)
	}

	w := mustOpen(t, dir, nil)
	if err := w.Append(t.Context(), batchOf(3)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r := mustOpen(t, dir, &Options{ReadOnly: true})
	mustOpen(t, dir, &Options{ReadOnly: true}) // readers do not exclude each other
	if r.Last() != 3 || r.ID() != w.ID() {
		t.Errorf("last %d, id %s; want 3, %s", r.Last(), r.ID(), w.ID())
	}
	if err := r.Append(t.Context(), batchOf(1)); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("Append: got %v, want ErrReadOnly", err)
	}
	if err := r.SetCheckpoint("x", 1); !errors.Is(err, store.ErrReadOnly) {
		t.Errorf("SetCheckpoint: got %v, want ErrReadOnly", err)
	}
	_, err = Open(dir, &Options{LockTimeout: time.Millisecond})
	wantHint(t, err, store.ErrInUse, dir)
}

func TestOpenForeignFiles(t *testing.T) {
	other := func(t *testing.T, path string, fill func(tx *bbolt.Tx) error) {
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Update(fill), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		want error
	}{
		{"text", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("not a log\n", 4000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, store.ErrForeign},
		{"a folder", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, store.ErrForeign},
		{"another program's bbolt file", func(t *testing.T, path string) {
			other(t, path, func(tx *bbolt.Tx) error {
				_, err := tx.CreateBucket([]byte("theirs"))
				return err
			})
		}, store.ErrForeign},
		{"a newer log", func(t *testing.T, path string) {
			other(t, path, func(tx *bbolt.Tx) error {
				if err := create(tx, header{id: "x"}); err != nil {
					return err
				}
				return tx.Bucket(bucketMeta).Put(keyVersion, u64(formatVersion+1))
			})
		}, store.ErrVersion},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.make(t, filepath.Join(dir, FileName))
			for _, readOnly := range []bool{false, true} {
				_, err := Open(dir, &Options{ReadOnly: readOnly})
				wantHint(t, err, tt.want, dir)
			}
		})
	}
}

func TestFolderThatIsAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, nil)
	wantHint(t, err, store.ErrForeign, dir)
}

func TestNoPermission(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(dir, &Options{disk: deniedDisk{}})
	wantHint(t, err, store.ErrDenied, dir)
}

// deniedDisk denies what root, who may run this, is never denied.
type deniedDisk struct{ osDisk }

func (deniedDisk) open(name string, _ int, _ os.FileMode) (*os.File, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EACCES}
}

// syncedDirs notes which folders were synced.
type syncedDirs struct {
	osDisk
	dirs []string
}

func (d *syncedDirs) syncDir(dir string) error {
	d.dirs = append(d.dirs, dir)
	return d.osDisk.syncDir(dir)
}

// TestNewFoldersAreSynced: each folder that was made for the log is named by the one
// above, which must be on disk before the first event is.
func TestNewFoldersAreSynced(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b", "c")
	d := &syncedDirs{}
	mustOpen(t, dir, &Options{disk: d})
	for name := dir; ; name = filepath.Dir(name) {
		if !slices.Contains(d.dirs, name) {
			t.Errorf("%s was not synced", name)
		}
		if name == top {
			break
		}
	}
}

// A process that ended while it made the first file.
func TestUnfinishedNewFileIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, FileName)
	if err := os.WriteFile(path+newSuffix, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, &Options{ReadOnly: true})
	wantHint(t, err, store.ErrMissing, dir)
	s := mustOpen(t, dir, nil)
	if err := s.Append(t.Context(), batchOf(1)); err != nil {
		t.Error(err)
	}
}

// An empty file is no new log: what was in it is lost.
func TestEmptyFileIsDamage(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, FileName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		_, err := Open(dir, &Options{ReadOnly: readOnly})
		wantHint(t, err, store.ErrDamaged, dir)
	}
}

// filled returns a closed log of n events and its file.
func filled(t *testing.T, n int) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	s := mustOpen(t, dir, nil)
	if err := s.Append(t.Context(), batchOf(n)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, FileName)
}

func TestDamagedEventIsReported(t *testing.T) {
	dir, path := filled(t, 20)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The id of one event, wherever its page is.
	id := []byte(storetest.Event(storetest.Key(1, 7), 7).ID)
	at := strings.LastIndex(string(b), string(id))
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, nil)
	var last uint64
	err = s.Read(t.Context(), 1, func(e *events.Event) error { last = e.Position; return nil })
	wantHint(t, err, store.ErrDamaged, dir)
	if last != 7 || !strings.Contains(err.Error(), "event 8") {
		t.Errorf("read up to %d, then %v; want 7, then event 8", last, err)
	}
	err = s.ReadCall(t.Context(), storetest.Key(1, 7), func(*events.Event) error { return nil })
	wantHint(t, err, store.ErrDamaged, dir)
}

// Whatever byte goes wrong, and wherever the file is cut, the answer is an error
// or the right events, never a panic or a wrong event.
func TestDamageNeverPanics(t *testing.T) {
	_, path := filled(t, 300)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := len(strings.TrimRight(string(whole), "\x00"))
	pageSize := os.Getpagesize()
	try := func(name string, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir, nil)
		if err == nil {
			want := uint64(0)
			err = s.Read(t.Context(), 1, func(e *events.Event) error {
				want++
				if id := storetest.Event(storetest.Key(1, int(want-1)), int(want-1)).ID; e.Position != want || e.ID != id {
					t.Errorf("%s: wrong event %d %s, want %d %s", name, e.Position, e.ID, want, id)
				}
				return nil
			})
			s.Append(t.Context(), batchOf(1)) //nolint:errcheck // any answer will do
			s.Close()
		}
		if err != nil && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrForeign) && !errors.Is(err, store.ErrVersion) {
			t.Errorf("%s: %v matches no sentinel", name, err)
		}
	}
	for at := 0; at < used; at += pageSize {
		try("zeroed page", append(append(append([]byte(nil), whole[:at]...), make([]byte, pageSize)...), whole[min(at+pageSize, len(whole)):]...))
		try("cut file", whole[:at+pageSize/2])
		for _, off := range []int{0, 8, 10, 12, 16, 20, 24, 700, 2000} {
			b := append([]byte(nil), whole...)
			b[at+off] ^= 0x41
			try("changed byte", b)
		}
	}
}

// bbolt would follow such a branch for ever.
func TestBranchThatLeadsBackIsReported(t *testing.T) {
	dir, path := filled(t, 300)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var root uint64
	err = db.View(func(tx *bbolt.Tx) error {
		root = uint64(tx.Bucket(bucketEvents).Root())
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := b[int(root)*os.Getpagesize():]
	if binary.NativeEndian.Uint16(page[8:]) != flagBranch {
		t.Fatal("the events fit in one page")
	}
	binary.NativeEndian.PutUint64(page[pageHeader+8:], root)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir, nil)
	wantHint(t, err, store.ErrDamaged, dir)
}

// The file's size limit stands for a full disk: both make the write fail and
// leave what was there.
func TestFullDiskStoresNothingAndRecovers(t *testing.T) {
	if os.Getenv("CALLSTATE_FULL_DISK") == "" {
		// In a process of its own: the limit holds for all files of the process.
		cmd := exec.Command(os.Args[0], "-test.run=^TestFullDiskStoresNothingAndRecovers$", "-test.v")
		cmd.Env = append(os.Environ(), "CALLSTATE_FULL_DISK=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	s := mustOpen(t, dir, nil)
	if err := s.Append(t.Context(), batchOf(1)); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limit := old
	limit.Cur = uint64(fi.Size())
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	b := batchOf(500)
	for range 3 {
		err = s.Append(t.Context(), b)
		wantHint(t, err, store.ErrFull, dir)
		if s.Last() != 1 || b.Events[0].Position != 0 {
			t.Fatalf("last %d, position %d; want nothing stored", s.Last(), b.Events[0].Position)
		}
	}
	if err := s.SetCheckpoint("kept", 1); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), b); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := storetest.New(t, open, dir)
	if p, err := again.Checkpoint("kept"); again.Last() != 501 || p != 1 || err != nil {
		t.Errorf("last %d, checkpoint %d, %v; want 501, 1", again.Last(), p, err)
	}
}

// lastOpened keeps the file that was opened last.
type lastOpened struct {
	osDisk
	file *os.File
}

func (d *lastOpened) open(name string, flag int, perm os.FileMode) (f *os.File, err error) {
	d.file, err = os.OpenFile(name, flag, perm)
	return d.file, err
}

func TestFailedWriteIsTheEnd(t *testing.T) {
	dir := t.TempDir()
	d := &lastOpened{}
	s, err := Open(dir, &Options{disk: d})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), batchOf(2)); err != nil {
		t.Fatal(err)
	}
	// Totals alone are written to pages that earlier batches freed: the file need
	// not grow, and it is the write itself that fails.
	totals := &events.Batch{Frames: events.FrameCounts{Received: 1}}
	for range 3 {
		if err := s.Append(t.Context(), totals); err != nil {
			t.Fatal(err)
		}
	}
	d.file.Close() // every write and sync fails from now on
	first := s.Append(t.Context(), totals)
	if !errors.Is(first, os.ErrClosed) {
		t.Fatalf("got %v, want the write's own error", first)
	}
	if again := s.Append(t.Context(), batchOf(1)); !errors.Is(again, first) {
		t.Errorf("later Append: got %v, want %v", again, first)
	}
	if err := s.SetCheckpoint("x", 1); !errors.Is(err, first) {
		t.Errorf("SetCheckpoint: got %v, want %v", err, first)
	}
	n := 0
	if err := s.Read(t.Context(), 1, func(*events.Event) error { n++; return nil }); n != 2 || err != nil {
		t.Errorf("read %d events, %v; what was stored stays readable", n, err)
	}
	if err := s.Close(); err == nil {
		t.Error("closing a closed file gave no error")
	}
}

func TestInvalidBatchDoesNotHarmOthers(t *testing.T) {
	s := storetest.New(t, open, t.TempDir())
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			b := batchOf(2)
			if i%4 == 0 {
				b.Events[1].Payload = nil
			}
			err := s.Append(context.Background(), b)
			if bad := i%4 == 0; bad != errors.Is(err, store.ErrInvalid) || !bad && err != nil {
				t.Errorf("append %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if s.Last() != 48 {
		t.Errorf("last %d, want 48", s.Last())
	}
}

func TestCheckpointIsFlushedWhenIdle(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stored := func() (v uint64) {
			err := s.head.db.View(func(tx *bbolt.Tx) error {
				if b := tx.Bucket(bucketCheckpoints).Get([]byte("outbox")); b != nil {
					v = binary.BigEndian.Uint64(b)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if err := s.SetCheckpoint("outbox", 5); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := stored(); got != 0 {
			t.Errorf("checkpoint %d was written at once", got)
		}
		time.Sleep(time.Second) // of the bubble's clock
		synctest.Wait()
		if got := stored(); got != 5 {
			t.Errorf("checkpoint %d after a second, want 5", got)
		}
	})
}

func TestOpenLogsOneLine(t *testing.T) {
	var b strings.Builder
	s := mustOpen(t, t.TempDir(), &Options{Logger: slog.New(slog.NewTextHandler(&b, nil))})
	if got := b.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, s.ID()) {
		t.Errorf("logged %q", got)
	}
}
