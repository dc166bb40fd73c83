package events

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
)

// Plans of all registered types, made before main so that a payload struct that
// cannot be stored stops the program at its start, not at its first event.
var plansByGoType, plansByType = makePlans()

func makePlans() (map[reflect.Type]*plan, map[Type]*plan) {
	goTypes := make(map[reflect.Type]*plan, len(registered))
	types := make(map[Type]*plan, len(registered))
	for _, reg := range registered {
		v := reg.new()
		t := reflect.TypeOf(v)
		p := newPlan(t.Elem())
		p.version, p.new = reg.version, reg.new
		if types[v.EventType()] != nil {
			panic(fmt.Sprintf("events: type %s is registered twice", v.EventType()))
		}
		p.older = makeOlder(olderPayloads[v.EventType()], p.version)
		goTypes[t], types[v.EventType()] = p, p
	}
	return goTypes, types
}

// newPlan panics on a struct that has no stored form: it is our own mistake.
func newPlan(t reflect.Type) *plan {
	p := &plan{}
	p.add(t, 0)
	slices.SortFunc(p.fields, func(a, b planField) int { return int(a.number) - int(b.number) })
	for i, f := range p.fields {
		for uint32(len(p.byTag)) <= f.number {
			p.byTag = append(p.byTag, 0)
		}
		if p.byTag[f.number] != 0 {
			panic(fmt.Sprintf("events: %v uses wire number %d twice", t, f.number))
		}
		p.byTag[f.number] = uint8(i + 1)
	}
	return p
}

// maxPlanNumber keeps plan.byTag small.
const maxPlanNumber = 200

func (p *plan) add(t reflect.Type, base uintptr) {
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Tag.Get("wire") == "-" {
			continue
		}
		if sf.Anonymous && sf.Type.Kind() == reflect.Struct {
			p.add(sf.Type, base+sf.Offset)
			continue
		}
		n, err := strconv.Atoi(sf.Tag.Get("wire"))
		if err != nil || n < 1 || n > maxPlanNumber {
			panic(fmt.Sprintf("events: %v.%s has no wire number from 1 to %d", t, sf.Name, maxPlanNumber))
		}
		f := planField{number: uint32(n), offset: base + sf.Offset}
		switch sf.Type.Kind() {
		case reflect.String:
			f.kind = kindString
		case reflect.Bool:
			f.kind = kindBool
		case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
			f.kind, f.bits = kindInt, uint8(sf.Type.Bits())
		case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
			f.kind, f.bits = kindUint, uint8(sf.Type.Bits())
		case reflect.Float64:
			f.kind = kindFloat
		case reflect.Struct:
			f.kind, f.sub = kindStruct, newPlan(sf.Type)
		case reflect.Slice, reflect.Pointer:
			f.elem = sf.Type.Elem()
			switch {
			case sf.Type == reflect.TypeFor[[]string]():
				f.kind = kindStrings
			case f.elem.Kind() != reflect.Struct:
				panic(fmt.Sprintf("events: %v.%s has no stored form: %v", t, sf.Name, sf.Type))
			case sf.Type.Kind() == reflect.Slice:
				f.kind, f.sub = kindStructs, newPlan(f.elem)
			default:
				f.kind, f.sub = kindPointer, newPlan(f.elem)
			}
		default:
			panic(fmt.Sprintf("events: %v.%s has no stored form: %v", t, sf.Name, sf.Type))
		}
		p.fields = append(p.fields, f)
	}
}

// Types lists the registered types in the order of the registry.
func Types() []Type {
	types := make([]Type, len(registered))
	for i, reg := range registered {
		types[i] = reg.new().EventType()
	}
	return types
}

// NewPayload returns an empty payload of type t and the version that this
// program writes, or nil and 0 if the type is not registered.
func NewPayload(t Type) (p Payload, version int) {
	pl := plansByType[t]
	if pl == nil {
		return nil, 0
	}
	return pl.new(), pl.version
}
