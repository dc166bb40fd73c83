package vertotest

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/callstate/callstate/adapters/verto"
)

// Errors of mod_verto, as it words them.
var (
	errInvalidRequest = verto.Error{Code: verto.CodeInvalidRequest, Message: "Invalid Request"}
	errInvalidMessage = verto.Error{Code: verto.CodeInvalidRequest, Message: "Invalid message"}
	errUnknownMethod  = verto.Error{Code: verto.CodeUnknownMethod, Message: "Invalid Method, Missing Method or Permission Denied"}
	errAuthRequired   = verto.Error{Code: verto.CodeAuthRequired, Message: "Authentication Required"}
)

func authError(message string) verto.Error {
	return verto.Error{Code: verto.CodeAuthFailed, Message: message}
}

func sessionError(message string) verto.Error {
	return verto.Error{Code: verto.CodeSession, Message: message}
}

// handlers are the methods that are allowed to a user, with the serve lock held.
var handlers = map[string]func(*socket, *verto.Frame) bool{
	verto.MethodPing:      (*socket).ping,
	verto.MethodSubscribe: (*socket).subscribe,
	verto.MethodInvite:    inDialog((*socket).invite),
	verto.MethodAnswer:    inDialog((*socket).answer),
	verto.MethodAttach:    inDialog((*socket).attach),
	verto.MethodBye:       inDialog((*socket).bye),
	verto.MethodModify:    inDialog((*socket).modify),
	verto.MethodInfo:      inDialog((*socket).info),
}

// serveRequest handles one message and reports whether the socket goes on.
func (k *socket) serveRequest(b []byte) bool {
	if len(b) > 0 && b[0] == '#' {
		return true // the speed test, which we do not offer
	}
	f, err := verto.Decode(b)
	switch {
	case errors.Is(err, verto.ErrNotFrame):
		var id struct{ ID json.RawMessage }
		_ = json.Unmarshal(b, &id) // it is an object
		f = verto.Frame{Kind: verto.KindRequest, Version: verto.Version, ID: id.ID}
	case err != nil:
		k.refuse(json.RawMessage("null"), errInvalidRequest)
		return true
	case f.Kind != verto.KindRequest:
		return true // an acknowledgement
	}
	if f.Version != verto.Version {
		k.refuse(f.ID, errInvalidMessage)
		return true
	}
	k.name(&f)
	if f.Method == verto.MethodLogin {
		return k.login(&f)
	}
	if k.loggedIn() == nil {
		k.refuse(f.ID, errAuthRequired)
		return true
	}
	handler := handlers[f.Method]
	if handler == nil {
		k.refuse(f.ID, errUnknownMethod)
		return true
	}
	return handler(k, &f)
}

func (k *socket) loggedIn() *User {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	return k.user
}

// name takes the sessid of the first request that has one.
func (k *socket) name(f *verto.Frame) {
	var p struct {
		Sessid string `json:"sessid"`
	}
	if json.Unmarshal(f.Params, &p) != nil || p.Sessid == "" {
		return
	}
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if k.sessid == "" {
		k.sessid = p.Sessid
	}
}

func (k *socket) login(f *verto.Frame) bool {
	s := k.s
	var p verto.Login
	if verto.Read(f.Params, &p) != nil || p.Login == "" {
		k.refuse(f.ID, errAuthRequired)
		return true
	}
	name := p.Login
	if !strings.Contains(name, "@") {
		name += "@" + s.opts.Domain
	}
	i := slices.IndexFunc(s.opts.Users, func(u User) bool { return u.Login == name })
	refusal := ""
	switch {
	case i < 0:
		refusal = "Login Incorrect"
	case p.Passwd == "":
		refusal = "Missing passwd"
	case string(p.Passwd) != s.opts.Users[i].Password:
		refusal = "Authentication Failure"
	}
	if refusal != "" {
		k.refuse(f.ID, authError(refusal))
		s.opts.Observe(Event{Kind: LoginRefused, Login: name, Sessid: k.sessionID(), Text: refusal})
		return true
	}
	user := &s.opts.Users[i]
	first, old, ok := k.bind(user)
	if !ok {
		k.refuse(f.ID, authError("Session in use"))
		s.opts.Observe(Event{Kind: LoginRefused, Login: name, Sessid: k.sessionID(), Text: "Session in use"})
		return false
	}
	sessid := k.sessionID()
	var calls []*Leg
	if first {
		calls = s.legsOf(sessid)
	}
	if old != nil {
		s.run(old.punt) // not here: it may be in the middle of a request
	}
	for _, l := range calls {
		l.detach() // also where the loss of the old socket is still being noticed
	}
	result := &verto.LoginResult{Message: verto.MessageLoggedIn, SessID: sessid}
	if user.AuthExpires > 0 {
		result.AuthExpires = verto.Number(time.Now().Add(user.AuthExpires).Unix())
	}
	k.reply(f, result)
	if first {
		if user.AuthExpires > 0 {
			s.run(func() {
				if s.sleep(user.AuthExpires, k.gone) {
					k.drop()
				}
			})
		}
		s.opts.Observe(Event{Kind: LoggedIn, Login: user.Login, Sessid: sessid})
		s.run(func() { k.welcome(calls) })
	}
	return true
}

// bind gives a socket its user and its sessid, and returns the socket that had the
// sessid before. first says that the socket was not logged in.
func (k *socket) bind(user *User) (first bool, old *socket, ok bool) {
	s := k.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.sessid == "" {
		k.sessid = uuid.NewString()
	}
	if old = s.bound[k.sessid]; old == k {
		old = nil
	}
	if old != nil && old.user.Login != user.Login && s.opts.Strict {
		return false, nil, false
	}
	first = k.user == nil
	k.user = user
	s.bound[k.sessid] = k
	return first, old, true
}

// punt tells a socket that another has its sessid, and closes it soon after.
func (k *socket) punt() {
	text, err := verto.EncodeRequest(k.s.requests.Add(1), verto.MethodPunt, &verto.Call{})
	if err != nil {
		panic("vertotest: " + err.Error()) // our own types
	}
	k.serve.Lock()
	k.writeServing(text)
	k.serve.Unlock()
	k.s.opts.Observe(Event{Kind: Punted, Login: k.loggedIn().Login, Sessid: k.sessionID()})
	k.queueing.Lock()
	k.queue = nil // what was to be said is said to the other
	k.queueing.Unlock()
	k.add(pending{close: true, due: time.Now()})
}

// welcome offers the calls of the sessid and says that the server is ready, two
// ticks after the login.
func (k *socket) welcome(calls []*Leg) {
	s := k.s
	began := time.Now()
	ready := &verto.Ready{ReattachedSessions: []string{}}
	var offers []func()
	for _, l := range calls {
		offer, err := l.reoffer()
		if err != nil {
			s.log.Warn("offer a call again", "call_id", l.id, "err", err)
			continue
		}
		if offer == nil {
			continue // it ended meanwhile
		}
		switch s.opts.Ready {
		case ReadySessid:
			ready.ReattachedSessions = append(ready.ReattachedSessions, l.sessid)
		case ReadyEmpty, ReadyNever:
		default:
			ready.ReattachedSessions = append(ready.ReattachedSessions, l.id)
		}
		offers = append(offers, func() {
			k.request(verto.MethodAttach, offer, began.Add(s.opts.Tick))
			l.tell(Attaching, "")
		})
	}
	say := func() { k.request(verto.MethodClientReady, ready, began.Add(s.opts.Tick)) }
	if s.opts.Ready == ReadyFirst {
		say()
	}
	for _, offer := range offers {
		offer()
	}
	if s.opts.Ready != ReadyFirst && s.opts.Ready != ReadyNever {
		say()
	}
}

func (k *socket) ping(f *verto.Frame) bool {
	k.reply(f, &verto.Ping{Message: verto.MessagePong, SessID: k.sessionID()})
	return true
}

// subscribe answers a subscription.
func (k *socket) subscribe(f *verto.Frame) bool {
	var p struct {
		Channel json.RawMessage `json:"eventChannel"`
	}
	_ = json.Unmarshal(f.Params, &p) // absent is none
	var names []string
	if json.Unmarshal(p.Channel, &names) != nil {
		var one string
		if json.Unmarshal(p.Channel, &one) == nil {
			names = []string{one}
		}
	}
	lists := make(map[string][]string)
	for _, name := range names {
		key := "unauthorizedChannels"
		if slices.ContainsFunc(k.s.opts.EventChannels, func(c string) bool { return name == c || strings.HasPrefix(name, c+".") }) {
			key = "subscribedChannels"
		}
		lists[key] = append(lists[key], name)
	}
	extra := make(map[string]json.RawMessage)
	for key, list := range lists {
		extra[key], _ = json.Marshal(list) // strings always marshal
	}
	if lists["subscribedChannels"] == nil {
		k.refuse(f.ID, verto.Error{Extra: extra})
		return true
	}
	k.reply(f, &verto.CallResult{SessID: k.sessionID(), Extra: extra})
	return true
}
