package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
)

var wholeSize = flag.Bool("size", false, "2,000 agents and 200 sockets, not a tenth of them")

// TestSize runs the daemon as a process of its own, for all agents of a domain over
// one socket and for agents with a socket each, under calls, and holds its memory to
// what README.md says.
func TestSize(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory is read from /proc")
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`2,000 agents over one socket.* (\d+) MiB.*\n?.*200 agents with a socket each.* (\d+) MiB`).FindSubmatch(readme)
	if m == nil {
		t.Fatal("README.md does not say how much memory it takes")
	}
	agents, sockets, takes := 200, 20, 2*time.Second
	if *wholeSize {
		agents, sockets, takes = 2000, 200, 30*time.Second
	}
	for name, tt := range map[string]struct {
		mode          webitel.Mode
		agents, links int
		limit         string
	}{
		"domain":  {webitel.ModeDomain, agents, 1, string(m[1])},
		"account": {webitel.ModeAccount, sockets, sockets, string(m[2])},
	} {
		t.Run(name, func(t *testing.T) {
			limit, err := strconv.Atoi(tt.limit)
			if err != nil {
				t.Fatal(err)
			}
			calls, peak := runSized(t, tt.mode, tt.agents, tt.links, takes)
			t.Logf("%d agents, %d sockets, %d calls: at most %d MiB", tt.agents, tt.links, calls, peak)
			if peak > limit {
				t.Errorf("took %d MiB, README.md says %d", peak, limit)
			}
		})
	}
}

// runSized returns how many calls were made, and the most memory that the daemon
// had, in MiB.
func runSized(t *testing.T, mode webitel.Mode, agents, links int, takes time.Duration) (calls uint64, peak int) {
	t.Helper()
	accounts := append(webiteltest.Agents(demoDomain, 1001, agents, demoSecret), webiteltest.Account{Login: watcherLogin, Secret: demoSecret, Role: "admin"})
	pbx := webiteltest.New(webiteltest.Options{Accounts: accounts})
	defer pbx.Close()
	cfg := defaultConfig()
	cfg.Data, cfg.Listen = t.TempDir(), "127.0.0.1:-1"
	w := webitel.Config{ConnectionString: pbx.URL(), Mode: mode, Users: []webitel.User{{Login: watcherLogin, Password: demoSecret}}}
	if mode == webitel.ModeAccount {
		w.Users = nil
		for _, a := range accounts[:links] {
			w.Users = append(w.Users, webitel.User{Login: a.Login, Password: demoSecret})
		}
	}
	cfg.Webitel = []webitel.Config{w}
	d := startProcess(t, &cfg)
	eventually(t, "the links", func() bool {
		st := d.status()
		n := 0
		for _, l := range st.Links {
			if l.Connected && l.ComparedAt != 0 {
				n++
			}
		}
		return n == links
	})
	ctx, cancel := context.WithTimeout(t.Context(), takes)
	defer cancel()
	c, err := pbx.Generate(ctx, webiteltest.GenerateOptions{
		Agents: webiteltest.Numbers(1001, agents), Domain: demoDomain, Rate: float64(agents) / 40, Speed: 2,
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	st := d.status()
	if st.Lines < agents || c.Calls == 0 || st.Position == 0 {
		t.Errorf("%d lines, %d calls, %d events", st.Lines, c.Calls, st.Position)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatal("the system does not say how much memory was used")
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return c.Calls, (kib + 1023) / 1024
}

// process is the command, run as a daemon.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	nc  *nats.Conn
}

// startProcess runs the daemon with a configuration until the test's end.
func startProcess(t *testing.T, cfg *config) *process {
	t.Helper()
	exe, err := exec.LookPath("callstate") // testscript.Main puts the test binary there
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := toml.NewEncoder(&b).Encode(struct {
		Data    string           `toml:"data"`
		Listen  string           `toml:"listen"`
		Webitel []webitel.Config `toml:"webitel"`
	}{cfg.Data, cfg.Listen, cfg.Webitel}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "callstate.toml")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(exe, "run", "--config", file)}
	logs := &logLines{}
	p.cmd.Stderr = logs
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(p.cmd.Process.Signal(syscall.SIGTERM), p.cmd.Wait()); err != nil {
			t.Errorf("stopped: %v\n%s", err, strings.Join(logs.lines, ""))
		}
	})
	url := regexp.MustCompile(`nats://[0-9.:]+`)
	eventually(t, "the daemon's NATS", func() bool {
		logs.mu.Lock()
		defer logs.mu.Unlock()
		for _, line := range logs.lines {
			if u := url.FindString(line); u != "" {
				p.nc, err = nats.Connect(u)
				return err == nil
			}
		}
		return false
	})
	t.Cleanup(p.nc.Close)
	return p
}

func (p *process) status() (st natsbus.Status) {
	p.t.Helper()
	m, err := p.nc.Request("callstate.v1.status", nil, 10*time.Second)
	if errors.Is(err, nats.ErrNoResponders) {
		return st // it is starting
	}
	if err == nil {
		err = json.Unmarshal(m.Data, &st)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return st
}
