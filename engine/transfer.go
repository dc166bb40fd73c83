package engine

import (
	"strconv"
	"strings"

	"github.com/callstate/callstate/events"
)

// transferConfirmed is the switch's word for an attended transfer that went well.
const transferConfirmed = "confirmed"

// transferSeen records the outcome of a transfer where a leg shows one.
func (k *correlator) transferSeen(l *leg, o *LegObservation) {
	if o.TransferResult != "" && l.call != nil {
		k.attended(l, o.TransferResult)
	}
	if before := l.more().stamp; o.TransferStamp != "" && o.TransferStamp != before {
		l.remember().stamp = o.TransferStamp
		if before != "" || !k.transferredBefore(l, o.TransferStamp) {
			k.blind(l, o)
		}
	}
}

// transferredBefore reports whether a leg that this process found in the log was
// transferred while the process before heard of it: that one recorded it, if it was
// anybody's, and who is bridged with the leg by now need not have been then.
func (k *correlator) transferredBefore(l *leg, stamp string) bool {
	c := k.cores[switchOf(&k.in.Source)]
	sec, err := secondOf(stamp)
	return l.since < k.began && c != nil && err == nil && sec <= int64(c.takenUp)/1e6
}

// secondOf reads when a transfer was made, which its stamp begins with.
func secondOf(stamp string) (int64, error) {
	s, _, _ := strings.Cut(stamp, ":")
	return strconv.ParseInt(s, 10, 64)
}

// attended records a consultation transfer. Either of the two own legs may show
// the result first (quirk Q3); it is the main call that was transferred.
func (k *correlator) attended(l *leg, result string) {
	primary, consult := l.call, (*callRef)(nil)
	parent := l.call.more().parent
	if p := k.call(events.CallKey{Account: l.call.agent.name, Call: parent}); parent != "" && p != nil {
		primary, consult = p, l.call
	} else {
		consult = k.consultOf(primary)
	}
	if primary.more().transferred == result || primary.more().transferred == transferConfirmed {
		return
	}
	p := &events.CallTransferred{Kind: events.AttendedTransfer, Result: result}
	if consult != nil {
		p.Consult, p.Target = consult.id, remoteNumber(consult)
		if w := consult.primaryLeg(); w != nil {
			p.TargetLeg = w.partner
			if p.TargetLeg == "" {
				p.TargetLeg = w.more().last
			}
		}
	}
	if w := primary.primaryLeg(); w != nil {
		k.emitCall(w, p)
	}
}

// consultOf is the account's consultation for c: one that names it, else any
// other outgoing call that names none.
func (k *correlator) consultOf(c *callRef) *callRef {
	var other *callRef
	for _, x := range c.agent.calls {
		switch {
		case x == c:
		case x.more().parent == c.id:
			return x
		case x.more().parent == "" && !x.inbound:
			other = x
		}
	}
	return other
}

// remoteNumber is the number of the party that is not the account.
func remoteNumber(c *callRef) string {
	if !c.inbound {
		return c.parties.CalledNumber
	}
	return c.parties.CallerNumber
}

// blind records that a leg was sent to another destination while an account's
// leg was bridged with it: that account is the transferor. A leg that nobody was
// bridged with was routed (FreeSWITCH routes a click-to-call's own leg so), and a
// parked one was fetched.
func (k *correlator) blind(l *leg, o *LegObservation) {
	// A click-to-call's own leg is sent to its destination in the same way.
	if o.TransferTarget == "" || l.more().parked || o.TransferTarget == o.OriginateNumber {
		return
	}
	partner := l.partner
	if partner == "" || l.more().last != "" && o.Kind == LegBridged {
		partner = l.more().last
	}
	by := k.legs[partner]
	if by == nil || by.call == nil || by.call.more().transferred == transferConfirmed || endedBefore(by, o.TransferStamp) {
		return
	}
	k.emitCall(by, &events.CallTransferred{
		Kind: events.BlindTransfer, Result: transferConfirmed, Target: o.TransferTarget,
	})
}

// endedBefore reports whether the leg had ended before the second in which the
// transfer was made.
func endedBefore(l *leg, stamp string) bool {
	sec, err := secondOf(stamp)
	return err == nil && l.ended && l.more().endedAt != 0 && int64(l.more().endedAt)/1e6 < sec
}
