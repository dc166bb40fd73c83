package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/callstate/callstate/adapters/natsbus"
	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/webitel"
	"github.com/callstate/callstate/engine"
	"github.com/callstate/callstate/events/cti"
)

// phones are the web phones of all accounts that have one.
type phones struct {
	servers []*phoneServer
	sink    verto.Sink
	logger  *slog.Logger

	mu    sync.Mutex // guards what follows
	phone map[string]*verto.Phone
	ended map[string]error // of those that do not run any more, why
}

// phoneServer is a Verto server and who signs in there.
type phoneServer struct {
	pbx   string // its name in the configuration
	cfg   verto.Config
	users []verto.User
}

// phoneConfig is what the settings of a Webitel server say of its web phones.
func phoneConfig(w *webitel.Config) (verto.Config, []verto.User, error) {
	var users []verto.User
	for _, u := range w.Users {
		if u.UseWebPhone {
			users = append(users, verto.User{
				Login: u.Login, Password: u.Password,
				Answer: verto.AnswerPolicy(u.Answer), Audio: u.Audio, Video: u.Video, Record: u.Record,
			})
		}
	}
	cfg := verto.Config{ConnectionString: w.WebRTCConnectionString, Protocol: w.Protocol}
	var err error
	cfg.TLS, err = w.Config()
	return cfg, users, err
}

// webPhone says which accounts have a web phone.
func (c *config) webPhone() func(account string) bool {
	return c.accounts(func(u *webitel.User) bool { return u.UseWebPhone })
}

// phoneVideo says which of those have video.
func (c *config) phoneVideo() func(account string) bool {
	return c.accounts(func(u *webitel.User) bool { return u.UseWebPhone && u.Video != "" })
}

// accounts says which accounts are the login of such a user.
func (c *config) accounts(are func(*webitel.User) bool) func(account string) bool {
	has := map[string]bool{}
	for i := range c.Webitel {
		for j := range c.Webitel[i].Users {
			u := &c.Webitel[i].Users[j]
			has[u.Login] = has[u.Login] || are(u)
		}
	}
	return func(account string) bool { return has[account] }
}

func (c *config) validatePhones() error {
	seen := map[string]bool{}
	for i := range c.Webitel {
		cfg, users, err := phoneConfig(&c.Webitel[i])
		if len(users) == 0 {
			continue
		}
		if err := errors.Join(err, cfg.Validate()); err != nil {
			return fmt.Errorf("configuration of webitel %d: %w", i+1, err)
		}
		for _, u := range users {
			if err := u.Validate(); err != nil {
				return fmt.Errorf("configuration of webitel %d: %w", i+1, err)
			}
			if seen[u.Login] {
				return fmt.Errorf("configuration of webitel %d: %s has a web phone already", i+1, u.Login)
			}
			seen[u.Login] = true
		}
	}
	return nil
}

// open prepares the phones that are configured. Each keeps its session id in the
// data folder, so that after a restart it gets its calls back. It is called before
// any of the other methods.
func (p *phones) open(cfg *config, sink verto.Sink, logger *slog.Logger) error {
	p.sink, p.logger = sink, logger
	p.phone, p.ended = map[string]*verto.Phone{}, map[string]error{}
	for i := range cfg.Webitel {
		vc, users, err := phoneConfig(&cfg.Webitel[i])
		if err != nil {
			return err
		}
		if len(users) == 0 {
			continue
		}
		dir := filepath.Join(cfg.Data, "phones")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		for j := range users {
			id, err := verto.LoadSessID(filepath.Join(dir, url.PathEscape(users[j].Login)))
			if err != nil {
				return err
			}
			users[j].SessID = id
		}
		p.servers = append(p.servers, &phoneServer{pbx: cfg.Webitel[i].Name, cfg: vc, users: users})
	}
	return nil
}

// run keeps the phones signed in until ctx ends. One that cannot be says so and
// leaves the others alone.
func (p *phones) run(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range p.servers {
		all.Go(func() { p.serve(ctx, s) })
	}
	all.Wait()
}

// serve runs the phones of one server.
func (p *phones) serve(ctx context.Context, s *phoneServer) {
	media, err := p.media(ctx, s)
	if err != nil {
		return // ctx has ended
	}
	mediaCtx, stopMedia := context.WithCancel(context.WithoutCancel(ctx)) // the phones end their calls first
	var pacing, running sync.WaitGroup
	pacing.Go(func() { p.note("", media.Run(mediaCtx)) })
	for _, u := range s.users {
		running.Go(func() { p.note(u.Login, p.runOne(ctx, s, u, media)) })
	}
	running.Wait()
	stopMedia()
	pacing.Wait()
}

func (p *phones) runOne(ctx context.Context, s *phoneServer, u verto.User, media *verto.Media) error {
	phone, err := verto.NewPhone(s.cfg, u, media, p.sink, p.logger)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.phone[u.Login] = phone
	p.mu.Unlock()
	return phone.Run(ctx)
}

// note keeps why a phone does not run any more.
func (p *phones) note(login string, err error) {
	if err == nil || errors.Is(err, engine.ErrStopped) {
		return
	}
	p.mu.Lock()
	p.ended[login] = err
	p.mu.Unlock()
	p.logger.Error("web phone is out of service; it is not tried again before a restart", "login", login, "err", err)
}

// media waits until the way to the server is known: it decides which of the host's
// addresses the calls use.
func (p *phones) media(ctx context.Context, s *phoneServer) (*verto.Media, error) {
	for wait := time.Second; ; wait = min(2*wait, 30*time.Second) {
		local, err := verto.LocalAddress(ctx, s.cfg.ConnectionString)
		if err == nil {
			var m *verto.Media
			if m, err = verto.NewMedia(local, p.logger); err == nil {
				return m, nil
			}
		}
		if ctx.Err() != nil {
			return nil, err
		}
		p.logger.Warn("web phones wait for a way to their server", "err", err, "retry_in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// signedIn returns an account's web phone.
func (p *phones) signedIn(account string) (engine.Phone, error) {
	p.mu.Lock()
	phone := p.phone[account]
	p.mu.Unlock()
	if phone == nil || !phone.Registered() {
		return nil, &engine.RequestError{Result: engine.VerdictNotConnected, Text: "the account's web phone is not signed in"}
	}
	return phone, nil
}

// status says how each phone is, in the order of the configuration.
func (p *phones) status() []natsbus.LinkStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []natsbus.LinkStatus
	for _, s := range p.servers {
		for _, u := range s.users {
			st := natsbus.LinkStatus{Adapter: "verto", PBX: s.pbx, Login: u.Login, Mode: "phone"}
			_, st.Domain = cti.SplitAccount(u.Login)
			if phone := p.phone[u.Login]; phone != nil {
				st.Connected = phone.Registered()
			}
			if err := p.ended[u.Login]; err != nil {
				st.Refused, st.Reason = true, err.Error()
			}
			out = append(out, st)
		}
	}
	return out
}
