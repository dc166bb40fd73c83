package verto

import (
	"context"
	"fmt"

	"github.com/pion/webrtc/v4"
)

// negotiation is a PeerConnection as the server's descriptions and ours see it.
type negotiation struct {
	media *Media
	pc    *webrtc.PeerConnection
}

// offer returns our offer. With restart it finds a way for the media anew (RFC
// 8445, section 9).
func (n *negotiation) offer(ctx context.Context, restart bool) (string, error) {
	d, err := n.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: restart})
	if err != nil {
		return "", fmt.Errorf("make an offer: %w", err)
	}
	return n.media.describe(ctx, n.pc, d)
}

// answer takes the server's offer and returns our answer.
func (n *negotiation) answer(ctx context.Context, offer string) (string, error) {
	if err := n.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: fromServer(offer)}); err != nil {
		return "", fmt.Errorf("read the offer: %w", err)
	}
	d, err := n.pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("make an answer: %w", err)
	}
	return n.media.describe(ctx, n.pc, d)
}

// accept takes the server's answer to our offer. A second one is ignored: FreeSWITCH
// may send the same in verto.media and in verto.answer.
func (n *negotiation) accept(answer string) error {
	if n.pc.SignalingState() == webrtc.SignalingStateStable {
		return nil
	}
	if err := n.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: fromServer(answer)}); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return nil
}
