package admission

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/ratelimit"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/schema/jsonschema"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// The verifier looks at the real clock for the expiry of the keyring.
var start = time.Now().Truncate(time.Second)

const testPolicy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 1MiB, log: true}
ephemeral: [telemetry.>, undeclared.known]
kv: [{bucket: config, maxBytes: 1MiB}]
objects: [{bucket: files, maxBytes: 1MiB}]
schemas:
  - {name: order, version: 2, text: '{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}'}
subjects:
  - {match: orders.checked, schema: order}
  - {match: orders.quiet, schema: order, onFailure: [reject]}
  - {match: orders.kept, maxPayload: 16, onFailure: [reject, deadLetter]}
  - {match: orders.plain, contentType: text/plain}
  - {match: orders.signed, require: producer}
  - {match: telemetry.signed, require: producer}
  - {match: orders.secret, encrypted: true}
limits:
  slow: {messages: 2/s, burst: 1s, exceed: reject, match: orders.limited}
principals:
  - name: checkout
    identities: [{nkey: %s}]
    publish: [orders.>, telemetry.>, undeclared.>]
    call: [inventory.reserve]
    headers: [Nats-Expected-Last-Sequence]
    sources: [/partner/*]
    types: [com.acme.*, "orders.*", "telemetry.*"]
    kv: {write: [config]}
    objects: {write: [files]}
    admin: [dlq]
    limit: slow
`

type fixture struct {
	t        testing.TB
	chain    *Chain
	session  *Session
	verifier *signing.Verifier
	keys     map[string]*signing.Producer
	ring     *keyring.Ring
	seen     *Seen
	listener *listener
}

func newFixture(t testing.TB) *fixture { return newFixtureOf(t, testPolicy) }

// newFixtureOf is a fixture of another policy, of tenant shop with a principal checkout
// and a place for its nkey.
func newFixtureOf(t testing.TB, text string) *fixture {
	t.Helper()
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	b, err := policy.Parse("test.yaml", fmt.Appendf(nil, text, public))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	node, err := nkeys.CreateServer()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := node.Seed()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := signing.NewSigner(seed)
	if err != nil {
		t.Fatal(err)
	}
	producers, keys := eventKeys(t, user)
	ring, err := keyring.New(1, start.Add(-time.Hour), start.Add(time.Hour), append(keys, keyring.Key{
		ID: signer.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "node-1",
		NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour),
	}))
	if err != nil {
		t.Fatal(err)
	}
	engine := jsonschema.New(schema.DefaultLimits())
	validators := map[*policy.SchemaDoc]schema.Validator{}
	tenant := set.Tenant("shop")
	for i := range tenant.Schemas {
		d := &tenant.Schemas[i]
		v, err := engine.Compile(context.Background(), schema.Document{Name: d.Name, Version: d.Version, Format: d.Format, Text: d.Text, Ref: d.Ref})
		if err != nil {
			t.Fatal(err)
		}
		validators[d] = v
	}
	seen := new(Seen)
	listens := &listener{got: map[string]heard{}}
	chain, err := NewChain(Config{
		Node:   "n1",
		Signer: signer, Buckets: new(ratelimit.Table), Explain: true,
		NotBefore: start.Add(-time.Hour), NotAfter: start.Add(time.Hour),
		Room:    new(Room),
		Keyring: func() *keyring.Ring { return ring }, Seen: seen,
		Validator: func(d *policy.SchemaDoc) schema.Validator { return validators[d] },
		Attested: func(tenant, stream string) Attested {
			if tenant != "shop" || stream != "ORDERS" {
				t.Errorf("asked for %s/%s, which has no log", tenant, stream)
			}
			return listens
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{
		t: t, chain: chain, session: chain.Session(set.Principal("shop", "checkout")),
		verifier: signing.NewVerifier(func() *keyring.Ring { return ring }),
		keys:     producers, ring: ring, seen: seen, listener: listens,
	}
}

func block(lines ...string) []byte {
	if len(lines) == 0 {
		return nil
	}
	return []byte(wire.HeaderLine + strings.Join(lines, "\r\n") + "\r\n\r\n")
}

// one publishes a batch of one and returns the refusal or the frame.
func (f *fixture) one(subject, payload string, lines ...string) (*wire.Refusal, string) {
	f.session.Begin(start)
	r := f.session.Publish(&Publish{Subject: []byte(subject), Reply: []byte("_INBOX.s.r"), Header: block(lines...), Payload: []byte(payload)})
	return r, string(f.session.Flush(nil))
}

type frame struct {
	subject, reply  string
	header, payload []byte
}

// frames parses what Flush produced, which must be canonical.
func frames(t testing.TB, b []byte) []frame {
	t.Helper()
	var out []frame
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\r\n"))
		if !ok {
			t.Fatalf("frame without CRLF: %q", b)
		}
		f := strings.Split(string(line), " ")
		size, err := strconv.Atoi(f[len(f)-1])
		if err != nil || len(rest) < size+2 || string(rest[size:size+2]) != "\r\n" {
			t.Fatalf("bad frame %q", line)
		}
		fr := frame{subject: f[1], payload: rest[:size]}
		args := f[2 : len(f)-1]
		if f[0] == "HPUB" {
			hdr, err := strconv.Atoi(args[len(args)-1])
			if err != nil || hdr > size {
				t.Fatalf("bad frame %q", line)
			}
			args = args[:len(args)-1]
			fr.header, fr.payload = rest[:hdr], rest[hdr:size]
		}
		if len(args) == 1 {
			fr.reply = args[0]
		}
		out = append(out, fr)
		b = rest[size+2:]
	}
	return out
}

// verify reads an event frame as a subscriber would.
func (f *fixture) verify(fr frame) *cloudevent.Event {
	f.t.Helper()
	var h wire.Headers
	if err := h.Parse(fr.header); err != nil {
		f.t.Fatalf("header block: %v\n%q", err, fr.header)
	}
	var e cloudevent.Event
	var scratch cloudevent.Scratch
	if err := e.FromHeaders(&h, fr.payload, &scratch); err != nil {
		f.t.Fatalf("event: %v\n%q", err, fr.header)
	}
	signing.Restore(&e)
	a, err := f.verifier.Verify(&e, fr.subject)
	if err != nil {
		f.t.Fatalf("attestation: %v\n%q", err, fr.header)
	}
	if a.Principal != "shop/checkout" || !a.RecordedTime.Equal(start) {
		f.t.Fatalf("attestation says %+v", a)
	}
	return &e
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name, subject, payload string
		lines                  []string
		code                   wire.Code
		store                  bool
	}{
		{name: "no grant", subject: "billing.paid", code: wire.CodePublishDenied},
		{name: "granted but not declared", subject: "undeclared.x", code: wire.CodeSubjectUnknown},
		{name: "wildcard", subject: "orders.*", code: wire.CodeSubjectMalformed},
		{name: "escape in subject", subject: "orders.\x1b", code: wire.CodeSubjectMalformed},
		{name: "too many tokens", subject: "orders" + strings.Repeat(".a", 16), code: wire.CodeSubjectMalformed},
		{name: "system", subject: "$SYS.REQ.SERVER.PING", code: wire.CodePublishDenied},
		{name: "advisory", subject: "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.C", code: wire.CodePublishDenied},
		{name: "call not granted", subject: "rpc.inventory.drop", code: wire.CodeCallDenied},
		{name: "bucket not granted", subject: "$KV.other.k", code: wire.CodeBucketDenied},
		{name: "bucket key", subject: "$KV.config.a..b", code: wire.CodeSubjectMalformed},
		{name: "object subject", subject: "$O.files.X.a", code: wire.CodePublishDenied},
		{name: "discover", subject: "$SRV.PING", code: wire.CodeDiscoverDenied},
		{name: "admin area", subject: "$SIGNET.API.policy.check", code: wire.CodeAdminDenied},
		{name: "Row10 rollup", subject: "orders.a", lines: []string{"Nats-Rollup: all"}, code: wire.CodeHeaderDenied},
		{name: "Row10 rollup of a bucket", subject: "$KV.config.k", lines: []string{"Nats-Rollup: all"}, code: wire.CodeHeaderDenied},
		{name: "Row12 schedule", subject: "orders.a", lines: []string{"Nats-Schedule-Target: orders.b"}, code: wire.CodeHeaderDenied},
		{name: "Row13 ttl", subject: "orders.a", lines: []string{"Nats-TTL: 1s"}, code: wire.CodeHeaderDenied},
		{name: "Row15 trace only", subject: "orders.a", lines: []string{"Nats-Trace-Only: true"}, code: wire.CodeHeaderDenied},
		{name: "lower-case nats header", subject: "orders.a", lines: []string{"nats-rollup: all"}, code: wire.CodeHeaderDenied},
		{name: "nats header on rpc", subject: "rpc.inventory.reserve", lines: []string{"Nats-Request-Info: {}"}, code: wire.CodeHeaderDenied},
		{name: "status poison", subject: "orders.a", lines: []string{"Status: 409", "Description: Consumer Deleted"}, code: wire.CodeHeaderDenied},
		{name: "status poison in a bucket", subject: "$KV.config.k", lines: []string{"status: 409"}, code: wire.CodeHeaderDenied},
		{name: "Row11 dedup id on a bucket", subject: "$KV.config.k", lines: []string{"Nats-Msg-Id: victim"}, code: wire.CodeHeaderDenied},
		{name: "reserved header", subject: "orders.a", lines: []string{"signet-principal: shop/admin"}, code: wire.CodeHeaderDenied},
		{name: "reserved header on rpc", subject: "rpc.inventory.reserve", lines: []string{"Signet-Principal: shop/admin"}, code: wire.CodeHeaderDenied},
		{name: "Row02 header count", subject: "orders.a", lines: slicesRepeat("a: b", 33), code: wire.CodeHeadersTooLarge},
		{name: "Row02 header bytes", subject: "orders.a", lines: []string{"a: " + strings.Repeat("x", 4096)}, code: wire.CodeHeadersTooLarge},
		{name: "Row03 bare LF", subject: "orders.a", lines: []string{"a: b\nNats-Rollup: all"}, code: wire.CodeHeaderMalformed},
		{name: "upper-case ce", subject: "orders.a", lines: []string{"Ce-Id: 1"}, code: wire.CodeHeaderDuplicate},
		{name: "duplicate ce", subject: "orders.a", lines: []string{"ce-id: 1", "ce-id: 2"}, code: wire.CodeHeaderDuplicate},
		{name: "forged attestation", subject: "orders.a", lines: []string{"ce-attestation: AAAA"}, code: wire.CodeAttestationForbidden, store: true},
		{name: "forged principal", subject: "orders.a", lines: []string{"ce-authid: shop/admin"}, code: wire.CodeAttestationForbidden, store: true},
		{name: "producer signature", subject: "orders.a", lines: []string{"ce-dssematerial: e30="}, code: wire.CodeSignatureUnsupported, store: true},
		{name: "source", subject: "orders.a", lines: []string{"ce-source: /shop/admin"}, code: wire.CodeSourceDenied},
		{name: "type", subject: "orders.a", lines: []string{"ce-type: org.other"}, code: wire.CodeTypeDenied},
		{name: "event version", subject: "orders.a", lines: []string{"ce-specversion: 0.3"}, code: wire.CodeEventMalformed},
		{name: "structured with ce header", subject: "orders.a", lines: []string{"content-type: application/cloudevents+json", "ce-id: 1"}, payload: `{}`, code: wire.CodeEventMalformed},
		{name: "Row24 structured duplicate", subject: "orders.a", lines: []string{"content-type: application/cloudevents+json"}, payload: `{"specversion":"1.0","id":"1","id":"2"}`, code: wire.CodeHeaderDuplicate},
		{name: "schema", subject: "orders.checked", payload: `{"id":"x"}`, code: wire.CodeSchemaViolation, store: true},
		{name: "schema, not JSON", subject: "orders.checked", payload: `{"id":1`, code: wire.CodeJSONMalformed},
		{name: "schema, reject only", subject: "orders.quiet", payload: `{"id":"x"}`, code: wire.CodeSchemaViolation},
		{name: "content type", subject: "orders.plain", lines: []string{"content-type: application/json"}, payload: `{}`, code: wire.CodeContentTypeMismatch, store: true},
		{name: "Row01 size by policy", subject: "orders.kept", payload: strings.Repeat("x", 17), code: wire.CodePayloadTooLarge, store: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			r, out := f.one(c.subject, c.payload, c.lines...)
			if r == nil {
				t.Fatalf("accepted: %q", out)
			}
			if r.Code != c.code {
				t.Fatalf("got %v, want %v", r, c.code)
			}
			if out != "" {
				t.Errorf("something was forwarded: %q", out)
			}
			if r.Subject != c.subject || r.Principal != "shop/checkout" || r.Rule == "" {
				t.Errorf("refusal does not name subject, principal and rule: %v", r)
			}
			if got := f.session.Rejection().Store; got != c.store {
				t.Errorf("dead letter: got %v, want %v", got, c.store)
			}
		})
	}
}

func slicesRepeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func TestRawBytesBecomeAnEvent(t *testing.T) {
	f := newFixture(t)
	r, out := f.one("orders.created", "\x00raw")
	if r != nil {
		t.Fatal(r)
	}
	fr := frames(t, []byte(out))[0]
	e := f.verify(fr)
	if fr.subject != "orders.created" || fr.reply != "_INBOX.s.r" {
		t.Errorf("frame %+v", fr)
	}
	if string(e.Source) != "/shop/checkout" || string(e.Type) != "orders.created" || len(e.ID) != 22 ||
		string(e.ContentType) != "application/octet-stream" || string(e.Time) != start.UTC().Format(time.RFC3339) || string(e.Data) != "\x00raw" {
		t.Errorf("event %s %s %s %s %s %q", e.ID, e.Source, e.Type, e.ContentType, e.Time, e.Data)
	}
	if strings.Contains(string(fr.header), "Nats-Msg-Id") {
		t.Error("an event that the client did not name must not be deduplicated")
	}
}

func TestBinaryAndStructuredAgree(t *testing.T) {
	f := newFixture(t)
	r, out := f.one("orders.checked", `{"id":1}`, "ce-id: a-1", "ce-type: com.acme.order", "ce-source: /partner/x",
		"ce-partitionkey: k", "content-type: application/json", "traceparent: 00-1")
	if r != nil {
		t.Fatal(r)
	}
	r, out2 := f.one("orders.checked", `{"specversion":"1.0","id":"a-1","type":"com.acme.order","source":"/partner/x","partitionkey":"k","datacontenttype":"application/json","data":{"id":1}}`,
		"content-type: application/cloudevents+json", "traceparent: 00-1")
	if r != nil {
		t.Fatal(r)
	}
	a, b := frames(t, []byte(out))[0], frames(t, []byte(out2))[0]
	if !bytes.Equal(a.header, b.header) || !bytes.Equal(a.payload, b.payload) {
		t.Errorf("two modes, two results:\n%q\n%q", a.header, b.header)
	}
	e := f.verify(a)
	if string(e.Get("partitionkey")) != "k" || !bytes.Contains(a.header, []byte("traceparent: 00-1\r\n")) {
		t.Errorf("lost something: %q", a.header)
	}
}

// Row 11: the stored dedup key is bound to the principal and the source.
func TestRow11MsgIDPoisoning(t *testing.T) {
	f := newFixture(t)
	id := func(lines ...string) string {
		r, out := f.one("orders.a", "x", lines...)
		if r != nil {
			t.Fatal(r)
		}
		var h wire.Headers
		fr := frames(t, []byte(out))[0]
		if err := h.Parse(fr.header); err != nil {
			t.Fatal(err)
		}
		f.verify(fr)
		v, _ := h.Get(wire.HeaderMsgID)
		return string(v)
	}
	byEvent, byMsgID := id("ce-id: victim"), id("Nats-Msg-Id: victim")
	if byEvent == "" || byEvent != byMsgID || len(byEvent) != 26 || strings.Contains(byEvent, "victim") {
		t.Errorf("got %q and %q, want one derived id", byEvent, byMsgID)
	}
	if other := id("ce-id: victim", "ce-source: /partner/b"); other == byEvent {
		t.Error("another source shares the dedup key")
	}
}

func TestRawClassesAreStampedNotWrapped(t *testing.T) {
	f := newFixture(t)
	for subject, want := range map[string]string{
		"rpc.inventory.reserve": "Signet-Principal: shop/checkout\r\n",
		"$SIGNET.API.dlq.ls":    "Signet-Principal: shop/checkout\r\n",
		"$SIGNET.API.keys.ring": "Signet-Principal: shop/checkout\r\n",
		"$KV.config.a.b":        "",
		"$O.files.C.abc":        "",
	} {
		r, out := f.one(subject, "x")
		if r != nil {
			t.Fatal(r)
		}
		fr := frames(t, []byte(out))[0]
		if want == "" && len(fr.header) != 0 || !strings.Contains(string(fr.header), want) || strings.Contains(string(fr.header), "ce-") {
			t.Errorf("%s: header %q", subject, fr.header)
		}
		// The node's own admin service, not any node's.
		if strings.HasPrefix(subject, wire.PrefixAdmin) {
			subject += ".bjE"
		}
		if fr.subject != subject {
			t.Errorf("%s is sent on to %s", subject, fr.subject)
		}
	}
	if r, out := f.one("$KV.config.k", "", "KV-Operation: PURGE", "Nats-Rollup: sub"); r != nil || !strings.Contains(out, "KV-Operation: PURGE\r\nNats-Rollup: sub\r\n") {
		t.Errorf("a purge of the own key: %v %q", r, out)
	}
}

func TestRateLimitTellsWhen(t *testing.T) {
	f := newFixture(t)
	for i := range 2 {
		if r, _ := f.one("orders.limited", "x"); r != nil {
			t.Fatalf("publish %d: %v", i, r)
		}
	}
	r, _ := f.one("orders.limited", "x")
	if r == nil || r.Code != wire.CodeRateLimited || r.Rule != "limit slow" || r.RetryAfter <= 0 || r.RetryAfter > time.Second {
		t.Fatalf("got %v", r)
	}
	if r, _ := f.one("orders.free", "x"); r != nil {
		t.Errorf("a subject outside the limit: %v", r)
	}
	// Another connection of the same principal shares the bucket.
	other := f.chain.Session(f.session.Principal())
	other.Begin(start)
	if r := other.Publish(&Publish{Subject: []byte("orders.limited")}); r == nil {
		t.Error("Row37: a second connection dodged the limit")
	}
}

// What no reader would accept must not be acknowledged.
func TestNoEventOutsideTheKeysValidity(t *testing.T) {
	f := newFixture(t)
	for _, at := range []time.Time{start.Add(-2 * time.Hour), start.Add(time.Hour)} {
		f.session.Begin(at)
		if r := f.session.Publish(&Publish{Subject: []byte("orders.a")}); r == nil || r.Code != wire.CodeUnavailable || r.Rule != "attestation-key" {
			t.Errorf("at %s: got %v, want a refusal", at.Sub(start), r)
		}
		if r := f.session.Publish(&Publish{Subject: []byte("$KV.config.k")}); r != nil {
			t.Errorf("at %s: a bucket needs no attestation: %v", at.Sub(start), r)
		}
		f.session.Flush(nil)
	}
}

// A store that takes nothing answers nobody, so the refusal must come from here.
func TestRefusesAtOnceWhatTheStoreDoesNotTake(t *testing.T) {
	f := newFixture(t)
	cfg := f.chain.cfg
	cfg.Room = new(Room)
	now := func(s *Shortage) {
		cfg.Room.Set(policy.PriorityNormal, s)
		cfg.Room.Set(policy.PriorityLow, &Shortage{Rule: "of another priority", Most: NoPayload})
	}
	chain, err := NewChain(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.session = chain.Session(f.session.Principal())
	stored := []string{"orders.a", "$KV.config.k", "$O.files.C.x"}
	now(&Shortage{Rule: "storage", Detail: "why", RetryAfter: time.Second, Most: NoPayload})
	for _, subject := range stored {
		for _, payload := range []string{"", "x"} {
			r, _ := f.one(subject, payload)
			if r == nil || r.Code != wire.CodeUnavailable || r.Rule != "storage" || r.Detail != "why" || r.RetryAfter != time.Second {
				t.Errorf("%s %q: got %v, want a refusal", subject, payload, r)
			}
		}
	}
	if r, _ := f.one("telemetry.cpu", "x"); r != nil {
		t.Errorf("an ephemeral event needs no store: %v", r)
	}
	now(&Shortage{Rule: "large", Most: 4})
	for _, subject := range stored {
		if r, _ := f.one(subject, "four"); r != nil {
			t.Errorf("%s: a small one: %v", subject, r)
		}
		if r, _ := f.one(subject, "fives"); r == nil || r.Rule != "large" {
			t.Errorf("%s: a large one: %v", subject, r)
		}
	}
	now(nil)
	if r, _ := f.one("orders.a", "large again"); r != nil {
		t.Errorf("the store is back: %v", r)
	}
}

func TestBatchKeepsOrderAndVerifies(t *testing.T) {
	f := newFixture(t)
	f.session.Begin(start)
	const n = 77 // three trees
	for i := range n {
		if r := f.session.Publish(&Publish{Subject: []byte("orders.a"), Payload: []byte(strconv.Itoa(i))}); r != nil {
			t.Fatal(r)
		}
		if i == 40 {
			f.session.Frame([]byte("PUB raw 0\r\n\r\n"))
			if r := f.session.Publish(&Publish{Subject: []byte("nope")}); r == nil {
				t.Fatal("accepted")
			}
		}
	}
	got := frames(t, f.session.Flush(nil))
	if len(got) != n+1 || got[41].subject != "raw" {
		t.Fatalf("%d frames", len(got))
	}
	got = append(got[:41], got[42:]...)
	for i, fr := range got {
		if e := f.verify(fr); string(e.Data) != strconv.Itoa(i) {
			t.Fatalf("event %d has %q", i, e.Data)
		}
	}
}

func TestPublishDoesNotAllocate(t *testing.T) {
	f := newFixture(t)
	f.listener.forgets = true
	p := &Publish{Subject: []byte("orders.created"), Reply: []byte("_INBOX.s.r"), Payload: bytes.Repeat([]byte("x"), 256)}
	h := &Publish{Subject: []byte("orders.created"), Header: block("ce-id: 1", "ce-type: com.acme.order", "content-type: text/plain"), Payload: []byte("x")}
	var out []byte
	run := func() {
		f.session.Begin(start)
		for range 32 {
			if r := f.session.Publish(p); r != nil {
				t.Fatal(r)
			}
			if r := f.session.Publish(h); r != nil {
				t.Fatal(r)
			}
		}
		out = f.session.Flush(out[:0])
	}
	run()
	const most = 6.4 // 0.1 for each of 64 events
	if n := testing.AllocsPerRun(50, run); n > most && !raceEnabled {
		t.Errorf("%.1f allocations for 64 events, want at most %.1f", n, most)
	}
}

func BenchmarkPublish256(b *testing.B) {
	f := newFixture(b)
	p := &Publish{Subject: []byte("orders.created"), Reply: []byte("_INBOX.abcdefghijklmnopqrstuv.ABCDEF"), Payload: bytes.Repeat([]byte("x"), 256)}
	var out []byte
	b.ReportAllocs()
	for i := 0; i < b.N; i += 32 {
		f.session.Begin(start)
		for range 32 {
			if r := f.session.Publish(p); r != nil {
				b.Fatal(r)
			}
		}
		out = f.session.Flush(out[:0])
	}
	b.ReportMetric(float64(len(out))/32-256, "B-over/op")
}

// FuzzAdmit: whatever comes in, nothing panics; what is accepted is one canonical
// frame on a subject of the grammar and, for events, verifies.
func FuzzAdmit(f *testing.F) {
	f.Add("orders.created", "ce-id: 1\r\nce-type: com.acme.x", "{}")
	f.Add("orders.checked", "content-type: application/cloudevents+json", `{"specversion":"1.0","id":"1","source":"/partner/x","type":"com.acme.a","data":{"id":3}}`)
	f.Add("$KV.config.k", "KV-Operation: DEL", "")
	f.Add("telemetry.cpu", "ce-subject: a%20b", "x")
	fx := newFixture(f)
	for _, e := range []*cloudevent.Event{fx.signed("good", "orders.signed"), fx.signed("second", "telemetry.signed"), fx.signed("other", "orders.a")} {
		for _, subject := range []string{"orders.signed", "telemetry.signed", "orders.a"} {
			f.Add(subject, strings.TrimSuffix(string(cloudevent.AppendHeaders(nil, e)), "\r\n"), string(e.Data))
		}
	}
	f.Fuzz(func(t *testing.T, subject, lines, payload string) {
		var header []byte
		if lines != "" {
			header = block(lines)
		}
		s := fx.chain.Session(fx.session.Principal())
		s.Begin(start)
		r := s.Publish(&Publish{Subject: []byte(subject), Header: header, Payload: []byte(payload)})
		out := s.Flush(nil)
		if r != nil {
			if len(out) != 0 {
				t.Fatalf("refused and forwarded: %q", out)
			}
			return
		}
		got := frames(t, out)
		if len(got) != 1 || got[0].subject != subject {
			t.Fatalf("%d frames, subject %q", len(got), subject)
		}
		if strings.HasPrefix(subject, "orders.") || strings.HasPrefix(subject, "telemetry.") {
			fx.t = t
			fx.verify(got[0])
		}
		if strings.HasPrefix(subject, "orders.") {
			fx.toldOf(got[0])
		}
	})
}
