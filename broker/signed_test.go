package broker_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// TestSignedReplayAfterRestart: a broker that starts again still knows which signed
// events it has stored; the same one again is a duplicate, a changed one is refused.
func TestSignedReplayAfterRestart(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	file, key := b.EventKey("shop/writer")
	first := must(b.Client("writer", client.WithEventKeyFile(file)).Publish(ctx, "orders.eu.signed", &client.Event{Type: "t", ID: "1", Data: []byte("once")}))(t)
	got := make(chan *client.Delivery, 1)
	sub := must(b.Client("wide").Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error { got <- d; return nil },
		client.RequireProducer("shop/writer")))(t)
	var d *client.Delivery
	select {
	case d = <-got:
	case <-ctx.Done():
		t.Fatal("the event did not come")
	}
	sub.Stop()
	if d.Producer.KeyID != key {
		t.Errorf("signed by %q, want %s", d.Producer.KeyID, key)
	}
	captured := d.Attested()
	for _, name := range []string{wire.AttrAttestation, wire.AttrAuthID, wire.AttrAuthType} {
		delete(captured.Extensions, name)
	}
	stop(t, b)
	b = restart(t, b)

	writer := b.Client("writer")
	again := must(writer.Publish(ctx, "orders.eu.signed", captured))(t)
	if !again.Duplicate || again.Sequence != first.Sequence {
		t.Errorf("the same event again: %+v, the first was %+v", again, first)
	}
	changed := captured.Clone()
	changed.Data = []byte("twice")
	_, err := writer.Publish(ctx, "orders.eu.signed", changed)
	var e *client.Error
	if !errors.As(err, &e) || e.Code != int(wire.CodeProducerSignatureInvalid) {
		t.Errorf("changed: got %v, want %v", err, wire.CodeProducerSignatureInvalid)
	}
}

const workPolicy = `tenant: shop
streams:
  - {name: WORK, subjects: [work.>], maxBytes: 16MiB, retention: workqueue}
subjects:
  - {match: work.>, require: producer}
principals:
  - {name: writer, identities: [{nkey: '{{nkey "writer"}}'}], publish: [work.>]}
  - {name: worker, identities: [{nkey: '{{nkey "worker"}}'}], subscribe: [work.>]}
`

// TestSignedReplayOfWorkAfterRestart: a work queue forgets an event when it is
// acknowledged and the server has started since. That event is not let in again, and one
// that is signed after the start is.
func TestSignedReplayOfWorkAfterRestart(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = workPolicy })
	ctx := within(t)
	file, _ := b.EventKey("shop/writer")
	first := must(b.Client("writer", client.WithEventKeyFile(file)).Publish(ctx, "work.pay", &client.Event{Type: "t", ID: "1", Data: []byte("once")}))(t)
	got := make(chan *client.Delivery, 1)
	sub := must(b.Client("worker").Subscribe(ctx, "work.>", func(_ context.Context, d *client.Delivery) error { got <- d; return nil },
		client.RequireProducer("shop/writer"), client.Durable("w")))(t)
	var captured *client.Event
	select {
	case d := <-got:
		captured = d.Attested()
	case <-ctx.Done():
		t.Fatal("the event did not come")
	}
	sub.Drain()
	<-sub.Closed()
	recorded := must(time.Parse(time.RFC3339, captured.Extensions[wire.AttrRecordedTime]))(t)
	for _, name := range []string{wire.AttrAttestation, wire.AttrAuthID, wire.AttrAuthType} {
		delete(captured.Extensions, name)
	}
	again := must(b.Client("writer").Publish(ctx, "work.pay", captured))(t)
	if !again.Duplicate || again.Sequence != first.Sequence {
		t.Errorf("the same event again, acknowledged: %+v, the first was %+v", again, first)
	}
	stop(t, b)
	// Nothing is asked of what was recorded in the second of the start.
	eventually(t, "the next second", func() bool { return time.Since(recorded) >= time.Second })
	addr := b.Addr().String()
	b = brokertest.New(t, brokertest.Options{Policy: workPolicy, Dir: b.State.Dir, Change: func(c *broker.Config) { quickDrain(c); c.Listen = addr }})

	_, err := b.Client("writer").Publish(ctx, "work.pay", captured)
	var e *client.Error
	if !errors.As(err, &e) || e.Code != int(wire.CodeOutsideReplayWindow) || e.RetryAfter <= 0 {
		t.Errorf("the same event after the start: %v, want %v and when it passes", err, wire.CodeOutsideReplayWindow)
	}
	next := must(b.Client("writer", client.WithEventKeyFile(file)).Publish(ctx, "work.pay", &client.Event{Type: "t", ID: "2", Data: []byte("next")}))(t)
	if next.Duplicate {
		t.Errorf("an event of after the start: %+v", next)
	}
}

// TestNodeKeyTurnsUnderSignedLoad: a node that goes over to its next key refuses no event
// that a producer has signed, by a clock that is nearly as far behind as is let in.
func TestNodeKeyTurnsUnderSignedLoad(t *testing.T) {
	const behind, lead = policy.ReplayPast - 5*time.Second, 8 * time.Second
	b := newBroker(t)
	ctx := within(t)
	file, _ := b.EventKey("shop/writer")
	producer := must(signing.NewProducer(must(os.ReadFile(file))(t)))(t)
	nc := b.NATS("writer")
	r := newRootHolder(t, b.State.RootSeed, b.State)
	doc, id, seed := r.rotateFrom(t, "test", time.Now().Add(lead-policy.ReplayPast), 10*time.Minute)
	check(t, os.WriteFile(nextSeed(b.State), seed, 0o600))
	must(admin.New(b.Client("root")).PutKeys(ctx, doc))(t)
	turned := make(chan struct{})
	var once sync.Once
	must(b.Client("wide").Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
		if d.Attestation.KeyID == id {
			once.Do(func() { close(turned) })
		}
		return nil
	}))(t)
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	for sent := 1; ; sent++ {
		msg := signedMsg(t, producer, "orders.eu.x", time.Now().Add(-behind))
		answer := must(nc.RequestMsgWithContext(ctx, msg))(t)
		if !strings.Contains(string(answer.Data), `"seq"`) {
			t.Fatalf("event %d is refused: %s", sent, answer.Data)
		}
		select {
		case <-turned:
			return
		case <-ctx.Done():
			t.Fatal("the node does not go over to its next key")
		case <-pace.C:
		}
	}
}

// signedMsg is an event that the producer signed at a time, as a client sends it.
func signedMsg(t testing.TB, producer *signing.Producer, on string, at time.Time) *nats.Msg {
	t.Helper()
	when := signing.AppendRecordedTime(nil, at)
	e := &cloudevent.Event{
		ID: []byte(client.NewID()), Source: []byte("/shop/writer"), Type: []byte("t"), ContentType: []byte("text/plain"),
		Time: when, Data: []byte("x"),
	}
	e.SetExt([]byte(wire.AttrRecordedTime), when)
	check(t, producer.Sign(e, on))
	block := append([]byte(wire.HeaderLine), cloudevent.AppendHeaders(nil, e)...)
	return &nats.Msg{Subject: on, Header: must(nats.DecodeHeadersMsg(append(block, "\r\n"...)))(t), Data: e.Data}
}
