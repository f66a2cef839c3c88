package policy

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// ByteSize is a number of bytes.
type ByteSize int64

// Binary and decimal units of ByteSize.
const (
	KiB ByteSize = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

var sizeUnits = []struct {
	name string
	size ByteSize
}{
	{"KiB", KiB},
	{"MiB", MiB},
	{"GiB", GiB},
	{"TiB", TiB},
	{"kB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// String returns the size in the largest binary unit that divides it.
func (b ByteSize) String() string {
	for _, u := range []struct {
		name string
		size ByteSize
	}{{"TiB", TiB}, {"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}} {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// ParseByteSize reads a whole number with one of the units B, KiB, MiB, GiB, TiB,
// kB, MB, GB, TB, or with none for bytes.
func ParseByteSize(s string) (ByteSize, error) {
	number, factor := s, ByteSize(1)
	for _, u := range sizeUnits {
		if cut, ok := strings.CutSuffix(s, u.name); ok {
			number, factor = cut, u.size
			break
		}
	}
	n, err := parseDigits(number)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size: write a whole number and B, KiB, MiB, GiB or TiB", s)
	}
	if n > math.MaxInt64/int64(factor) {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return ByteSize(n) * factor, nil
}

var errDigits = errors.New("not a whole number")

// parseDigits reads an unsigned decimal number without sign, underscore or leading zero.
func parseDigits(s string) (int64, error) {
	if s == "" || len(s) > 1 && s[0] == '0' {
		return 0, errDigits
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, errDigits
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errDigits
	}
	return n, nil
}

var rateUnits = map[string]float64{"s": 1, "m": 60, "h": 3600}

// maxRate keeps rate arithmetic far from overflow.
const maxRate = 1e12

// parseRate reads "500/s", "30/m" or, for bytes, "5MiB/s", and returns the amount
// per second. Units of time: s, m, h.
func parseRate(s string, bytes bool) (float64, error) {
	example := "500/s"
	if bytes {
		example = "5MiB/s"
	}
	bad := func() (float64, error) {
		return 0, fmt.Errorf("%q is not a rate: write it as %s, per s, m or h", s, example)
	}
	amount, unit, ok := strings.Cut(s, "/")
	per := rateUnits[unit]
	if !ok || per == 0 {
		return bad()
	}
	var n int64
	if bytes {
		size, err := ParseByteSize(amount)
		if err != nil {
			return bad()
		}
		n = int64(size)
	} else {
		var err error
		if n, err = parseDigits(amount); err != nil {
			return bad()
		}
	}
	rate := float64(n) / per
	if rate == 0 {
		return 0, fmt.Errorf("%q is no rate: leave the key out for no limit", s)
	}
	if rate > maxRate {
		return 0, fmt.Errorf("%q is too high", s)
	}
	return rate, nil
}

var durationUnits = map[string]time.Duration{
	"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour,
	"d": 24 * time.Hour, "w": 7 * 24 * time.Hour,
}

// maxDuration is about ten years: more is a mistake.
const maxDuration = 3660 * 24 * time.Hour

// parseDuration reads whole numbers with the units w, d, h, m, s, ms, largest
// first: "30d", "1h30m". Days are 24 hours.
func parseDuration(s string) (time.Duration, error) {
	bad := func() (time.Duration, error) {
		return 0, fmt.Errorf("%q is not a duration: write it as 30d, 12h, 3m, 90s or 1h30m", s)
	}
	var total time.Duration
	last := time.Duration(math.MaxInt64)
	if s == "" {
		return bad()
	}
	for rest := s; rest != ""; {
		digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
		if digits <= 0 {
			return bad()
		}
		n, err := parseDigits(rest[:digits])
		rest = rest[digits:]
		end := strings.IndexAny(rest, "0123456789")
		if end < 0 {
			end = len(rest)
		}
		unit := durationUnits[rest[:end]]
		rest = rest[end:]
		if err != nil || unit == 0 || unit >= last {
			return bad()
		}
		last = unit
		if n > int64(maxDuration/unit) {
			return 0, fmt.Errorf("%q is too long: at most %d days", s, maxDuration/(24*time.Hour))
		}
		if total += time.Duration(n) * unit; total > maxDuration {
			return 0, fmt.Errorf("%q is too long: at most %d days", s, maxDuration/(24*time.Hour))
		}
	}
	return total, nil
}
