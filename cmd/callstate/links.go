package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events"
	"github.com/callstate/callstate/events/cti"
)

// links are the connections to the PBXs, each supervised on its own. They carry
// requests and the policies' commands to the PBX of the account.
type links struct {
	clients []*webitel.Client
	resyncs []*webitel.Resync // each of the client at the same place
	logger  *slog.Logger

	account map[string]*webitel.Client // by login: agents' own connections
	domain  map[string]*webitel.Client // by domain: those of technical accounts
}

// open makes the links of a checked configuration. It is called before any of
// the other methods.
func (l *links) open(cfg *config, e *engine.Engine, logger *slog.Logger) {
	l.logger = logger
	l.account, l.domain = map[string]*webitel.Client{}, map[string]*webitel.Client{}
	for _, w := range cfg.Webitel {
		for _, u := range w.Users {
			own := w.Mode == webitel.ModeAccount
			if !own && u.UseWebPhone {
				continue // an agent's, whom the technical account sees
			}
			if !own && l.domain[u.Domain()] != nil {
				logger.Warn("a second technical account for the same domain is not needed and not used", "login", u.Login)
				continue
			}
			log := logger
			if w.Name != "" {
				log = log.With("pbx", w.Name)
			}
			c := webitel.NewClient(w, u, "", e, log)
			l.clients = append(l.clients, c)
			l.resyncs = append(l.resyncs, webitel.NewResync(c, e, time.Duration(cfg.ResyncInterval), log.With("login", u.Login)))
			if own {
				l.account[u.Login] = c
			} else {
				l.domain[u.Domain()] = c
			}
		}
	}
}

// run works until ctx ends. A link that its PBX refuses stays refused and stops
// no other; run returns an error when all are.
func (l *links) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	var mu sync.Mutex
	var refused []error
	for i, c := range l.clients {
		g.Go(func() error {
			err := c.Run(ctx)
			if err == nil || errors.Is(err, engine.ErrStopped) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			if refused = append(refused, err); len(refused) == len(l.clients) {
				return errors.Join(refused...)
			}
			l.logger.Error("link refused, the others go on; it is not tried again before a restart", "err", err)
			return nil
		})
		g.Go(func() error { return l.resyncs[i].Run(ctx) })
	}
	return g.Wait()
}

// status says how each link is, in the order of the configuration.
func (l *links) status() []natsbus.LinkStatus {
	out := make([]natsbus.LinkStatus, len(l.clients))
	for i, c := range l.clients {
		s := c.Status()
		compared, unanswered, why := l.resyncs[i].Compared()
		out[i] = natsbus.LinkStatus{
			Adapter: "webitel", PBX: s.PBX, Login: s.Login, Domain: s.Domain, Mode: string(s.Mode),
			Connected: s.Connected, Refused: s.Refused, Since: at(s.Since), Reason: s.Reason,
			ComparedAt: at(compared), UnansweredSince: at(unanswered),
		}
		if s.Connected {
			out[i].Reason = why
		}
	}
	return out
}

// connections says how links and web phones are.
func connections(l *links, p *phones) []natsbus.LinkStatus { return append(l.status(), p.status()...) }

// at is the zero Time for the zero time.
func at(t time.Time) events.Time {
	if t.IsZero() {
		return 0
	}
	return events.At(t)
}

// client returns the link that carries a command: the account's own, or where
// that is not connected its domain's, but for what is about the account's own
// connection.
func (l *links) client(cmd *engine.Command) (*webitel.Client, error) {
	_, domain := cti.SplitAccount(cmd.Account)
	own, shared := l.account[cmd.Account], l.domain[domain]
	switch {
	case own != nil && (shared == nil || own.Connected() || cmd.Action.OwnConnection()):
		return own, nil
	case shared != nil:
		return shared, nil
	}
	return nil, &engine.RequestError{Result: engine.VerdictNotConnected, Text: "no link is configured for the account"}
}

// Check implements engine.Commander.
func (l *links) Check(cmd engine.Command) error {
	client, err := l.client(&cmd)
	if err != nil {
		return err
	}
	return client.Check(cmd)
}

// Command implements engine.Commander.
func (l *links) Command(ctx context.Context, cmd engine.Command) (string, error) {
	client, err := l.client(&cmd)
	if err != nil {
		return "", err
	}
	return client.Command(ctx, cmd)
}

// namePBXs names the PBXs where there are several, and refuses what could not be
// told apart: accounts, calls and legs are known by their domain.
func namePBXs(ws []webitel.Config) error {
	pbxs := map[string]bool{}
	names := make([]string, len(ws))
	for i := range ws {
		if names[i] = ws[i].Name; names[i] == "" {
			names[i] = address(ws[i].ConnectionString)
		}
		pbxs[names[i]] = true
	}
	domains := map[string]int{}
	logins := map[string]int{}
	for i := range ws {
		for _, u := range ws[i].Users {
			if u.Login == "root" {
				return fmt.Errorf("configuration of webitel %d: root belongs to no domain: give an account of each domain, a connection each", i+1)
			}
			if j, ok := domains[u.Domain()]; ok && names[j] != names[i] {
				return fmt.Errorf("configuration of webitel %d: domain %s is that of webitel %d too: the accounts of two PBXs (%s, %s) with one domain name cannot be told apart; give both the same name if they are one PBX",
					i+1, u.Domain(), j+1, names[j], names[i])
			}
			domains[u.Domain()] = i
			if j, ok := logins[u.Login]; ok {
				return fmt.Errorf("configuration of webitel %d: %s signs in already by webitel %d: one connection an account", i+1, u.Login, j+1)
			}
			logins[u.Login] = i
		}
		if len(pbxs) > 1 {
			ws[i].Name = names[i]
		}
	}
	return nil
}

// address is the host and port of a connection string that is valid.
func address(connection string) string {
	u, err := url.Parse(connection)
	if err != nil {
		return "" // validated before
	}
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), map[string]string{"ws": "80", "wss": "443"}[u.Scheme])
}
