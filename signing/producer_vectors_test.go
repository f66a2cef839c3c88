package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

const producerVectorFile = "../docs/spec/vectors/producer.json"

// The vector file of producer signatures, read like the one of attestations.
type (
	producerVectors struct {
		Format  string               `json:"format"`
		Note    string               `json:"note"`
		Keyring vectorKeyring        `json:"keyring"`
		Keys    []vectorKey          `json:"keys"`
		Cases   []producerVectorCase `json:"cases"`
	}
	producerVectorCase struct {
		Name        string          `json:"name"`
		Event       json.RawMessage `json:"event"` // CloudEvents JSON format
		NATSSubject string          `json:"natsSubject"`
		Body        string          `json:"body,omitempty"` // of the event as it stands here; absent if it has none
		Leaf        string          `json:"leaf,omitempty"`
		KeyID       string          `json:"keyid,omitempty"` // these three of accepted cases
		Principal   string          `json:"principal,omitempty"`
		Batch       int             `json:"batch,omitempty"`
		Attestation string          `json:"attestation,omitempty"` // result for the broker's attestation, where there is one
		Result      string          `json:"result"`                // for the producer signature
	}
)

func producerResult(err error) string {
	if errors.Is(err, ErrNoSignature) {
		return "noSignature"
	}
	return resultOf(err)
}

func TestProducerVectors(t *testing.T) {
	want := makeProducerVectors(t)
	var file producerVectors
	readVectors(t, producerVectorFile, want, &file)
	ring, _ := file.Keyring.read(t)
	results := map[string]int{}
	for i := range file.Cases {
		c := &file.Cases[i]
		results[c.Result]++
		var e cloudevent.Event
		var scratch cloudevent.Scratch
		if err := e.FromJSON(c.Event, &scratch); err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		if read := producerCase(t, ring, c.Name, &e, c.NATSSubject); !read.equal(c) {
			t.Errorf("%s: got %+v, want %+v", c.Name, read, c)
		}
		if oracle := oracleVerify(&e, c.NATSSubject, ring); (oracle == nil) != (c.Result == "ok") {
			t.Errorf("%s: the oracle says %v", c.Name, oracle)
		}
	}
	for _, r := range []string{"noSignature", "malformed", "unknownKey", "keyNotValid", "badSignature", "ok"} {
		if results[r] == 0 {
			t.Errorf("no case has the result %s", r)
		}
	}
	t.Logf("%d cases: %v", len(file.Cases), results)
}

func (c *producerVectorCase) equal(o *producerVectorCase) bool {
	return c.Body == o.Body && c.Leaf == o.Leaf && c.KeyID == o.KeyID && c.Principal == o.Principal && c.Batch == o.Batch &&
		c.Attestation == o.Attestation && c.Result == o.Result
}

// producerCase is what the verifiers say of e.
func producerCase(t *testing.T, ring *keyring.Ring, name string, e *cloudevent.Event, subject string) *producerVectorCase {
	t.Helper()
	c := &producerVectorCase{Name: name, Event: cloudevent.AppendJSON(nil, e), NATSSubject: subject}
	var d digester
	if _, err := d.digestProducer(e, []byte(subject)); err == nil {
		leaf := sha256.Sum256(d.pae)
		c.Body, c.Leaf = string(d.body), hex.EncodeToString(leaf[:])
	}
	sig, err := testProducerVerifier(ring).Verify(e, subject)
	c.KeyID, c.Principal, c.Batch, c.Result = sig.KeyID, sig.Principal, sig.Batch, producerResult(err)
	if len(e.Get(wire.AttrAttestation)) > 0 {
		_, err := testVerifier(ring).Verify(e, subject)
		c.Attestation = resultOf(err)
	}
	return c
}

type producerVectorWriter struct {
	t    *testing.T
	ring *keyring.Ring
	file producerVectors
}

// add appends a case; what the verifiers say now must be want, and attestation if it
// has one.
func (w *producerVectorWriter) add(name string, e *cloudevent.Event, subject, want, attestation string) {
	w.t.Helper()
	c := producerCase(w.t, w.ring, name, e, subject)
	if c.Result != want || c.Attestation != attestation {
		w.t.Errorf("%s: got %s, attestation %q, want %s, %q", name, c.Result, c.Attestation, want, attestation)
	}
	w.file.Cases = append(w.file.Cases, *c)
}

func (w *producerVectorWriter) signed(fill byte, events ...*cloudevent.Event) *cloudevent.Event {
	w.t.Helper()
	produce(w.t, testProducer(w.t, fill), testSubject, events...)
	return events[0]
}

func makeProducerVectors(t *testing.T) []byte {
	ring := producerRing(t)
	rootSeed := testSeed(t, nkeys.PrefixByteOperator, 9)
	doc, err := ring.Sign(rootSeed)
	if err != nil {
		t.Fatal(err)
	}
	root, err := nkeys.FromSeed(rootSeed)
	if err != nil {
		t.Fatal(err)
	}
	rootID, err := root.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	w := &producerVectorWriter{t: t, ring: ring, file: producerVectors{
		Format: "signet-producer-vectors/1",
		Note: "Written by go test ./signing -run TestProducerVectors -update. The keys are for tests only. " +
			"A case is verified with its natsSubject and the keyring; body and leaf are what a producer signs of the event as it stands in the case. " +
			"attestation is the result for the broker's attestation of the same event.",
		Keyring: vectorKeyring{Root: rootID, Now: recorded.Format(time.RFC3339), Document: string(doc)},
	}}
	for i, about := range []string{
		"shop/checkout", "shop/checkout, an account key", "shop/billing", "shop/checkout, sources /shop/checkout, subjects orders.eu.>",
		"shop/checkout, notAfter is the recorded time", "shop/checkout, notBefore is one second after the recorded time",
		"shop/checkout, revokedAt is the recorded time", "not in the keyring",
	} {
		fill := byte(fillEvents + i)
		w.file.Keys = append(w.file.Keys, vectorKey{ID: testProducer(t, fill).KeyID(), SeedByte: int(fill), About: about})
	}
	w.accepted()
	w.keys()
	w.changed()
	w.forms()
	w.attested()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(&w.file); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (w *producerVectorWriter) accepted() {
	with := func(change func(e *cloudevent.Event)) *cloudevent.Event {
		e := unsignedPlain(0)
		change(e)
		return w.signed(fillEvents, e)
	}
	w.add("single, few attributes", w.signed(fillEvents, unsignedPlain(0)), testSubject, "ok", "")
	w.add("single, all attributes", w.signed(fillEvents, unsigned(0)), testSubject, "ok", "")
	w.add("account key", w.signed(fillAccount, unsignedPlain(0)), testSubject, "ok", "")
	w.add("key with sources and subjects", w.signed(fillBounded, unsignedPlain(0)), testSubject, "ok", "")
	w.add("no data", with(func(e *cloudevent.Event) { e.Data = nil }), testSubject, "ok", "")
	w.add("time with a fraction and an offset (exacttime)", with(func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T08:30:00.120+01:00") }), testSubject, "ok", "")
	w.add("values that bindings encode", with(func(e *cloudevent.Event) { e.SetExt([]byte("mood"), []byte(`50% "x" <&> 東京 🚀`)) }), testSubject, "ok", "")
	derived := with(func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:30:00.120Z") }).Clone()
	derived.SetExt([]byte(wire.AttrNATSSubject), []byte(testSubject))
	derived.SetExt([]byte(AttrExactTime), derived.Time)
	w.add("derived attributes on the wire", derived, testSubject, "ok", "")
	for _, n := range []int{2, 3, 32} {
		events := make([]*cloudevent.Event, n)
		for i := range events {
			events[i] = unsignedPlain(i)
		}
		w.signed(fillEvents, events...)
		for _, i := range []int{0, n - 1} {
			w.add(fmt.Sprintf("leaf %d of %d", i, n), events[i], testSubject, "ok", "")
		}
	}
	e := unsignedPlain(0)
	e.SetExt([]byte(wire.AttrDSSE), cosigned(w.t, e, testProducer(w.t, fillEvents), testProducer(w.t, fillAccount)))
	w.add("two signatures of one principal", e, testSubject, "ok", "")
}

func (w *producerVectorWriter) keys() {
	for _, c := range []struct {
		name string
		fill byte
		want string
	}{
		{"unknown key", fillStranger, "unknownKey"},
		{"key that is over", fillLate, "keyNotValid"},
		{"key not valid yet", fillEarly, "keyNotValid"},
		{"revoked key", fillRevokedEvents, "keyNotValid"},
	} {
		for _, n := range []int{1, 2} {
			w.add(fmt.Sprintf("%s, batch of %d", c.name, n), w.signed(c.fill, []*cloudevent.Event{unsignedPlain(0), unsignedPlain(1)}[:n]...), testSubject, c.want, "")
		}
	}
	e := unsignedPlain(0)
	e.Source = []byte("/shop/other")
	w.add("source outside the key", w.signed(fillBounded, e), testSubject, "keyNotValid", "")
	e = unsignedPlain(0)
	produce(w.t, testProducer(w.t, fillBounded), "orders.us.created", e)
	w.add("subject outside the key", e, "orders.us.created", "keyNotValid", "")
	byBroker := testEvent(0)
	attest(w.t, testSigner(w.t, fillBroker), testSubject, byBroker)
	text, err := Expand(byBroker, testSubject, w.ring)
	if err != nil {
		w.t.Fatal(err)
	}
	byBroker.DelExt(wire.AttrAttestation)
	byBroker.SetExt([]byte(wire.AttrDSSE), []byte(text))
	w.add("a broker's statement", byBroker, testSubject, "keyNotValid", "")
	for _, c := range []struct {
		name string
		by   []byte
		want string
	}{
		{"two signatures, of two principals", []byte{fillEvents, fillOther}, "keyNotValid"},
		{"two signatures, one of an unknown key", []byte{fillEvents, fillStranger}, "unknownKey"},
		{"the same key twice", []byte{fillEvents, fillEvents}, "malformed"},
		{"five signatures", []byte{fillEvents, fillAccount, fillBounded, fillOther, fillLate}, "malformed"},
	} {
		e := unsignedPlain(0)
		var by []*Producer
		for _, fill := range c.by {
			by = append(by, testProducer(w.t, fill))
		}
		e.SetExt([]byte(wire.AttrDSSE), cosigned(w.t, e, by...))
		w.add(c.name, e, testSubject, c.want, "")
	}
}

func (w *producerVectorWriter) changed() {
	fraction := unsigned(0)
	fraction.Time = []byte("2026-11-22T07:30:00.120Z")
	good := w.signed(fillEvents, fraction, unsigned(1))
	set := func(name, value string) func(e *cloudevent.Event) {
		return func(e *cloudevent.Event) { e.SetExt([]byte(name), []byte(value)) }
	}
	del := func(name string) func(e *cloudevent.Event) { return func(e *cloudevent.Event) { e.DelExt(name) } }
	for _, c := range []struct {
		name   string
		want   string
		change func(e *cloudevent.Event)
	}{
		{"id changed", "badSignature", func(e *cloudevent.Event) { e.ID = []byte("other") }},
		{"source changed", "badSignature", func(e *cloudevent.Event) { e.Source = []byte("/shop/other") }},
		{"type changed", "badSignature", func(e *cloudevent.Event) { e.Type = []byte("other") }},
		{"datacontenttype changed", "badSignature", func(e *cloudevent.Event) { e.ContentType = []byte("text/plain") }},
		{"datacontenttype removed", "malformed", func(e *cloudevent.Event) { e.ContentType = nil }},
		{"dataschema removed", "badSignature", func(e *cloudevent.Event) { e.DataSchema = nil }},
		{"subject removed", "badSignature", func(e *cloudevent.Event) { e.Subject = nil }},
		{"fraction of time changed", "badSignature", func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:30:00.121Z") }},
		{"time removed", "malformed", func(e *cloudevent.Event) { e.Time = nil }},
		{"data changed", "badSignature", func(e *cloudevent.Event) { e.Data = []byte(`{"amount":1}`) }},
		{"data removed", "badSignature", func(e *cloudevent.Event) { e.Data = nil }},
		{"recordedtime changed", "badSignature", set(wire.AttrRecordedTime, "2026-11-22T07:30:02Z")},
		{"recordedtime removed", "malformed", del(wire.AttrRecordedTime)},
		{"recordedtime with a fraction", "malformed", set(wire.AttrRecordedTime, "2026-11-22T07:30:01.0Z")},
		{"expirytime removed", "badSignature", del(wire.AttrExpiryTime)},
		{"sequence changed", "badSignature", set(wire.AttrSequence, "1")},
		{"application attribute changed", "badSignature", set("zone", "c")},
		{"application attribute removed", "badSignature", del("zone")},
		{"attribute added", "badSignature", set("mood", "good")},
		{"another natssubject on the wire", "malformed", set(wire.AttrNATSSubject, "orders.us.created")},
		{"another exacttime on the wire", "malformed", set(AttrExactTime, "2026-11-22T07:30:00.121Z")},
		{"signature removed", "noSignature", del(wire.AttrDSSE)},
	} {
		e := good.Clone()
		c.change(e)
		w.add(c.name, e, testSubject, c.want, "")
	}
	w.add("another NATS subject", good, "orders.us.created", "badSignature", "")
	plain := w.signed(fillEvents, unsignedPlain(0))
	for _, name := range []string{wire.AttrExpiryTime, wire.AttrPartitionKey, wire.AttrSequence} {
		e := plain.Clone()
		e.SetExt([]byte(name), []byte("2026-11-22T07:30:00Z"))
		w.add(name+" added", e, testSubject, "badSignature", "")
	}
}

func (w *producerVectorWriter) forms() {
	single := w.signed(fillEvents, unsignedPlain(0))
	put := func(name, want string, text []byte) {
		w.t.Helper()
		e := single.Clone()
		e.SetExt([]byte(wire.AttrDSSE), text)
		w.add(name, e, testSubject, want, "")
	}
	forms := otherForms(w.t, single.Get(wire.AttrDSSE))
	var names []string
	for name := range forms {
		if !strings.Contains(name, "line end") { // no JSON text or header can carry one
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		put("form: "+name, "malformed", forms[name])
	}
	other := unsignedPlain(1)
	w.signed(fillEvents, other)
	put("signature of another event", "badSignature", other.Get(wire.AttrDSSE))
	put("keyid of another key of the principal", "badSignature", edited(w.t, single.Get(wire.AttrDSSE), func(s string) string {
		return strings.Replace(s, testProducer(w.t, fillEvents).KeyID(), testProducer(w.t, fillAccount).KeyID(), 1)
	}))
	pair := []*cloudevent.Event{unsignedPlain(0), unsignedPlain(1)}
	w.signed(fillEvents, pair...)
	put("a neighbour's place in the tree", "badSignature", pair[1].Get(wire.AttrDSSE))
}

// attested are events that a broker has taken in.
func (w *producerVectorWriter) attested() {
	make := func() *cloudevent.Event {
		e := w.signed(fillEvents, unsignedPlain(0))
		admitted(w.t, e)
		return e
	}
	w.add("attested on top", make(), testSubject, "ok", "ok")
	e := make()
	e.SetExt([]byte(wire.AttrAuthID), []byte("shop/other"))
	w.add("attested, authid changed", e, testSubject, "ok", "badSignature")
	e = make()
	e.DelExt(wire.AttrDSSE)
	w.add("attested, producer signature taken away", e, testSubject, "noSignature", "badSignature")
	e = make()
	bare := e.Clone()
	bare.DelExt(wire.AttrDSSE)
	for _, name := range []string{wire.AttrAttestation, wire.AttrAuthID, wire.AttrAuthType} {
		bare.DelExt(name)
	}
	w.signed(fillAccount, bare)
	e.SetExt([]byte(wire.AttrDSSE), bare.Get(wire.AttrDSSE))
	w.add("attested, producer signature replaced by another that holds", e, testSubject, "ok", "badSignature")
	e = plainEvent(0)
	admitted(w.t, e)
	e.SetExt([]byte(wire.AttrDSSE), w.signed(fillEvents, unsignedPlain(0)).Get(wire.AttrDSSE))
	w.add("attested, producer signature put on afterwards", e, testSubject, "ok", "badSignature")
	e = make()
	e.SetExt([]byte(wire.AttrExpanded), []byte("e30="))
	w.add("attested, attestationmaterial beside it", e, testSubject, "ok", "malformed")
}
