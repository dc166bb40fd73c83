package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/callstate/callstate/adapters/webitel"
)

// leftOut says in words what comparison.clean and dropRepeats leave out.
const leftOut = `left out of the comparison: rawMessage, callSaved, saved records, parameters of the
media side, command ids, wording of errors and exceptions, our own CTI events; of a
call oldState, databaseUId, otherLegUUID, NewUUID, and callFeaturesSet in
callInfoChanged; repeats of lineStateChanged and agentStateChanged, and
agentStateChanged that a call's end causes (Q21)`

func newConformance(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "conformance DIR",
		Short: "run every golden of a folder and compare with what the reference did",
		Long: `Plays every golden (NN-name.json) of DIR through the code that the engine runs,
both policies on, and compares what comes out with what the reference client did,
in order and per input. What we do otherwise on purpose is in the golden's
deviation file (NN-name.deviations.json), each entry with its quirk.

Prints a line a golden, then "N passed, M failed"; exit code 1 if one failed.

` + leftOut + ".",
		Example: "  callstate conformance testdata/goldens",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			e.endAtOnce()
			return e.conformance(args[0])
		},
	}
}

func (e *env) conformance(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "[0-9]*.json"))
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	passed, failed := 0, 0
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasSuffix(name, ".deviations.json") {
			continue
		}
		problems, err := checkGolden(file)
		if err != nil {
			problems = append(problems, err.Error())
		}
		if len(problems) == 0 {
			passed++
			fmt.Fprintf(e.out, "pass  %s\n", strings.TrimSuffix(name, ".json"))
			continue
		}
		failed++
		fmt.Fprintf(e.out, "FAIL  %s\n", strings.TrimSuffix(name, ".json"))
		for _, p := range problems {
			fmt.Fprintf(e.out, "      %s\n", p)
		}
	}
	if passed+failed == 0 {
		return fmt.Errorf("no golden (NN-name.json) in %s", dir)
	}
	fmt.Fprintln(e.out, leftOut)
	fmt.Fprintf(e.out, "%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return exitError(1)
	}
	return nil
}

// checkGolden returns what differs.
func checkGolden(file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rec, err := webitel.ReadRecording(f)
	if err != nil {
		return nil, err
	}
	if rec.Golden == nil {
		return nil, fmt.Errorf("%s is no golden", file)
	}
	out, err := runGolden(rec)
	if err != nil {
		return nil, err
	}
	return compareGolden(rec.Golden, out, strings.TrimSuffix(file, ".json")+".deviations.json")
}
