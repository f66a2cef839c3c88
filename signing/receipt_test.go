package signing

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	stock "github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/internal/dsse"
	"github.com/signetbus/signet/signing/keyring"
)

const receiptVectorFile = "../docs/spec/vectors/receipt.json"

// receiptOf is a receipt for the event e, as a gate would give it to the signer.
func receiptOf(t testing.TB, sum [32]byte) Receipt {
	t.Helper()
	return Receipt{
		Node: "node-1", Tenant: "shop", Principal: "shop/checkout", Subject: testSubject, Stream: "ORDERS", Sequence: 42,
		ID: "01JD8Z6W3K7M5Q2R9T4V000000", Source: "/shop/checkout", Type: "com.example.order.created.v1", ContentType: "application/json",
		Recorded: "2026-11-22T07:30:01Z", Event: sum[:], Time: recorded.Add(time.Second), Policy: strings.Repeat("5e", 32),
	}
}

func goodReceipt(t testing.TB, change ...func(*Receipt)) []byte {
	t.Helper()
	sum, err := EventDigest(testEvent(0), testSubject)
	if err != nil {
		t.Fatal(err)
	}
	r := receiptOf(t, sum)
	for _, c := range change {
		c(&r)
	}
	doc, err := testSigner(t, fillBroker).SignReceipt(r)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestReceiptMutation tries every byte of a receipt with every bit of it flipped, and
// with other values, and counts what is accepted.
func TestReceiptMutation(t *testing.T) {
	ring := testRing(t)
	tried, accepted := 0, 0
	for _, doc := range [][]byte{goodReceipt(t), goodReceipt(t, func(r *Receipt) { r.Duplicate = true })} {
		if _, _, err := VerifyReceipt(doc, ring); err != nil {
			t.Fatal(err)
		}
		try := func(b []byte) {
			tried++
			if _, _, err := VerifyReceipt(b, ring); err == nil {
				accepted++
				t.Errorf("accepted: %s", b)
			}
		}
		for i := range doc {
			for _, v := range []byte{doc[i] ^ 1, doc[i] ^ 2, doc[i] ^ 4, doc[i] ^ 8, doc[i] ^ 16, doc[i] ^ 32, doc[i] ^ 64, doc[i] ^ 128, 'A', '0', '"', ' ', 0} {
				if v == doc[i] {
					continue
				}
				b := bytes.Clone(doc)
				b[i] = v
				try(b)
			}
			try(append(bytes.Clone(doc[:i]), doc[i+1:]...))
			try(append(append(bytes.Clone(doc[:i]), ' '), doc[i:]...))
		}
		try(append(bytes.Clone(doc), '\n'))
		try(nil)
	}
	t.Logf("%d changed receipts, %d accepted", tried, accepted)
}

// TestReceiptCoversItsEventOnly: every changed attribute and datum of the event, and
// every other form of the event that says the same.
func TestReceiptCoversItsEventOnly(t *testing.T) {
	ring := testRing(t)
	r, key, err := VerifyReceipt(goodReceipt(t), ring)
	if err != nil || key.ID != testSigner(t, fillBroker).KeyID() {
		t.Fatal(key.ID, err)
	}
	e := testEvent(0)
	attest(t, testSigner(t, fillBroker), testSubject, e)
	off := e.Clone() // off the bus: the standard attribute in place of the compact one
	text, err := Expand(e, testSubject, ring)
	if err != nil {
		t.Fatal(err)
	}
	off.SetExt([]byte(wire.AttrDSSE), []byte(text))
	off.DelExt(wire.AttrAttestation)
	if err := errors.Join(r.Covers(testEvent(0)), r.Covers(e), r.Covers(off)); err != nil {
		t.Fatal(err)
	}
	tried, accepted := 0, 0
	refused := func(what string, change func() error) {
		tried++
		if err := change(); !errors.Is(err, ErrOtherEvent) && !errors.Is(err, ErrMalformed) {
			accepted++
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range e.Data {
		refused("data", func() error { o := e.Clone(); o.Data[i] ^= 1; return r.Covers(o) })
	}
	for i := range e.Ext {
		if string(e.Ext[i].Name) == wire.AttrAttestation {
			continue // carries the signature: the attestation is verified by itself
		}
		name := string(e.Ext[i].Name)
		refused(name+" changed", func() error { o := e.Clone(); o.Ext[i].Value[0] ^= 1; return r.Covers(o) })
		refused(name+" gone", func() error { o := e.Clone(); o.DelExt(name); return r.Covers(o) })
	}
	refused("added", func() error { o := e.Clone(); o.SetExt([]byte("added"), []byte("x")); return r.Covers(o) })
	for _, f := range []func(o *Receipt){func(o *Receipt) { o.Subject = "orders.us.created" }, func(o *Receipt) { o.Event = nil }} {
		refused("receipt", func() error { o := *r; f(&o); return o.Covers(e) })
	}
	t.Logf("%d other events, %d accepted", tried, accepted)
}

// TestReceiptKeys: only a broker key of the keyring, of the node that is named, valid
// when the event was acknowledged.
func TestReceiptKeys(t *testing.T) {
	ring := testRing(t)
	sum, err := EventDigest(testEvent(0), testSubject)
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		fill byte
		node string
		want error
	}{
		"expired": {fillExpired, "node-2", ErrKeyNotValid}, "revoked": {fillRevoked, "node-3", ErrKeyNotValid},
		"not yet": {fillNotYet, "node-6", nil}, // valid from one second after the event on, which is when it is acknowledged
		"unknown": {fillUnknown, "node-5", ErrUnknownKey}, "another node": {fillBroker, "node-2", ErrKeyNotValid}, "good": {fillBroker, "node-1", nil},
	} {
		r := receiptOf(t, sum)
		r.Node = row.node
		doc, err := testSigner(t, row.fill).SignReceipt(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := VerifyReceipt(doc, ring); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
	early := receiptOf(t, sum)
	early.Node, early.Time = "node-6", recorded
	doc, err := testSigner(t, fillNotYet).SignReceipt(early)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := VerifyReceipt(doc, ring); !errors.Is(err, ErrKeyNotValid) {
		t.Errorf("a key that is not valid yet: %v", err)
	}
	// A producer, which is in the keyring, signs what a node would.
	early.Node = "node-4"
	payload, err := early.encode()
	if err != nil {
		t.Fatal(err)
	}
	p := &Signer{private: testProducer(t, fillProducer).signer.private, id: testProducer(t, fillProducer).KeyID()}
	if doc, err = p.SignStatement(ReceiptType, payload); err != nil {
		t.Fatal(err)
	}
	if _, _, err := VerifyReceipt(doc, ring); !errors.Is(err, ErrKeyNotValid) && !errors.Is(err, ErrUnknownKey) {
		t.Errorf("a producer's receipt: %v", err)
	}
	if _, _, err := VerifyReceipt(goodReceipt(t), nil); !errors.Is(err, ErrNoKeyring) {
		t.Errorf("without a keyring: %v", err)
	}
}

// TestReceiptCrossProtocol: nothing else that the same key signs passes for a receipt,
// and a receipt for nothing else.
func TestReceiptCrossProtocol(t *testing.T) {
	ring, s := testRing(t), testSigner(t, fillBroker)
	receipt := goodReceipt(t)
	env, err := dsse.Parse(receipt)
	if err != nil {
		t.Fatal(err)
	}
	e := testEvent(0)
	attest(t, s, testSubject, e)
	material, err := Expand(e, testSubject, ring)
	if err != nil {
		t.Fatal(err)
	}
	expanded, err := base64.StdEncoding.DecodeString(material)
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.SignStatement("application/vnd.signet.backup.v1+json", env.Payload)
	if err != nil {
		t.Fatal(err)
	}
	attested, err := dsse.Parse(expanded)
	if err != nil {
		t.Fatal(err)
	}
	token := NodeToken(s, "c", "node-1")
	raw, err := base64.RawURLEncoding.DecodeString(token[strings.LastIndexByte(token, '.')+1:])
	if err != nil {
		t.Fatal(err)
	}
	put := func(payload, sig []byte) []byte {
		return dsse.Append(nil, &dsse.Envelope{PayloadType: ReceiptType, Payload: payload, KeyID: s.KeyID(), Sig: sig})
	}
	for name, doc := range map[string][]byte{
		"an attestation": expanded, "another statement": other, "a node token": []byte(token),
		"the signature of an attestation":     put(attested.Payload, attested.Sig),
		"that over the payload of a receipt":  put(env.Payload, attested.Sig),
		"the signature of a node token":       put(env.Payload, raw),
		"the signature of another statement":  bytes.Replace(other, []byte("backup"), []byte("receipt"), 1),
		"the statement of a node as payload":  put(nodeStatement("c", "node-1", s.KeyID()), raw),
		"a signature of nothing but the body": put(env.Payload, env.Sig[:63]),
	} {
		if _, _, err := VerifyReceipt(doc, ring); err == nil {
			t.Errorf("%s passes for a receipt", name)
		}
	}
	if err := VerifyDSSE(base64.StdEncoding.EncodeToString(receipt), e, testSubject, ring); err == nil {
		t.Error("a receipt passes for an attestation")
	}
	c := compact{hint: s.hint, size: 1, sig: env.Sig}
	bad := e.Clone()
	bad.SetExt([]byte(wire.AttrAttestation), c.appendText(nil))
	if _, err := testVerifier(ring).Verify(bad, testSubject); err == nil {
		t.Error("the signature of a receipt passes for an attestation")
	}
	parts := strings.Split(token, ".")
	parts[3] = base64.RawURLEncoding.EncodeToString(env.Sig)
	if VerifyNodeToken(strings.Join(parts, "."), "c", "node-1", ring, recorded) == nil {
		t.Error("the signature of a receipt passes for a node token")
	}
	if _, _, err := VerifyStatement(receipt, "application/vnd.signet.backup.v1+json", ring); err == nil {
		t.Error("a receipt passes for another statement")
	}
	if _, err := keyring.Parse(receipt, "", recorded); err == nil {
		t.Error("a receipt passes for a keyring")
	}
}

// TestReceiptIncomplete: what says less than a receipt must is not signed.
func TestReceiptIncomplete(t *testing.T) {
	for name, change := range map[string]func(*Receipt){
		"node": func(r *Receipt) { r.Node = "" }, "tenant": func(r *Receipt) { r.Tenant = "mill" }, "subject": func(r *Receipt) { r.Subject = "" },
		"sequence": func(r *Receipt) { r.Sequence = 0 }, "digest": func(r *Receipt) { r.Event = nil }, "short digest": func(r *Receipt) { r.Event = r.Event[:31] },
		"text": func(r *Receipt) { r.ID = "\xff" }, "recorded": func(r *Receipt) { r.Recorded = "2026-11-22T07:30:01.5Z" }, "policy": func(r *Receipt) { r.Policy = "" },
		"time": func(r *Receipt) { r.Time = time.Time{} }, "size": func(r *Receipt) { r.ID = strings.Repeat("x", MaxReceiptBytes) },
	} {
		r := receiptOf(t, [32]byte{1})
		change(&r)
		if _, err := testSigner(t, fillBroker).SignReceipt(r); !errors.Is(err, ErrReceipt) {
			t.Errorf("%s: got %v, want ErrReceipt", name, err)
		}
	}
}

// TestReceiptWithAStockLibrary: the unmodified DSSE library verifies a receipt.
func TestReceiptWithAStockLibrary(t *testing.T) {
	doc := goodReceipt(t)
	var env stock.Envelope
	if err := json.Unmarshal(doc, &env); err != nil {
		t.Fatal(err)
	}
	key, _ := testRing(t).ByID(testSigner(t, fillBroker).KeyID())
	v, err := stock.NewEnvelopeVerifier(stockKey{key, false})
	if err != nil {
		t.Fatal(err)
	}
	if by, err := v.Verify(context.Background(), &env); err != nil || len(by) != 1 || env.PayloadType != ReceiptType {
		t.Errorf("%d signatures, type %s: %v", len(by), env.PayloadType, err)
	}
}

type (
	receiptVectors struct {
		Format  string          `json:"format"`
		Note    string          `json:"note"`
		Keyring vectorKeyring   `json:"keyring"`
		Cases   []receiptVector `json:"cases"`
	}
	receiptVector struct {
		Name    string          `json:"name"`
		Receipt string          `json:"receipt"`
		Event   json.RawMessage `json:"event,omitempty"` // to be held against it; natsSubject is the receipt's
		Digest  string          `json:"digest,omitempty"`
		Result  string          `json:"result"` // of the receipt: ok, malformed, unknownKey, keyNotValid, badSignature; then of the event: otherEvent
	}
)

func receiptResult(doc []byte, event json.RawMessage, ring *keyring.Ring) string {
	r, _, err := VerifyReceipt(doc, ring)
	if err == nil && event != nil {
		var e cloudevent.Event
		if err := e.FromJSON(event, nil); err != nil {
			return err.Error()
		}
		err = r.Covers(&e)
	}
	switch {
	case errors.Is(err, ErrReceipt), errors.Is(err, ErrStatement):
		return "malformed"
	case errors.Is(err, ErrOtherEvent):
		return "otherEvent"
	}
	return resultOf(err)
}

// changedPayload is a receipt whose payload was changed after it was signed.
func changedPayload(t *testing.T, doc, old, new string) string {
	t.Helper()
	env, err := dsse.Parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	env.Payload = bytes.Replace(env.Payload, []byte(old), []byte(new), 1)
	return string(dsse.Append(nil, env))
}

func makeReceiptVectors(t *testing.T) []byte {
	t.Helper()
	ring := testRing(t)
	var base vectors
	text, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &base); err != nil {
		t.Fatal(err)
	}
	file := receiptVectors{
		Format: "signet-vectors-receipt/v1", Keyring: base.Keyring,
		Note: "docs/spec/receipt.md. Verify keyring.document against keyring.root at keyring.now; then each receipt, and the event against it where there is one, gives result.",
	}
	sum, err := EventDigest(testEvent(0), testSubject)
	if err != nil {
		t.Fatal(err)
	}
	resign := func(typ string, change func(string) string) string {
		env, err := dsse.Parse(goodReceipt(t))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := testSigner(t, fillBroker).SignStatement(typ, []byte(change(string(env.Payload))))
		if err != nil {
			t.Fatal(err)
		}
		return string(doc)
	}
	by := func(fill byte, node string) string {
		r := receiptOf(t, sum)
		r.Node = node
		doc, err := testSigner(t, fill).SignReceipt(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(doc)
	}
	same := func(p string) string { return p }
	swap := func(old, new string) func(string) string {
		return func(p string) string {
			if !strings.Contains(p, old) {
				t.Fatalf("no %q in %s", old, p)
			}
			return strings.Replace(p, old, new, 1)
		}
	}
	event, otherEvent := cloudevent.AppendJSON(nil, testEvent(0)), cloudevent.AppendJSON(nil, testEvent(1))
	duplicate := string(goodReceipt(t, func(r *Receipt) { r.Duplicate = true }))
	good := string(goodReceipt(t))
	for _, c := range []receiptVector{
		{Name: "stored", Receipt: good},
		{Name: "the event that it is of", Receipt: good, Event: event, Digest: hex.EncodeToString(sum[:])},
		{Name: "another event", Receipt: good, Event: otherEvent},
		{Name: "duplicate", Receipt: duplicate},
		{Name: "a duplicate covers no event", Receipt: duplicate, Event: event},
		{Name: "text with escapes", Receipt: string(goodReceipt(t, func(r *Receipt) { r.ID = "<&>\"\\\u2028é" }))},
		{Name: "changed sequence", Receipt: changedPayload(t, good, `"sequence":42`, `"sequence":43`)},
		{Name: "another payload type", Receipt: resign("application/vnd.signet.other.v1+json", same)},
		{Name: "unknown member", Receipt: resign(ReceiptType, swap(`"policy"`, `"x":1,"policy"`))},
		{Name: "repeated member", Receipt: resign(ReceiptType, swap(`"sequence":42`, `"sequence":42,"sequence":42`))},
		{Name: "white space", Receipt: resign(ReceiptType, swap(`,"policy"`, `, "policy"`))},
		{Name: "name in another case", Receipt: resign(ReceiptType, swap(`"stream"`, `"Stream"`))},
		{Name: "digest of a duplicate", Receipt: resign(ReceiptType, swap(`"duplicate":false`, `"duplicate":true`))},
		{Name: "no digest", Receipt: resign(ReceiptType, swap(`"event":"`+base64.StdEncoding.EncodeToString(sum[:])+`",`, ``))},
		{Name: "sequence 0", Receipt: resign(ReceiptType, swap(`"sequence":42`, `"sequence":0`))},
		{Name: "principal of another tenant", Receipt: resign(ReceiptType, swap(`"tenant":"shop"`, `"tenant":"mill"`))},
		{Name: "time with a fraction", Receipt: resign(ReceiptType, swap(`"time":"2026-11-22T07:30:02Z"`, `"time":"2026-11-22T07:30:02.5Z"`))},
		{Name: "not JSON", Receipt: resign(ReceiptType, func(string) string { return "{" })},
		{Name: "a line end behind it", Receipt: good + "\n"},
		{Name: "empty", Receipt: ""},
		{Name: "key of another node", Receipt: by(fillBroker, "node-2")},
		{Name: "expired key", Receipt: by(fillExpired, "node-2")},
		{Name: "revoked key", Receipt: by(fillRevoked, "node-3")},
		{Name: "unknown key", Receipt: by(fillUnknown, "node-5")},
	} {
		c.Result = receiptResult([]byte(c.Receipt), c.Event, ring)
		file.Cases = append(file.Cases, c)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(file); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestReceiptVectors(t *testing.T) {
	want := makeReceiptVectors(t)
	var file receiptVectors
	readVectors(t, receiptVectorFile, want, &file)
	ring, _ := file.Keyring.read(t)
	// What each must give is said here and not only by the code that wrote the file.
	results := map[string]string{
		"stored": "ok", "the event that it is of": "ok", "duplicate": "ok", "text with escapes": "ok", "another event": "otherEvent", "a duplicate covers no event": "otherEvent",
		"changed sequence": "badSignature", "key of another node": "keyNotValid", "expired key": "keyNotValid", "revoked key": "keyNotValid", "unknown key": "unknownKey",
	}
	for _, c := range file.Cases {
		want, ok := results[c.Name]
		if !ok {
			want = "malformed"
		}
		if got := receiptResult([]byte(c.Receipt), c.Event, ring); got != want || c.Result != want {
			t.Errorf("%s: got %s, the file says %s, want %s", c.Name, got, c.Result, want)
		}
	}
}

func FuzzReceipt(f *testing.F) {
	f.Add(goodReceipt(f))
	f.Add(goodReceipt(f, func(r *Receipt) { r.Duplicate = true }))
	f.Add([]byte(`{"payloadType":"` + ReceiptType + `","payload":"e30=","signatures":[{"keyid":"K","sig":""}]}`))
	env, err := dsse.Parse(goodReceipt(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env.Payload)
	ring := testRing(f)
	good, duplicate := goodReceipt(f), goodReceipt(f, func(r *Receipt) { r.Duplicate = true })
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeReceipt(b); err == nil {
			again, err := r.encode()
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("%q is another text of %q (%v)", b, again, err)
			}
		}
		if _, _, err := VerifyReceipt(b, ring); err == nil && !bytes.Equal(b, good) && !bytes.Equal(b, duplicate) {
			t.Errorf("a receipt that nobody signed: %q", b)
		}
	})
}
