//go:build linux

package bolt

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"
)

// simDisk is a disk in a real folder that writes down all that is done to it,
// so that any state in which a power cut may leave the folder can be made
// afterwards (see cut), and that refuses where it is told to.
type simDisk struct {
	t   *testing.T
	dir string

	mu    sync.Mutex
	ops   []diskOp
	names map[string]*simFile // the folder as the process sees it

	fault func(n int, o diskOp) error // asked before operation n; nil for none
	// late is whether the write that ends a transaction is done before it fails.
	late bool
	// syncFault is asked after each write whether the sync that follows it fails.
	syncFault func(n int, o diskOp) bool
	broken    *simFile // whose next sync fails
}

// simFile is a file, whatever its names are.
type simFile struct {
	size     int64
	metaLast bool // the last write was of a meta page: a transaction ends with its sync

	fd, good int // of bbolt; good is the true file's while fd is made to fail
}

type opKind int

const (
	opWrite opKind = iota + 1
	opSize
	opSync
	opName // the file gets the name, which may be another one's until then
	opRename
	opRemove
	opSyncDir
	opAck // what was answered by now must be there
)

// diskOp is one operation, and what a power cut may leave of it.
type diskOp struct {
	kind opKind
	file *simFile
	off  int64 // or the size
	data []byte
	meta bool   // of a write: it is of a meta page
	name string // base name
	from string // of a rename
	ack  int    // batches that were answered
}

func newSimDisk(t *testing.T, dir string) *simDisk {
	return &simDisk{t: t, dir: dir, names: map[string]*simFile{}}
}

// errKilled is what a process gets that was killed: nothing happens any more.
var errKilled = errors.New("killed")

// step does an operation and writes it down; do may be nil. The process has come
// here, so a transaction that it committed before is synced.
func (d *simDisk) step(o diskOp, do func() error) error {
	for _, f := range d.files() {
		d.ended(f)
	}
	if d.fault != nil {
		if err := d.fault(len(d.ops), o); err != nil {
			return err
		}
	}
	if do != nil {
		if err := do(); err != nil {
			return err
		}
	}
	d.ops = append(d.ops, o)
	return nil
}

// settled says that the process waits for nothing: its last transaction is
// synced. ack is the number of batches that were answered.
func (d *simDisk) settled(ack int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.step(diskOp{kind: opAck, ack: ack}, nil)
}

func (d *simDisk) files() []*simFile {
	var fs []*simFile
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		if !slices.Contains(fs, d.names[name]) {
			fs = append(fs, d.names[name])
		}
	}
	return fs
}

// ended notes the sync of a transaction's end: bbolt tells of its writes alone.
func (d *simDisk) ended(f *simFile) {
	if f.metaLast {
		f.metaLast = false
		d.ops = append(d.ops, diskOp{kind: opSync, file: f})
	}
}

// killed forgets the process that had the files open.
func (d *simDisk) killed() {
	for _, f := range d.names {
		f.metaLast = false
	}
	d.fault, d.late = nil, false
}

func (d *simDisk) open(name string, flag int, perm os.FileMode) (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	base := filepath.Base(name)
	if f := d.names[base]; f != nil || flag&os.O_CREATE == 0 {
		file, err := os.OpenFile(name, flag, perm)
		if f != nil && err == nil {
			f.fd, f.good = int(file.Fd()), 0
		}
		return file, err
	}
	f := &simFile{}
	var file *os.File
	err := d.step(diskOp{kind: opName, file: f, name: base}, func() (err error) {
		file, err = os.OpenFile(name, flag, perm)
		return err
	})
	if err != nil {
		return nil, err
	}
	f.fd = int(file.Fd())
	d.names[base] = f
	return file, nil
}

// opened puts itself between bbolt and its file, where bbolt's own tests do. The
// four pages of a new file were written before.
func (d *simDisk) opened(db *bbolt.DB) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[filepath.Base(db.Path())]
	if f.size == 0 {
		b, err := os.ReadFile(db.Path())
		if err != nil {
			d.t.Error(err)
		}
		f.size = int64(len(b))
		d.ops = append(d.ops, diskOp{kind: opWrite, file: f, data: b}, diskOp{kind: opSync, file: f})
	}
	hook := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	writeAt := (*func([]byte, int64) (int, error))(unsafe.Pointer(hook.UnsafeAddr()))
	file := *writeAt
	pageSize := int64(db.Info().PageSize)
	*writeAt = func(b []byte, off int64) (int, error) { return d.writeAt(f, file, b, off, pageSize, db.Path()) }
}

func (d *simDisk) writeAt(f *simFile, file func([]byte, int64) (int, error), b []byte, off, pageSize int64, path string) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mend(f)
	o := diskOp{kind: opWrite, file: f, off: off, data: slices.Clone(b), meta: off < 2*pageSize}
	if o.meta {
		d.ops = append(d.ops, diskOp{kind: opSync, file: f}) // of the pages that it leads to
	} else {
		d.ended(f)
		if err := d.grown(f, path); err != nil {
			return 0, err
		}
	}
	if d.fault != nil {
		if err := d.fault(len(d.ops), o); err != nil {
			if o.meta && d.late {
				_, _ = file(b, off)
				d.ops = append(d.ops, o)
			}
			if !errors.Is(err, syscall.ENOSPC) {
				return 0, err
			}
			n, _ := file(b[:len(b)/2&^4095], off) // what fitted, in blocks
			o.data = o.data[:n]
			d.ops = append(d.ops, o)
			return n, err
		}
	}
	n, err = file(b, off)
	d.ops = append(d.ops, o)
	f.metaLast = o.meta && err == nil
	if err == nil && d.syncFault != nil && d.syncFault(len(d.ops)-1, o) {
		d.breakSync(f)
	}
	return n, err
}

// grown notes that bbolt made the file larger, and synced that.
func (d *simDisk) grown(f *simFile, path string) error {
	var st syscall.Stat_t
	name := path // it may have got another one meanwhile
	if d.names[filepath.Base(path)] != f {
		for base, other := range d.names {
			if other == f {
				name = filepath.Join(d.dir, base)
			}
		}
	}
	if err := syscall.Stat(name, &st); err != nil {
		return err
	}
	if st.Size != f.size {
		f.size = st.Size
		d.ops = append(d.ops, diskOp{kind: opSize, file: f, off: st.Size}, diskOp{kind: opSync, file: f})
	}
	return nil
}

// breakSync puts a pipe, which cannot be synced, in the place of the file that bbolt
// writes; mend takes it back. The file's lock stays with it.
func (d *simDisk) breakSync(f *simFile) {
	var p [2]int
	good, err := syscall.Dup(f.fd)
	if err == nil {
		err = syscall.Pipe(p[:])
	}
	if err == nil {
		err = syscall.Dup3(p[1], f.fd, syscall.O_CLOEXEC)
	}
	if err != nil {
		d.t.Error(err)
		return
	}
	syscall.Close(p[0])
	syscall.Close(p[1])
	f.good, d.broken = good, f
}

func (d *simDisk) mend(f *simFile) {
	if f.good == 0 {
		return
	}
	if err := syscall.Dup3(f.good, f.fd, syscall.O_CLOEXEC); err != nil {
		d.t.Error(err)
	}
	syscall.Close(f.good)
	f.good, d.broken = 0, nil
}

// closed forgets a file that was closed while it could not be synced.
func (d *simDisk) closed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		syscall.Close(d.broken.good)
		d.broken.good, d.broken = 0, nil
	}
}

// mendAll lets what failed succeed again.
func (d *simDisk) mendAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		d.mend(d.broken)
	}
	d.fault, d.syncFault = nil, nil
}

func (d *simDisk) sync(f *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.step(diskOp{kind: opSync, file: d.names[filepath.Base(f.Name())]}, nil)
}

func (d *simDisk) create(dir, pattern string) (newFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := &simFile{}
	var file *os.File
	err := d.step(diskOp{kind: opName, file: f, name: pattern}, func() (err error) {
		file, err = os.CreateTemp(dir, pattern)
		return err
	})
	if err != nil {
		return nil, err
	}
	name := filepath.Base(file.Name())
	d.ops[len(d.ops)-1].name = name
	d.names[name] = f
	return &simNewFile{file, d, f}, nil
}

type simNewFile struct {
	*os.File
	d *simDisk
	f *simFile
}

func (n *simNewFile) Write(b []byte) (int, error) {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	off := n.f.size
	err := n.d.step(diskOp{kind: opWrite, file: n.f, off: off, data: slices.Clone(b)}, func() error {
		_, err := n.File.Write(b)
		n.f.size += int64(len(b))
		return err
	})
	return len(b), err
}

func (n *simNewFile) Sync() error {
	n.d.mu.Lock()
	defer n.d.mu.Unlock()
	return n.d.step(diskOp{kind: opSync, file: n.f}, nil)
}

func (d *simDisk) link(old, new string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[filepath.Base(old)]
	err := d.step(diskOp{kind: opName, file: f, name: filepath.Base(new)}, func() error { return os.Link(old, new) })
	if err == nil {
		d.names[filepath.Base(new)] = f
	}
	return err
}

func (d *simDisk) rename(old, new string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[filepath.Base(old)]
	err := d.step(diskOp{kind: opRename, file: f, name: filepath.Base(new), from: filepath.Base(old)}, func() error { return os.Rename(old, new) })
	if err == nil {
		delete(d.names, filepath.Base(old))
		d.names[filepath.Base(new)] = f
	}
	return err
}

func (d *simDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.names[filepath.Base(name)]
	if f == nil {
		return &os.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	err := d.step(diskOp{kind: opRemove, file: f, name: filepath.Base(name)}, func() error { return os.Remove(name) })
	if err == nil {
		delete(d.names, filepath.Base(name))
	}
	return err
}

func (d *simDisk) syncDir(dir string) error {
	if dir != d.dir {
		return nil // its parent
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.step(diskOp{kind: opSyncDir}, nil)
}
