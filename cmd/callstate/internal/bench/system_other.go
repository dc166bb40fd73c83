//go:build !unix

package bench

import "os"

// newBuffer returns memory of the heap: what is measured is a little too fast,
// since the garbage collector runs less often.
func newBuffer(size int) ([]byte, error) { return make([]byte, size), nil }

func freeBuffer([]byte) {}

func diskBytes(fi os.FileInfo) int64 { return fi.Size() }
