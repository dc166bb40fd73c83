package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

// fenced returns the blocks of a language in README.md.
func fenced(t *testing.T, language string) []string {
	t.Helper()
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(b, -1) {
		out = append(out, string(m[1]))
	}
	if len(out) == 0 {
		t.Fatalf("README.md has no %s block", language)
	}
	return out
}

// TestReadmeCommands runs every command that README.md gives, on a log that a
// demo made; those that would not end are run as far as their configuration.
func TestReadmeCommands(t *testing.T) {
	t.Chdir("../..")
	data := t.TempDir()
	run := func(args ...string) (int, string) {
		var out, errw bytes.Buffer
		code := realMain(args, func(name string) string {
			if name == "CALLSTATE_PASSWORD" {
				return "secret"
			}
			return ""
		}, strings.NewReader(""), &out, &errw)
		return code, errw.String() + out.String()
	}
	if code, out := run("demo", "--data", data, "--duration", "3s"); code != 0 {
		t.Fatalf("demo: exit code %d\n%s", code, out)
	}
	seen := map[string]bool{}
	for _, block := range fencedAt(t) {
		for line := range strings.SplitSeq(strings.TrimSpace(block), "\n") {
			line, _, _ = strings.Cut(line, " > ") // what follows is the shell's
			fields := strings.Fields(line)
			switch {
			case line == "go test ./..." || line == "go run ./cmd/callstate demo":
				seen[line] = true // the one runs this test, the other ran above
				continue
			case fields[0] != "callstate":
				t.Errorf("README.md gives a command that no test knows: %s", line)
				continue
			}
			seen[fields[1]] = true
			args := strings.Split(strings.ReplaceAll(strings.Join(fields[1:], "\x00"), "\x00data\x00", "\x00"+data+"\x00"), "\x00")
			if args[len(args)-1] == "data" {
				args[len(args)-1] = data
			}
			switch args[0] {
			case "run":
				if err := configOf(t, args[1:]); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			case "demo", "watch":
				parse(t, line, args)
			case "history":
				if code, out := run(args...); code != 1 || !strings.Contains(out, "no call") {
					t.Errorf("%s: exit code %d\n%s", line, code, out)
				}
			default:
				if code, out := run(args...); code != 0 {
					t.Errorf("%s: exit code %d\n%s", line, code, out)
				}
			}
		}
	}
	for _, must := range []string{"go test ./...", "go run ./cmd/callstate demo", "run", "project", "conformance", "calls", "history"} {
		if !seen[must] {
			t.Errorf("README.md does not show %s", must)
		}
	}
}

// fencedAt reads README.md from the root, where the commands run.
func fencedAt(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllSubmatch(b, -1) {
		out = append(out, string(m[1]))
	}
	return out
}

// parse checks that a command line is understood.
func parse(t *testing.T, line string, args []string) {
	t.Helper()
	cmd, rest, err := newRoot(&env{getenv: os.Getenv}).Find(args)
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err != nil {
		t.Errorf("%s: %v", line, err)
	}
}

// configOf reads the configuration that a command line of run gives.
func configOf(t *testing.T, args []string) error {
	t.Helper()
	cmd := newRun(&env{getenv: os.Getenv})
	for i, a := range args {
		if a == "secret" {
			args[i] = t.TempDir() + "/secret"
			if err := os.WriteFile(args[i], []byte("secret\n"), 0o600); err != nil {
				return err
			}
		}
	}
	if err := cmd.ParseFlags(args); err != nil {
		return err
	}
	_, err := loadConfig(cmd, func(string) string { return "" })
	return err
}

// TestReadmeConfiguration: the settings that README.md shows are read and valid.
func TestReadmeConfiguration(t *testing.T) {
	for _, block := range fenced(t, "toml") {
		c := defaultConfig()
		md, err := toml.Decode(block, &c)
		if err != nil {
			t.Fatal(err)
		}
		if u := md.Undecoded(); len(u) > 0 {
			t.Errorf("unknown setting %v", u)
		}
		for i := range c.NATSUsers { // in files and variables that are not here
			if u := &c.NATSUsers[i]; u.PasswordFile+u.PasswordEnv != "" {
				u.Password = "x"
			}
		}
		for i := range c.Webitel {
			if u := &c.Webitel[i].Users[0]; u.PasswordFile+u.PasswordEnv != "" {
				u.Password = "x"
			}
		}
		if err := c.validate(); err != nil {
			t.Error(err)
		}
	}
}
