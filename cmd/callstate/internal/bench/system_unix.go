//go:build unix

package bench

import (
	"os"
	"syscall"
)

// newBuffer returns memory that the garbage collector does not count: a load in
// the heap would make it run less often than a daemon's does.
func newBuffer(size int) ([]byte, error) {
	return syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
}

func freeBuffer(b []byte) {
	if len(b) > 0 {
		_ = syscall.Munmap(b)
	}
}

// diskBytes is what a file takes on the disk: bbolt grows a file ahead of what is
// in it, and the rest is a hole.
func diskBytes(fi os.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}
