package signing

import (
	"math/rand/v2"
	"testing"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// TestShortenIsLossless: whatever an attested event says, Restore gives back what
// Shorten took; and an event without an attestation is never completed.
func TestShortenIsLossless(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	one := func(values ...string) []byte { return []byte(values[r.IntN(len(values))]) }
	shorter := 0
	for range 2000 {
		e := plainEvent(0)
		e.ContentType = one(wire.DefaultContentType, "application/json", "Application/octet-stream")
		e.Time = one("2026-11-22T07:30:01Z", "2026-11-22T07:30:01.0Z", "2026-11-22T08:30:01+01:00", "")
		e.SetExt(nameAuthType, one(wire.DefaultAuthType, "user"))
		e.SetExt(nameRecordedTime, one("2026-11-22T07:30:01Z", "2026-11-22T07:30:02Z"))
		e.SetExt([]byte(wire.AttrAttestation), []byte("a"))
		want := e.Clone()
		long := len(cloudevent.AppendHeaders(nil, e))
		Shorten(e)
		if len(cloudevent.AppendHeaders(nil, e)) < long {
			shorter++
		}
		Restore(e)
		if !e.Equal(want) {
			t.Fatalf("got %s, want %s", cloudevent.AppendJSON(nil, e), cloudevent.AppendJSON(nil, want))
		}
		Restore(e)
		if !e.Equal(want) {
			t.Fatal("a complete event was changed")
		}
		Shorten(e)
		e.DelExt(wire.AttrAttestation)
		bare := e.Clone()
		if Restore(e); !e.Equal(bare) {
			t.Fatal("an event without an attestation was completed")
		}
	}
	if shorter == 0 {
		t.Error("nothing was ever left out")
	}
}

// TestAttestationTextHasNoN: see textEncoding.
func TestAttestationTextHasNoN(t *testing.T) {
	for i := range 200 {
		e := plainEvent(i)
		attest(t, testSigner(t, fillBroker), testSubject, e)
		for _, c := range e.Get(wire.AttrAttestation) {
			if c == 'N' {
				t.Fatalf("%s", e.Get(wire.AttrAttestation))
			}
		}
	}
}
