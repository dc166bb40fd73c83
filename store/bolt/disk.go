package bolt

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
)

// disk is all that the store does to its folder, reading aside. Tests put one in
// its place that forgets what was not synced, or refuses.
type disk interface {
	// open opens a file of the log for bbolt, and opened is told before its first
	// transaction.
	open(name string, flag int, perm os.FileMode) (*os.File, error)
	opened(db *bbolt.DB)
	sync(f *os.File) error
	// create makes a file that no other has the name of; the last * of pattern is replaced.
	create(dir, pattern string) (newFile, error)
	link(old, new string) error
	rename(old, new string) error
	remove(name string) error
	syncDir(dir string) error
}

// newFile is a file that is written once.
type newFile interface {
	io.WriteCloser
	Name() string
	Sync() error
}

// osDisk is the operating system's.
type osDisk struct{}

func (osDisk) open(name string, flag int, perm os.FileMode) (*os.File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err == nil && flag&os.O_RDWR != 0 {
		forget(f)
	}
	return f, err
}
func (osDisk) opened(*bbolt.DB)                            {}
func (osDisk) sync(f *os.File) error                       { return f.Sync() }
func (osDisk) create(dir, pattern string) (newFile, error) { return os.CreateTemp(dir, pattern) }
func (osDisk) link(old, new string) error                  { return os.Link(old, new) }
func (osDisk) rename(old, new string) error                { return os.Rename(old, new) }
func (osDisk) remove(name string) error                    { return os.Remove(name) }

func (osDisk) syncDir(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil // a parent that we may pass but not read was not made by us
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// removeIfThere removes a file that need not be there.
func removeIfThere(d disk, name string) error {
	if err := d.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
