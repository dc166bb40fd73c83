package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/invopop/jsonschema"
)

var update = flag.Bool("update", false, "rewrite the schemas")

func TestSchemasAreCurrent(t *testing.T) {
	want := make(map[string][]byte)
	for _, typ := range Types() {
		want[schemaFile(typ)] = generateSchema(t, typ)
	}
	have, err := filepath.Glob("schema/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		for _, f := range have {
			if want[f] == nil {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}
		for f, b := range want {
			if err := os.WriteFile(f, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	for _, f := range have {
		if want[f] == nil {
			t.Errorf("%s describes no registered type; run with -update", f)
		}
	}
	for _, typ := range Types() {
		got, err := Schema(typ)
		if err != nil {
			t.Errorf("Schema(%s): %v; run with -update", typ, err)
			continue
		}
		if d := cmp.Diff(string(want[schemaFile(typ)]), string(got)); d != "" {
			t.Errorf("schema of %s is not current, run with -update (-want +got):\n%s", typ, d)
		}
	}
}

func TestSchemaOfUnregisteredType(t *testing.T) {
	if _, err := Schema("call.teleported"); !errors.Is(err, ErrUnregistered) {
		t.Errorf("got %v, want ErrUnregistered", err)
	}
}

const commentPath = "github.com/callstate/callstate/events"

func generateSchema(t *testing.T, typ Type) []byte {
	t.Helper()
	r := &jsonschema.Reflector{
		Anonymous:                 true,
		DoNotReference:            true,
		ExpandedStruct:            true,
		AllowAdditionalProperties: true, // a later version may add fields
		Mapper:                    schemaOf,
	}
	if err := r.AddGoComments(commentPath, "."); err != nil {
		t.Fatal(err)
	}
	// The envelope is Event without its methods, and without its comments.
	for key, text := range maps.Clone(r.CommentMap) {
		if name, ok := strings.CutPrefix(key, commentPath+".Event"); ok {
			r.CommentMap[commentPath+".envelope"+name] = text
		}
	}
	payload, version := NewPayload(typ)
	data := r.Reflect(payload)
	data.Version = ""
	s := r.Reflect(&envelope{})
	s.Title = string(typ)
	s.Description, data.Description = data.Description, ""
	if v, ok := s.Properties.Get("version"); ok {
		v.Const = version
	}
	s.Properties.Set("type", &jsonschema.Schema{Type: "string", Const: string(typ)})
	s.Properties.Set("data", data)
	s.Required = append(s.Required, "type", "data")

	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// schemaOf describes the types whose JSON form is a text.
func schemaOf(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[Time]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[TimeSource]():
		return &jsonschema.Schema{Type: "string", Enum: names(timeSourceNames[:])}
	case reflect.TypeFor[Origin]():
		return &jsonschema.Schema{Type: "string", Enum: names(originNames[:])}
	case reflect.TypeFor[Direction]():
		return &jsonschema.Schema{Type: "string", Enum: []any{In, Out}}
	}
	return nil
}

func names(list []string) []any {
	var out []any
	for _, n := range list {
		out = append(out, n)
	}
	return out
}
