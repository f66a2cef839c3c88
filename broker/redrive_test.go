package broker_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/wire"
)

// redrivePolicy is shopPolicy with who may mend things.
var redrivePolicy = strings.Replace(shopPolicy,
	"  - {name: root, identities: [{nkey: '{{nkey \"root\"}}'}], admin: [dlq, keys, policy, refusals, status]}",
	"  - {name: root, identities: [{nkey: '{{nkey \"root\"}}'}], admin: [audit, dlq, keys, policy, refusals, status]}\n"+
		"  - {name: mender, identities: [{nkey: '{{nkey \"mender\"}}'}], publish: [orders.>], admin: [dlq]}", 1)

func redriveBroker(t *testing.T) *brokertest.Broker {
	return newBroker(t, func(o *brokertest.Options) { o.Policy = redrivePolicy })
}

// failedLetter writes what the gate writes when a consumer has failed on a stored event.
func failedLetter(t *testing.T, b *brokertest.Broker, stream string, seq uint64, consumer, owner string, change ...func(*dlq.Record, nats.Header)) uint64 {
	t.Helper()
	js := insideJS(t, b, "shop")
	s := must(js.Stream(within(t), stream))(t)
	var m *jetstream.RawStreamMsg
	eventually(t, "the event, in every copy", func() bool {
		var err error
		m, err = s.GetMsg(within(t), seq)
		return err == nil
	})
	block := []byte(wire.HeaderLine)
	for name, values := range m.Header {
		block = wire.AppendHeader(block, name, []byte(values[0]))
	}
	rec := &dlq.Record{
		Reason: dlq.ReasonDelivery, Stage: dlq.StageConsumer, Time: time.Now(), Attempts: 5, Principal: owner, NATSSubject: m.Subject,
		Origin: dlq.Origin{Stream: stream, Sequence: seq, Consumer: consumer}, Header: append(block, '\r', '\n'), Payload: m.Data,
	}
	more := nats.Header{}
	for _, c := range change {
		c(rec, more)
	}
	header, body, err := rec.Encode()
	check(t, err)
	delete(header, wire.HeaderMsgID) // a test may want more than one of the same event
	for name, values := range more {
		header[name] = values
	}
	ack := must(js.PublishMsg(within(t), &nats.Msg{Subject: rec.Subject(), Header: header, Data: body}))(t)
	return ack.Sequence
}

// readers is a durable subscription that takes down what it gets.
type readers struct {
	mu  sync.Mutex
	got []*client.Delivery
}

func (r *readers) handle(_ context.Context, d *client.Delivery) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, d)
	return nil
}

func (r *readers) all() []*client.Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func redriveOne(t *testing.T, api *admin.API, q admin.RedriveRequest) admin.Redriven {
	t.Helper()
	page, err := admin.DLQOf(api).Redrive(within(t), q)
	check(t, err)
	if len(page.Letters) != 1 {
		t.Fatalf("%+v", page)
	}
	return page.Letters[0]
}

func lettersLeft(t *testing.T, api *admin.API) int {
	t.Helper()
	st, err := admin.DLQOf(api).Stats(within(t), admin.DLQStatsQuery{})
	check(t, err)
	return int(st.Messages)
}

// TestRedriveToTheConsumerAlone: what is redriven comes to the handlers of the consumer that
// failed, as the event that it was, and to nobody else.
func TestRedriveToTheConsumerAlone(t *testing.T) {
	b := redriveBroker(t)
	api := admin.New(b.Client("root"))
	pub := b.Client("writer")
	receipt, err := pub.Publish(within(t), "orders.eu.x", client.NewEvent("t", []byte(`{"n":1}`)))
	check(t, err)
	failing, other := &readers{}, &readers{}
	for _, c := range []struct {
		who, durable string
		r            *readers
	}{{"payer", "billing", failing}, {"wide", "ledger", other}} {
		sub, err := b.Client(c.who).Subscribe(within(t), "orders.eu.>", c.r.handle, client.Durable(c.durable), client.InStream("ORDERS"))
		check(t, err)
		t.Cleanup(sub.Stop)
	}
	eventually(t, "both to have the event", func() bool { return len(failing.all()) == 1 && len(other.all()) == 1 })
	n := failedLetter(t, b, "ORDERS", receipt.Sequence, "billing", "shop/payer")

	dry := redriveOne(t, api, admin.RedriveRequest{Seq: n, DryRun: true})
	if dry.Verdict != admin.VerdictWould || lettersLeft(t, api) != 1 {
		t.Fatalf("dry run: %+v", dry)
	}
	done := redriveOne(t, api, admin.RedriveRequest{Seq: n})
	if done.Verdict != admin.VerdictRedriven || done.Count != 1 || done.To != admin.RedriveConsumer {
		t.Fatalf("%+v", done)
	}
	if n := lettersLeft(t, api); n != 0 {
		t.Errorf("%d letters are left", n)
	}
	eventually(t, "the event to come back", func() bool { return len(failing.all()) == 2 })
	first, again := failing.all()[0], failing.all()[1]
	if again.Redrives != 1 || first.Redrives != 0 || again.NATSSubject != "orders.eu.x" || again.Sequence != receipt.Sequence || again.Stream != "ORDERS" || again.Consumer != "billing" ||
		again.Principal != "shop/writer" || again.Event.ID != first.Event.ID || string(again.Event.Data) != string(first.Event.Data) {
		t.Errorf("it comes back as %+v", again)
	}
	// The queue is empty once it was acknowledged, and nothing is left of the redrive.
	eventually(t, "an empty queue", func() bool { return streamOf(t, b, "shop", wire.StreamRetry).State.Messages == 0 })
	if len(other.all()) != 1 || streamOf(t, b, "shop", "ORDERS").State.Messages != 1 {
		t.Errorf("somebody else has got it: %+v", other.all())
	}

	// Looking for a queue that is not there is no refusal: readers do it all the time.
	st, err := api.Status(within(t))
	check(t, err)
	if st.Gate.Refused != 0 {
		t.Errorf("%d refusals", st.Gate.Refused)
	}
	// Nobody but the owner reads or acknowledges the queue, with plain NATS.
	name := wire.RetryConsumer("ORDERS", "billing")
	for _, who := range []string{"wide", "narrow", "root", "writer"} {
		nc := b.NATS(who)
		js := must(jetstream.New(nc))(t)
		if _, err := js.Consumer(within(t), wire.StreamRetry, name); err == nil {
			t.Errorf("%s sees the retry queue of payer", who)
		}
		m, err := nc.RequestWithContext(within(t), "$JS.API.CONSUMER.MSG.NEXT.RETRY."+name, []byte(`{"batch":1,"expires":1000000000}`))
		if err == nil && m.Header.Get("Status") == "" {
			t.Errorf("%s pulls from the retry queue of payer: %q", who, m.Data)
		}
	}
	if js := must(jetstream.New(b.NATS("payer")))(t); must(js.Consumer(within(t), wire.StreamRetry, name))(t) == nil {
		t.Error("its owner does not see it")
	}
}

// TestRedriveToAll: as who sent it, with a new key, told to everybody.
func TestRedriveToAll(t *testing.T) {
	b := redriveBroker(t)
	api := admin.New(b.Client("root"))
	event := client.NewEvent("t", []byte(`{"n":1}`))
	event.ID = "same-id"
	receipt, err := b.Client("writer").Publish(within(t), "orders.eu.x", event)
	check(t, err)
	n := failedLetter(t, b, "ORDERS", receipt.Sequence, "gone", "shop/payer")
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n}); v.Verdict != admin.VerdictGone || !strings.Contains(v.Detail, "--to all") {
		t.Errorf("to a consumer that is not there: %+v", v)
	}
	done := redriveOne(t, api, admin.RedriveRequest{Seq: n, To: admin.RedriveAll})
	if done.Verdict != admin.VerdictRedriven || done.StoredAt != 2 || done.Duplicate {
		t.Fatalf("%+v", done)
	}
	r := &readers{}
	sub, err := b.Client("wide").Subscribe(within(t), "orders.>", r.handle)
	check(t, err)
	t.Cleanup(sub.Stop)
	eventually(t, "both", func() bool { return len(r.all()) == 2 })
	if got := r.all()[1]; got.Redrives != 1 || got.Principal != "shop/writer" || got.Event.ID != "same-id" {
		t.Errorf("%+v", got)
	}
	if lettersLeft(t, api) != 0 {
		t.Error("the letter is still there")
	}
}

// TestRedriveOfARefusal: what was refused at the door goes through the door again, as of
// who sent it, by the policy of now.
func TestRedriveOfARefusal(t *testing.T) {
	b := redriveBroker(t)
	api, mender := admin.New(b.Client("root")), admin.New(b.Client("mender"))
	writer := b.Client("writer")
	event := client.NewEvent("t", []byte(`{"id":"seven","action":"opened"}`))
	event.DataContentType = client.ContentTypeJSON
	for range 3 {
		if _, err := writer.Publish(within(t), "orders.checked", event); err == nil {
			t.Fatal("let in")
		}
		event.Data = []byte(`{"id":"eight","action":"closed"}`)
	}
	deadLetters(t, b, "shop", 3)
	list, err := api.DLQList(within(t), admin.DLQQuery{DLQFilter: admin.DLQFilter{Where: []string{"/action=opened"}}})
	check(t, err)
	if len(list.Entries) != 1 || list.Entries[0].Type != "t" {
		t.Fatalf("%+v", list.Entries)
	}
	n := list.Entries[0].Seq
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n}); v.Verdict != admin.VerdictUnsupported || !strings.Contains(v.Detail, "--to all") {
		t.Errorf("to a consumer: %+v", v)
	}
	for _, dry := range []bool{true, false} {
		v := redriveOne(t, api, admin.RedriveRequest{Seq: n, To: admin.RedriveAll, DryRun: dry})
		if v.Verdict != admin.VerdictRefused || v.Code != wire.CodeSchemaViolation || len(v.Violations) == 0 {
			t.Errorf("dry %v: %+v", dry, v)
		}
	}
	// A fixed payload is a new event of who redrives it, who must have the right to it.
	fixed := admin.RedriveRequest{Seq: n, To: admin.RedriveAll, Payload: []byte(`{"id":7}`)}
	if v := redriveOne(t, api, fixed); v.Verdict != admin.VerdictRefused || v.Code != wire.CodePublishDenied {
		t.Errorf("by who may not publish: %+v", v)
	}
	wrong := fixed
	wrong.Payload = []byte(`{"id":"x"}`)
	if v := redriveOne(t, mender, wrong); v.Verdict != admin.VerdictRefused || v.Code != wire.CodeSchemaViolation {
		t.Errorf("with another fault: %+v", v)
	}
	if _, err := admin.DLQOf(mender).Redrive(within(t), admin.RedriveRequest{Payload: []byte("{}"), To: admin.RedriveAll}); err == nil {
		t.Error("a payload for all letters")
	}
	if lettersLeft(t, api) != 3 {
		t.Fatalf("%d letters", lettersLeft(t, api))
	}
	if v := redriveOne(t, mender, fixed); v.Verdict != admin.VerdictRedriven {
		t.Fatalf("%+v", v)
	}
	// The rest is let in when the policy lets it in, as of who sent it.
	reload(t, b, edit(t, redrivePolicy, `"id":{"type":"integer"}`, `"id":{}`))
	page, err := admin.DLQOf(api).Redrive(within(t), admin.RedriveRequest{DLQFilter: admin.DLQFilter{Reason: "schema"}, To: admin.RedriveAll})
	check(t, err)
	if len(page.Letters) != 2 || page.Letters[0].Verdict != admin.VerdictRedriven || page.Letters[1].Verdict != admin.VerdictRedriven || page.More {
		t.Fatalf("%+v", page)
	}
	r := &readers{}
	sub, err := b.Client("wide").Subscribe(within(t), "orders.>", r.handle)
	check(t, err)
	t.Cleanup(sub.Stop)
	eventually(t, "all three", func() bool { return len(r.all()) == 3 })
	for i, who := range []string{"shop/mender", "shop/writer", "shop/writer"} {
		if got := r.all()[i]; got.Principal != who || got.Redrives != 1 {
			t.Errorf("event %d is of %s, redrives %d", i, got.Principal, got.Redrives)
		}
	}
}

// TestOwnersOfLetters: with owners: true a principal works its own letters, and no others.
func TestOwnersOfLetters(t *testing.T) {
	owners := edit(t, redrivePolicy, "deadLetter: {maxBytes: 4MiB}\nprincipals:\n  - {name: writer", "deadLetter: {maxBytes: 4MiB, owners: true}\nprincipals:\n  - {name: writer")
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = owners })
	billing(t, b)
	seq := publishOrders(t, b, 1)[0]
	payers := failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer")
	hidden := failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer", func(r *dlq.Record, _ nats.Header) { r.NATSSubject = "orders.us.x" })
	writer := b.Client("writer")
	if _, err := writer.Publish(within(t), "orders.checked", client.NewEvent("t", []byte(`{}`))); err == nil {
		t.Fatal("let in")
	}
	deadLetters(t, b, "shop", 3)
	const writers = 3
	of := func(who string) *admin.API { return admin.New(b.Client(who)) }
	for who, want := range map[string][]uint64{"payer": {payers}, "writer": {writers}, "wide": {}, "root": {payers, hidden, writers}} {
		api := of(who)
		list, err := api.DLQList(within(t), admin.DLQQuery{})
		check(t, err)
		got := []uint64{}
		for _, e := range list.Entries {
			got = append(got, e.Seq)
		}
		st, err := admin.DLQOf(api).Stats(within(t), admin.DLQStatsQuery{})
		check(t, err)
		if !slices.Equal(got, want) || st.Matched != uint64(len(want)) || who != "root" && st.Messages != 0 {
			t.Errorf("%s sees %v, want %v; counts %d", who, got, want, st.Matched)
		}
		for n := uint64(1); n <= 3; n++ {
			_, err := api.DLQShow(within(t), n)
			if slices.Contains(want, n) != (err == nil) || err != nil && !errors.Is(err, client.ErrNotFound) {
				t.Errorf("%s is shown %d: %v", who, n, err)
			}
			_, err = admin.DLQOf(api).Redrive(within(t), admin.RedriveRequest{Seq: n, DryRun: true})
			if slices.Contains(want, n) != (err == nil) || err != nil && !errors.Is(err, client.ErrNotFound) {
				t.Errorf("%s asks about %d: %v", who, n, err)
			}
		}
	}
	payer := admin.DLQOf(of("payer"))
	for name, err := range map[string]error{
		"others' letters": func() error {
			_, err := of("payer").DLQList(within(t), admin.DLQQuery{DLQFilter: admin.DLQFilter{Principal: "writer"}})
			return err
		}(),
		"force": func() error {
			_, err := payer.Redrive(within(t), admin.RedriveRequest{Seq: payers, Force: true})
			return err
		}(),
		"more redrives": func() error {
			_, err := payer.Redrive(within(t), admin.RedriveRequest{Seq: payers, Most: 100})
			return err
		}(),
		"a purge": func() error {
			_, err := payer.Purge(within(t), admin.PurgeRequest{Seq: payers, Confirm: true})
			return err
		}(),
	} {
		if !errors.Is(err, client.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v := redriveOne(t, of("payer"), admin.RedriveRequest{Seq: payers, To: admin.RedriveAll}); v.Verdict != admin.VerdictRefused || v.Code != wire.CodeAdminDenied {
		t.Errorf("another's event to all: %+v", v)
	}
	if v := redriveOne(t, of("payer"), admin.RedriveRequest{Seq: payers}); v.Verdict != admin.VerdictRedriven {
		t.Errorf("its own: %+v", v)
	}
	page, err := admin.DLQOf(of("wide")).Redrive(within(t), admin.RedriveRequest{})
	check(t, err)
	if len(page.Letters) != 0 || streamOf(t, b, "shop", "DLQ").State.Messages != 2 {
		t.Errorf("%+v", page)
	}
}
