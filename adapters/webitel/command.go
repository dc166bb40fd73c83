package webitel

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/callstate/callstate/engine"
)

var _ engine.Commander = (*Client)(nil)

// autoAnswer makes a phone pick up at once; a web phone is answered by its session.
const autoAnswer = "sip_h_Call-Info=answer-after=0"

// EncodeCommand turns the wish of a policy or a request into the server's command.
// It returns an error that matches [ErrArgument] for an argument that the server
// must not see.
func EncodeCommand(c engine.Command) (Command, error) {
	switch c.Action {
	case engine.ActionHangup:
		return Hangup(c.Leg, c.Cause)
	case engine.ActionHold:
		return Hold(c.Leg)
	case engine.ActionUnhold:
		return Unhold(c.Leg)
	case engine.ActionDTMF:
		return DTMF(c.Leg, c.Digits)
	case engine.ActionTransfer:
		return Transfer(c.Leg, c.Target, c.Note)
	case engine.ActionCall:
		return Call(c.Account, c.Target, "", nil)
	case engine.ActionConsult:
		return consult(c)
	case engine.ActionComplete:
		return AttXferBridge(c.Leg, c.OtherLeg, c.ThirdLeg, "")
	case engine.ActionCancel:
		return AttXferCancel(c.Leg, c.OtherLeg, c.ThirdLeg)
	case engine.ActionStatus:
		return ChangeStatus(c.Account, c.State, c.Note)
	case engine.ActionRecord:
		return RecordLink(c.Leg)
	case engine.ActionVideoRefresh:
		return VideoRefresh(c.Leg)
	case engine.ActionQueueLogin:
		return QueueLogin(), nil
	case engine.ActionQueueLogout:
		return QueueLogout(), nil
	case engine.ActionLogin:
		return Login(), nil
	case engine.ActionLogout, engine.ActionDisconnect:
		return Logout(), nil
	default:
		return Command{}, fmt.Errorf("%w: action %q", ErrArgument, c.Action)
	}
}

// consult completes the target with the account's domain, as the reference does.
func consult(c engine.Command) (Command, error) {
	target := c.Target
	if _, domain, ok := strings.Cut(c.Account, "@"); ok && !strings.Contains(target, "@") {
		target += "@" + domain
	}
	var answer []string
	if !c.WebPhone {
		answer = []string{autoAnswer}
	}
	return AttXfer2(c.Leg, c.Account, target, c.Parent, answer)
}

// Check implements [engine.Commander].
func (c *Client) Check(cmd engine.Command) error {
	// What is about the account of a socket may silence all that share it.
	if cmd.Action.OwnConnection() {
		if c.mode == ModeDomain || c.user.Login != cmd.Account {
			return &engine.RequestError{Result: engine.VerdictNotSupported, Text: "only over a connection of the account's own (mode = \"account\")"}
		}
	}
	if cmd.Action == engine.ActionConnect {
		if err := c.final(); err != nil {
			return requestError(fmt.Errorf("%w; it is not tried again before a restart", err))
		}
		return nil
	}
	if _, err := EncodeCommand(cmd); err != nil {
		return requestError(err)
	}
	if !c.Connected() {
		return requestError(ErrDisconnected)
	}
	return nil
}

// Command implements [engine.Commander].
func (c *Client) Command(ctx context.Context, cmd engine.Command) (answer string, err error) {
	if cmd.Action == engine.ActionConnect {
		c.Resume()
		return "", nil
	}
	wc, err := EncodeCommand(cmd)
	if err != nil {
		return "", requestError(err)
	}
	if cmd.Action == engine.ActionRecord {
		return c.recordLink(ctx, wc)
	}
	r, err := c.Do(ctx, wc)
	switch cmd.Action {
	case engine.ActionLogin, engine.ActionLogout:
		c.setMute(cmd.Action == engine.ActionLogout)
	case engine.ActionDisconnect:
		c.Suspend()
		if errors.Is(err, ErrDisconnected) {
			err = nil
		}
	}
	if err != nil {
		return "", requestError(err)
	}
	text, _ := r.Text()
	return strings.TrimSpace(text), nil
}

// requestError gives an error of the PBX the engine's word for it.
func requestError(err error) error {
	for _, w := range []struct {
		err  error
		word engine.Verdict
	}{
		{ErrArgument, engine.VerdictBadArgument},
		{ErrNoReply, engine.VerdictNoReply},
		{ErrDisconnected, engine.VerdictNotConnected},
		{context.DeadlineExceeded, engine.VerdictNoReply},
		{ErrNoChannel, engine.VerdictNoChannel},
		{ErrSwitchDown, engine.VerdictSwitchDown},
		{ErrPermission, engine.VerdictNotPermitted},
		{ErrAuth, engine.VerdictNotPermitted},
		{ErrSecret, engine.VerdictNotPermitted},
		{ErrUnknown, engine.VerdictNotSupported},
		{ErrNoRecording, engine.VerdictNoRecording},
	} {
		if errors.Is(err, w.err) {
			return &engine.RequestError{Result: w.word, Text: err.Error()}
		}
	}
	return &engine.RequestError{Result: engine.VerdictRefused, Text: err.Error()}
}
