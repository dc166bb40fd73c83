package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/callstate/callstate/events/cti"
)

// env is what a verb has of the world.
type env struct {
	getenv func(string) string
	in     io.Reader
	out    io.Writer // data
	errw   io.Writer // messages
	color  bool      // out is a terminal
	level  slog.LevelVar

	logNumbers bool // messages show numbers as they are
	daemon     bool // errors are lines of a log, too
	ran        bool // the verb itself was come to

	unhear func() // stops hearing signals; nil in a test
}

// exitError ends the process with a code of its own. Its message has been printed.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// errUsage is matched by errors of the command line: exit code 2.
var errUsage = errors.New("usage")

// realMain runs one verb and returns the exit code: 0, 1 for a failure, 2 for a
// command line that cannot be understood.
func realMain(args []string, getenv func(string) string, in io.Reader, out, errw io.Writer) int {
	// The first signal drains, the second ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	data := &output{to: out}
	e := &env{getenv: getenv, in: in, out: data, errw: errw, color: isTerminal(out) && getenv("NO_COLOR") == "", unhear: stop}
	cmd := newRoot(e)
	cmd.SetArgs(args)
	cmd.SetIn(in)
	cmd.SetOut(data)
	cmd.SetErr(errw)
	ran, err := cmd.ExecuteContextC(ctx)
	switch {
	case err == nil:
		err = data.failed()
	case !e.ran && !errors.Is(err, errUsage):
		err = fmt.Errorf("%w: %w", errUsage, err) // cobra's own: no such verb, flags that exclude each other
	}
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.Is(err, errUsage):
		e.fail(err)
		e.say("see %s --help", ran.CommandPath())
		return 2
	default:
		e.fail(err)
		return 1
	}
}

// groupControl is the help's heading of what commands the PBX.
const groupControl = "control"

func newRoot(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "callstate",
		Short: "the truth about your calls: an event-sourced call-state engine for Webitel",
		Long: `callstate connects to a Webitel PBX, keeps what it says about calls in a durable
log, folds the log through a state machine per call, and publishes the CTI model
on NATS.

Standard output is for data, standard error for messages. Exit codes: 0 done,
1 failed, 2 the command line cannot be understood.

To see it work with nothing set up:  callstate demo`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return e.logAs(cmd) },
	}
	root.PersistentFlags().String("log-level", "info", "messages on standard error: debug, info, warn or error")
	root.PersistentFlags().Bool("log-numbers", false, "show numbers in messages as they are (default: all but the last two digits are hidden)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.AddGroup(&cobra.Group{ID: groupControl, Title: "Commands to the PBX, through a running engine:"})
	root.AddCommand(newControlVerbs(e)...)
	root.AddCommand(
		newRun(e), newConfig(e), newDemo(e), newProject(e), newConformance(e), newWatch(e), newStatus(e), newAgents(e), newCalls(e), newDoubtful(e), newHistory(e), newAt(e), newExport(e), newVerify(e), newRescue(e), newReplay(e), newRecording(e), newBench(e), newVersion(e),
	)
	for _, cmd := range root.Commands() {
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			e.ran = true
			if err := checkScope(cmd.Flags()); err != nil {
				return err
			}
			return run(cmd, args)
		}
	}
	return root
}

// checkScope checks the flags that say where a verb reads and of whom, where it has
// them. One that names nobody would find nothing, and look like an answer.
func checkScope(fs *pflag.FlagSet) error {
	value := func(name string) string {
		if f := fs.Lookup(name); f != nil {
			return f.Value.String()
		}
		return ""
	}
	if fs.Changed("data") && value("data") == "" {
		return fmt.Errorf("%w: --data is empty", errUsage)
	}
	account, domain := value("account"), value("domain")
	if account == "" {
		return nil
	}
	number, of := cti.SplitAccount(account)
	switch {
	case number == "" || of == "" || strings.ContainsAny(account, " \t"):
		return fmt.Errorf("%w: --account %q: want number@domain", errUsage, account)
	case domain != "" && domain != of:
		return fmt.Errorf("%w: --account %s is not of --domain %s", errUsage, account, domain)
	}
	return nil
}

// endAtOnce lets the first signal end the process, of a verb that has nothing to
// drain. It is also what gets it out of reading.
func (e *env) endAtOnce() {
	if e.unhear != nil {
		e.unhear()
	}
}

// logAs takes the flags of what is logged.
func (e *env) logAs(cmd *cobra.Command) error {
	level, _ := cmd.Flags().GetString("log-level")
	if err := e.level.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("%w: --log-level %q: want debug, info, warn or error", errUsage, level)
	}
	e.logNumbers, _ = cmd.Flags().GetBool("log-numbers")
	return nil
}

// usageArgs makes cobra's complaint about arguments an error of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w: %w; want %s", errUsage, err, cmd.UseLine())
		}
		return nil
	}
}
