package signing

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"pgregory.net/rapid"

	gh "github.com/signetbus/signet/examples/githubwebhooks"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// failer is the part of testing.TB that rapid has too.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// The ways that an event goes. Each writes it as a bridge would and reads it back.
var hops = []struct {
	name string
	via  func(t failer, e *cloudevent.Event) *cloudevent.Event
}{
	{"NATS", viaNATS},
	{"JSON", viaJSON},
	{"HTTP", viaHTTP},
	{"Kafka", viaKafka},
	{"NATS again", viaNATS},
}

func viaNATS(t failer, e *cloudevent.Event) *cloudevent.Event {
	t.Helper()
	short := e.Clone()
	if len(e.Get(wire.AttrAttestation)) > 0 {
		Shorten(short)
	}
	h := map[string][]string{}
	for line := range strings.SplitSeq(strings.TrimSuffix(string(cloudevent.AppendHeaders(nil, short)), "\r\n"), "\r\n") {
		name, value, _ := strings.Cut(line, ": ")
		h[name] = append(h[name], value)
	}
	var out cloudevent.Event
	if err := out.FromHeaderMap(h, e.Data); err != nil {
		t.Fatalf("NATS: %v", err)
	}
	Restore(&out)
	return out.Clone()
}

func viaJSON(t failer, e *cloudevent.Event) *cloudevent.Event {
	t.Helper()
	var out cloudevent.Event
	if err := out.FromJSON(cloudevent.AppendJSON(nil, e), nil); err != nil {
		t.Fatalf("JSON: %v", err)
	}
	return out.Clone()
}

// viaHTTP goes through the writer and the reader of net/http, with what they do to
// header names and values.
func viaHTTP(t failer, e *cloudevent.Event) *cloudevent.Event {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, "http://bridge.example/", bytes.NewReader(e.Data))
	if err != nil {
		t.Fatalf("HTTP: %v", err)
	}
	if err := cloudevent.AppendHTTPHeader(req.Header, e); err != nil {
		t.Fatalf("HTTP: %v", err)
	}
	var wire bytes.Buffer
	if err := req.Write(&wire); err != nil {
		t.Fatalf("HTTP: %v", err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&wire))
	if err != nil {
		t.Fatalf("HTTP: %v", err)
	}
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatalf("HTTP: %v", err)
	}
	var out cloudevent.Event
	if err := out.FromHTTPHeader(got.Header, body); err != nil {
		t.Fatalf("HTTP: %v", err)
	}
	return out.Clone()
}

func viaKafka(t failer, e *cloudevent.Event) *cloudevent.Event {
	t.Helper()
	r, err := e.Kafka()
	if err != nil {
		t.Fatalf("Kafka: %v", err)
	}
	if r.Value == nil {
		t.Fatalf("Kafka: a tombstone")
	}
	var out cloudevent.Event
	if err := out.FromKafka(&r); err != nil {
		t.Fatalf("Kafka: %v", err)
	}
	return out.Clone()
}

// travel sends e, as it stands on the bus, through every hop and checks at each that
// it is the same, and that the attestation, the producer signature if it has one, and
// the receipt hold. Then the same with the expanded form, as a reader without Signet
// wants it.
func travel(t failer, e *cloudevent.Event, ring *keyring.Ring) {
	t.Helper()
	held := func() *keyring.Ring { return ring }
	broker, producer := NewArchiveVerifier(ring), NewProducerVerifier(held)
	producer.now = broker.now
	sum, err := EventDigest(e, testSubject)
	if err != nil {
		t.Fatalf("digest: %v", err)
	}
	receipt := &Receipt{Subject: testSubject, Event: sum[:]}
	text, err := Expand(e, testSubject, ring)
	if err != nil {
		t.Fatalf("expand: %v", err)
	}
	derived, err := DerivedAttributes(e, testSubject)
	if err != nil {
		t.Fatalf("derived: %v", err)
	}
	off := e.Clone()
	off.SetExt([]byte(ExpandedName(e)), []byte(text))
	off.DelExt(wire.AttrAttestation)
	for _, a := range derived {
		off.SetExt(a.Name, a.Value)
	}
	signed := len(e.Get(wire.AttrDSSE)) > 0
	at, out := e, off
	for _, hop := range hops {
		at, out = hop.via(t, at), hop.via(t, out)
		if !at.Equal(e) || !out.Equal(off) {
			t.Fatalf("after %s:\n%s\n%s", hop.name, cloudevent.AppendJSON(nil, at), cloudevent.AppendJSON(nil, e))
		}
		if _, err := broker.Verify(at, testSubject); err != nil {
			t.Fatalf("after %s: %v", hop.name, err)
		}
		if err := VerifyDSSE(text, out, testSubject, ring); err != nil {
			t.Fatalf("after %s, expanded: %v", hop.name, err)
		}
		if err := receipt.Covers(at); err != nil {
			t.Fatalf("after %s, the receipt: %v", hop.name, err)
		}
		if err := receipt.Covers(out); err != nil {
			t.Fatalf("after %s, expanded, the receipt: %v", hop.name, err)
		}
		if signed {
			if _, err := producer.Verify(at, testSubject); err != nil {
				t.Fatalf("after %s, the producer: %v", hop.name, err)
			}
		}
	}
}

// onTheBus signs and attests events as one batch each.
func onTheBus(t failer, events []*cloudevent.Event, p *Producer, s *Signer) {
	t.Helper()
	if p != nil {
		var b ProducerBatch
		for _, e := range events {
			e.DelExt(wire.AttrAuthID)
			e.DelExt(wire.AttrAuthType)
			if _, err := b.Add(e, []byte(testSubject)); err != nil {
				t.Fatalf("producer: %v", err)
			}
		}
		b.Sign(p)
		for i, e := range events {
			e.SetExt([]byte(wire.AttrDSSE), b.AppendMaterial(nil, i))
		}
	}
	var b Batch
	for _, e := range events {
		e.SetExt([]byte(wire.AttrAuthID), []byte("shop/checkout"))
		e.SetExt([]byte(wire.AttrAuthType), []byte(wire.DefaultAuthType))
		if err := e.Validate(); err != nil {
			t.Fatalf("the generator: %v", err)
		}
		if b.Add(e, []byte(testSubject)) < 0 {
			t.Fatalf("not attested: %s", cloudevent.AppendJSON(nil, e))
		}
	}
	b.Sign(s)
	for i, e := range events {
		e.SetExt([]byte(wire.AttrAttestation), b.AppendAttestation(nil, i))
	}
}

// Runes that one binding or another treats in a way of its own.
var awkward = rapid.SampledFrom([]rune("aZ09  %%\"\\/<>&:=,;+_-.'`{}()é日\u2028ß🙂\u00a0\ufeff"))

func drawValue(t *rapid.T, label string) []byte {
	return []byte(rapid.StringOfN(awkward, 1, 40, -1).Draw(t, label))
}

func drawEvent(t *rapid.T) *cloudevent.Event {
	e := &cloudevent.Event{
		ID: drawValue(t, "id"), Source: []byte("/shop/checkout"), Type: drawValue(t, "type"),
		ContentType: []byte(rapid.SampledFrom([]string{"application/json", "application/octet-stream", "text/plain; charset=\"utf-8\"", "image/png"}).Draw(t, "content type")),
		Time:        []byte(rapid.SampledFrom([]string{"2026-11-22T07:30:01Z", "2026-11-22T07:30:00.120Z", "2026-11-22T08:30:00+01:00"}).Draw(t, "time")),
		Data:        rapid.OneOf(rapid.Just([]byte(nil)), rapid.Just([]byte{}), rapid.SliceOf(rapid.Byte())).Draw(t, "data"),
	}
	if rapid.Bool().Draw(t, "has subject") {
		e.Subject = drawValue(t, "subject")
	}
	if rapid.Bool().Draw(t, "has schema") {
		e.DataSchema = []byte("https://schemas.example.com/a%20b?x=%22#f")
	}
	for name := range rapid.MapOfN(rapid.StringMatching(`x[a-z0-9]{0,18}`), rapid.Just(true), 0, 8).Draw(t, "names") {
		e.SetExt([]byte(name), drawValue(t, name))
	}
	for _, name := range []string{wire.AttrPartitionKey, wire.AttrSequence, wire.AttrExpiryTime} {
		if rapid.Bool().Draw(t, "has "+name) {
			e.SetExt([]byte(name), drawValue(t, name))
		}
	}
	e.SetExt([]byte(wire.AttrRecordedTime), []byte("2026-11-22T07:30:01Z"))
	return e
}

// TestRoundTripProperty: any event that the broker takes keeps its signatures from
// NATS over JSON, HTTP and Kafka and back. rapid prints the seed of what fails.
func TestRoundTripProperty(t *testing.T) {
	ring, s, p := producerRing(t), testSigner(t, fillBroker), testProducer(t, fillEvents)
	rapid.Check(t, func(t *rapid.T) {
		events := make([]*cloudevent.Event, rapid.IntRange(1, 5).Draw(t, "batch"))
		for i := range events {
			events[i] = drawEvent(t)
		}
		key := p
		if !rapid.Bool().Draw(t, "signed by its producer") {
			key = nil
		}
		onTheBus(t, events, key, s)
		for _, e := range events {
			travel(t, e, ring)
		}
	})
}

// TestRoundTripRealEvents: the same with real payloads, one producer signature for up
// to 32.
func TestRoundTripRealEvents(t *testing.T) {
	ring, s, p := producerRing(t), testSigner(t, fillBroker), testProducer(t, fillEvents)
	var events []*cloudevent.Event
	for d := range gh.Deliveries() {
		e := &cloudevent.Event{
			ID: fmt.Appendf(nil, "delivery-%d", len(events)), Source: []byte("/shop/checkout"), Type: []byte("com.github." + d.Event),
			ContentType: []byte("application/json"), Time: []byte("2026-11-22T07:30:00Z"), Data: d.Payload,
		}
		if d.Action != "" {
			e.SetExt([]byte("action"), []byte(d.Action))
		}
		e.SetExt([]byte(wire.AttrRecordedTime), []byte("2026-11-22T07:30:01Z"))
		events = append(events, e)
	}
	for i := 0; i < len(events); i += MaxProducerBatch {
		batch := events[i:min(i+MaxProducerBatch, len(events))]
		key := p
		if i/MaxProducerBatch%2 == 1 {
			key = nil
		}
		onTheBus(t, batch, key, s)
	}
	for _, e := range events {
		travel(t, e, ring)
	}
	t.Logf("%d real events, %d hops each", len(events), len(hops))
}

// TestRoundTripLargest: as many attributes, as many bytes of them, and as much data as
// an event can have.
func TestRoundTripLargest(t *testing.T) {
	ring, s, p := producerRing(t), testSigner(t, fillBroker), testProducer(t, fillEvents)
	many := plainEvent(1)
	many.Time = []byte("2026-11-22T07:30:00.5Z") // so that exacttime is derived too
	const room = 3                               // attestation, and off the bus natssubject and exacttime
	for i := 0; len(many.Ext) < cloudevent.MaxExtensions-room; i++ {
		many.SetExt(fmt.Appendf(nil, "x%019d", i), []byte("é %"))
	}
	long := plainEvent(2)
	long.SetExt([]byte("long"), bytes.Repeat([]byte("é"), 400))
	big := plainEvent(3)
	big.Data = bytes.Repeat([]byte{0, 0xff, '"', '\n'}, 1<<18)
	onTheBus(t, []*cloudevent.Event{many}, nil, s)
	onTheBus(t, []*cloudevent.Event{long, big}, p, s)
	for _, e := range []*cloudevent.Event{many, long, big} {
		travel(t, e, ring)
	}
}
