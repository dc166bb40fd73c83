package events

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"unsafe"
)

// The stored form is a version byte and tagged fields, in the way of Protocol
// Buffers: a tag is number<<3 | wire type, zero values are left out, a field
// that the reader does not know is skipped. Numbers are never reused. The
// payload is one such field, framed, its type stored by name before it. It stands
// by itself: its UUIDs are counted anew, so that one that is not known can be kept
// as it is.
//
// Version 1 has UUIDs as texts and every event's id in full.
const (
	firstFormVersion = 1
	formVersion      = 2
)

// Field numbers of the envelope. 1 to 15 have tags of one byte.
const (
	envID           = 1
	envType         = 2
	envVersion      = 3
	envDomain       = 4
	envAccount      = 5
	envCall         = 6
	envLeg          = 7
	envConversation = 8
	envOccurredAt   = 9
	envTimeSource   = 10
	envRecordedAt   = 11
	envOrigin       = 12
	envPayload      = 13
	envAdapter      = 14
	envConnection   = 15
	envPath         = 16
	envSwitch       = 17
	envCore         = 18
	envSequence     = 19
	envPBX          = 20
	envNumber       = 21 // of the event among those of its frame, from 1; instead of an id that follows from it
)

// AppendBinary appends the stored form of e, without its position, to b. It
// returns an error matching [ErrUnregistered] when e has no payload or one of an
// unregistered Go type; b is then returned as it was.
func AppendBinary(b []byte, e *Event) ([]byte, error) {
	unknown, _ := e.Payload.(*Unknown)
	p := plansByGoType[reflect.TypeOf(e.Payload)]
	if p == nil && (unknown == nil || unknown.Name == "") {
		return b, fmt.Errorf("%w: %T", ErrUnregistered, e.Payload)
	}
	var ptr unsafe.Pointer
	if p != nil {
		if ptr = reflect.ValueOf(e.Payload).UnsafePointer(); ptr == nil {
			return b, fmt.Errorf("%w: nil %T", ErrUnregistered, e.Payload)
		}
	}

	var ids uuids
	b = append(b, formVersion)
	if n, ok := frameNumber(e); ok {
		b = appendUint(b, envNumber, uint64(n)+1)
	} else {
		b = ids.appendString(b, envID, e.ID)
	}
	b = ids.appendString(b, envType, string(e.Type()))
	b = appendInt(b, envVersion, int64(e.Version))
	b = ids.appendString(b, envDomain, e.Domain)
	b = ids.appendString(b, envAccount, e.Account)
	b = ids.appendString(b, envCall, e.Call)
	b = ids.appendString(b, envLeg, e.Leg)
	b = ids.appendString(b, envConversation, e.Conversation)
	b = appendInt(b, envOccurredAt, int64(e.OccurredAt))
	b = appendUint(b, envTimeSource, uint64(e.TimeSource))
	b = appendInt(b, envRecordedAt, int64(e.RecordedAt))
	b = appendUint(b, envOrigin, uint64(e.Origin))
	b = ids.appendSource(b, &e.Source)

	if p == nil {
		return appendBytes(b, envPayload, unknown.Raw), nil
	}
	ids = uuids{}
	return p.appendFramed(b, envPayload, ptr, &ids), nil
}

// FrameID is the id of the event with number n, from 0, among those that follow
// from one frame: the frame's place in its stream, and n.
func FrameID(s *Source, n int) string {
	var b [96]byte
	return string(appendFrameID(b[:0], s, n))
}

func appendFrameID(b []byte, s *Source, n int) []byte {
	b = append(s.appendStream(b), ':')
	b = append(strconv.AppendUint(b, s.Sequence, 10), ':')
	return strconv.AppendInt(b, int64(n), 10)
}

// frameNumber returns the number in an id that FrameID made.
func frameNumber(e *Event) (n int, ok bool) {
	n, err := strconv.Atoi(e.ID[strings.LastIndexByte(e.ID, ':')+1:])
	var b [96]byte
	return n, err == nil && n >= 0 && string(appendFrameID(b[:0], &e.Source, n)) == e.ID
}

// DecodeBinary reads what [AppendBinary] wrote, in this form or an earlier one. The
// event shares no memory with b, but its strings that are no UUIDs share one block
// among them: keeping one keeps them all.
//
// A payload whose type is not registered, or is in a later version than this
// one knows, becomes an [*Unknown] that encodes to the same bytes. Every error
// matches [ErrCorrupt] or [ErrVersion].
func DecodeBinary(b []byte) (Event, error) {
	var e Event
	var typ string
	var number int
	var payload reader
	r, err := newReader(b)
	if err != nil {
		return Event{}, err
	}
	for r.more() {
		f := r.field()
		switch f.number {
		case envID:
			e.ID = r.string(f)
		case envType:
			typ = r.string(f)
		case envVersion:
			e.Version = int(r.int(f, 64))
		case envDomain:
			e.Domain = r.string(f)
		case envAccount:
			e.Account = r.string(f)
		case envCall:
			e.Call = r.string(f)
		case envLeg:
			e.Leg = r.string(f)
		case envConversation:
			e.Conversation = r.string(f)
		case envOccurredAt:
			e.OccurredAt = Time(r.int(f, 64))
		case envTimeSource:
			e.TimeSource = TimeSource(r.uint(f, 8))
		case envRecordedAt:
			e.RecordedAt = Time(r.int(f, 64))
		case envOrigin:
			e.Origin = Origin(r.uint(f, 8))
		case envNumber:
			number = int(r.uint(f, 63))
		case envPayload:
			payload = r.sub(f)
		default:
			r.source(f, &e.Source)
		}
	}
	if r.bad {
		return Event{}, fmt.Errorf("%w event at byte %d", ErrCorrupt, r.off)
	}
	if typ == "" {
		return Event{}, fmt.Errorf("%w event: no type", ErrCorrupt)
	}
	if number > 0 {
		e.ID = FrameID(&e.Source, number-1)
	}
	p := plansByType[Type(typ)]
	if p == nil || e.Version > p.version {
		e.Payload = &Unknown{Name: Type(typ), Raw: payload.copy()}
		return e, nil
	}
	if old := p.older[e.Version]; old != nil {
		return decodeOlder(e, p, old, &payload)
	}
	v := p.new()
	p.decode(&payload, reflect.ValueOf(v).UnsafePointer())
	if payload.bad {
		return Event{}, fmt.Errorf("%w %s at byte %d of its payload", ErrCorrupt, typ, payload.off)
	}
	e.Payload = v
	return e, nil
}

// Field numbers of a quarantined frame; its source has the envelope's.
const (
	quaReceivedAt = 1
	quaReason     = 2
	quaDetail     = 3
	quaFrame      = 4
)

// AppendQuarantined appends the stored form of q, without its number, to b.
func AppendQuarantined(b []byte, q *Quarantined) []byte {
	var ids uuids
	b = append(b, formVersion)
	b = appendInt(b, quaReceivedAt, int64(q.ReceivedAt))
	b = ids.appendString(b, quaReason, q.Reason)
	b = ids.appendString(b, quaDetail, q.Detail)
	b = appendBytes(b, quaFrame, q.Frame)
	return ids.appendSource(b, &q.Source)
}

// DecodeQuarantined reads what [AppendQuarantined] wrote, sharing no memory with
// b. Every error matches [ErrCorrupt] or [ErrVersion].
func DecodeQuarantined(b []byte) (Quarantined, error) {
	var q Quarantined
	r, err := newReader(b)
	if err != nil {
		return Quarantined{}, err
	}
	for r.more() {
		f := r.field()
		switch f.number {
		case quaReceivedAt:
			q.ReceivedAt = Time(r.int(f, 64))
		case quaReason:
			q.Reason = r.string(f)
		case quaDetail:
			q.Detail = r.string(f)
		case quaFrame:
			frame := r.sub(f)
			q.Frame = frame.copy()
		default:
			r.source(f, &q.Source)
		}
	}
	if r.bad {
		return Quarantined{}, fmt.Errorf("%w quarantined frame at byte %d", ErrCorrupt, r.off)
	}
	return q, nil
}

func (u *uuids) appendSource(b []byte, s *Source) []byte {
	b = u.appendString(b, envAdapter, s.Adapter)
	b = u.appendString(b, envConnection, s.Connection)
	b = u.appendString(b, envPath, s.Path)
	b = u.appendString(b, envSwitch, s.Switch)
	b = u.appendString(b, envCore, s.Core)
	b = appendUint(b, envSequence, s.Sequence)
	return u.appendString(b, envPBX, s.PBX)
}

func (r *reader) source(f field, s *Source) {
	switch f.number {
	case envAdapter:
		s.Adapter = r.string(f)
	case envConnection:
		s.Connection = r.string(f)
	case envPath:
		s.Path = r.string(f)
	case envSwitch:
		s.Switch = r.string(f)
	case envCore:
		s.Core = r.string(f)
	case envSequence:
		s.Sequence = r.uint(f, 64)
	case envPBX:
		s.PBX = r.string(f)
	default:
		r.skip(f)
	}
}

// plan says how one Go struct is written: made once by reflection, then walked
// with plain pointer arithmetic.
type plan struct {
	fields  []planField // ascending numbers
	byTag   []uint8     // number → index into fields plus 1; 0 for no field
	version int
	new     func() Payload
	older   map[int]*olderPlan // by version
}

type planField struct {
	number uint32
	kind   fieldKind
	bits   uint8
	offset uintptr
	sub    *plan        // of kindStruct, kindStructs and kindPointer
	elem   reflect.Type // of kindStructs and kindPointer
}

type fieldKind uint8

const (
	kindString fieldKind = iota + 1
	kindBool
	kindInt
	kindUint
	kindFloat
	kindStrings
	kindStruct
	kindStructs // a slice of them
	kindPointer // to one, or nil
)

func (p *plan) append(b []byte, ptr unsafe.Pointer, ids *uuids) []byte {
	for i := range p.fields {
		f := &p.fields[i]
		at := unsafe.Add(ptr, f.offset)
		switch f.kind {
		case kindString:
			b = ids.appendString(b, f.number, *(*string)(at))
		case kindBool:
			if *(*bool)(at) {
				b = append(appendTag(b, f.number, wireVarint), 1)
			}
		case kindInt:
			b = appendInt(b, f.number, loadInt(at, f.bits))
		case kindUint:
			b = appendUint(b, f.number, loadUint(at, f.bits))
		case kindFloat:
			b = appendFloat(b, f.number, *(*float64)(at))
		case kindStrings:
			for _, s := range *(*[]string)(at) {
				b = ids.appendText(b, f.number, s)
			}
		case kindStruct:
			b = f.sub.appendFramed(b, f.number, at, ids)
		case kindStructs:
			list := reflect.NewAt(reflect.SliceOf(f.elem), at).Elem()
			for i := range list.Len() {
				b = f.sub.appendWhole(b, f.number, list.Index(i).Addr().UnsafePointer(), ids)
			}
		case kindPointer:
			if v := *(*unsafe.Pointer)(at); v != nil {
				b = f.sub.appendWhole(b, f.number, v, ids)
			}
		}
	}
	return b
}

// appendWhole is appendFramed for a struct that is there even if all its fields
// are zero.
func (p *plan) appendWhole(b []byte, number uint32, ptr unsafe.Pointer, ids *uuids) []byte {
	start := len(b)
	if b = p.appendFramed(b, number, ptr, ids); len(b) == start {
		b = append(appendTag(b, number, wireBytes), 0)
	}
	return b
}

// appendFramed appends a struct as one field with its length, nothing if all its
// fields are zero.
func (p *plan) appendFramed(b []byte, number uint32, ptr unsafe.Pointer, ids *uuids) []byte {
	start := len(b)
	b = append(appendTag(b, number, wireBytes), 0)
	body := len(b)
	b = p.append(b, ptr, ids)
	n := len(b) - body
	switch {
	case n == 0:
		return b[:start]
	case n < 0x80:
		b[body-1] = byte(n)
		return b
	}
	// The length needs more than the byte kept for it: move the body up.
	var length [10]byte
	l := appendUvarint(length[:0], uint64(n))
	b = append(b, l[1:]...)
	copy(b[body-1+len(l):], b[body:body+n])
	copy(b[body-1:], l)
	return b
}

func (p *plan) decode(r *reader, ptr unsafe.Pointer) {
	for r.more() {
		wf := r.field()
		if wf.number >= uint32(len(p.byTag)) || p.byTag[wf.number] == 0 {
			r.skip(wf)
			continue
		}
		f := &p.fields[p.byTag[wf.number]-1]
		at := unsafe.Add(ptr, f.offset)
		switch f.kind {
		case kindString:
			*(*string)(at) = r.string(wf)
		case kindBool:
			*(*bool)(at) = r.uint(wf, 1) == 1
		case kindInt:
			storeInt(at, f.bits, r.int(wf, f.bits))
		case kindUint:
			storeUint(at, f.bits, r.uint(wf, f.bits))
		case kindFloat:
			*(*float64)(at) = r.float(wf)
		case kindStrings:
			list := (*[]string)(at)
			*list = append(*list, r.string(wf))
		case kindStruct:
			end := r.enter(wf)
			f.sub.decode(r, at)
			r.leave(end)
		case kindStructs:
			list := reflect.NewAt(reflect.SliceOf(f.elem), at).Elem()
			list.Grow(1)
			list.SetLen(list.Len() + 1)
			end := r.enter(wf)
			f.sub.decode(r, list.Index(list.Len()-1).Addr().UnsafePointer())
			r.leave(end)
		case kindPointer:
			v := reflect.New(f.elem)
			reflect.NewAt(reflect.PointerTo(f.elem), at).Elem().Set(v)
			end := r.enter(wf)
			f.sub.decode(r, v.UnsafePointer())
			r.leave(end)
		}
	}
}

func loadInt(at unsafe.Pointer, bits uint8) int64 {
	switch bits {
	case 8:
		return int64(*(*int8)(at))
	case 16:
		return int64(*(*int16)(at))
	case 32:
		return int64(*(*int32)(at))
	}
	return *(*int64)(at)
}

func storeInt(at unsafe.Pointer, bits uint8, v int64) {
	switch bits {
	case 8:
		*(*int8)(at) = int8(v)
	case 16:
		*(*int16)(at) = int16(v)
	case 32:
		*(*int32)(at) = int32(v)
	default:
		*(*int64)(at) = v
	}
}

func loadUint(at unsafe.Pointer, bits uint8) uint64 {
	switch bits {
	case 8:
		return uint64(*(*uint8)(at))
	case 16:
		return uint64(*(*uint16)(at))
	case 32:
		return uint64(*(*uint32)(at))
	}
	return *(*uint64)(at)
}

func storeUint(at unsafe.Pointer, bits uint8, v uint64) {
	switch bits {
	case 8:
		*(*uint8)(at) = uint8(v)
	case 16:
		*(*uint16)(at) = uint16(v)
	case 32:
		*(*uint32)(at) = uint32(v)
	default:
		*(*uint64)(at) = v
	}
}

func appendFloat(b []byte, number uint32, v float64) []byte {
	bits := math.Float64bits(v)
	if bits == 0 {
		return b
	}
	return appendFixed64(appendTag(b, number, wireFixed64), bits)
}
