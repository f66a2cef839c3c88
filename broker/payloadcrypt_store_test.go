package broker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/payload"
)

// TestPlaintextLeavesNoTrace: of a payload that is encrypted, and of one that was refused
// because it was not, nothing is on the disk of the broker.
func TestPlaintextLeavesNoTrace(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	b.RecipientKey("shop/doctor", "care.>")
	eventKey, _ := b.EventKey("shop/clinic")
	clinic := b.Client("clinic", client.WithEventKeyFile(eventKey), client.WithEncryption(client.Encryption{}))
	must(clinic.Publish(ctx, "care.1", client.NewEvent("t", []byte("encrypted secret"))))(t)
	plain := b.Client("clinic", client.WithEventKeyFile(eventKey))
	_, err := plain.Publish(ctx, "care.1", client.NewEvent("t", []byte("forgotten secret")))
	var e *client.Error
	if !asError(err, &e) || e.Code != int(wire.CodeEncryptionRequired) {
		t.Errorf("in the clear: %v", err)
	}
	// What was in the clear on purpose is found, so the search finds.
	must(plain.Publish(ctx, "orders.x", client.NewEvent("t", []byte("open book"))))(t)
	stop(t, b)
	for what, want := range map[string]bool{"encrypted secret": false, "forgotten secret": false, "open book": true} {
		if found := onDisk(t, b.State.Dir, what); (len(found) > 0) != want {
			t.Errorf("%q is in %v", what, found)
		}
	}
}

// TestMovedCiphertext: whoever writes into the store, behind the broker's back, gets no
// ciphertext decrypted but as it was published: elsewhere, changed, with another key id
// or in another event it is refused before a key is looked at.
func TestMovedCiphertext(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	seed, _ := b.RecipientKey("shop/doctor", "orders.>")
	clinic := b.Client("clinic", client.WithEncryption(client.Encryption{EpochEvents: 1}))
	for _, data := range []string{"one", "two"} {
		must(clinic.Publish(ctx, "orders.a", client.NewEvent("t", []byte(data))))(t)
	}
	nc := must(b.Inside("shop"))(t)
	js := must(jetstream.New(nc))(t)
	orders := must(js.Stream(ctx, "ORDERS"))(t)
	one, two := must(orders.GetMsg(ctx, 1))(t), must(orders.GetMsg(ctx, 2))(t)
	keyID := "ce-" + wire.AttrEncryptionKey
	forged := 0
	put := func(subject string, data []byte, changes ...string) {
		t.Helper()
		h := nats.Header{}
		for name, values := range one.Header {
			if name != nats.MsgIdHdr {
				h[name] = slices.Clone(values)
			}
		}
		for i := 0; i+1 < len(changes); i += 2 {
			if delete(h, changes[i]); changes[i+1] != "" {
				h[changes[i]] = []string{changes[i+1]}
			}
		}
		must(js.PublishMsg(ctx, &nats.Msg{Subject: subject, Header: h, Data: data}))(t)
		forged++
	}
	put("orders.b", one.Data)
	put("orders.a", two.Data)
	put("orders.a", one.Data, keyID, two.Header[keyID][0])
	put("orders.a", two.Data, keyID, two.Header[keyID][0])
	put("orders.a", one.Data, keyID, "")
	put("orders.a", one.Data, "ce-id", "another")
	put("orders.a", one.Data, "ce-datacontenttype", "text/plain")
	put("orders.a", one.Data, "ce-datacontenttype", "")
	put("orders.a", []byte("two"), "ce-datacontenttype", "text/plain", keyID, "")
	for _, i := range []int{0, 1, 12, 13, len(one.Data) / 2, len(one.Data) - 1} {
		data := bytes.Clone(one.Data)
		data[i] ^= 1
		put("orders.a", data)
	}
	must(clinic.Publish(ctx, "orders.a", client.NewEvent("t", []byte("last"))))(t)

	in := newInbox()
	must(b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{seed}})).Subscribe(ctx, "orders.>", in.handle))(t)
	var got []string
	refused := 0
	for len(got) < 3 {
		select {
		case d := <-in.got:
			got = append(got, string(d.Event.Data))
		case e := <-in.refused:
			if !errors.Is(e.Err, signing.ErrBadSignature) || e.Retried {
				t.Errorf("event %d: %v", e.Sequence, e.Err)
			}
			refused++
		case <-ctx.Done():
			t.Fatalf("got %q, %d refused", got, refused)
		}
	}
	if want := []string{"one", "two", "last"}; !slices.Equal(got, want) || refused != forged {
		t.Errorf("got %q, %d refused, want %q and %d", got, refused, want, forged)
	}
}

// TestEncryptionGuide: the policy of the guide does what the guide says.
func TestEncryptionGuide(t *testing.T) {
	guide := must(os.ReadFile("../docs/guides/encrypt-events.md"))(t)
	found := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(guide)
	if found == nil {
		t.Fatal("no policy in the guide")
	}
	b := brokertest.New(t, brokertest.Options{Policy: string(found[1]), Change: quickDrain})
	ctx := within(t)
	seed, _ := b.RecipientKey("shop/doctor", "care.>")
	clinic := b.Client("clinic", client.WithEncryption(client.Encryption{Subjects: []string{"care.>"}}))
	must(clinic.Publish(ctx, "care.7.temperature", must(client.NewJSONEvent("temperature", map[string]float64{"celsius": 39.5}))(t)))(t)
	in := newInbox()
	doctor := b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{seed}}))
	must(doctor.Subscribe(ctx, "care.>", in.handle, client.RequireEncryption()))(t)
	var got map[string]float64
	if d := in.next(ctx, t); json.Unmarshal(d.Event.Data, &got) != nil || got["celsius"] != 39.5 {
		t.Errorf("got %q", d.Event.Data)
	}
	if _, err := b.Client("clinic").Publish(ctx, "care.7.temperature", client.NewEvent("t", nil)); err == nil || !strings.Contains(err.Error(), "40403") {
		t.Errorf("in the clear: %v", err)
	}
}

// TestMadeUpKeyIDs: events with keys that nobody has stored are refused, and hold no
// reader up, of whatever kind.
func TestMadeUpKeyIDs(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	seed, _ := b.RecipientKey("shop/doctor", "orders.>")
	plain, clinic := b.Client("clinic"), b.Client("clinic", client.WithEncryption(client.Encryption{}))
	const made = 20
	for range made {
		key, _, err := payload.NewEpoch("orders.x", []string{must(recipientOf(seed))(t)}, time.Now())
		check(t, err)
		bound := payload.Bound{Principal: "shop/clinic", NATSSubject: "orders.x", Source: "/shop/clinic", ID: client.NewID(), Type: "t"}
		must(plain.Publish(ctx, "orders.x", &client.Event{
			ID: bound.ID, Type: "t", DataContentType: wire.EncryptedContentType, Data: must(key.Encrypt(bound, "", []byte("made up")))(t),
			Extensions: map[string]string{wire.AttrEncryptionKey: key.ID()},
		}))(t)
	}
	must(clinic.Publish(ctx, "orders.x", client.NewEvent("t", []byte("real"))))(t)
	for name, opts := range map[string][]client.SubOption{
		"ordered": {client.Ordered()}, "durable": {client.Durable("d")}, "plain": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := newInbox()
			doctor := b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{seed}}))
			sub := must(doctor.Subscribe(ctx, "orders.x", in.handle, opts...))(t)
			defer sub.Stop()
			final, waited, came := 0, map[uint64]int{}, false
			for final < made || !came {
				select {
				case d := <-in.got:
					if string(d.Event.Data) != "real" {
						t.Fatalf("the handler got %q", d.Event.Data)
					}
					came = true
				case e := <-in.refused:
					if !errors.Is(e.Err, client.ErrNoKeyRecord) {
						t.Errorf("event %d: %v", e.Sequence, e.Err)
					}
					if e.Retried {
						waited[e.Sequence]++
					} else {
						final++
					}
				case <-ctx.Done():
					t.Fatalf("%d of %d were given up, the real one came: %v", final, made, came)
				}
			}
			// Young ones are waited for before they are given up for good.
			if name != "ordered" && len(waited) != made {
				t.Errorf("%d of %d were put back before: %v", len(waited), made, waited)
			}
		})
	}
}

func recipientOf(seedFile string) (string, error) {
	seed, err := os.ReadFile(seedFile)
	if err != nil {
		return "", err
	}
	reader, err := payload.NewReader(seed)
	if err != nil {
		return "", err
	}
	return reader.Keys()[0], nil
}

// TestRecipientWhoPublishes: a recipient has the producer's key, and may publish. What it
// encrypts with that key is its own word, and keeps nobody from reading the producer's.
func TestRecipientWhoPublishes(t *testing.T) {
	b := cryptBroker(t)
	ctx := within(t)
	doctorSeed, _ := b.RecipientKey("shop/doctor", "care.>")
	mallorySeed, _ := b.RecipientKey("shop/mallory", "care.>")
	clinicKey, _ := b.EventKey("shop/clinic")
	malloryKey, _ := b.EventKey("shop/mallory")
	clinic := b.Client("clinic", client.WithEventKeyFile(clinicKey), client.WithEncryption(client.Encryption{Tenant: "shop"}))
	mallory := b.Client("mallory", client.WithEventKeyFile(malloryKey))
	must(clinic.Publish(ctx, "care.1", client.NewEvent("t", []byte("first"))))(t)
	js := must(jetstream.New(must(b.Inside("shop"))(t)))(t)
	first := must(must(js.Stream(ctx, "CARE"))(t).GetMsg(ctx, 1))(t)
	id := first.Header["ce-"+wire.AttrEncryptionKey][0]
	rec := recordOf(ctx, t, b, id)
	key := must(must(payload.NewReader(must(os.ReadFile(mallorySeed))(t)))(t).Open(rec))(t)
	must(mallory.Publish(ctx, payload.RecordSubject(client.DefaultKeyPrefix, "shop/mallory", id),
		&client.Event{Type: payload.RecordType, DataContentType: client.ContentTypeJSON, Data: rec.Data()}))(t)
	bound := payload.Bound{Principal: "shop/mallory", NATSSubject: "care.1", Source: "/shop/mallory", ID: "m", Type: "t"}
	must(mallory.Publish(ctx, "care.1", &client.Event{
		ID: "m", Type: "t", DataContentType: wire.EncryptedContentType, Data: must(key.Encrypt(bound, "", []byte("mallory's")))(t),
		Extensions: map[string]string{wire.AttrEncryptionKey: id},
	}))(t)
	must(clinic.Publish(ctx, "care.1", client.NewEvent("t", []byte("last"))))(t)

	in := newInbox()
	doctor := b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}}))
	must(doctor.Subscribe(ctx, "care.>", in.handle, client.FromSequence(2)))(t) // mallory's key is seen first
	for _, want := range [][2]string{{"mallory's", "shop/mallory"}, {"last", "shop/clinic"}} {
		if d := in.next(ctx, t); string(d.Event.Data) != want[0] || d.Principal != want[1] || d.Producer.Principal != want[1] || d.KeyID != id {
			t.Errorf("got %q of %s with key %s, want %q with key %s", d.Event.Data, d.Principal, d.KeyID, want, id)
		}
	}

	_, err := client.Connect(ctx, b.URL(), client.WithNkeySeedFile(b.Cred("clinic")), client.WithTLSConfig(b.TLS()), client.WithRoot(b.State.Root),
		client.WithEncryption(client.Encryption{Tenant: "mill"}))
	if !errors.Is(err, client.ErrInvalidOption) || !strings.Contains(err.Error(), "shop/clinic") {
		t.Errorf("of another tenant: %v", err)
	}
}

// TestCopiedCiphertext: whoever may publish under the source of another, and sees that
// one's events and key records, has no recipient decrypt them as its own word: a reader
// that answers the principal of an event would tell what it said.
func TestCopiedCiphertext(t *testing.T) {
	policy := strings.Replace(cryptPolicy, "{name: mallory,", "{name: mallory, sources: [/shop/clinic],", 1)
	b := brokertest.New(t, brokertest.Options{Policy: policy, Change: quickDrain})
	ctx := within(t)
	doctorSeed, _ := b.RecipientKey("shop/doctor", "care.>")
	clinicKey, _ := b.EventKey("shop/clinic")
	malloryKey, _ := b.EventKey("shop/mallory")
	clinic := b.Client("clinic", client.WithEventKeyFile(clinicKey), client.WithEncryption(client.Encryption{}))
	must(clinic.Publish(ctx, "care.1", client.NewEvent("t", []byte("secret"))))(t)

	in := newInbox()
	must(b.Client("blind").Subscribe(ctx, "care.>", in.handle))(t)
	seen := in.next(ctx, t).Event
	id := seen.Extensions[wire.AttrEncryptionKey]
	rec := recordOf(ctx, t, b, id)
	mallory := b.Client("mallory", client.WithEventKeyFile(malloryKey))
	must(mallory.Publish(ctx, payload.RecordSubject(client.DefaultKeyPrefix, "shop/mallory", id),
		&client.Event{Type: payload.RecordType, DataContentType: client.ContentTypeJSON, Data: rec.Data()}))(t)
	must(mallory.Publish(ctx, "care.1", &client.Event{
		ID: seen.ID, Source: seen.Source, Type: seen.Type, DataContentType: seen.DataContentType, Data: seen.Data,
		Extensions: map[string]string{wire.AttrEncryptionKey: id},
	}))(t)

	in = newInbox()
	doctor := b.Client("doctor", in.option(), client.WithDecryption(client.Decryption{SeedFiles: []string{doctorSeed}}))
	must(doctor.Subscribe(ctx, "care.>", in.handle))(t)
	if d := in.next(ctx, t); string(d.Event.Data) != "secret" || d.Principal != "shop/clinic" {
		t.Errorf("got %q of %s", d.Event.Data, d.Principal)
	}
	if e := in.fault(ctx, t); !errors.Is(e.Err, payload.ErrAltered) || e.Sequence != 2 {
		t.Errorf("the copy: %+v", e)
	}
}
