package broker_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
)

const wideGrant = "name: wide, identities: [{nkey: '{{nkey \"wide\"}}'}], publish: [orders.>], subscribe: [orders.>, payments.>, telemetry.>]"

// narrowed is shopPolicy where wide may read orders.eu.> only.
func narrowed(t testing.TB) string {
	return edit(t, shopPolicy, wideGrant, strings.Replace(wideGrant, "subscribe: [orders.>, payments.>, telemetry.>]", "subscribe: [orders.eu.>]", 1))
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func logTo(l *logBuffer) func(*brokertest.Options) {
	return func(o *brokertest.Options) { o.Log = l }
}

// TestRevokePull: a pull consumer that was made under a wider grant stops at the
// reload that narrows it, with a pull waiting; what stays granted stays.
func TestRevokePull(t *testing.T) {
	var log logBuffer
	b := newBroker(t, logTo(&log))
	ctx := within(t)
	writer, wide := connect(t, b, "writer"), connect(t, b, "wide")
	js := wide.js(t)
	all := must(js.CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: "all", FilterSubject: "orders.>"}))(t)
	eu := must(js.CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: "eu", FilterSubject: "orders.eu.>"}))(t)
	must(js.CreateConsumer(ctx, "PAYMENTS", jetstream.ConsumerConfig{Durable: "pay"}))(t)
	both := must(js.CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: "both", FilterSubjects: []string{"orders.eu.a", "orders.us.a"}}))(t)
	_ = both
	// A pull that is waiting at the server when the grant goes.
	waiting := must(wide.SubscribeSync(nats.NewInbox()))(t)
	check(t, wide.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.ORDERS.all", waiting.Subject, []byte(`{"batch":10,"expires":20000000000}`)))
	check(t, wide.Flush())

	reload(t, b, narrowed(t))
	writer.publish(t, "orders.us.secret", "secret")
	writer.publish(t, "orders.eu.open", "open")

	if m := must(eu.Next(jetstream.FetchMaxWait(patience)))(t); string(m.Data()) != "open" {
		t.Errorf("the granted consumer got %q", m.Data())
	}
	if m, err := all.Next(jetstream.FetchMaxWait(patience)); err == nil {
		t.Errorf("the revoked consumer got %q", m.Data())
	}
	check(t, wide.Flush())
	for n, _, _ := waiting.Pending(); n > 0; n, _, _ = waiting.Pending() {
		if m := must(waiting.NextMsg(patience))(t); len(m.Data) > 0 || m.Header.Get("Status") != "409" {
			t.Errorf("the waiting pull got %v %q", m.Header, m.Data)
		}
	}
	names := map[string]bool{}
	for _, stream := range []string{"ORDERS", "PAYMENTS"} {
		s := must(insideJS(t, b, "shop").Stream(ctx, stream))(t)
		for name := range s.ConsumerNames(ctx).Name() {
			names[name] = true
		}
	}
	if len(names) != 1 || !names["eu"] {
		t.Errorf("consumers left: %v", names)
	}
	for _, want := range []string{`"event":"consumer-revoked"`, "ORDERS.all", "ORDERS.both", "PAYMENTS.pay", "shop/wide"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not have %s", want)
		}
	}
	// Widening again does not bring it back by itself, but it may be made again.
	reload(t, b, shopPolicy)
	c := must(wide.js(t).CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: "all", FilterSubject: "orders.>"}))(t)
	if m := must(c.Next(jetstream.FetchMaxWait(patience)))(t); string(m.Data()) != "secret" {
		t.Errorf("got %q", m.Data())
	}
}

// TestRevokePush: nor does a push consumer go on, which nobody has to ask for more.
func TestRevokePush(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	writer, wide := connect(t, b, "writer"), connect(t, b, "wide")
	inbox := nats.NewInbox()
	sub := must(wide.SubscribeSync(inbox))(t)
	push := must(wide.js(t).CreatePushConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{
		Name: "push", DeliverSubject: inbox, FilterSubject: "orders.>", AckPolicy: jetstream.AckNonePolicy,
	}))(t)
	_ = push
	writer.publish(t, "orders.us.before", "before")
	if m := must(sub.NextMsg(patience))(t); string(m.Data) != "before" {
		t.Fatalf("%q", m.Data)
	}
	watch := must(connect(t, b, "narrow").js(t).KeyValue(ctx, "settings"))(t)
	watcher := must(watch.WatchAll(ctx))(t)
	if e := <-watcher.Updates(); e != nil {
		t.Fatalf("%v", e)
	}

	text := edit(t, narrowed(t), "subscribe: [orders.eu.>, telemetry.eu.>], kv: {read: [settings]}", "subscribe: [orders.eu.>]")
	reload(t, b, text)
	writer.publish(t, "orders.us.secret", "secret")
	kv := must(writer.js(t).KeyValue(ctx, "settings"))(t)
	must(kv.PutString(ctx, "k", "secret"))(t)
	check(t, wide.Flush())
	if n, _, _ := sub.Pending(); n > 0 {
		t.Errorf("the push consumer delivered %d more", n)
	}
	select {
	case e := <-watcher.Updates():
		t.Errorf("the watch of a bucket goes on: %v", e)
	default:
	}
	for _, stream := range []string{"ORDERS", "KV_settings"} {
		if n := streamOf(t, b, "shop", stream).State.Consumers; n != 0 {
			t.Errorf("%s: %d consumers left", stream, n)
		}
	}
}

// TestRevokeOwner: the consumers of a principal that is disabled or removed go,
// also where the policy changed while no broker ran, and what nobody owns goes too.
func TestRevokeOwner(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	make2 := func() {
		for _, who := range []string{"wide", "narrow"} {
			must(connect(t, b, who).js(t).CreateOrUpdateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Durable: who, FilterSubject: "orders.eu.>"}))(t)
		}
	}
	left := func(want string) {
		t.Helper()
		var names []string
		for name := range must(insideJS(t, b, "shop").Stream(ctx, "ORDERS"))(t).ConsumerNames(ctx).Name() {
			names = append(names, name)
		}
		if got := strings.Join(names, ","); got != want {
			t.Errorf("consumers %q, want %q", got, want)
		}
	}
	make2()
	disabled := edit(t, shopPolicy, "name: wide,", "name: wide, disabled: true,")
	reload(t, b, disabled)
	left("narrow")
	reload(t, b, shopPolicy)
	make2()
	left("narrow,wide")
	// An owner of another tenant, or none at all.
	for name, owner := range map[string]string{"stray": "mill/miller", "nobody": ""} {
		cfg := jetstream.ConsumerConfig{Durable: name, Metadata: map[string]string{wire.MetaOwner: owner}}
		must(insideJS(t, b, "shop").CreateConsumer(ctx, "ORDERS", cfg))(t)
	}
	check(t, broker.Recheck(ctx, b.Broker))
	left("narrow,wide")

	stop(t, b)
	replacePolicy(t, b, edit(t, shopPolicy, "  - {"+wideGrant+"}\n", ""))
	b = restart(t, b)
	left("narrow")
}

// TestRevokeTellsTheSDK: a handler of the SDK gets nothing more, and its
// subscription ends with an error that says so.
func TestRevokeTellsTheSDK(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	writer, wide := b.Client("writer"), b.Client("wide")
	got := make(chan string, 16)
	handle := func(_ context.Context, d *client.Delivery) error {
		got <- d.NATSSubject
		return nil
	}
	sub := must(wide.Subscribe(ctx, "orders.>", handle, client.Durable("sdk")))(t)
	must(writer.Publish(ctx, "orders.us.before", client.NewEvent("t", nil)))(t)
	if s := <-got; s != "orders.us.before" {
		t.Fatal(s)
	}
	reload(t, b, narrowed(t))
	must(writer.Publish(ctx, "orders.us.secret", client.NewEvent("t", nil)))(t)
	select {
	case <-sub.Closed():
	case <-ctx.Done():
		t.Fatal("the subscription goes on")
	}
	if err := sub.Err(); !errors.Is(err, client.ErrConsumerGone) && !errors.Is(err, client.ErrDenied) {
		t.Errorf("it ended with %v", err)
	}
	select {
	case s := <-got:
		t.Errorf("the handler got %s", s)
	default:
	}
	if _, err := wide.Subscribe(ctx, "orders.>", handle, client.Durable("sdk")); !errors.Is(err, client.ErrDenied) {
		t.Errorf("subscribing again: %v", err)
	}
}
