package cti

import "embed"

//go:embed schema/*.json
var schemas embed.FS

// Schema returns the JSON Schema (draft 2020-12) of the event's payload, and
// whether callstate publishes an event of that name. The schemas are generated
// from the types of this package; they allow members that they do not name, so
// that what a later release adds breaks no consumer.
func Schema(n Name) ([]byte, bool) {
	b, err := schemas.ReadFile("schema/" + string(n) + ".json")
	return b, err == nil
}
