package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

const schedulePolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>, later.>], maxBytes: 64MiB, messageTTL: true, unsafeSchedules: true}
  - {name: BATCHES, subjects: [batches.>], maxBytes: 64MiB, atomicBatches: true}
  - {name: PLAIN, subjects: [plain.>], maxBytes: 64MiB}
schemas:
  - {name: order, version: 1, text: '{"type":"object","required":["id"]}'}
subjects:
  - {match: batches.checked, schema: order}
  - {match: orders.checked, schema: order}
roles:
  able: {headers: [Nats-Schedule, Nats-Schedule-Target, Nats-Schedule-TTL, Nats-TTL, Nats-Batch-Id, Nats-Batch-Sequence, Nats-Batch-Commit]}
principals:
  - {name: checkout, identities: [{nkey: '{{nkey "checkout"}}'}], roles: [able], publish: [orders.>, later.>, batches.>, plain.>]}
  - {name: narrow, identities: [{nkey: '{{nkey "narrow"}}'}], roles: [able], publish: [later.>, orders.checked, batches.mine]}
  - {name: unable, identities: [{nkey: '{{nkey "unable"}}'}], publish: [orders.>, later.>, batches.>, plain.>]}
  - {name: billing, identities: [{nkey: '{{nkey "billing"}}'}], subscribe: [orders.>, later.>, batches.>, plain.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [keys]}
`

// listen reads a filter and gives what came.
func listen(t *testing.T, c *client.Client, filter string) <-chan *client.Delivery {
	t.Helper()
	got := make(chan *client.Delivery, 2000)
	s, err := c.Subscribe(within(t, time.Minute), filter, func(_ context.Context, d *client.Delivery) error { got <- d; return nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return got
}

// TestPublishAt: an event comes at its time, on its subject, and verifies there; it is
// judged when it is handed in.
func TestPublishAt(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: schedulePolicy})
	ctx := within(t, 2*time.Minute)
	c := b.Client("checkout")
	key, _ := b.EventKey("shop/checkout")
	signs := b.Client("checkout", client.WithEventKeyFile(key))
	orders := listen(t, b.Client("billing"), "orders.>")

	at := time.Now().Add(1500 * time.Millisecond)
	for n, who := range []*client.Client{c, signs} {
		ev := &client.Event{ID: fmt.Sprint("e", n), Type: "t", Data: fmt.Append(nil, n)}
		if ack, err := who.PublishAt(ctx, "later.order", "orders.created", at, ev); err != nil || ack.Stream != "ORDERS" {
			t.Fatalf("%+v, %v", ack, err)
		}
	}
	// A retry finds the same place.
	if ack, err := c.PublishAt(ctx, "later.order", "orders.created", at, &client.Event{ID: "e0", Type: "t", Data: []byte("0")}); err != nil || !ack.Duplicate {
		t.Errorf("again: %+v, %v", ack, err)
	}
	if _, err := c.PublishAfter(ctx, "later.order", "orders.late", 10*time.Minute, client.NewEvent("t", nil)); err != nil {
		t.Error(err)
	}
	if _, err := c.PublishAt(ctx, "later.order", "orders.past", time.Now().Add(-time.Hour), client.NewEvent("t", nil)); err != nil {
		t.Error(err)
	}
	seen := map[string]bool{}
	for len(seen) < 3 {
		d := next(t, orders)
		if seen[d.Event.ID] || d.Principal != "shop/checkout" {
			t.Errorf("%s of %s", d.Event.ID, d.Principal)
		}
		seen[d.Event.ID] = true
		switch d.NATSSubject {
		case "orders.created":
			if d.Stored.Before(at) {
				t.Errorf("it came at %v, before %v", d.Stored, at)
			}
			if signed := d.Producer.Principal != ""; signed != (d.Event.ID == "e1") {
				t.Errorf("%s: signed %v, %v", d.Event.ID, signed, d.ProducerFault)
			}
		case "orders.past":
		default:
			t.Errorf("%s came", d.NATSSubject)
		}
	}

	soon := time.Now().Add(time.Hour)
	for _, tt := range []struct {
		name         string
		who          *client.Client
		wait, target string
		at           time.Time
		ev           *client.Event
		opts         []client.PubOpt
		want         error
	}{
		{"no right to the headers", b.Client("unable"), "later.x", "orders.x", soon, client.NewEvent("t", nil), nil, client.ErrDenied},
		{"a target that is not granted", b.Client("narrow"), "later.x", "orders.created", soon, client.NewEvent("t", nil), nil, client.ErrDenied},
		{"the schema of the target", b.Client("narrow"), "later.x", "orders.checked", soon, &client.Event{DataContentType: "application/json", Data: []byte("{}")}, nil, client.ErrSchemaViolation},
		{"another stream", c, "later.x", "plain.x", soon, client.NewEvent("t", nil), nil, client.ErrDenied},
		{"no subject to wait on", c, "", "orders.x", soon, client.NewEvent("t", nil), nil, client.ErrMalformed},
		{"a wildcard", c, "later.*", "orders.x", soon, client.NewEvent("t", nil), nil, client.ErrMalformed},
		{"no time", c, "later.x", "orders.x", time.Time{}, client.NewEvent("t", nil), nil, client.ErrInvalidOption},
		{"a receipt", c, "later.x", "orders.x", soon, client.NewEvent("t", nil), []client.PubOpt{client.WithSignedAck()}, client.ErrInvalidOption},
		{"expired by then", c, "later.x", "orders.x", soon, expiring(time.Minute), nil, client.ErrExpired},
		{"no event", c, "later.x", "orders.x", soon, nil, nil, client.ErrMalformed},
	} {
		if _, err := tt.who.PublishAt(ctx, tt.wait, tt.target, tt.at, tt.ev, tt.opts...); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// Cron in a header is refused, and says what to do.
	for _, when := range []string{"@every 1s", "0 * * * * *", "@hourly"} {
		_, err := c.Publish(ctx, "later.x", client.NewEvent("t", nil), client.WithHeader("Nats-Schedule", when), client.WithHeader("Nats-Schedule-Target", "orders.x"))
		if !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), "SchedulesOf") {
			t.Errorf("%s: %v", when, err)
		}
	}
}

// TestPublishAtKeepsApart: what waits is not replaced by an event of another principal or
// source that has the same id.
func TestPublishAtKeepsApart(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: schedulePolicy})
	ctx := within(t, time.Minute)
	for _, who := range []*client.Client{b.Client("checkout"), b.Client("narrow")} {
		ev := &client.Event{ID: "42", Type: "t", DataContentType: "application/json", Data: []byte(`{"id":1}`)}
		if ack, err := who.PublishAfter(ctx, "later.order", "orders.checked", time.Hour, ev); err != nil || ack.Duplicate {
			t.Fatalf("%+v, %v", ack, err)
		}
	}
	js, err := b.NATS("billing").JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if info, err := js.StreamInfo("ORDERS"); err != nil || info.State.Msgs != 2 {
		t.Errorf("%+v, %v: two wait", info, err)
	}
}

func expiring(d time.Duration) *client.Event {
	ev := client.NewEvent("t", nil)
	ev.ExpireAt(time.Now().Add(d))
	return ev
}

// TestExpiry: an event that has expired is not published, and the broker deletes one
// whose time is over.
func TestExpiry(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: schedulePolicy})
	ctx := within(t, 2*time.Minute)
	c := b.Client("checkout")
	key, _ := b.EventKey("shop/checkout")
	signs := b.Client("checkout", client.WithEventKeyFile(key))
	planned := listen(t, b.Client("billing"), "orders.planned")
	if _, err := c.Publish(ctx, "orders.kept", expiring(time.Hour)); err != nil {
		t.Fatal(err) // no header, so no right is needed, and nothing is deleted
	}
	if _, err := c.Publish(ctx, "orders.plain", expiring(time.Hour), client.WithExpiry()); err != nil {
		t.Fatal(err)
	}
	f, err := signs.PublishAsync(ctx, "orders.signed", expiring(time.Hour), client.WithExpiry())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PublishAfter(ctx, "later.x", "orders.planned", time.Second, expiring(time.Hour), client.WithExpiry()); err != nil {
		t.Fatal(err)
	}
	if d := next(t, planned); d.Event.Extensions[client.AttrExpiry] == "" {
		t.Error("the attribute is gone")
	}
	js, err := b.NATS("billing").JetStream()
	if err != nil {
		t.Fatal(err)
	}
	for subject, deleted := range map[string]bool{"orders.kept": false, "orders.plain": true, "orders.signed": true, "orders.planned": true} {
		msg, err := js.GetLastMsg("ORDERS", subject)
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		left, err := time.ParseDuration(msg.Header.Get("Nats-TTL"))
		if (err == nil) != deleted || deleted && (left < time.Hour-2*time.Minute || left > time.Hour) {
			t.Errorf("%s is deleted after %q", subject, msg.Header.Get("Nats-TTL"))
		}
	}
	bad := client.NewEvent("t", nil)
	bad.Extensions = map[string]string{client.AttrExpiry: "tomorrow"}
	for _, tt := range []struct {
		name string
		who  *client.Client
		ev   *client.Event
		opts []client.PubOpt
		want error
	}{
		{"expired", c, expiring(-time.Second), nil, client.ErrExpired},
		{"expired, signed", signs, expiring(-time.Second), []client.PubOpt{client.WithExpiry()}, client.ErrExpired},
		{"no time", c, bad, nil, client.ErrMalformed},
		{"no expirytime", c, client.NewEvent("t", nil), []client.PubOpt{client.WithExpiry()}, client.ErrInvalidOption},
		{"no right", b.Client("unable"), expiring(time.Hour), []client.PubOpt{client.WithExpiry()}, client.ErrDenied},
	} {
		if _, err := tt.who.Publish(ctx, "orders.x", tt.ev, tt.opts...); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		f, err := tt.who.PublishAsync(ctx, "orders.x", tt.ev, tt.opts...)
		if err == nil {
			_, err = f.Wait(ctx)
		}
		if !errors.Is(err, tt.want) {
			t.Errorf("%s, async: %v, want %v", tt.name, err, tt.want)
		}
	}
	if _, err := c.Publish(ctx, "plain.x", expiring(time.Hour), client.WithExpiry()); err == nil {
		t.Error("a stream without messageTTL took it")
	}
}

func batchOf(subjects ...string) (out []client.BatchEvent) {
	for i, s := range subjects {
		out = append(out, client.BatchEvent{NATSSubject: s, Event: &client.Event{Type: "t", DataContentType: "application/json", Data: fmt.Appendf(nil, `{"n":%d}`, i)}})
	}
	return out
}

// TestPublishBatch: all events of a batch are stored, next to each other, or none; the
// error says which one it was.
func TestPublishBatch(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: schedulePolicy})
	ctx := within(t, 2*time.Minute)
	c := b.Client("checkout")
	key, _ := b.EventKey("shop/checkout")
	signs := b.Client("checkout", client.WithEventKeyFile(key), client.WithMaxInFlight(3))
	var many []string
	for range client.MaxBatch {
		many = append(many, "batches.many")
	}
	total := uint64(0)
	for _, tt := range []struct {
		who    *client.Client
		events []client.BatchEvent
	}{{c, batchOf("batches.a", "batches.b", "batches.a")}, {c, batchOf("batches.one")}, {signs, batchOf("batches.a", "batches.b", "batches.c", "batches.d", "batches.e")}, {c, batchOf(many...)}} {
		ack, err := tt.who.PublishBatch(ctx, tt.events)
		if err != nil {
			t.Fatal(err)
		}
		total += uint64(len(tt.events))
		if ack.Stream != "BATCHES" || ack.Count != len(tt.events) || ack.Last != total || len(ack.EventIDs) != ack.Count {
			t.Errorf("%s %d events to %d, %d in all", ack.Stream, ack.Count, ack.Last, total)
		}
	}
	got := listen(t, b.Client("billing"), "batches.>")
	for n := range total {
		if d := next(t, got); d.Sequence != n+1 || d.Principal != "shop/checkout" || (d.Producer.Principal != "") != (n >= 4 && n < 9) {
			t.Fatalf("event %d: sequence %d of %s, signed by %q", n, d.Sequence, d.Principal, d.Producer.Principal)
		}
	}

	checked := batchOf("batches.a", "batches.b", "batches.checked", "batches.c")
	same := batchOf("batches.a", "batches.b")
	same[0].Event.ID, same[1].Event.ID = "same", "same too"
	if _, err := c.PublishBatch(ctx, same); err != nil {
		t.Fatal(err)
	}
	total += 2
	old := batchOf("batches.a", "batches.b")
	old[1].Event.ExpireAt(time.Now().Add(-time.Hour))
	for _, tt := range []struct {
		name   string
		who    *client.Client
		events []client.BatchEvent
		opts   []client.PubOpt
		want   error
		place  string
	}{
		{"one breaks its schema", c, checked, nil, client.ErrSchemaViolation, "event 3 of 4"},
		{"the last breaks its schema", c, batchOf("batches.a", "batches.checked"), nil, client.ErrSchemaViolation, "event 2 of 2"},
		{"one is not granted", b.Client("narrow"), batchOf("batches.mine", "batches.others", "batches.mine"), nil, client.ErrDenied, "event 2 of 3"},
		{"no right to batches", b.Client("unable"), batchOf("batches.a", "batches.b"), nil, client.ErrDenied, "event 1 of 2"},
		{"one is malformed", c, batchOf("batches.a", "batches.*"), nil, client.ErrMalformed, "event 2 of 2"},
		{"one has expired", c, old, nil, client.ErrExpired, "event 2 of 2"},
		{"one has no event", c, []client.BatchEvent{{NATSSubject: "batches.a"}}, nil, client.ErrMalformed, "event 1 of 1"},
		{"again", c, same, nil, client.ErrConflict, "event 2 of 2"},
		{"a stream without batches", c, batchOf("plain.a", "plain.b"), nil, client.ErrBatch, "event 1 of 2"},
		{"two streams", c, batchOf("batches.a", "plain.b"), nil, client.ErrBatch, "event 2 of 2"},
		{"a receipt", c, batchOf("batches.a"), []client.PubOpt{client.WithSignedAck()}, client.ErrInvalidOption, "event 1 of 1"},
	} {
		_, err := tt.who.PublishBatch(ctx, tt.events, tt.opts...)
		if !errors.Is(err, tt.want) || !errors.Is(err, client.ErrBatch) || !strings.Contains(err.Error(), tt.place) {
			t.Errorf("%s: %v, want %v of %s", tt.name, err, tt.want, tt.place)
		}
	}
	for _, n := range []int{0, client.MaxBatch + 1} {
		if _, err := c.PublishBatch(ctx, make([]client.BatchEvent, n)); !errors.Is(err, client.ErrInvalidOption) {
			t.Errorf("%d events: %v", n, err)
		}
	}
	if ack, err := c.Publish(ctx, "batches.after", client.NewEvent("t", nil)); err != nil || ack.Sequence != total+1 {
		t.Errorf("something of what was refused is stored: %+v, %v; %d", ack, err, total)
	}
}
