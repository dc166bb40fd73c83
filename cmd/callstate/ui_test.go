package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel/webiteltest"
)

// TestExitCodes: 2 is for a command line that cannot be understood, whoever finds
// that out, and 1 for what fails.
func TestExitCodes(t *testing.T) {
	for line, want := range map[string]int{
		"transfer 1@d":                         2,
		"transfer 1@d 1007 --complete":         2,
		"transfer 1@d 1007 --cancel":           2,
		"transfer 1@d --complete --cancel":     2,
		"hold 1@d --timeout -5s":               2,
		"demo --rate NaN":                      2,
		"demo --agents 100000000":              2,
		"demo --phones 100000":                 2,
		"nonsense":                             2,
		"--nonsense":                           2,
		"calls --data d --nats n":              2,
		"calls --limit x":                      2,
		"calls --direction sideways":           2,
		"history":                              2,
		"calls --data d --account 1004":        2,
		"export --data d --account @a.example": 2,
		"at --data d --account 1004@ now":      2,
		"watch --account 1004":                 2,
		"calls --data d --account 1004@a.example --domain b.example": 2,
		"calls --data=":               2,
		"calls --data no/such/folder": 1,
		"project no/such/file":        1,
		"version":                     0,
		"":                            0,
	} {
		var errw bytes.Buffer
		if code := realMain(strings.Fields(line), func(string) string { return "" }, nil, io.Discard, &errw); code != want {
			t.Errorf("%s: exit %d, want %d\n%s", line, code, want, &errw)
		}
	}
}

// TestDemoNumbers: no two accounts of the demo have the same number.
func TestDemoNumbers(t *testing.T) {
	for _, agents := range []int{4, 30, 101, maxAgents} {
		o := demoOptions{agents: agents}
		if last := 1000 + agents; o.firstPhone() <= last || o.firstPhone()+maxPhones > 9000 {
			t.Errorf("%d agents, the last %d, the first phone %d", agents, last, o.firstPhone())
		}
	}
}

// TestHintsFit: who is not let in is not asked whether an engine runs, and a verb
// without --data does not tell of it.
func TestHintsFit(t *testing.T) {
	srv, err := natsbus.StartServer(natsbus.ServerOptions{StoreDir: t.TempDir(), Port: -1, Users: []natsbus.User{{Name: "root", Password: testPassword, Role: "admin"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	for _, verb := range []string{"status", "agents", "calls", "export"} {
		for url, running := range map[string]bool{srv.URL(): false, "nats://127.0.0.1:1": true} {
			var errw bytes.Buffer
			code := realMain([]string{verb, "--nats", url}, func(string) string { return "" }, nil, io.Discard, &errw)
			said := errw.String()
			hasData := verb == "calls" || verb == "export"
			if code != 1 || strings.Contains(said, "is an engine running") != running || strings.Contains(said, "--data") != (running && hasData) || strings.Count(said, "knows no such user") > 1 {
				t.Errorf("%s at %s: exit %d\n%s", verb, url, code, said)
			}
		}
	}
}

// TestProjectEndsAtTheFirstSignal: also where it waits for what it reads.
func TestProjectEndsAtTheFirstSignal(t *testing.T) {
	exe, err := exec.LookPath("callstate") // testscript.Main puts the test binary there
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "project", "-")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// When more than a pipe holds is written it reads, and nothing ends what it reads.
	if _, err := in.Write(bytes.Repeat([]byte("{}\n"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	_ = cmd.Wait()
	if st := cmd.ProcessState.Sys().(syscall.WaitStatus); st.Signal() != syscall.SIGINT {
		t.Errorf("it went on, and was ended by %s", st.Signal())
	}
}

// fullDisk is standard output on a disk that is full.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// TestOutputThatCannotBeWritten: no verb says that it is done.
func TestOutputThatCannotBeWritten(t *testing.T) {
	data := capturesLog(t)
	for _, line := range []string{
		"version", "--help", "calls --data D", "history --data D 954e8d54-41db-4c55-baf8-481bb97b3c74", "at --data D now", "at --data D --json now",
		"export --data D", "conformance ../../testdata/goldens", "project ../../testdata/goldens/02-inbound-answered.json", "verify --data D",
	} {
		var errw bytes.Buffer
		args := strings.Fields(strings.ReplaceAll(line, "D", data))
		code := realMain(args, func(string) string { return "" }, nil, fullDisk{}, &errw)
		if code != 1 || strings.Count(errw.String(), "no space left") != 1 {
			t.Errorf("%s: exit %d\n%s", line, code, &errw)
		}
	}
}

// TestWatchEndsWhereNobodySees: what is watched into a file on a full disk ends.
func TestWatchEndsWhereNobodySees(t *testing.T) {
	d := startDaemon(t, t.TempDir())
	sc, err := webiteltest.Recorded("02-incoming-answered")
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"--json", "--mask"} {
		var errw bytes.Buffer
		ended := make(chan int, 1)
		go func() {
			ended <- realMain([]string{"watch", how, "--nats", d.server.URL()}, func(string) string { return "" }, nil, fullDisk{}, &errw)
		}()
		for code := -1; code < 0; {
			if _, err := d.pbx.Play(t.Context(), sc, webiteltest.PlayOptions{Domain: demoDomain}); err != nil {
				t.Fatal(err)
			}
			select {
			case code = <-ended:
				if code != 1 || !strings.Contains(errw.String(), "no space left") {
					t.Errorf("%s: exit %d, %s", how, code, &errw)
				}
			default:
			}
		}
	}
}
