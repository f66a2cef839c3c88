package main

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// logged is one event, attested by a node and logged, as a proof and the keyrings that
// verify it.
type logged struct {
	t        *testing.T
	old, new *signing.Signer
	root     []byte // seed
	began    time.Time
	recorded time.Time // what the event says of its time
	stored   time.Time // what the log says
	held     uint64    // version of the keyring in the proof
}

func (l *logged) signer(fill byte) *signing.Signer {
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteServer, bytes.Repeat([]byte{fill}, ed25519.SeedSize))
	if err == nil {
		var s *signing.Signer
		if s, err = signing.NewSigner(seed); err == nil {
			return s
		}
	}
	l.t.Fatal(err)
	return nil
}

// ring is the signed keyring; revoked zero: the old key is good.
func (l *logged) ring(version uint64, revoked time.Time) []byte {
	key := func(s *signing.Signer, revoked time.Time) keyring.Key {
		return keyring.Key{
			ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1",
			NotBefore: l.began, NotAfter: l.began.Add(100 * time.Hour), RevokedAt: revoked,
		}
	}
	r, err := keyring.New(version, l.began, l.began.Add(100*time.Hour), []keyring.Key{key(l.old, revoked), key(l.new, time.Time{})})
	if err != nil {
		l.t.Fatal(err)
	}
	doc, err := r.Sign(l.root)
	if err != nil {
		l.t.Fatal(err)
	}
	return doc
}

func (l *logged) proof(by *signing.Signer) []byte {
	const subject = "orders.created"
	e := &cloudevent.Event{ID: []byte("one"), Source: []byte("/shop"), Type: []byte("t"), ContentType: []byte("text/plain"), Data: []byte("x")}
	e.SetExt([]byte(wire.AttrAuthID), []byte("shop/app"))
	e.SetExt([]byte(wire.AttrAuthType), []byte(wire.DefaultAuthType))
	e.SetExt([]byte(wire.AttrRecordedTime), signing.AppendRecordedTime(nil, l.recorded))
	var b signing.Batch
	if b.Add(e, []byte(subject)) != 0 {
		l.t.Fatal("the event was not taken")
	}
	b.Sign(l.old)
	e.SetExt([]byte(wire.AttrAttestation), b.AppendAttestation(nil, 0))
	signing.Shorten(e)
	block := fmt.Appendf(append([]byte(wire.HeaderLine), cloudevent.AppendHeaders(nil, e)...), "\r\n")
	var h tlog.Hasher
	leaf := h.Stored(7, l.stored.UnixNano(), subject, block, e.Data)
	var edge tlog.Edge
	if err := edge.Append(leaf.Hash()); err != nil {
		l.t.Fatal(err)
	}
	cp := tlog.Checkpoint{
		Origin: tlog.Origin{Cluster: "c", Tenant: "shop", Stream: "ORDERS", Start: l.began.Truncate(time.Second)}, Size: 1, Root: edge.Root(), First: 7,
		Time: l.stored.Add(time.Second).Truncate(time.Millisecond), Created: l.began,
	}
	note, err := cp.Sign(by)
	if err != nil {
		l.t.Fatal(err)
	}
	p := &tlog.Proof{
		First: 7, Checkpoint: note, Keyring: l.ring(l.held, time.Time{}),
		Leaves: []tlog.ProofLeaf{tlog.LeafOf(&h, l.stored.UnixNano(), subject, block, e.Data)},
	}
	doc, err := p.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	return doc
}

// signet verify of a proof, with a keyring in which the key that attested the event has been
// revoked since: the time of the log decides, and not what the event says.
func TestVerifyProofOfRevokedKey(t *testing.T) {
	began := time.Now().Add(-10 * time.Hour).UTC().Truncate(time.Second)
	at := func(hours int) time.Time { return began.Add(time.Duration(hours) * time.Hour) }
	for _, tt := range []struct {
		name    string
		stored  time.Time
		revoked time.Time
		byOld   bool   // the checkpoint is signed with the key that was revoked
		held    uint64 // version of the keyring in the proof; that beside it has 2
		code    int
		says    string
	}{
		{"not revoked", at(2), time.Time{}, true, 1, exitOK, "PROVEN: sequence 7"},
		{"logged before the revocation", at(2), at(5), false, 1, exitOK, "PROVEN: sequence 7"},
		{"logged after it, with an older time in the event", at(6), at(5), false, 1, exitRefused, "the log has the event since " + at(6).Format(time.RFC3339)},
		{"the log of the revoked key says that it was before", at(2), at(5), true, 1, exitRefused, "NOT PROVEN: the key of the checkpoint has been revoked"},
		{"revoked from the beginning", at(2), began, false, 1, exitRefused, "NOT ATTESTED"},
		{"by an older keyring than that in the proof", at(2), time.Time{}, false, 3, exitUsage, "--keyring has version 2, the proof a newer one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := logged{t: t, began: began, recorded: at(1), stored: tt.stored, held: tt.held}
			l.old, l.new = l.signer(1), l.signer(2)
			var err error
			if l.root, err = nkeys.EncodeSeed(nkeys.PrefixByteOperator, bytes.Repeat([]byte{9}, ed25519.SeedSize)); err != nil {
				t.Fatal(err)
			}
			pair, err := nkeys.FromSeed(l.root)
			if err != nil {
				t.Fatal(err)
			}
			root, err := pair.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			by := l.new
			if tt.byOld {
				by = l.old
			}
			dir := t.TempDir()
			proof, ring := filepath.Join(dir, "proof.json"), filepath.Join(dir, "keyring.json")
			for file, doc := range map[string][]byte{proof: l.proof(by), ring: l.ring(2, tt.revoked)} {
				if err := os.WriteFile(file, doc, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var out, errs bytes.Buffer
			code := run([]string{"verify", proof, "--keyring", ring, "--root", root}, strings.NewReader(""), &out, &errs, func(string) string { return "" })
			if code != tt.code || !strings.Contains(out.String()+errs.String(), tt.says) {
				t.Errorf("exit code %d, want %d with %q\n%s%s", code, tt.code, tt.says, &out, &errs)
			}
		})
	}
}
