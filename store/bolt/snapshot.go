package bolt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/uuid"

	"github.com/callstate/callstate/store"
)

// SnapshotName is the name of the snapshot of a position, beside the log.
func SnapshotName(position uint64) string { return fmt.Sprintf("callstate-%020d.snapshot", position) }

// snapshotNames is of all their names, and of that of the only one which earlier
// releases kept.
const snapshotNames = "callstate*.snapshot"

const snapshotMagic = "callstate snap\x00\x01"

// Snapshots are kept as long as they are not more than maxSnapshots and not larger
// than an eighth of the log, or than snapshotRoom. Then the one goes whose neighbours
// are nearest to each other.
const (
	maxSnapshots  = 256
	snapshotShare = 8
	snapshotRoom  = 16 << 20
)

// SetSnapshot implements [store.Store]. The log's writer is not concerned.
func (s *Store) SetSnapshot(position uint64, state []byte) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	if s.readOnly {
		return store.ErrReadOnly
	}
	err := writeStateFile(s.disk, filepath.Join(s.dir, SnapshotName(position)), snapshotMagic, s.id, position, state)
	if err == nil {
		err = s.thinSnapshots()
	}
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// Snapshot implements [store.Store]. What cannot be used is spoken of in the log.
func (s *Store) Snapshot(most uint64) (position uint64, state []byte, err error) {
	if err := s.gate.Enter(); err != nil {
		return 0, nil, err
	}
	defer s.gate.Leave()
	files, err := s.snapshots()
	if err != nil {
		return 0, nil, fmt.Errorf("snapshot: %w", err)
	}
	most = min(most, s.Last())
	for _, f := range slices.Backward(files) {
		if !f.named || f.position > most || f.position < s.base.Load() {
			continue
		}
		position, state, why, err := readStateFile(f.path, snapshotMagic, s.id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			return 0, nil, fmt.Errorf("snapshot: %w", err)
		case why != "":
			s.log.Warn("snapshot is not used", "file", filepath.Base(f.path), "reason", why)
		default:
			return position, state, nil
		}
	}
	return 0, nil, nil
}

// ForgetSnapshots implements [store.Store].
func (s *Store) ForgetSnapshots() error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	if s.readOnly {
		return store.ErrReadOnly
	}
	_, err := s.removeSnapshots(func(snapshotFile) bool { return true })
	return err
}

// snapshotFile is what the beginning of a file says.
type snapshotFile struct {
	path     string
	named    bool   // it says that it is a snapshot of this log
	position uint64 // then the one of which it is
	bytes    int64
}

// snapshots returns the files beside the log, in order of position.
func (s *Store) snapshots() ([]snapshotFile, error) {
	names, err := matching(s.dir, snapshotNames)
	if err != nil {
		return nil, err
	}
	id, err := uuid.Parse(s.id)
	if err != nil {
		return nil, err
	}
	var files []snapshotFile
	for _, name := range names {
		f, err := headOfSnapshot(name, id)
		switch {
		case err == nil:
			files = append(files, f)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	slices.SortFunc(files, func(a, b snapshotFile) int { return cmp.Compare(a.position, b.position) })
	return files, nil
}

func headOfSnapshot(path string, id uuid.UUID) (snapshotFile, error) {
	f := snapshotFile{path: path}
	file, err := os.Open(path)
	if err != nil {
		return f, err
	}
	defer file.Close()
	head := make([]byte, stateHeader)
	if n, err := file.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return f, err
	} else if n == len(head) && bytes.HasPrefix(head, append([]byte(snapshotMagic), id[:]...)) {
		f.named, f.position = true, binary.BigEndian.Uint64(head[stateHeader-8:])
	}
	fi, err := file.Stat()
	if err != nil {
		return f, err
	}
	f.bytes = fi.Size()
	return f, nil
}

// thinSnapshots removes what is more than there is room for, and what is no snapshot
// of this log.
func (s *Store) thinSnapshots() error {
	files, err := s.removeSnapshots(func(f snapshotFile) bool { return !f.named })
	if err != nil {
		return err
	}
	size, err := s.Bytes()
	if err != nil {
		return err
	}
	room := max(snapshotRoom, size/snapshotShare)
	for _, f := range files {
		room -= f.bytes
	}
	for len(files) > 2 && (room < 0 || len(files) > maxSnapshots) {
		least := 1
		for i := 1; i < len(files)-1; i++ {
			if files[i+1].position-files[i-1].position < files[least+1].position-files[least-1].position {
				least = i
			}
		}
		if err := removeIfThere(s.disk, files[least].path); err != nil {
			return err
		}
		room += files[least].bytes
		files = slices.Delete(files, least, least+1)
	}
	return nil
}

// removeSnapshots removes those of which no is true, and returns the others.
func (s *Store) removeSnapshots(no func(snapshotFile) bool) (left []snapshotFile, err error) {
	files, err := s.snapshots()
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if !no(f) {
			left = append(left, f)
		} else if err := removeIfThere(s.disk, f.path); err != nil {
			return nil, err
		}
	}
	return left, nil
}

// settleSnapshots removes those that are ahead of the log, as where the log was put
// back from a copy: it will go on from there in another way.
func (s *Store) settleSnapshots() error {
	_, err := s.removeSnapshots(func(f snapshotFile) bool {
		ahead := f.named && f.position > s.Last()
		if ahead {
			s.log.Warn("snapshot is removed, it is ahead of the log", "file", filepath.Base(f.path), "position", f.position, "last", s.Last())
		}
		return ahead
	})
	return err
}

// A state file is magic with version, the log's id, the position, the state, and
// the CRC32C of all that. It is written beside its name and put there when it is
// on disk, so that a crash leaves the old one or the new one.
const stateHeader = len(snapshotMagic) + 16 + 8

func writeStateFile(d disk, path, magic, logID string, position uint64, state []byte) error {
	id, err := uuid.Parse(logID)
	if err != nil {
		return err
	}
	head := append([]byte(magic), id[:]...)
	head = binary.BigEndian.AppendUint64(head, position)
	sum := crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, state)
	return replaceFile(d, path, head, state, binary.BigEndian.AppendUint32(nil, sum))
}

// readStateFile returns what a state file holds, or why it cannot be used.
func readStateFile(path, magic, logID string) (position uint64, state []byte, why string, err error) {
	body, why, err := readSummed(path, magic)
	if err != nil || why != "" {
		return 0, nil, why, err
	}
	id, err := uuid.Parse(logID)
	if err != nil {
		return 0, nil, "", err
	}
	if !bytes.Equal(id[:], body[len(magic):len(magic)+16]) {
		return 0, nil, "it is of another log", nil
	}
	return binary.BigEndian.Uint64(body[stateHeader-8:]), body[stateHeader:], "", nil
}

// stateFileID returns the id of the log that a state file is of, if the file is whole.
func stateFileID(path, magic string) string {
	body, why, err := readSummed(path, magic)
	if err != nil || why != "" {
		return ""
	}
	return uuid.UUID(body[len(magic) : len(magic)+16]).String()
}

// readSummed returns a state file without its checksum, or what is wrong with it.
func readSummed(path, magic string) (body []byte, why string, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	if len(b) < stateHeader+4 || string(b[:len(magic)]) != magic {
		return nil, "it has another form", nil
	}
	body = b[:len(b)-4]
	if binary.BigEndian.Uint32(b[len(body):]) != crc32.Checksum(body, castagnoli) {
		return nil, "it is damaged", nil
	}
	return body, "", nil
}

// replaceFile puts the parts under a name, whole or not at all.
func replaceFile(d disk, path string, parts ...[]byte) (err error) {
	f, err := d.create(filepath.Dir(path), tempPattern(filepath.Base(path)))
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = d.remove(f.Name())
		}
	}()
	for _, b := range parts {
		if err == nil {
			_, err = f.Write(b)
		}
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := d.rename(f.Name(), path); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// tempPattern is of the names that a file has while it is written.
func tempPattern(name string) string { return "." + name + "-*" }
