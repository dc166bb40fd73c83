package bolt

import (
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

// A snapshot is a file: magic with version, the log's id, the position, the state,
// and the CRC32C of all that. It is written beside its name and put there when it
// is on disk, so that a crash leaves the old one or the new one.
const (
	snapshotMagic  = "callstate snap\x00\x01"
	snapshotHeader = len(snapshotMagic) + 16 + 8
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
	id, err := uuid.Parse(s.id)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	b := make([]byte, 0, snapshotHeader+len(state)+4)
	b = append(append(b, snapshotMagic...), id[:]...)
	b = binary.BigEndian.AppendUint64(b, position)
	b = append(b, state...)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if err := replaceFile(filepath.Join(s.dir, SnapshotName), b); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// replaceFile puts b under a name, whole or not at all.
func replaceFile(path string, b []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Snapshot implements [store.Store]. What cannot be used is spoken of in the log.
func (s *Store) Snapshot() (position uint64, state []byte, err error) {
	if err := s.gate.Enter(); err != nil {
		return 0, nil, err
	}
	defer s.gate.Leave()
	b, err := os.ReadFile(filepath.Join(s.dir, SnapshotName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("snapshot: %w", err)
	}
	position, why := s.checkSnapshot(b)
	if why != "" {
		s.log.Warn("snapshot is not used", "reason", why)
		return 0, nil, nil
	}
	return position, b[snapshotHeader : len(b)-4], nil
}

// checkSnapshot returns the position of a snapshot, or why it cannot be used.
func (s *Store) checkSnapshot(b []byte) (position uint64, why string) {
	if len(b) < snapshotHeader+4 || string(b[:len(snapshotMagic)]) != snapshotMagic {
		return 0, "it has another form"
	}
	body := b[:len(b)-4]
	if binary.BigEndian.Uint32(b[len(body):]) != crc32.Checksum(body, castagnoli) {
		return 0, "it is damaged"
	}
	if id, err := uuid.FromBytes(b[len(snapshotMagic) : len(snapshotMagic)+16]); err != nil || id.String() != s.id {
		return 0, "it is of another log"
	}
	position = binary.BigEndian.Uint64(b[snapshotHeader-8:])
	if position > s.Last() {
		return 0, "it is ahead of the log"
	}
	return position, ""
}

// Base implements [store.Store]: nothing was ever dropped.
func (s *Store) Base() (position uint64, state []byte, err error) { return 0, nil, nil }
