package main

import (
	"errors"
	"testing"
	"time"

	"github.com/callstate/callstate/events"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func TestParseTime(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"2026-11-22T10:15:00Z", "2026-11-22T10:15:00.000000Z"},
		{"2026-11-22T10:15:00.123456Z", "2026-11-22T10:15:00.123456Z"},
		{"2026-11-22T10:15:00+02:00", "2026-11-22T08:15:00.000000Z"},
		{"2026-11-22T10:15:00", "2026-11-22T10:15:00.000000Z"},
		{"2026-11-22T10:15", "2026-11-22T10:15:00.000000Z"},
		{"2026-11-22 10:15:30.5", "2026-11-22T10:15:30.500000Z"},
		{"2026-11-22 10:15", "2026-11-22T10:15:00.000000Z"},
		{"2026-11-22", "2026-11-22T00:00:00.000000Z"},
		{"now", "2026-11-22T12:00:00.000000Z"},
		{"-2h", "2026-11-22T10:00:00.000000Z"},
		{"- 2h", "2026-11-22T10:00:00.000000Z"},
		{"30m ago", "2026-11-22T11:30:00.000000Z"},
		{"30mago", "2026-11-22T11:30:00.000000Z"},
		{"1h30m ago", "2026-11-22T10:30:00.000000Z"},
		{"-1d", "2026-11-21T12:00:00.000000Z"},
		{"-1w1d2h", "2026-11-14T10:00:00.000000Z"},
		{" -90s ", "2026-11-22T11:58:30.000000Z"},
		{"-0s", ""},
		{"", ""},
		{"yesterday", ""},
		{"2h", ""},
		{"-", ""},
		{"ago", ""},
		{"-2x", ""},
		{"--2h", ""},
		{"-2h ago", ""},
		{"-d", ""},
		{"-9999999w", ""},
		{"-999999d", ""},
		{"2026-13-01", ""},
		{"10:15", ""},
		{"0001-01-01T00:00:00Z", ""},
		{"1960-01-01", ""},
	} {
		got, err := parseTime(c.in, noon)
		if c.want == "" && c.in != "-0s" {
			if err == nil {
				t.Errorf("parseTime(%q) = %v, want an error", c.in, got)
			}
			continue
		}
		if c.in == "-0s" {
			continue // a length of nothing may be refused or be now
		}
		if err != nil || got.String() != c.want {
			t.Errorf("parseTime(%q) = %v, %v, want %s", c.in, got, err, c.want)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"-2h", "30m ago", "2026-11-22", "-1w2d", "now", "-9999999999h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := parseTime(s, noon); err == nil && (got <= 0 || got > 253402300800000000) {
			t.Errorf("parseTime(%q) = %d", s, got)
		}
	})
}

func TestFilterFlags(t *testing.T) {
	good := filterFlags{
		since: "-2h", until: "now", number: "067", direction: "in", outcome: "missed, Busy", cause: "16",
		minDuration: time.Second, maxDuration: time.Minute, live: true, account: "a@b", domain: "b",
	}
	f, err := good.filter(noon)
	if err != nil {
		t.Fatal(err)
	}
	if f.Since != events.At(noon.Add(-2*time.Hour)) || f.Until != events.At(noon) || f.MinMs != 1000 || f.MaxMs != 60000 {
		t.Errorf("filter = %+v", f)
	}
	for name, bad := range map[string]filterFlags{
		"since":            {since: "soon"},
		"until":            {until: "soon"},
		"since after":      {since: "now", until: "-1h"},
		"empty range":      {since: "now", until: "now"},
		"direction":        {direction: "up"},
		"outcome":          {outcome: "missed,sulked"},
		"negative":         {minDuration: -1},
		"min above max":    {minDuration: time.Hour, maxDuration: time.Second},
		"negative maximum": {maxDuration: -time.Second},
	} {
		if _, err := bad.filter(noon); !errors.Is(err, errUsage) {
			t.Errorf("%s: %v, want a usage error", name, err)
		}
	}
}
