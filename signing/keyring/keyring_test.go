package keyring

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/internal/dsse"
)

var (
	day0 = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	day1 = day0.AddDate(0, 0, 1)
	year = day0.AddDate(1, 0, 0)
)

func seed(t testing.TB, prefix nkeys.PrefixByte, fill byte) []byte {
	t.Helper()
	s, err := nkeys.EncodeSeed(prefix, bytes.Repeat([]byte{fill}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func public(t testing.TB, seed []byte) string {
	t.Helper()
	pair, err := nkeys.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	id, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func brokerKey(t testing.TB, fill byte) Key {
	t.Helper()
	return Key{
		ID: public(t, seed(t, nkeys.PrefixByteServer, fill)), Alg: AlgEd25519, Role: RoleBroker, Principal: "node-1",
		NotBefore: day0, NotAfter: year,
	}
}

func testRing(t testing.TB) *Ring {
	t.Helper()
	revoked := brokerKey(t, 2)
	revoked.RevokedAt = day1
	r, err := New(7, day0, year, []Key{brokerKey(t, 1), revoked, {
		ID: public(t, seed(t, nkeys.PrefixByteAccount, 3)), Alg: AlgEd25519, Role: RoleProducer, Principal: "shop/checkout",
		NotBefore: day0, NotAfter: year,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestDocumentRoundTrip(t *testing.T) {
	rootSeed := seed(t, nkeys.PrefixByteOperator, 9)
	r := testRing(t)
	doc, err := r.Sign(rootSeed)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(doc, public(t, rootSeed), day1)
	if err != nil {
		t.Fatal(err)
	}
	if back.Version() != 7 || !back.Issued().Equal(day0) || !back.Expires().Equal(year) || len(back.Keys()) != 3 {
		t.Errorf("got %+v", back)
	}
	again, err := back.Sign(rootSeed)
	if err != nil || !bytes.Equal(again, doc) {
		t.Errorf("signing the parsed ring gives other bytes: %v", err)
	}
	for _, k := range r.Keys() {
		got, ok := back.ByID(k.ID)
		if !ok || !reflect.DeepEqual(got, k) {
			t.Errorf("ByID(%s): got %+v, want %+v", k.ID, got, k)
		}
		hinted := back.ByHint([HintBytes]byte(k.Public()))
		if len(hinted) != 1 || !reflect.DeepEqual(hinted[0], k) {
			t.Errorf("ByHint: got %+v, want %+v", hinted, k)
		}
	}
	if _, ok := back.ByID("N"); ok {
		t.Error("ByID found a key that is not there")
	}
	if got := back.ByHint([HintBytes]byte{1}); got != nil {
		t.Errorf("ByHint of an unknown hint: got %v", got)
	}
}

// Every single byte of a document counts: any change of it is refused.
func TestEveryByteOfADocumentCounts(t *testing.T) {
	rootSeed := seed(t, nkeys.PrefixByteOperator, 9)
	root := public(t, rootSeed)
	doc, err := testRing(t).Sign(rootSeed)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i := range doc {
		for _, mask := range []byte{0x01, 0x20, 0x80} {
			doc[i] ^= mask
			if _, err := Parse(doc, root, day1); err == nil {
				t.Errorf("byte %d xor %#x was accepted", i, mask)
			}
			doc[i] ^= mask
			n++
		}
	}
	t.Logf("%d mutations of %d bytes refused", n, len(doc))
}

func TestParseRefuses(t *testing.T) {
	rootSeed := seed(t, nkeys.PrefixByteOperator, 9)
	root := public(t, rootSeed)
	r := testRing(t)
	good := string(r.payload())
	sign := func(payload, payloadType string) []byte {
		_, raw, err := nkeys.DecodeSeed(rootSeed)
		if err != nil {
			t.Fatal(err)
		}
		sig := ed25519.Sign(ed25519.NewKeyFromSeed(raw), dsse.AppendPAE(nil, payloadType, []byte(payload)))
		return dsse.Append(nil, &dsse.Envelope{PayloadType: payloadType, Payload: []byte(payload), KeyID: root, Sig: sig})
	}
	if _, err := Parse(sign(good, PayloadType), root, day1); err != nil {
		t.Fatalf("the base case must pass: %v", err)
	}
	edit := func(old, with string) []byte {
		if !strings.Contains(good, old) {
			t.Fatalf("payload has no %q", old)
		}
		return sign(strings.Replace(good, old, with, 1), PayloadType)
	}
	keys := r.Keys()
	swapped := strings.NewReplacer(keys[1].ID, keys[2].ID, keys[2].ID, keys[1].ID).Replace(good)
	otherRoot := seed(t, nkeys.PrefixByteOperator, 8)
	byOther, err := r.Sign(otherRoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		doc  []byte
		root string
		now  time.Time
		want error
	}{
		{"expired", sign(good, PayloadType), root, year, ErrExpired},
		{"other root", byOther, root, day1, ErrBadSignature},
		{"unknown field", edit(`"version":7,`, `"version":7,"x":1,`), root, day1, ErrMalformed},
		{"unknown key field", edit(`"alg":`, `"x":1,"alg":`), root, day1, ErrMalformed},
		{"duplicate member", edit(`"version":7,`, `"version":7,"version":7,`), root, day1, ErrMalformed},
		{"other letter case", edit(`"version"`, `"Version"`), root, day1, ErrMalformed},
		{"white space", edit(`,"issued"`, `, "issued"`), root, day1, ErrMalformed},
		{"escape", edit(`"node-1"`, `"\u006eode-1"`), root, day1, ErrMalformed},
		{"version as float", edit(`:7,`, `:7.0,`), root, day1, ErrMalformed},
		{"version zero", edit(`:7,`, `:0,`), root, day1, ErrInvalid},
		{"order of keys", sign(swapped, PayloadType), root, day1, ErrMalformed},
		{"order of members", edit(`"issued":"2026-11-22T00:00:00Z","expires":"2027-11-22T00:00:00Z"`, `"expires":"2027-11-22T00:00:00Z","issued":"2026-11-22T00:00:00Z"`), root, day1, ErrMalformed},
		{"empty revokedAt", edit(`,"revokedAt":"2026-11-23T00:00:00Z"`, `,"revokedAt":""`), root, day1, ErrMalformed},
		{"missing keys", sign(`{"version":7,"issued":"2026-11-22T00:00:00Z","expires":"2027-11-22T00:00:00Z"}`, PayloadType), root, day1, ErrMalformed},
		{"null keys", sign(`{"version":7,"issued":"2026-11-22T00:00:00Z","expires":"2027-11-22T00:00:00Z","keys":null}`, PayloadType), root, day1, ErrMalformed},
		{"time with fraction", edit(`2026-11-22T00:00:00Z`, `2026-11-22T00:00:00.0Z`), root, day1, ErrMalformed},
		{"time with offset", edit(`2026-11-22T00:00:00Z`, `2026-11-22T00:00:00+00:00`), root, day1, ErrMalformed},
		{"trailing value", sign(good+"{}", PayloadType), root, day1, ErrMalformed},
		{"trailing newline", sign(good+"\n", PayloadType), root, day1, ErrMalformed},
		{"unknown role", edit(`"producer"`, `"root"`), root, day1, ErrInvalid},
		{"unknown algorithm", edit(`"ed25519"`, `"rsa"`), root, day1, ErrInvalid},
		{"duplicate key", sign(strings.Replace(good, keys[2].ID, keys[1].ID, 1), PayloadType), root, day1, ErrInvalid},
		{"payload type of an event", sign(good, "https://cloudevents.io/verifiability/dsse/v0.1"), root, day1, ErrMalformed},
		{"not an envelope", []byte(good), root, day1, ErrMalformed},
		{"root key of another type", sign(good, PayloadType), keys[0].ID, day1, ErrRootKey},
	} {
		if _, err := Parse(tc.doc, tc.root, tc.now); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	smallOrder, err := nkeys.Encode(nkeys.PrefixByteServer, append([]byte{1}, make([]byte, 31)...))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(k *Key)) []Key {
		k := brokerKey(t, 1)
		change(&k)
		return []Key{k}
	}
	twin, err := nkeys.Encode(nkeys.PrefixByteAccount, testRing(t).keys[0].Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name    string
		version uint64
		expires time.Time
		keys    []Key
	}{
		{"version zero", 0, year, nil},
		{"version over 2^53", MaxVersion + 1, year, nil},
		{"expiry before issue", 1, day0, nil},
		{"no year", 1, time.Time{}, nil},
		{"too many keys", 1, year, make([]Key, MaxKeys+1)},
		{"small-order key", 1, year, with(func(k *Key) { k.ID = string(smallOrder) })},
		{"bad checksum", 1, year, with(func(k *Key) { k.ID = k.ID[:20] + string(k.ID[20]^1) + k.ID[21:] })},
		{"line end in the id", 1, year, with(func(k *Key) { k.ID += "\n" })},
		{"user key as broker", 1, year, with(func(k *Key) { k.ID = public(t, seed(t, nkeys.PrefixByteUser, 1)) })},
		{"operator key as broker", 1, year, with(func(k *Key) { k.ID = public(t, seed(t, nkeys.PrefixByteOperator, 1)) })},
		{"server key as producer", 1, year, with(func(k *Key) { k.Role = RoleProducer })},
		{"no role", 1, year, with(func(k *Key) { k.Role = "" })},
		{"no algorithm", 1, year, with(func(k *Key) { k.Alg = "" })},
		{"no principal", 1, year, with(func(k *Key) { k.Principal = "" })},
		{"quote in principal", 1, year, with(func(k *Key) { k.Principal = `a"b` })},
		{"no notBefore", 1, year, with(func(k *Key) { k.NotBefore = time.Time{} })},
		{"no notAfter", 1, year, with(func(k *Key) { k.NotAfter = time.Time{} })},
		{"empty interval", 1, year, with(func(k *Key) { k.NotAfter = k.NotBefore })},
		{"same key twice", 1, year, []Key{brokerKey(t, 1), brokerKey(t, 1)}},
		{"same raw key under two prefixes", 1, year, append(testRing(t).Keys(), Key{
			ID: string(twin), Alg: AlgEd25519, Role: RoleProducer, Principal: "p", NotBefore: day0, NotAfter: year,
		})},
	} {
		if _, err := New(tc.version, day0, tc.expires, tc.keys); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", tc.name, err)
		}
	}
}

func TestValidAt(t *testing.T) {
	k := brokerKey(t, 1)
	revoked := k
	revoked.RevokedAt = day1
	for _, tc := range []struct {
		name string
		key  Key
		at   time.Time
		want bool
	}{
		{"before the interval", k, day0.Add(-time.Second), false},
		{"first instant", k, day0, true},
		{"last instant", k, year.Add(-time.Second), true},
		{"after the interval", k, year, false},
		{"before revocation", revoked, day1.Add(-time.Second), true},
		{"at revocation", revoked, day1, false},
		{"after revocation", revoked, day1.Add(time.Hour), false},
	} {
		if got := tc.key.ValidAt(tc.at); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestReplaces(t *testing.T) {
	make := func(version uint64, expires time.Time) *Ring {
		r, err := New(version, day0, expires, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, tc := range []struct {
		name      string
		offer     *Ring
		inUse     *Ring
		wantError bool
	}{
		{"first", make(1, year), nil, false},
		{"newer", make(2, year), make(1, year), false},
		{"same", make(2, year), make(2, year), false},
		{"older", make(1, year), make(2, year), true},
		{"same version, other content", make(2, day1), make(2, year), true},
	} {
		if err := tc.offer.Replaces(tc.inUse); errors.Is(err, ErrRollback) != tc.wantError {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

func TestSignRefusesOtherSeeds(t *testing.T) {
	for _, prefix := range []nkeys.PrefixByte{nkeys.PrefixByteServer, nkeys.PrefixByteUser, nkeys.PrefixByteAccount} {
		if _, err := testRing(t).Sign(seed(t, prefix, 1)); !errors.Is(err, ErrRootKey) {
			t.Errorf("%v: got %v, want ErrRootKey", prefix, err)
		}
	}
	if _, err := testRing(t).Sign([]byte("SOnot")); !errors.Is(err, ErrRootKey) {
		t.Error("a broken seed was accepted")
	}
}

// FuzzKeyring feeds payloads to the part behind the signature, and whole
// documents to Parse: what is accepted encodes to the same bytes.
func FuzzKeyring(f *testing.F) {
	rootSeed := seed(f, nkeys.PrefixByteOperator, 9)
	root := public(f, rootSeed)
	r := testRing(f)
	doc, err := r.Sign(rootSeed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.payload(), doc)
	f.Add([]byte(`{"version":1,"issued":"2026-11-22T00:00:00Z","expires":"2027-11-22T00:00:00Z","keys":[]}`), doc[:40])
	f.Add([]byte(`{"version":1,"version":1,"issued":"2026-11-22T00:00:00Z","expires":"2027-11-22T00:00:00Z","keys":[]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, payload, doc []byte) {
		if r, err := parsePayload(payload); err == nil && !bytes.Equal(r.payload(), payload) {
			t.Errorf("got %q, want %q", r.payload(), payload)
		}
		if r, err := Parse(doc, root, day1); err == nil {
			if again, err := r.Sign(rootSeed); err != nil || !bytes.Equal(again, doc) {
				t.Errorf("got %q, want %q (%v)", again, doc, err)
			}
		}
	})
}
