package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

var update = flag.Bool("update", false, "write docs/spec/vectors/attestation.json")

const vectorFile = "../docs/spec/vectors/attestation.json"

// The vector file. Any implementation in any language can read it: keyring is
// verified against root at now, then each case gives result.
type (
	vectors struct {
		Format  string        `json:"format"`
		Note    string        `json:"note"`
		Keyring vectorKeyring `json:"keyring"`
		Keys    []vectorKey   `json:"keys"`
		Trees   []vectorTree  `json:"trees"`
		Cases   []vectorCase  `json:"cases"`
		Headers []vectorBlock `json:"headers"`
	}
	vectorKeyring struct {
		Root     string `json:"root"`
		Now      string `json:"now"`
		Document string `json:"document"`
	}
	vectorKey struct {
		ID       string `json:"id"`
		SeedByte int    `json:"seedByte"` // the 32 bytes of the raw seed all are this
		About    string `json:"about"`
	}
	vectorTree struct {
		Leaves []string `json:"leaves"`
		Root   string   `json:"root"`
		Note   string   `json:"note"`
	}
	// vectorBlock is an event as it stands in NATS headers, and what a reader makes of it.
	vectorBlock struct {
		Name        string          `json:"name"`
		Headers     []string        `json:"headers"` // without NATS/1.0
		Data        []byte          `json:"data_base64"`
		NATSSubject string          `json:"natsSubject"`
		Event       json.RawMessage `json:"event"`
		Result      string          `json:"result"`
	}
	vectorCase struct {
		Name         string          `json:"name"`
		Event        json.RawMessage `json:"event"` // CloudEvents JSON format
		NATSSubject  string          `json:"natsSubject"`
		Body         string          `json:"body,omitempty"` // of the event as it stands here; absent if it has none
		Leaf         string          `json:"leaf,omitempty"`
		DSSEMaterial string          `json:"dssematerial,omitempty"` // of accepted cases
		Result       string          `json:"result"`
	}
)

var resultNames = []struct {
	err  error
	name string
}{
	{ErrMissing, "missing"},
	{ErrMalformed, "malformed"},
	{ErrUnknownKey, "unknownKey"},
	{ErrKeyNotValid, "keyNotValid"},
	{ErrBadSignature, "badSignature"},
}

func resultOf(err error) string {
	for _, r := range resultNames {
		if errors.Is(err, r.err) {
			return r.name
		}
	}
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// readVectors reads a vector file, which must be want, and is written anew with -update.
func readVectors(t *testing.T, name string, want []byte, into any) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the vector file is stale: run go test ./signing -run %s -update, and review the difference: it is a change of format", t.Name())
	}
	dec := json.NewDecoder(bytes.NewReader(got))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		t.Fatal(err)
	}
}

// read verifies the keyring of a vector file at its time.
func (k *vectorKeyring) read(t *testing.T) (*keyring.Ring, time.Time) {
	t.Helper()
	now, err := time.Parse(time.RFC3339, k.Now)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Parse([]byte(k.Document), k.Root, now)
	if err != nil {
		t.Fatal(err)
	}
	return ring, now
}

func TestVectors(t *testing.T) {
	want := makeVectors(t)
	var file vectors
	readVectors(t, vectorFile, want, &file)
	ring, now := file.Keyring.read(t)
	v := NewVerifier(func() *keyring.Ring { return ring })
	v.now = func() time.Time { return now }
	results := make(map[string]int)
	for _, c := range file.Cases {
		results[c.Result]++
		checkVector(t, v, ring, &c)
	}
	for _, r := range append(resultNames, struct {
		err  error
		name string
	}{nil, "ok"}) {
		if results[r.name] == 0 {
			t.Errorf("no case has the result %s", r.name)
		}
	}
	t.Logf("%d cases: %v", len(file.Cases), results)
	for i := range file.Headers {
		checkBlock(t, v, &file.Headers[i])
	}
}

func checkBlock(t *testing.T, v *Verifier, b *vectorBlock) {
	t.Helper()
	var h wire.Headers
	if err := h.Parse([]byte(wire.HeaderLine + strings.Join(b.Headers, "\r\n") + "\r\n\r\n")); err != nil {
		t.Errorf("%s: %v", b.Name, err)
		return
	}
	var e cloudevent.Event
	if err := e.FromHeaders(&h, b.Data, nil); err != nil {
		t.Errorf("%s: %v", b.Name, err)
		return
	}
	Restore(&e)
	if got := cloudevent.AppendJSON(nil, &e); !bytes.Equal(compactJSON(t, b.Event), got) {
		t.Errorf("%s: restored %s, want %s", b.Name, got, b.Event)
	}
	if _, err := v.Verify(&e, b.NATSSubject); resultOf(err) != b.Result {
		t.Errorf("%s: got %v, want %s", b.Name, err, b.Result)
	}
}

func compactJSON(t *testing.T, in []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, in); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func checkVector(t *testing.T, v *Verifier, ring *keyring.Ring, c *vectorCase) {
	t.Helper()
	var e cloudevent.Event
	var scratch cloudevent.Scratch
	if err := e.FromJSON(c.Event, &scratch); err != nil {
		t.Errorf("%s: %v", c.Name, err)
		return
	}
	if _, err := v.Verify(&e, c.NATSSubject); resultOf(err) != c.Result {
		t.Errorf("%s: got %v, want %s", c.Name, err, c.Result)
	}
	if c.Body != "" {
		var d digester
		if _, err := d.digest(&e, []byte(c.NATSSubject)); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		if leaf := sha256.Sum256(d.pae); string(d.body) != c.Body || hex.EncodeToString(leaf[:]) != c.Leaf {
			t.Errorf("%s: got body %s, leaf %x; want %s, %s", c.Name, d.body, leaf, c.Body, c.Leaf)
		}
	}
	if c.Result != "ok" {
		return
	}
	material, err := Expand(&e, c.NATSSubject, ring)
	if err != nil || material != c.DSSEMaterial {
		t.Errorf("%s: Expand: got %s (%v), want %s", c.Name, material, err, c.DSSEMaterial)
	}
	if err := VerifyDSSE(c.DSSEMaterial, &e, c.NATSSubject, ring); err != nil {
		t.Errorf("%s: VerifyDSSE: %v", c.Name, err)
	}
}

// vectorWriter collects cases.
type vectorWriter struct {
	t    *testing.T
	ring *keyring.Ring
	v    *Verifier
	file vectors
}

func makeVectors(t *testing.T) []byte {
	ring := testRing(t)
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
	w := &vectorWriter{t: t, ring: ring, v: testVerifier(ring), file: vectors{
		Format: "signet-attestation-vectors/1",
		Note: "Written by go test ./signing -run TestVectors -update. The keys are for tests only. " +
			"A case is verified with its natsSubject and the keyring; body and leaf belong to the event as it stands in the case.",
		Keyring: vectorKeyring{Root: rootID, Now: recorded.Format(time.RFC3339), Document: string(doc)},
	}}
	about := map[byte]string{
		fillBroker: "broker", fillExpired: "broker, notAfter is the recorded time", fillRevoked: "broker, revokedAt is the recorded time",
		fillProducer: "producer", fillUnknown: "not in the keyring", fillNotYet: "broker, notBefore is one second after the recorded time",
	}
	for fill := byte(1); fill <= fillNotYet; fill++ {
		w.file.Keys = append(w.file.Keys, vectorKey{ID: w.signer(fill).KeyID(), SeedByte: int(fill), About: about[fill]})
	}
	w.trees()
	w.accepted()
	w.keyRefusals()
	w.eventRefusals()
	w.textRefusals()
	w.headers()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(&w.file); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (w *vectorWriter) signer(fill byte) *Signer {
	if fill != fillProducer {
		return testSigner(w.t, fill)
	}
	s, err := NewSigner(testSeed(w.t, nkeys.PrefixByteAccount, fill))
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *vectorWriter) trees() {
	for _, n := range []int{2, 3, 7, 32} {
		tr := tree{n: n}
		v := vectorTree{}
		for i := range n {
			tr.nodes[i] = leafOf(fmt.Appendf(nil, "leaf %d", i))
			v.Leaves = append(v.Leaves, hex.EncodeToString(tr.nodes[i][:]))
		}
		root := *tr.build()
		v.Root, v.Note = hex.EncodeToString(root[:]), string(appendNote(nil, n, &root))
		w.file.Trees = append(w.file.Trees, v)
	}
}

// add appends a case; what the verifier says now must be want.
func (w *vectorWriter) add(name string, e *cloudevent.Event, subject, want string) {
	w.t.Helper()
	c := vectorCase{Name: name, Event: cloudevent.AppendJSON(nil, e), NATSSubject: subject, Result: want}
	var d digester
	if _, err := d.digest(e, []byte(subject)); err == nil {
		leaf := sha256.Sum256(d.pae)
		c.Body, c.Leaf = string(d.body), hex.EncodeToString(leaf[:])
	}
	if _, err := w.v.Verify(e, subject); resultOf(err) != want {
		w.t.Errorf("%s: got %v, want %s", name, err, want)
	}
	if want == "ok" {
		var err error
		if c.DSSEMaterial, err = Expand(e, subject, w.ring); err != nil {
			w.t.Fatal(err)
		}
	}
	w.file.Cases = append(w.file.Cases, c)
}

func (w *vectorWriter) attested(events ...*cloudevent.Event) []*cloudevent.Event {
	w.t.Helper()
	attest(w.t, testSigner(w.t, fillBroker), testSubject, events...)
	return events
}

func (w *vectorWriter) accepted() {
	with := func(change func(e *cloudevent.Event)) *cloudevent.Event {
		e := plainEvent(0)
		change(e)
		return w.attested(e)[0]
	}
	w.add("single, few attributes", w.attested(plainEvent(0))[0], testSubject, "ok")
	w.add("single, all attributes", w.attested(testEvent(0))[0], testSubject, "ok")
	w.add("no data", with(func(e *cloudevent.Event) { e.Data = nil }), testSubject, "ok")
	w.add("binary data", with(func(e *cloudevent.Event) { e.Data, e.ContentType = []byte{0, 1, 0xff, '\r', '\n'}, nil }), testSubject, "ok")
	w.add("no time", with(func(e *cloudevent.Event) { e.Time = nil }), testSubject, "ok")
	w.add("values that bindings encode", with(func(e *cloudevent.Event) {
		e.Subject = []byte(`Zoë 50% "x" <&> 東京 🚀`)
		e.SetExt([]byte("mood"), []byte(" spaces at both ends "))
	}), testSubject, "ok")
	w.add("time with a fraction (exacttime)", with(func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:30:00.120Z") }), testSubject, "ok")
	w.add("time with an offset (exacttime)", with(func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T08:30:00+01:00") }), testSubject, "ok")
	onWire := with(func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:30:00.120Z") }).Clone()
	onWire.SetExt([]byte(wire.AttrNATSSubject), []byte(testSubject))
	onWire.SetExt([]byte(AttrExactTime), onWire.Time)
	w.add("derived attributes on the wire", onWire, testSubject, "ok")
	for _, n := range []int{2, 3, 5, 32} {
		events := run(n)
		for i := range events {
			events[i] = plainEvent(i)
		}
		w.attested(events...)
		for _, i := range []int{0, n / 2, n - 1} {
			w.add(fmt.Sprintf("leaf %d of %d", i, n), events[i], testSubject, "ok")
		}
	}
}

// headers adds events as a broker writes them, and as somebody else might.
func (w *vectorWriter) headers() {
	add := func(name, want string, e *cloudevent.Event, change func(*cloudevent.Event)) {
		w.t.Helper()
		short := w.attested(e)[0].Clone()
		Shorten(short)
		change(short)
		lines := strings.Split(strings.TrimSuffix(string(cloudevent.AppendHeaders(nil, short)), "\r\n"), "\r\n")
		Restore(short)
		if _, err := w.v.Verify(short, testSubject); resultOf(err) != want {
			w.t.Errorf("%s: got %v, want %s", name, err, want)
		}
		w.file.Headers = append(w.file.Headers, vectorBlock{
			Name: name, Headers: lines, Data: short.Data, NATSSubject: testSubject, Event: cloudevent.AppendJSON(nil, short), Result: want,
		})
	}
	raw := func() *cloudevent.Event { // as of a client that sends bytes and nothing else
		e := plainEvent(0)
		e.ContentType, e.Time = []byte(wire.DefaultContentType), e.Get(wire.AttrRecordedTime)
		return e
	}
	nothing := func(*cloudevent.Event) {}
	add("all that can be derived is left out", "ok", raw(), nothing)
	add("the time is the client's: recordedtime stays", "ok", plainEvent(0), nothing)
	add("written out in full", "ok", raw(), Restore)
	add("another content type", "badSignature", raw(), func(e *cloudevent.Event) { e.ContentType = []byte("text/plain") })
	add("another authtype", "badSignature", raw(), func(e *cloudevent.Event) { e.SetExt(nameAuthType, []byte("user")) })
	add("recordedtime taken away", "badSignature", plainEvent(0), func(e *cloudevent.Event) { e.DelExt(wire.AttrRecordedTime) })
	add("time and recordedtime taken away", "malformed", raw(), func(e *cloudevent.Event) { e.Time = nil })
	add("the time moved, and recordedtime with it", "badSignature", raw(), func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:29:59Z") })
}

func (w *vectorWriter) keyRefusals() {
	for _, c := range []struct {
		name string
		fill byte
		want string
	}{
		{"unknown key", fillUnknown, "unknownKey"},
		{"expired key", fillExpired, "keyNotValid"},
		{"revoked key", fillRevoked, "keyNotValid"},
		{"key not valid yet", fillNotYet, "keyNotValid"},
		{"producer key", fillProducer, "keyNotValid"},
	} {
		for _, n := range []int{1, 2} {
			events := []*cloudevent.Event{plainEvent(0), plainEvent(1)}[:n]
			attest(w.t, w.signer(c.fill), testSubject, events...)
			w.add(fmt.Sprintf("%s, batch of %d", c.name, n), events[0], testSubject, c.want)
		}
	}
}

func (w *vectorWriter) eventRefusals() {
	fraction := testEvent(0)
	fraction.Time = []byte("2026-11-22T07:30:00.120Z")
	good := w.attested(fraction, testEvent(1))[0]
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
		{"datacontenttype removed", "badSignature", func(e *cloudevent.Event) { e.ContentType = nil }},
		{"dataschema changed", "badSignature", func(e *cloudevent.Event) { e.DataSchema = []byte("https://schemas.example.com/order/2") }},
		{"subject removed", "badSignature", func(e *cloudevent.Event) { e.Subject = nil }},
		{"time changed by one second", "badSignature", func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:30:01.120Z") }},
		{"fraction of time changed", "badSignature", func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:30:00.121Z") }},
		{"fraction of time removed", "badSignature", func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T07:30:00Z") }},
		{"time in another zone", "badSignature", func(e *cloudevent.Event) { e.Time = []byte("2026-11-22T08:30:00.120+01:00") }},
		{"time is no time", "malformed", func(e *cloudevent.Event) { e.Time = []byte("yesterday") }},
		{"data changed", "badSignature", func(e *cloudevent.Event) { e.Data = []byte(`{"amount":1}`) }},
		{"data removed", "badSignature", func(e *cloudevent.Event) { e.Data = nil }},
		{"authid changed", "badSignature", set(wire.AttrAuthID, "shop/other")},
		{"authid removed", "malformed", del(wire.AttrAuthID)},
		{"authtype changed", "badSignature", set(wire.AttrAuthType, "user")},
		{"authtype removed", "malformed", del(wire.AttrAuthType)},
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
		{"dssematerial beside the attestation", "malformed", set(wire.AttrDSSE, "e30=")},
		{"attestation removed", "missing", del(wire.AttrAttestation)},
	} {
		e := good.Clone()
		c.change(e)
		w.add(c.name, e, testSubject, c.want)
	}
	w.add("another NATS subject", good, "orders.us.created", "badSignature")
	added := w.attested(plainEvent(0))[0]
	for _, name := range []string{wire.AttrExpiryTime, wire.AttrPartitionKey, wire.AttrSequence} {
		e := added.Clone()
		e.SetExt([]byte(name), []byte("2026-11-22T07:30:00Z"))
		w.add(name+" added", e, testSubject, "badSignature")
	}
}

func (w *vectorWriter) textRefusals() {
	batch := w.attested(plainEvent(0), plainEvent(1), plainEvent(2), plainEvent(3), plainEvent(4))
	single := w.attested(plainEvent(0))[0]
	parse := func(e *cloudevent.Event) compact {
		c, err := parseText(e.Get(wire.AttrAttestation), new([maxCompact]byte))
		if err != nil {
			w.t.Fatal(err)
		}
		return c
	}
	text := func(name, want string, e *cloudevent.Event, attestation []byte) {
		w.t.Helper()
		e = e.Clone()
		e.SetExt([]byte(wire.AttrAttestation), attestation)
		w.add(name, e, testSubject, want)
	}
	edit := func(name, want string, change func(c *compact)) {
		w.t.Helper()
		c := parse(batch[1])
		change(&c)
		text(name, want, batch[1], c.appendText(nil))
	}
	text("attestation of another event of the batch", "badSignature", batch[1], batch[2].Get(wire.AttrAttestation))
	edit("another index", "badSignature", func(c *compact) { c.index = 0 })
	edit("another size", "badSignature", func(c *compact) { c.size = 6 })
	edit("path in another order", "badSignature", func(c *compact) {
		c.path = append(bytes.Clone(c.path[sumBytes:]), c.path[:sumBytes]...)
	})
	edit("inner node as a leaf", "badSignature", func(c *compact) { c.index, c.size, c.path = 0, 2, c.path[2*sumBytes:] })
	edit("root signature changed", "badSignature", func(c *compact) { c.sig = bytes.Clone(c.sig); c.sig[0] ^= 1 })
	edit("root signature as a bare signature", "badSignature", func(c *compact) { c.size, c.path = 1, nil })
	edit("index is size", "malformed", func(c *compact) { c.index = c.size })
	edit("size 33", "malformed", func(c *compact) { c.size = 33 })
	edit("size 0", "malformed", func(c *compact) { c.size, c.index = 0, 0 })
	edit("path too short", "malformed", func(c *compact) { c.path = c.path[sumBytes:] })
	edit("path too long", "malformed", func(c *compact) { c.path = append(bytes.Clone(c.path), c.path[:sumBytes]...) })
	edit("trailing byte", "malformed", func(c *compact) { c.sig = append(bytes.Clone(c.sig), 0) })
	edit("cut by one byte", "malformed", func(c *compact) { c.sig = c.sig[:63] })
	s := string(single.Get(wire.AttrAttestation))
	c := parse(single)
	c.sig = bytes.Clone(c.sig)
	c.sig[63] ^= 1
	text("bare signature changed", "badSignature", single, c.appendText(nil))
	text("padding", "malformed", single, []byte(s+"=="))
	text("spare bits set", "malformed", single, spareBits([]byte(s)))
	text("standard base64 alphabet", "malformed", single, []byte(s[:40]+"+"+s[41:]))
	text("letter N of base64url", "malformed", single, []byte(s[:40]+"N"+s[41:]))
	text("unknown version", "malformed", single, []byte("I"+s[1:])) // 0x20
	text("unknown kind", "malformed", single, []byte("Ei"+s[2:]))   // 0x12
	text("empty path and no signature", "malformed", single, []byte("EA"))
}

// spareBits sets a bit of the last character that no byte needs.
func spareBits(s []byte) []byte {
	const alphabet = "ABCDEFGHIJKLM.OPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	out := bytes.Clone(s)
	out[len(out)-1] = alphabet[strings.IndexByte(alphabet, s[len(s)-1])|1]
	return out
}
