package verto

import (
	"errors"
	"testing"
	"time"
)

func TestDigitReader(t *testing.T) {
	type packet struct {
		ts       uint32
		event    byte
		end      bool
		duration uint16
	}
	for _, tt := range []struct {
		name    string
		packets []packet
		want    string
	}{
		{"one digit, its end three times", []packet{{1, 5, false, 160}, {1, 5, false, 320}, {1, 5, true, 800}, {1, 5, true, 800}, {1, 5, true, 800}}, "5"},
		{"the first end is lost", []packet{{1, 11, false, 160}, {1, 11, true, 800}}, "#"},
		{"all but one end are lost", []packet{{1, 10, true, 800}}, "*"},
		{"the same digit twice", []packet{{1, 1, true, 800}, {9, 1, true, 800}}, "11"},
		{"all ends are lost", []packet{{1, 1, false, 160}, {9, 2, false, 160}, {9, 2, true, 800}}, "12"},
		{"an end of the next digit straight after", []packet{{1, 1, false, 160}, {9, 2, true, 800}, {9, 2, true, 800}}, "12"},
		{"flash is no digit", []packet{{1, 16, true, 800}}, ""},
		{"letters", []packet{{1, 12, true, 1}, {2, 15, true, 1}}, "AD"},
		{"at timestamp 0", []packet{{0, 3, true, 800}, {0, 3, true, 800}}, "3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := digitReader{clockRate: 8000}
			got := ""
			for _, p := range tt.packets {
				flags := byte(10)
				if p.end {
					flags |= 0x80
				}
				if d, _, ok := r.packet(p.ts, []byte{p.event, flags, byte(p.duration >> 8), byte(p.duration)}); ok {
					got += string(d)
				}
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
	r := digitReader{clockRate: 48000}
	if _, d, ok := r.packet(1, []byte{1, 0x80, 0x12, 0xC0}); !ok || d != 100*time.Millisecond {
		t.Errorf("4800 at 48 kHz is %s", d)
	}
	if _, _, ok := r.packet(2, []byte{1, 0x80}); ok {
		t.Error("half a packet is a digit")
	}
}

func TestCheckDigits(t *testing.T) {
	for _, good := range []string{"1", "12#", "*ABCD", "3@100+W4", "1234@200+*#", "F", "w1"} {
		if err := checkDigits(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "12x", "@100", "1@1@2", "1@x", "+", "1;2", "1\n"} {
		if err := checkDigits(bad); !errors.Is(err, ErrArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
