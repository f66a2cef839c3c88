package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

func brokerRing(t *testing.T, st *broker.State) *keyring.Ring {
	t.Helper()
	doc := must(os.ReadFile(st.Keyring))(t)
	return must(keyring.Parse(doc, st.Root, time.Now()))(t)
}

// stored reads a message of a stream as it is stored.
func stored(t *testing.T, b *brokertest.Broker, stream string, seq uint64) *jetstream.RawStreamMsg {
	t.Helper()
	return must(insideStream(t, b, stream).GetMsg(within(t), seq))(t)
}

func eventOf(t *testing.T, m *jetstream.RawStreamMsg) *cloudevent.Event {
	t.Helper()
	var e cloudevent.Event
	check(t, e.FromHeaderMap(m.Header, m.Data))
	signing.Restore(&e)
	return &e
}

// TestReceipts: a signed acknowledgement vouches for exactly what is stored, of plain
// and of producer-signed events, asked for one by one and with many in flight.
func TestReceipts(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	ring, inside := brokerRing(t, b.State), b
	file, _ := b.EventKey("shop/writer")
	for name, c := range map[string]*client.Client{"plain": b.Client("writer"), "signed": b.Client("writer", client.WithEventKeyFile(file))} {
		t.Run(name, func(t *testing.T) {
			var acks []*client.Ack
			acks = append(acks,
				must(c.Publish(ctx, "orders.eu.receipt", &client.Event{}, client.WithSignedAck()))(t),
				must(c.Publish(ctx, "orders.eu.receipt", &client.Event{Type: "t.é", ID: name + "-<&>\u2028é", DataContentType: "text/plain", Data: []byte("x"), Extensions: map[string]string{"kind": "a b"}}, client.WithSignedAck()))(t))
			var futures []*client.Future
			for i := range 100 {
				futures = append(futures, must(c.PublishAsync(ctx, "orders.eu.receipt", &client.Event{Type: "t", Data: fmt.Append(nil, i)}, client.WithSignedAck()))(t))
			}
			for _, f := range futures {
				acks = append(acks, must(f.Wait(ctx))(t))
			}
			for _, ack := range acks {
				r, _, err := signing.VerifyReceipt(ack.Receipt, ring)
				check(t, err)
				m := stored(t, inside, ack.Stream, ack.Sequence)
				if r.Sequence != ack.Sequence || r.Stream != ack.Stream || r.Subject != m.Subject || r.ID != ack.EventID || r.Policy != b.Policy().Digest() {
					t.Fatalf("the receipt says %+v of %+v", r, ack)
				}
				check(t, r.Covers(eventOf(t, m)))
				if m.Header.Get(wire.HeaderAck) != "" {
					t.Fatalf("%s is stored", wire.HeaderAck)
				}
				other := eventOf(t, stored(t, inside, ack.Stream, acks[0].Sequence))
				if ack != acks[0] && !errors.Is(r.Covers(other), signing.ErrOtherEvent) {
					t.Fatal("the receipt covers another event")
				}
			}
			if ack := must(c.Publish(ctx, "orders.eu.receipt", &client.Event{Type: "t"}))(t); ack.Receipt != nil {
				t.Error("a receipt that nobody asked for")
			}
		})
	}
}

// TestReceiptOfADuplicate: nobody has looked at what is stored, so the receipt vouches
// for the id and not for the bytes, which here are others.
func TestReceiptOfADuplicate(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	c := b.Client("writer")
	first := must(c.Publish(ctx, "orders.eu.dup", &client.Event{Type: "t", ID: "1", Data: []byte("first")}, client.WithSignedAck()))(t)
	again := must(c.Publish(ctx, "orders.eu.dup", &client.Event{Type: "t", ID: "1", Data: []byte("second")}, client.WithSignedAck()))(t)
	r, _, err := signing.VerifyReceipt(again.Receipt, brokerRing(t, b.State))
	check(t, err)
	if !again.Duplicate || !r.Duplicate || r.Event != nil || r.Sequence != first.Sequence || r.ID != "1" {
		t.Errorf("receipt of a duplicate: %+v", r)
	}
	e := eventOf(t, stored(t, b, first.Stream, first.Sequence))
	if err := r.Covers(e); !errors.Is(err, signing.ErrOtherEvent) {
		t.Errorf("it covers the stored event: %v", err)
	}
}

// TestReceiptForPlainClients: every NATS client can ask, and its PubAck stays one.
func TestReceiptForPlainClients(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	nc := b.NATS("writer")
	js := must(jetstream.New(nc))(t)
	msg := func(value string) *nats.Msg {
		return &nats.Msg{Subject: "orders.eu.plain", Header: nats.Header{wire.HeaderAck: {value}}, Data: []byte("raw")}
	}
	ack := must(js.PublishMsg(ctx, msg("signed")))(t)
	if ack.Stream != "ORDERS" || ack.Sequence == 0 {
		t.Errorf("PubAck %+v", ack)
	}
	answer := must(nc.RequestMsgWithContext(ctx, msg("signed")))(t)
	var got struct {
		Seq     uint64          `json:"seq"`
		Receipt json.RawMessage `json:"receipt"`
	}
	check(t, json.Unmarshal(answer.Data, &got))
	r, _, err := signing.VerifyReceipt(got.Receipt, brokerRing(t, b.State))
	check(t, err)
	check(t, r.Covers(eventOf(t, stored(t, b, "ORDERS", got.Seq))))

	t.Run("refused", func(t *testing.T) {
		for name, row := range map[string]struct {
			msg  *nats.Msg
			code wire.Code
		}{
			"other value":  {msg("sealed"), wire.CodeHeaderDenied},
			"other name":   {&nats.Msg{Subject: "orders.eu.plain", Header: nats.Header{"Signet-Receipt": {"signed"}}}, wire.CodeHeaderDenied},
			"other case":   {&nats.Msg{Subject: "orders.eu.plain", Header: nats.Header{"signet-ack": {"signed"}}}, wire.CodeHeaderDenied},
			"twice":        {&nats.Msg{Subject: "orders.eu.plain", Header: nats.Header{wire.HeaderAck: {"signed", "signed"}}}, wire.CodeHeaderDuplicate},
			"not an event": {&nats.Msg{Subject: "$SIGNET.API.keys.ring", Header: nats.Header{wire.HeaderAck: {"signed"}}}, wire.CodeHeaderDenied},
		} {
			answer := must(nc.RequestMsgWithContext(ctx, row.msg))(t)
			if want := fmt.Sprint(int(row.code)); !bytes.Contains(answer.Data, []byte(want)) {
				t.Errorf("%s: answer %s, want %s", name, answer.Data, want)
			}
		}
	})
	t.Run("an error is not signed", func(t *testing.T) {
		m := msg("signed")
		m.Header.Set("Nats-Expected-Last-Sequence", "9999")
		answer := must(nc.RequestMsgWithContext(ctx, m))(t)
		if !bytes.Contains(answer.Data, []byte(`"error"`)) || bytes.Contains(answer.Data, []byte(wire.MemberReceipt)) {
			t.Errorf("answer %s", answer.Data)
		}
	})
}

// TestReceiptIsOfItsOwnEvent: the answer to another event, on the same reply subject or
// written by the client itself, is never signed. Whoever chose the subject that an
// acknowledgement goes to could have any answer signed for an event that was refused.
func TestReceiptIsOfItsOwnEvent(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	nc := b.NATS("writer")
	ring := brokerRing(t, b.State)
	sub := must(nc.SubscribeSync("_INBOX.>"))(t)
	const reply = "_INBOX.mine.1"
	asked := nats.Header{wire.HeaderAck: {"signed"}, "Nats-Expected-Last-Sequence": {"9999"}}
	for i := range 20 {
		check(t, nc.PublishMsg(&nats.Msg{Subject: "orders.eu.a", Reply: reply, Data: []byte("not asked")}))
		check(t, nc.PublishMsg(&nats.Msg{Subject: "orders.eu.a", Reply: reply, Header: asked, Data: []byte("refused")}))
		check(t, nc.PublishMsg(&nats.Msg{Subject: "orders.eu.a", Reply: reply, Header: nats.Header{wire.HeaderAck: {"signed"}}, Data: fmt.Append(nil, i)}))
		check(t, nc.PublishMsg(&nats.Msg{Subject: reply, Data: []byte(`{"stream":"ORDERS","seq":4711}`)}))
	}
	receipts := 0
	for range 80 {
		m := must(sub.NextMsgWithContext(ctx))(t)
		if m.Subject != reply {
			t.Fatalf("the client saw the subject %s", m.Subject)
		}
		var got struct {
			Seq     uint64          `json:"seq"`
			Receipt json.RawMessage `json:"receipt"`
		}
		check(t, json.Unmarshal(m.Data, &got))
		if len(got.Receipt) == 0 {
			continue
		}
		receipts++
		r, _, err := signing.VerifyReceipt(got.Receipt, ring)
		check(t, err)
		check(t, r.Covers(eventOf(t, stored(t, b, "ORDERS", got.Seq))))
	}
	if receipts != 20 {
		t.Errorf("%d receipts for 20 that were asked for and stored", receipts)
	}
}

// TestNoReceiptWithoutStableStorage: a broker that acknowledges early signs nothing.
func TestNoReceiptWithoutStableStorage(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) {
		change := o.Change
		o.Change = func(c *broker.Config) { change(c); c.Storage.Durability = broker.DurabilityUnsafeLazy }
	})
	_, err := b.Client("writer").Publish(within(t), "orders.eu.lazy", &client.Event{Type: "t"}, client.WithSignedAck())
	if !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), "signs no acknowledgements") {
		t.Errorf("got %v", err)
	}
}

// TestReceiptNotForLive: what is not stored has none.
func TestReceiptNotForLive(t *testing.T) {
	b := newBroker(t)
	err := b.Client("writer").PublishLive(context.Background(), "telemetry.x", &client.Event{Type: "t"}, client.WithSignedAck())
	if !errors.Is(err, client.ErrInvalidOption) {
		t.Errorf("got %v", err)
	}
}
