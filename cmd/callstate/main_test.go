package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be callstate itself, for scripts and for tests
// that kill it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"callstate":  func() { os.Exit(realMain(os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)) },
		childCommand: func() { os.Exit(childMain()) },
	})
}

func TestScripts(t *testing.T) {
	log := capturesLog(t) // of the recordings of a switch; to be read only
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			env.Setenv("TESTDATA", dir+"/../../testdata")
			env.Setenv("CAPTURES_LOG", log)
			env.Setenv("XDG_CACHE_HOME", env.WorkDir+"/cache")
			return nil
		},
		UpdateScripts: *update,
	})
}
