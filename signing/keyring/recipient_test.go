package keyring

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
)

func recipientKey(t testing.TB, fill byte, principal string, subjects ...string) Key {
	t.Helper()
	pair, err := nkeys.FromCurveSeed(seed(t, nkeys.PrefixByteCurve, fill))
	if err != nil {
		t.Fatal(err)
	}
	id, err := pair.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return Key{ID: id, Alg: AlgX25519, Role: RoleRecipient, Principal: principal, Subjects: subjects, NotBefore: day0, NotAfter: year}
}

func TestRecipientKeys(t *testing.T) {
	rootSeed := seed(t, nkeys.PrefixByteOperator, 9)
	r, err := New(1, day0, year, []Key{brokerKey(t, 1), producerKey(t, nil, nil), recipientKey(t, 7, "shop/doctor", "care.>", "a.*", "care.>")})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := r.Sign(rootSeed)
	if err != nil {
		t.Fatal(err)
	}
	back, err := Parse(doc, public(t, rootSeed), day1)
	if err != nil || !reflect.DeepEqual(back.Keys(), r.Keys()) {
		t.Fatalf("got %+v, %v", back, err)
	}

	for _, c := range []struct {
		name   string
		change func(*Key)
	}{
		{"no subjects", func(k *Key) { k.Subjects = nil }},
		{"sources", func(k *Key) { k.Sources = []string{"/a"} }},
		{"algorithm of a signer", func(k *Key) { k.Alg = AlgEd25519 }},
		{"role of a producer", func(k *Key) { k.Role = RoleProducer }},
		{"role of a broker", func(k *Key) { k.Role, k.Subjects = RoleBroker, nil }},
		{"a role that nobody knows", func(k *Key) { k.Role = "reader" }},
		{"a user key", func(k *Key) { k.ID = public(t, seed(t, nkeys.PrefixByteUser, 1)) }},
		{"a seed", func(k *Key) { k.ID = string(seed(t, nkeys.PrefixByteCurve, 7)) }},
	} {
		k := recipientKey(t, 7, "shop/doctor", "care.>")
		c.change(&k)
		if _, err := New(1, day0, year, []Key{k}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", c.name, err)
		}
	}
	k := producerKey(t, nil, nil)
	k.Alg = AlgX25519
	if _, err := New(1, day0, year, []Key{k}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a producer with %s: %v", AlgX25519, err)
	}
}

// TestRecipientKeyPoints: nkeys takes every 32 bytes for a key, and X25519 computes with
// them. With a point of small order everybody knows the shared secret.
func TestRecipientKeyPoints(t *testing.T) {
	le := func(first byte, rest byte, last byte) []byte {
		b := bytes.Repeat([]byte{rest}, 32)
		b[0], b[31] = first, last
		return b
	}
	order8 := []byte{
		0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
	}
	order8b := []byte{
		0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
	}
	for name, c := range map[string]struct {
		raw []byte
		ok  bool
	}{
		"0": {le(0, 0, 0), false}, "1": {le(1, 0, 0), false}, "order 8": {order8, false}, "the other of order 8": {order8b, false},
		"p-1": {le(0xec, 0xff, 0x7f), false}, "p": {le(0xed, 0xff, 0x7f), false}, "p+1": {le(0xee, 0xff, 0x7f), false},
		"p+9, which is 9": {le(0xf6, 0xff, 0x7f), false}, "9 with the top bit": {le(9, 0, 0x80), false},
		"9, the base point": {le(9, 0, 0), true}, "p-2": {le(0xeb, 0xff, 0x7f), true},
	} {
		id, err := nkeys.Encode(nkeys.PrefixByteCurve, c.raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckRecipientKey(string(id)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if CheckRecipientKey(public(t, seed(t, nkeys.PrefixByteUser, 1))) == nil || CheckRecipientKey("") == nil {
		t.Error("what is no X25519 key was accepted")
	}
}

func TestRecipients(t *testing.T) {
	doctor, nurse := recipientKey(t, 1, "shop/doctor", "care.>"), recipientKey(t, 2, "shop/nurse", "care.*.temperature")
	later := recipientKey(t, 3, "shop/later", "care.>")
	later.NotBefore = day1.Add(time.Hour)
	ends := recipientKey(t, 4, "shop/ends", "care.>")
	ends.NotAfter = day1.Add(2 * time.Hour)
	gone := recipientKey(t, 5, "shop/gone", "care.>")
	gone.RevokedAt = day1
	mill := recipientKey(t, 6, "mill/doctor", ">")
	shops := recipientKey(t, 7, "shops/doctor", ">")
	producer := producerKey(t, nil, nil)
	r, err := New(1, day0, year, []Key{doctor, nurse, later, ends, gone, mill, shops, producer, brokerKey(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	sorted := func(keys ...Key) (ids []string) {
		for _, k := range keys {
			ids = append(ids, k.ID)
		}
		slices.Sort(ids)
		return ids
	}
	for _, c := range []struct {
		name, tenant, subject string
		now                   time.Time
		want                  []string
		until                 time.Time
	}{
		{"all", "shop", "care.7.temperature", day1, sorted(doctor, nurse, ends), later.NotBefore},
		{"another subject", "shop", "care.7.pulse", day1, sorted(doctor, ends), later.NotBefore},
		{"one more has begun", "shop", "care.7.pulse", later.NotBefore, sorted(doctor, ends, later), ends.NotAfter},
		{"one has ended", "shop", "care.7.pulse", ends.NotAfter, sorted(doctor, later), year},
		{"before a revocation", "shop", "care.7.pulse", day1.Add(-time.Second), sorted(doctor, ends, gone), day1},
		{"all have ended", "shop", "care.7.pulse", year, nil, time.Time{}},
		{"another tenant", "mill", "care.7.pulse", day1, sorted(mill), year},
		{"a subject that nobody has", "shop", "orders.x", day1, nil, time.Time{}},
		{"no tenant", "", "care.7.pulse", day1, nil, time.Time{}},
	} {
		got, until := r.Recipients(c.tenant, c.subject, c.now)
		if !slices.Equal(got, c.want) || !until.Equal(c.until) {
			t.Errorf("%s: got %v until %v, want %v until %v", c.name, got, until, c.want, c.until)
		}
	}
}
