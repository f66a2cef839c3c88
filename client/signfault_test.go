package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// change puts a keyring in force in which the key id is what edit makes of it.
func change(b *brokertest.Broker, id string, edit func(*keyring.Key)) {
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key {
		for i := range keys {
			if keys[i].ID == id {
				edit(&keys[i])
			}
		}
		return keys
	})
}

// A reader whose keyring is older than a change of the key must not lose events that
// the change allows.
func TestReaderLearnsOfAWidenedEventKey(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	file, id := b.EventKey("shop/checkout", func(k *keyring.Key) { k.Subjects = []string{"orders.signed.narrow"} })
	got := subscribe(t, b, "orders.>", client.RequireProducer("shop/checkout"))
	change(b, id, func(k *keyring.Key) { k.Subjects = []string{"orders.signed.>"} })
	if _, err := b.Client("checkout", client.WithEventKeyFile(file)).Publish(within(t, time.Minute), "orders.signed.wide", client.NewEvent("t", nil)); err != nil {
		t.Fatal(err)
	}
	if d := next(t, got); d.Producer.KeyID != id || d.NATSSubject != "orders.signed.wide" {
		t.Errorf("signed by %q on %s, want %s", d.Producer.KeyID, d.NATSSubject, id)
	}
}

// What is stored stays readable by who never asked for producers, whatever becomes of
// the key; who asked for them loses it.
func TestKeyChangeTakesNoHistoryFromOthers(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	file, id := b.EventKey("shop/checkout")
	goneFile, gone := b.EventKey("shop/checkout")
	ctx := within(t, time.Minute)
	for _, f := range []string{file, goneFile} {
		if _, err := b.Client("checkout", client.WithEventKeyFile(f)).Publish(ctx, "orders.signed.x", client.NewEvent("t", []byte("kept"))); err != nil {
			t.Fatal(err)
		}
	}
	change(b, id, func(k *keyring.Key) { k.Subjects = []string{"orders.elsewhere"} })
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key {
		var left []keyring.Key
		for _, k := range keys {
			if k.ID != gone {
				left = append(left, k)
			}
		}
		return left
	})
	got := subscribe(t, b, "orders.>")
	for _, want := range []error{signing.ErrKeyNotValid, signing.ErrUnknownKey} {
		d := next(t, got)
		if string(d.Event.Data) != "kept" || d.Principal != "shop/checkout" || d.Producer != (signing.ProducerSignature{}) || !errors.Is(d.ProducerFault, want) {
			t.Errorf("delivery %q of %s: producer %+v, fault %v, want %v", d.Event.Data, d.Principal, d.Producer, d.ProducerFault, want)
		}
	}
	bad := make(chan client.InvalidEvent, 64)
	reader := b.Client("billing", client.WithInvalidHandler(func(e client.InvalidEvent) {
		select {
		case bad <- e:
		default:
		}
	}))
	s, err := reader.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
		t.Errorf("delivered to who wants producers: %+v, fault %v", d.Producer, d.ProducerFault)
		return nil
	}, client.RequireProducer())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	select {
	case e := <-bad:
		if !errors.Is(e.Err, signing.ErrKeyNotValid) && !errors.Is(e.Err, signing.ErrUnknownKey) {
			t.Errorf("kept from who wants producers: %v", e.Err)
		}
	case <-ctx.Done():
		t.Error("nothing was kept from who wants producers")
	}
}

// Close sends what PublishAsync was given, signed or not.
func TestCloseSendsEventsThatWaitForTheirSignature(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	file, _ := b.EventKey("shop/checkout")
	const rounds, each = 5, 20
	got := subscribe(t, b, "orders.>")
	for range rounds {
		c := b.Client("checkout", client.WithEventKeyFile(file))
		for range each {
			if _, err := c.PublishAsync(within(t, time.Minute), "orders.signed.x", client.NewEvent("t", nil)); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	for range rounds * each {
		next(t, got)
	}
}
