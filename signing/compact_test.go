package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

func leafOf(data []byte) hash { return sha256.Sum256(append([]byte{leafPrefix}, data...)) }

func TestCompactIsStrict(t *testing.T) {
	encode := base64.RawURLEncoding.EncodeToString
	fill := func(n int) []byte { return bytes.Repeat([]byte{7}, n) }
	merkle := func(index, size byte, path int) string {
		b := append([]byte{kindMerkle}, fill(8)...)
		return encode(append(append(b, index, size), fill(path*sumBytes+64)...))
	}
	single := encode(append([]byte{kindSingle}, fill(8+64)...))
	for _, tc := range []struct {
		name, text string
		ok         bool
	}{
		{"single", single, true},
		{"merkle 0 of 2", merkle(0, 2, 1), true},
		{"merkle 31 of 32", merkle(31, 32, 5), true},
		{"merkle 4 of 5", merkle(4, 5, 1), true},
		{"merkle 16 of 17", merkle(16, 17, 1), true},
		{"empty", "", false},
		{"one byte", encode([]byte{kindSingle}), false},
		{"unknown version", encode(append([]byte{0x20}, fill(8+64)...)), false},
		{"unknown kind", encode(append([]byte{0x12}, fill(8+64)...)), false},
		{"single cut", encode(append([]byte{kindSingle}, fill(8+63)...)), false},
		{"single with trailing byte", encode(append([]byte{kindSingle}, fill(8+65)...)), false},
		{"size 0", merkle(0, 0, 0), false},
		{"size 1", merkle(0, 1, 0), false},
		{"size 33", merkle(0, 33, 5), false},
		{"size 255", merkle(0, 255, 5), false},
		{"index is size", merkle(2, 2, 1), false},
		{"index over size", merkle(200, 2, 1), false},
		{"index as two-byte varint", encode(append(append(append([]byte{kindMerkle}, fill(8)...), 0x80, 0x00, 2), fill(sumBytes+64)...)), false},
		{"path too short", merkle(0, 5, 2), false},
		{"path too long", merkle(4, 5, 3), false},
		{"merkle with trailing byte", encode(append(append(append([]byte{kindMerkle}, fill(8)...), 0, 2), fill(sumBytes+65)...)), false},
		{"padding", single + "==", false},
		{"wrong padding", single + "=", false},
		{"trailing bits", single[:len(single)-1] + "x", false},
		{"standard alphabet", strings.Replace(single, "B", "+", 1), false},
		{"line end", single[:20] + "\n" + single[20:], false},
		{"line end last", single + "\r\n", false},
		{"space", single + " ", false},
		{"too long", strings.Repeat("A", maxCompactB64+1), false},
	} {
		var raw [maxCompact]byte
		c, err := parseText([]byte(tc.text), &raw)
		if tc.ok != (err == nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ok %v", tc.name, err, tc.ok)
		}
		if err == nil && string(c.appendText(nil)) != tc.text {
			t.Errorf("%s: encodes to another text", tc.name)
		}
	}
}

// What parses encodes to the same text: an attestation has one encoding.
func FuzzAttestation(f *testing.F) {
	s := testSigner(f, fillBroker)
	for _, n := range []int{1, 2, 5, 32} {
		events := run(n)
		attest(f, s, testSubject, events...)
		f.Add(events[n-1].Get(wire.AttrAttestation))
		f.Add(events[0].Get(wire.AttrAttestation))
	}
	f.Add([]byte(strings.Repeat("A", 98)))
	f.Add([]byte("EQ=="))
	v := testVerifier(testRing(f))
	event := testEvent(0)
	f.Fuzz(func(t *testing.T, text []byte) {
		var raw [maxCompact]byte
		c, err := parseText(text, &raw)
		if err == nil && !bytes.Equal(c.appendText(nil), text) {
			t.Errorf("got %q, want %q", c.appendText(nil), text)
		}
		// No text that differs from a good one may verify an event it was not made for.
		e := event.Clone()
		e.ID = []byte("never attested")
		e.SetExt([]byte(wire.AttrAttestation), text)
		if _, err := v.Verify(e, testSubject); err == nil {
			t.Error("an event that was never attested verifies")
		}
	})
}

func FuzzDSSEMaterial(f *testing.F) {
	ring := testRing(f)
	for _, n := range []int{1, 3} {
		events := run(n)
		attest(f, testSigner(f, fillBroker), testSubject, events...)
		material, err := Expand(events[0], testSubject, ring)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(material)
	}
	event := testEvent(0)
	event.ID = []byte("never attested")
	f.Fuzz(func(t *testing.T, material string) {
		if err := VerifyDSSE(material, event, testSubject, ring); err == nil {
			t.Error("an event that was never attested verifies")
		}
	})
}
