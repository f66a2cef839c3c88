package tlog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/signetbus/signet/signing"
)

func testCheckpoint() Checkpoint {
	return Checkpoint{Origin: origin, Size: 3, Root: leafOf(3), First: 17, Time: noon, Created: day0}
}

// A checkpoint is a C2SP signed note that the stock library opens, with a tree head
// that it reads up to the extension lines.
func TestStockLibraryOpensCheckpoint(t *testing.T) {
	c := testCheckpoint()
	signer := testSigner(t, fillBroker)
	raw, err := c.Sign(signer)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewEd25519VerifierKey(origin.String(), signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(raw, note.VerifierList(v))
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	if len(n.Sigs) != 1 || n.Text != string(c.text()) {
		t.Errorf("opened: %q", n.Text)
	}
	line := strings.Split(n.Text, "\n")
	if h, err := tlog.ParseHash(line[2]); err != nil || h != c.Root || line[0] != "signet/log/v1/eu/shop/ORDERS/20261122T000000Z" {
		t.Errorf("text: %q", line)
	}
}

func TestCheckpointVerify(t *testing.T) {
	ring, _, _ := testRing(t)
	c := testCheckpoint()
	for _, tt := range []struct {
		name string
		by   *signing.Signer
		want error
	}{
		{"broker", testSigner(t, fillBroker), nil},
		{"expired", testSigner(t, fillExpired), ErrKeyNotValid},
		{"unknown", testSigner(t, fillUnknown), ErrUnknownKey},
		{"producer", signerOf(t, nkeys.PrefixByteAccount, fillProducer), ErrUnknownKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := c.Sign(tt.by)
			if err != nil {
				t.Fatal(err)
			}
			n, err := ParseNote(raw)
			if err != nil {
				t.Fatal(err)
			}
			if key, err := n.Verify(ring); !errors.Is(err, tt.want) || err == nil && key.ID != tt.by.KeyID() {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if n, err := ParseNote(mustSign(t, &c)); err != nil || n.Time != noon || n.Origin.String() != origin.String() || n.First != 17 {
		t.Errorf("read back: %+v, %v", n, err)
	} else if _, err := n.Verify(nil); !errors.Is(err, signing.ErrNoKeyring) {
		t.Errorf("without a keyring: %v", err)
	}
}

func mustSign(t testing.TB, c *Checkpoint) []byte {
	t.Helper()
	raw, err := c.Sign(testSigner(t, fillBroker))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// No signature of one kind is one of another: the keys are the same.
func TestDomainsAreSeparate(t *testing.T) {
	s := testSigner(t, fillBroker)
	for _, text := range []string{
		"DSSEv1 46 https://cloudevents.io/verifiability/dsse/v0.1 1 x\n",
		"signet/merkle-ed25519/v1\n2\n" + leafOf(1).String() + "\n",
		"signet/node/v1\neu\nn1\n" + s.KeyID() + "\n",
		"signet/log/v1/eu/shop/ORDERS/20261122T000000Z", // no line end
		"", "x\n",
	} {
		if sig, err := s.SignNote([]byte(text)); !errors.Is(err, signing.ErrNote) || sig != nil {
			t.Errorf("%q was signed as a checkpoint: %v", text, err)
		}
	}
	// Even with names that try to look like the others'.
	for _, o := range []Origin{
		{Cluster: "merkle-ed25519", Tenant: "v1", Stream: "x", Start: day0},
		{Cluster: "node", Tenant: "v1", Stream: "x", Start: day0},
		{Cluster: "a/b", Tenant: "t", Stream: "x", Start: day0},
		{Cluster: "a\nb", Tenant: "t", Stream: "x", Start: day0},
		{Cluster: "", Tenant: "t", Stream: "x", Start: day0},
		{Cluster: "a", Tenant: "t", Stream: "x y", Start: day0},
	} {
		c := testCheckpoint()
		c.Origin = o
		raw, err := c.Sign(s)
		if err == nil && (!bytes.HasPrefix(raw, []byte(signing.LogOriginPrefix)) || bytes.HasPrefix(raw, []byte("signet/merkle")) || bytes.HasPrefix(raw, []byte("signet/node"))) {
			t.Errorf("%+v: %q", o, raw)
		}
		if strings.ContainsAny(o.Cluster+o.Stream, "/\n ") && err == nil {
			t.Errorf("%+v was signed", o)
		}
	}
	// A checkpoint's signature is over its text and nothing in front of it.
	c := testCheckpoint()
	n, err := ParseNote(mustSign(t, &c))
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(s.Public(), c.text(), n.sig) {
		t.Error("the signature is over something else")
	}
}

func TestMutatedCheckpointIsRefused(t *testing.T) {
	ring, _, _ := testRing(t)
	c := testCheckpoint()
	raw := mustSign(t, &c)
	tried, accepted := 0, 0
	for i := range raw {
		for bit := range 8 {
			bad := bytes.Clone(raw)
			bad[i] ^= 1 << bit
			tried++
			n, err := ParseNote(bad)
			if err == nil {
				_, err = n.Verify(ring)
			}
			if err == nil {
				accepted++
				t.Errorf("byte %d, bit %d is accepted", i, bit)
			}
		}
	}
	for _, bad := range [][]byte{nil, raw[:len(raw)-1], append(bytes.Clone(raw), '\n'), append(bytes.Clone(raw), raw[bytes.LastIndex(raw, []byte("—")):]...), bytes.Repeat([]byte{'x'}, MaxCheckpointBytes+1)} {
		tried++
		if _, err := ParseNote(bad); !errors.Is(err, ErrMalformed) {
			accepted++
			t.Errorf("%q: %v", bad, err)
		}
	}
	t.Logf("%d mutations tried, %d accepted", tried, accepted)
}

func TestForkIsSeen(t *testing.T) {
	a, b := testCheckpoint(), testCheckpoint()
	if err := CheckConsistency(&a, &b, nil); err != nil {
		t.Error(err)
	}
	b.Root = leafOf(9)
	if err := CheckConsistency(&a, &b, nil); !errors.Is(err, ErrForked) {
		t.Errorf("equal size, different roots: %v", err)
	}
	b = testCheckpoint()
	b.First++
	if err := CheckConsistency(&a, &b, nil); !errors.Is(err, ErrForked) {
		t.Errorf("another first sequence: %v", err)
	}
	b = testCheckpoint()
	b.Size--
	if err := CheckConsistency(&a, &b, nil); !errors.Is(err, ErrForked) {
		t.Errorf("a log that shrank: %v", err)
	}
	b = testCheckpoint()
	b.Origin.Start = b.Origin.Start.Add(time.Second)
	if err := CheckConsistency(&a, &b, nil); !errors.Is(err, ErrOtherLog) {
		t.Errorf("another log: %v", err)
	}
}

func FuzzParseNote(f *testing.F) {
	c := testCheckpoint()
	f.Add(mustSign(f, &c))
	f.Add([]byte("signet/log/v1/a/b/c/20261122T000000Z\n0\n" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, err := ParseNote(raw)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		again := base64.StdEncoding.EncodeToString(n.sig)
		if !bytes.HasPrefix(raw, n.text()) || again == "" {
			t.Fatalf("%q reads as %q", raw, n.text())
		}
	})
}
