//go:build !unix

package bench

import "time"

// processorTime is not known here, and what needs it is left out.
func processorTime() time.Duration { return 0 }
