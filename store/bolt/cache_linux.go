package bolt

import (
	"os"

	"golang.org/x/sys/unix"
)

// forget lets go of what the system has in memory of a file. After a failed sync
// Linux keeps pages that never reached the disk as if they had: who opens the
// file next must not take them for stored.
func forget(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) // a file system that cannot has no such pages either
}
