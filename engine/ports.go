package engine

import (
	"context"
	"time"

	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// Reader is what a fold needs of a log: its events, and where retention dropped
// the first of them the state that they added up to.
type Reader interface {
	ID() string
	Read(ctx context.Context, from uint64, fn func(*events.Event) error) error
	// Base is the state after the last event that was dropped, as State.Append
	// wrote it; position 0 where nothing was dropped.
	Base() (position uint64, state []byte, err error)
}

// Log is what the engine needs of a store. The contract is that of store.Store;
// both are satisfied by store/memory and store/bolt.
type Log interface {
	Reader
	Append(ctx context.Context, b *events.Batch) error
	Last() uint64
	// Snapshot is the latest state that SetSnapshot kept of a position up to most,
	// position 0 where there is none that can be used.
	Snapshot(most uint64) (position uint64, state []byte, err error)
	SetSnapshot(position uint64, state []byte) error
	ForgetSnapshots() error
	ReadCall(ctx context.Context, key events.CallKey, fn func(*events.Event) error) error
	HasCall(key events.CallKey) (bool, error)
	Frames() events.FrameCounts
	Checkpoint(name string) (uint64, error)
	SetCheckpoint(name string, position uint64) error
}

// Message is one CTI event on its way out. The same log gives the same message,
// byte for byte.
type Message struct {
	ID      string // <log id>.<position>.<n>: stable, so that a repeat is recognised
	Event   cti.Event
	Payload []byte // Event as JSON
}

// Result is what the fold of one event gave: the CTI events that follow from it,
// in order, and the views as they are after it. Call is nil for an event about
// no call, Line is nil for one about no account.
type Result struct {
	Position     uint64
	Account      string
	CallID       string
	Conversation string // of the call after the event; empty for an event about no call
	Seq          uint64 // of the call's last CTI event, 0 for an event about no call
	LineSeq      uint64 // of the account's last CTI event
	Messages     []Message
	Call         *cti.Call
	Line         *cti.Line
}

// Bus takes the results of the fold to subscribers. Publish, Flush and Resume are
// called by one goroutine, with results in order of position and without gaps
// from the position that Resume named.
type Bus interface {
	// Resume waits until the bus can be published to and returns the position
	// from which to publish: what the bus holds decides, since it may hold less
	// than it once confirmed. checkpoint is the last position that it is known to
	// have confirmed; it counts where the bus cannot tell. Of what is published
	// from there on the bus leaves out what it has. Resume is called before the
	// first Publish, after each error of Publish, and when Confirmed went back.
	Resume(ctx context.Context, checkpoint uint64) (from uint64, err error)
	// Publish takes over rs and returns when everything in it is on its way to
	// being confirmed; it waits when too much is unconfirmed. An error means that
	// the bus is away: none, some or all of rs arrived. The engine publishes again
	// from where Resume says.
	Publish(ctx context.Context, rs []Result) error
	// Confirmed is the last position all of whose messages the bus has confirmed,
	// 0 before the first Resume. It goes back when the bus finds that it lost what
	// it had confirmed. It is called by any goroutine.
	Confirmed() uint64
	// Flush waits until all that was published is confirmed.
	Flush(ctx context.Context) error
}

// Observer watches the engine work, for figures and traces. The engine waits while
// its methods run: they must be quick, wait for nothing, and change nothing of what
// they are given.
type Observer interface {
	// Appended is called by the goroutine that appends, when a batch is durable: how
	// many events it has and how long that took.
	Appended(events int, took time.Duration)
	// Folded is called by the goroutine that folds, with durable events in order of
	// position and what followed from them. What the log held at the start is not
	// shown again.
	Folded(evs []events.Event, results []Result)
}

// Command is a wish of a policy or request, for the adapter that owns the account.
type Command struct {
	Account string
	Call    string
	Action  Action
	Leg     string // the leg it is about; the record's id for ActionRecord

	OtherLeg string // complete, cancel: who is bridged with Leg
	ThirdLeg string // complete: who is bridged with the consultation; cancel: the consultation's own leg
	Parent   string // consult: the call that it is for
	Cause    string // hangup: the switch's cause text
	Target   string // call, consult, transfer: a number
	Digits   string // dtmf
	State    string // status
	Note     string // status, transfer
	WebPhone bool   // consult: the account has one, so that its phone is not told to answer
	By       string // who wants it: a policy's name, or who asked

	// Phone says that the account's web phone does it, not the PBX: see [Phone]. Leg
	// is then the session's id, empty where the phone is to place a call.
	Phone bool
	Video bool // answer, video: with video

	after func(*events.Event) bool // it follows that event
}

// Action is what a command does at the PBX.
type Action string

// The actions.
const (
	ActionHangup      Action = "hangup"
	ActionHold        Action = "hold"
	ActionUnhold      Action = "unhold"
	ActionDTMF        Action = "dtmf"
	ActionTransfer    Action = "transfer"
	ActionCall        Action = "call"
	ActionConsult     Action = "consult"
	ActionComplete    Action = "complete" // the consultation's transfer
	ActionCancel      Action = "cancel"   // the consultation
	ActionStatus      Action = "status"   // of the agent
	ActionLogin       Action = "login"
	ActionConnect     Action = "connect"    // the account's own connection
	ActionDisconnect  Action = "disconnect" // signs out, and stays so
	ActionLogout      Action = "logout"
	ActionQueueLogin  Action = "queue-login"
	ActionQueueLogout Action = "queue-logout"
	ActionRecord      Action = "record" // the link to a call's recording

	ActionAnswer       Action = "answer"        // a web phone's session
	ActionAutoAnswer   Action = "auto-answer"   // the session, as soon as it rings
	ActionVideo        Action = "video"         // of a web phone's session: send it or not
	ActionVideoRefresh Action = "video-refresh" // the PBX asks for key frames
)

// OwnConnection reports whether the action is about the account's own connection,
// and no other can do it.
func (a Action) OwnConnection() bool {
	switch a {
	case ActionLogin, ActionLogout, ActionConnect, ActionDisconnect, ActionQueueLogin, ActionQueueLogout:
		return true
	default:
		return false
	}
}

// Commander carries commands to the PBX.
type Commander interface {
	// Check says why a command cannot be sent: a [*RequestError].
	Check(c Command) error
	// Command sends it and returns the PBX's answer. An error is a [*RequestError]
	// where the result has a word.
	Command(ctx context.Context, c Command) (answer string, err error)
}

// Phone is an account's web phone. Sessions are named by the Verto callID, which
// is the leg's Unique-ID. Each method returns when the server has answered or ctx
// is over; an error is a [*RequestError] where the result has a word:
// [VerdictNotConnected] without a signed-in socket, [VerdictNoSession] for a
// session that the phone does not have or that is not in a state for it,
// [VerdictRefused] with the server's words, [VerdictNoReply].
type Phone interface {
	// Registered reports whether the phone is signed in now.
	Registered() bool
	// Call places a call and returns its session when the server has made the
	// channel; whether it is answered is told by observations.
	Call(ctx context.Context, number string) (session string, err error)
	// Answer answers a ringing session, with video where it is offered and the phone
	// has it.
	Answer(ctx context.Context, session string, video bool) error
	// AutoAnswer answers a session when it rings: at once, or within 5 s of being
	// told, since the leg's channel event may come before the invite (click-to-call,
	// reference/verto-protocol.md, 16.5-2). It does not wait for that.
	AutoAnswer(session string)
	Hold(ctx context.Context, session string) error
	Unhold(ctx context.Context, session string) error
	// Hangup ends a session, which rejects one that rings. An empty cause is the
	// server's default. A session that is gone is no error.
	Hangup(ctx context.Context, session, cause string) error
	SendDTMF(ctx context.Context, session, digits string) error
	// SetVideo sends video or stops sending it; [VerdictNotSupported] where the phone
	// has none, or none was agreed in the session.
	SetVideo(ctx context.Context, session string, on bool) error
}
