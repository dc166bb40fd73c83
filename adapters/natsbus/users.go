package natsbus

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/callstate/callstate/adapters/secret"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// Role is what a user of the embedded server may do. SUBJECTS.md, section Users,
// has the subjects of each.
type Role string

// The roles. Only an admin may ask JetStream anything: its server answers to
// whatever subject a request names, so that who may ask it may write anywhere.
const (
	RoleAgent      Role = "agent"      // sees and commands its own accounts
	RoleSupervisor Role = "supervisor" // sees and commands the accounts of its domains
	RoleAnalyst    Role = "analyst"    // sees its domains, or everything, and commands nothing
	RoleAdmin      Role = "admin"      // everything, JetStream included
)

// User is one who may connect to the embedded server.
type User struct {
	Name     string      // signs in with Password; with NKey only a name for the inbox
	Password secret.Text // plain, or its bcrypt hash
	NKey     string      // public nkey (U...), in place of a password
	Role     Role
	Accounts []string // an agent's, number@domain
	Domains  []string // a supervisor's; an analyst's, none for all
	// Recordings allows a supervisor or agent to ask for the links of recordings,
	// whose token is good for all that callstate's own account of the PBX may do.
	Recordings bool
}

// ErrUser is matched by an error about a configured user.
var ErrUser = errors.New("natsbus: user")

// Validate finds what would give a user more, or less, than can be meant.
func (u *User) Validate() error {
	bad := func(format string, v ...any) error {
		return fmt.Errorf("%w %q: %s", ErrUser, u.Name, fmt.Sprintf(format, v...))
	}
	switch {
	case u.Name == "" || u.Name == ownUser:
		return bad("want a name of its own")
	case (u.Password == "") == (u.NKey == ""):
		return bad("want a password or an nkey")
	case u.NKey != "" && !nkeys.IsValidPublicUserKey(u.NKey):
		return bad("nkey: want a user's public key, U and 55 letters and digits")
	}
	accounts, domains := u.Role == RoleAgent, u.Role == RoleSupervisor
	switch u.Role {
	case RoleAgent, RoleSupervisor, RoleAnalyst, RoleAdmin:
	default:
		return bad("role %q: want agent, supervisor, analyst or admin", u.Role)
	}
	if accounts != (len(u.Accounts) > 0) {
		return bad("accounts go with the role agent, which needs at least one")
	}
	if domains && len(u.Domains) == 0 || len(u.Domains) > 0 && !domains && u.Role != RoleAnalyst {
		return bad("domains go with the roles supervisor, which needs at least one, and analyst")
	}
	for _, a := range u.Accounts {
		number, domain := cti.SplitAccount(a)
		if number == "" || domain == "" || cti.Token(number) == cti.Token("") || cti.Token(domain) == cti.Token("") {
			return bad("account %q: want number@domain", a)
		}
	}
	for _, d := range u.Domains {
		if d == "" || cti.Token(d) == cti.Token("") || strings.Contains(d, "@") {
			return bad("domain %q: want a domain", d)
		}
	}
	return nil
}

// permissions are the subjects of a user's role; nil means everything. prefix is
// that of the CTI events.
func (u *User) permissions(prefix string) *server.Permissions {
	if u.Role == RoleAdmin {
		return nil
	}
	see := []string{UserInbox(u.Name) + ".>"}
	var ask []string
	of := func(key string) { // the token pair of an account, or a domain's and the rest
		see = append(see, prefix+"."+key+".>")
		for _, bucket := range []string{CallsBucket(prefix), LinesBucket(prefix)} {
			see = append(see, "$KV."+bucket+"."+key, "$KV."+bucket+"."+key+".>")
		}
	}
	for _, a := range u.Accounts {
		key := cti.LineKey(a)
		of(key)
		ask = append(ask, ControlPrefix+"."+key+".*", scopePrefix+"."+key+".>")
	}
	for _, d := range u.Domains {
		key := cti.Token(d)
		of(key)
		ask = append(ask, scopePrefix+"."+key+".>")
		if u.Role == RoleSupervisor {
			ask = append(ask, ControlPrefix+"."+key+".*.*")
		}
	}
	if u.Role == RoleAnalyst && len(u.Domains) == 0 {
		see = append(see, prefix+".>", "$KV."+CallsBucket(prefix)+".>", "$KV."+LinesBucket(prefix)+".>")
		ask = append(ask, scopePrefix+".>")
		for _, verb := range queryVerbs {
			ask = append(ask, servicePrefix+"."+verb)
		}
	}
	p := &server.Permissions{
		Subscribe: &server.SubjectPermission{Allow: see},
		Publish:   &server.SubjectPermission{Allow: ask},
	}
	if !u.Recordings {
		p.Publish.Deny = []string{ControlPrefix + ".*.*." + engine.MethodRecords}
	}
	return p
}

// ownUser is how callstate itself signs in to a server that has users.
const ownUser = "callstate"

// setUsers gives the server its users, and one of callstate's own with a password
// that nobody else has, which it returns.
func setUsers(o *server.Options, users []User, prefix string) (own secret.Text, err error) {
	names, keys := map[string]bool{}, map[string]bool{}
	for i := range users {
		u := &users[i]
		if err := u.Validate(); err != nil {
			return "", err
		}
		if inbox := UserInbox(u.Name); names[inbox] || u.NKey != "" && keys[u.NKey] {
			return "", fmt.Errorf("%w %q: there are two of that name or nkey", ErrUser, u.Name)
		}
		names[UserInbox(u.Name)], keys[u.NKey] = true, true
		if u.NKey != "" {
			o.Nkeys = append(o.Nkeys, &server.NkeyUser{Nkey: u.NKey, Permissions: u.permissions(prefix)})
		} else {
			o.Users = append(o.Users, &server.User{Username: u.Name, Password: string(u.Password), Permissions: u.permissions(prefix)})
		}
	}
	if len(users) == 0 {
		return "", nil
	}
	own = secret.Text(rand.Text())
	o.Users = append(o.Users, &server.User{Username: ownUser, Password: string(own)})
	return own, nil
}
