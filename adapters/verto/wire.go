package verto

import (
	"encoding/json"

	"github.com/callstate/callstate/adapters/internal/dial"
)

// Version is the only JSON-RPC version that mod_verto accepts.
const Version = "2.0"

// The methods. Which side sends which is in section 5 of the protocol reference.
const (
	MethodLogin       = "login"
	MethodInvite      = "verto.invite"
	MethodMedia       = "verto.media"
	MethodAnswer      = "verto.answer"
	MethodBye         = "verto.bye"
	MethodModify      = "verto.modify"
	MethodInfo        = "verto.info"
	MethodDisplay     = "verto.display"
	MethodAttach      = "verto.attach"
	MethodClientReady = "verto.clientReady"
	MethodPunt        = "verto.punt"
	MethodPing        = "verto.ping"
	MethodSubscribe   = "verto.subscribe"
	MethodUnsubscribe = "verto.unsubscribe"
	MethodBroadcast   = "verto.broadcast"
	MethodEvent       = "verto.event"
	MethodPrompt      = "verto.prompt"
	MethodMediaParams = "verto.mediaParams"
)

// The actions of verto.modify.
const (
	ActionHold        = "hold"
	ActionUnhold      = "unhold"
	ActionToggleHold  = "toggleHold"
	ActionTransfer    = "transfer"
	ActionReplace     = "replace"
	ActionUpdateMedia = "updateMedia"
)

// The holdState of the result of verto.modify.
const (
	HoldStateHeld   = "held"
	HoldStateActive = "active"
)

// DisplayOutbound is the display_direction of a call that FreeSWITCH makes to us:
// the direction is the one that the server sees. The remote party is then the
// caller, otherwise the callee.
const DisplayOutbound = "outbound"

// Messages of results.
const (
	MessageLoggedIn    = "logged in"
	MessageCallCreated = "CALL CREATED"
	MessageCallEnded   = "CALL ENDED"
	MessageSent        = "SENT"
	MessagePong        = "PONG"
)

// The codes of mod_verto's errors.
const (
	CodeInvalidRequest = -32600
	CodeUnknownMethod  = -32601 // or one that the user's jsonrpc-allowed-methods lacks
	CodeNotPermitted   = -32602
	CodeAuthRequired   = -32000
	CodeAuthFailed     = -32001
	CodeSession        = -32002 // everything about a call
)

// Kind is what a frame is.
type Kind uint8

// The kinds.
const (
	KindRequest   Kind = iota + 1 // Method is set
	KindResult                    // Result is set
	KindError                     // Error is set
	KindSpeedTest                 // a frame of the "#SP" sub-protocol, which is no JSON
)

// Frame is one message as sent. Both sides number their requests on their own, so that ids collide: only the
// presence of a method tells a request from an answer.
type Frame struct {
	Kind    Kind
	Version string          // "2.0" in all that a server sends
	ID      json.RawMessage // a number as a rule; "null" is kept, nil where absent
	Method  string
	Params  json.RawMessage // nil where absent
	Result  json.RawMessage
	Error   *Error
	Extra   map[string]json.RawMessage
}

// Secret is a password, which no verb of fmt and no log shows.
type Secret = dial.Secret

// Number is a number that may be sent as a string.
type Number int64

// Login is the params of login.
type Login struct {
	SessID        string
	Login         string // user@domain
	Passwd        Secret
	UserVariables map[string]string // become variables of every later channel
	LoginParams   map[string]string // go to the directory's look-up
	Extra         map[string]json.RawMessage
}

// LoginResult is the result of login.
type LoginResult struct {
	Message     string
	SessID      string
	AuthExpires Number // seconds since 1970, when the server closes the socket; 0: never
	Extra       map[string]json.RawMessage
}

// Call is the params of the server's requests about a call: verto.invite, media,
// answer, attach, display, bye, info, prompt and mediaParams. Each has some of the
// fields.
type Call struct {
	CallID           string // the channel's Unique-ID
	SDP              string
	CallerIDName     string
	CallerIDNumber   string
	CalleeIDName     string
	CalleeIDNumber   string
	DisplayDirection string // see DisplayOutbound
	DisplayName      string
	DisplayNumber    string
	Cause            string
	CauseCode        Number
	// Variables are the channel's verto_svar_ variables with their prefix, among
	// a dozen headers of the event that carried them; see Shared.
	Variables map[string]string
	Msg       *Message
	Extra     map[string]json.RawMessage // also the verto_h_ headers
}

// Message is the text message of verto.info.
type Message struct {
	From, To, Body string
	Extra          map[string]json.RawMessage
}

// CallRequest is the params of our requests about a call: verto.invite, answer,
// attach, bye, modify and info. Each has some of the fields.
type CallRequest struct {
	SessID        string
	SDP           string
	Dialog        Dialog
	Action        string // modify
	Destination   string // modify, ActionTransfer
	ReplaceCallID string // modify, ActionReplace
	DTMF          string // info
	Cause         string // bye: a valid name wins over the code
	CauseCode     Number
	Msg           *Message // info
	Extra         map[string]json.RawMessage
}

// Dialog is the dialogParams of a request.
type Dialog struct {
	CallID               string
	DestinationNumber    string // invite
	CallerIDName         string
	CallerIDNumber       string
	RemoteCallerIDName   string
	RemoteCallerIDNumber string
	CalleeIDName         string // answer
	CalleeIDNumber       string
	UserVariables        map[string]string          // become verto_dvar_ variables of the channel
	RecoverCall          *bool                      // false: the loss of the socket ends the call
	Extra                map[string]json.RawMessage // what browsers send and the server ignores
}

// CallResult is the result of a request about a call.
type CallResult struct {
	Message   string
	CallID    string
	SessID    string
	Action    string
	HoldState string // modify: what holds now, whatever was asked
	SDP       string // modify, ActionUpdateMedia: the answer
	Cause     string
	CauseCode Number
	Extra     map[string]json.RawMessage
}

// Error is the error of an answer. The refusal of a verto.subscribe has neither
// code nor message.
type Error struct {
	Code      Number
	Message   string
	CallID    string
	Action    string
	Cause     string
	CauseCode Number
	Extra     map[string]json.RawMessage
}

// Ready is the params of verto.clientReady. What was reattached is a hint only:
// versions differ in what they list.
type Ready struct {
	ReattachedSessions []string
	Extra              map[string]json.RawMessage
}

// Ping is the params and the result of verto.ping.
type Ping struct {
	SessID      string
	Message     string // of the result
	Serno       Number // of the server's request
	AuthExpires Number
	Extra       map[string]json.RawMessage
}

// Event is the params of verto.event.
type Event struct {
	EventChannel      string
	SubscribedChannel string
	EventSerno        Number
	SessID            string
	Data              json.RawMessage
	Extra             map[string]json.RawMessage
}

// Ack is the result with which a client acknowledges a request of the server.
type Ack struct {
	Method string
	Extra  map[string]json.RawMessage
}

// Object is one of the types above but Frame: the table of its members is what
// [Read] and the encoders go by. What is in no table is kept in Extra, as is a
// member that is null.
type Object interface {
	members() ([]member, *map[string]json.RawMessage)
}

// member is one member of an object and where its value is kept: a pointer to a
// string, Number, Secret, *bool, map or list of strings, raw JSON, or an object.
type member struct {
	name string
	to   any
}

func (p *Login) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"sessid", &p.SessID},
		{"login", &p.Login},
		{"passwd", &p.Passwd},
		{"userVariables", &p.UserVariables},
		{"loginParams", &p.LoginParams},
	}, &p.Extra
}

func (p *LoginResult) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"message", &p.Message},
		{"sessid", &p.SessID},
		{"auth-expires", &p.AuthExpires},
	}, &p.Extra
}

func (p *Call) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"callID", &p.CallID},
		{"sdp", &p.SDP},
		{"caller_id_name", &p.CallerIDName},
		{"caller_id_number", &p.CallerIDNumber},
		{"callee_id_name", &p.CalleeIDName},
		{"callee_id_number", &p.CalleeIDNumber},
		{"display_direction", &p.DisplayDirection},
		{"display_name", &p.DisplayName},
		{"display_number", &p.DisplayNumber},
		{"cause", &p.Cause},
		{"causeCode", &p.CauseCode},
		{"variables", &p.Variables},
		{"msg", &p.Msg},
	}, &p.Extra
}

func (p *Message) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"from", &p.From},
		{"to", &p.To},
		{"body", &p.Body},
	}, &p.Extra
}

func (p *CallRequest) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"sessid", &p.SessID},
		{"sdp", &p.SDP},
		{"dialogParams", &p.Dialog},
		{"action", &p.Action},
		{"destination", &p.Destination},
		{"replaceCallID", &p.ReplaceCallID},
		{"dtmf", &p.DTMF},
		{"cause", &p.Cause},
		{"causeCode", &p.CauseCode},
		{"msg", &p.Msg},
	}, &p.Extra
}

func (p *Dialog) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"callID", &p.CallID},
		{"destination_number", &p.DestinationNumber},
		{"caller_id_name", &p.CallerIDName},
		{"caller_id_number", &p.CallerIDNumber},
		{"remote_caller_id_name", &p.RemoteCallerIDName},
		{"remote_caller_id_number", &p.RemoteCallerIDNumber},
		{"callee_id_name", &p.CalleeIDName},
		{"callee_id_number", &p.CalleeIDNumber},
		{"userVariables", &p.UserVariables},
		{"recoverCall", &p.RecoverCall},
	}, &p.Extra
}

func (p *CallResult) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"message", &p.Message},
		{"callID", &p.CallID},
		{"sessid", &p.SessID},
		{"action", &p.Action},
		{"holdState", &p.HoldState},
		{"sdp", &p.SDP},
		{"cause", &p.Cause},
		{"causeCode", &p.CauseCode},
	}, &p.Extra
}

func (p *Error) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"code", &p.Code},
		{"message", &p.Message},
		{"callID", &p.CallID},
		{"action", &p.Action},
		{"cause", &p.Cause},
		{"causeCode", &p.CauseCode},
	}, &p.Extra
}

func (p *Ready) members() ([]member, *map[string]json.RawMessage) {
	return []member{{"reattached_sessions", &p.ReattachedSessions}}, &p.Extra
}

func (p *Ping) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"sessid", &p.SessID},
		{"message", &p.Message},
		{"serno", &p.Serno},
		{"auth-expires", &p.AuthExpires},
	}, &p.Extra
}

func (p *Event) members() ([]member, *map[string]json.RawMessage) {
	return []member{
		{"eventChannel", &p.EventChannel},
		{"subscribedChannel", &p.SubscribedChannel},
		{"eventSerno", &p.EventSerno},
		{"sessid", &p.SessID},
		{"data", &p.Data},
	}, &p.Extra
}

func (p *Ack) members() ([]member, *map[string]json.RawMessage) {
	return []member{{"method", &p.Method}}, &p.Extra
}

// ParamsOf returns a new object for the params of a method as one side sends it;
// nil where the method has none that we read.
func ParamsOf(method string, fromServer bool) Object {
	switch method {
	case MethodLogin:
		return new(Login)
	case MethodInvite, MethodMedia, MethodAnswer, MethodBye, MethodModify, MethodInfo,
		MethodDisplay, MethodAttach, MethodPrompt, MethodMediaParams:
		if fromServer {
			return new(Call)
		}
		return new(CallRequest)
	case MethodClientReady:
		return new(Ready)
	case MethodPing:
		return new(Ping)
	case MethodEvent:
		return new(Event)
	}
	return nil
}

// ResultOf returns a new object for the server's result of a method; nil where
// the method has none that we read.
func ResultOf(method string) Object {
	switch method {
	case MethodLogin:
		return new(LoginResult)
	case MethodInvite, MethodAnswer, MethodBye, MethodModify, MethodInfo, MethodAttach:
		return new(CallResult)
	case MethodPing:
		return new(Ping)
	}
	return nil
}
