package bolt

import (
	"encoding/binary"
	"fmt"
	"io"

	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/store"
)

// tree checks that the pages of a file form trees. bbolt follows a branch that
// leads back to itself for ever, and takes all memory on its way: no guard
// around it helps. Only branches are read, less than a hundredth of a log.
type tree struct {
	file     io.ReaderAt
	pageSize int
	pages    uint64 // how many the file has by its meta page
	seen     bitset // of pages
}

func checkTree(file io.ReaderAt, tx *bbolt.Tx) error {
	t := &tree{file: file, pageSize: tx.DB().Info().PageSize}
	t.pages = uint64(tx.Size()) / uint64(t.pageSize)
	t.seen = make(bitset, t.pages/64+1)
	root := uint64(tx.Cursor().Bucket().Root())
	if err := t.walk(root); err != nil {
		return err
	}
	if err := t.checkInline(root); err != nil {
		return err
	}
	for _, name := range allBuckets {
		b := tx.Bucket(name)
		if b == nil || b.Root() == 0 { // checkInline
			continue
		}
		if err := t.walk(uint64(b.Root())); err != nil {
			return fmt.Errorf("bucket %s: %w", name, err)
		}
	}
	return t.checkFree()
}

// checkInline reads the buckets that have no page of their own. Damaged, they lead
// bbolt in a circle as well, or have it copy what a few bytes say is four gigabytes.
func (t *tree) checkInline(root uint64) error {
	w := &wreck{file: t.file, pageSize: int64(t.pageSize), limit: t.pages, seen: make(bitset, len(t.seen))}
	w.walk(root, bucketOfBuckets, func(k, v []byte, at int64) {
		if len(v) >= bucketHeader && binary.NativeEndian.Uint64(v) == 0 {
			w.inline(v[bucketHeader:], at, string(k), func(_, _ []byte, _ int64) {})
		}
	})
	if len(w.bad) > 0 {
		return fmt.Errorf("%w: %s", store.ErrDamaged, w.bad[0])
	}
	return nil
}

// checkFree finds pages in use among the free ones.
func (t *tree) checkFree() error {
	m, err := newestMeta(t.file, t.pageSize)
	if err != nil {
		return err
	}
	free, err := readFreeList(t.file, t.pageSize, m)
	if err != nil {
		return err
	}
	for _, id := range free {
		if err := t.visit(id); err != nil {
			return fmt.Errorf("the list of free pages: %w", err)
		}
	}
	return nil
}

// walk goes down level by level: all leaves of a tree are on the same one.
func (t *tree) walk(root uint64) error {
	if err := t.visit(root); err != nil {
		return err
	}
	leaf, err := t.isLeaf(root)
	for level := []uint64{root}; err == nil && !leaf; {
		level, leaf, err = t.descend(level)
	}
	return err
}

// descend visits the children of a level and returns them, unless they are
// leaves: of those there may be millions.
func (t *tree) descend(level []uint64) (next []uint64, leaves bool, err error) {
	for i, id := range level {
		children, err := t.children(id)
		if err != nil {
			return nil, false, err
		}
		for j, child := range children {
			if err := t.visit(child); err != nil {
				return nil, false, err
			}
			if i == 0 && j == 0 {
				if leaves, err = t.isLeaf(child); err != nil {
					return nil, false, err
				}
			}
		}
		if !leaves {
			next = append(next, children...)
		}
	}
	return next, leaves, nil
}

func (t *tree) visit(id uint64) error {
	if id < 2 || id >= t.pages {
		return fmt.Errorf("%w: page %d is not in the file", store.ErrDamaged, id)
	}
	if t.seen.has(id) {
		return fmt.Errorf("%w: page %d is used twice", store.ErrDamaged, id)
	}
	t.seen.set(id)
	return nil
}

func (t *tree) pageHead(id uint64) (h pageHead, err error) {
	var b [pageHeader]byte
	if _, err := t.file.ReadAt(b[:], int64(id)*int64(t.pageSize)); err != nil {
		return pageHead{}, fmt.Errorf("%w: page %d: %w", store.ErrDamaged, id, err)
	}
	if h = parsePageHead(b[:]); h.id != id || h.flags != flagBranch && h.flags != flagLeaf {
		return pageHead{}, fmt.Errorf("%w: page %d is no page of a tree", store.ErrDamaged, id)
	}
	return h, nil
}

func (t *tree) isLeaf(id uint64) (bool, error) {
	h, err := t.pageHead(id)
	return h.flags == flagLeaf, err
}

func (t *tree) children(id uint64) ([]uint64, error) {
	h, err := t.pageHead(id)
	if err != nil {
		return nil, err
	}
	size := (int64(h.overflow) + 1) * int64(t.pageSize)
	if h.flags != flagBranch || h.count == 0 || pageHeader+elemSize*int64(h.count) > size || id+uint64(h.overflow) >= t.pages {
		return nil, fmt.Errorf("%w: page %d is no branch", store.ErrDamaged, id)
	}
	b := make([]byte, elemSize*int(h.count))
	if _, err := t.file.ReadAt(b, int64(id)*int64(t.pageSize)+pageHeader); err != nil {
		return nil, fmt.Errorf("%w: page %d: %w", store.ErrDamaged, id, err)
	}
	children := make([]uint64, h.count)
	for i := range children {
		children[i] = binary.NativeEndian.Uint64(b[elemSize*i+8:])
	}
	return children, nil
}
