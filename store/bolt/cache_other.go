//go:build !linux

package bolt

import "os"

// forget is for what Linux does after a failed sync.
func forget(*os.File) {}
