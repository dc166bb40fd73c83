package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/callstate/callstate/store"
)

// SnapshotName is the name of the snapshot beside the log.
const SnapshotName = "callstate.snapshot"

const snapshotMagic = "callstate snap\x00\x01"

// SetSnapshot implements [store.Store]. The log's writer is not concerned.
func (s *Store) SetSnapshot(position uint64, state []byte) error {
	if err := s.gate.Enter(); err != nil {
		return err
	}
	defer s.gate.Leave()
	if s.readOnly {
		return store.ErrReadOnly
	}
	if err := writeStateFile(s.disk, filepath.Join(s.dir, SnapshotName), snapshotMagic, s.id, position, state); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// Snapshot implements [store.Store]. What cannot be used is spoken of in the log.
func (s *Store) Snapshot() (position uint64, state []byte, err error) {
	if err := s.gate.Enter(); err != nil {
		return 0, nil, err
	}
	defer s.gate.Leave()
	position, state, why, err := readStateFile(filepath.Join(s.dir, SnapshotName), snapshotMagic, s.id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil, nil
	case err != nil:
		return 0, nil, fmt.Errorf("snapshot: %w", err)
	case why == "" && position > s.Last():
		why = "it is ahead of the log"
	case why == "" && position < s.base.Load():
		why = "it is of before the log's beginning"
	}
	if why != "" {
		s.log.Warn("snapshot is not used", "reason", why)
		return 0, nil, nil
	}
	return position, state, nil
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
