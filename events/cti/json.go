package cti

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/callstate/callstate/events"
)

// AppendEvent appends e as JSON to b and returns the longer slice. It writes
// what encoding/json writes with SetEscapeHTML(false), byte for byte and without
// the newline: the property test holds both to it. Nothing is reflected upon and
// nothing allocated but the growth of b. Every CTI event passes through here.
func AppendEvent(b []byte, e *Event) []byte {
	b = append(b, `{"event":`...)
	b = AppendString(b, string(e.Event))
	b = append(b, `,"position":`...)
	b = strconv.AppendUint(b, e.Position, 10)
	if e.Seq != 0 {
		b = append(b, `,"seq":`...)
		b = strconv.AppendUint(b, e.Seq, 10)
	}
	b = append(b, `,"lineSeq":`...)
	b = strconv.AppendUint(b, e.LineSeq, 10)
	b = appendTime(b, `,"time":`, e.Time)
	b = append(b, `,"domain":`...)
	b = AppendString(b, e.Domain)
	b = append(b, `,"account":`...)
	b = AppendString(b, e.Account)
	b = appendOptional(b, `,"callId":`, e.CallID)
	b = appendOptional(b, `,"conversation":`, e.Conversation)
	if e.Call != nil {
		b = append(b, `,"call":`...)
		b = AppendCall(b, e.Call)
	}
	if e.Line != nil {
		b = append(b, `,"line":`...)
		b = AppendLine(b, e.Line)
	}
	b = appendArguments(b, &e.Arguments)
	return append(b, '}')
}

func appendArguments(b []byte, a *Arguments) []byte {
	b = appendOptional(b, `,"digits":`, a.Digits)
	b = appendOptional(b, `,"userState":`, a.UserState)
	b = appendOptional(b, `,"userStateNote":`, a.UserNote)
	b = appendOptional(b, `,"reason":`, a.Reason)
	if a.CallFeaturesSet != nil {
		b = append(b, `,"callFeaturesSet":`...)
		b = strconv.AppendInt(b, int64(*a.CallFeaturesSet), 10)
	}
	b = appendOptional(b, `,"featuresCallId":`, a.FeaturesCallID)
	b = appendOptional(b, `,"alias":`, a.Alias)
	b = appendOptional(b, `,"aliasReason":`, a.AliasReason)
	b = appendTransfer(b, a.Transfer)
	b = appendOptional(b, `,"sessionId":`, a.SessionID)
	return appendQuality(b, a.Quality)
}

// AppendCall appends c as JSON to b, in the same way as [AppendEvent].
func AppendCall(b []byte, c *Call) []byte {
	b = append(b, `{"id":`...)
	b = AppendString(b, c.ID)
	b = append(b, `,"aliases":`...)
	b = appendStrings(b, c.Aliases)
	b = append(b, `,"state":`...)
	b = strconv.AppendInt(b, int64(c.State), 10)
	b = append(b, `,"stateName":`...)
	b = AppendString(b, c.StateName)
	b = append(b, `,"oldState":`...)
	b = strconv.AppendInt(b, int64(c.OldState), 10)
	b = append(b, `,"direction":`...)
	b = AppendString(b, string(c.Direction))
	b = append(b, `,"callback":`...)
	b = strconv.AppendBool(b, c.Callback)
	b = append(b, `,"callerId":`...)
	b = AppendString(b, c.CallerID)
	b = appendOptional(b, `,"callerName":`, c.CallerName)
	b = append(b, `,"calledId":`...)
	b = AppendString(b, c.CalledID)
	b = appendOptional(b, `,"calledName":`, c.CalledName)
	b = append(b, `,"callFeaturesSet":`...)
	b = strconv.AppendInt(b, int64(c.CallFeaturesSet), 10)
	b = append(b, `,"features":`...)
	b = appendStrings(b, c.Features)
	b = append(b, `,"redirectingId":`...)
	b = AppendString(b, c.RedirectingID)
	b = append(b, `,"redirectionId":`...)
	b = AppendString(b, c.RedirectionID)
	b = append(b, `,"deviceId":`...)
	b = AppendString(b, c.DeviceID)
	b = append(b, `,"otherLegUUID":`...)
	b = AppendString(b, c.OtherLegUUID)
	b = appendOptional(b, `,"parentCallId":`, c.ParentCallID)
	b = appendOptional(b, `,"queue":`, c.Queue)
	b = appendOptional(b, `,"data":`, c.Data)
	b = append(b, `,"cause":`...)
	b = AppendString(b, c.Cause)
	b = append(b, `,"causeCode":`...)
	b = strconv.AppendInt(b, int64(c.CauseCode), 10)
	b = appendOptional(b, `,"hungupBy":`, c.HungupBy)
	b = appendOptional(b, `,"outcome":`, string(c.Outcome))
	b = appendTime(b, `,"startedAt":`, c.StartedAt)
	b = appendTime(b, `,"agentAnsweredAt":`, c.AgentAnsweredAt)
	b = appendTime(b, `,"answeredAt":`, c.AnsweredAt)
	b = appendTime(b, `,"bridgedAt":`, c.BridgedAt)
	b = appendTime(b, `,"endedAt":`, c.EndedAt)
	b = append(b, `,"ringMs":`...)
	b = strconv.AppendInt(b, c.RingMs, 10)
	b = append(b, `,"talkMs":`...)
	b = strconv.AppendInt(b, c.TalkMs, 10)
	b = append(b, `,"holdMs":`...)
	b = strconv.AppendInt(b, c.HoldMs, 10)
	b = appendTransfer(b, c.Transfer)
	b = appendOptional(b, `,"recording":`, c.Recording)
	b = appendTrue(b, `,"recorded":true`, c.Recorded)
	b = appendOptional(b, `,"conference":`, c.Conference)
	b = appendTrue(b, `,"parked":true`, c.Parked)
	b = appendWebRTC(b, c.WebRTC)
	b = appendOptional(b, `,"digits":`, c.Digits)
	b = append(b, `,"legs":`...)
	b = appendLegs(b, c.Legs)
	b = append(b, `,"origin":`...)
	b = AppendString(b, c.Origin.String())
	b = appendOptional(b, `,"inferred":`, c.Inferred)
	for i, g := range c.Gaps {
		if i == 0 {
			b = append(b, `,"gaps":[`...)
		} else {
			b = append(b, ',')
		}
		b = appendGap(b, g)
		if i == len(c.Gaps)-1 {
			b = append(b, ']')
		}
	}
	return append(b, '}')
}

func appendGap(b []byte, g Gap) []byte {
	b = append(b, `{"from":`...)
	b = AppendString(b, g.From.String())
	b = append(b, `,"to":`...)
	b = AppendString(b, g.To.String())
	b = append(b, `,"reason":`...)
	b = AppendString(b, g.Reason)
	return append(b, '}')
}

func appendWebRTC(b []byte, w *WebRTC) []byte {
	if w == nil {
		return b
	}
	b = append(b, `,"webRtc":{"session":`...)
	b = AppendString(b, w.Session)
	b = append(b, `,"transport":`...)
	b = AppendString(b, w.Transport)
	b = append(b, `,"inferred":`...)
	b = strconv.AppendBool(b, w.Inferred)
	b = appendTrue(b, `,"ended":true`, w.Ended)
	b = appendOptional(b, `,"state":`, w.State)
	b = appendOptional(b, `,"ice":`, w.ICE)
	b = appendOptional(b, `,"dtls":`, w.DTLS)
	if w.Attempt != 0 {
		b = append(b, `,"attempt":`...)
		b = strconv.AppendInt(b, int64(w.Attempt), 10)
	}
	b = appendTrue(b, `,"video":true`, w.Video)
	b = appendQuality(b, w.Quality)
	b = appendOptional(b, `,"cause":`, w.Cause)
	b = appendOptional(b, `,"reason":`, w.Reason)
	return append(b, '}')
}

func appendQuality(b []byte, q *Quality) []byte {
	if q == nil {
		return b
	}
	b = append(b, `,"quality":{`...)
	if q.Codec != "" {
		b = append(b, `"codec":`...)
		b = append(AppendString(b, q.Codec), ',')
	}
	b = append(b, `"packetsReceived":`...)
	b = strconv.AppendInt(b, q.PacketsReceived, 10)
	b = append(b, `,"packetsSent":`...)
	b = strconv.AppendInt(b, q.PacketsSent, 10)
	b = append(b, `,"packetsLost":`...)
	b = strconv.AppendInt(b, q.PacketsLost, 10)
	b = append(b, `,"jitterMs":`...)
	b = appendFloat(b, q.JitterMs)
	b = append(b, `,"roundTripMs":`...)
	b = appendFloat(b, q.RoundTripMs)
	b = append(b, `,"mos":`...)
	b = appendFloat(b, q.MOS)
	return append(b, '}')
}

// appendFloat appends f as encoding/json writes it; f is finite.
func appendFloat(b []byte, f float64) []byte {
	if abs := math.Abs(f); abs == 0 || abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	if n := len(b); n >= 4 && b[n-4] == 'e' && (b[n-3] == '-' || b[n-3] == '+') && b[n-2] == '0' { // e-09 is e-9 there
		b[n-2] = b[n-1]
		b = b[:n-1]
	}
	return b
}

func appendLegs(b []byte, legs []Leg) []byte {
	if legs == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i := range legs {
		l := &legs[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"id":`...)
		b = AppendString(b, l.ID)
		b = appendOptional(b, `,"partner":`, l.Partner)
		b = appendTrue(b, `,"primary":true`, l.Primary)
		b = appendTrue(b, `,"answered":true`, l.Answered)
		b = appendTrue(b, `,"held":true`, l.Held)
		b = appendTrue(b, `,"ended":true`, l.Ended)
		b = appendOptional(b, `,"cause":`, l.Cause)
		b = append(b, '}')
	}
	return append(b, ']')
}

// AppendLine appends l as JSON to b, in the same way as [AppendEvent].
func AppendLine(b []byte, l *Line) []byte {
	b = append(b, `{"connected":`...)
	b = strconv.AppendBool(b, l.Connected)
	b = append(b, `,"callFeaturesSet":`...)
	b = strconv.AppendInt(b, int64(l.CallFeaturesSet), 10)
	b = append(b, `,"features":`...)
	b = appendStrings(b, l.Features)
	b = appendOptional(b, `,"activeCall":`, l.ActiveCall)
	b = appendOptional(b, `,"secondCall":`, l.SecondCall)
	b = appendTrue(b, `,"consulting":true`, l.Consulting)
	if len(l.Waiting) > 0 {
		b = append(b, `,"waiting":`...)
		b = appendStrings(b, l.Waiting)
	}
	b = appendOptional(b, `,"agentState":`, l.AgentState)
	b = appendOptional(b, `,"agentStateNote":`, l.AgentNote)
	b = append(b, `,"online":`...)
	b = strconv.AppendBool(b, l.Online)
	b = appendTrue(b, `,"webPhone":true`, l.WebPhone)
	return append(b, '}')
}

func appendTransfer(b []byte, t *Transfer) []byte {
	if t == nil {
		return b
	}
	b = append(b, `,"transfer":{"kind":`...)
	b = AppendString(b, t.Kind)
	b = append(b, `,"result":`...)
	b = AppendString(b, t.Result)
	b = appendOptional(b, `,"target":`, t.Target)
	return append(b, '}')
}

// appendOptional appends key and s, nothing where s is empty (omitempty). key is
// the member's name with its comma, quotes and colon.
func appendOptional(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return AppendString(append(b, key...), s)
}

func appendTrue(b []byte, member string, v bool) []byte {
	if !v {
		return b
	}
	return append(b, member...)
}

func appendTime(b []byte, key string, t events.Time) []byte {
	if t == 0 {
		return b
	}
	b = append(b, key...)
	b = append(b, '"')
	b, _ = t.AppendText(b) // never an error; digits and punctuation that need no escape
	return append(b, '"')
}

func appendStrings(b []byte, ss []string) []byte {
	if ss == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, s := range ss {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, s)
	}
	return append(b, ']')
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD; U+2028 and U+2029 are escaped, since JavaScript once took them for line
// ends and encoding/json still says so.
func AppendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, '\\', 'b')
			case '\f':
				b = append(b, '\\', 'f')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(b, s[start:i]...)
			b = append(b, `\ufffd`...)
			start = i + n
		case r == '\u2028' || r == '\u2029':
			b = append(b, s[start:i]...)
			b = append(b, `\u202`...)
			b = append(b, hex[r&15])
			start = i + n
		}
		i += n
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
