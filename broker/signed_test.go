package broker_test

import (
	"context"
	"errors"
	"testing"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
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
