package broker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

// TestAlteredStore: whoever writes into the store behind the broker's back, with a
// server of his own on the same folder, gets nothing of it to a handler of the SDK:
// no event without an attestation, none whose bytes, attributes or subject are not
// those that were attested.
func TestAlteredStore(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	writer, miller := b.Client("writer"), b.Client("miller")
	for i := range 3 {
		must(writer.Publish(ctx, "orders.eu.real", &client.Event{Type: "t", ID: fmt.Sprint(i), Extensions: map[string]string{"kind": "real"}, Data: []byte("real")}))(t)
	}
	must(miller.Publish(ctx, "orders.eu.real", &client.Event{Type: "t", Data: []byte("mill's")}))(t)
	cfg := must(broker.LoadConfig(b.State.Config, nil))(t)
	stop(t, b)

	forged := forge(t, cfg)
	b = restart(t, b)

	var invalid atomic.Int64
	wide := b.Client("wide", client.WithInvalidHandler(func(e client.InvalidEvent) {
		if e.Err == nil || e.Retried {
			t.Errorf("event %d: %v, retried %v", e.Sequence, e.Err, e.Retried)
		}
		invalid.Add(1)
	}))
	for name, opts := range map[string][]client.SubOption{
		"durable": {client.Durable("d")}, "ordered": {client.Ordered()}, "plain": nil,
	} {
		t.Run(name, func(t *testing.T) {
			invalid.Store(0)
			got := make(chan *client.Delivery, 64)
			sub := must(wide.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error { got <- d; return nil }, opts...))(t)
			defer sub.Stop()
			// The last event of the stream is an honest one.
			last := must(b.Client("writer").Publish(ctx, "orders.eu.last", client.NewEvent("t", []byte("real"))))(t)
			var honest []uint64
			for done := false; !done; {
				select {
				case d := <-got:
					if string(d.Event.Data) != "real" || d.Principal != "shop/writer" || !strings.HasPrefix(d.NATSSubject, "orders.eu.") {
						t.Errorf("the handler got %d on %s by %s: %q", d.Sequence, d.NATSSubject, d.Principal, d.Event.Data)
					}
					honest = append(honest, d.Sequence)
					done = d.Sequence == last.Sequence
				case <-ctx.Done():
					t.Fatal("the last event did not come")
				}
			}
			for _, seq := range honest {
				if slices.Contains(forged, seq) {
					t.Errorf("the handler got the forged event %d", seq)
				}
			}
			if n := invalid.Load(); int(n) != len(forged) || int(sub.Stats().Invalid) != len(forged) {
				t.Errorf("%d invalid events were told, %d counted, want %d", n, sub.Stats().Invalid, len(forged))
			}
		})
	}
}

// forge writes into the stream with a plain server on the store, as somebody who has
// the key of the store can, and returns the sequences of what it wrote.
func forge(t *testing.T, cfg broker.Config) (seqs []uint64) {
	t.Helper()
	ctx := within(t)
	// Who can write here can also make the broker forget what it has verified.
	check(t, os.RemoveAll(filepath.Join(cfg.State, "integrity")))
	server, err := embed.Start(ctx, embed.Config{
		Encryption: must(broker.LoadStoreKey(&cfg))(t),
		StoreDir:   cfg.State, ServerName: cfg.Name, Tenants: []embed.TenantAccount{{Name: "shop", MaxBytes: 1 << 30}, {Name: "mill", MaxBytes: 1 << 30}},
	})
	check(t, err)
	defer func() { check(t, server.Shutdown(ctx)) }()
	dial := func(tenant string) (*nats.Conn, jetstream.JetStream) {
		token, _ := server.InternalTicket(tenant)
		nc := must(nats.Connect("nats://inside", nats.InProcessServer(server), nats.Token(token)))(t)
		return nc, must(jetstream.New(nc))(t)
	}
	nc, js := dial("shop")
	defer nc.Close()
	millNC, millJS := dial("mill")
	defer millNC.Close()
	stream := must(js.Stream(ctx, "ORDERS"))(t)
	real := must(stream.GetMsg(ctx, 1))(t)
	other := must(stream.GetMsg(ctx, 2))(t)
	mills := must(must(millJS.Stream(ctx, "ORDERS"))(t).GetMsg(ctx, 1))(t)
	put := func(subject string, header nats.Header, data string, change ...func(nats.Header)) {
		t.Helper()
		h := nats.Header{}
		for k, v := range header {
			h[k] = slices.Clone(v)
		}
		delete(h, nats.MsgIdHdr)
		for _, c := range change {
			c(h)
		}
		ack := must(js.PublishMsg(ctx, &nats.Msg{Subject: subject, Header: h, Data: []byte(data)}))(t)
		seqs = append(seqs, ack.Sequence)
	}
	set := func(k, v string) func(nats.Header) { return func(h nats.Header) { h[k] = []string{v} } }
	drop := func(k string) func(nats.Header) { return func(h nats.Header) { delete(h, k) } }
	attestation := "ce-" + wire.AttrAttestation
	put("orders.eu.real", nil, "raw")
	put("orders.eu.real", mills.Header, "mill's") // another tenant's, which verifies
	put("orders.eu.real", real.Header, "altered")
	put("orders.eu.real", real.Header, "real", drop(attestation))
	put("orders.eu.other", real.Header, "real") // moved to another subject
	put("orders.us.real", real.Header, "real")
	put("orders.eu.real", real.Header, "real", set("ce-id", "9"))
	put("orders.eu.real", real.Header, "real", set("ce-type", "x"))
	put("orders.eu.real", real.Header, "real", set("ce-authid", "shop/root"))
	put("orders.eu.real", real.Header, "real", set("ce-source", "/shop/root"))
	put("orders.eu.real", real.Header, "real", set("ce-kind", "forged"))
	put("orders.eu.real", real.Header, "real", set("ce-added", "x"))
	put("orders.eu.real", real.Header, "real", drop("ce-kind"))
	put("orders.eu.real", real.Header, "real", set("ce-recordedtime", "2020-01-01T00:00:00Z"))
	put("orders.eu.real", real.Header, "real", set(attestation, "AAAA"))
	put("orders.eu.real", real.Header, "real", set(attestation, real.Header.Get(attestation)+"A"))
	put("orders.eu.real", real.Header, "real", set(attestation, mills.Header.Get(attestation)))
	if other.Header.Get(attestation) != real.Header.Get(attestation) {
		put("orders.eu.real", real.Header, "real", set(attestation, other.Header.Get(attestation)))
	}
	put("orders.eu.real", real.Header, "real", func(h nats.Header) { h["Ce-id"] = []string{"0"} })
	put("orders.eu.real", real.Header, "real", func(h nats.Header) { h["ce-id"] = []string{"0", "1"} })
	return seqs
}

// TestSDKPositions: from the start, a sequence, a time, and only what is new.
func TestSDKPositions(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	writer, wide := b.Client("writer"), b.Client("wide")
	var middle time.Time
	for i := range 6 {
		if i == 3 {
			// The third is stored before this instant by the server's clock, which is ours.
			middle = time.Now()
		}
		must(writer.Publish(ctx, fmt.Sprintf("orders.eu.n%d", i), client.NewEvent("t", nil)))(t)
	}
	first := func(opts ...client.SubOption) *client.Delivery {
		t.Helper()
		got := make(chan *client.Delivery, 16)
		sub := must(wide.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
			select {
			case got <- d:
			default:
			}
			return nil
		}, opts...))(t)
		defer func() { sub.Stop(); <-sub.Closed() }()
		must(writer.Publish(ctx, "orders.eu.new", client.NewEvent("t", nil)))(t)
		select {
		case d := <-got:
			return d
		case <-ctx.Done():
			t.Fatal("nothing came")
			return nil
		}
	}
	for name, c := range map[string]struct {
		opt  client.SubOption
		want string
	}{
		"start": {client.FromStart(), "orders.eu.n0"}, "sequence": {client.FromSequence(5), "orders.eu.n4"},
		"time": {client.FromTime(middle), "orders.eu.n3"}, "new": {client.FromNew(), "orders.eu.new"},
	} {
		if d := first(c.opt); d.NATSSubject != c.want {
			t.Errorf("%s: began with %s, want %s", name, d.NATSSubject, c.want)
		}
		if d := first(c.opt, client.Ordered()); d.NATSSubject != c.want {
			t.Errorf("%s, ordered: began with %s, want %s", name, d.NATSSubject, c.want)
		}
	}
}

// TestSDKSettlements: Nak brings an event back, Term does not, InProgress gives more
// time, an error of the handler is a Nak; and a durable goes on where it was.
func TestSDKSettlements(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	writer, wide := b.Client("writer"), b.Client("wide")
	type seen struct {
		subject string
		n       uint64
	}
	got := make(chan seen, 64)
	handle := func(_ context.Context, d *client.Delivery) error {
		defer func() { got <- seen{d.NATSSubject, d.NumDelivered} }()
		switch d.NATSSubject {
		case "orders.nak":
			if d.NumDelivered < 3 {
				return d.Nak(0)
			}
		case "orders.error":
			if d.NumDelivered < 2 {
				return fmt.Errorf("not yet")
			}
		case "orders.term":
			return d.Term("no use")
		case "orders.permanent":
			return client.Permanent(fmt.Errorf("no use"))
		case "orders.slow":
			for range 3 {
				if err := d.InProgress(); err != nil {
					return err
				}
			}
		}
		return nil
	}
	opts := []client.SubOption{client.Durable("d")}
	sub := must(wide.Subscribe(ctx, "orders.>", handle, opts...))(t)
	want := map[seen]bool{}
	for _, s := range []struct {
		subject string
		times   uint64
	}{{"orders.ack", 1}, {"orders.nak", 3}, {"orders.error", 2}, {"orders.term", 1}, {"orders.permanent", 1}, {"orders.slow", 1}} {
		must(writer.Publish(ctx, s.subject, client.NewEvent("t", nil)))(t)
		for i := range s.times {
			want[seen{s.subject, i + 1}] = true
		}
	}
	for range len(want) {
		select {
		case s := <-got:
			if !want[s] {
				t.Errorf("unexpected %+v", s)
			}
			delete(want, s)
		case <-ctx.Done():
			t.Fatalf("still missing: %v", want)
		}
	}
	c := must(insideJS(t, b, "shop").Consumer(ctx, "ORDERS", "d"))(t)
	eventually(t, "all settled", func() bool {
		info := must(c.Info(ctx))(t)
		return info.NumAckPending == 0 && info.NumPending == 0
	})
	sub.Drain()
	<-sub.Closed()

	// What was handled does not come again, what came meanwhile does.
	must(writer.Publish(ctx, "orders.meanwhile", client.NewEvent("t", nil)))(t)
	again := must(b.Client("wide").Subscribe(ctx, "orders.>", handle, opts...))(t)
	defer again.Stop()
	select {
	case s := <-got:
		if s != (seen{"orders.meanwhile", 1}) {
			t.Errorf("the durable goes on with %+v", s)
		}
	case <-ctx.Done():
		t.Fatal("the durable does not go on")
	}
}

// TestSDKAgainstAFalseBroker: the SDK talks to nobody but the broker that its CA
// vouches for, and takes no keyring but its root's.
func TestSDKAgainstAFalseBroker(t *testing.T) {
	real, false1 := newBroker(t), newBroker(t)
	opts := func(ca, root string) []client.Option {
		return []client.Option{client.WithNkeySeedFile(real.Cred("wide")), client.WithTLSRoots(ca), client.WithRoot(root), client.WithTimeout(5 * time.Second)}
	}
	if c, err := client.Connect(within(t), false1.URL(), opts(real.State.CA, real.State.Root)...); err == nil {
		c.Close()
		t.Error("connected to a broker of another CA")
	}
	if c, err := client.Connect(within(t), real.URL(), opts(real.State.CA, false1.State.Root)...); err == nil {
		c.Close()
		t.Error("took a keyring of another root")
	}
	c := must(client.Connect(within(t), real.URL(), opts(real.State.CA, real.State.Root)...))(t)
	c.Close()
}

// TestBrokerNameWithDots: a host's full name, which is the default, or whatever else a
// broker may be called keeps no client from the keyring, nor from the admin API.
func TestBrokerNameWithDots(t *testing.T) {
	for _, name := range []string{"broker.example.com", "broker."} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t, func(o *brokertest.Options) { o.Name = name })
			ctx := within(t)
			must(b.Client("writer").Publish(ctx, "orders.eu.x", client.NewEvent("t", nil)))(t)
			got := make(chan *client.Delivery, 1)
			must(b.Client("wide").Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error { got <- d; return nil }, client.FromStart()))(t)
			<-got // which the client has verified with the keyring
			if s := must(admin.New(b.Client("root")).Status(ctx))(t); s.Server.Name != name {
				t.Errorf("the status is of %q", s.Server.Name)
			}
		})
	}
}
