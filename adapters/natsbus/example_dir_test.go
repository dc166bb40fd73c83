package natsbus_test

import (
	"log"
	"os"
)

// exampleDir is a folder for an example, which has no testing.T to ask for one.
func exampleDir() (dir string, remove func()) {
	dir, err := os.MkdirTemp("", "callstate-example")
	if err != nil {
		log.Fatal(err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }
}
