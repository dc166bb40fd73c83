package events

import (
	"fmt"
	"reflect"
	"unsafe"
)

// Form is the stored form of structs that are no events: snapshots of what the
// log adds up to. It is that of the payloads: a field has a number in its wire
// tag, zero values are left out, fields that are not known are skipped. Besides
// what payloads have, a field may be a slice of structs or a pointer to one;
// wire:"-" leaves a field out. Fields need not be exported.
type Form[T any] struct{ plan *plan }

// FormOf returns the form of T, a struct. It panics where a field has no number:
// call it when the program starts.
func FormOf[T any]() Form[T] { return Form[T]{newPlan(reflect.TypeFor[T]())} }

// Append appends v to b.
func (f Form[T]) Append(b []byte, v *T) []byte {
	var ids uuids
	return f.plan.append(append(b, formVersion), unsafe.Pointer(v), &ids)
}

// Decode reads what Append wrote into v, which is empty. v shares no memory with
// b, but its strings that are no UUIDs share one block among them. Every error
// matches [ErrCorrupt] or [ErrVersion].
func (f Form[T]) Decode(b []byte, v *T) error {
	r, err := newReader(b)
	if err != nil {
		return err
	}
	f.plan.decode(&r, unsafe.Pointer(v))
	if r.bad {
		return fmt.Errorf("%w %T at byte %d", ErrCorrupt, *v, r.off)
	}
	return nil
}
