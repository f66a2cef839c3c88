package broker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

const auditPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
  - {name: NOTES, subjects: [notes.>], maxBytes: 1MiB}
schemas:
  - {name: order, version: 1, text: '{"type":"object"}'}
subjects:
  - {match: orders.secret, audit: full}
  - {match: orders.checked, schema: order}
deadLetter: {maxBytes: 4MiB}
principals:
  - {name: writer, identities: [{nkey: '{{nkey "writer"}}'}], publish: [orders.>, notes.>]}
  - {name: reader, identities: [{nkey: '{{nkey "reader"}}'}], subscribe: [orders.>, notes.>]}
  - {name: auditor, identities: [{nkey: '{{nkey "auditor"}}'}], admin: [audit, cluster, status]}
  - {name: operator, identities: [{nkey: '{{nkey "operator"}}'}], admin: [audit, cluster, log, streams, status]}
  - {name: clerk, identities: [{nkey: '{{nkey "clerk"}}'}], admin: [audit]}
---
tenant: mill
deadLetter: {maxBytes: 4MiB}
principals:
  - {name: boss, identities: [{nkey: '{{nkey "boss"}}'}], admin: [audit]}
`

// Secrets that clients hand over; none of them may be in a record.
const (
	secretPayload = "PLANTED-PAYLOAD-7c1f"
	secretHeader  = "PLANTED-HEADER-91ab"
	secretToken   = "PLANTED-TOKEN-03de"
)

// tailOf is a tenant's trail as an administrator gets it.
type tailOf struct {
	records []auditlog.Record
	report  *auditlog.Report
	raw     []byte
}

// find returns the records that fit.
func (tr *tailOf) find(fits func(*auditlog.Record) bool) (out []auditlog.Record) {
	for i := range tr.records {
		if fits(&tr.records[i]) {
			out = append(out, tr.records[i])
		}
	}
	return out
}

// one returns the only record that fits.
func (tr *tailOf) one(t *testing.T, what string, fits func(*auditlog.Record) bool) auditlog.Record {
	t.Helper()
	got := tr.find(fits)
	if len(got) != 1 {
		t.Errorf("%s: %d records, want 1", what, len(got))
		return auditlog.Record{}
	}
	return got[0]
}

// audited reads and verifies a trail, against the seals of the nodes too.
func audited(t *testing.T, b *brokertest.Broker, principal string, system bool) *tailOf {
	t.Helper()
	c := b.Client(principal)
	defer c.Close()
	api := admin.New(c)
	ringDoc := must(api.KeyRing(within(t)))(t)
	ring := must(keyring.Parse(ringDoc.Document, b.State.Root, time.Now()))(t)
	seals := must(api.AuditSeals(within(t), system))(t)
	v := auditlog.NewVerifier(seals.Tenant, ring)
	for _, doc := range append(seals.Nodes, seals.Seal) {
		check(t, v.Expect([]byte(doc)))
	}
	out := &tailOf{}
	for after := uint64(0); ; {
		page := must(api.AuditBatches(within(t), system, after))(t)
		for _, m := range page.Batches {
			v.Batch(m.Seq, m.Data)
			out.raw = append(out.raw, m.Data...)
			if batch, err := auditlog.ParseBatch(m.Data); err == nil {
				out.records = append(out.records, batch.Records...)
			}
			after = m.Seq
		}
		if len(page.Batches) == 0 {
			out.report = v.Finish()
			return out
		}
	}
}

// busy does one of everything that must be on record.
func busy(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	writer, reader := connect(t, b, "writer"), connect(t, b, "reader")
	js := writer.js(t)
	for _, subject := range []string{"orders.a", "orders.a", "orders.secret"} {
		m := nats.NewMsg(subject)
		m.Data = []byte(secretPayload)
		m.Header.Set("X-Note", secretHeader)
		must(js.PublishMsg(within(t), m))(t)
	}
	for range 5 {
		writer.denied(t, "forbidden.subject", secretPayload, wire.CodePublishDenied, wire.CodeSubjectUnknown)
	}
	consumer := must(reader.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "copy", FilterSubject: "orders.>", AckPolicy: jetstream.AckExplicitPolicy}))(t)
	batch := must(consumer.Fetch(3))(t)
	for m := range batch.Messages() {
		check(t, m.DoubleAck(within(t)))
	}
	check(t, batch.Error())
	stream := must(reader.js(t).Stream(within(t), "ORDERS"))(t)
	must(stream.GetLastMsgForSubject(within(t), "orders.secret"))(t)
	check(t, reader.js(t).DeleteConsumer(within(t), "ORDERS", "copy"))
	if nc, err := nats.Connect(b.URL(), nats.Secure(b.TLS()), nats.Token(secretToken), nats.NoReconnect()); err == nil {
		nc.Close()
		t.Error("a login with a token was let in")
	}
	reader.Close()
	writer.Close()
}

func newAudited(t *testing.T, change ...func(*broker.Config)) *brokertest.Broker {
	t.Helper()
	return brokertest.New(t, brokertest.Options{Policy: auditPolicy, Change: func(c *broker.Config) {
		quickDrain(c)
		for _, f := range change {
			f(c)
		}
	}})
}

func TestEverythingIsOnRecord(t *testing.T) {
	sink := filepath.Join(t.TempDir(), "audit.jsonl")
	b := newAudited(t, func(c *broker.Config) { c.Audit.Sinks = []broker.AuditSink{{File: sink}} })
	busy(t, b)
	before := b.Policy().Digest()
	reload(t, b, edit(t, edit(t, auditPolicy, `text: '{"type":"object"}'`, `text: '{"type":"array"}'`), "subscribe: [orders.>, notes.>]", "subscribe: [orders.>]"))
	after := b.Policy().Digest()
	clerk := b.Client("clerk")
	for range 3 {
		if _, err := admin.New(clerk).Status(within(t)); !errors.Is(err, client.ErrDenied) {
			t.Fatalf("status without a grant: %v", err)
		}
	}
	clerk.Close()
	stop(t, b)
	b = restartAudited(t, b)

	shop := audited(t, b, "auditor", false)
	if !shop.report.OK || len(shop.report.Chains) != 1 {
		t.Fatalf("%+v", shop.report)
	}
	login := shop.find(func(r *auditlog.Record) bool { return r.Kind == auditlog.KindLogin && r.Who == "shop/reader" })
	if len(login) == 0 || login[0].Outcome != auditlog.OutcomeOK || login[0].Remote == "" || login[0].Node != "test" || !strings.HasPrefix(login[0].Detail, "nkey U") {
		t.Errorf("login: %+v", login)
	}
	r := shop.one(t, "refusals", func(r *auditlog.Record) bool { return r.Kind == auditlog.KindRefusal && r.Who == "shop/writer" })
	if r.Count != 5 || r.Code == 0 || r.Rule == "" || r.Ref == "" || r.Subject != "forbidden.subject" {
		t.Errorf("refusals: %+v", r)
	}
	made := shop.find(func(r *auditlog.Record) bool {
		return r.Kind == auditlog.KindAPI && strings.Contains(r.Subject, "CONSUMER.CREATE")
	})
	if len(made) != 1 || made[0].Stream != "ORDERS" || made[0].Consumer != "copy" || !strings.Contains(made[0].Detail, "orders.>") {
		t.Errorf("consumer made: %+v", made)
	}
	shop.one(t, "consumer deleted", func(r *auditlog.Record) bool {
		return r.Kind == auditlog.KindAPI && strings.Contains(r.Subject, "CONSUMER.DELETE")
	})
	shop.one(t, "read", func(r *auditlog.Record) bool { return r.Kind == auditlog.KindRead && r.Stream == "ORDERS" })
	r = shop.one(t, "delivered", func(r *auditlog.Record) bool { return r.Kind == auditlog.KindDelivered })
	if r.Who != "shop/reader" || r.Stream != "ORDERS" || r.Consumer != "copy" || r.First != 1 || r.Last != 3 || r.Count != 3 {
		t.Errorf("delivered: %+v", r)
	}
	r = shop.one(t, "delivery", func(r *auditlog.Record) bool { return r.Kind == auditlog.KindDelivery })
	if r.Who != "shop/reader" || r.Subject != "orders.secret" || r.First != 3 || r.Consumer != "copy" {
		t.Errorf("delivery: %+v", r)
	}
	r = shop.one(t, "policy", func(r *auditlog.Record) bool { return r.Kind == auditlog.KindPolicy })
	if r.Before != before || r.After != after {
		t.Errorf("policy: %+v", r)
	}
	r = shop.one(t, "schema", func(r *auditlog.Record) bool { return r.Kind == auditlog.KindSchema })
	if r.Subject != "order" || r.Version != 1 || r.Before == "" || r.After == "" || r.Before == r.After {
		t.Errorf("schema: %+v", r)
	}
	r = shop.one(t, "admin refused", func(r *auditlog.Record) bool { return r.Kind == auditlog.KindRefusal && r.Who == "shop/clerk" })
	if r.Count != 3 || r.Code != wire.CodeAdminDenied {
		t.Errorf("admin: %+v", r)
	}

	var system *tailOf
	starts := func(r *auditlog.Record) bool { return r.Kind == auditlog.KindBroker }
	eventually(t, "the second start is on record", func() bool {
		system = audited(t, b, "auditor", true)
		return len(system.find(starts)) == 3
	})
	if !system.report.OK {
		t.Fatalf("%+v", system.report)
	}
	r = system.one(t, "login that failed", func(r *auditlog.Record) bool { return r.Kind == auditlog.KindLogin })
	if r.Outcome != auditlog.OutcomeRefused || r.Code == 0 || r.Remote == "" {
		t.Errorf("login: %+v", r)
	}
	if got := system.find(starts); got[0].Subject != "start" || got[1].Subject != "stop" || got[0].After != before || got[2].Subject != "start" {
		t.Errorf("start and stop: %+v", got)
	}

	for _, secret := range []string{secretPayload, secretHeader, secretToken} {
		for name, text := range map[string][]byte{"shop": shop.raw, "system": system.raw, "sink": must(os.ReadFile(sink))(t)} {
			if len(text) == 0 || bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s: %d bytes, and %s is among them", name, len(text), secret)
			}
		}
	}
	files := must(filepath.Glob(filepath.Join(b.State.Dir, "store", "audit", "*")))(t)
	if len(files) == 0 {
		t.Error("there is no spool")
	}
	for _, path := range files {
		if bytes.Contains(must(os.ReadFile(path))(t), []byte("PLANTED")) {
			t.Errorf("%s holds a planted secret", path)
		}
	}
}

// TestEveryDeletionIsOnRecord: what takes something away is never counted together, however
// often it is done.
func TestEveryDeletionIsOnRecord(t *testing.T) {
	b := newAudited(t)
	reader := connect(t, b, "reader")
	defer reader.Close()
	js := reader.js(t)
	const n = audit.MaxEach + 15
	for i := range n {
		must(js.CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: fmt.Sprint("copy", i), FilterSubject: "orders.>", AckPolicy: jetstream.AckExplicitPolicy}))(t)
		check(t, js.DeleteConsumer(within(t), "ORDERS", fmt.Sprint("copy", i)))
	}
	var gone map[string]int
	eventually(t, "the deletions are on record", func() bool {
		gone = map[string]int{}
		for _, r := range audited(t, b, "auditor", false).find(func(r *auditlog.Record) bool {
			return r.Kind == auditlog.KindAPI && strings.Contains(r.Subject, "CONSUMER.DELETE")
		}) {
			gone[r.Consumer]++
		}
		return len(gone) == n
	})
	for name, times := range gone {
		if times != 1 {
			t.Errorf("%s is there %d times", name, times)
		}
	}
}

// A tenant's administrators see their tenant only, and the broker's own trail needs
// the grant of the machines too.
func TestTrailsOfTenantsAreSeparate(t *testing.T) {
	b := newAudited(t)
	busy(t, b)
	clerk := admin.New(b.Client("clerk")) // one for all looks: the gate bounds how often a principal asks
	eventually(t, "the refusals are on record", func() bool {
		list := must(clerk.Audit(within(t), admin.AuditQuery{Kind: "refusal", Principal: "writer"}, 0))(t)
		return len(list.Records) > 0
	})
	mill := audited(t, b, "boss", false)
	if !mill.report.OK || mill.report.Tenant != "mill" {
		t.Errorf("%+v", mill.report)
	}
	for i := range mill.records {
		if r := &mill.records[i]; r.Tenant != "mill" || strings.Contains(r.Who, "shop") {
			t.Errorf("mill sees %+v", r)
		}
	}
	if bytes.Contains(mill.raw, []byte("shop")) {
		t.Error("the trail of mill names shop")
	}
	for _, principal := range []string{"boss", "clerk"} {
		api := admin.New(b.Client(principal))
		if _, err := api.AuditBatches(within(t), true, 0); !errors.Is(err, client.ErrDenied) {
			t.Errorf("%s reads the broker's own trail: %v", principal, err)
		}
	}
	if _, err := admin.New(b.Client("writer")).Audit(within(t), admin.AuditQuery{}, 0); !errors.Is(err, client.ErrDenied) {
		t.Errorf("without a grant: %v", err)
	}
}

func TestAuditQueries(t *testing.T) {
	b := newAudited(t)
	api := admin.New(b.Client("auditor"))
	busy(t, b)
	eventually(t, "the refusals are on record", func() bool {
		return len(must(api.Audit(within(t), admin.AuditQuery{Kind: "refusal"}, 0))(t).Records) > 0
	})
	count := func(q admin.AuditQuery) int {
		t.Helper()
		return len(must(api.Audit(within(t), q, 0))(t).Records)
	}
	if n := count(admin.AuditQuery{Principal: "reader", Kind: "login", Outcome: "ok"}); n != 1 {
		t.Errorf("%d logins of the reader", n)
	}
	for name, q := range map[string]admin.AuditQuery{
		"principal": {Principal: "nobody"}, "outcome": {Kind: "login", Outcome: "failed"},
		"since": {Since: time.Now().Add(time.Hour)}, "until": {Until: time.Now().Add(-time.Hour)},
	} {
		if n := count(q); n != 0 {
			t.Errorf("%s selects %d", name, n)
		}
	}
	all := count(admin.AuditQuery{Limit: admin.MaxListLimit})
	if n := count(admin.AuditQuery{Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour), Limit: admin.MaxListLimit}); n < all || all < 8 {
		t.Errorf("an hour has %d records, all are %d", n, all)
	}
	paged := 0
	for q := (admin.AuditQuery{Limit: 1}); ; {
		list := must(api.Audit(within(t), q, 0))(t)
		paged += len(list.Records)
		if !list.More {
			break
		}
		q.After = list.Cursor
	}
	if paged < all {
		t.Errorf("paged %d records, there are %d", paged, all)
	}
	from := must(api.Audit(within(t), admin.AuditQuery{Newest: true}, 0))(t)
	late := connect(t, b, "reader")
	defer late.Close()
	got := must(api.Audit(within(t), admin.AuditQuery{After: from.Cursor, Kind: "login", Principal: "reader"}, 20*time.Second))(t)
	var r auditlog.Record
	if len(got.Records) != 1 || json.Unmarshal(got.Records[0], &r) != nil || r.Who != "shop/reader" {
		t.Errorf("tail: %s", got.Records)
	}
	if !slices.Contains(auditlog.Kinds(), r.Kind) {
		t.Errorf("kind %q", r.Kind)
	}
}

func restartAudited(t *testing.T, old *brokertest.Broker, change ...func(*broker.Config)) *brokertest.Broker {
	t.Helper()
	addr := old.Addr().String()
	return brokertest.New(t, brokertest.Options{Policy: auditPolicy, Dir: old.State.Dir, Change: func(c *broker.Config) {
		quickDrain(c)
		c.Listen = addr
		for _, f := range change {
			f(c)
		}
	}})
}
