package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

// A child is the daemon in a process of its own: the test binary under the name
// childCommand, wired as run does. A test can kill it, hears from the log itself
// what was acknowledged, and measures its memory without that of the PBX.

const (
	childCommand = "callstate-child"
	childEnv     = "CALLSTATE_CHILD"
)

// childConfig says what a child is made of.
type childConfig struct {
	Data, PBX     string
	NATS          string // URL; empty means its own server
	SegmentBytes  int64
	SnapshotEvery int
	RetainBytes   int64  // drop what is more; 0 keeps everything
	Export        string // folder for what is dropped
	NoRefill      bool   // as in config
	Unlisted      bool   // the PBX does not list the legs of its load: it is not compared with

	// The child kills itself the After-th time that it comes to Place, this much
	// later.
	Place place
	After int
	Delay time.Duration
}

// place is where a child kills itself.
type place string

const (
	inAppend    place = "append"
	inRoll      place = "roll" // a file of the log is sealed, the next begun
	inSnapshot  place = "snapshot"
	inRetention place = "retention"
	inResume    place = "resume" // the outbox asks the bus from where
)

// childStats are what a child says of itself.
type childStats struct {
	Heap       uint64 // in use after a collection
	Goroutines int
	Files      int // descriptors
	Position   uint64
	Confirmed  uint64
	Live       int
	Frames     uint64 // received
	Settled    bool   // connected to the PBX
}

// childMain is the process. It says the URL of its NATS server and then, for each
// line that it reads, its childStats; at the end of its input it stops cleanly.
// File 3 gets a line for each event whose Append has returned: position and hash.
func childMain() int {
	var c childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := c.run(); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 1
	}
	return 0
}

func (c *childConfig) run() error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	log, err := bolt.Open(c.Data, &bolt.Options{SegmentBytes: c.SegmentBytes, Logger: logger})
	if err != nil {
		return err
	}
	s := &tracedStore{Store: log, c: c, acknowledged: os.NewFile(3, "acknowledged")}
	cfg := defaultConfig()
	cfg.Data, cfg.NATS, cfg.Listen, cfg.snapshotEvery = c.Data, c.NATS, "127.0.0.1:-1", c.SnapshotEvery
	cfg.NoRefill = c.NoRefill
	cfg.Webitel = []webitel.Config{{
		ConnectionString: c.PBX, Mode: webitel.ModeDomain, Settle: -1, BackoffMin: webitel.Duration(time.Millisecond),
		Users: []webitel.User{{Login: watcherLogin, Password: demoSecret}},
	}}
	if c.Unlisted {
		cfg.ResyncInterval = duration(-time.Second)
	}
	a, err := openAppOn(cfg, s, logger)
	if err != nil {
		return err
	}
	defer a.close()
	url := c.NATS
	if a.server != nil {
		url = a.server.URL()
	}
	if _, err := fmt.Println(url); err != nil {
		return err
	}
	var settled atomic.Bool
	a.links.clients[0].OnSettled(func(context.Context) { settled.Store(true) })
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() {
		defer stop()
		if err := a.answer(os.Stdin, os.Stdout, &settled); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
		}
	})
	if c.RetainBytes > 0 {
		r := retainer{
			retention: retention{Size: byteSize(c.RetainBytes), Export: c.Export}, log: s, confirmed: a.bus.Confirmed,
			logger: slog.New(slog.DiscardHandler), now: time.Now,
		}
		parts.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			r.clean()
			for ; ctx.Err() == nil; <-tick.C {
				_ = r.once(ctx) // live calls and what is unpublished hold it up
			}
		})
	}
	if c.Place == inRoll {
		parts.Go(func() { s.watchRoll(ctx) })
	}
	return a.run(ctx)
}

// answer answers until its input ends.
func (a *app) answer(in io.Reader, out io.Writer, settled *atomic.Bool) error {
	enc := json.NewEncoder(out)
	for s := bufio.NewScanner(in); s.Scan(); {
		runtime.GC()
		runtime.GC() // pools need the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		st, err := a.engine.Status(context.Background())
		if err != nil {
			return err
		}
		fds, _ := os.ReadDir("/proc/self/fd") // none where there is no such folder
		err = enc.Encode(childStats{
			Heap: m.HeapAlloc, Goroutines: runtime.NumGoroutine(), Files: len(fds), Position: st.Position, Confirmed: st.Published,
			Live: st.LiveCalls, Frames: st.Frames.Received, Settled: settled.Load(),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tracedStore is the log, which tells what it acknowledged and kills the process
// where it is told to.
type tracedStore struct {
	*bolt.Store
	c            *childConfig
	acknowledged *os.File
	passed       atomic.Int64
	line         []byte // Append's, which one goroutine calls
}

func (s *tracedStore) pass(p place) {
	if p == s.c.Place && s.passed.Add(1) == int64(max(s.c.After, 1)) {
		time.AfterFunc(s.c.Delay, killSelf)
	}
}

func killSelf() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
}

func (s *tracedStore) Append(ctx context.Context, b *events.Batch) error {
	s.pass(inAppend)
	if err := s.Store.Append(ctx, b); err != nil {
		return err
	}
	s.line = s.line[:0]
	for i := range b.Events {
		s.line = fmt.Appendf(s.line, "%d %d\n", b.Events[i].Position, hashOf(&b.Events[i]))
	}
	_, err := s.acknowledged.Write(s.line)
	return err
}

func (s *tracedStore) SetSnapshot(position uint64, state []byte) error {
	s.pass(inSnapshot)
	return s.Store.SetSnapshot(position, state)
}

func (s *tracedStore) Drop(through uint64, base []byte) error {
	s.pass(inRetention)
	return s.Store.Drop(through, base)
}

// Checkpoint is asked for by the outbox, which goes on to ask the bus.
func (s *tracedStore) Checkpoint(name string) (uint64, error) {
	s.pass(inResume)
	return s.Store.Checkpoint(name)
}

// watchRoll sees the next file of the log appear under the name that it is made with.
func (s *tracedStore) watchRoll(ctx context.Context) {
	seen := false
	for ctx.Err() == nil {
		_, err := os.Lstat(filepath.Join(s.c.Data, bolt.FileName+".new"))
		if now := err == nil; now != seen {
			if seen = now; seen {
				s.pass(inRoll)
			}
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// hashOf tells events apart by all that is stored of them.
func hashOf(ev *events.Event) uint64 {
	b, err := events.AppendBinary(nil, ev)
	if err != nil {
		panic(err) // it was stored
	}
	return hashBytes(b)
}

func hashBytes(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b)
	return h.Sum64()
}

// child is a running one.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	url   string // of its NATS server; empty if it was killed before it said so
	place place
	acked chan map[uint64]uint64
	done  chan struct{}   // closed when it has ended
	said  strings.Builder // its standard error, to be read when it has ended
}

// dump ends a child that stands still and returns what it said, with what each of its
// goroutines was at, and the same of this process, where the servers may be.
func (p *child) dump() string {
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		_ = p.cmd.Process.Kill()
	}
	<-p.done
	own := make([]byte, 4<<20)
	return fmt.Sprintf("the child:\n%s\n\nthis process:\n%s", p.said.String(), own[:runtime.Stack(own, true)])
}

// startChild starts one and does not wait for it.
func startChild(t *testing.T, c childConfig) *child {
	t.Helper()
	exe, err := exec.LookPath(childCommand) // testscript.Main puts the test binary there
	if err != nil {
		t.Fatal(err)
	}
	conf, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &child{cmd: exec.Command(exe), place: c.Place, acked: make(chan map[uint64]uint64, 1), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(conf))
	p.cmd.ExtraFiles = []*os.File{w}
	p.cmd.Stderr = &p.said
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, w1, err := os.Pipe() // not StdoutPipe, which Wait closes
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = w1
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	w1.Close()
	go func() {
		defer r.Close()
		p.acked <- readAcknowledged(r)
	}()
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // its ProcessState says it
	}()
	t.Cleanup(func() { _ = p.cmd.Process.Kill(); out.Close() })
	return p
}

// readAcknowledged reads until the process has ended. A line that was cut off is none.
func readAcknowledged(r io.Reader) map[uint64]uint64 {
	acked := map[uint64]uint64{}
	for b := bufio.NewReader(r); ; {
		line, err := b.ReadString('\n')
		if err != nil {
			return acked
		}
		var position, hash uint64
		if _, err := fmt.Sscanf(line, "%d %d\n", &position, &hash); err == nil {
			acked[position] = hash
		}
	}
}

// hello waits for the URL of the child's NATS server; empty means that it died first.
func (p *child) hello() string {
	line, _ := p.out.ReadString('\n')
	p.url = strings.TrimSpace(line)
	return p.url
}

// stats asks the child.
func (p *child) stats(t *testing.T) childStats {
	t.Helper()
	_, err := io.WriteString(p.in, "stats\n")
	line, rerr := p.out.ReadBytes('\n')
	var st childStats
	if err := errors.Join(err, rerr, json.Unmarshal(line, &st)); err != nil {
		t.Fatalf("ask the child: %v\n%s", err, p.stop())
	}
	return st
}

// stop lets the child drain and returns what it has to complain of.
func (p *child) stop() string {
	p.in.Close()
	<-p.done
	return fmt.Sprintf("%s\n%s", p.cmd.ProcessState, p.said.String())
}

// diskUse is the size of all files below a folder, and their number.
func diskUse(t *testing.T, dir string) (bytes int64, files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			bytes += fi.Size()
			files++
		}
		return nil // a file that is gone by now
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return bytes, files
}
