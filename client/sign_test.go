package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

const signPolicy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
ephemeral: [telemetry.>]
subjects:
  - {match: orders.signed.>, require: producer}
  - {match: telemetry.signed, require: producer}
principals:
  - name: checkout
    identities: [{nkey: '{{nkey "checkout"}}'}]
    publish: [orders.>, telemetry.>]
  - name: other
    identities: [{nkey: '{{nkey "other"}}'}]
    publish: [orders.>]
  - name: billing
    identities: [{nkey: '{{nkey "billing"}}'}]
    subscribe: [orders.>, telemetry.>]
`

// refusal checks the code of a refusal.
func refusal(t *testing.T, what string, err error, code int) {
	t.Helper()
	var e *client.Error
	if !errors.Is(err, client.ErrBadSignature) || !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: got %v, want code %d", what, err, code)
	}
}

func TestSignedEvents(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	file, id := b.EventKey("shop/checkout")
	otherFile, _ := b.EventKey("shop/other")
	signer, plain := b.Client("checkout", client.WithEventKeyFile(file)), b.Client("checkout")

	t.Run("one by one", func(t *testing.T) {
		ctx := within(t, time.Minute)
		got := subscribe(t, b, "orders.signed.one", client.RequireProducer("shop/checkout"))
		ev := &client.Event{ID: "o-1", Data: []byte("signed")}
		first, err := signer.Publish(ctx, "orders.signed.one", ev)
		if err != nil {
			t.Fatal(err)
		}
		again, err := signer.Publish(ctx, "orders.signed.one", ev)
		if err != nil || !again.Duplicate || again.Sequence != first.Sequence {
			t.Errorf("the same id again: %+v (%v), first %+v", again, err, first)
		}
		d := next(t, got)
		if d.Producer.KeyID != id || d.Producer.Principal != "shop/checkout" || d.Producer.Batch != 1 || d.Principal != "shop/checkout" {
			t.Errorf("producer %+v, principal %s", d.Producer, d.Principal)
		}
		if d.Event.Source != "/shop/checkout" || d.Event.Type != "orders.signed.one" || len(d.Event.Extensions) != 0 {
			t.Errorf("event %+v", d.Event)
		}
		evidence := d.Attested().Extensions
		if evidence["dssematerial"] == "" || evidence["attestation"] == "" || evidence["recordedtime"] == "" {
			t.Errorf("what is kept: %v", evidence)
		}
	})
	t.Run("batches", func(t *testing.T) { signedBatches(t, b, signer) })
	t.Run("refused", func(t *testing.T) {
		ctx := within(t, time.Minute)
		_, err := plain.Publish(ctx, "orders.signed.x", client.NewEvent("t", nil))
		refusal(t, "unsigned", err, 40311)
		_, err = b.Client("checkout", client.WithEventKeyFile(otherFile)).Publish(ctx, "orders.created", client.NewEvent("t", nil))
		refusal(t, "with the key of another principal", err, 40305)
		stranger, _ := nkeys.CreateUser()
		seed, _ := stranger.Seed()
		_, err = b.Client("checkout", client.WithEventKey(seed)).Publish(ctx, "orders.created", client.NewEvent("t", nil))
		refusal(t, "with an unknown key", err, 40303)
	})
	t.Run("another publishes a signed event", func(t *testing.T) {
		ctx := within(t, time.Minute)
		got := subscribe(t, b, "orders.replay")
		if _, err := signer.Publish(ctx, "orders.replay", client.NewEvent("t", []byte("once"))); err != nil {
			t.Fatal(err)
		}
		stolen := next(t, got).Attested()
		for _, name := range []string{"attestation", "authid", "authtype"} {
			delete(stolen.Extensions, name)
		}
		_, err := b.Client("other").Publish(ctx, "orders.replay", stolen)
		refusal(t, "by another principal", err, 40305)
		_, err = plain.Publish(ctx, "orders.elsewhere", stolen)
		refusal(t, "on another subject", err, 40310)
		ack, err := plain.Publish(ctx, "orders.replay", stolen)
		if err != nil || !ack.Duplicate {
			t.Errorf("the same event again: %+v (%v), want a duplicate", ack, err)
		}
	})
	t.Run("ephemeral", func(t *testing.T) {
		ctx := within(t, time.Minute)
		got := make(chan *client.Delivery, 8)
		s, err := b.Client("billing").SubscribeLive(ctx, "telemetry.>", func(_ context.Context, d *client.Delivery) error { got <- d; return nil })
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		if err := plain.PublishLive(ctx, "telemetry.signed", client.NewEvent("t", []byte("no"))); err != nil {
			t.Fatal(err)
		}
		if err := signer.PublishLive(ctx, "telemetry.signed", client.NewEvent("t", []byte("yes"))); err != nil {
			t.Fatal(err)
		}
		if d := next(t, got); string(d.Event.Data) != "yes" || d.Producer.KeyID != id {
			t.Errorf("delivery %q, producer %+v", d.Event.Data, d.Producer)
		}
	})
}

// subscribe delivers what comes from now on to a channel.
func subscribe(t *testing.T, b *brokertest.Broker, filter string, opts ...client.SubOption) <-chan *client.Delivery {
	t.Helper()
	got := make(chan *client.Delivery, 1024)
	s, err := b.Client("billing").Subscribe(within(t, time.Minute), filter, func(_ context.Context, d *client.Delivery) error { got <- d; return nil }, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return got
}

func signedBatches(t *testing.T, b *brokertest.Broker, signer *client.Client) {
	ctx := within(t, time.Minute)
	got := subscribe(t, b, "orders.signed.many.>", client.RequireProducer())
	const n = 200
	var futures []*client.Future
	for i := range n {
		f, err := signer.PublishAsync(ctx, fmt.Sprint("orders.signed.many.", i%3), client.NewEvent("t", fmt.Append(nil, i)))
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, f)
	}
	// What was sent before goes out before, whoever sends it.
	last, err := signer.Publish(ctx, "orders.signed.many.last", client.NewEvent("t", []byte("last")))
	if err != nil {
		t.Fatal(err)
	}
	largest := 0
	for i, f := range futures {
		ack, err := f.Wait(ctx)
		if err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
		if ack.Sequence >= last.Sequence {
			t.Errorf("event %d is behind the last one", i)
		}
		d := next(t, got)
		if string(d.Event.Data) != fmt.Sprint(i) {
			t.Fatalf("delivery %d is event %s", i, d.Event.Data)
		}
		largest = max(largest, d.Producer.Batch)
	}
	if largest < 2 || largest > signing.MaxProducerBatch {
		t.Errorf("the largest batch has %d events: nothing is signed together", largest)
	}
	t.Logf("largest batch %d", largest)
	// One alone does not wait for others.
	f, err := signer.PublishAsync(ctx, "orders.signed.many.alone", client.NewEvent("t", nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	next(t, got)
	if d := next(t, got); d.Producer.Batch != 1 {
		t.Errorf("an event alone was signed with %d", d.Producer.Batch)
	}
	if _, err := signer.PublishAsync(ctx, "orders.x", nil); !errors.Is(err, client.ErrMalformed) {
		t.Errorf("no event: %v", err)
	}
	if _, err := signer.PublishAsync(ctx, "orders.x", &client.Event{Extensions: map[string]string{"authid": "x"}}); !errors.Is(err, client.ErrMalformed) {
		t.Errorf("an event with authid: %v", err)
	}
}

// What a subscription wants is its own to say: an unsigned event, or one of another
// producer, does not reach the handler, whatever the event says of itself.
func TestRequireProducer(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	file, _ := b.EventKey("shop/checkout")
	otherFile, _ := b.EventKey("shop/other")
	ctx := within(t, time.Minute)
	var unwanted atomic.Int64
	reader := b.Client("billing", client.WithInvalidHandler(func(e client.InvalidEvent) {
		if !errors.Is(e.Err, client.ErrProducerRequired) {
			t.Errorf("event %d: %v", e.Sequence, e.Err)
		}
		unwanted.Add(1)
	}))
	got := make(chan *client.Delivery, 16)
	s, err := reader.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error { got <- d; return nil }, client.RequireProducer("shop/checkout"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	for _, c := range []*client.Client{
		b.Client("checkout"), b.Client("other", client.WithEventKeyFile(otherFile)), b.Client("checkout", client.WithEventKeyFile(file)),
	} {
		if _, err := c.Publish(ctx, "orders.created", client.NewEvent("t", nil)); err != nil {
			t.Fatal(err)
		}
	}
	if d := next(t, got); d.Sequence != 3 || d.Producer.Principal != "shop/checkout" {
		t.Errorf("delivery %d, producer %+v", d.Sequence, d.Producer)
	}
	if n := unwanted.Load(); n != 2 || s.Stats().Invalid != 2 {
		t.Errorf("%d events were refused, %d counted, want 2", n, s.Stats().Invalid)
	}
	if _, err := reader.Subscribe(ctx, "orders.>", nil, client.RequireProducer("checkout")); !errors.Is(err, client.ErrInvalidOption) {
		t.Errorf("a name without its tenant: %v", err)
	}
}

// A key that is revoked signs nothing more; what it signed before stays good.
func TestRevokedEventKey(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	file, id := b.EventKey("shop/checkout")
	ctx := within(t, time.Minute)
	c := b.Client("checkout", client.WithEventKeyFile(file))
	if _, err := c.Publish(ctx, "orders.signed.x", client.NewEvent("t", []byte("before"))); err != nil {
		t.Fatal(err)
	}
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key {
		for i := range keys {
			if keys[i].ID == id {
				keys[i].RevokedAt = time.Now().Add(2 * time.Second)
			}
		}
		return keys
	})
	var err error
	for err == nil && ctx.Err() == nil {
		_, err = c.Publish(ctx, "orders.signed.x", client.NewEvent("t", []byte("meanwhile")))
	}
	refusal(t, "after the revocation", err, 40304)
	if d := next(t, subscribe(t, b, "orders.>")); string(d.Event.Data) != "before" || d.Producer.KeyID != id {
		t.Errorf("delivery %q, producer %+v", d.Event.Data, d.Producer)
	}
}

func TestEventKeyOptions(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	dir := t.TempDir()
	write := func(name string, mode os.FileMode, data []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, data, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	connection, err := os.ReadFile(b.Cred("checkout"))
	if err != nil {
		t.Fatal(err)
	}
	// The same raw key under another prefix is the same key.
	_, raw, err := nkeys.DecodeSeed(connection)
	if err != nil {
		t.Fatal(err)
	}
	account, err := nkeys.EncodeSeed(nkeys.PrefixByteAccount, raw)
	if err != nil {
		t.Fatal(err)
	}
	server, _ := nkeys.CreateServer()
	serverSeed, _ := server.Seed()
	good, _ := nkeys.CreateUser()
	goodSeed, _ := good.Seed()
	for name, opt := range map[string]client.Option{
		"the key of the connection":                    client.WithEventKeyFile(b.Cred("checkout")),
		"the key of the connection, as an account key": client.WithEventKey(account),
		"a broker's key":                               client.WithEventKeyFile(write("server", 0o600, serverSeed)),
		"no key":                                       client.WithEventKey([]byte("SU")),
		"a file that others can read":                  client.WithEventKeyFile(write("open", 0o644, goodSeed)),
	} {
		_, err := client.Connect(within(t, time.Minute), b.URL(), client.WithNkeySeedFile(b.Cred("checkout")),
			client.WithTLSRoots(b.State.CA), client.WithRoot(b.State.Root), opt)
		if !errors.Is(err, client.ErrInvalidOption) {
			t.Errorf("%s: got %v, want ErrInvalidOption", name, err)
		}
	}
}

// Events that wait for their signature when the client is closed get an answer too.
func TestCloseEndsEventsThatWaitForTheirSignature(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	file, _ := b.EventKey("shop/checkout")
	c := b.Client("checkout", client.WithEventKeyFile(file))
	ctx := within(t, time.Minute)
	var futures []*client.Future
	for range 100 {
		f, err := c.PublishAsync(ctx, "orders.signed.x", client.NewEvent("t", nil))
		if err != nil {
			t.Fatal(err)
		}
		futures = append(futures, f)
	}
	c.Close()
	for i, f := range futures {
		if _, err := f.Wait(ctx); err != nil && !errors.Is(err, client.ErrClosed) {
			t.Errorf("event %d: %v", i, err)
		}
	}
	if f, err := c.PublishAsync(ctx, "orders.signed.x", client.NewEvent("t", nil)); err == nil {
		if _, err := f.Wait(ctx); !errors.Is(err, client.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// A reader that was there before the event key fetches the keyring anew, and then has
// the event.
func TestReaderLearnsOfANewEventKey(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	got := subscribe(t, b, "orders.>", client.RequireProducer("shop/checkout"))
	file, id := b.EventKey("shop/checkout")
	if _, err := b.Client("checkout", client.WithEventKeyFile(file)).Publish(within(t, time.Minute), "orders.signed.x", client.NewEvent("t", nil)); err != nil {
		t.Fatal(err)
	}
	if d := next(t, got); d.Producer.KeyID != id {
		t.Errorf("signed by %q, want %s", d.Producer.KeyID, id)
	}
}
