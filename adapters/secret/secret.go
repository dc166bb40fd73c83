// Package secret keeps passwords and tokens out of what is printed, and reads
// them from where a configuration says that they are.
package secret

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
)

// Text is a password or token. Every verb of fmt and slog prints it as "***"; only
// its conversion to a string and the encoders of JSON and TOML show it.
type Text string

// Masked stands for a secret wherever one is printed.
const Masked = "***"

// Format prints three stars, whatever the verb.
func (Text) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Masked)) }

// LogValue keeps the secret out of logs.
func (Text) LogValue() slog.Value { return slog.StringValue(Masked) }

// Source is a secret in a configuration: the text itself, the file that has it,
// or the environment's variable; one of them.
type Source struct {
	Text Text
	File string // its first line; blanks at the end of the line count
	Env  string // name of the variable
}

// ErrSource is matched by an error of [Source.Read] that is the configuration's.
var ErrSource = errors.New("secret")

// Read returns the secret, empty where the source names none. name is the
// setting's, for errors.
func (s Source) Read(name string, getenv func(string) string) (Text, error) {
	given := 0
	for _, is := range []bool{s.Text != "", s.File != "", s.Env != ""} {
		if is {
			given++
		}
	}
	if given > 1 {
		return "", fmt.Errorf("%w: %s, %sFile and %sEnv: want one of them", ErrSource, name, name, name)
	}
	switch {
	case s.File != "":
		b, err := os.ReadFile(s.File)
		if err != nil {
			return "", fmt.Errorf("%w: read %sFile: %w", ErrSource, name, err)
		}
		line, _, _ := strings.Cut(string(b), "\n")
		if line = strings.TrimSuffix(line, "\r"); line == "" {
			return "", fmt.Errorf("%w: %sFile: the first line of %s is empty", ErrSource, name, s.File)
		}
		return Text(line), nil
	case s.Env != "":
		v := getenv(s.Env)
		if v == "" {
			return "", fmt.Errorf("%w: %sEnv: the environment has no %s", ErrSource, name, s.Env)
		}
		return Text(v), nil
	default:
		return s.Text, nil
	}
}
