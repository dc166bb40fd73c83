package verto

import (
	"context"
	"errors"
	"log/slog"
)

// peers are the PeerConnections of an attempt: one for each medium, see
// sdpvideo.go. The audio is the call's; whatever is wrong with the video, the call
// goes on without it.
type peers struct {
	audio  *peer
	video  *videoPeer // nil: the call has none, or none any more
	layout []string   // the m= lines of the first offer
	log    *slog.Logger
}

// offer returns our offer. With restart it finds a way for the media anew.
func (p *peers) offer(ctx context.Context, restart bool) (string, error) {
	audio, err := p.audio.offer(ctx, restart)
	if err != nil {
		return "", err
	}
	video := ""
	if p.video != nil {
		if video, err = p.video.offer(ctx, restart); err != nil {
			p.dropVideo(err)
		}
	}
	if p.layout == nil {
		p.layout = append(cutSections(audio).layout(), cutSections(video).layout()...)
	}
	return joinMedia(p.layout, audio, video), nil
}

// answer takes the server's offer and returns our answer. What we do not take of it
// is refused.
func (p *peers) answer(ctx context.Context, offer string) (string, error) {
	of := cutSections(offer)
	p.layout = of.layout()
	audio, err := of.audio(offer)
	if err == nil {
		audio, err = p.audio.answer(ctx, audio)
	}
	if err != nil {
		return "", err
	}
	if p.video == nil {
		return joinMedia(p.layout, audio, ""), nil
	}
	offered := of.only(mediumVideo)
	video, err := p.video.answer(ctx, offered)
	if err == nil && !offersVideo(video) {
		err = errNoVideoCodec
	}
	if err != nil {
		p.dropVideo(err)
		return joinMedia(p.layout, audio, ""), nil
	}
	p.video.wanted = takesMedia(offered)
	return joinMedia(p.layout, audio, video), nil
}

// errVideoRefused is why there is no video in a call that we placed with it.
var errVideoRefused = errors.New("verto: the server refuses the video")

// accept takes the server's answer to our offer.
func (p *peers) accept(answer string) error {
	of := cutSections(answer)
	audio, err := of.audio(answer)
	if err == nil {
		err = p.audio.accept(audio)
	}
	if err != nil || p.video == nil {
		return err
	}
	video, err := of.only(mediumVideo), errVideoRefused
	if video != "" {
		err = p.video.accept(video)
	}
	if err != nil {
		p.dropVideo(err)
		return nil
	}
	p.video.wanted = takesMedia(video)
	return nil
}

// sendsVideo reports whether the server takes our video and there is a transport.
func (p *peers) sendsVideo() bool {
	return p != nil && p.video != nil && p.video.wanted && !p.video.failed.Load()
}

// dropVideo goes on without video.
func (p *peers) dropVideo(why error) {
	p.log.Info("the call goes on without video", "err", why)
	if err := p.video.close(); err != nil {
		p.log.Warn("close the PeerConnection of the video", "err", err)
	}
	p.video = nil
}

// mute ends what is told.
func (p *peers) mute() {
	p.audio.mute()
	if p.video != nil {
		p.video.mute()
	}
}

// close ends the connections and waits for what read from them. Nothing is told
// after it began.
func (p *peers) close() error {
	p.mute()
	var err error
	if p.video != nil {
		err = p.video.close()
	}
	return errors.Join(p.audio.close(), err)
}
