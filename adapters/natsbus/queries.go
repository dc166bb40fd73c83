package natsbus

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// Queries is what the service asks of the engine. Its methods are called by
// several goroutines at once and return when ctx ends at the latest. What they
// return is encoded after they returned and must not change any more.
//
// An error that matches ErrUnavailable is answered as unavailable, any other as
// internal; its text goes to our log, not to the caller.
type Queries interface {
	// Call returns one call's view, and false where it is not known.
	Call(ctx context.Context, key events.CallKey) (cti.CallView, bool, error)
	// Calls returns the calls that f lets through, the latest first.
	Calls(ctx context.Context, f CallFilter) ([]cti.CallView, error)
	// History returns the stored events of the calls that f names, in order of
	// position, each with the CTI events that follow from it.
	History(ctx context.Context, f HistoryFilter) ([]HistoryEntry, error)
	// Explain returns, for every field of the calls that f names, the event that
	// set it last.
	Explain(ctx context.Context, f HistoryFilter) ([]engine.Evidence, error)
	// At returns the PBX as it was at a time.
	At(ctx context.Context, f AtFilter) (engine.Moment, error)
	// Since returns the CTI events that a subscriber missed.
	Since(ctx context.Context, f SinceFilter) (engine.Missed, error)
	// Line returns one account's line, and false where it is not known.
	Line(ctx context.Context, account string) (cti.LineView, bool, error)
	// Lines returns the lines of a domain, of all domains where it is empty,
	// sorted by account.
	Lines(ctx context.Context, f LineFilter) ([]cti.LineView, error)
	// Doubtful returns the live calls that may have ended without our being told.
	Doubtful(ctx context.Context, f DoubtFilter) ([]engine.Doubt, error)
	// Status describes the engine.
	Status(ctx context.Context) (Status, error)
}

// ErrUnavailable says that a query cannot be answered now, and may be later.
var ErrUnavailable = errors.New("natsbus: unavailable")

// CallFilter says which calls; the service makes a Limit of 0 100, and refuses
// one above 1000.
type CallFilter = engine.CallFilter

// HistoryFilter says whose history. An empty Account means all accounts' calls
// of CallID.
type HistoryFilter struct {
	Account string `json:"account,omitempty"`
	CallID  string `json:"callId"`
	After   uint64 `json:"after,omitempty"` // only positions above it
	Limit   int    `json:"limit,omitempty"` // 1 to 1000; the service makes 0 1000
	// Conversation asks for the whole conversation: every account's calls and the
	// legs that are no account's. Explain asks also which event set each field.
	Conversation bool `json:"conversation,omitempty"`
	Explain      bool `json:"explain,omitempty"`
	// Of bounds whose events are told of, also where a conversation has more. The
	// legs of trunks are nobody's: a whole domain's history has them, an account's
	// does not.
	Of Scope `json:"-"`
}

// Tells reports whether the history has an event of an account, empty for a
// trunk's leg.
func (f *HistoryFilter) Tells(account string) bool {
	return account == "" && f.Of.Account == "" || f.Of.Has(account)
}

// AtFilter says which moment, and whose. Limit is 1 to 1000; the service makes 0 100.
type AtFilter = engine.AtFilter

// SinceFilter says which CTI events were missed. Limit is 1 to 1000; the service
// makes 0 1000.
type SinceFilter = engine.SinceFilter

// DoubtFilter says what counts as doubtful. Limit is 1 to 1000; the service makes
// 0 100.
type DoubtFilter = engine.DoubtFilter

// LineFilter says which lines.
type LineFilter struct {
	Account string `json:"account,omitempty"`
	Domain  string `json:"domain,omitempty"`
	After   string `json:"after,omitempty"` // only accounts that sort after it
	Limit   int    `json:"limit,omitempty"` // 1 to 1000; the service makes 0 100
}

// HistoryEntry is one stored event and the CTI events that follow from it.
type HistoryEntry struct {
	Type    events.Type     `json:"type"`
	Event   *events.Event   `json:"event"`
	Payload json.RawMessage `json:"payload,omitempty"` // of the event; the service fills it in where it is nil
	CTI     []cti.Event     `json:"cti,omitempty"`
	Aside   bool            `json:"aside,omitempty"` // the event is of a call that is not told of, and CTI is about one that is
}

// Status describes a running engine.
type Status struct {
	Version   string             `json:"version"` // the service fills it in where it is empty
	Log       string             `json:"log"`     // id of the log
	StartedAt events.Time        `json:"startedAt,omitempty"`
	Position  uint64             `json:"position"`  // last stored event
	Folded    uint64             `json:"folded"`    // last event folded
	Confirmed uint64             `json:"confirmed"` // last event whose CTI events are in the stream
	Live      int                `json:"live"`      // calls that have not ended
	Doubtful  int                `json:"doubtful"`  // of them, those that calls.doubtful lists
	Lines     int                `json:"lines"`
	Frames    events.FrameCounts `json:"frames"`
	Links     []LinkStatus       `json:"links"`
	Bus       Stats              `json:"bus"`
}

// LinkStatus is one connection to a PBX.
type LinkStatus struct {
	Adapter   string      `json:"adapter"`
	PBX       string      `json:"pbx,omitempty"` // its name, where there are several
	Domain    string      `json:"domain,omitempty"`
	Login     string      `json:"login,omitempty"`
	Mode      string      `json:"mode,omitempty"` // domain, account, phone
	Connected bool        `json:"connected"`
	Refused   bool        `json:"refused,omitempty"` // by the PBX, for good: nothing more is tried
	Since     events.Time `json:"since,omitempty"`   // that it is connected or not
	Reason    string      `json:"reason,omitempty"`  // why it is not connected, or the PBX does not answer
	// ComparedAt is when the PBX last said what channels it has, UnansweredSince
	// since when it does not.
	ComparedAt      events.Time `json:"comparedAt,omitempty"`
	UnansweredSince events.Time `json:"unansweredSince,omitempty"`
}
