package signing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/internal/dsse"
	"github.com/signetbus/signet/signing/keyring"
)

func TestAttestAndVerify(t *testing.T) {
	s, v := testSigner(t, fillBroker), testVerifier(testRing(t))
	for _, n := range []int{1, 2, 3, 5, 31, 32, 33, 63, 64, 65, 100} {
		events := run(n)
		attest(t, s, testSubject, events...)
		for i, e := range events {
			got, err := v.Verify(e, testSubject)
			if err != nil {
				t.Fatalf("event %d of %d: %v", i, n, err)
			}
			want := Attestation{
				KeyID: s.KeyID(), Principal: "shop/checkout", AuthType: wire.DefaultAuthType,
				NATSSubject: testSubject, RecordedTime: recorded, Batch: min(32, n-i/32*32),
			}
			if got != want {
				t.Errorf("event %d of %d: got %+v, want %+v", i, n, got, want)
			}
			if size := len(e.Get(wire.AttrAttestation)); size > MaxAttestationBytes {
				t.Errorf("attestation of %d bytes, limit %d", size, MaxAttestationBytes)
			}
		}
	}
}

// The body is what the format document says, computed here by the book.
func TestBodyByTheBook(t *testing.T) {
	e := plainEvent(0)
	var d digester
	if _, err := d.digest(e, []byte(testSubject)); err != nil {
		t.Fatal(err)
	}
	core := bookSum(
		string(e.ID), "/shop/checkout", "1.0", "com.example.order.created.v1", "application/json",
		"", "", "2026-11-22T07:30:00Z", string(e.Data))
	ext := bookSum("shop/checkout", wire.DefaultAuthType, "", testSubject, "", "2026-11-22T07:30:01Z", "")
	want := fmt.Sprintf(`{"core":%q,"ext":%q,"signedextattrs":["authid","authtype","expirytime","natssubject","partitionkey","recordedtime","sequence"]}`, core, ext)
	if string(d.body) != want {
		t.Errorf("got  %s\nwant %s", d.body, want)
	}
	if want := "\x00" + string(dsse.AppendPAE(nil, PayloadType, []byte(want))); string(d.pae) != want {
		t.Errorf("got %q, want %q", d.pae, want)
	}
	if !json.Valid(d.body) {
		t.Error("the body is not JSON")
	}
}

func TestBodyNamesEveryExtensionOnceInOrder(t *testing.T) {
	e := testEvent(0)
	e.Time = []byte("2026-11-22T08:30:00.120+01:00")
	e.SetExt([]byte(wire.AttrAttestation), []byte("ignored"))
	var d digester
	if _, err := d.digest(e, []byte(testSubject)); err != nil {
		t.Fatal(err)
	}
	var body struct{ SignedExtAttrs []string }
	if err := json.Unmarshal(d.body, &body); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(body.SignedExtAttrs, " ")
	want := "audience authid authtype exacttime expirytime natssubject partitionkey recordedtime sequence traceparent zone"
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// The standard part signs the instant in UTC; the exact text is signed beside it.
	if string(d.when.text[:d.when.n]) != "2026-11-22T07:30:00Z" {
		t.Errorf("time signed as %q", d.when.text[:d.when.n])
	}
}

// A digester that remembers values gives what a fresh one gives.
func TestMemoChangesNothing(t *testing.T) {
	var warm digester
	for i := range 200 {
		e := testEvent(i % 3)
		switch i % 7 {
		case 1:
			e.Source = bytes.Repeat([]byte("s"), memoBytes+i%2)
		case 2:
			e.ContentType = nil
		case 3:
			e.SetExt([]byte(wire.AttrAuthID), fmt.Appendf(nil, "shop/p%d", i))
		case 4:
			e.Time = []byte("2026-11-22T07:30:00.5Z")
		case 5:
			e.Time = nil
		}
		subject := fmt.Appendf(nil, "orders.%d", i%2)
		var cold digester
		_, err1 := warm.digest(e, subject)
		_, err2 := cold.digest(e, subject)
		if err1 != nil || err2 != nil || !bytes.Equal(warm.pae, cold.pae) {
			t.Fatalf("event %d: got %q (%v), want %q (%v)", i, warm.pae, err1, cold.pae, err2)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	attested := testEvent(0)
	attest(t, testSigner(t, fillBroker), testSubject, attested)
	for name, change := range refusedEvents {
		e := testEvent(0)
		change(e)
		var b Batch
		if got := b.Add(e, []byte(testSubject)); got != -1 || b.Len() != 0 {
			t.Errorf("%s: got %d, want -1", name, got)
		}
		// A verifier refuses its shape too, before it looks at the signature.
		e.SetExt([]byte(wire.AttrAttestation), attested.Get(wire.AttrAttestation))
		if _, err := testVerifier(testRing(t)).Verify(e, testSubject); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	var b Batch
	if b.Add(testEvent(0), nil) != -1 {
		t.Error("an empty NATS subject was accepted")
	}
}

var refusedEvents = map[string]func(e *cloudevent.Event){
	"no id":                 func(e *cloudevent.Event) { e.ID = nil },
	"no source":             func(e *cloudevent.Event) { e.Source = nil },
	"no type":               func(e *cloudevent.Event) { e.Type = nil },
	"no authid":             func(e *cloudevent.Event) { e.DelExt(wire.AttrAuthID) },
	"no authtype":           func(e *cloudevent.Event) { e.DelExt(wire.AttrAuthType) },
	"no recordedtime":       func(e *cloudevent.Event) { e.DelExt(wire.AttrRecordedTime) },
	"empty authid":          func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrAuthID), nil) },
	"recordedtime fraction": func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrRecordedTime), []byte("2026-11-22T07:30:01.5Z")) },
	"recordedtime offset": func(e *cloudevent.Event) {
		e.SetExt([]byte(wire.AttrRecordedTime), []byte("2026-11-22T07:30:01+00:00"))
	},
	"recordedtime text":   func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrRecordedTime), []byte("now")) },
	"time text":           func(e *cloudevent.Event) { e.Time = []byte("yesterday") },
	"upper-case name":     func(e *cloudevent.Event) { e.SetExt([]byte("Zone"), []byte("a")) },
	"quote in name":       func(e *cloudevent.Event) { e.SetExt([]byte(`a","b`), []byte("a")) },
	"long name":           func(e *cloudevent.Event) { e.SetExt([]byte("aaaaaaaaaaaaaaaaaaaaa"), []byte("a")) },
	"empty name":          func(e *cloudevent.Event) { e.SetExt(nil, []byte("a")) },
	"core name":           func(e *cloudevent.Event) { e.SetExt([]byte("time"), []byte("a")) },
	"specversion":         func(e *cloudevent.Event) { e.SetExt([]byte("specversion"), []byte("1.0")) },
	"data as extension":   func(e *cloudevent.Event) { e.SetExt([]byte("data"), []byte("a")) },
	"names out of order":  func(e *cloudevent.Event) { e.Ext[0], e.Ext[1] = e.Ext[1], e.Ext[0] },
	"name twice":          func(e *cloudevent.Event) { e.Ext[1].Name = e.Ext[0].Name },
	"dssematerial":        func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrDSSE), []byte("e30=")) },
	"another natssubject": func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrNATSSubject), []byte("orders.us.created")) },
	"needless exacttime":  func(e *cloudevent.Event) { e.SetExt([]byte(AttrExactTime), e.Time) },
	"wrong exacttime": func(e *cloudevent.Event) {
		e.Time = []byte("2026-11-22T07:30:00.5Z")
		e.SetExt([]byte(AttrExactTime), []byte("2026-11-22T07:30:00.6Z"))
	},
	"too many extensions": func(e *cloudevent.Event) { e.Ext = make([]cloudevent.Attr, cloudevent.MaxExtensions+1) },
}

// Absent and empty data are one thing, as in the NATS binding.
func TestEmptyDataIsAbsentData(t *testing.T) {
	e := testEvent(0)
	e.Data = nil
	attest(t, testSigner(t, fillBroker), testSubject, e)
	e.Data = []byte{}
	if _, err := testVerifier(testRing(t)).Verify(e, testSubject); err != nil {
		t.Error(err)
	}
}

func TestKeys(t *testing.T) {
	ring := testRing(t)
	producer, err := NewSigner(testSeed(t, nkeys.PrefixByteAccount, fillProducer))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		signer *Signer
		want   error
	}{
		{"broker", testSigner(t, fillBroker), nil},
		{"expired at the recorded time", testSigner(t, fillExpired), ErrKeyNotValid},
		{"revoked at the recorded time", testSigner(t, fillRevoked), ErrKeyNotValid},
		{"not valid yet", testSigner(t, fillNotYet), ErrKeyNotValid},
		{"role confusion: a producer key attests", producer, ErrKeyNotValid},
		{"unknown", testSigner(t, fillUnknown), ErrUnknownKey},
	} {
		for _, n := range []int{1, 4} {
			events := run(n)
			attest(t, tc.signer, testSubject, events...)
			if _, err := testVerifier(ring).Verify(events[0], testSubject); !errors.Is(err, tc.want) {
				t.Errorf("%s, batch of %d: got %v, want %v", tc.name, n, err, tc.want)
			}
			material, err := Expand(events[0], testSubject, ring)
			if err == nil {
				err = VerifyDSSE(material, events[0], testSubject, ring)
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("%s, dssematerial, batch of %d: got %v, want %v", tc.name, n, err, tc.want)
			}
		}
	}
}

// The same raw key under another prefix is not in the ring, and a small-order key
// never gets into one (keyring tests), so no event can be checked with it.
func TestNewSignerRefuses(t *testing.T) {
	for name, seed := range map[string][]byte{
		"user":     testSeed(t, nkeys.PrefixByteUser, 1),
		"operator": testSeed(t, nkeys.PrefixByteOperator, 1),
		"cluster":  testSeed(t, nkeys.PrefixByteCluster, 1),
		"public":   []byte(testSigner(t, 1).KeyID()),
		"empty":    nil,
	} {
		if _, err := NewSigner(seed); !errors.Is(err, ErrSeed) {
			t.Errorf("%s: got %v, want ErrSeed", name, err)
		}
	}
}

func TestSmallOrderKeyNeverEntersARing(t *testing.T) {
	for i, raw := range [][]byte{make([]byte, 32), append([]byte{1}, make([]byte, 31)...)} {
		id, err := nkeys.Encode(nkeys.PrefixByteServer, raw)
		if err != nil {
			t.Fatal(err)
		}
		_, err = keyring.New(1, day0, year, []keyring.Key{{
			ID: string(id), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n", NotBefore: day0, NotAfter: year,
		}})
		if err == nil {
			t.Errorf("small-order key %d was accepted", i)
		}
	}
}

func TestSignerPrintsItsKeyID(t *testing.T) {
	s := testSigner(t, 1)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, s); got != s.KeyID() {
			t.Errorf("%s: got %q, want the key id", format, got)
		}
	}
}

// An unknown key is refused before the event is hashed, let alone before any curve
// operation: an event that is malformed in every other way gives ErrUnknownKey.
func TestUnknownKeyIsRefusedFirst(t *testing.T) {
	e := testEvent(0)
	attest(t, testSigner(t, fillUnknown), testSubject, e)
	broken := &cloudevent.Event{}
	broken.SetExt([]byte(wire.AttrAttestation), e.Get(wire.AttrAttestation))
	if _, err := testVerifier(testRing(t)).Verify(broken, ""); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("got %v, want ErrUnknownKey", err)
	}
}

func TestNoKeyring(t *testing.T) {
	e := testEvent(0)
	attest(t, testSigner(t, fillBroker), testSubject, e)
	if _, err := testVerifier(nil).Verify(e, testSubject); !errors.Is(err, ErrNoKeyring) {
		t.Errorf("nil ring: got %v, want ErrNoKeyring", err)
	}
	v := testVerifier(testRing(t))
	v.now = func() time.Time { return year }
	if _, err := v.Verify(e, testSubject); !errors.Is(err, ErrNoKeyring) {
		t.Errorf("expired ring: got %v, want ErrNoKeyring", err)
	}
}

// A revocation takes effect at once, though the root was verified before.
func TestRevocationBeatsTheRootCache(t *testing.T) {
	ring := testRing(t)
	v := NewVerifier(func() *keyring.Ring { return ring })
	v.now = func() time.Time { return recorded }
	events := run(2)
	attest(t, testSigner(t, fillBroker), testSubject, events...)
	if _, err := v.Verify(events[0], testSubject); err != nil {
		t.Fatal(err)
	}
	keys := ring.Keys()
	for i := range keys {
		keys[i].RevokedAt = day0
	}
	var err error
	if ring, err = keyring.New(4, day0, year, keys); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(events[1], testSubject); !errors.Is(err, ErrKeyNotValid) {
		t.Errorf("got %v, want ErrKeyNotValid", err)
	}
}

func TestBatchIsReusable(t *testing.T) {
	s, v := testSigner(t, fillBroker), testVerifier(testRing(t))
	var b Batch
	for _, n := range []int{40, 1, 33, 2, 64} {
		b.Reset()
		for i := range n {
			b.Add(testEvent(i), []byte(testSubject))
		}
		b.Sign(s)
		for i := range n {
			e := testEvent(i)
			e.SetExt([]byte(wire.AttrAttestation), b.AppendAttestation(nil, i))
			if _, err := v.Verify(e, testSubject); err != nil {
				t.Fatalf("event %d of %d: %v", i, n, err)
			}
		}
	}
}

func TestAppendAttestationPanicsOnMisuse(t *testing.T) {
	var unsigned, signed Batch
	unsigned.Add(testEvent(0), []byte(testSubject))
	signed.Add(testEvent(0), []byte(testSubject))
	signed.Sign(testSigner(t, 1))
	for name, f := range map[string]func(){
		"unsigned": func() { unsigned.AppendAttestation(nil, 0) },
		"negative": func() { signed.AppendAttestation(nil, -1) },
		"beyond":   func() { signed.AppendAttestation(nil, 1) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f()
		}()
	}
}

func TestVerifierIsConcurrencySafe(t *testing.T) {
	v := testVerifier(testRing(t))
	v.roots = newRoots(2)
	var events []*cloudevent.Event
	for i := range 6 {
		batch := run(3)
		for _, e := range batch {
			e.ID = fmt.Appendf(e.ID, "-%d", i)
		}
		attest(t, testSigner(t, fillBroker), testSubject, batch...)
		events = append(events, batch...)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2 * len(events) {
				if _, err := v.Verify(events[(i+5*g)%len(events)], testSubject); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestRecordedTimeText(t *testing.T) {
	at := time.Date(2026, 11, 22, 8, 30, 1, 999, time.FixedZone("", 3600))
	if got := string(AppendRecordedTime(nil, at)); got != "2026-11-22T07:30:01Z" {
		t.Errorf("got %s", got)
	}
}
