package signing

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

const testSubject = "orders.eu.created"

var (
	day0     = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	recorded = time.Date(2026, 11, 22, 7, 30, 1, 0, time.UTC)
	year     = day0.AddDate(1, 0, 0)
)

// testSeed is the seed whose 32 raw bytes all are fill.
func testSeed(t testing.TB, prefix nkeys.PrefixByte, fill byte) []byte {
	t.Helper()
	seed, err := nkeys.EncodeSeed(prefix, bytes.Repeat([]byte{fill}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

func testSigner(t testing.TB, fill byte) *Signer {
	t.Helper()
	s, err := NewSigner(testSeed(t, nkeys.PrefixByteServer, fill))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The seeds of the test keyring, by what the key is.
const (
	fillBroker = 1 + iota
	fillExpired
	fillRevoked
	fillProducer
	fillUnknown
	fillNotYet
)

func testRing(t testing.TB) *keyring.Ring {
	t.Helper()
	key := func(fill byte, change func(k *keyring.Key)) keyring.Key {
		k := keyring.Key{
			ID: testSigner(t, fill).KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker,
			Principal: fmt.Sprintf("node-%d", fill), NotBefore: day0, NotAfter: year,
		}
		if change != nil {
			change(&k)
		}
		return k
	}
	producer, err := NewSigner(testSeed(t, nkeys.PrefixByteAccount, fillProducer))
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.New(3, day0, year, []keyring.Key{
		key(fillBroker, nil),
		key(fillExpired, func(k *keyring.Key) { k.NotAfter = recorded }),
		key(fillRevoked, func(k *keyring.Key) { k.RevokedAt = recorded }),
		key(fillNotYet, func(k *keyring.Key) { k.NotBefore = recorded.Add(time.Second) }),
		key(fillProducer, func(k *keyring.Key) { k.ID, k.Role = producer.KeyID(), keyring.RoleProducer }),
	})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// testVerifier verifies over ring at a clock within its validity.
func testVerifier(ring *keyring.Ring) *Verifier {
	v := NewVerifier(func() *keyring.Ring { return ring })
	v.now = func() time.Time { return recorded }
	return v
}

// testEvent is the n-th of a run of events as a gate would hand them over: 256
// bytes of data, as many attributes as an event can have.
func testEvent(n int) *cloudevent.Event {
	data := fmt.Sprintf(`{"orderId":"%08d","amount":12.5,"note":"`, n)
	data += strings.Repeat("x", 256-len(data)-2) + `"}`
	e := &cloudevent.Event{
		ID: fmt.Appendf(nil, "01JD8Z6W3K7M5Q2R9T4V%06d", n), Source: []byte("/shop/checkout"),
		Type: []byte("com.example.order.created.v1"), ContentType: []byte("application/json"),
		DataSchema: []byte("https://schemas.example.com/order/1"), Subject: []byte("order/7f3c"),
		Time: []byte("2026-11-22T07:30:00Z"), Data: []byte(data),
	}
	for name, value := range map[string]string{
		wire.AttrAuthID: "shop/checkout", wire.AttrAuthType: wire.DefaultAuthType,
		wire.AttrRecordedTime: "2026-11-22T07:30:01Z", wire.AttrPartitionKey: "7f3c",
		wire.AttrSequence: "0000000000001234", wire.AttrExpiryTime: "2026-12-22T00:00:00Z",
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "audience": "eu", "zone": "b",
	} {
		e.SetExt([]byte(name), []byte(value))
	}
	return e
}

// plainEvent has only what every attested event has.
func plainEvent(n int) *cloudevent.Event {
	e := testEvent(n)
	e.DataSchema, e.Subject = nil, nil
	for _, name := range []string{wire.AttrPartitionKey, wire.AttrSequence, wire.AttrExpiryTime, "traceparent", "audience", "zone"} {
		e.DelExt(name)
	}
	return e
}

// attest attests events as one batch and sets their attribute.
func attest(t testing.TB, s *Signer, subject string, events ...*cloudevent.Event) {
	t.Helper()
	var b Batch
	for i, e := range events {
		if got := b.Add(e, []byte(subject)); got != i {
			t.Fatalf("Add: got index %d, want %d", got, i)
		}
	}
	b.Sign(s)
	for i, e := range events {
		e.SetExt([]byte(wire.AttrAttestation), b.AppendAttestation(nil, i))
	}
}

func run(n int) []*cloudevent.Event {
	events := make([]*cloudevent.Event, n)
	for i := range events {
		events[i] = testEvent(i)
	}
	return events
}
