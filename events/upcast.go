package events

import (
	"fmt"
	"reflect"
)

// How event types evolve. Events are never rewritten: what was stored in 2026
// is read for ever.
//
// A field that is added keeps the version: an event of before has the zero value,
// an older program skips the field. Numbers of fields are never used again. Only a
// struct in which a UUID may stand, or a list of them, is no field to be added: who
// skips it does not count its UUIDs, and takes another one for each that the payload
// names again behind it. Such a field makes a new version.
//
// Where the meaning changes, the type gets the next version. The struct as it was
// stays, unexported, with its wire numbers and JSON names, as an [Older] in
// olderPayloads, and its Upcast says what it means now. testdata/streams holds a
// recorded log of each release; every later one must read it.

// Older is a payload of an earlier version of its type.
type Older interface {
	// Upcast returns the payload in the next version: an Older again, or the
	// Payload of today. e is the event; its payload is not set yet.
	Upcast(e *Event) any
}

// olderPayloads are the payloads of earlier versions, by type and version.
var olderPayloads = map[Type]map[int]func() Older{}

// olderPlan says how a payload of an earlier version is read.
type olderPlan struct {
	*plan
	new func() Older
}

func makeOlder(payloads map[int]func() Older, version int) map[int]*olderPlan {
	plans := make(map[int]*olderPlan, len(payloads))
	for v, empty := range payloads {
		if v < 1 || v >= version {
			panic(fmt.Sprintf("events: %T of version %d is not older than version %d", empty(), v, version))
		}
		plans[v] = &olderPlan{newPlan(reflect.TypeOf(empty()).Elem()), empty}
	}
	return plans
}

func decodeOlder(e Event, p *plan, old *olderPlan, payload *reader) (Event, error) {
	v := old.new()
	old.decode(payload, reflect.ValueOf(v).UnsafePointer())
	if payload.bad {
		return Event{}, fmt.Errorf("%w payload of version %d at byte %d", ErrCorrupt, e.Version, payload.off)
	}
	e.upcast(p.version, v)
	return e, nil
}

// upcast gives e the payload that old became, version by version.
func (e *Event) upcast(version int, old Older) {
	var v any = old
	for {
		switch x := v.(type) {
		case Older:
			v = x.Upcast(e)
		case Payload:
			e.Payload, e.Version = x, version
			return
		default:
			panic(fmt.Sprintf("events: Upcast of %T returned %T", old, v))
		}
	}
}
