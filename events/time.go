package events

import (
	"fmt"
	"time"
)

// Time is an instant in microseconds since 1970-01-01 UTC, the unit of
// FreeSWITCH's Event-Date-Timestamp. Zero means unknown.
type Time int64

// MaxTime is the last instant that RFC 3339 can write, the end of the year 9999.
const MaxTime Time = 253_402_300_799_999_999

// At converts a [time.Time].
func At(t time.Time) Time {
	if t.IsZero() {
		return 0
	}
	return Time(t.UnixMicro())
}

// Time returns the instant as a [time.Time] in UTC, the zero time if unknown.
func (t Time) Time() time.Time {
	if t == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(t)).UTC()
}

// Sub returns t-u in milliseconds, and 0 if either is unknown or the clock ran
// backwards between them: durations are never negative.
func (t Time) Sub(u Time) int64 {
	if t == 0 || u == 0 || t < u {
		return 0
	}
	return int64(t-u) / 1000
}

// Add returns t moved by d, or 0 if t is unknown.
func (t Time) Add(d time.Duration) Time {
	if t == 0 {
		return 0
	}
	return t + Time(d.Microseconds())
}

const timeLayout = "2006-01-02T15:04:05.000000Z"

// AppendText appends t as RFC 3339 in UTC with microseconds, nothing if unknown.
func (t Time) AppendText(b []byte) ([]byte, error) {
	if t == 0 {
		return b, nil
	}
	return t.Time().AppendFormat(b, timeLayout), nil
}

// String returns t as RFC 3339 in UTC with microseconds, "" if unknown.
func (t Time) String() string {
	b, _ := t.AppendText(nil)
	return string(b)
}

// MarshalText is the inverse of UnmarshalText.
func (t Time) MarshalText() ([]byte, error) { return t.AppendText(nil) }

// UnmarshalText reads RFC 3339; the empty text is the unknown time.
func (t *Time) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*t = 0
		return nil
	}
	tt, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("events: time %q: %w", b, err)
	}
	*t = At(tt)
	return nil
}

// TimeSource says which clock an event's OccurredAt was read from.
type TimeSource uint8

// The clocks, best first.
const (
	TimeUnknown   TimeSource = iota
	TimeOfEvent              // the switch stamped the event itself (Event-Date-Timestamp)
	TimeOfChannel            // the best of the channel's created, answered and hangup times
	TimeOfArrival            // our clock when the frame arrived
)

var timeSourceNames = [...]string{"unknown", "event", "channel", "arrival"}

func (s TimeSource) String() string {
	if int(s) < len(timeSourceNames) {
		return timeSourceNames[s]
	}
	return fmt.Sprintf("time-source-%d", uint8(s))
}

// MarshalText is the inverse of UnmarshalText.
func (s TimeSource) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a name that MarshalText wrote.
func (s *TimeSource) UnmarshalText(b []byte) error {
	for i, n := range timeSourceNames {
		if n == string(b) {
			*s = TimeSource(i)
			return nil
		}
	}
	return fmt.Errorf("events: unknown time source %q", b)
}
