package events

import (
	"cmp"
	"fmt"
)

// MaxID is how many bytes an id of the PBX has at the most: of a leg, a call, an
// account, a switch. FreeSWITCH formats ids into buffers of this size
// (SWITCH_UUID_FORMATTED_LENGTH, switch_apr.h). An adapter puts a frame with a
// longer one into quarantine: the log's keys and the subjects on NATS end somewhere.
const MaxID = 256

// Event is one stored fact: the envelope of the design, with its payload.
//
// Account, Call and Leg are empty where the fact is not about one: a trunk leg
// has no account, a link neither account nor call.
type Event struct {
	// Position is the event's place in the whole log, from 1, without gaps. The
	// store assigns it; 0 means not yet stored.
	Position uint64 `json:"position"`
	// ID is stable: the same frame seen twice gives the same id.
	ID string `json:"id"`
	// Version is the version of the payload's type, from 1.
	Version int `json:"version"`

	Domain       string `json:"domain,omitempty"`
	Account      string `json:"account,omitempty"` // number@domain
	Call         string `json:"callId,omitempty"`
	Leg          string `json:"legId,omitempty"`        // Unique-ID of the channel
	Conversation string `json:"conversation,omitempty"` // the calls and legs that belong together

	OccurredAt Time       `json:"occurredAt,omitempty"` // the source's clock; see TimeSource
	TimeSource TimeSource `json:"timeSource"`
	RecordedAt Time       `json:"recordedAt,omitempty"` // our clock when it was normalised
	Origin     Origin     `json:"origin"`
	Source     Source     `json:"source"`

	Payload Payload `json:"-"`
}

// Type returns the type of the payload.
func (e *Event) Type() Type {
	if e.Payload == nil {
		return ""
	}
	return e.Payload.EventType()
}

// Key returns which call the event belongs to; it is the zero key for an event
// that belongs to none.
func (e *Event) Key() CallKey { return CallKey{Account: e.Account, Call: e.Call} }

// CallKey is the identity of a call: one account's view of one conversation.
type CallKey struct {
	Account string // number@domain
	Call    string // call id
}

// String returns "<account>/<call id>", the form in which people name a call.
func (k CallKey) String() string { return k.Account + "/" + k.Call }

// IsZero reports whether k names no call.
func (k CallKey) IsZero() bool { return k.Call == "" }

// Source says where an event came from.
type Source struct {
	Adapter    string `json:"adapter,omitempty"`    // "webitel", "verto"
	PBX        string `json:"pbx,omitempty"`        // its name, where there are several
	Connection string `json:"connection,omitempty"` // id of the adapter's connection
	Path       string `json:"path,omitempty"`       // [PathServer], [PathAccount] or [PathSwitch]
	Switch     string `json:"switch,omitempty"`     // the switch's name (FreeSWITCH-Switchname)
	Core       string `json:"core,omitempty"`       // Core-UUID: one run of that switch
	Sequence   uint64 `json:"sequence,omitempty"`   // Event-Sequence within the core, or the connection's frame counter
}

// Stream names what Sequence counts in: a run of a switch, else a connection. Two
// switches may, copied from one disk, count alike, so it begins with the PBX.
func (s *Source) Stream() string { return string(s.appendStream(nil)) }

func (s *Source) appendStream(b []byte) []byte {
	if s.PBX != "" {
		b = append(append(b, s.PBX...), '/')
	}
	return append(b, cmp.Or(s.Core, s.Connection)...)
}

// The ways on which a frame of a leg reaches us.
const (
	PathServer  = "server"  // domain-wide SE: frames of the Webitel server
	PathAccount = "account" // the account's own call frames, whitelisted headers
	PathSwitch  = "switch"  // events as FreeSWITCH writes them
)

// Origin says how we came to know a fact.
type Origin uint8

// The origins.
const (
	Live   Origin = iota // the source told us as it happened
	Resync               // inferred: from a snapshot, a new core, or an absence; the payload says why
	Import               // read from a recording
)

var originNames = [...]string{"live", "resync", "import"}

func (o Origin) String() string {
	if int(o) < len(originNames) {
		return originNames[o]
	}
	return fmt.Sprintf("origin-%d", uint8(o))
}

// MarshalText is the inverse of UnmarshalText.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText reads a name that MarshalText wrote.
func (o *Origin) UnmarshalText(b []byte) error {
	for i, n := range originNames {
		if n == string(b) {
			*o = Origin(i)
			return nil
		}
	}
	return fmt.Errorf("events: unknown origin %q", b)
}
