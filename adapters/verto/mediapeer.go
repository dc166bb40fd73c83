package verto

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// mediaPeer is the PeerConnection of one medium of a call, one attempt: what audio
// and video have in common.
type mediaPeer struct {
	media   *Media
	pc      *webrtc.PeerConnection
	sends   outbound
	in      inbound
	reports *reports
	readers sync.WaitGroup

	mu     sync.Mutex // guards closed
	closed bool
}

// outbound is a track that we send.
type outbound interface {
	webrtc.TrackLocal
	paced
	outboundCounter
}

// open makes the PeerConnection, which is to send out. Whoever opens one closes it;
// with an error there is none.
func (c *mediaPeer) open(m *Media, out outbound) (*webrtc.RTPSender, error) {
	pc, err := m.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, fmt.Errorf("make a PeerConnection: %w", err)
	}
	c.media, c.pc, c.sends = m, pc, out
	c.reports = newReports(m.began, pc, out.StreamID(), &c.in, out)
	sender, err := pc.AddTrack(out)
	if err != nil {
		_ = pc.Close()
		return nil, fmt.Errorf("add the track: %w", err)
	}
	return sender, nil
}

// start sends, and gives ofOurs the RTCP about that.
func (c *mediaPeer) start(sender *webrtc.RTPSender, ofOurs func(time.Time, rtcp.Packet)) {
	c.readers.Go(func() { readRTCP(sender.Read, ofOurs) })
	c.media.pacer.add(c.sends)
	c.media.pacer.add(c.reports)
}

// receives is for a goroutine of pion that reads what comes in: close waits until it
// calls readers.Done. It is false when close has begun.
func (c *mediaPeer) receives(r *webrtc.RTPReceiver) bool {
	return c.tell(func() {
		c.readers.Add(1)
		c.readers.Go(func() { readRTCP(r.Read, c.reports.ofTheirs) })
	})
}

// tell calls fn, unless nothing is told any more.
func (c *mediaPeer) tell(fn func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		fn()
	}
	return !c.closed
}

// mute ends what is told.
func (c *mediaPeer) mute() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// close ends the connection and waits for what read from it. Nothing is told
// after it began.
func (c *mediaPeer) close() error {
	c.mute()
	c.media.pacer.remove(c.sends)
	c.media.pacer.remove(c.reports)
	err := c.pc.GracefulClose()
	c.readers.Wait()
	return err
}

// offer returns our offer. With restart it finds a way for the media anew (RFC
// 8445, section 9).
func (c *mediaPeer) offer(ctx context.Context, restart bool) (string, error) {
	d, err := c.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
	if err != nil {
		return "", fmt.Errorf("make an offer: %w", err)
	}
	return c.media.describe(ctx, c.pc, d)
}

// answer takes the server's offer and returns our answer.
func (c *mediaPeer) answer(ctx context.Context, offer string) (string, error) {
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: fromServer(offer)}); err != nil {
		return "", fmt.Errorf("read the offer: %w", err)
	}
	d, err := c.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("make an answer: %w", err)
	}
	return c.media.describe(ctx, c.pc, d)
}

// accept takes the server's answer to our offer. A second one is ignored: FreeSWITCH
// may send the same in verto.media and in verto.answer.
func (c *mediaPeer) accept(answer string) error {
	if c.pc.SignalingState() == webrtc.SignalingStateStable {
		return nil
	}
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: fromServer(answer)}); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}
