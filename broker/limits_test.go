package broker_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

// The rates refill so slowly that no test of a slow machine sees it.
const limitsPolicy = `tenant: shop
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}]
limit: polite
limits:
  polite: {consumers: 1, connections: 50}
  reports: {match: orders.report, messages: 3/h, burst: 1h}
  nobody: {messages: 1/h}
  paid: {per: tenant, types: [order.paid], messages: 2/h, burst: 1h}
roles:
  writer: {publish: [orders.>], types: ["*"], limit: reports}
principals:
  - {name: a, identities: [{nkey: '{{nkey "a"}}'}], roles: [writer], subscribe: [orders.>]}
  - {name: b, identities: [{nkey: '{{nkey "b"}}'}], roles: [writer]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [policy, status]}
---
tenant: mill
streams: [{name: FLOUR, subjects: [flour.>], maxBytes: 16MiB}]
principals: [{name: boss, identities: [{nkey: '{{nkey "boss"}}'}], admin: [status]}]
`

// TestLimitsLive: limits per principal and per type bind through the whole broker, the
// answer says what to do, and operators see who was refused by which rule and where.
func TestLimitsLive(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = limitsPolicy })
	a, other, root := b.Client("a"), b.Client("b"), b.Client("root")
	for _, c := range []*client.Client{a, other, root} {
		defer c.Close()
	}
	publish := func(c *client.Client, subject, eventType string) error {
		t.Helper()
		_, err := c.Publish(within(t), subject, client.NewEvent(eventType, []byte("{}")), client.WithoutRetry())
		return err
	}
	refused := func(err error, rule string) *client.Error {
		t.Helper()
		var e *client.Error
		if !errors.Is(err, client.ErrRateLimited) || !errors.As(err, &e) || e.Rule != rule || e.RetryAfter <= 0 || !client.Retryable(err) {
			t.Fatalf("got %v, want %s", err, rule)
		}
		return e
	}
	for range 3 {
		check(t, publish(a, "orders.report", "report"))
	}
	if e := refused(publish(a, "orders.report", "report"), "limit reports"); e.Remaining != 0 || e.Code != int(wire.CodeRateLimited) {
		t.Errorf("got %+v", e)
	}
	check(t, publish(other, "orders.report", "report")) // has a bucket of its own
	check(t, publish(a, "orders.a", "order.paid"))
	check(t, publish(other, "orders.b", "order.paid"))
	_ = refused(publish(a, "orders.a", "order.paid"), "limit paid") // two principals share two an hour
	_ = refused(publish(a, "orders.a", "order.paid"), "limit paid")
	_ = refused(publish(other, "orders.c", "order.paid"), "limit paid")

	// Consumers: one may be made and changed, a second one not.
	js := connect(t, b, "a").js(t)
	durable := func(name string, backlog int) error {
		_, err := js.CreateOrUpdateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{
			Durable: name, FilterSubject: "orders.>", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: backlog,
		})
		return err
	}
	check(t, durable("one", 10))
	check(t, durable("one", 20))
	var api *jetstream.APIError
	if err := durable("two", 10); !errors.As(err, &api) || api.ErrorCode != jetstream.ErrorCode(wire.CodeConsumersLimited) {
		t.Errorf("a second consumer: %v", err)
	}

	list := must(admin.Throttled(within(t), admin.New(root)))(t)
	var got []string
	for _, row := range list.Throttled {
		if row.Node == "" || row.Last.IsZero() {
			t.Errorf("row without node or time: %+v", row)
		}
		got = append(got, fmt.Sprintf("%d %s %s %s", row.Refused, row.Principal, row.Rule, row.Name))
	}
	want := []string{"2 shop/a limit paid RateLimited", "1 shop/a limit polite ConsumersLimited", "1 shop/a limit reports RateLimited", "1 shop/b limit paid RateLimited"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || list.Minutes != 10 || len(list.Without) > 0 {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	boss := b.Client("boss")
	defer boss.Close()
	if list := must(admin.Throttled(within(t), admin.New(boss)))(t); len(list.Throttled) != 0 {
		t.Errorf("another tenant sees %+v", list.Throttled)
	}
	if _, page := probe(t, b, "/metrics"); !strings.Contains(page, `signet_throttled_total{code="40500",principal="shop/a",rule="limit paid",tenant="shop"} 2`) {
		t.Error("the metrics do not name the rule and the principal")
	}
	usage := must(admin.PolicyOf(admin.New(root)).Usage(within(t)))(t)
	if len(usage.Idle) != 1 || usage.Idle[0].Rule != "limit nobody" || usage.Idle[0].Line == 0 {
		t.Errorf("limits that bound nobody: %+v, want limit nobody", usage.Idle)
	}
	can := must(admin.New(root).CanI(within(t), admin.CanIRequest{Verb: "publish", Subject: "orders.report", Principal: "a"}))(t)
	for _, l := range []string{"limit paid: messages 2/h, burst 1h0m0s, types order.paid, per tenant", "limit reports: messages 3/h, burst 1h0m0s, match orders.report"} {
		if !strings.Contains(can.Text, l) || !strings.Contains(strings.Join(can.Limits, "\n"), l) {
			t.Errorf("can-i does not say %q: %s", l, can.Text)
		}
	}
}
