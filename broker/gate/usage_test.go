package gate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// limited starts a world whose principals have these limits, and where consumers are counted.
func limited(t *testing.T, limits string, options ...worldOption) *world {
	return newWorldOf(t, strings.Replace(testPolicy, "limits:\n", "limit: counts\nlimits:\n  counts: {"+limits+"}\n", 1), append(options, func(_ *Config, d *Deps) {
		js := d.Owners.(owners).js
		d.Consumers = func(ctx context.Context, p *policy.Principal) (map[ConsumerName]bool, error) {
			s, err := js.Stream(ctx, "ORDERS")
			if err != nil {
				return nil, err
			}
			own := map[ConsumerName]bool{}
			list := s.ListConsumers(ctx)
			for i := range list.Info() {
				if i.Config.Metadata[wire.MetaOwner] == p.FullName() {
					own[ConsumerName{"ORDERS", i.Name}] = true
				}
			}
			return own, list.Err()
		}
	})...)
}

// TestConnectionsOfALimit: the limit of the policy bounds a principal's connections below
// the gate's own, is named, and gives back what is closed.
func TestConnectionsOfALimit(t *testing.T) {
	w := limited(t, "connections: 2")
	first := w.connect("writer")
	w.connect("writer")
	if _, err := w.tryConnect("writer"); err == nil || !strings.Contains(err.Error(), nats.MAX_CONNECTIONS_ERR) {
		t.Fatalf("the third: %v", err)
	}
	w.connect("reader") // has its own
	first.Close()
	w.until("the share is given back", func() bool {
		nc, err := w.tryConnect("writer")
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	if r := w.sink.last(wire.CodeConnectionLimited); r == nil || r.Rule != "limit counts" {
		t.Errorf("the refusal names %v, want limit counts", r)
	}
}

// TestSubscriptionsOfALimit: over all connections of a principal.
func TestSubscriptionsOfALimit(t *testing.T) {
	w := limited(t, "subscriptions: 3")
	a, b := w.login("reader", quiet), w.login("reader", quiet)
	for i, r := range []*raw{a, b, a} {
		r.send(fmt.Sprintf("SUB orders.%d %d\r\n", i, i+1))
		r.pong()
	}
	b.send("SUB orders.x 9\r\n")
	if l := b.want("-ERR"); !strings.Contains(l, "maximum subscriptions exceeded") || !strings.Contains(l, "rule limit counts") {
		t.Fatalf("the fourth: %s", l)
	}
	a.send("UNSUB 1\r\n")
	a.pong()
	b.send("SUB orders.x 9\r\n")
	b.pong() // an -ERR before it would fail
	if n := w.gate.Stats().Subscriptions; n != 3 {
		t.Errorf("%d subscriptions are open, want 3", n)
	}
}

// TestConsumersOfALimit: making one more is refused, changing and reading what is there is
// not, and one that is deleted makes room.
func TestConsumersOfALimit(t *testing.T) {
	w := limited(t, "consumers: 2", func(c *Config, _ *Deps) { c.Limits.APIRate = -1 })
	js := w.jetstream("reader")
	make := func(name, description string) error {
		_, err := js.CreateOrUpdateConsumer(w.ctx(), "ORDERS", jetstream.ConsumerConfig{Durable: name, FilterSubject: "orders.>", Description: description})
		return err
	}
	for _, name := range []string{"a", "b"} {
		check(t, make(name, ""))
	}
	var api *jetstream.APIError
	if err := make("c", ""); !errors.As(err, &api) || api.ErrorCode != jetstream.ErrorCode(wire.CodeConsumersLimited) || api.Code != 429 {
		t.Fatalf("the third: %v", err)
	}
	if r := w.sink.last(wire.CodeConsumersLimited); r.Rule != "limit counts" || r.RetryAfter <= 0 {
		t.Errorf("got %v", r)
	}
	w.until("what is there can be changed", func() bool { return make("b", "changed") == nil })
	check(t, js.DeleteConsumer(w.ctx(), "ORDERS", "a"))
	w.until("there is room again", func() bool { return make("c", "") == nil })
}

// TestInFlightOfALimit: publishes without an acknowledgement are bounded over all
// connections of a principal; what was refused, answered, or went with its connection
// counts no more. No answer comes here until the test says so: the barrier holds it.
func TestInFlightOfALimit(t *testing.T) {
	gate := make(holding)
	w := limited(t, "inFlight: 3", func(_ *Config, d *Deps) { d.Barrier = gate })
	a, b := w.login("writer", quiet), w.login("writer", quiet)
	for _, r := range []*raw{a, b} {
		r.send("SUB _INBOX.me.* 1\r\n")
		r.pong()
	}
	counted := func(want int64) {
		t.Helper()
		w.until(fmt.Sprintf("%d are in flight", want), func() bool {
			w.gate.mu.Lock()
			defer w.gate.mu.Unlock()
			u := w.gate.shares["shop/writer"]
			return u != nil && u.inFlight.Load() == want
		})
	}
	a.send("PUB telemetry.a _INBOX.me.0 1\r\nx\r\nPUB orders.denied.slow 1\r\nx\r\n") // nobody waits for these
	_ = a.want("HMSG _INBOX.me.0 1 ")                                                 // that nobody listens, which must not come in between later
	for a.line() != "" {
	}
	_ = a.line()
	counted(0)
	// The relay takes the answers away as they come; so the publishes of one read, which are
	// judged before the first answer can come, are what is certain to be in flight together.
	a.send(strings.Repeat("PUB orders.a _INBOX.me.1 1\r\nx\r\n", 5))
	refused := 0
	for range 2 {
		l := a.want("MSG _INBOX.me.1 1 ")
		if body := a.line(); strings.Contains(body, `"err_code":40504`) && strings.Contains(body, `"rule":"limit counts"`) && strings.Contains(body, `"retryAfterMs":20`) {
			refused++
		} else {
			t.Errorf("%s%s", l, body)
		}
	}
	if refused != 2 {
		t.Fatalf("%d of 5 were refused, want 2", refused)
	}
	counted(0) // all three were answered by the server
	b.send("PUB orders.a _INBOX.me.2 1\r\nx\r\n")
	counted(0)
	close(gate)
}

// holding is a Barrier that holds until it is closed.
type holding chan struct{}

func (h holding) Wait(ctx context.Context) error {
	select {
	case <-h:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestFlightsSettle: every way in which a publish stops counting, and each once.
func TestFlightsSettle(t *testing.T) {
	of := new(usage)
	f, g := &flights{of: of}, &flights{of: of}
	now := time.Now()
	enter := func(f *flights, reply string) {
		t.Helper()
		if _, ok := f.Enter(4); !ok {
			t.Fatal("refused")
		}
		f.settle(true, []byte(reply), now)
	}
	is := func(want int64) {
		t.Helper()
		if got := of.inFlight.Load(); got != want {
			t.Fatalf("%d in flight, want %d", got, want)
		}
	}
	enter(f, "a")
	enter(f, "a") // the same reply subject for two
	enter(f, "b")
	enter(g, "c")
	if n, ok := f.Enter(4); ok || n != 5 {
		t.Fatalf("the fifth: %d, %v", n, ok)
	}
	f.settle(false, nil, now)
	is(4)
	for range 3 { // one more than there are
		f.answered([]byte("a"))
	}
	f.answered([]byte("x"))
	is(2)
	if _, ok := f.Enter(4); !ok {
		t.Fatal("refused")
	}
	is(3)
	f.settle(false, nil, now) // refused by something else
	f.settle(false, nil, now)
	is(2)
	now = now.Add(-flightTTL)
	enter(f, "old")
	is(3)
	f.sweep()
	is(2)
	g.close()
	is(1)
	f.close()
	is(0)
	f.answered([]byte("b"))
	is(0)
	enter(f, "after") // the reader may have one in hand; nothing comes again by itself
	f.close()
	is(0)
	if f.timer != nil && f.timer.Stop() {
		t.Error("a timer runs after the end")
	}
}

// TestOwnInboxIsNotCounted: docs/spec/policy.md says so of match.
func TestOwnInboxIsNotCounted(t *testing.T) {
	w := limited(t, "messages: 1/h, burst: 1h")
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.me.* 1\r\nPUB orders.a 1\r\nx\r\nPUB orders.a 1\r\nx\r\n")
	if l := r.want("-ERR"); !strings.Contains(l, "limit counts") {
		t.Fatal(l)
	}
	r.send(strings.Repeat("PUB _INBOX.me.1 1\r\nx\r\n", 3))
	for range 3 {
		_ = r.want("MSG _INBOX.me.1 1 ")
		_ = r.line()
	}
}
