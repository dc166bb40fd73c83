package secret

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const word = "correct horse"

func TestNeverPrinted(t *testing.T) {
	v := struct {
		Password Text
		P        *Text
		All      []Text
	}{Password: word, All: []Text{word}}
	p := Text(word)
	v.P = &p
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+"\n", v)
		fmt.Fprintf(&b, verb+"\n", v.Password)
	}
	fmt.Fprintln(&b, fmt.Errorf("sign in: %v", v))
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("configured", "password", v.Password)
	}
	if strings.Contains(b.String(), "horse") || !strings.Contains(b.String(), Masked) {
		t.Errorf("printed: %s", &b)
	}
}

func TestRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	empty := filepath.Join(t.TempDir(), "empty")
	for name, text := range map[string]string{file: "of the file\r\nsecond line\n", empty: "\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	getenv := func(name string) string { return map[string]string{"SET": "of the environment"}[name] }
	for _, c := range []struct {
		name string
		s    Source
		want Text
		err  string
	}{
		{"none", Source{}, "", ""},
		{"the text itself", Source{Text: word}, word, ""},
		{"a file's first line", Source{File: file}, "of the file", ""},
		{"the environment", Source{Env: "SET"}, "of the environment", ""},
		{"an empty file", Source{File: empty}, "", "is empty"},
		{"no file", Source{File: file + "x"}, "", "read passwordFile"},
		{"an unset variable", Source{Env: "UNSET"}, "", "no UNSET"},
		{"two at once", Source{Text: word, File: file}, "", "want one of them"},
	} {
		got, err := c.s.Read("password", getenv)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && (!errors.Is(err, ErrSource) || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %q, %v", c.name, string(got), err)
		}
		if err != nil && strings.Contains(err.Error(), word) {
			t.Errorf("%s: the error quotes the secret: %v", c.name, err)
		}
	}
}
