package webitel

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/callstate/callstate/engine"
)

// oddPBX answers each command with what answer says is its response.
func oddPBX(t *testing.T, answer func(fn string, args map[string]any) string) (url string) {
	t.Helper()
	return socket(t, func(ws *websocket.Conn) {
		defer ws.Close()
		for {
			var cmd struct {
				ID   string         `json:"exec-uuid"`
				Func string         `json:"exec-func"`
				Args map[string]any `json:"exec-args"`
			}
			if ws.ReadJSON(&cmd) != nil {
				return
			}
			reply := map[string]any{"exec-uuid": cmd.ID, "exec-complete": "+OK", "exec-response": json.RawMessage(answer(cmd.Func, cmd.Args))}
			if ws.WriteJSON(reply) != nil {
				return
			}
		}
	})
}

// offline is the engine of a resynchronisation, without a log.
type offline struct {
	*recorder

	mu  sync.Mutex // guards run
	run *engine.Offline
}

func (o *offline) Submit(ctx context.Context, in engine.Input) error {
	o.mu.Lock()
	_, err := o.run.Observe(in)
	o.mu.Unlock()
	if err != nil {
		return err
	}
	return o.recorder.Submit(ctx, in)
}

func (o *offline) Compare(_ context.Context, s engine.Snapshot) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.run.Compare(s), nil
}

// TestOddChannels: a list may name channels that the switch, asked for them, does
// not have, or of which it says nothing that can be read. They hide no others, and
// are no sign that the stream of events is silent.
func TestOddChannels(t *testing.T) {
	const odd, ghost = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
	pbx := oddPBX(t, func(fn string, args map[string]any) string {
		switch {
		case fn == "show_channel":
			return `{"rows":[{"uuid":"` + odd + `","presence_id":"1@demo.local"},{"uuid":"` + ghost + `","presence_id":"1@demo.local"}]}`
		case fn == "channel_dump" && args["uuid"] == odd:
			return `17`
		case fn == "channel_dump":
			return `"-ERR No such channel!"`
		}
		return `"+OK"`
	})
	o := &offline{recorder: newRecorder(), run: engine.NewOffline(engine.Rules{}, engine.Policies{}, "log")}
	c := NewClient(fast(pbx), user("1001"), ModeDomain, o, nil)
	r := NewResync(c, o, 5*time.Millisecond, nil)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = r.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	start(t, c)

	ghosts := func(ins []engine.Input) (n int) {
		for _, in := range ins {
			if in.Leg != nil && in.Leg.Kind == engine.LegAbsent && in.Leg.Leg == ghost {
				n++
			}
		}
		return n
	}
	for _, in := range o.until(t, "the ghost, three times", func(ins []engine.Input) bool { return ghosts(ins) >= 3 }) {
		if in.Link != nil && in.Link.Kind == engine.LinkSilent {
			t.Fatal("the stream is taken for silent")
		}
	}
}
