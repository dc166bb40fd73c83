package bolt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
)

// Damage is what [Inspect] finds: which files, and what is lost with them.
type Damage struct {
	LogID string        `json:"log"`             // empty where no file says it any more
	First uint64        `json:"first"`           // position of the log's first event
	Last  uint64        `json:"last"`            // and of the last that anything speaks of
	Files []DamagedFile `json:"files,omitempty"` // those that are damaged
	// Lost are the events that cannot be read, LostFrames the quarantined frames.
	Lost       []Stretch `json:"lost,omitempty"`
	LostFrames []Stretch `json:"lostFrames,omitempty"`
	// Calls are those that lost events, in order, as far as the index tells.
	Calls []LostCall `json:"calls,omitempty"`
	// UnknownCalls is how many lost events belong to calls that nothing tells.
	UnknownCalls uint64 `json:"unknownCalls,omitempty"`
	// Unsure is set when the newest file lost a page that says what is the newest:
	// the last events may be lost as well, or be some whose Append never returned.
	Unsure bool `json:"unsure,omitempty"`
	// BaseLost is set when the state before the first event is lost.
	BaseLost bool `json:"baseLost,omitempty"`

	// Snapshot is why a snapshot cannot be used, where there is one that cannot. The
	// log is whole without.
	Snapshot string `json:"snapshot,omitempty"`

	framesBefore uint64 // number of the last quarantined frame before the first file
}

// DamagedFile is a file of the log and what is wrong with it.
type DamagedFile struct {
	Name string   `json:"name"`
	What []string `json:"what"`
}

// Stretch is a row of positions or numbers.
type Stretch struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// LostCall is a call that lost events.
type LostCall struct {
	Account string `json:"account"`
	Call    string `json:"callId"`
	First   uint64 `json:"first"` // position of the first lost one: what was before is whole
	Lost    int    `json:"lost"`
}

// Whole reports whether nothing is wrong.
func (d *Damage) Whole() bool { return len(d.Files) == 0 && len(d.Lost) == 0 && len(d.LostFrames) == 0 }

// LostEvents is how many events are lost.
func (d *Damage) LostEvents() (n uint64) {
	for _, s := range d.Lost {
		n += s.Last - s.First + 1
	}
	return n
}

// Inspect reads every page of a log that nobody writes, without trusting any, and
// says what of it is damaged. It fails where there is no log.
func Inspect(ctx context.Context, dir string) (*Damage, error) {
	s, err := openWreckage(dir)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if err := s.read(ctx, nothing{}); err != nil {
		return nil, fmt.Errorf("inspect %s: %w", dir, err)
	}
	return &s.found, nil
}

// survivors takes what can be read of a log, in order of position.
type survivors interface {
	event(ctx context.Context, ev *events.Event, size int) error
	lost(ctx context.Context, position uint64, key events.CallKey) error
	frame(ctx context.Context, q *events.Quarantined, size int) error
	lostFrame(ctx context.Context, n uint64) error
}

type nothing struct{}

func (nothing) event(context.Context, *events.Event, int) error       { return nil }
func (nothing) lost(context.Context, uint64, events.CallKey) error    { return nil }
func (nothing) frame(context.Context, *events.Quarantined, int) error { return nil }
func (nothing) lostFrame(context.Context, uint64) error               { return nil }

// wreckage is a damaged log while it is read.
type wreckage struct {
	dir   string
	files []wreckFile // in order of position; the one that is appended to last
	lock  *os.File

	found       Damage
	base        []byte
	calls       map[events.CallKey]*LostCall
	totals      events.FrameCounts
	checkpoints map[string]uint64
	next        uint64 // position that comes next
	nextFrame   uint64 // number; 0 until the first is known
}

type wreckFile struct {
	path  string
	first uint64 // by its name; 0 for the one that is appended to
}

func openWreckage(dir string) (*wreckage, error) {
	s := &wreckage{dir: dir, calls: map[events.CallKey]*LostCall{}, checkpoints: map[string]uint64{}}
	head := filepath.Join(dir, FileName)
	fail := func(err error) (*wreckage, error) {
		s.close()
		explain := &Store{dir: dir, readOnly: true}
		return nil, fmt.Errorf("inspect %s: %w", dir, explain.explainOpen(err))
	}
	names, err := matching(dir, sealedPattern)
	if err != nil {
		return fail(err)
	}
	var headInfo os.FileInfo
	switch s.lock, err = os.Open(head); {
	case err == nil:
		if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
			return fail(berrors.ErrTimeout)
		}
		if headInfo, err = s.lock.Stat(); err != nil {
			return fail(err)
		}
		if headInfo.IsDir() {
			return fail(syscall.EISDIR)
		}
	case errors.Is(err, fs.ErrNotExist) && len(names) > 0:
		s.found.Files = append(s.found.Files, DamagedFile{FileName, []string{"it is gone"}})
		s.found.Unsure = true
	default:
		return fail(err)
	}
	for _, name := range names {
		digits := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(name), "callstate-"), ".db")
		first, err := strconv.ParseUint(digits, 10, 64)
		if err != nil || filepath.Base(name) != sealedName(first) {
			continue
		}
		fi, err := os.Stat(name)
		if err != nil {
			return fail(err)
		}
		if headInfo == nil || !os.SameFile(fi, headInfo) { // else a roll was cut short
			s.files = append(s.files, wreckFile{name, first})
		}
	}
	slices.SortFunc(s.files, func(a, b wreckFile) int { return cmp.Compare(a.first, b.first) })
	if headInfo != nil {
		s.files = append(s.files, wreckFile{path: head})
	}
	if err := s.identify(); err != nil {
		return fail(err)
	}
	return s, nil
}

func (s *wreckage) close() {
	if s.lock != nil {
		s.lock.Close()
	}
}

// identify finds the log's id, which most files have, and where it begins. Those of
// a state have checksums.
func (s *wreckage) identify() error {
	votes := map[string]int{}
	foreign := error(store.ErrForeign) // until something of it is ours
	for i, f := range slices.Backward(s.files) {
		w, err := f.head()
		if err != nil {
			if errors.Is(err, store.ErrVersion) {
				return err
			}
			continue
		}
		if w.hasHead || len(w.events) > 0 {
			foreign = nil
		}
		if _, err := uuid.Parse(w.head.id); w.hasHead && err == nil {
			if votes[w.head.id] += 2; i == len(s.files)-1 {
				votes[w.head.id]++
			}
		}
	}
	snapshots, err := matching(s.dir, snapshotNames)
	if err != nil {
		return err
	}
	states := []string{stateFileID(filepath.Join(s.dir, BaseName), baseMagic)}
	for _, name := range snapshots {
		states = append(states, stateFileID(name, snapshotMagic))
	}
	for _, id := range states {
		if id != "" {
			votes[id] += 4
		}
	}
	for id, n := range votes {
		if n > votes[s.found.LogID] {
			s.found.LogID = id
		}
	}
	if s.found.LogID == "" && foreign != nil {
		return foreign
	}
	return s.findBase()
}

// findBase reads the state before the log's first event.
func (s *wreckage) findBase() error {
	s.next = 1
	if len(s.files) > 0 {
		s.next = max(1, s.files[0].first)
	}
	position, state, why, err := readStateFile(filepath.Join(s.dir, BaseName), baseMagic, s.found.LogID)
	switch {
	case s.found.LogID == "":
		why = "no file tells of which log"
	case errors.Is(err, fs.ErrNotExist):
		why = "it is gone"
	case err != nil:
		why = err.Error()
	}
	if why == "" && position+1 >= s.next {
		s.next, s.base = position+1, state
	} else if s.next > 1 {
		if why == "" {
			why = fmt.Sprintf("it is of event %d, and the log begins at %d", position, s.next)
		}
		s.found.BaseLost = true
		s.found.Files = append(s.found.Files, DamagedFile{BaseName, []string{why}})
	}
	s.found.First = s.next
	return s.checkSnapshots()
}

// checkSnapshots notes a snapshot that is no longer what was written.
func (s *wreckage) checkSnapshots() error {
	if s.found.LogID == "" {
		return nil
	}
	names, err := matching(s.dir, snapshotNames)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, _, why, err := readStateFile(name, snapshotMagic, s.found.LogID)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			why = err.Error()
		}
		if why != "" {
			s.found.Snapshot = filepath.Base(name) + ": " + why
		}
	}
	return nil
}

func (f wreckFile) head() (*wreck, error) {
	file, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readHead(filepath.Base(f.path), file)
}

// read gives to what can be read.
func (s *wreckage) read(ctx context.Context, to survivors) error {
	for i, f := range s.files {
		end := uint64(0) // not known
		if i+1 < len(s.files) && s.files[i+1].first > 0 {
			end = s.files[i+1].first - 1
		}
		if f.first > 0 && f.first < s.next && end < s.next { // dropped by retention; a crash came before it was removed
			continue
		}
		if err := s.readFile(ctx, f, end, to); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(f.path), err)
		}
	}
	s.found.Last = s.next - 1
	for _, key := range slices.SortedFunc(maps.Keys(s.calls), compareCalls) {
		s.found.Calls = append(s.found.Calls, *s.calls[key])
	}
	return nil
}

func compareCalls(a, b events.CallKey) int {
	return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Call, b.Call))
}

// resembles tells an id that is damaged from one of another log.
func resembles(id, want string) bool {
	if _, err := uuid.Parse(id); err != nil {
		return true
	}
	same := 0
	for i := range min(len(id), len(want)) {
		if id[i] == want[i] {
			same++
		}
	}
	return 2*same > len(want)
}

// checkFirst checks where the file that is appended to says that it begins: its name
// does not tell.
func (s *wreckage) checkFirst(w *wreck) {
	first := w.head.first
	if !w.said[string(keyFirst)] || first == s.next || len(w.events) > 0 && w.events[0].n == first {
		return
	}
	w.damage("it begins with event %d, and the file before it ends with %d", first, s.next-1)
	if len(w.events) == 0 && !plausible(first, s.next) {
		w.most = s.next - 1
	}
}

// readFile reads one file through the position end, or through its last where
// that is 0.
func (s *wreckage) readFile(ctx context.Context, f wreckFile, end uint64, to survivors) error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	w, err := readWreck(filepath.Base(f.path), file, f.first, end)
	switch {
	case errors.Is(err, store.ErrForeign):
		w = &wreck{name: filepath.Base(f.path), bad: []string{"it was not written by callstate"}}
	case err != nil:
		return err
	case w.hasHead && w.head.id != s.found.LogID && !resembles(w.head.id, s.found.LogID):
		w = &wreck{name: w.name, bad: []string{"it is of log " + w.head.id}}
	}
	if w.hasHead && w.head.id != s.found.LogID {
		w.damage("bucket meta: its log's id is %q", w.head.id)
	}
	if f.first == 0 {
		s.found.Unsure = s.found.Unsure || w.metas < 2
		s.checkFirst(w)
	}
	if end == 0 {
		end = max(w.most, s.next-1)
	}
	if last := w.lastEvent(); f.first > 0 && len(w.bad) == 0 && w.indexed < last {
		w.damage("bucket index: it goes on to event %d, the events to %d", w.indexed, last)
	}
	p := &filePass{s: s, w: w, to: to, file: file}
	if len(w.bad) == 0 {
		p.indexed = map[string]uint64{}
	}
	if err := p.events(ctx, end); err != nil {
		return err
	}
	if err := p.frames(ctx); err != nil {
		return err
	}
	p.checkIndex()
	if len(w.bad) > 0 {
		s.found.Files = append(s.found.Files, DamagedFile{w.name, w.bad})
	}
	if w.totals != (events.FrameCounts{}) {
		s.totals = w.totals
	}
	for name, position := range w.checkpoints {
		if position <= s.next {
			s.checkpoints[name] = max(position, s.checkpoints[name])
		}
	}
	return nil
}
