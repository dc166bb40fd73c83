package webitel

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/webitel/webiteltest"
	"github.com/callstate/callstate/engine"
)

// verdict is the engine's word for an error.
func verdict(err error) engine.Verdict {
	re, _ := errors.AsType[*engine.RequestError](requestError(err))
	return re.Result
}

// TestFailureForms provokes each form of failure that the protocol has (2.3) over a
// socket. That hold and unhold of nothing are answered "+OK Success" is form 8a:
// the reply is no error, and proves nothing.
func TestFailureForms(t *testing.T) {
	const nothing = "11111111-2222-3333-4444-555555555555"
	up := func(*webiteltest.Server) {}
	tests := []struct {
		form, name string
		cmd        Command
		before     func(*webiteltest.Server)
		want       error
		word       engine.Verdict
	}{
		{"1", "a wrong password", Command{Func: "auth", Args: map[string]any{"account": "1001@demo.local", "secret": "wrong"}}, up, ErrSecret, engine.VerdictNotPermitted},
		{"1", "a directory that is down", Command{Func: "auth", Args: map[string]any{"account": "1001@demo.local", "secret": "secret"}}, func(s *webiteltest.Server) { s.RefuseAuth(1, webiteltest.ConsoleError) }, ErrAuth, engine.VerdictNotPermitted},
		{"2", "a bad token", Command{Func: "auth", Args: map[string]any{"key": "k", "token": "t"}}, up, ErrAuth, engine.VerdictNotPermitted},
		{"4", "an unknown command", Command{Func: "park"}, up, ErrUnknown, engine.VerdictNotSupported},
		{"5", "a leg that is gone", Command{Func: "hangup", Args: map[string]any{"channel-uuid": nothing}}, up, ErrNoChannel, engine.VerdictNoChannel},
		{"5", "digits into nothing", Command{Func: "dtmf", Args: map[string]any{"channel-uuid": nothing, "digits": "1"}}, up, ErrNoChannel, engine.VerdictNoChannel},
		{"5", "a bridge of nothing", Command{Func: "bridge", Args: map[string]any{"channel_uuid_A": nothing, "channel_uuid_B": nothing}}, up, ErrNoChannel, engine.VerdictNoChannel},
		{"5", "a switch that is gone", Command{Func: "hangup", Args: map[string]any{"channel-uuid": nothing}}, (*webiteltest.Server).KillSwitch, ErrSwitchDown, engine.VerdictSwitchDown},
		{"6", "arguments that the handler rejects", Command{Func: "call", Args: map[string]any{"user": "1001@demo.local"}}, up, ErrBadResponse, engine.VerdictRefused},
		{"6", "a list of a switch that is gone", Command{Func: "show_channel"}, (*webiteltest.Server).KillSwitch, ErrBadResponse, engine.VerdictRefused},
		{"7", "what the role may not", Command{Func: "api domain list"}, up, ErrPermission, engine.VerdictNotPermitted},
		{"8", "an error reported as success", Command{Func: "cc login"}, up, ErrRefused, engine.VerdictRefused},
		{"8a", "hold of nothing", Command{Func: "hold", Args: map[string]any{"channel-uuid": nothing}}, up, nil, ""},
		{"8a", "unhold of nothing", Command{Func: "unhold", Args: map[string]any{"channel-uuid": nothing}}, up, nil, ""},
		{"8b", "a variable that is not set", Command{Func: "getvar"}, up, ErrUndefined, engine.VerdictRefused},
		{"9", "no recording", Command{Func: "cdr_get_record_link", Args: map[string]any{"uuid": nothing}}, up, ErrNoRecording, engine.VerdictNoRecording},
		{"10", "a handler that throws", Command{Func: "broadcast"}, up, ErrNoReply, engine.VerdictNoReply},
		{"10", "a second auth", Command{Func: "auth", Args: map[string]any{"account": "1001@demo.local", "secret": "secret"}}, up, ErrNoReply, engine.VerdictNoReply},
	}
	for _, tt := range tests {
		t.Run(tt.form+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			s := server(t, webiteltest.Options{})
			cfg := fast(s.URL())
			if tt.form == "10" {
				cfg.ReplyTimeout = Duration(200 * time.Millisecond)
			}
			c, _ := connected(t, s, cfg)
			if tt.cmd.Func == "getvar" {
				tt.cmd.Args = map[string]any{"channel-uuid": liveLeg(t, s), "variable": "not_set"}
			}
			tt.before(s)
			_, err := c.Do(t.Context(), tt.cmd)
			if tt.want == nil {
				if err != nil {
					t.Fatalf("%v, want a success that proves nothing", err)
				}
				return
			}
			if !errors.Is(err, tt.want) || verdict(err) != tt.word {
				t.Fatalf("%v (%s), want %v (%s)", err, verdict(err), tt.want, tt.word)
			}
			if re, ok := errors.AsType[*ReplyError](err); ok && re.Form != tt.form {
				t.Errorf("form %s, want %s", re.Form, tt.form)
			}
			if _, err := c.Do(t.Context(), Ping()); err != nil {
				t.Errorf("the socket does not survive it: %v", err)
			}
		})
	}
}

// TestTooManySockets is form 3: the surplus socket is refused and destroyed; it is
// tried again, and gets in when a place is free.
func TestTooManySockets(t *testing.T) {
	s := server(t, webiteltest.Options{MaxSocketPerUser: 1})
	first := fast(s.URL())
	first.BackoffMin, first.BackoffMax = Duration(time.Hour), Duration(time.Hour)
	connected(t, s, first)
	second := NewClient(fast(s.URL()), user("1001"), ModeAccount, newRecorder(), slog.New(slog.DiscardHandler))
	up := make(chan struct{}, 1)
	second.OnSettled(func(context.Context) { up <- struct{}{} })
	start(t, second)
	poll(t, "the refusal", func() bool { return strings.Contains(second.Status().Reason, "too many connections") })
	if st := second.Status(); st.Connected || st.Refused {
		t.Errorf("refused for now: %+v", st)
	}
	s.Drop("1001@demo.local")
	wait(t, "the second's turn", up)
}

// poll waits for what nothing else tells.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(testDeadline); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// liveLeg plays a call and returns one of its legs while they are up.
func liveLeg(t *testing.T, s *webiteltest.Server) string {
	t.Helper()
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = s.Play(t.Context(), sc, webiteltest.PlayOptions{Speed: 1}) }()
	poll(t, "a leg", func() bool { return len(s.Channels()) > 0 })
	return s.Channels()[0]
}
