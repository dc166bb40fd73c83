package main

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/store"
	"github.com/callstate/callstate/store/bolt"
)

// retention says how much of the past is kept. Nothing is dropped where both
// limits are zero. Whole files of the log are dropped, see bolt.Options: a day
// or 256 MiB each, and less where the limits are small.
type retention struct {
	Age    duration `toml:"age"`    // what is older goes
	Size   byteSize `toml:"size"`   // of the log on disk; the oldest goes first
	Export string   `toml:"export"` // folder that gets the events before they go; empty means none
}

// byteSize reads "10GiB".
type byteSize int64

func (b *byteSize) UnmarshalText(text []byte) error { return b.Set(string(text)) }

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err == nil && n > 1<<62 {
		err = errors.New("too large")
	}
	*b = byteSize(n)
	return err
}

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return humanize.IBytes(uint64(*b))
}

// Type implements pflag.Value.
func (*byteSize) Type() string { return "size" }

func (r retention) on() bool { return r.Age > 0 || r.Size > 0 }

// segments returns how large and how old a file of the log becomes: an eighth of
// what is kept, so that the limits are kept to about that.
func (r retention) segments() (size int64, age time.Duration) {
	if r.Size > 0 {
		size = min(256<<20, max(1<<20, int64(r.Size)/8))
	}
	if r.Age > 0 {
		age = min(24*time.Hour, max(time.Minute, time.Duration(r.Age)/8))
	}
	return size, age
}

// validate finds limits that cannot be meant.
func (r retention) validate() error {
	switch {
	case r.Age < 0:
		return fmt.Errorf("%w: --retain-age %s is below 0", errUsage, time.Duration(r.Age))
	case r.Age > 0 && time.Duration(r.Age) < time.Minute:
		return fmt.Errorf("%w: --retain-age %s: want a minute or more", errUsage, time.Duration(r.Age))
	case r.Size > 0 && r.Size < 8<<20:
		return fmt.Errorf("%w: --retain-size %s: want 8 MiB or more", errUsage, r.Size.String())
	case r.Export != "" && !r.on():
		return fmt.Errorf("%w: --retain-export without --retain-age or --retain-size", errUsage)
	}
	return nil
}

// droppable is a log whose oldest files can go.
type droppable interface {
	store.Store
	Segments() ([]bolt.Segment, error)
	Bytes() (int64, error)
	Drop(through uint64, base []byte) error
}

// retainer drops what is no longer kept.
type retainer struct {
	retention
	log       droppable
	confirmed func() uint64 // position through which all is published
	logger    *slog.Logger
	now       func() time.Time
}

// run looks at the log now and then, until ctx is done.
func (r *retainer) run(ctx context.Context) error {
	r.clean()
	every := time.Hour
	if _, age := r.segments(); age > 0 {
		every = min(every, age)
	}
	for {
		next := every
		if r.confirmed() == 0 {
			next = untilPublished
		} else if err := r.once(ctx); err != nil && ctx.Err() == nil {
			r.logger.Warn("retention: nothing more is dropped for now", "err", err)
		}
		select {
		case <-time.After(next):
		case <-ctx.Done():
			return nil
		}
	}
}

// untilPublished is how often a start looks whether NATS has said by now how far it
// was published.
const untilPublished = 10 * time.Second

// once drops the oldest files one by one, as long as a limit asks for it, all of
// it is published, and the calls in it have ended.
func (r *retainer) once(ctx context.Context) error {
	segs, err := r.log.Segments()
	if err != nil {
		return err
	}
	bytes, err := r.log.Bytes()
	if err != nil {
		return err
	}
	for _, g := range segs {
		old := r.Age > 0 && r.now().Sub(g.Sealed) > time.Duration(r.Age)
		if !old && (r.Size == 0 || bytes <= int64(r.Size)) {
			return nil
		}
		if g.Last > r.confirmed() {
			return fmt.Errorf("events %d to %d are not all published yet", g.First, g.Last)
		}
		if err := r.drop(ctx, g); err != nil {
			return fmt.Errorf("events %d to %d: %w", g.First, g.Last, err)
		}
		bytes -= g.Bytes
	}
	return nil
}

func (r *retainer) drop(ctx context.Context, g bolt.Segment) error {
	base, err := engine.BaseAt(ctx, r.log, g.Last)
	if err != nil {
		return err
	}
	file := ""
	if r.Export != "" {
		if file, err = r.export(ctx, g); err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	if err := r.log.Drop(g.Last, base); err != nil {
		return err
	}
	r.logger.Info("retention: dropped", "first", g.First, "last", g.Last, "bytes", g.Bytes, "exported_to", cmp.Or(file, "nothing"))
	return nil
}

// export writes the events of a segment as `callstate export --events --format
// jsonl` does, compressed, to a file that appears under its name when it is whole.
func (r *retainer) export(ctx context.Context, g bolt.Segment) (name string, err error) {
	name = filepath.Join(r.Export, fmt.Sprintf("events-%020d-%020d.jsonl.gz", g.First, g.Last))
	if err := os.MkdirAll(r.Export, 0o700); err != nil {
		return "", err
	}
	return name, writeFile(name, func(w io.Writer) error {
		z := gzip.NewWriter(w)
		rows, err := newRowWriter(z, "jsonl", eventColumns)
		if err != nil {
			return err
		}
		err = r.log.Read(ctx, g.First, func(ev *events.Event) error {
			if ev.Position > g.Last {
				return errEnough
			}
			return rows.write(ev)
		})
		if err != nil && !errors.Is(err, errEnough) {
			return err
		}
		return errors.Join(rows.flush(), z.Close())
	})
}

// clean removes what exports that a crash cut short have left; they are written anew.
func (r *retainer) clean() {
	if r.Export == "" {
		return
	}
	left, _ := os.ReadDir(r.Export) // there may be none yet
	for _, e := range left {
		if like, _ := filepath.Match(exportTemporary, e.Name()); !like { // the pattern is good
			continue
		}
		name := filepath.Join(r.Export, e.Name())
		if err := os.Remove(name); err != nil {
			r.logger.Warn("retention: an unfinished export is left", "file", name, "err", err)
		}
	}
}

// errEnough ends a reading.
var errEnough = errors.New("enough")

// exportTemporary matches the files of retention that writeFile has not finished.
const exportTemporary = ".events-*-*.jsonl.gz-*"

// writeFile gives write a file that appears under its name when all of it is on disk.
func writeFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriter(f)
	if err := write(w); err != nil {
		return err
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync() // what is dropped next is nowhere else
}
