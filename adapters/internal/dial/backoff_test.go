package dial

import (
	"testing"
	"time"
)

func TestBackoff(t *testing.T) {
	for _, tt := range []struct {
		name            string
		lowest, highest time.Duration
		want            []time.Duration // ceilings
	}{
		{"doubles to the highest", time.Second, 30 * time.Second, []time.Duration{1e9, 2e9, 4e9, 8e9, 16e9, 30e9, 30e9}},
		{"lowest above highest", time.Minute, time.Second, []time.Duration{1e9, 1e9}},
		{"none", 0, 0, []time.Duration{0, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got time.Duration
			b := Backoff{Lowest: tt.lowest, Highest: tt.highest, random: func(n time.Duration) time.Duration {
				got = n
				return n / 3
			}}
			for i, want := range tt.want {
				got = 0
				if w := b.Wait(); got != want || w != want/3 {
					t.Errorf("wait %d: %s below %s, want a third of %s", i, w, got, want)
				}
			}
			b.Reset()
			if b.Wait(); got != tt.want[0] {
				t.Errorf("after reset below %s, want %s", got, tt.want[0])
			}
		})
	}
}

func TestBackoffJitterIsFull(t *testing.T) {
	b := Backoff{Lowest: time.Hour, Highest: time.Hour}
	low, high := 0, 0
	for range 200 {
		switch w := b.Wait(); {
		case w < 0 || w >= time.Hour:
			t.Fatalf("wait %s", w)
		case w < time.Hour/2:
			low++
		default:
			high++
		}
	}
	if low < 50 || high < 50 {
		t.Errorf("%d waits below the middle, %d above; want them spread", low, high)
	}
}
