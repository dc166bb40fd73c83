package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/callstate/callstate/adapters/verto"
	"github.com/callstate/callstate/adapters/verto/vertotest"
	"github.com/callstate/callstate/engine"
)

// atOnce is how many sessions, or pairs, are under way while many are set up. It is
// enough to keep the processors busy while events wait for the server's tick.
const atOnce = 32

// sessionFigures are what sessions cost in one run, each of them two
// PeerConnections: the client's and the server's.
type sessionFigures struct {
	perSecond  float64 // set up
	heap       float64 // bytes each
	goroutines float64 // each
	cpu        float64 // milliseconds each and second
	uneven     string  // why cpu is not what it should be
}

// endpoints are sessions, or pairs of PeerConnections, of one process.
type endpoints interface {
	// setUp sets one up; it is called from several goroutines.
	setUp(ctx context.Context, i int) error
	// packets is how many RTP packets of all have come to where they go, from the
	// side that began and from the other.
	packets() [2]uint64
	close()
}

// sessions is W1 to W4: a call of the web phone, signalling, client and server in
// this process, and two PeerConnections of pion's with the same codecs and RTCP
// reports and nothing around them.
func (b *Bench) sessions(ctx context.Context) ([]Row, error) {
	n, window := pick(b, 24, 100), pick(b, time.Second, 8*time.Second)
	kinds := [2]struct {
		name string
		open func() (endpoints, error)
	}{
		{"phones", func() (endpoints, error) { return newPhones(ctx, n) }},
		{"pairs of PeerConnections", func() (endpoints, error) { return newPairs(), nil }},
	}
	var figures [4][]pair
	var uneven string
	for round := range pick(b, 3, 5) {
		var f [2]sessionFigures
		for i := range kinds {
			k := (round + i) % len(kinds) // each goes first in its turn
			var err error
			if f[k], err = measureSessions(ctx, n, window, kinds[k].open); err != nil {
				return nil, fmt.Errorf("%s: %w", kinds[k].name, err)
			}
		}
		ours, theirs := f[0], f[1]
		uneven = cmp.Or(uneven, ours.uneven, theirs.uneven)
		for i, v := range [][2]float64{
			{ours.perSecond, theirs.perSecond},
			{ours.heap, theirs.heap},
			{ours.goroutines, theirs.goroutines},
			{ours.cpu, theirs.cpu},
		} {
			figures[i] = append(figures[i], pair{v[0], v[1], v[0] / v[1]})
		}
	}
	of := fmt.Sprintf("%d at once, a phone each", n)
	rows := median(figures[0]).row("W1", "sessions set up a second / two bare PeerConnections", "1/s", 0.33, false, of)
	rows = append(rows, median(figures[1]).row("W2", "heap a session, 50 packets a second each way / two bare PeerConnections", "B", 1.3, true, "")...)
	rows = append(rows, median(figures[2]).row("W3", "goroutines a session / two bare PeerConnections", "goroutines", 1.3, true, "")...)
	if processorTime() == 0 {
		return rows, nil // not known here
	}
	return append(rows, median(figures[3]).row("W4", "CPU a session, 50 packets a second each way / two bare PeerConnections", "ms/s", 1.2, true, uneven)...), nil
}

// tries is how often is measured again what was uneven.
const tries = 3

// measureSessions sets n up and lets them talk. Where the ends did not send each
// other what they should have, since the machine had no time for them, what they
// cost is another matter, and it is measured again.
func measureSessions(ctx context.Context, n int, window time.Duration, open func() (endpoints, error)) (f sessionFigures, err error) {
	for range tries {
		if f, err = measureOnce(ctx, n, window, open); err != nil || f.uneven == "" {
			break
		}
	}
	return f, err
}

func measureOnce(ctx context.Context, n int, window time.Duration, open func() (endpoints, error)) (sessionFigures, error) {
	e, err := open()
	if err != nil {
		return sessionFigures{}, err
	}
	defer e.close()
	heapBefore, goroutines := heap(), runtime.NumGoroutine()
	began := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error { return e.setUp(gctx, i) })
	}
	if err := g.Wait(); err != nil {
		return sessionFigures{}, err
	}
	f := sessionFigures{perSecond: float64(n) / time.Since(began).Seconds()}
	if err := pause(ctx, window/4); err != nil { // what only a beginning costs
		return f, err
	}
	runtime.GC() // the garbage of setting up
	cpu, packets, at := processorTime(), e.packets(), time.Now()
	if err := pause(ctx, window); err != nil {
		return f, err
	}
	took := time.Since(at).Seconds()
	f.cpu = float64((processorTime() - cpu).Microseconds()) / 1000 / took / float64(n)
	const wanted = 50
	for i, after := range e.packets() {
		if rate := float64(after-packets[i]) / took / float64(n); rate < 0.9*wanted || rate > 1.1*wanted {
			f.uneven = fmt.Sprintf("a side that sends %d packets a second sent %.1f: the machine was busy", wanted, rate)
		}
	}
	f.heap = float64(heap()-heapBefore) / float64(n)
	f.goroutines = float64(runtime.NumGoroutine()-goroutines) / float64(n)
	return f, nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// phones are web phones, signed in to a Verto server, that make one call each.
type phones struct {
	server  *vertotest.Server
	all     []*verto.Phone
	up      sync.Map // callID: closed when its media are up
	stop    context.CancelFunc
	running sync.WaitGroup
}

func newPhones(ctx context.Context, n int) (*phones, error) {
	users := make([]vertotest.User, n)
	for i := range users {
		number := fmt.Sprint(2001 + i)
		users[i] = vertotest.User{Login: number + "@" + domain, Password: number}
	}
	p := new(phones)
	var err error
	p.server, err = vertotest.New(vertotest.Options{
		Users: users, Domain: domain,
		Dialplan: func(*vertotest.Leg) vertotest.Route { return vertotest.Route{Bridged: true} },
		Observe: func(e vertotest.Event) {
			if e.Kind == vertotest.MediaUp {
				close(p.media(e.Leg.ID()))
			}
		},
	})
	if err != nil {
		return nil, err
	}
	ctx, p.stop = context.WithCancel(ctx)
	media, err := verto.NewMedia(netip.MustParseAddr("127.0.0.1"), nil)
	if err != nil {
		p.close()
		return nil, err
	}
	p.running.Go(func() { _ = media.Run(ctx) })
	for _, u := range users {
		phone, err := verto.NewPhone(verto.Config{ConnectionString: p.server.URL()}, verto.User{
			Login: u.Login, Password: verto.Secret(u.Password),
		}, media, discard{}, nil)
		if err != nil {
			p.close()
			return nil, err
		}
		p.all = append(p.all, phone)
		p.running.Go(func() { _ = phone.Run(ctx) })
	}
	for deadline := time.Now().Add(patience); p.server.Sockets("") < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			p.close()
			return nil, errors.New("the phones do not sign in")
		}
	}
	return p, nil
}

// discard takes what is observed and forgets it.
type discard struct{}

func (discard) Submit(context.Context, engine.Input) error { return nil }

func (p *phones) media(id string) chan struct{} {
	c, _ := p.up.LoadOrStore(id, make(chan struct{}))
	return c.(chan struct{})
}

func (p *phones) setUp(ctx context.Context, i int) error {
	id, err := p.all[i].Call(ctx, "1002")
	if err != nil {
		return err
	}
	return await(ctx, p.media(id))
}

func await(ctx context.Context, c <-chan struct{}) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c:
		return nil
	case <-timer.C:
		return errors.New("DTLS does not come up")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// packets are those that the server received, and those that it sent: on loopback
// none is lost.
func (p *phones) packets() (n [2]uint64) {
	for _, l := range p.server.Legs("") {
		c := l.Counts()
		n[0] += c.Received
		n[1] += c.Sent
	}
	return n
}

func (p *phones) close() {
	p.stop()
	p.running.Wait()
	p.server.Close()
}
