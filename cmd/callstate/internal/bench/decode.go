package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// frameSource is that of a frame whose connection does not matter.
var frameSource = events.Source{Adapter: "webitel", Connection: "bench", Sequence: 1}

// decode is P9: what a frame means for the engine, taken out of its bytes. The
// peer only fills a map. First both must agree about every captured frame.
func (b *Bench) decode(ctx context.Context) ([]Row, error) {
	frames, err := capturedFrames()
	if err != nil {
		return nil, err
	}
	if err := agree(frames); err != nil {
		return nil, err
	}
	timed := frames
	if b.Short {
		timed = every(frames, 5)
	}
	each := func(fn func([]byte) error) func() (float64, error) {
		return func() (float64, error) {
			began := time.Now()
			n := 0
			for _, f := range timed {
				if err := fn(f); err != nil {
					return 0, err
				}
				n++
			}
			return float64(time.Since(began).Nanoseconds()) / float64(n), nil
		}
	}
	at := events.At(time.Now())
	ours := each(func(f []byte) error {
		webitel.Observe(f, frameSource, at)
		return nil
	})
	theirs := each(func(f []byte) error {
		var m map[string]any
		return json.Unmarshal(f, &m)
	})
	p, err := rounds(ctx, pick(b, 3, 9), true, ours, theirs)
	if err != nil {
		return nil, err
	}
	return p.row("P9", "decode and normalise a frame; encoding/json into a map / ours", "ns/frame", 15, false,
		fmt.Sprintf("both agree on all %d captured frames", len(frames))), nil
}

// every is each n-th frame.
func every(frames [][]byte, n int) (out [][]byte) {
	for i := 0; i < len(frames); i += n {
		out = append(out, frames[i])
	}
	return out
}

// agree compares what a frame means decoded by the scanner, and decoded by
// encoding/json into a map.
func agree(frames [][]byte) error {
	at := events.At(time.Now())
	for _, raw := range frames {
		ours, err := meaning(webitel.Decode, raw, at)
		if err != nil {
			return err
		}
		theirs, err := meaning(webitel.DecodeMap, raw, at)
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(ours, theirs) {
			return fmt.Errorf("a frame means another thing by encoding/json: %.200s", raw)
		}
	}
	return nil
}

func meaning(decode func([]byte) (webitel.Frame, error), raw []byte, at events.Time) (engine.Input, error) {
	f, err := decode(raw)
	if err != nil {
		return engine.Input{}, fmt.Errorf("decode %.100s: %w", raw, err)
	}
	return webitel.Normalise(&f, frameSource, at), nil
}
