package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/payload"
)

// cryptPolicy has encrypted subjects beside others, and a stream for key records.
const cryptPolicy = `tenant: shop
streams:
  - {name: CARE, subjects: [care.>], maxBytes: 16MiB}
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
  - {name: KEYS, subjects: [encryption.keys.>], maxBytes: 16MiB}
ephemeral: [pulse.>]
schemas:
  - {name: order, version: 1, text: '{"type":"object","required":["id"]}'}
subjects:
  - {match: care.>, encrypted: true, require: producer}
  - {match: pulse.>, encrypted: true}
  - {match: orders.checked, schema: order}
principals:
  - {name: clinic, identities: [{nkey: {{nkey "clinic"}}}], publish: [care.>, pulse.>, orders.>, encryption.keys.clinic.*]}
  - {name: mallory, identities: [{nkey: {{nkey "mallory"}}}], publish: [care.>, pulse.>, encryption.keys.>]}
  - {name: doctor, identities: [{nkey: {{nkey "doctor"}}}], subscribe: [care.>, pulse.>, orders.>, encryption.keys.>]}
  - {name: nurse, identities: [{nkey: {{nkey "nurse"}}}], subscribe: [care.>, encryption.keys.>]}
  - {name: blind, identities: [{nkey: {{nkey "blind"}}}], subscribe: [care.>]}
`

func cryptBroker(t *testing.T) *brokertest.Broker {
	t.Helper()
	return brokertest.New(t, brokertest.Options{Policy: cryptPolicy, Change: quickDrain})
}

// inbox collects what a subscription delivers and refuses.
type inbox struct {
	got     chan *client.Delivery
	refused chan client.InvalidEvent
}

func newInbox() *inbox {
	return &inbox{make(chan *client.Delivery, 256), make(chan client.InvalidEvent, 256)}
}

func (i *inbox) option() client.Option {
	return client.WithInvalidHandler(func(e client.InvalidEvent) { i.refused <- e })
}

func (i *inbox) handle(_ context.Context, d *client.Delivery) error { i.got <- d; return nil }

func (i *inbox) next(ctx context.Context, t *testing.T) *client.Delivery {
	t.Helper()
	select {
	case d := <-i.got:
		return d
	case e := <-i.refused:
		t.Fatalf("refused: %+v", e)
	case <-ctx.Done():
		t.Fatal("no event came")
	}
	return nil
}

func (i *inbox) fault(ctx context.Context, t *testing.T) client.InvalidEvent {
	t.Helper()
	select {
	case d := <-i.got:
		t.Fatalf("the handler got %q (%s)", d.Event.Data, d.Event.DataContentType)
	case e := <-i.refused:
		return e
	case <-ctx.Done():
		t.Fatal("nothing was refused")
	}
	return client.InvalidEvent{}
}

// TestEncryptedRoundTrip: two recipients read what a producer has encrypted and signed;
// the broker has stored nothing of it in the clear; somebody else gets ciphertext, said
// to be so, or an error.
func TestEncryptedRoundTrip(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	doctorSeed, _ := b.RecipientKey("shop/doctor", "care.>", "pulse.>")
	nurseSeed, _ := b.RecipientKey("shop/nurse", "care.*.temperature")
	otherSeed, _ := b.RecipientKey("shop/blind", "orders.>")
	eventKey, keyID := b.EventKey("shop/clinic")
	clinic := b.Client("clinic", client.WithEventKeyFile(eventKey), client.WithEncryption(client.Encryption{Subjects: []string{"care.>", "pulse.>"}}))

	secret := []byte(`{"patient":"Ada","celsius":39.5}`)
	sent := &client.Event{Type: "com.example.temperature", DataContentType: "application/json", Extensions: map[string]string{"ward": "7"}, Data: secret}
	ack := must(clinic.Publish(ctx, "care.7.temperature", sent))(t)
	if !bytes.Equal(sent.Data, secret) || sent.DataContentType != "application/json" || len(sent.Extensions) != 1 || sent.ID != "" {
		t.Errorf("Publish changed the event: %+v", sent)
	}

	for who, seed := range map[string]string{"doctor": doctorSeed, "nurse": nurseSeed} {
		in := newInbox()
		c := b.Client(who, in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{seed}}))
		must(c.Subscribe(ctx, "care.>", in.handle, client.RequireProducer("shop/clinic"), client.RequireEncryption()))(t)
		d := in.next(ctx, t)
		if !bytes.Equal(d.Event.Data, secret) || d.Event.DataContentType != "application/json" || d.Ciphertext || d.KeyID == "" ||
			d.Event.Extensions["ward"] != "7" || d.Event.Extensions[wire.AttrEncryptionKey] != "" || d.Producer.KeyID != keyID || d.Event.ID != ack.EventID {
			t.Errorf("%s got %+v of %+v", who, d.Event, d)
		}
		kept := d.Attested()
		if kept.DataContentType != wire.EncryptedContentType || bytes.Contains(kept.Data, []byte("Ada")) || kept.Extensions[wire.AttrEncryptionKey] != d.KeyID {
			t.Errorf("the evidence is not the encrypted event: %+v", kept)
		}
	}

	// Without the option: as it is stored, and said to be ciphertext.
	in := newInbox()
	must(b.Client("blind", in.option()).Subscribe(ctx, "care.>", in.handle))(t)
	if d := in.next(ctx, t); !d.Ciphertext || d.KeyID != "" || d.Event.DataContentType != wire.EncryptedContentType || bytes.Contains(d.Event.Data, []byte("Ada")) {
		t.Errorf("without a key: %+v of %+v", d.Event, d)
	}
	// With another recipient's key.
	in = newInbox()
	c := b.Client("nurse", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{otherSeed}}))
	must(c.Subscribe(ctx, "care.>", in.handle))(t)
	if e := in.fault(ctx, t); !errors.Is(e.Err, client.ErrDecryption) || !errors.Is(e.Err, payload.ErrNotRecipient) || e.Retried {
		t.Errorf("not a recipient: %+v", e)
	}
	// Without a grant on the records: put back, not lost.
	in = newInbox()
	c = b.Client("blind", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}}))
	must(c.Subscribe(ctx, "care.>", in.handle))(t)
	if e := in.fault(ctx, t); !errors.Is(e.Err, client.ErrDecryption) || !errors.Is(e.Err, client.ErrDenied) || !e.Retried {
		t.Errorf("no grant: %+v", e)
	}
	// On an ephemeral subject, and many at a time.
	live := newInbox()
	c = b.Client("doctor", live.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}}))
	must(c.SubscribeLive(ctx, "pulse.>", live.handle))(t)
	check(t, clinic.PublishLive(ctx, "pulse.7", client.NewEvent("pulse", []byte("61"))))
	if d := live.next(ctx, t); string(d.Event.Data) != "61" || d.KeyID == "" {
		t.Errorf("live: %+v", d.Event)
	}
	stored := newInbox()
	must(c.Subscribe(ctx, "care.9.temperature", stored.handle))(t)
	const many = 100
	var futures []*client.Future
	for i := range many {
		futures = append(futures, must(clinic.PublishAsync(ctx, "care.9.temperature", client.NewEvent("t", fmt.Appendf(nil, "n%d", i))))(t))
	}
	for _, f := range futures {
		must(f.Wait(ctx))(t)
	}
	keys := map[string]bool{}
	for i := range many {
		d := stored.next(ctx, t)
		if want := fmt.Sprintf("n%d", i); string(d.Event.Data) != want {
			t.Fatalf("got %q, want %q", d.Event.Data, want)
		}
		keys[d.KeyID] = true
	}
	if len(keys) != 1 {
		t.Errorf("%d keys for one subject and epoch", len(keys))
	}
}

// TestEncryptionIsEnforced: what is not encrypted is not let in where the policy wants it
// encrypted, whatever it claims, and is not kept in the dead letters; what is encrypted is
// refused where a schema wants to see it.
func TestEncryptionIsEnforced(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	doctorSeed, _ := b.RecipientKey("shop/doctor", "pulse.>", "orders.>")
	key := strings.Repeat("a", payload.KeyIDLength)
	frame := append([]byte{1}, make([]byte, payload.Overhead-1)...)
	plain := b.Client("mallory")
	for _, c := range []struct {
		name string
		ev   client.Event
		ok   bool
	}{
		{"plain JSON", client.Event{DataContentType: "application/json", Data: []byte(`{}`)}, false},
		{"no content type", client.Event{Data: frame}, false},
		{"plain with a key id", client.Event{Data: frame, Extensions: map[string]string{wire.AttrEncryptionKey: key}}, false},
		{"another case", client.Event{DataContentType: strings.ToUpper(wire.EncryptedContentType), Data: frame, Extensions: map[string]string{wire.AttrEncryptionKey: key}}, false},
		{"a parameter", client.Event{DataContentType: wire.EncryptedContentType + ";v=1", Data: frame, Extensions: map[string]string{wire.AttrEncryptionKey: key}}, false},
		{"no key id", client.Event{DataContentType: wire.EncryptedContentType, Data: frame}, false},
		{"short key id", client.Event{DataContentType: wire.EncryptedContentType, Data: frame, Extensions: map[string]string{wire.AttrEncryptionKey: key[1:]}}, false},
		{"upper-case key id", client.Event{DataContentType: wire.EncryptedContentType, Data: frame, Extensions: map[string]string{wire.AttrEncryptionKey: strings.ToUpper(key)}}, false},
		{"no data", client.Event{DataContentType: wire.EncryptedContentType, Extensions: map[string]string{wire.AttrEncryptionKey: key}}, false},
		{"short frame", client.Event{DataContentType: wire.EncryptedContentType, Data: frame[1:], Extensions: map[string]string{wire.AttrEncryptionKey: key}}, false},
		{"another version", client.Event{DataContentType: wire.EncryptedContentType, Data: append([]byte{2}, frame...), Extensions: map[string]string{wire.AttrEncryptionKey: key}}, false},
		{"the form of one", client.Event{DataContentType: wire.EncryptedContentType, Data: frame, Extensions: map[string]string{wire.AttrEncryptionKey: key}}, true},
	} {
		c.ev.Type = "t"
		// A refusal has an answer; what is let in has none, as it is not stored.
		_, err := plain.Publish(ctx, "pulse.1", &c.ev, client.WithoutRetry())
		var e *client.Error
		switch {
		case c.ok && asError(err, &e) && e.Code != 0:
			t.Errorf("%s: %v", c.name, err)
		case !c.ok && (!asError(err, &e) || e.Code != int(wire.CodeEncryptionRequired) || !strings.Contains(e.Fix, "WithEncryption")):
			t.Errorf("%s: got %v, want %v", c.name, err, wire.CodeEncryptionRequired)
		}
	}

	clinic := b.Client("clinic", client.WithEncryption(client.Encryption{}))
	_, err := clinic.Publish(ctx, "orders.checked", client.NewEvent("t", []byte(`{"id":1}`)))
	var e *client.Error
	if !asError(err, &e) || e.Code != int(wire.CodeEncryptionNotDeclared) {
		t.Errorf("encrypted for a schema: got %v", err)
	}
	// Where nothing is demanded it is the business of producer and recipient.
	must(clinic.Publish(ctx, "orders.free", client.NewEvent("t", []byte("x"))))(t)
	in := newInbox()
	reader := b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}}))
	must(reader.Subscribe(ctx, "orders.>", in.handle, client.RequireEncryption()))(t)
	if d := in.next(ctx, t); string(d.Event.Data) != "x" {
		t.Errorf("got %q", d.Event.Data)
	}
	must(b.Client("clinic").Publish(ctx, "orders.free", client.NewEvent("t", []byte("y"))))(t)
	if e := in.fault(ctx, t); !errors.Is(e.Err, client.ErrNotEncrypted) {
		t.Errorf("in the clear: %+v", e)
	}

	// Nobody to encrypt for: nothing goes out.
	_, err = clinic.Publish(ctx, "care.1", client.NewEvent("t", []byte("x")))
	if !asError(err, &e) || !errors.Is(err, client.ErrEncryption) || client.Retryable(err) || !strings.Contains(e.Fix, "keys issue --role recipient") {
		t.Errorf("no recipient: got %v", err)
	}
	// Nowhere to put the record: nothing goes out, and the id is that of the event.
	b.RecipientKey("shop/doctor", "care.>")
	lost := b.Client("clinic", client.WithEncryption(client.Encryption{KeyPrefix: "care.keys"}))
	_, err = lost.Publish(ctx, "orders.free", &client.Event{ID: "mine", Type: "t"})
	if !asError(err, &e) || !errors.Is(err, client.ErrEncryption) || e.EventID != "mine" || e.Code == 0 {
		t.Errorf("no record: got %v", err)
	}
}

// TestEpochs: a key is given up when its recipients change, and after its count.
func TestEpochs(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	doctorSeed, _ := b.RecipientKey("shop/doctor", "orders.>")
	nurseSeed, nurseID := b.RecipientKey("shop/nurse", "orders.>")
	clinic := b.Client("clinic", client.WithEncryption(client.Encryption{EpochEvents: 2}))
	in := newInbox()
	doctor := b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}}))
	must(doctor.Subscribe(ctx, "orders.>", in.handle))(t)
	send := func() string {
		t.Helper()
		must(clinic.Publish(ctx, "orders.x", client.NewEvent("t", []byte("x"))))(t)
		return in.next(ctx, t).KeyID
	}
	first, second, third := send(), send(), send()
	if first != second || second == third {
		t.Errorf("keys %s, %s, %s: two events each are wanted", first, second, third)
	}
	// nurse is revoked while the third key has an event left.
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key {
		for i := range keys {
			if keys[i].ID == nurseID {
				keys[i].RevokedAt = time.Now()
			}
		}
		return keys
	})
	var after string
	eventually(t, "a new epoch after the revocation", func() bool {
		after = send()
		return !slices.Contains(recipientsOf(recordOf(ctx, t, b, after)), nurseID)
	})
	if after == third {
		t.Error("the key that nurse has is still in use")
	}
	reader := must(payload.NewReader(must(os.ReadFile(nurseSeed))(t)))(t)
	if _, err := reader.Open(recordOf(ctx, t, b, after)); !errors.Is(err, payload.ErrNotRecipient) {
		t.Errorf("the revoked recipient opens the new key: %v", err)
	}
	if _, err := reader.Open(recordOf(ctx, t, b, third)); err != nil {
		t.Errorf("what a recipient had it keeps: %v", err)
	}
}

func recordOf(ctx context.Context, t *testing.T, b *brokertest.Broker, keyID string) *payload.Record {
	t.Helper()
	nc := b.NATS("doctor")
	defer nc.Close()
	js := must(jetstream.New(nc))(t)
	stream := must(js.Stream(ctx, "KEYS"))(t)
	msg := must(stream.GetLastMsgForSubject(ctx, payload.RecordSubject(client.DefaultKeyPrefix, "shop/clinic", keyID)))(t)
	return must(payload.ParseRecord(msg.Data))(t)
}

func recipientsOf(rec *payload.Record) (keys []string) {
	for _, w := range rec.Recipients {
		keys = append(keys, w.Key)
	}
	return keys
}

// TestForeignRecords: a record of another principal, of another subject or key, or one
// that is not there, decrypts nothing.
func TestForeignRecords(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	doctorSeed, doctorID := b.RecipientKey("shop/doctor", "care.>", "orders.>")
	eventKey, _ := b.EventKey("shop/mallory")
	mallory := b.Client("mallory", client.WithEventKeyFile(eventKey))
	publish := func(principal, recordSubject string, change func(*payload.Record), ev func(*payload.Key) *client.Event) {
		t.Helper()
		key, rec, err := payload.NewEpoch(recordSubject, []string{doctorID}, time.Now())
		check(t, err)
		change(rec)
		data := rec.Data()
		must(mallory.Publish(ctx, payload.RecordSubject(client.DefaultKeyPrefix, principal, key.ID()),
			&client.Event{ID: key.ID(), Type: payload.RecordType, DataContentType: client.ContentTypeJSON, Data: data}))(t)
		must(mallory.Publish(ctx, "care.1", ev(key)))(t)
	}
	event := func(subject string, change func(*client.Event)) func(*payload.Key) *client.Event {
		return func(key *payload.Key) *client.Event {
			bound := payload.Bound{Principal: "shop/mallory", NATSSubject: subject, Source: "/shop/mallory", ID: client.NewID(), Type: "t"}
			frame := must(key.Encrypt(bound, "text/plain", []byte("forged")))(t)
			ev := &client.Event{
				ID: bound.ID, Source: bound.Source, Type: "t", DataContentType: wire.EncryptedContentType, Data: frame,
				Extensions: map[string]string{wire.AttrEncryptionKey: key.ID()},
			}
			change(ev)
			return ev
		}
	}
	same, none := func(*client.Event) {}, func(*payload.Record) {}
	in := newInbox()
	doctor := b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}}))
	sub := must(doctor.Subscribe(ctx, "care.>", in.handle, client.Durable("d")))(t)
	defer sub.Stop()
	_, other, err := payload.NewEpoch("care.1", []string{doctorID}, time.Now())
	check(t, err)

	publish("shop/mallory", "care.1", none, event("care.1", same)) // the honest case
	if d := in.next(ctx, t); string(d.Event.Data) != "forged" {
		t.Fatalf("got %q", d.Event.Data)
	}
	for _, c := range []struct {
		name string
		do   func()
		want error
	}{
		{"a key for another subject", func() { publish("shop/mallory", "care.2", none, event("care.1", same)) }, payload.ErrRecord},
		{"bound to another subject", func() { publish("shop/mallory", "care.1", none, event("care.2", same)) }, payload.ErrAltered},
		{"another id", func() {
			publish("shop/mallory", "care.1", none, event("care.1", func(e *client.Event) { e.ID += "x" }))
		}, payload.ErrAltered},
		{"another type", func() {
			publish("shop/mallory", "care.1", none, event("care.1", func(e *client.Event) { e.Type = "u" }))
		}, payload.ErrAltered},
		{"a flipped bit", func() {
			publish("shop/mallory", "care.1", none, event("care.1", func(e *client.Event) { e.Data[len(e.Data)-1] ^= 1 }))
		}, payload.ErrAltered},
		{"a record that names another key", func() {
			publish("shop/mallory", "care.1", func(r *payload.Record) { r.KeyID = other.KeyID }, event("care.1", same))
		}, payload.ErrRecord},
		{"a wrapped key of another record", func() {
			publish("shop/mallory", "care.1", func(r *payload.Record) { r.Recipients[0].Box = other.Recipients[0].Box }, event("care.1", same))
		}, payload.ErrUnwrap},
		{"another key in the record", func() {
			publish("shop/mallory", "care.1", func(r *payload.Record) { id := r.KeyID; *r = *other; r.KeyID = id }, event("care.1", same))
		}, payload.ErrKeyID},
	} {
		c.do()
		if e := in.fault(ctx, t); !errors.Is(e.Err, client.ErrDecryption) || !errors.Is(e.Err, c.want) || e.Retried {
			t.Errorf("%s: got %v, want %v", c.name, e.Err, c.want)
		}
	}
	// The record of somebody else's event, on the subject of that somebody: not asked for.
	publish("shop/clinic", "care.1", none, event("care.1", same))
	if e := in.fault(ctx, t); !errors.Is(e.Err, client.ErrNoKeyRecord) || !e.Retried {
		t.Errorf("a record under another principal: %v, retried %v", e.Err, e.Retried)
	}
}

// TestForeignRecordOnItsSubject: a record on the very subject where it is looked for,
// published by somebody who may, is refused for its publisher.
func TestForeignRecordOnItsSubject(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	doctorSeed, _ := b.RecipientKey("shop/doctor", "orders.>")
	clinic := b.Client("clinic", client.WithEncryption(client.Encryption{Subjects: []string{"orders.>"}}))
	must(clinic.Publish(ctx, "orders.x", client.NewEvent("t", []byte("x"))))(t)
	in := newInbox()
	must(b.Client("doctor").Subscribe(ctx, "orders.>", in.handle))(t)
	id := in.next(ctx, t).Event.Extensions[wire.AttrEncryptionKey]
	rec := recordOf(ctx, t, b, id)
	subject := payload.RecordSubject(client.DefaultKeyPrefix, "shop/clinic", id)
	must(b.Client("mallory").Publish(ctx, subject, &client.Event{Type: payload.RecordType, DataContentType: client.ContentTypeJSON, Data: rec.Data()}))(t)
	in = newInbox()
	must(b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}})).Subscribe(ctx, "orders.>", in.handle))(t)
	if e := in.fault(ctx, t); !errors.Is(e.Err, payload.ErrRecord) || !strings.Contains(e.Err.Error(), "shop/mallory") || e.Retried {
		t.Errorf("got %v", e.Err)
	}
}
