package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store/bolt"
)

// capturedEvents are those of the captures' log.
func capturedEvents(t *testing.T) []events.Event {
	t.Helper()
	log := openLog(t, capturesLog(t))
	defer log.Close()
	var evs []events.Event
	if err := log.Read(t.Context(), 1, func(ev *events.Event) error { evs = append(evs, *ev); return nil }); err != nil {
		t.Fatal(err)
	}
	return evs
}

// appendEach appends events one by one, so that each is a file of its own.
func appendEach(t *testing.T, log *bolt.Store, evs []events.Event) {
	t.Helper()
	for i := range evs {
		if err := log.Append(t.Context(), &events.Batch{Events: []events.Event{evs[i]}}); err != nil {
			t.Fatal(err)
		}
	}
}

// payloads are the CTI events that a log gives, without the log's id, after a position.
func payloads(t *testing.T, log engine.Reader, after uint64) string {
	t.Helper()
	var b strings.Builder
	err := engine.Fold(t.Context(), log, func(_ *events.Event, r *engine.Result) error {
		for i := range r.Messages {
			if r.Position > after {
				b.Write(append(r.Messages[i].Payload, '\n'))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestRetentionDropsEndedCallsOnly: what is left of a log gives the CTI events
// that the whole log gives, from its beginning on; live calls hold the files
// that they began in, and what is not published is not dropped.
func TestRetentionDropsEndedCallsOnly(t *testing.T) {
	evs := capturedEvents(t)
	live, half := 0, 0 // the last moment in the second half at which a call is live
	for i := range evs {
		switch evs[i].Payload.(type) {
		case *events.CallNew:
			live++
		case *events.CallHungup:
			live--
		}
		if live > 0 {
			half = i + 1
		}
	}
	evs = evs[:max(half, 2)]
	began := uint64(0) // where the oldest live call began
	open := map[events.CallKey]uint64{}
	for i := range evs {
		switch evs[i].Payload.(type) {
		case *events.CallNew:
			open[evs[i].Key()] = uint64(i + 1)
		case *events.CallHungup:
			delete(open, evs[i].Key())
		}
	}
	for _, at := range open {
		if began == 0 || at < began {
			began = at
		}
	}
	if began < 20 {
		t.Fatalf("the oldest live call began at event %d of %d", began, len(evs))
	}

	dir := t.TempDir()
	log, err := bolt.Open(dir, &bolt.Options{SegmentBytes: 1, SegmentAge: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	appendEach(t, log, evs)
	all := payloads(t, log, 0)

	confirmed := uint64(0)
	var diary bytes.Buffer
	export := filepath.Join(t.TempDir(), "kept")
	r := retainer{
		retention: retention{Age: duration(time.Hour), Export: export}, log: log,
		confirmed: func() uint64 { return confirmed }, logger: slog.New(slog.NewTextHandler(&diary, nil)), now: time.Now,
	}
	if err := r.once(t.Context()); err != nil {
		t.Errorf("nothing is old: %v", err)
	}
	r.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	confirmed = 9
	if err := r.once(t.Context()); err == nil || !strings.Contains(err.Error(), "not all published yet") {
		t.Errorf("what is not published was dropped: %v", err)
	}
	if p, _, _ := log.Base(); p != 9 {
		t.Errorf("the log begins after %d, want 9", p)
	}
	confirmed = log.Last()
	var alive *engine.LiveError
	if err := r.once(t.Context()); !errors.As(err, &alive) {
		t.Errorf("a live call's events were dropped: %v", err)
	}
	base, _, err := log.Base()
	if err != nil || base >= began || base < 9 {
		t.Errorf("the log begins after %d, the oldest live call at %d, %v", base, began, err)
	}
	if left := payloads(t, log, base); left == "" || !strings.HasSuffix(all, left) {
		t.Errorf("what is left gives other CTI events than the whole log did:\n%s", left)
	}
	if _, err := engine.At(t.Context(), log, engine.AtFilter{Time: 1}); !errors.Is(err, engine.ErrDropped) {
		t.Errorf("asked for what was dropped: %v", err)
	}
	exported(t, export, 1, base)

	// The engine goes on with what is left.
	e := engine.New(log, nullBus{}, nil, engine.Config{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	calls, err := e.Calls(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range calls {
		if calls[i].Call.EndedAt == 0 {
			n++
		}
	}
	if n != len(open) {
		t.Errorf("%d live calls after the start, want %d", n, len(open))
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}

	// And verify knows where it begins.
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, dir, 0, "retention has dropped the events before", "all is what the log says")
}

// exported checks that the folder has one line for each event between two positions.
func exported(t *testing.T, dir string, first, last uint64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	lines := uint64(0)
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		lines += uint64(bytes.Count(b, []byte("\n")))
	}
	if lines != last-first+1 {
		t.Errorf("%d events exported, %d dropped", lines, last-first+1)
	}
}

// nullBus takes everything.
type nullBus struct{}

func (nullBus) Publish(context.Context, []engine.Result) error        { return nil }
func (nullBus) Flush(context.Context) error                           { return nil }
func (nullBus) Resume(_ context.Context, from uint64) (uint64, error) { return from + 1, nil }
func (nullBus) Confirmed() uint64                                     { return 1 << 62 }

func TestRetentionBySize(t *testing.T) {
	evs := capturedEvents(t)
	log, err := bolt.Open(t.TempDir(), &bolt.Options{SegmentBytes: 1, SegmentAge: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	appendEach(t, log, evs[:60])
	for segs, err := log.Segments(); len(segs) < 60; segs, err = log.Segments() { // the last file is begun after its answer
		if err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	size, err := log.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	r := retainer{retention: retention{Size: byteSize(size / 2)}, log: log, confirmed: log.Last, logger: slog.New(slog.DiscardHandler), now: time.Now}
	if err := r.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := log.Bytes()
	if err != nil || after > size/2 || after < size/4 {
		t.Errorf("%d bytes of %d are left, %v", after, size, err)
	}
}

// segmentsLog notes when its files were asked for. It has none.
type segmentsLog struct {
	droppable
	asked []time.Duration
	begun time.Time
}

func (l *segmentsLog) Segments() ([]bolt.Segment, error) {
	l.asked = append(l.asked, time.Since(l.begun))
	return nil, nil
}

func (l *segmentsLog) Bytes() (int64, error) { return 0, nil }

// TestRetentionAfterAStart: nothing is known to be published in the first moments, and
// what is to go must not stay for that until the next hour.
func TestRetentionAfterAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &segmentsLog{begun: time.Now()}
		r := retainer{
			retention: retention{Size: 1 << 30}, log: log, logger: slog.New(slog.DiscardHandler), now: time.Now,
			confirmed: func() uint64 {
				if time.Since(log.begun) < 25*time.Second {
					return 0
				}
				return 7
			},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if err := r.run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(log.asked) != 2 || log.asked[0] > time.Minute || log.asked[0] < 25*time.Second {
			t.Errorf("asked after %v, want after half a minute and an hour later", log.asked)
		}
	})
}

func TestRetentionSettings(t *testing.T) {
	for args, want := range map[string]string{
		"--retain-age 5s":                     "want a minute or more",
		"--retain-size 3":                     "want 8 MiB or more",
		"--retain-size lots":                  "invalid argument",
		"--retain-export x":                   "without --retain-age",
		"--retain-age -1h":                    "is below 0",
		"--config no-such-file":               "no such file",
		"--retain-age 24h --data /dev/null/x": "",
	} {
		var errw bytes.Buffer
		line := append([]string{"run", "--webitel", "ws://127.0.0.1:1/", "--login", "1@a.example"}, strings.Fields(args)...)
		if code := realMain(line, func(string) string { return "" }, nil, io.Discard, &errw); code == 0 || !strings.Contains(errw.String(), want) {
			t.Errorf("%s: exit %d, %s", args, code, &errw)
		}
	}
}
