package client_test

import (
	"os"
	"testing"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2/event"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// TestSignedCloudEvent: a signed event goes through the event type of the CloudEvents SDK
// and back with everything that was signed; to publish it anew, its signatures are taken
// off on purpose.
func TestSignedCloudEvent(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: signPolicy})
	file, id := b.EventKey("shop/checkout")
	signer := b.Client("checkout", client.WithEventKeyFile(file))
	ctx := within(t, time.Minute)
	got := subscribe(t, b, "orders.created")
	if _, err := signer.Publish(ctx, "orders.created", &client.Event{
		ID: "o-1", Type: "com.example.order", DataContentType: "application/json", Data: []byte(`{ "a" : 1 }`),
		Extensions: map[string]string{"region": "north é"},
	}); err != nil {
		t.Fatal(err)
	}
	d := next(t, got)
	evidence := d.Attested()
	sdk, err := evidence.ToCloudEvent()
	if err != nil {
		t.Fatal(err)
	}
	// As it goes over HTTP, for instance.
	text, err := sdk.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var read cloudevents.Event
	if err := read.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	back, err := client.FromCloudEvent(read)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range evidence.Extensions {
		if back.Extensions[name] != want {
			t.Errorf("%s is %q, want %q", name, back.Extensions[name], want)
		}
	}
	doc, err := os.ReadFile(b.State.Keyring)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Parse(doc, b.State.Root, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	held := func() *keyring.Ring { return ring }
	verify := func(ev *client.Event) (signing.ProducerSignature, error) {
		t.Helper()
		line, err := ev.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var rec cloudevent.Event
		if err := rec.FromJSON(line, new(cloudevent.Scratch)); err != nil {
			t.Fatal(err)
		}
		return signing.NewProducerVerifier(held).Verify(&rec, "orders.created")
	}
	if sig, err := verify(back); err != nil || sig.KeyID != id {
		t.Errorf("the producer's signature after the round trip: %+v, %v", sig, err)
	}
	back.Data = []byte(`{"a":1}`)
	if _, err := verify(back); err == nil {
		t.Error("other data passes under the same signature")
	}

	// It is not published as it is: the broker's word cannot be repeated by a client.
	plain := b.Client("checkout")
	if _, err := plain.Publish(ctx, "orders.created", back); err == nil {
		t.Error("an event with a broker's attestation was published")
	}
	again := back.WithoutSignatures()
	if again.Extensions["region"] != "north é" || again.ID != "o-1" || len(again.Extensions) != 1 {
		t.Errorf("without signatures: %+v", again)
	}
	if back.Extensions[wire.AttrDSSE] == "" {
		t.Error("the event itself lost its signature")
	}
	again.ID = "o-2"
	if _, err := plain.Publish(ctx, "orders.created", again); err != nil {
		t.Errorf("as an event of its own: %v", err)
	}
	if d := next(t, got); d.Producer.KeyID != "" || d.Event.ID != "o-2" {
		t.Errorf("delivered %+v", d.Event)
	}
}
