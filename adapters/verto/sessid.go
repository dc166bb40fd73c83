package verto

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/uuid"
)

// LoadSessID returns the session id that is kept in a file, and makes both where
// there is none. Whoever signs in with the same id as the last time, and soon,
// gets back the calls of that time. It is a secret: to some versions of
// FreeSWITCH it is enough to push its owner off.
func LoadSessID(file string) (Secret, error) {
	b, err := os.ReadFile(file)
	if err == nil {
		id, perr := uuid.Parse(strings.TrimSpace(string(b)))
		if perr != nil {
			return "", fmt.Errorf("verto: %s holds no session id; delete it to get a new one", file)
		}
		return Secret(id.String()), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("verto: session id: %w", err)
	}
	id := uuid.NewString()
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("verto: session id: %w", err)
	}
	return Secret(id), nil
}
