package keyring

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/internal/dsse"
)

// TestHostileDocuments: what the root key may have signed by mistake, or under somebody
// else's hand, and what nobody signed, is refused before it costs much.
func TestHostileDocuments(t *testing.T) {
	rootSeed := seed(t, nkeys.PrefixByteOperator, 9)
	root := public(t, rootSeed)
	_, raw, err := nkeys.DecodeSeed(rootSeed)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(payload string) []byte {
		sig := ed25519.Sign(ed25519.NewKeyFromSeed(raw), dsse.AppendPAE(nil, PayloadType, []byte(payload)))
		return dsse.Append(nil, &dsse.Envelope{PayloadType: PayloadType, Payload: []byte(payload), KeyID: root, Sig: sig})
	}
	ring := func(version string, keys ...string) string {
		return `{"version":` + version + `,"issued":"2026-11-22T00:00:00Z","expires":"2027-11-22T00:00:00Z","keys":[` + strings.Join(keys, ",") + `]}`
	}
	record := func(id, role string) string {
		return `{"id":"` + id + `","alg":"ed25519","role":"` + role + `","principal":"p","notBefore":"2026-11-22T00:00:00Z","notAfter":"2027-11-22T00:00:00Z"}`
	}
	k := brokerKey(t, 1)
	account, err := nkeys.Encode(nkeys.PrefixByteAccount, testRing(t).byPrincipal(t, "node-1").Public())
	if err != nil {
		t.Fatal(err)
	}
	server := testRing(t).byPrincipal(t, "node-1").ID
	if _, err := Parse(sign(ring("1", record(k.ID, RoleBroker))), root, day1); err != nil {
		t.Fatalf("the base case must pass: %v", err)
	}
	many := make([]string, 0, 2500)
	for i := range cap(many) {
		pair, err := nkeys.FromRawSeed(nkeys.PrefixByteServer, bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 16))
		if err != nil {
			t.Fatal(err)
		}
		id, err := pair.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, record(id, RoleBroker))
	}
	unsigned := bytes.Replace(sign(ring("1", many[:1000]...)), []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
	for _, tc := range []struct {
		name string
		doc  []byte
		want error
	}{
		{"the highest version that a machine has", sign(ring("18446744073709551615", record(k.ID, RoleBroker))), ErrInvalid},
		{"a version beyond every machine", sign(ring("18446744073709551616", record(k.ID, RoleBroker))), ErrMalformed},
		{"a version over what every reader holds", sign(ring(fmt.Sprint(uint64(MaxVersion)+1), record(k.ID, RoleBroker))), ErrInvalid},
		{"one key twice", sign(ring("1", record(k.ID, RoleBroker), record(k.ID, RoleBroker))), ErrInvalid},
		{"one raw key in two roles", sign(ring("1", record(string(account), RoleProducer), record(server, RoleBroker))), ErrInvalid},
		{"signed, and too large", sign(ring("1", many...)), ErrMalformed},
		{"large, and signed by nobody", unsigned, ErrBadSignature},
		{"deep", []byte(strings.Repeat("[", MaxDocumentBytes)), ErrMalformed},
	} {
		if _, err := Parse(tc.doc, root, day1); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
	if doc := sign(ring("1", many...)); len(doc) <= MaxDocumentBytes || !json.Valid(doc) {
		t.Errorf("the ring that is too large has %d bytes", len(doc))
	}
}

// TestSignSaysThatItIsTooLarge: whoever signs learns it, before readers would.
func TestSignSaysThatItIsTooLarge(t *testing.T) {
	r := &Ring{version: 1, issued: day0, expires: year}
	for range MaxDocumentBytes / 200 {
		r.keys = append(r.keys, brokerKey(t, 1))
	}
	_, err := r.Sign(seed(t, nkeys.PrefixByteOperator, 9))
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprint(MaxDocumentBytes)) {
		t.Errorf("got %v", err)
	}
}

// TestNoVersionIsLeft: after the highest version a change says so, and does not begin
// anew.
func TestNoVersionIsLeft(t *testing.T) {
	last, err := New(MaxVersion, day0, year, testRing(t).Keys())
	if err != nil {
		t.Fatal(err)
	}
	if r, err := last.Change(day1).Ring(year); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v, %v", r, err)
	}
}

func (r *Ring) byPrincipal(t testing.TB, principal string) *Key {
	t.Helper()
	for i := range r.keys {
		if r.keys[i].Principal == principal {
			return &r.keys[i]
		}
	}
	t.Fatalf("no key of %s", principal)
	return nil
}
