package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

func newProject(e *env) *cobra.Command {
	var domains []string
	var quiet, mask bool
	cmd := &cobra.Command{
		Use:   "project FILE...",
		Short: "frames in, CTI events out: no PBX, no store, no NATS",
		Long: `Reads recordings and prints the CTI events that follow, one JSON object a line: the
payload that subscribers get on NATS. A FILE holds one frame a line (Webitel frames,
FreeSWITCH events as they are, or a transcript with "t", "dir" and "frame"), or is a
golden; it may be gzip-compressed, and - is standard input.

Of a golden the output has the form of its "expected" entries, so that a diff shows
what we do otherwise.

Which accounts are agents is told by --domain; without it by the golden, by the
answer to auth, or by the domains that the channels name.`,
		Example: `  callstate project testdata/captures/freeswitch/02-incoming-answered.jsonl.gz
  callstate project testdata/goldens/02-inbound-answered.json`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			e.endAtOnce()
			for _, name := range args {
				if err := e.project(name, domains, quiet, mask); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&domains, "domain", nil, "domain whose accounts are agents (may be repeated)")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "do not say on standard error what became of the frames")
	cmd.Flags().BoolVar(&mask, "mask", false, maskUsage)
	return cmd
}

func (e *env) project(name string, domains []string, quiet, mask bool) error {
	rec, err := e.readRecording(name)
	if err != nil {
		return err
	}
	if len(domains) > 0 {
		rec.Domains = domains
	}
	w := bufio.NewWriter(e.out)
	if rec.Golden != nil {
		out, err := runGolden(rec)
		if err != nil {
			return err
		}
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for _, x := range out {
			if mask {
				if x, err = maskEntry(x); err != nil {
					return err
				}
			}
			if err := enc.Encode(x); err != nil {
				return err
			}
		}
		return w.Flush()
	}
	if len(rec.Domains) == 0 {
		return errors.New("the recording names no domain; say which accounts are agents with --domain")
	}
	o := engine.NewOffline(engine.Rules{Domains: rec.Domains}, engine.Policies{}, "project")
	for _, in := range rec.Inputs() {
		if in == nil {
			continue
		}
		steps, err := o.Observe(*in)
		writeSteps(w, steps, mask)
		if err != nil {
			return err
		}
	}
	steps, err := o.Finish()
	writeSteps(w, steps, mask)
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if f := o.Frames(); !quiet {
		e.say("%s: %d frames: %d recorded as events, %d no-ops, %d duplicates, %d quarantined",
			name, f.Received, f.Recorded, f.NoOps, f.Duplicates, f.Quarantined)
	}
	return nil
}

func writeSteps(w *bufio.Writer, steps []engine.Step, mask bool) {
	for i := range steps {
		for j := range steps[i].Result.Messages {
			m := &steps[i].Result.Messages[j]
			payload := m.Payload
			if mask {
				ev := masked(m.Event)
				payload = cti.AppendEvent(nil, &ev)
			}
			_, _ = w.Write(payload) // Flush says whether it went well
			_ = w.WriteByte('\n')
		}
	}
}

func (e *env) readRecording(name string) (*webitel.Recording, error) {
	r := e.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	return webitel.ReadRecording(r)
}
