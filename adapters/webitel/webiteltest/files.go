package webiteltest

import (
	"bytes"
	"net/http"
	"strings"
	"time"
)

// What the link to a recording carries. The host in it is a name of the PBX's own
// network, as shipped; the files are served at [Server.FilesURL].
const (
	FileKey   = "test-key"
	FileToken = "test-token"
	filesPath = "/api/v2/files/"
)

// FilesURL is the address that the links should have for who is outside.
func (s *Server) FilesURL() string { return s.http.URL }

// Record gives a call's record a recording, as the upload after the call does.
func (s *Server) Record(id string, file []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[id] = file
}

func (s *Server) recorded(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.files[id]
	return ok
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+filesPath+"{id}", s.file)
	mux.HandleFunc("/", s.accept)
	return mux
}

// file serves a recording as the storage does, Range included.
func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	file, ok := s.files[r.PathValue("id")]
	s.mu.Unlock()
	switch q := r.URL.Query(); {
	case q.Get("x_key") != FileKey || q.Get("access_token") != FileToken:
		http.Error(w, "forbidden", http.StatusForbidden)
	case !ok || len(file) == 0:
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", "audio/mpeg")
		http.ServeContent(w, r, strings.TrimPrefix(r.URL.Path, filesPath), time.Time{}, bytes.NewReader(file))
	}
}
