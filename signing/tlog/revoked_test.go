package tlog

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// An event that a node attested with a key that was revoked later: what the event says
// of its time counts for nothing, that of the log does. fillUnknown is the key that the
// node has got since.
func TestRevokedKeyIsJudgedByTheLog(t *testing.T) {
	for _, tt := range []struct {
		name    string
		revoked time.Time     // recorded at 07:30:01, logged as stored at 12:34:56
		begun   time.Duration // when the log was, after it was in truth
		by      byte          // the key that signed the checkpoint
		proof   error
		want    error
	}{
		{"not revoked", time.Time{}, 0, fillBroker, nil, nil},
		{"logged before the revocation", noon.Add(time.Hour), 0, fillUnknown, nil, nil},
		{"logged after the revocation, claims to be older", noon.Add(-time.Hour), 0, fillUnknown, nil, signing.ErrKeyNotValid},
		{"logged before it, says a log of the revoked key", noon.Add(time.Hour), 0, fillBroker, ErrKeyRevoked, nil},
		{"logged before it, says a log that was begun later", noon.Add(time.Hour), 14 * time.Hour, fillUnknown, nil, signing.ErrKeyNotValid},
		{"recorded after the revocation", day0.Add(time.Hour), 0, fillUnknown, nil, signing.ErrKeyNotValid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, all := mixedLog(t)
			l.cp.Origin.Start = l.cp.Origin.Start.Add(tt.begun)
			raw, err := l.cp.Sign(testSigner(t, tt.by))
			if err != nil {
				t.Fatal(err)
			}
			l.note = raw
			key := func(fill byte, revoked time.Time) keyring.Key {
				return keyring.Key{
					ID: testSigner(t, fill).KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker,
					Principal: "node", NotBefore: day0, NotAfter: year, RevokedAt: revoked,
				}
			}
			ring, err := keyring.New(4, day0, year, []keyring.Key{key(fillBroker, tt.revoked), key(fillUnknown, time.Time{})})
			if err != nil {
				t.Fatal(err)
			}
			p := proofOf(t, l, all, l.cp.First, l.cp.First)
			_, _, root := testRing(t)
			v, err := p.Verify(root, ring)
			if !errors.Is(err, tt.proof) {
				t.Fatalf("got %v, want %v", err, tt.proof)
			}
			if err != nil {
				return
			}
			got := &v.Leaves[0]
			if got.Kind != Event || !errors.Is(got.Unattested, tt.want) || (got.Attestation == nil) != (tt.want != nil) {
				t.Errorf("attested: %+v, %v; want %v", got.Attestation, got.Unattested, tt.want)
			}
		})
	}
}

// A checkpoint of next year is not taken, whatever key was valid then.
func TestCheckpointFromTheFuture(t *testing.T) {
	ring, _, root := testRing(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	for _, tt := range []struct {
		name string
		at   time.Time
		want error
	}{
		{"now", now, nil},
		{"a clock that is a little ahead", now.Add(MaxSkew - time.Minute), nil},
		{"a clock that is an hour ahead", now.Add(time.Hour), ErrFuture},
		{"months ahead", now.AddDate(0, 6, 0), ErrFuture},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, all := mixedLog(t)
			l.cp.Time = tt.at
			key := keyring.Key{
				ID: testSigner(t, fillBroker).KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker,
				Principal: "node", NotBefore: day0, NotAfter: now.AddDate(1, 0, 0),
			}
			var err error
			if ring, err = keyring.New(5, day0, now.AddDate(1, 0, 0), []keyring.Key{key}); err != nil {
				t.Fatal(err)
			}
			if l.note, err = l.cp.Sign(signerOf(t, nkeys.PrefixByteServer, fillBroker)); err != nil {
				t.Fatal(err)
			}
			n, err := ParseNote(l.note)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.VerifyAt(ring, now); !errors.Is(err, tt.want) {
				t.Errorf("checkpoint: got %v, want %v", err, tt.want)
			}
			if _, err := proofOf(t, l, all, l.cp.First, l.cp.First).Verify(root, ring); !errors.Is(err, tt.want) {
				t.Errorf("proof: got %v, want %v", err, tt.want)
			}
		})
	}
}
