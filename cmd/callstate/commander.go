package main

import (
	"context"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
)

// commander gives a command to whoever carries it out: the account's web phone,
// or the link that the account is seen by.
type commander struct {
	links  *links
	phones *phones
}

// Check implements engine.Commander.
func (c *commander) Check(cmd engine.Command) error {
	if !cmd.Phone {
		return c.links.Check(cmd)
	}
	if _, err := phoneNumber(cmd); err != nil {
		return err
	}
	_, err := c.phones.signedIn(cmd.Account)
	return err
}

// Command implements engine.Commander.
func (c *commander) Command(ctx context.Context, cmd engine.Command) (string, error) {
	if !cmd.Phone {
		return c.links.Command(ctx, cmd)
	}
	p, err := c.phones.signedIn(cmd.Account)
	if err != nil {
		return "", err
	}
	return phoneCommand(ctx, p, cmd)
}

// phoneNumber checks a phone's command as the PBX's are checked, and returns the
// number to be called as it would go there.
func phoneNumber(cmd engine.Command) (string, error) {
	switch cmd.Action {
	case engine.ActionCall, engine.ActionDTMF, engine.ActionHangup:
	default:
		return "", nil // they carry nothing but the session's id
	}
	wc, err := webitel.EncodeCommand(cmd)
	if err != nil {
		return "", &engine.RequestError{Result: engine.VerdictBadArgument, Text: err.Error()}
	}
	number, _ := wc.Args["extension"].(string)
	return number, nil
}

// phoneCommand has a phone do what a command says.
func phoneCommand(ctx context.Context, p engine.Phone, cmd engine.Command) (answer string, err error) {
	switch cmd.Action {
	case engine.ActionCall:
		number, err := phoneNumber(cmd)
		if err != nil {
			return "", err
		}
		return p.Call(ctx, number)
	case engine.ActionAnswer:
		return "", p.Answer(ctx, cmd.Leg, cmd.Video)
	case engine.ActionAutoAnswer:
		p.AutoAnswer(cmd.Leg)
		return "", nil
	case engine.ActionHold:
		return "", p.Hold(ctx, cmd.Leg)
	case engine.ActionUnhold:
		return "", p.Unhold(ctx, cmd.Leg)
	case engine.ActionHangup:
		return "", p.Hangup(ctx, cmd.Leg, cmd.Cause)
	case engine.ActionDTMF:
		return "", p.SendDTMF(ctx, cmd.Leg, cmd.Digits)
	case engine.ActionVideo:
		return "", p.SetVideo(ctx, cmd.Leg, cmd.Video)
	default:
		return "", &engine.RequestError{Result: engine.VerdictNotSupported, Text: "a web phone cannot " + string(cmd.Action)}
	}
}
