package natsbus

import (
	"fmt"
	"strings"

	"github.com/callstate/callstate/events/cti"
)

// scopePrefix begins the subjects of queries that are answered for one account or
// one domain alone: callstate.v1.of.<domain>.<account number>.<verb>, and of a
// whole domain with "-" in place of the number. Permissions on subjects then say
// who may ask about whom.
const scopePrefix = servicePrefix + ".of"

// Scope is whom a query is answered about. The zero value is everybody.
type Scope struct {
	Domain  string
	Account string // empty means all of the domain
}

// ScopeOf is the scope of an account, else of a domain, else everybody.
func ScopeOf(account, domain string) Scope {
	if account != "" {
		_, domain = cti.SplitAccount(account)
	}
	return Scope{domain, account}
}

// Subject is where a query about the scope is asked.
func (s Scope) Subject(verb string) string {
	switch {
	case s.Account != "":
		return scopePrefix + "." + cti.LineKey(s.Account) + "." + verb
	case s.Domain != "":
		return scopePrefix + "." + cti.Token(s.Domain) + "." + cti.Token("") + "." + verb
	default:
		return servicePrefix + "." + verb
	}
}

// Has reports whether an account is in the scope.
func (s Scope) Has(account string) bool {
	if s.Account != "" {
		return account == s.Account
	}
	_, domain := cti.SplitAccount(account)
	return s.Domain == "" || domain == s.Domain
}

// readScope takes the scope from a subject, after the prefix of scopes.
func readScope(rest string) (Scope, error) {
	domainToken, rest, _ := strings.Cut(rest, ".")
	numberToken, _, _ := strings.Cut(rest, ".")
	number, domain, err := readAccount(domainToken, numberToken)
	if err != nil {
		return Scope{}, badRequest("subject: %v; want %s.<domain>.<account number, or - for all>.<query>", err, scopePrefix)
	}
	if number == "" {
		return Scope{Domain: domain}, nil
	}
	return Scope{domain, number + "@" + domain}, nil
}

// readAccount reads the two tokens of an account. Other spellings than ours are
// refused, as is a number with a domain in it: permissions compare text.
func readAccount(domainToken, numberToken string) (number, domain string, err error) {
	domain, err1 := cti.Untoken(domainToken)
	number, err2 := cti.Untoken(numberToken)
	if err1 != nil || err2 != nil || domain == "" || cti.Token(domain) != domainToken || cti.Token(number) != numberToken || strings.Contains(domain+number, "@") {
		return "", "", fmt.Errorf("%q and %q are no account's domain and number, in tokens as of CTI events", domainToken, numberToken)
	}
	return number, domain, nil
}

// narrow keeps a request's account and domain within the scope: what the request
// leaves open is the scope's, what it names must be in it.
func (s Scope) narrow(account, domain *string) error {
	if account != nil && *account != "" && !s.Has(*account) {
		return badRequest("account %s is not of the subject's", *account)
	}
	if domain != nil && *domain != "" && s.Domain != "" && *domain != s.Domain {
		return badRequest("domain %s is not of the subject's", *domain)
	}
	if account != nil && *account == "" {
		*account = s.Account
	}
	if domain != nil && *domain == "" {
		*domain = s.Domain
	}
	return nil
}

// acksToken is the second token of the subjects that JetStream's confirmations
// come to. Subscribers see them, as the reply subject of the events.
const acksToken = "callstate-acks"

// isInbox reports whether an answer may go to a subject. The server lets a request
// name any reply subject, and what is published there has our rights, not those of
// who asked: an answer must not become a command, an event, a view, or a
// confirmation.
func isInbox(subject string) bool {
	first, rest, _ := strings.Cut(subject, ".")
	return strings.HasPrefix(first, "_INBOX") && rest != "" && !strings.HasPrefix(rest, acksToken+".")
}

// errNoInbox is said of a request that cannot be answered.
func errNoInbox(reply string) error {
	return fmt.Errorf("reply subject %q is no inbox: want one that begins with _INBOX", reply)
}
