package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/callstate/callstate/store"
)

// bucketOfBuckets names the tree that the meta page leads to.
const bucketOfBuckets = "root"

// walk gives fn the entries of a tree, as far as its pages are whole.
func (w *wreck) walk(root uint64, bucket string, fn func(k, v []byte, at int64)) {
	for todo := []child{{id: root}}; len(todo) > 0; {
		id, key := todo[len(todo)-1].id, todo[len(todo)-1].key
		todo = todo[:len(todo)-1]
		page, why := w.page(id)
		if why == "" && key != nil && !bytes.Equal(key, firstKey(page)) {
			why = "it is not the one that the page above it means"
			w.unsee(id, page)
		}
		if why != "" {
			w.damage("page %d of %s: %s", id, bucket, why)
			w.harmed = w.harmed || bucket == string(bucketEvents)
			continue
		}
		if parsePageHead(page).flags == flagLeaf {
			w.leaf(page, int64(id)*w.pageSize, bucket, fn)
			continue
		}
		children := w.branch(page, id, bucket)
		for _, c := range children {
			if bucket == string(bucketEvents) && len(c.key) == 8 {
				w.spoken = append(w.spoken, binary.BigEndian.Uint64(c.key))
			}
		}
		slices.Reverse(children)
		todo = append(todo, children...)
	}
}

// maxPageBytes is more than bbolt makes of the largest record.
const maxPageBytes = 2 * store.MaxRecord

// page reads a page that is in use, with those that belong to it.
func (w *wreck) page(id uint64) (page []byte, why string) {
	switch {
	case id < 2 || id >= w.limit:
		return nil, "it is not in the file"
	case w.seen.has(id):
		return nil, "it is used twice"
	}
	b := make([]byte, w.pageSize)
	if _, err := w.file.ReadAt(b, int64(id)*w.pageSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, err.Error()
	}
	h := parsePageHead(b)
	if h.id != id || h.flags != flagLeaf && h.flags != flagBranch {
		return nil, "it is no page of a tree"
	}
	n := int64(h.overflow) + 1
	if n*w.pageSize > maxPageBytes {
		return nil, "its size is impossible"
	}
	if n > 1 {
		b = make([]byte, n*w.pageSize)
		if _, err := w.file.ReadAt(b, int64(id)*w.pageSize); err != nil && !errors.Is(err, io.EOF) {
			return nil, err.Error()
		}
		if used := max(1, (int64(contentEnd(b))+w.pageSize-1)/w.pageSize); used < n { // bbolt takes no more than it needs
			w.damage("page %d says that it is of %d pages", id, n)
			n = used
			b = b[:n*w.pageSize]
		}
	}
	for i := range uint64(n) {
		w.seen.set(id + i)
		if i > 0 {
			w.inner.set(id + i)
		}
	}
	return b, ""
}

// contentEnd returns where the entries of a page end.
func contentEnd(page []byte) (end int) {
	h := parsePageHead(page)
	for at := pageHeader; at < pageHeader+elemSize*int(h.count) && at+elemSize <= len(page); at += elemSize {
		u32 := func(off int) int { return int(binary.NativeEndian.Uint32(page[at+off:])) }
		e := at + u32(0) + u32(4)
		if h.flags == flagLeaf {
			e = at + u32(4) + u32(8) + u32(12)
		}
		if e <= len(page) {
			end = max(end, e)
		}
	}
	return end
}

// unsee takes back that a page is in use.
func (w *wreck) unsee(id uint64, page []byte) {
	for i := range uint64(len(page)) / uint64(w.pageSize) {
		w.seen.clear(id + i)
		w.inner.clear(id + i)
	}
}

// child is an entry of a branch: a page, and the first key in it.
type child struct {
	id  uint64
	key []byte
}

// firstKey returns the first key of a page, nil where it leads out of it.
func firstKey(page []byte) []byte {
	h := parsePageHead(page)
	if h.count == 0 || len(page) < pageHeader+elemSize {
		return nil
	}
	e := page[pageHeader:]
	from, size := int(binary.NativeEndian.Uint32(e)), int(binary.NativeEndian.Uint32(e[4:]))
	if h.flags == flagLeaf {
		from, size = size, int(binary.NativeEndian.Uint32(e[8:]))
	}
	if from += pageHeader; from+size > len(page) {
		return nil
	}
	return page[from : from+size]
}

func (w *wreck) branch(page []byte, id uint64, bucket string) (children []child) {
	n := int(parsePageHead(page).count)
	if n == 0 || pageHeader+elemSize*n > len(page) {
		w.damage("page %d of %s: it is no branch", id, bucket)
		return nil
	}
	for i := range n {
		at := pageHeader + elemSize*i
		e := page[at:]
		from, size := at+int(binary.NativeEndian.Uint32(e)), int(binary.NativeEndian.Uint32(e[4:]))
		key := []byte{} // no page begins so
		if from+size <= len(page) {
			key = page[from : from+size]
		}
		children = append(children, child{binary.NativeEndian.Uint64(e[8:]), key})
	}
	return children
}

// inline gives fn the entries of a bucket that is so small that its page is part of
// its entry.
func (w *wreck) inline(page []byte, at int64, bucket string, fn func(k, v []byte, at int64)) {
	if len(page) >= pageHeader {
		if h := parsePageHead(page); h.id != 0 || h.flags != flagLeaf || h.overflow != 0 {
			w.damage("bucket %s: its page is no leaf", bucket)
		}
	}
	w.leaf(page, at, bucket, fn)
}

// leaf gives fn the entries of a leaf that is at a place in the file.
func (w *wreck) leaf(page []byte, at int64, bucket string, fn func(k, v []byte, at int64)) {
	if len(page) < pageHeader {
		w.damage("bucket %s: its page is too small", bucket)
		return
	}
	n, flags := int(parsePageHead(page).count), 0
	if bucket == bucketOfBuckets {
		flags = flagBucket
	}
	if len(page) >= pageHeader+elemSize {
		// The first entry follows the last element: it tells their number too.
		first := int(binary.NativeEndian.Uint32(page[pageHeader+4:]))
		if m := first / elemSize; first%elemSize == 0 && m > n && pageHeader+first < len(page) {
			w.damage("a page of %s has %d entries and says %d", bucket, m, n)
			n = m
		}
	}
	for i := range n {
		e := pageHeader + elemSize*i
		if e+elemSize > len(page) {
			w.damage("a page of %s ends before its entries", bucket)
			w.harmed = w.harmed || bucket == string(bucketEvents)
			return
		}
		u32 := func(off int) int { return int(binary.NativeEndian.Uint32(page[e+off:])) }
		from, key, value := e+u32(4), u32(8), u32(12)
		if from+key+value > len(page) || key == 0 {
			w.damage("an entry of %s leads out of its page", bucket)
			w.harmed = w.harmed || bucket == string(bucketEvents)
			continue
		}
		if u32(0) != flags {
			w.damage("an entry of %s has impossible flags", bucket)
		}
		fn(page[from:from+key], page[from+key:from+key+value], at+int64(from+key))
	}
}
