package signing

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// The seeds of the producer test keyring, by what the key is.
const (
	fillEvents  = 40 + iota // of shop/checkout, user prefix
	fillAccount             // of shop/checkout, account prefix
	fillOther               // of shop/billing
	fillBounded             // of shop/checkout, for source /shop/checkout and orders.eu.>
	fillLate                // notAfter is the recorded time
	fillEarly               // notBefore is one second after it
	fillRevokedEvents
	fillStranger // not in the keyring
)

func testProducer(t testing.TB, fill byte) *Producer {
	t.Helper()
	prefix := nkeys.PrefixByteUser
	if fill == fillAccount {
		prefix = nkeys.PrefixByteAccount
	}
	p, err := NewProducer(testSeed(t, prefix, fill))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func producerRing(t testing.TB) *keyring.Ring {
	t.Helper()
	key := func(fill byte, change func(k *keyring.Key)) keyring.Key {
		k := keyring.Key{
			ID: testProducer(t, fill).KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleProducer,
			Principal: "shop/checkout", NotBefore: day0, NotAfter: year,
		}
		if change != nil {
			change(&k)
		}
		return k
	}
	keys := append(testRing(t).Keys(),
		key(fillEvents, nil), key(fillAccount, nil),
		key(fillOther, func(k *keyring.Key) { k.Principal = "shop/billing" }),
		key(fillBounded, func(k *keyring.Key) {
			k.Sources, k.Subjects = []string{"/shop/checkout"}, []string{"orders.eu.>"}
		}),
		key(fillLate, func(k *keyring.Key) { k.NotAfter = recorded }),
		key(fillEarly, func(k *keyring.Key) { k.NotBefore = recorded.Add(time.Second) }),
		key(fillRevokedEvents, func(k *keyring.Key) { k.RevokedAt = recorded }),
	)
	ring, err := keyring.New(4, day0, year, keys)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func testProducerVerifier(ring *keyring.Ring) *ProducerVerifier {
	v := NewProducerVerifier(func() *keyring.Ring { return ring })
	v.now = func() time.Time { return recorded }
	return v
}

// unsigned is testEvent as its producer makes it: without what a broker adds.
func unsigned(n int) *cloudevent.Event {
	e := testEvent(n)
	e.DelExt(wire.AttrAuthID)
	e.DelExt(wire.AttrAuthType)
	return e
}

func unsignedPlain(n int) *cloudevent.Event {
	e := plainEvent(n)
	e.DelExt(wire.AttrAuthID)
	e.DelExt(wire.AttrAuthType)
	return e
}

// produce signs events as one batch.
func produce(t testing.TB, p *Producer, subject string, events ...*cloudevent.Event) {
	t.Helper()
	var b ProducerBatch
	for i, e := range events {
		if got, err := b.Add(e, []byte(subject)); got != i || err != nil {
			t.Fatalf("Add: got index %d (%v), want %d", got, err, i)
		}
	}
	b.Sign(p)
	for i, e := range events {
		e.SetExt([]byte(wire.AttrDSSE), b.AppendMaterial(nil, i))
	}
}

// admitted is what a broker makes of signed events: it says who published them and
// attests on top, all in one batch.
func admitted(t testing.TB, events ...*cloudevent.Event) {
	t.Helper()
	for _, e := range events {
		e.SetExt([]byte(wire.AttrAuthID), []byte("shop/checkout"))
		e.SetExt([]byte(wire.AttrAuthType), []byte(wire.DefaultAuthType))
	}
	attest(t, testSigner(t, fillBroker), testSubject, events...)
}

func TestProducerSignature(t *testing.T) {
	ring := producerRing(t)
	v, av := testProducerVerifier(ring), testVerifier(ring)
	for _, fill := range []byte{fillEvents, fillAccount, fillBounded} {
		for _, n := range []int{1, 2, 5, MaxProducerBatch} {
			events := make([]*cloudevent.Event, n)
			for i := range events {
				events[i] = unsigned(i)
				if i%2 == 1 {
					events[i] = unsignedPlain(i)
					events[i].Time = []byte("2026-11-22T08:30:00.120+01:00")
				}
			}
			p := testProducer(t, fill)
			produce(t, p, testSubject, events...)
			for _, attested := range []bool{false, true} {
				if attested {
					admitted(t, events...)
				}
				for i, e := range events {
					got, err := v.Verify(e, testSubject)
					want := ProducerSignature{KeyID: p.KeyID(), Principal: "shop/checkout", RecordedTime: recorded, Batch: n}
					if err != nil || got != want {
						t.Fatalf("event %d of %d, attested %v: got %+v (%v), want %+v", i, n, attested, got, err, want)
					}
					if !attested {
						continue
					}
					if _, err := av.Verify(e, testSubject); err != nil {
						t.Fatalf("attestation of event %d of %d: %v", i, n, err)
					}
				}
			}
		}
	}
}

func TestProducerSignsOnlyWhatIsComplete(t *testing.T) {
	p := testProducer(t, fillEvents)
	for name, change := range map[string]func(e *cloudevent.Event){
		"no id":              func(e *cloudevent.Event) { e.ID = nil },
		"no source":          func(e *cloudevent.Event) { e.Source = nil },
		"no type":            func(e *cloudevent.Event) { e.Type = nil },
		"no datacontenttype": func(e *cloudevent.Event) { e.ContentType = nil },
		"no time":            func(e *cloudevent.Event) { e.Time = nil },
		"no recordedtime":    func(e *cloudevent.Event) { e.DelExt(wire.AttrRecordedTime) },
		"fraction":           func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrRecordedTime), []byte("2026-11-22T07:30:01.5Z")) },
		"other natssubject":  func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrNATSSubject), []byte("orders.us")) },
		"other exacttime":    func(e *cloudevent.Event) { e.SetExt([]byte(AttrExactTime), []byte("x")) },
		"authid":             func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrAuthID), []byte("shop/checkout")) },
		"authtype":           func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrAuthType), []byte("user")) },
		"attestation":        func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrAttestation), []byte("x")) },
		"attestationmaterial": func(e *cloudevent.Event) {
			e.SetExt([]byte(wire.AttrExpanded), []byte("x"))
		},
		"signed already": func(e *cloudevent.Event) { e.SetExt([]byte(wire.AttrDSSE), []byte("x")) },
	} {
		e := unsigned(0)
		change(e)
		if err := p.Sign(e, testSubject); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	if err := p.Sign(unsigned(0), ""); !errors.Is(err, ErrMalformed) {
		t.Errorf("no subject: got %v, want ErrMalformed", err)
	}
	var b ProducerBatch
	for i := range MaxProducerBatch {
		if _, err := b.Add(unsigned(i), []byte(testSubject)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Add(unsigned(99), []byte(testSubject)); !errors.Is(err, ErrBatchFull) {
		t.Errorf("one too many: got %v, want ErrBatchFull", err)
	}
}

func TestProducerSeeds(t *testing.T) {
	for _, prefix := range []nkeys.PrefixByte{nkeys.PrefixByteServer, nkeys.PrefixByteOperator, nkeys.PrefixByteCluster} {
		if _, err := NewProducer(testSeed(t, prefix, 1)); !errors.Is(err, ErrProducerSeed) {
			t.Errorf("%v: got %v, want ErrProducerSeed", prefix, err)
		}
	}
	p := testProducer(t, fillEvents)
	if got := fmt.Sprintf("%v %+v %#v", p, p, p); got != strings.Repeat(p.KeyID()+" ", 2)+p.KeyID() {
		t.Errorf("it prints as %s", got)
	}
}

// Every byte and every attribute of an event that its producer signed and a broker
// attested: one changed byte, one attribute less, one more, and neither signature
// lets it pass. The producer's says nothing of what the broker added afterwards.
func TestEveryByteOfASignedEventCounts(t *testing.T) {
	ring := producerRing(t)
	pv, av := testProducerVerifier(ring), testVerifier(ring)
	tried, accepted := 0, 0
	for _, n := range []int{1, 2, 32} {
		for _, plain := range []bool{false, true} {
			events := make([]*cloudevent.Event, n)
			for i := range events {
				if events[i] = unsigned(i); plain {
					events[i] = unsignedPlain(i)
					events[i].Time = []byte("2026-11-22T08:30:00.120+01:00")
				}
			}
			produce(t, testProducer(t, fillEvents), testSubject, events...)
			admitted(t, events...)
			good := events[n/2]
			if _, err := pv.Verify(good, testSubject); err != nil {
				t.Fatalf("the base case must pass: %v", err)
			}
			try := func(what string, e *cloudevent.Event, subject string, producers, brokers bool) {
				t.Helper()
				tried++
				_, perr := pv.Verify(e, subject)
				_, aerr := av.Verify(e, subject)
				if brokers && aerr == nil {
					accepted++
					t.Errorf("batch of %d: %s: the attestation holds", n, what)
				}
				if producers && perr == nil {
					accepted++
					t.Errorf("batch of %d: %s: the producer signature holds", n, what)
				}
			}
			e, masks := good.Clone(), masks
			if raceEnabled {
				masks = masks[:1]
			}
			flip := func(what string, b []byte, producers, brokers bool) {
				t.Helper()
				for i := range b {
					for _, m := range masks {
						b[i] ^= m
						try(fmt.Sprintf("%s, byte %d", what, i), e, testSubject, producers, brokers)
						b[i] ^= m
					}
				}
			}
			for i, b := range [][]byte{e.ID, e.Source, e.Type, e.ContentType, e.DataSchema, e.Subject, e.Time, e.Data} {
				flip(fmt.Sprint("core attribute ", i), b, true, true)
			}
			for i := range e.Ext {
				name := string(good.Ext[i].Name)
				byBroker := name == wire.AttrAuthID || name == wire.AttrAuthType || name == wire.AttrAttestation
				flip("value of "+name, e.Ext[i].Value, !byBroker, true)
				flip("name of "+name, e.Ext[i].Name, true, true)
				gone := good.Clone()
				gone.DelExt(name)
				try("without "+name, gone, testSubject, !byBroker, true)
			}
			for _, added := range []string{"a", "zz", "mood", "zone", wire.AttrSequence, wire.AttrExpiryTime, wire.AttrPartitionKey, AttrExactTime, "attestation2", "dssematerial2"} {
				if good.Get(added) == nil {
					more := good.Clone()
					more.SetExt([]byte(added), []byte("x"))
					try("with "+added, more, testSubject, true, true)
				}
			}
			more := good.Clone()
			more.SetExt([]byte(wire.AttrExpanded), []byte("x"))
			try("with attestationmaterial", more, testSubject, false, true)
			subject := []byte(testSubject)
			for i := range subject {
				for _, m := range masks {
					subject[i] ^= m
					try("NATS subject", good, string(subject), true, true)
					subject[i] ^= m
				}
			}
			if !e.Equal(good) {
				t.Fatal("the test left the event changed")
			}
		}
	}
	t.Logf("%d mutations, %d accepted", tried, accepted)
}

// A producer signature cannot be taken from an attested event, put onto one, or
// replaced by another that holds.
func TestProducerSignatureIsAttested(t *testing.T) {
	ring := producerRing(t)
	av := testVerifier(ring)
	signed, bare := unsigned(0), unsigned(0)
	produce(t, testProducer(t, fillEvents), testSubject, signed)
	again := signed.Clone()
	again.DelExt(wire.AttrDSSE)
	produce(t, testProducer(t, fillAccount), testSubject, again)
	other := again.Get(wire.AttrDSSE)
	mine := bytes.Clone(signed.Get(wire.AttrDSSE))
	admitted(t, signed)
	admitted(t, bare)

	stripped, replaced := signed.Clone(), signed.Clone()
	stripped.DelExt(wire.AttrDSSE)
	replaced.SetExt([]byte(wire.AttrDSSE), other)
	bare.SetExt([]byte(wire.AttrDSSE), mine)
	for name, e := range map[string]*cloudevent.Event{"taken away": stripped, "replaced": replaced, "added": bare} {
		if _, err := av.Verify(e, testSubject); !errors.Is(err, ErrBadSignature) {
			t.Errorf("%s: got %v, want ErrBadSignature", name, err)
		}
	}
}

// Off the bus both signatures stand beside each other, each under its name.
func TestExpansionOfASignedEvent(t *testing.T) {
	ring := producerRing(t)
	for _, n := range []int{1, 3} {
		events := make([]*cloudevent.Event, n)
		for i := range events {
			events[i] = unsigned(i)
		}
		produce(t, testProducer(t, fillEvents), testSubject, events...)
		admitted(t, events...)
		e := events[n-1]
		if got := ExpandedName(e); got != wire.AttrExpanded {
			t.Fatalf("ExpandedName: got %s", got)
		}
		text, err := Expand(e, testSubject, ring)
		if err != nil {
			t.Fatal(err)
		}
		out := e.Clone()
		out.DelExt(wire.AttrAttestation)
		out.SetExt([]byte(wire.AttrExpanded), []byte(text))
		if err := VerifyDSSE(text, out, testSubject, ring); err != nil {
			t.Fatalf("batch of %d: %v", n, err)
		}
		if _, err := testProducerVerifier(ring).Verify(out, testSubject); err != nil {
			t.Errorf("batch of %d: the producer signature off the bus: %v", n, err)
		}
		stripped := out.Clone()
		stripped.DelExt(wire.AttrDSSE)
		renamed := stripped.Clone()
		renamed.DelExt(wire.AttrExpanded)
		renamed.SetExt([]byte(wire.AttrDSSE), []byte(text))
		for name, e := range map[string]*cloudevent.Event{"stripped": stripped, "stripped and renamed": renamed} {
			if err := VerifyDSSE(text, e, testSubject, ring); !errors.Is(err, ErrBadSignature) {
				t.Errorf("batch of %d, %s: got %v, want ErrBadSignature", n, name, err)
			}
		}
		// The producer's envelope is no attestation, and the broker's no producer signature.
		bare := stripped.Clone()
		bare.DelExt(wire.AttrExpanded)
		if err := VerifyDSSE(string(out.Get(wire.AttrDSSE)), bare, testSubject, ring); !errors.Is(err, ErrKeyNotValid) {
			t.Errorf("producer signature as attestation: got %v, want ErrKeyNotValid", err)
		}
		if _, err := testProducerVerifier(ring).Verify(renamed, testSubject); !errors.Is(err, ErrKeyNotValid) {
			t.Errorf("attestation as producer signature: got %v, want ErrKeyNotValid", err)
		}
	}
}

// An unknown key costs neither hashing nor a curve operation: the digester of the
// claim is never touched.
func TestUnknownKeyCostsNoHashing(t *testing.T) {
	v := testProducerVerifier(producerRing(t))
	for name, fill := range map[string]byte{"unknown": fillStranger, "broker's": 0} {
		e := unsigned(0)
		if fill != 0 {
			produce(t, testProducer(t, fill), testSubject, e)
		} else {
			s := testSigner(t, fillBroker)
			e.SetExt([]byte(wire.AttrDSSE), appendMaterial(nil, []byte("x"), s.KeyID(), make([]byte, 64)))
		}
		var c Claim
		if err := v.Read(&c, e); err == nil {
			t.Errorf("%s key: accepted", name)
		}
		if len(c.d.body)+len(c.d.pae)+len(c.d.sums) != 0 {
			t.Errorf("%s key: something was hashed", name)
		}
	}
}

func TestProducerKeyringExpires(t *testing.T) {
	ring := producerRing(t)
	e := unsigned(0)
	produce(t, testProducer(t, fillEvents), testSubject, e)
	v := testProducerVerifier(ring)
	v.now = func() time.Time { return year }
	if _, err := v.Verify(e, testSubject); !errors.Is(err, ErrNoKeyring) {
		t.Errorf("expired: got %v, want ErrNoKeyring", err)
	}
	if _, err := testProducerVerifier(nil).Verify(e, testSubject); !errors.Is(err, ErrNoKeyring) {
		t.Errorf("none: got %v, want ErrNoKeyring", err)
	}
}
