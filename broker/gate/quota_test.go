package gate

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// TestPrincipalConnectionsAreAShare: one principal can not have all connections, and
// gets one back when it closes one.
func TestPrincipalConnectionsAreAShare(t *testing.T) {
	if got := (Config{Limits: Limits{Connections: 9}}).withDefaults().Limits.PrincipalConnections; got != 4 {
		t.Errorf("default of 9: %d", got)
	}
	if got := (Config{Limits: Limits{Connections: 1}}).withDefaults().Limits.PrincipalConnections; got != 1 {
		t.Errorf("default of 1: %d", got)
	}
	w := newWorld(t, func(c *Config, _ *Deps) { c.Limits.PrincipalConnections = 3 })
	var open []*nats.Conn
	for range 3 {
		open = append(open, w.connect("writer"))
	}
	for range 3 {
		_, err := w.tryConnect("writer")
		if err == nil || !strings.Contains(err.Error(), nats.MAX_CONNECTIONS_ERR) {
			t.Fatalf("the fourth: %v", err)
		}
	}
	check(t, w.connect("reader").Flush())
	if got := w.gate.Stats().TurnedAway; got["gate.maxConnectionsPerPrincipal"] != 3 || len(got) != int(aways) {
		t.Errorf("turned away: %v", got)
	}
	open[0].Close()
	w.until("the share is given back", func() bool {
		nc, err := w.tryConnect("writer")
		if err == nil {
			nc.Close()
		}
		return err == nil
	})
	w.until("all that were refused have given theirs back", func() bool {
		w.gate.mu.Lock()
		defer w.gate.mu.Unlock()
		return w.gate.shares["shop/writer"].connections == 2
	})
	w.sink.mu.Lock()
	defer w.sink.mu.Unlock()
	if want := wire.CodeConnectionLimited.String() + " connect"; len(w.sink.refused) < 3 || w.sink.refused[0] != want {
		t.Errorf("audit: %q", w.sink.refused)
	}
}

// TestShortMemoryRefusesNewConnections: whoever is in stays in and is served, whoever
// is not is told which limit it is, and is let in when there is memory again.
func TestShortMemoryRefusesNewConnections(t *testing.T) {
	var short atomic.Bool
	w := newWorld(t, func(_ *Config, d *Deps) {
		d.Memory = func() error {
			if short.Load() {
				return errors.New("9 of 8 MiB in use")
			}
			return nil
		}
	})
	early := w.connect("writer")
	short.Store(true)
	for range 2 {
		if _, err := w.tryConnect("reader"); err == nil || !strings.Contains(err.Error(), "gate.maxMemory") {
			t.Fatalf("while memory is short: %v", err)
		}
	}
	check(t, early.Flush())
	if got := w.gate.Stats().TurnedAway; got["gate.maxMemory"] != 2 || got["gate.maxConnections"] != 0 {
		t.Errorf("turned away: %v", got)
	}
	w.sink.mu.Lock()
	if want := wire.CodeUnavailable.String() + " connect"; len(w.sink.refused) != 2 || w.sink.refused[0] != want {
		t.Errorf("audit: %q", w.sink.refused)
	}
	w.sink.mu.Unlock()
	short.Store(false)
	check(t, w.connect("reader").Flush())
}

// TestAPIRateIsPerPrincipal: requests to the JetStream API spend a bucket that all
// connections of a principal share; fetches have their own; acks are free.
func TestAPIRateIsPerPrincipal(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *Deps) { c.Limits.APIRate, c.Limits.APIReadRate = 0.01, 0.01 })
	a, b := w.login("reader", quiet), w.login("reader", quiet)
	for _, r := range []*raw{a, b} {
		r.send("SUB _INBOX.me.* 1\r\n")
		r.pong()
	}
	info := "PUB $JS.API.STREAM.INFO.ORDERS _INBOX.me.1 0\r\n\r\n"
	answer := func(r *raw, send string) string {
		r.t.Helper()
		r.send(send)
		head := r.line()
		for strings.HasPrefix(head, "INFO ") || head == "PING" {
			head = r.line()
		}
		if strings.HasPrefix(head, "-ERR") {
			return head
		}
		return head + r.line()
	}
	if got := answer(a, info); strings.Contains(got, `"error"`) {
		t.Errorf("the first: %.300s", got)
	}
	for _, r := range []*raw{a, b} { // a burst of one, spent by a
		got := answer(r, info)
		for _, want := range []string{`"err_code":40500`, `"rule":"gate.apiRate"`, `"retryAfterMs":`} {
			if !strings.Contains(got, want) {
				t.Errorf("no %s in %.600s", want, got)
			}
		}
	}
	// What the guard denies is charged too.
	if got := answer(b, "PUB $JS.API.STREAM.DELETE.ORDERS _INBOX.me.1 0\r\n\r\n"); !strings.Contains(got, "40500") {
		t.Errorf("denied request: %.300s", got)
	}
	// So is the admin API.
	if got := answer(b, "PUB $SIGNET.API.keys.ring _INBOX.me.1 0\r\n\r\n"); !strings.Contains(got, `"rule":"gate.apiRate"`) {
		t.Errorf("admin request: %.300s", got)
	}
	// Fetches: a burst of one, for both connections.
	pull := "PUB $JS.API.CONSUMER.MSG.NEXT.ORDERS.nobody _INBOX.me.1 0\r\n\r\n"
	limited := 0
	for i := range 8 {
		r := []*raw{a, b}[i%2]
		r.send(pull)
		if l := r.want("HMSG _INBOX.me.1 1 "); l == "" {
			t.Fatal("no answer")
		}
		status := r.line()
		if strings.HasPrefix(status, "NATS/1.0 429 40500 RateLimited: ") && strings.Contains(status, "gate.apiReadRate") {
			limited++
		} else if !strings.HasPrefix(status, "NATS/1.0 400 ") {
			t.Errorf("got %q", status)
		}
		r.line() // the end of the block
		r.line() // of the message
	}
	if limited != 7 {
		t.Errorf("%d of 8 fetches were over the limit", limited)
	}
	// Acks cost nothing: they are refused here for what they are.
	for i := range 20 {
		got := answer(a, fmt.Sprintf("PUB $JS.ACK.ORDERS.nobody.1.%d.1.1.0 4\r\n+ACK\r\n", i+1))
		if !strings.HasPrefix(got, "-ERR") || strings.Contains(got, "40500") {
			t.Errorf("ack: %q", got)
		}
	}
	// Nobody else is touched, and a reload does not refill.
	w.gate.Reload(w.set)
	if got := answer(b, info); !strings.Contains(got, "40500") {
		t.Errorf("after a reload: %.300s", got)
	}
	if _, err := w.jetstream("narrow").Stream(w.ctx(), "ORDERS"); err != nil {
		t.Errorf("another principal: %v", err)
	}
	unlimited := newWorld(t, func(c *Config, _ *Deps) { c.Limits.APIRate, c.Limits.APIReadRate = -1, -1 })
	r := unlimited.login("reader", quiet)
	r.send("SUB _INBOX.me.* 1\r\n" + strings.Repeat(info, 1000))
	for range 1000 {
		r.want("MSG _INBOX.me.1 1 ")
		if l := r.line(); strings.Contains(l, `"error"`) {
			t.Fatal(errors.New(l))
		}
	}
}

// TestTenantConnectionsAreAShare: the quota of a tenant counts all of its principals,
// those of another tenant not, and gives back what is closed.
func TestTenantConnectionsAreAShare(t *testing.T) {
	g := &Gate{shares: map[string]*usage{}, conns: map[*conn]struct{}{}, gone: make(chan struct{}, 1)}
	g.cfg.Limits.PrincipalConnections = 2
	text := "tenant: shop\nquota: {connections: 3}\nprincipals: [{name: a}, {name: b}]\n---\ntenant: mill\nprincipals: [{name: a}]\n"
	bundle, err := policy.Parse("p.yaml", []byte(text))
	check(t, err)
	set, err := policy.Compile(bundle)
	check(t, err)
	var conns []*conn
	for i, step := range []struct{ who, full string }{
		{"shop/a", ""}, {"shop/a", ""}, {"shop/a", "principal"}, {"shop/b", ""}, {"shop/b", "tenant"}, {"mill/a", ""}, {"mill/a", ""},
	} {
		c := &conn{}
		full := ""
		if r := g.enroll(c, set.PrincipalByFullName(step.who)); r != nil {
			full = strings.Fields(r.Detail)[1]
		}
		if full != step.full {
			t.Fatalf("step %d: %s is full by %q, want %q", i, step.who, full, step.full)
		}
		conns = append(conns, c)
	}
	g.forget(conns[0])
	if r := g.enroll(&conn{}, set.PrincipalByFullName("shop/b")); r != nil {
		t.Errorf("the share is not given back: %v", r)
	}
}
