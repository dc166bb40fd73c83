package events

import (
	"embed"
	"fmt"
)

// The schemas are made from the Go types by the package's tests; rewrite them
// with
//
//	go test ./events -run TestSchemasAreCurrent -update
//
//go:embed schema/*.json
var schemas embed.FS

// Schema returns the JSON Schema of the JSON form of events of type t: the
// envelope with the type's name and, as "data", its payload. It returns an error
// matching [ErrUnregistered] for a type that is not registered.
func Schema(t Type) ([]byte, error) {
	if plansByType[t] == nil {
		return nil, fmt.Errorf("%w: %q", ErrUnregistered, string(t))
	}
	return schemas.ReadFile(schemaFile(t))
}

func schemaFile(t Type) string { return "schema/" + string(t) + ".json" }
