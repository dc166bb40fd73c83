//go:build linux

package bolt

import (
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// platter is what is on the disk for certain, and what may be.
type platter struct {
	names   map[string]*simFile
	folder  []diskOp // done to the folder since it was synced
	content map[*simFile][]byte
	pending map[*simFile][]diskOp // done to the file since it was synced
	acked   int
}

func newPlatter() *platter {
	return &platter{names: map[string]*simFile{}, content: map[*simFile][]byte{}, pending: map[*simFile][]diskOp{}}
}

// do takes the next operation.
func (p *platter) do(o diskOp) {
	switch o.kind {
	case opWrite, opSize:
		p.pending[o.file] = append(p.pending[o.file], o)
	case opSync:
		p.content[o.file] = written(p.content[o.file], p.pending[o.file], nil)
		delete(p.pending, o.file)
	case opName, opRename, opRemove:
		p.folder = append(p.folder, o)
	case opSyncDir:
		for _, o := range p.folder {
			named(p.names, o)
		}
		p.folder = nil
	case opAck:
		p.acked = o.ack
	}
}

func named(names map[string]*simFile, o diskOp) {
	switch o.kind {
	case opName:
		names[o.name] = o.file
	case opRename:
		if names[o.from] == o.file {
			delete(names, o.from)
		}
		names[o.name] = o.file
	case opRemove:
		delete(names, o.name)
	}
}

const sector = 512

// fate decides what became of a piece of a write that was not synced: how many of
// its n bytes are on the disk.
type fate func(o diskOp, n int) int

// written returns what a file holds once ops were done to it, as far as fate lets them.
func written(content []byte, ops []diskOp, f fate) []byte {
	b := slices.Clone(content)
	for _, o := range ops {
		if o.kind == opSize {
			if f == nil || f(o, sector) > 0 {
				b = resized(b, int(o.off))
			}
			continue
		}
		for from := 0; from < len(o.data); from += sector {
			piece := o.data[from:min(from+sector, len(o.data))]
			if f != nil {
				piece = piece[:f(o, len(piece))]
			}
			at := int(o.off) + from
			if len(piece) > 0 && at+len(piece) > len(b) {
				b = resized(b, at+len(piece))
			}
			copy(b[min(at, len(b)):], piece)
		}
	}
	return b
}

func resized(b []byte, n int) []byte {
	if n <= len(b) {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}

// The ways in which a power cut treats what was not synced.
var cuts = []struct {
	name string
	// torn: a sector may be written in part, which no disk that keeps its promises does.
	torn bool
	fate func(r *rand.Rand) fate
	// folder tells whether operation i of the n on the folder is on the disk.
	folder func(r *rand.Rand) func(i, n int) bool
}{
	{"nothing", false, func(*rand.Rand) fate { return func(diskOp, int) int { return 0 } }, never},
	{"everything", false, func(*rand.Rand) fate { return func(_ diskOp, n int) int { return n } }, always},
	{"contents but no names", false, func(*rand.Rand) fate { return func(_ diskOp, n int) int { return n } }, never},
	{"names but no contents", false, func(*rand.Rand) fate { return func(diskOp, int) int { return 0 } }, always},
	{"contents and the newest name", false, func(*rand.Rand) fate { return func(_ diskOp, n int) int { return n } }, newest},
	{"some sectors", false, func(r *rand.Rand) fate {
		return func(_ diskOp, n int) int { return n * r.IntN(2) }
	}, some},
	{"parts of sectors", true, func(r *rand.Rand) fate {
		return func(_ diskOp, n int) int { return r.IntN(n + 1) }
	}, some},
	{"the end of a transaction in part", true, func(r *rand.Rand) fate {
		return func(o diskOp, n int) int {
			if o.meta { // its 80 bytes
				return min(r.IntN(90), n)
			}
			return n
		}
	}, always},
}

func never(*rand.Rand) func(i, n int) bool  { return func(int, int) bool { return false } }
func always(*rand.Rand) func(i, n int) bool { return func(int, int) bool { return true } }
func newest(*rand.Rand) func(i, n int) bool { return func(i, n int) bool { return i == n-1 } }
func some(r *rand.Rand) func(i, n int) bool { return func(int, int) bool { return r.IntN(2) == 0 } }

// cut makes dir the folder after a power cut.
func (p *platter) cut(dir string, f fate, kept func(i, n int) bool) error {
	names := maps.Clone(p.names)
	for i, o := range p.folder {
		if kept(i, len(p.folder)) {
			named(names, o)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		file := names[name]
		b := written(p.content[file], p.pending[file], f)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return sameFiles(dir, names)
}

// sameFiles makes one file of the names that are one file's.
func sameFiles(dir string, names map[string]*simFile) error {
	first := map[*simFile]string{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if of, again := first[names[name]]; again {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.Remove(path), os.Link(filepath.Join(dir, of), path)); err != nil {
				return err
			}
			continue
		}
		first[names[name]] = name
	}
	return nil
}
