package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"

	"github.com/callstate/callstate/store"
)

// The parts of bbolt's page format that are read here, in the machine's byte
// order. A page begins with a header of 16 bytes: id, flags, count, overflow. A
// branch goes on with one element of 16 bytes a child: where its key is, how
// long that is, page id. A leaf with one of 16 bytes an entry: flags, where it
// is, how long key and value are; places count from the element. A list of free
// pages goes on with their ids, and with their number first where it does not
// fit into count.
const (
	pageHeader = 16
	elemSize   = 16

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagMeta     = 0x04
	flagFreeList = 0x10

	flagBucket   = 0x01 // of a leaf's entry
	bucketHeader = 16   // of a bucket's entry: page of its root, sequence

	noFreeList = ^uint64(0) // as a meta page's freelist
)

// pageHead is the beginning of a page.
type pageHead struct {
	id           uint64
	flags, count uint16
	overflow     uint32 // pages that belong to this one
}

func parsePageHead(b []byte) pageHead {
	return pageHead{
		id:       binary.NativeEndian.Uint64(b),
		flags:    binary.NativeEndian.Uint16(b[8:]),
		count:    binary.NativeEndian.Uint16(b[10:]),
		overflow: binary.NativeEndian.Uint32(b[12:]),
	}
}

// metaPage is one of the first two pages, which are written in turn: the newer
// one is the state of the file.
type metaPage struct {
	pageSize uint32
	root     uint64 // page of the bucket of buckets
	freelist uint64
	pages    uint64 // how many are in use or free
	tx       uint64
}

const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSize    = 64 // with its checksum, the last 8 bytes
)

// parseMeta reports whether page n, 0 or 1, is whole.
func parseMeta(page []byte, n int64) (m metaPage, whole bool) {
	if len(page) < pageHeader+metaSize {
		return m, false
	}
	head, b := parsePageHead(page), page[pageHeader:]
	u32, u64 := binary.NativeEndian.Uint32, binary.NativeEndian.Uint64
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	m = metaPage{pageSize: u32(b[8:]), root: u64(b[16:]), freelist: u64(b[32:]), pages: u64(b[40:]), tx: u64(b[48:])}
	return m, head.id == uint64(n) && head.flags == flagMeta && u32(b) == metaMagic && u32(b[4:]) == metaVersion &&
		u64(b[metaSize-8:]) == sum.Sum64() && m.pageSize >= 1024 && m.pageSize&(m.pageSize-1) == 0
}

// newestMeta returns the newer of the two meta pages. It is an error when one is
// damaged: bbolt would go back to the other, as if the last transaction had not been.
func newestMeta(file io.ReaderAt, pageSize int) (newest metaPage, err error) {
	for i := range int64(2) {
		var b [pageHeader + metaSize]byte
		if _, err := file.ReadAt(b[:], i*int64(pageSize)); err != nil {
			return newest, fmt.Errorf("%w: page %d: %w", store.ErrDamaged, i, err)
		}
		m, whole := parseMeta(b[:], i)
		if !whole {
			return newest, fmt.Errorf("%w: page %d, one of the two that say what is the newest: the last events may be missing", store.ErrDamaged, i)
		}
		if i == 0 || m.tx > newest.tx {
			newest = m
		}
	}
	return newest, nil
}

// readFreeList returns the ids of the free pages. A page that is in use and on
// this list would be written over, so the list must be as bbolt writes it:
// sorted, without repeats, and within the file.
func readFreeList(file io.ReaderAt, pageSize int, m metaPage) ([]uint64, error) {
	if m.freelist == noFreeList {
		return nil, nil
	}
	bad := func(why string) ([]uint64, error) {
		return nil, fmt.Errorf("%w: page %d, the list of free pages, %s", store.ErrDamaged, m.freelist, why)
	}
	if m.freelist < 2 || m.freelist >= m.pages {
		return bad("is not in the file")
	}
	at := int64(m.freelist) * int64(pageSize)
	var b [pageHeader + 8]byte
	if _, err := file.ReadAt(b[:], at); err != nil {
		return bad("cannot be read: " + err.Error())
	}
	h := parsePageHead(b[:])
	n, from := uint64(h.count), int64(pageHeader)
	if h.count == 0xFFFF {
		n, from = binary.NativeEndian.Uint64(b[pageHeader:]), pageHeader+8
	}
	size := (int64(h.overflow) + 1) * int64(pageSize)
	if h.id != m.freelist || h.flags != flagFreeList || n > uint64(size-from)/8 || m.freelist+uint64(h.overflow) >= m.pages {
		return bad("is none")
	}
	list := make([]byte, 8*n)
	if _, err := file.ReadAt(list, at+from); err != nil {
		return bad("cannot be read: " + err.Error())
	}
	free := make([]uint64, n)
	for i := range free {
		free[i] = binary.NativeEndian.Uint64(list[8*i:])
		if free[i] < 2 || free[i] >= m.pages || i > 0 && free[i] <= free[i-1] {
			return bad("is out of order")
		}
	}
	return free, nil
}
