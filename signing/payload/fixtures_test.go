package payload

import (
	"bytes"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

var created = time.Date(2026, 11, 23, 7, 30, 0, 0, time.UTC)

// bound is what the events of these tests are bound to.
var bound = Bound{Principal: "shop/clinic", NATSSubject: "care.7.temperature", Source: "/shop/clinic", ID: "e-1", Type: "com.example.temperature"}

func curve(tb testing.TB, fill byte) (pair nkeys.KeyPair, seed []byte, public string) {
	tb.Helper()
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteCurve, bytes.Repeat([]byte{fill}, 32))
	if err != nil {
		tb.Fatal(err)
	}
	if pair, err = nkeys.FromCurveSeed(seed); err != nil {
		tb.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		tb.Fatal(err)
	}
	return pair, seed, public
}

func fixedKey(tb testing.TB, fill byte) *Key {
	tb.Helper()
	k, err := newKey(bytes.Repeat([]byte{fill}, keyBytes))
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func reader(tb testing.TB, fills ...byte) *Reader {
	tb.Helper()
	var seeds [][]byte
	for _, fill := range fills {
		_, seed, _ := curve(tb, fill)
		seeds = append(seeds, seed)
	}
	r, err := NewReader(seeds...)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// fixedRecord wraps the key of 0x11 bytes, from the sender 0x22, to recipients.
func fixedRecord(tb testing.TB, recipients ...byte) *Record {
	tb.Helper()
	sender, _, _ := curve(tb, 0x22)
	var to []string
	for _, fill := range recipients {
		_, _, public := curve(tb, fill)
		to = append(to, public)
	}
	nonces := bytes.NewReader(bytes.Repeat([]byte{0x33}, 24*len(to)))
	_, r, err := newEpoch(bytes.Repeat([]byte{0x11}, keyBytes), sender, nonces, bound.NATSSubject, to, created)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}
