package tlog

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

const testSubject = "orders.eu.created"

var (
	day0   = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	noon   = day0.Add(12*time.Hour + 34*time.Minute + 56789*time.Millisecond)
	year   = day0.AddDate(1, 0, 0)
	origin = Origin{Cluster: "eu", Tenant: "shop", Stream: "ORDERS", Start: day0}
)

const (
	fillBroker = 1 + iota
	fillExpired
	fillUnknown
	fillProducer
	fillRoot
	fillRevoked
	fillEarly
)

func seedOf(t testing.TB, prefix nkeys.PrefixByte, fill byte) []byte {
	t.Helper()
	seed, err := nkeys.EncodeSeed(prefix, bytes.Repeat([]byte{fill}, ed25519.SeedSize))
	if err != nil {
		t.Fatal(err)
	}
	return seed
}

func signerOf(t testing.TB, prefix nkeys.PrefixByte, fill byte) *signing.Signer {
	t.Helper()
	s, err := signing.NewSigner(seedOf(t, prefix, fill))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testSigner(t testing.TB, fill byte) *signing.Signer {
	return signerOf(t, nkeys.PrefixByteServer, fill)
}

// testRing is a keyring with its document and root key.
func testRing(t testing.TB) (ring *keyring.Ring, doc []byte, root string) {
	t.Helper()
	key := func(fill byte, to time.Time) keyring.Key {
		return keyring.Key{
			ID: testSigner(t, fill).KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker,
			Principal: fmt.Sprintf("node-%d", fill), NotBefore: day0, NotAfter: to,
		}
	}
	producer := key(fillProducer, year)
	producer.ID, producer.Role = signerOf(t, nkeys.PrefixByteAccount, fillProducer).KeyID(), keyring.RoleProducer
	revoked, early := key(fillRevoked, year), key(fillEarly, year)
	revoked.RevokedAt, early.NotBefore = noon.Add(-time.Hour).Truncate(time.Second), noon.Add(time.Hour).Truncate(time.Second)
	ring, err := keyring.New(3, day0, year, []keyring.Key{key(fillBroker, year), key(fillExpired, noon.Add(-time.Hour)), producer, revoked, early})
	if err != nil {
		t.Fatal(err)
	}
	if doc, err = ring.Sign(seedOf(t, nkeys.PrefixByteOperator, fillRoot)); err != nil {
		t.Fatal(err)
	}
	pair, err := nkeys.FromSeed(seedOf(t, nkeys.PrefixByteOperator, fillRoot))
	if err != nil {
		t.Fatal(err)
	}
	if root, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return ring, doc, root
}

// stored is one message as a stream has it.
type stored struct {
	seq         uint64
	at          int64
	subject     string
	block, data []byte
}

// testStored makes the n-th attested event as it is stored at seq.
func testStored(t testing.TB, seq uint64, n int) stored {
	t.Helper()
	e := &cloudevent.Event{
		ID: fmt.Appendf(nil, "01JD8Z6W3K7M5Q2R9T4V%06d", n), Source: []byte("/shop/checkout"),
		Type: []byte("com.example.order.created.v1"), ContentType: []byte("application/json"),
		Time: []byte("2026-11-22T07:30:01Z"), Data: fmt.Appendf(nil, `{"orderId":"%08d","note":"grün & <klein>"}`, n),
	}
	for name, value := range map[string]string{
		wire.AttrAuthID: "shop/checkout", wire.AttrAuthType: wire.DefaultAuthType,
		wire.AttrRecordedTime: "2026-11-22T07:30:01Z", "zone": "b ö",
	} {
		e.SetExt([]byte(name), []byte(value))
	}
	var b signing.Batch
	if b.Add(e, []byte(testSubject)) != 0 {
		t.Fatal("the event was not taken")
	}
	b.Sign(testSigner(t, fillBroker))
	e.SetExt([]byte(wire.AttrAttestation), b.AppendAttestation(nil, 0))
	signing.Shorten(e)
	block := append([]byte(wire.HeaderLine), cloudevent.AppendHeaders(nil, e)...)
	block = append(block, "Nats-Msg-Id: "+fmt.Sprint(n)+"\r\nX-Trace: a b\r\n\r\n"...)
	return stored{seq: seq, at: noon.UnixNano() + int64(n), subject: testSubject, block: block, data: e.Data}
}

// testLog is a log kept in memory, with all its leaves beside it.
type testLog struct {
	edge   Edge
	tiles  map[string][]byte
	leaves []Hash // of every index
	cp     Checkpoint
	note   []byte
}

func (l *testLog) read(level int, index int64) ([]byte, error) {
	return l.tiles[fmt.Sprintf("%d/%d", level, index)], nil
}

func (l *testLog) save() {
	for _, t := range l.edge.Take() {
		if l.tiles == nil {
			l.tiles = map[string][]byte{}
		}
		l.tiles[fmt.Sprintf("%d/%d", t.Level, t.Index)] = t.Bytes()
	}
}

func (l *testLog) sign(t testing.TB, first uint64) {
	t.Helper()
	l.save()
	l.cp = Checkpoint{Origin: origin, Size: l.edge.Size(), Root: l.edge.Root(), First: first, Time: noon, Created: day0.Add(7 * time.Nanosecond)}
	var err error
	if l.note, err = l.cp.Sign(testSigner(t, fillBroker)); err != nil {
		t.Fatal(err)
	}
}

func (l *testLog) append(t testing.TB, h Hash) {
	t.Helper()
	if err := l.edge.Append(h); err != nil {
		t.Fatal(err)
	}
	l.leaves = append(l.leaves, h)
}

func (l *testLog) absent(t testing.TB, n int64) {
	t.Helper()
	if err := l.edge.AppendAbsent(n); err != nil {
		t.Fatal(err)
	}
	for range n {
		l.leaves = append(l.leaves, AbsentHash())
	}
}

// naiveRoot is RFC 6962 section 2.1 as it is written there.
func naiveRoot(leaves []Hash) Hash {
	switch len(leaves) {
	case 0:
		return (&Edge{}).Root()
	case 1:
		return leaves[0]
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(naiveRoot(leaves[:k]), naiveRoot(leaves[k:]))
}
