package policy

import (
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"pgregory.net/rapid"
)

func TestParseByteSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want ByteSize
		ok   bool
	}{
		{"0", 0, true},
		{"5MiB", 5 * MiB, true},
		{"20GiB", 20 * GiB, true},
		{"512KiB", 512 * KiB, true},
		{"1048576", MiB, true},
		{"7B", 7, true},
		{"2kB", 2000, true},
		{"3TB", 3e12, true},
		{"8388608TiB", 0, false},
		{"", 0, false},
		{"B", 0, false},
		{"5 MiB", 0, false},
		{"5mib", 0, false},
		{"05B", 0, false},
		{"+5B", 0, false},
		{"1_000", 0, false},
		{"5M", 0, false},
	} {
		got, err := ParseByteSize(tt.in)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("ParseByteSize(%q) = %d, %v, want %d, ok %v", tt.in, got, err, tt.want, tt.ok)
		}
	}
}

func TestByteSizeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := ByteSize(rapid.Int64Min(0).Draw(t, "bytes"))
		if got, err := ParseByteSize(b.String()); got != b || err != nil {
			t.Fatalf("%s read as %d, %v", b, got, err)
		}
	})
}

func TestParseDuration(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"30d", 30 * 24 * time.Hour, true},
		{"2w", 14 * 24 * time.Hour, true},
		{"3m", 3 * time.Minute, true},
		{"1h30m", 90 * time.Minute, true},
		{"250ms", 250 * time.Millisecond, true},
		{"0s", 0, true},
		{"1d1h1m1s1ms", 25*time.Hour + time.Minute + time.Second + time.Millisecond, true},
		{"", 0, false},
		{"3", 0, false},
		{"m", 0, false},
		{"1m1h", 0, false},
		{"1h1h", 0, false},
		{"1.5h", 0, false},
		{"-1s", 0, false},
		{"1y", 0, false},
		{"3661d", 0, false},
		{"9999999999999999999d", 0, false},
		{"1 h", 0, false},
	} {
		got, err := parseDuration(tt.in)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parseDuration(%q) = %v, %v, want %v, ok %v", tt.in, got, err, tt.want, tt.ok)
		}
	}
}

func TestParseRate(t *testing.T) {
	for _, tt := range []struct {
		in    string
		bytes bool
		want  float64
		ok    bool
	}{
		{"500/s", false, 500, true},
		{"30/m", false, 0.5, true},
		{"36/h", false, 0.01, true},
		{"5MiB/s", true, 5 << 20, true},
		{"60KiB/m", true, 1024, true},
		{"5MiB/s", false, 0, false},
		{"500", false, 0, false},
		{"500/", false, 0, false},
		{"/s", false, 0, false},
		{"0/s", false, 0, false},
		{"1e3/s", false, 0, false},
		{"500/sec", false, 0, false},
	} {
		got, err := parseRate(tt.in, tt.bytes)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("parseRate(%q) = %v, %v, want %v, ok %v", tt.in, got, err, tt.want, tt.ok)
		}
	}
}

// TestUserNkey compares our check with the nkeys library on good keys, and on keys
// with one changed character.
func TestUserNkey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		prefix := rapid.SampledFrom([]nkeys.PrefixByte{
			nkeys.PrefixByteUser, nkeys.PrefixByteUser, nkeys.PrefixByteAccount, nkeys.PrefixByteServer, nkeys.PrefixByteOperator,
		}).Draw(t, "prefix")
		key, err := nkeys.Encode(prefix, seed)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "change") {
			key[rapid.IntRange(0, len(key)-1).Draw(t, "at")] = rapid.SampledFrom([]byte("ABCU234567a=.")).Draw(t, "to")
		}
		if want, got := nkeys.IsValidPublicUserKey(string(key)), checkUserNkey(string(key)) == nil; got != want {
			t.Fatalf("%s: got %v, nkeys says %v", key, got, want)
		}
	})
}
