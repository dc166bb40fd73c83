package webitel

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
)

// Reply is the server's answer to a command.
type Reply struct {
	ID       string          // exec-uuid
	Complete string          // exec-complete
	Response json.RawMessage // exec-response; nil if absent
}

// Text returns the response if it is a string.
func (r Reply) Text() (text string, ok bool) {
	if len(r.Response) == 0 || r.Response[0] != '"' {
		return "", false
	}
	err := json.Unmarshal(r.Response, &text)
	return text, err == nil
}

// serverEvents are the names a domain connection subscribes to: all that the
// server has for channels. It has none for CHANNEL_UUID and RECORD_*.
var serverEvents = []string{
	"SE:CHANNEL_CREATE", "SE:CHANNEL_DESTROY", "SE:CHANNEL_CALLSTATE", "SE:CHANNEL_STATE",
	"SE:CHANNEL_ANSWER", "SE:CHANNEL_HANGUP_COMPLETE", "SE:CHANNEL_HANGUP", "SE:CHANNEL_HOLD",
	"SE:CHANNEL_UNHOLD", "SE:CHANNEL_BRIDGE", "SE:CHANNEL_UNBRIDGE", "SE:DTMF",
}

type signInStep uint8

const (
	signInStart     signInStep = iota
	signInAuth                 // auth is out
	signInLogin                // login is out
	signInAccounts             // api account list is out
	signInSubscribe            // the subscriptions are out
	signInDone
)

// SignIn is the conversation after the socket opens, as a pure state machine:
// auth, login, api account list and, for a domain, the twelve subscriptions. It
// is fed the replies to its own commands, in the order of the commands.
type SignIn struct {
	user User
	mode Mode

	step signInStep
	left []string // names whose subscribe is not answered

	login, domain string
	state, status string
	accounts      json.RawMessage // response of api account list; nil if refused
	refused       []error
}

// NewSignIn returns the machine for one connection.
func NewSignIn(user User, mode Mode) *SignIn {
	_, domain, _ := strings.Cut(user.Login, "@")
	return &SignIn{user: user, mode: mode, login: user.Login, domain: domain}
}

// Start returns the first commands.
func (s *SignIn) Start() []Command {
	s.step = signInAuth
	return []Command{{Func: "auth", Args: map[string]any{
		"account": s.user.Login, "secret": string(s.user.Password),
	}}}
}

// Handle takes the next reply and returns what to send, and whether the sign-in
// is complete. An error ends the connection; only one that matches [ErrSecret]
// will be the same next time. Of the steps after auth a refusal is an error only
// if nothing could be seen without them; see [SignIn.Refused] for the others.
func (s *SignIn) Handle(r Reply) (next []Command, done bool, err error) {
	switch s.step {
	case signInAuth:
		if err := Classify("auth", r); err != nil {
			return nil, false, s.mask(err)
		}
		s.readAuth(r.Response)
		s.step = signInLogin
		return []Command{{Func: "login"}}, false, nil

	case signInLogin:
		if err := Classify("login", r); err != nil {
			return nil, false, err
		}
		s.step = signInAccounts
		return []Command{ListAccounts(s.domain)}, false, nil

	case signInAccounts:
		if err := Classify("api account list", r); err != nil {
			s.refused = append(s.refused, err) // a role without the right; the calls are seen all the same
		} else {
			s.accounts = r.Response
		}
		if s.mode != ModeDomain {
			s.step = signInDone
			return nil, true, nil
		}
		s.step = signInSubscribe
		s.left = serverEvents
		for _, name := range serverEvents {
			next = append(next, Subscribe(name))
		}
		return next, false, nil

	case signInSubscribe:
		name := s.left[0]
		s.left = s.left[1:]
		if err := Classify("subscribe", r); err != nil && !errors.Is(err, ErrSubscribed) {
			s.refused = append(s.refused, fmt.Errorf("subscribe %s: %w", name, err))
		}
		if len(s.left) > 0 {
			return nil, false, nil
		}
		if n := s.refusedNames(); n == len(serverEvents) {
			return nil, false, errors.Join(s.refused...)
		}
		s.step = signInDone
		return nil, true, nil

	default:
		return nil, s.step == signInDone, fmt.Errorf("webitel: sign-in: unexpected reply %q", r.Complete)
	}
}

// Domain returns the domain that the connection watches; empty for root.
func (s *SignIn) Domain() string { return s.domain }

// Login returns the account as the server names it.
func (s *SignIn) Login() string { return s.login }

// State returns the agent's state and status from the reply to auth; both are
// empty after a sign-in by token.
func (s *SignIn) State() (state, status string) { return s.state, s.status }

// Accounts returns the response of api account list, nil if it was refused.
func (s *SignIn) Accounts() json.RawMessage { return s.accounts }

// AwaitsAccounts reports whether the next reply is that of api account list.
func (s *SignIn) AwaitsAccounts() bool { return s.step == signInAccounts }

// Refused returns what was refused without ending the sign-in.
func (s *SignIn) Refused() []error { return s.refused }

func (s *SignIn) refusedNames() int {
	n := len(s.refused)
	if s.accounts == nil {
		n-- // the account list
	}
	return n
}

// readAuth takes what the reply says and forgives what it does not: types differ
// between versions (cc-agent is a string or a boolean). What is longer than any
// name is none: login and domain become ids of events.
func (s *SignIn) readAuth(response json.RawMessage) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(response, &fields) != nil {
		return
	}
	for name, to := range map[string]*string{
		"login": &s.login, "domain": &s.domain, "state": &s.state, "status": &s.status,
	} {
		var v string
		if json.Unmarshal(fields[name], &v) == nil && v != "" && len(v) <= events.MaxID {
			*to = v
		}
	}
}

// mask keeps the secret out of an error: for a directory's trouble the reply is
// the directory's own text, whatever that may quote.
func (s *SignIn) mask(err error) error {
	if re, ok := errors.AsType[*ReplyError](err); ok && s.user.Password != "" {
		re.Text = strings.ReplaceAll(re.Text, string(s.user.Password), "***")
	}
	return err
}

// Agents returns what the sign-in knows of the accounts: in domain mode all of
// the list, in account mode the own account, which is online by its own sign-in
// even where the list says or shows otherwise. The error is the list's.
func (s *SignIn) Agents() ([]engine.AgentObservation, error) {
	var list []engine.AgentObservation
	var err error
	if s.accounts != nil {
		list, err = AccountList(s.accounts, s.domain)
	}
	if s.mode == ModeDomain {
		return list, err
	}
	own := engine.AgentObservation{Account: s.login, State: s.state, Status: s.status}
	for _, a := range list {
		if a.Account == s.login {
			own = a
		}
	}
	own.Kind = engine.AgentOnline
	return []engine.AgentObservation{own}, err
}
