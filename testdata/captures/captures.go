// Package captures holds recordings of real systems, for tests, the demo and the
// benchmarks.
//
// The files are JSON lines, gzip-compressed, under the names of their scenarios:
//
//   - freeswitch/: every event of a FreeSWITCH v1.10.12 (event json ALL on the
//     event socket), in order of arrival, November 2026. freeswitch/meta/ has what
//     the driver did and when; freeswitch/webitel-view/ what a Webitel engine would
//     forward of the same events to account 1001@demo.local (derived, not
//     recorded). 17-verto-frames holds JSON-RPC frames of mod_verto instead.
//   - webitel-v3/: every WebSocket frame between clients and an unmodified Webitel
//     engine (engine-nodejs, branch v3.6) before the same FreeSWITCH, as the client
//     saw it, one file a socket. See [Line].
//   - verto/: every JSON-RPC frame between a client (gorilla/websocket and pion)
//     and mod_verto of the same FreeSWITCH, as the client saw it, with real media.
//     Its SDP went through the client's adapters except where a scenario says raw.
//
// Host names, addresses and secrets are replaced, people and numbers invented.
package captures

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

//go:embed freeswitch webitel-v3 verto
var files embed.FS

const compressed = ".gz"

// Open opens a recording by its name, such as "freeswitch/12-record.jsonl".
func Open(name string) (io.ReadCloser, error) {
	b, err := files.ReadFile(name + compressed)
	if err != nil {
		return nil, fmt.Errorf("captures: %w", err)
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("captures: %s: %w", name, err)
	}
	return r, nil
}

// List returns the names that match glob, in order, such as
// "webitel-v3/10-*.jsonl"; '*' does not cross a '/'.
func List(glob string) ([]string, error) {
	names, err := fs.Glob(files, glob+compressed)
	if err != nil {
		return nil, fmt.Errorf("captures: %w", err)
	}
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], compressed)
	}
	return names, nil
}

// Lines returns the lines of a recording.
func Lines(name string) ([][]byte, error) {
	r, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var lines [][]byte
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), 16<<20)
	for s.Scan() {
		lines = append(lines, bytes.Clone(s.Bytes()))
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("captures: %s: %w", name, err)
	}
	return lines, nil
}

// Line is one line of a transcript in webitel-v3 or verto.
type Line struct {
	T     int64           `json:"t"`   // milliseconds since the scenario began
	Dir   string          `json:"dir"` // "in" from the server, "out" from the client, "note"
	Frame json.RawMessage `json:"frame"`
	Raw   *string         `json:"raw"` // a text frame that is not JSON
	Close int             `json:"close"`

	// In verto only. What was not JSON is a string in Frame there.
	Note string `json:"note"` // of what was no message, such as a dropped socket
	Conn int    `json:"conn"` // which socket, from 1; 0 where there is only one
}

// Transcript returns the lines of a recording in webitel-v3 or verto.
func Transcript(name string) ([]Line, error) {
	lines, err := Lines(name)
	if err != nil {
		return nil, err
	}
	out := make([]Line, len(lines))
	for i, l := range lines {
		if err := json.Unmarshal(l, &out[i]); err != nil {
			return nil, fmt.Errorf("captures: %s line %d: %w", name, i+1, err)
		}
	}
	return out, nil
}

// ServerFrames returns the frames that the server sent, in order, as sent.
func ServerFrames(name string) ([][]byte, error) {
	lines, err := Transcript(name)
	if err != nil {
		return nil, err
	}
	var frames [][]byte
	for _, l := range lines {
		if l.Dir == "in" && l.Frame != nil {
			frames = append(frames, l.Frame)
		}
	}
	return frames, nil
}
