package bench

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/callstate/callstate/events"
)

// latency is P6: from the write of a frame to the subscriber's callback, at 1,000
// frames a second. The peer is a one-Put transaction of bbolt on the same disk, in
// turn with it.
func (b *Bench) latency(ctx context.Context) ([]Row, error) {
	p, err := b.newPath(ctx, DaemonOptions{})
	if err != nil {
		return nil, err
	}
	defer p.close()
	peer, donePeer, err := b.plainIn()
	if err != nil {
		return nil, err
	}
	defer donePeer()
	load, err := mixed()
	if err != nil {
		return nil, err
	}
	var half, tail []pair
	var pacedHalf, pacedTail, natsHalf, natsTail []float64
	for range pick(b, 2, 7) {
		ours, err := p.paced(ctx, pick(b, 4, 40), time.Millisecond)
		if err != nil {
			return nil, err
		}
		theirs, err := commits(peer, load, pick(b, 300, 2000), 0)
		if err != nil {
			return nil, err
		}
		alone, err := commits(peer, load, pick(b, 200, 2000), betweenCommits)
		if err != nil {
			return nil, err
		}
		message, err := p.throughNATS(ctx, pick(b, 200, 2000), betweenCommits)
		if err != nil {
			return nil, err
		}
		pacedHalf = append(pacedHalf, micros(quantile(alone, 0.5)))
		pacedTail = append(pacedTail, micros(quantile(alone, 0.99)))
		natsHalf = append(natsHalf, micros(quantile(message, 0.5)))
		natsTail = append(natsTail, micros(quantile(message, 0.99)))
		add := func(to *[]pair, q float64) {
			v, r := micros(quantile(ours, q)), micros(quantile(theirs, q))
			*to = append(*to, pair{v, r, v / r})
		}
		add(&half, 0.5)
		add(&tail, 0.99)
	}
	note := func(commit, message []float64) string {
		slices.Sort(commit)
		slices.Sort(message)
		return fmt.Sprintf("of that alone, begun every %v as by the frames: the transaction %.0f us, a message through NATS to a subscriber %.0f us",
			betweenCommits, commit[len(commit)/2], message[len(message)/2])
	}
	return append(
		median(half).row("P6a", "frame to subscriber at 1,000 frames/s, p50 / one-Put bbolt transaction p50", "us", 2, true, note(pacedHalf, natsHalf)),
		median(tail).row("P6b", "frame to subscriber at 1,000 frames/s, p99 / one-Put bbolt transaction p99", "us", 2, true, note(pacedTail, natsTail))...,
	), nil
}

// betweenCommits is the mean time between the batches of a path that gets 1,000
// frames a second.
const betweenCommits = 2 * time.Millisecond

// commits are the sorted times of one-Put transactions, with a pause before each.
func commits(peer *plain, load *eventLoad, n int, pause time.Duration) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	for i := range took {
		ev, err := load.next()
		if err != nil {
			return nil, err
		}
		rec, err := events.AppendBinary(nil, &ev)
		if err != nil {
			return nil, err
		}
		time.Sleep(pause)
		began := time.Now()
		if err := peer.put(rec); err != nil {
			return nil, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took, nil
}

// throughNATS are the sorted times of messages to a subscriber of the daemon's
// server, with a pause before each. No stream has their subject.
func (p *path) throughNATS(ctx context.Context, n int, pause time.Duration) ([]time.Duration, error) {
	nc, err := nats.Connect(p.daemon.NATS)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	came := make(chan time.Time, 1)
	sub, err := p.nc.Subscribe("bench.message", func(*nats.Msg) { came <- time.Now() })
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection goes soon
	if err := p.nc.Flush(); err != nil {
		return nil, err
	}
	message := make([]byte, 1500) // as a CTI event with its headers
	took := make([]time.Duration, n)
	for i := range took {
		time.Sleep(pause)
		began := time.Now()
		if err := nc.Publish("bench.message", message); err != nil {
			return nil, err
		}
		select {
		case t := <-came:
			took[i] = t.Sub(began)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	slices.Sort(took)
	return took, nil
}

// fewCalls are under way at a time when frames are paced.
const fewCalls = 20

// paced sends a load with a frame an interval and returns the sorted times from
// the write of a frame to the arrival of each message that follows from it.
func (p *path) paced(ctx context.Context, megabytes int, interval time.Duration) ([]time.Duration, error) {
	load, messages, err := p.render(megabytes, fewCalls)
	if err != nil {
		return nil, err
	}
	// Messages come in the order of what they follow from, so that the number of a
	// message tells its frame.
	var cause []int
	for frame, n := range messages {
		for range n {
			cause = append(cause, frame)
		}
	}
	p.quiet()
	sent := make([]atomic.Int64, load.Len())
	took := make([]time.Duration, len(cause))
	before := p.received.Load()
	start := time.Now()
	p.onMsg = func(n int64) {
		if i := n - before - 1; i < int64(len(took)) {
			took[i] = time.Since(start) - time.Duration(sent[cause[i]].Load())
		}
	}
	p.want.Store(before + int64(len(cause)))
	err = p.pbx.Send(watcher, load, 0, load.Len(), func(i int) {
		if wait := time.Until(start.Add(time.Duration(i) * interval)); wait > 0 {
			time.Sleep(wait)
		}
		sent[i].Store(int64(time.Since(start)))
	})
	if err != nil {
		return nil, err
	}
	if _, err := p.wait(ctx); err != nil {
		return nil, err
	}
	p.onMsg = nil
	slices.Sort(took)
	return took, nil
}
