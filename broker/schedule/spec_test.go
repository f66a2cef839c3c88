package schedule

import (
	"errors"
	"strings"
	"testing"
	"time"
)

var goodSpecs = []string{
	"@every 1s", "@every 90s", "@every 1h30m", "@every 8784h", "@every 1500000ms",
	"@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually",
	"* * * * *", "* * * * * *", "*/5 * * * *", "0 9 * * mon-fri", "0 0 12 1,15 jan-jun/2 *", "0 0 29 2 *", "30 4 1 * 0", "0-30/5 0 * 31 12 sat", "59 59 23 31 12 6", "0 0 0 */2 * 1",
}

var badSpecs = []string{
	"", " ", "@", "@every", "@every ", "@every 0s", "@every 999ms", "@every 500ms", "@every -1s", "@every +5s", "@every 1500ms", "@every 1h1ns", "@every 8785h", "@every 9999999999999h",
	"@every 1s ", "@every  1s", "@EVERY 1s", "@at 2100-01-01T00:00:00Z", "@hourly ", "@reboot", "@Hourly",
	"* * * *", "* * * * * * *", "*  * * * *", " * * * * *", "* * * * * ", "*\t* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *", "* * * * 7",
	"-1 * * * *", "+1 * * * *", "1- * * * *", "5-1 * * * *", "1-2-3 * * * *", "1/2 * * * *", "*/0 * * * *", "*/60 * * * *", "*/ * * * *", "*/1/2 * * * *", "1, * * * *", ",1 * * * *", ", * * * *", "? * * * *", "*-5 * * * *",
	"001 * * * *", "0x1 * * * *", "１ * * * *", "* * * JAN *", "* * * * Mon", "* * * mon *", "* * * * jan", "0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 0 0 0", "L * * * *", "TZ=UTC * * * * *",
	strings.Repeat("0,", 59) + "0 0 1 1 0", // 126 bytes, and too many with the second
	"0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45 * * * *",
}

func TestParseSpec(t *testing.T) {
	for _, text := range goodSpecs {
		s, err := ParseSpec(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		again, err := ParseSpec(s.String())
		if err != nil || again != s {
			t.Errorf("%q is %q, which is %+v, %v", text, s, again, err)
		}
	}
	for _, text := range badSpecs {
		if s, err := ParseSpec(text); !errors.Is(err, ErrSpec) {
			t.Errorf("%q: %q, %v", text, s, err)
		}
	}
}

func TestNext(t *testing.T) {
	from := time.Date(2026, 11, 23, 12, 30, 30, 5, time.UTC) // a Monday
	for _, tt := range []struct{ spec, want string }{
		{"* * * * * *", "2026-11-23T12:30:31Z"},
		{"30 30 12 * * *", "2026-11-24T12:30:30Z"}, // after, not at
		{"31 30 12 * * *", "2026-11-23T12:30:31Z"},
		{"* * * * *", "2026-11-23T12:31:00Z"},
		{"*/20 * * * *", "2026-11-23T12:40:00Z"},
		{"@hourly", "2026-11-23T13:00:00Z"},
		{"@daily", "2026-11-24T00:00:00Z"},
		{"@weekly", "2026-11-29T00:00:00Z"},
		{"@monthly", "2026-12-01T00:00:00Z"},
		{"@yearly", "2027-01-01T00:00:00Z"},
		{"0 9 * * mon-fri", "2026-11-24T09:00:00Z"},
		{"0 0 29 2 *", "2028-02-29T00:00:00Z"},
		{"0 0 13 * fri", "2026-11-27T00:00:00Z"}, // one of the two is enough
		{"0 0 1 * *", "2026-12-01T00:00:00Z"},
		{"0 0 */2 * mon", "2026-11-25T00:00:00Z"}, // */2 is a list and no star
		{"@every 5s", "0001-01-01T00:00:00Z"},
	} {
		s, err := ParseSpec(tt.spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Next(from).Format(time.RFC3339); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.spec, got, tt.want)
		}
	}
}

// FuzzParseSpec: what is taken is taken again as the server reads it, with the same moments,
// and never fires more than once in a second.
func FuzzParseSpec(f *testing.F) {
	for _, text := range append(goodSpecs, badSpecs...) {
		f.Add(text)
	}
	from := time.Date(2026, 2, 27, 23, 59, 59, 999, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSpec(text)
		if err != nil {
			if !errors.Is(err, ErrSpec) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		again, err := ParseSpec(s.String())
		if err != nil || again != s {
			t.Fatalf("%q is %q: %v", text, s, err)
		}
		if s.every > 0 {
			if s.every < time.Second || s.every%time.Second != 0 {
				t.Errorf("%q: every %s", text, s.every)
			}
			return
		}
		at := from
		for range 3 {
			next := s.Next(at)
			if next.IsZero() { // the 29th of February around 2100
				return
			}
			if next.Sub(at.Truncate(time.Second)) < time.Second || next.Nanosecond() != 0 || !s.on(next) || !s.has(hour, next.Hour()) || !s.has(minute, next.Minute()) || !s.has(second, next.Second()) {
				t.Fatalf("%q: %s after %s", text, next, at)
			}
			at = next
		}
	})
}
