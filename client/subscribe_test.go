package client

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

const wait = 30 * time.Second

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(wait):
		t.Fatal("nothing came")
	}
	panic("unreachable")
}

// scripted answers one subscription: once delivers at the first pull.
func scripted(f *fakeBroker, once func(inbox string)) (acks chan string) {
	acks = make(chan string, 100)
	var first sync.Once
	f.script = func(p published) {
		if strings.HasPrefix(p.subject, wire.PrefixJSAck) {
			acks <- p.subject[len(wire.PrefixJSAck):] + " " + string(p.data)
			return
		}
		f.jetstream(p, func(inbox string, _ int) { first.Do(func() { once(inbox) }) })
	}
	return acks
}

func ackSubject(seq int) string {
	return fmt.Sprintf("$JS.ACK.ORDERS.billing.1.%d.%d.1700000000000000000.0", seq, seq)
}

func TestSubscribeVerifiesAndSettles(t *testing.T) {
	f := newFakeBroker(t)
	data := []byte(`{"n":1}`)
	acks := scripted(f, func(inbox string) {
		good := f.attested("1", "orders.created", data)
		f.deliverTo(inbox, "orders.created", ackSubject(1), good, data)
		f.deliverTo(inbox, "orders.paid", ackSubject(2), good, data)                                                             // another subject
		f.deliverTo(inbox, "orders.created", ackSubject(3), good, []byte(`{"n":2}`))                                             // other data
		f.deliverTo(inbox, "orders.created", ackSubject(4), strings.Replace(good, "ce-id: 1", "ce-id: 2", 1), data)              // another id
		f.deliverTo(inbox, "orders.created", ackSubject(5), strings.Replace(good, "ce-id", "ce-id: 1\r\nce-id", 1), data)        // twice
		f.deliverTo(inbox, "orders.created", ackSubject(6), strings.Replace(good, "ce-id", "Ce-Id: 1\r\nce-id", 1), data)        // case twin
		f.deliverTo(inbox, "orders.created", ackSubject(7), "", data)                                                            // bare
		f.deliverTo(inbox, "orders.created", ackSubject(8), "NATS/1.0\r\nce-id: 1\r\n\r\n", data)                                // not attested
		f.deliverTo(inbox, "other.created", ackSubject(9), f.attested("1", "other.created", data), data)                         // outside the filter
		f.deliverTo(inbox, "orders.created", ackSubject(10), f.attested("10", "orders.created", data), data)                     // fails
		f.deliverTo(inbox, "orders.created", ackSubject(11), f.attested("11", "orders.created", data), data)                     // permanent
		f.deliverTo(inbox, "orders.created", "$JS.ACK.ORDERS.other.1.12.12.1.0", f.attested("12", "orders.created", data), data) // other consumer
	})
	var invalid []InvalidEvent
	var mu sync.Mutex
	c := f.connect(WithInvalidHandler(func(e InvalidEvent) { mu.Lock(); invalid = append(invalid, e); mu.Unlock() }))
	got := make(chan *Delivery, 10)
	sub, err := c.Subscribe(context.Background(), "orders.>", func(_ context.Context, d *Delivery) error {
		got <- d
		switch d.Event.ID {
		case "10":
			return errors.New("not now")
		case "11":
			return Permanent(errors.New("never\r\nagain"))
		}
		return nil
	}, Durable("billing"))
	if err != nil {
		t.Fatal(err)
	}
	d := receive(t, got)
	if d.Principal != "shop/checkout" || d.NATSSubject != "orders.created" || d.Sequence != 1 || d.Stream != "ORDERS" ||
		string(d.Event.Data) != string(data) || d.Event.Time.Year() != 2026 || d.NumDelivered != 1 {
		t.Errorf("delivery = %+v", d)
	}
	if len(d.Event.Extensions) != 1 || d.Event.Extensions["region"] != "north sea" {
		t.Errorf("extensions = %v", d.Event.Extensions)
	}
	if a := d.Attested(); a.Extensions["attestation"] == "" || a.Extensions["authid"] != "shop/checkout" {
		t.Errorf("attested extensions = %v", a.Extensions)
	}
	want := map[string]string{"1": "+ACK", "10": "-NAK", "11": "+TERM handler: never  again"}
	for i := 2; i <= 9; i++ {
		want[fmt.Sprint(i)] = "+TERM attestation does not hold"
	}
	for range want {
		subject, body, _ := strings.Cut(receive(t, acks), " ")
		seq := strings.Split(subject, ".")[3]
		if body != want[seq] {
			t.Errorf("sequence %s: %q, want %q", seq, body, want[seq])
		}
	}
	sub.Drain()
	receive(t, sub.Closed())
	if s := sub.Stats(); s.Delivered != 3 || s.Invalid != 8 || s.Failed != 2 || s.Deferred != 0 {
		t.Errorf("stats = %+v", s)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(invalid) != 8 || !errors.Is(invalid[0].Err, signing.ErrBadSignature) || invalid[0].Sequence != 2 {
		t.Errorf("invalid = %v", invalid)
	}
	if err := sub.Err(); err != nil {
		t.Errorf("Err after Drain = %v", err)
	}
}

// An event whose key the keyring does not have may be from after the keyring was fetched: it
// is held back as long as that is open, neither given back, which would count as a delivery,
// nor terminated, and comes to the handler when there is a keyring that has the key.
func TestUnknownKeyIsHeldBack(t *testing.T) {
	f := newFakeBroker(t)
	at := ""
	acks := scripted(f, func(inbox string) {
		at = inbox
		header := f.attested("1", "orders.created", nil)
		ack := fmt.Sprintf("$JS.ACK.ORDERS.billing.1.1.1.%d.0", time.Now().UnixNano())
		f.deliverTo(inbox, "orders.created", ack, header, nil)
	})
	ring, root := f.ring, f.root
	f.keys()
	newer, err := keyring.Parse(f.ring, f.root, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.ring, f.root = ring, root // the broker signs with a key that its keyring does not have
	c := f.connect()
	got := make(chan *Delivery, 1)
	sub, err := c.Subscribe(context.Background(), "orders.>", func(_ context.Context, d *Delivery) error {
		got <- d
		return nil
	}, Durable("billing"))
	if err != nil {
		t.Fatal(err)
	}
	if ack := receive(t, acks); !strings.HasSuffix(ack, "+WPI") {
		t.Errorf("ack = %q", ack)
	}
	c.ring.ring.Store(newer)
	beat := time.NewTicker(50 * time.Millisecond)
	defer beat.Stop()
	var d *Delivery
	for end := time.After(time.Minute); d == nil; {
		select {
		case d = <-got:
		case <-beat.C:
			f.look(func() { f.deliverTo(at, at, "", "NATS/1.0 100 Idle Heartbeat\r\n\r\n", nil) })
		case <-end:
			t.Fatal("it never comes")
		}
	}
	ack := receive(t, acks)
	for strings.HasSuffix(ack, "+WPI") { // looked at before the keyring was there
		ack = receive(t, acks)
	}
	if !strings.HasSuffix(ack, "+ACK") || d.NumDelivered != 1 {
		t.Errorf("delivery %d, ack = %q", d.NumDelivered, ack)
	}
	sub.Stop()
	receive(t, sub.Closed())
	if s := sub.Stats(); s.Deferred != 1 || s.Invalid != 0 || s.Delivered != 1 {
		t.Errorf("stats = %+v", s)
	}
}

// TestBackWithoutAWait: what cannot be held, because its ack wait would be over, is given
// back.
func TestBackWithoutAWait(t *testing.T) {
	f := newFakeBroker(t)
	acks := scripted(f, func(inbox string) {
		ack := fmt.Sprintf("$JS.ACK.ORDERS.billing.1.1.1.%d.0", time.Now().UnixNano())
		f.deliverTo(inbox, "orders.created", ack, f.attested("1", "orders.created", nil), nil)
	})
	ring, root := f.ring, f.root
	f.keys()
	f.ring, f.root = ring, root
	sub, err := f.connect().Subscribe(context.Background(), "orders.>", func(context.Context, *Delivery) error {
		t.Error("the handler saw an event of an unknown key")
		return nil
	}, Durable("billing"), AckWait(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if ack := receive(t, acks); !strings.Contains(ack, "-NAK") {
		t.Errorf("ack = %q", ack)
	}
	sub.Stop()
	receive(t, sub.Closed())
	if s := sub.Stats(); s.Deferred != 1 || s.Invalid != 0 {
		t.Errorf("stats = %+v", s)
	}
}

func TestOrderedRestartsAfterAGap(t *testing.T) {
	f := newFakeBroker(t)
	pulls := 0
	created := []string{}
	f.script = func(p published) {
		if strings.HasPrefix(p.subject, wire.PrefixJSAPI+"CONSUMER.CREATE.") {
			created = append(created, string(p.data))
		}
		f.jetstream(p, func(inbox string, _ int) {
			consumer := p.subject[strings.LastIndexByte(p.subject, '.')+1:]
			ack := func(seq, cseq int) string {
				return fmt.Sprintf("$JS.ACK._.hash.ORDERS.%s.1.%d.%d.1700000000000000000.0.rnd", consumer, seq, cseq)
			}
			if pulls == 0 {
				f.deliverTo(inbox, "a.b", ack(5, 1), f.attested("5", "a.b", nil), nil)
				f.deliverTo(inbox, "a.b", ack(7, 3), f.attested("7", "a.b", nil), nil)
			} else {
				f.deliverTo(inbox, "a.b", ack(6, 1), f.attested("6", "a.b", nil), nil)
				f.deliverTo(inbox, "a.b", ack(7, 2), f.attested("7", "a.b", nil), nil)
			}
			pulls++
		})
	}
	c := f.connect()
	got := make(chan string, 10)
	sub, err := c.Subscribe(context.Background(), "a.>", func(_ context.Context, d *Delivery) error {
		got <- d.Event.ID
		return errors.New("ignored")
	}, Ordered())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"5", "6", "7"} {
		if id := receive(t, got); id != want {
			t.Fatalf("got %s, want %s", id, want)
		}
	}
	sub.Drain()
	receive(t, sub.Closed())
	f.look(func() {})
	if len(created) != 2 || !strings.Contains(created[1], `"opt_start_seq":6`) || !strings.Contains(created[1], `"ack_policy":"none"`) {
		t.Errorf("consumers = %v", created)
	}
}

func TestSubscribeLive(t *testing.T) {
	f := newFakeBroker(t)
	c := f.connect()
	got := make(chan *Delivery, 10)
	sub, err := c.SubscribeLive(context.Background(), "telemetry.>", func(_ context.Context, d *Delivery) error {
		got <- d
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.deliver("telemetry.x", "", f.attested("0", "telemetry.y", nil), nil)
	f.deliver("telemetry.x", "", f.attested("1", "telemetry.x", nil), nil)
	d := receive(t, got)
	if d.Event.ID != "1" || d.Stream != "" || d.Ack() != nil || d.Nak(0) != nil {
		t.Errorf("delivery = %+v", d)
	}
	sub.Drain()
	receive(t, sub.Closed())
	if s := sub.Stats(); s.Invalid != 1 || s.Delivered != 1 {
		t.Errorf("stats = %+v", s)
	}
}

func TestSubscribeLiveDenied(t *testing.T) {
	f := newFakeBroker(t)
	c := f.connect()
	f.mu.Lock()
	f.deny = "secret.>"
	f.mu.Unlock()
	_, err := c.SubscribeLive(context.Background(), "secret.>", func(context.Context, *Delivery) error { return nil })
	var e *Error
	if !errors.Is(err, ErrDenied) || !errors.As(err, &e) || e.Code != 40102 || e.Ref != "r7" || e.Subject != "secret.>" {
		t.Fatalf("error = %v", err)
	}
}

func TestSubscribeErrors(t *testing.T) {
	f := newFakeBroker(t)
	f.script = func(p published) {
		switch {
		case strings.HasSuffix(p.subject, "STREAM.NAMES") && strings.Contains(string(p.data), "none"):
			f.deliver(p.reply, "", "", []byte(`{"streams":null}`))
		case strings.HasSuffix(p.subject, "STREAM.NAMES"):
			f.deliver(p.reply, "", "", []byte(`{"streams":["ORDERS"]}`))
		case strings.Contains(p.subject, "CONSUMER.INFO.ORDERS.taken"):
			f.deliver(p.reply, "", "", []byte(`{"name":"taken","config":{"filter_subject":"x.>","ack_policy":"explicit"}}`))
		default:
			f.deliver(p.reply, "", "", wire.Refuse(wire.CodeFilterDenied, "", "").Answer("x", false))
		}
	}
	c := f.connect()
	handler := func(context.Context, *Delivery) error { return nil }
	tests := []struct {
		name, filter string
		opts         []SubOption
		want         error
	}{
		{"no stream", "none.x", nil, ErrNotFound},
		{"denied", "orders.>", nil, ErrDenied},
		{"denied durable", "orders.>", []SubOption{Durable("d")}, ErrDenied},
		{"durable of another filter", "orders.>", []SubOption{Durable("taken")}, ErrConflict},
		{"bad filter", "orders.>.x", nil, ErrMalformed},
		{"bad durable", "orders.>", []SubOption{Durable("a.b")}, ErrInvalidOption},
		{"two starts", "orders.>", []SubOption{FromNew(), FromStart()}, ErrInvalidOption},
		{"sequence 0", "orders.>", []SubOption{FromSequence(0)}, ErrInvalidOption},
		{"zero time", "orders.>", []SubOption{FromTime(time.Time{})}, ErrInvalidOption},
		{"ordered durable", "orders.>", []SubOption{Ordered(), Durable("d")}, ErrInvalidOption},
		{"ordered concurrent", "orders.>", []SubOption{Ordered(), Concurrency(2)}, ErrInvalidOption},
		{"ordered ack wait", "orders.>", []SubOption{Ordered(), AckWait(time.Second)}, ErrInvalidOption},
		{"in flight", "orders.>", []SubOption{SubMaxInFlight(0)}, ErrInvalidOption},
		{"queue", "orders.>", []SubOption{Queue("q")}, ErrInvalidOption},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := c.Subscribe(context.Background(), tt.filter, handler, tt.opts...); !errors.Is(err, tt.want) {
				t.Errorf("error = %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := c.SubscribeLive(context.Background(), "a", handler, Durable("d")); !errors.Is(err, ErrInvalidOption) {
		t.Errorf("SubscribeLive with Durable: %v", err)
	}
}

func TestParseAck(t *testing.T) {
	for _, s := range []string{
		"$JS.ACK.ORDERS.c.2.3.4.5.6", "$JS.ACK._.hash.ORDERS.c.2.3.4.5.6", "$JS.ACK.hub.hash.ORDERS.c.2.3.4.5.6.rnd",
	} {
		a, ok := parseAck(s)
		if !ok || a.stream != "ORDERS" || a.consumer != "c" || a.delivered != 2 || a.streamSeq != 3 || a.consumerSeq != 4 || a.stored.UnixNano() != 5 || a.queue != 6 {
			t.Errorf("parseAck(%q) = %+v, %v", s, a, ok)
		}
	}
	for _, s := range []string{"", "$JS.ACK.", "$JS.ACK.a.b.1.2.3.4", "$JS.ACK.a.b.1.2.3.4.5.6", "$JS.ACK.a.b.x.2.3.4.5", "_INBOX.a.b.1.2.3.4.5.6"} {
		if a, ok := parseAck(s); ok {
			t.Errorf("parseAck(%q) = %+v", s, a)
		}
	}
}
