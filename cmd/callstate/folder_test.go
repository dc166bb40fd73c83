//go:build linux

package main

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/bbolt"

	"github.com/callstate/callstate/store/bolt"
)

// folderVerbs are the verbs that have --data, with what else they need.
var folderVerbs = map[string][]string{
	"run":     {"--webitel", "ws://127.0.0.1:1/", "--login", "1@acme.example", "--listen", "127.0.0.1:-1"},
	"demo":    {"--duration", "1s", "--port", "-1"},
	"calls":   nil,
	"history": {"1@acme.example/954e8d54"},
	"at":      {"now"},
	"export":  nil,
	"verify":  nil,
	"rescue":  {"--to", "new"},
	"replay":  {"--prefix", "replay.test"},
}

// writes are those that want the folder to themselves.
var writes = map[string]bool{"run": true, "demo": true}

// runOn runs a verb on a folder, with nobody's rights on files where it is asked to:
// root is denied nothing.
func runOn(t *testing.T, verb, data string, nobody bool) (code int, out string) {
	t.Helper()
	t.Chdir(t.TempDir())
	var buf bytes.Buffer
	env := func(name string) string {
		if name == "CALLSTATE_PASSWORD" {
			return "secret"
		}
		return ""
	}
	done := make(chan int, 1)
	args := append([]string{verb, "--data", data}, folderVerbs[verb]...)
	go func() {
		if nobody && os.Geteuid() == 0 {
			runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
			if err := syscall.Setfsuid(65534); err != nil {
				t.Error(err)
			}
		}
		done <- realMain(args, env, strings.NewReader(""), &buf, &buf)
	}()
	select {
	case code = <-done:
	case <-time.After(30 * time.Second):
		t.Fatalf("%s runs on", verb)
	}
	return code, buf.String()
}

// contents are the files of a folder, with what is in them.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			all[path] = ""
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFoldersThatCannotBeUsed: every verb that has --data says what is the matter
// with a folder, ends with 1, and leaves it as it was.
func TestFoldersThatCannotBeUsed(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if _, known := folderVerbs[c.Name()]; c.Flags().Lookup("data") != nil && !known && c.Name() != "bench" && c.Name() != "config" { // which open none
			t.Errorf("%s has --data and is not tested here", c.Name())
		}
	}
	walk(newRoot(&env{getenv: os.Getenv}))

	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string)
		want string
		on   string // where the verb is sent to, of the folder
	}{
		{"in use", func(t *testing.T, dir string) {
			log, err := bolt.Open(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { log.Close() })
		}, "in use by another process", ""},
		{"a foreign file", write(bolt.FileName, strings.Repeat("not a log\n", 4000)), "not a callstate log", ""},
		{"another program's bbolt file", func(t *testing.T, dir string) {
			db, err := bbolt.Open(filepath.Join(dir, bolt.FileName), 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err })
			if err := errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		}, "not a callstate log", ""},
		{"a file in the folder's place", write("file", "text"), "must be a folder", "file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for verb := range folderVerbs {
				dir := t.TempDir()
				tt.make(t, dir)
				before := contents(t, dir)
				code, out := runOn(t, verb, filepath.Join(dir, tt.on), false)
				if code != 1 || !strings.Contains(out, tt.want) {
					t.Errorf("%s: exit code %d, want 1 and %q:\n%s", verb, code, tt.want, out)
				}
				after := contents(t, dir)
				if verb == "run" || verb == "demo" { // the embedded NATS server's own folder is beside the log
					maps.DeleteFunc(after, func(name, _ string) bool { return strings.HasPrefix(name, filepath.Join(dir, "nats")) })
				}
				if !maps.Equal(before, after) {
					t.Errorf("%s has changed the folder", verb)
				}
			}
		})
	}
	t.Run("no log", func(t *testing.T) {
		for verb := range folderVerbs {
			if writes[verb] {
				continue // they make one
			}
			dir := filepath.Join(t.TempDir(), "none")
			code, out := runOn(t, verb, dir, false)
			if code != 1 || !strings.Contains(out, "there is no log") {
				t.Errorf("%s: exit code %d:\n%s", verb, code, out)
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s has made the folder: %v", verb, err)
			}
		}
	})
}

// TestReadOnlyFolder: who only reads needs no right to write, and who may not read
// or write is told so.
func TestReadOnlyFolder(t *testing.T) {
	dir := capturesLog(t)
	if err := errors.Join(os.Chmod(filepath.Join(dir, bolt.FileName), 0o444), os.Chmod(dir, 0o555), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Error(err)
		}
	})
	before := contents(t, dir)
	for verb := range folderVerbs {
		code, out := runOn(t, verb, dir, true)
		switch verb {
		case "run", "demo":
			if code != 1 || !strings.Contains(out, "permission") {
				t.Errorf("%s: exit code %d:\n%s", verb, code, out)
			}
		case "history": // of a call that the log does not have
			if code != 1 || !strings.Contains(out, "no call") {
				t.Errorf("%s: exit code %d:\n%s", verb, code, out)
			}
		case "rescue", "replay":
			if code != 1 || strings.Contains(out, "permission denied: "+dir) {
				t.Errorf("%s: exit code %d:\n%s", verb, code, out)
			}
		default:
			if code != 0 {
				t.Errorf("%s: exit code %d:\n%s", verb, code, out)
			}
		}
	}
	if !maps.Equal(before, contents(t, dir)) {
		t.Error("the folder has changed")
	}
}
