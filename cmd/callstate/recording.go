package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

type recordingOptions struct {
	src   sourceFlags
	out   string
	wait  time.Duration
	force bool
}

func newRecording(e *env) *cobra.Command {
	var o recordingOptions
	cmd := &cobra.Command{
		Use:   "recording CALL -o FILE",
		Short: "download the recording of a call",
		Long: `Asks the running engine for the link to a call's recording and downloads it. CALL is
<account>/<call id>, or a bare call id that one account has.

What has come of a download that breaks off stays beside FILE, in a name that ends with
.part, and is where the next one goes on. FILE is there when it is whole.

A recording is uploaded after the call, so that there is none right at its end: with
--wait it is asked for again. The link is good for more than the recording, and is shown
to nobody.`,
		Example: `  callstate recording 1001@acme.example/954e8d54-41db-4c55-baf8-481bb97b3c74 -o call.mp3
  callstate recording 954e8d54-41db-4c55-baf8-481bb97b3c74 --wait 10m -o call.mp3`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.out == "" {
				return fmt.Errorf("%w: -o FILE is missing", errUsage)
			}
			return e.recording(cmd.Context(), args[0], &o)
		},
	}
	o.src.addURL(e, cmd)
	cmd.Flags().StringVarP(&o.out, "out", "o", "", "file that gets the recording")
	cmd.Flags().DurationVar(&o.wait, "wait", 20*time.Second, "how long to ask for a recording that is not there yet")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace FILE where it exists")
	return cmd
}

func (e *env) recording(ctx context.Context, call string, o *recordingOptions) error {
	if _, err := os.Stat(o.out); err == nil && !o.force {
		return fmt.Errorf("%s exists; --force replaces it", o.out)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	account, id, ok := strings.Cut(call, "/")
	if !ok {
		var err error
		if account, err = o.src.whoHas(call); err != nil {
			return err
		}
		id = call
	}
	if _, domain := cti.SplitAccount(account); domain == "" {
		return fmt.Errorf("%w: call %q: want <account>/<call id>", errUsage, call)
	}
	nc, err := o.src.nats.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	link, err := recordingLink(ctx, nc, engine.Request{Method: engine.MethodRecords, Account: account, Call: id, By: whoami()}, o.wait)
	if err != nil {
		return fmt.Errorf("recording of %s: %w", call, err)
	}
	d := download{link: link, file: o.out, pauses: downloadPauses, stall: 30 * time.Second}
	p := e.progress("KiB", 0)
	d.at = func(have, total int64) { p.last = uint64(max(total, 0)) >> 10; p.at(uint64(have) >> 10) }
	n, err := d.run(ctx)
	p.done()
	if err != nil {
		return fmt.Errorf("recording of %s: %w", call, err)
	}
	e.say("%s: %d bytes", o.out, n)
	return nil
}

// whoHas finds the one account that has a call.
func (f *sourceFlags) whoHas(call string) (account string, err error) {
	var answer struct {
		Calls []cti.CallView `json:"calls"`
	}
	if err := f.ask(natsbus.Scope{}, "calls.get", map[string]string{"callId": call}, &answer); err != nil {
		return "", err
	}
	var of []string
	for i := range answer.Calls {
		of = append(of, answer.Calls[i].Account)
	}
	if len(of) != 1 {
		return "", fmt.Errorf("call %s is one of several accounts (%s): say <account>/%s", call, strings.Join(of, ", "), call)
	}
	return of[0], nil
}

// longestAsk is how long one request waits for a recording; the engine allows no more.
const longestAsk = 5 * time.Minute

// recordingLink asks for the link until there is one or the time is over.
func recordingLink(ctx context.Context, nc *nats.Conn, r engine.Request, wait time.Duration) (string, error) {
	until := time.Now().Add(wait)
	for {
		out, _, err := askControl(nc, r, max(time.Second, min(longestAsk, time.Until(until))))
		switch {
		case err != nil:
			return "", err
		case out.Result == engine.VerdictOK:
			return out.Secret, nil
		case out.Result != engine.VerdictNoRecording || time.Now().After(until):
			return "", fmt.Errorf("%s: %s", out.Result, out.Answer)
		case ctx.Err() != nil:
			return "", ctx.Err()
		}
	}
}
