package admission

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

const limitsPolicy = `
tenant: shop
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 1MiB, unsafeSchedules: true}]
ephemeral: [telemetry.>]
kv: [{bucket: config, maxBytes: 1MiB}]
limit: polite
limits:
  polite: {inFlight: 3}
  slow: {messages: 4/s, burst: 1s, match: orders.slow.>}
  slower: {messages: 1/s, burst: 4s, match: orders.*.both}
  hot: {per: tenant, messages: 8/m, burst: 1m, match: orders.slow.>}
  paid: {per: tenant, types: [order.paid, com.acme.*], messages: 2/m, burst: 1m}
  sized: {bytes: 64B/s, burst: 1s, match: orders.sized}
  callers: {calls: 2/m, burst: 1m}
  all: {messages: 3/m, burst: 1m, match: rpc.>, exceed: wait}
  small: {payload: 4B, match: orders.small}
  watched: {payload: 2B, messages: 1/m, burst: 1m, match: orders.watched, mode: audit}
  calm: {inFlight: 1, mode: audit}
principals:
  - name: checkout
    identities: [{nkey: %s}]
    publish: [orders.>, telemetry.>]
    call: [inventory.reserve]
    kv: {write: [config]}
    headers: [Nats-Schedule, Nats-Schedule-Target]
    limit: [slow, slower, sized, callers, all, small, watched, calm]
  - {name: other, publish: [orders.>], types: ["*"]}
`

// as is a publish of another principal on a connection of its own.
func (f *fixture) as(principal, subject string, lines ...string) *wire.Refusal {
	s := f.chain.Session(f.session.p.Tenant.Principal(principal))
	s.Begin(start)
	defer s.release()
	return s.Publish(&Publish{Subject: []byte(subject), Header: block(lines...)})
}

func (f *fixture) admits(n int, subject string, lines ...string) {
	f.t.Helper()
	for i := range n {
		if r, _ := f.one(subject, "x", lines...); r != nil {
			f.t.Fatalf("%s, publish %d of %d: %v", subject, i+1, n, r)
		}
	}
}

func (f *fixture) limited(rule, subject string, lines ...string) *wire.Refusal {
	f.t.Helper()
	r, frame := f.one(subject, "x", lines...)
	if code(r) != wire.CodeRateLimited || r.Rule != rule || r.RetryAfter <= 0 || frame != "" {
		f.t.Fatalf("%s: got %v and %q, want rule %s", subject, r, frame, rule)
	}
	return r
}

// TestLimitsTakeFromAllOrNone: a publish that one limit refuses costs nothing in the
// others, in whatever order they stand.
func TestLimitsTakeFromAllOrNone(t *testing.T) {
	f := newFixtureOf(t, limitsPolicy)
	f.admits(4, "orders.slow.a")
	for range 20 { // each would take from hot, which all principals share
		_ = f.limited("limit slow", "orders.slow.a")
	}
	for i := range 4 {
		if r := f.as("other", "orders.slow.a"); r != nil {
			t.Fatalf("the limit of the tenant lost what another one has refused: publish %d: %v", i+5, r)
		}
	}
	if r := f.as("other", "orders.slow.a"); code(r) != wire.CodeRateLimited || r.Rule != "limit hot" {
		t.Errorf("got %v, want limit hot", r)
	}
}

// TestTightestLimitAnswers: of those that refuse, the one with the longest wait.
func TestTightestLimitAnswers(t *testing.T) {
	f := newFixtureOf(t, limitsPolicy)
	f.admits(4, "orders.slow.both") // spends slow and slower
	if r := f.limited("limit slower", "orders.slow.both"); r.RetryAfter != time.Second || r.Remaining != 0 {
		t.Errorf("retry after %v with %d left, want 1s and 0", r.RetryAfter, r.Remaining)
	}
	f.admits(9, "orders.free") // has none of them
}

// TestLimitsOfTypes: however an event says its type, and whoever sends it.
func TestLimitsOfTypes(t *testing.T) {
	for name, second := range map[string]func(f *fixture) (*wire.Refusal, string){
		"binary": func(f *fixture) (*wire.Refusal, string) { return f.one("orders.a", "x", "ce-type: com.acme.x") },
		"structured": func(f *fixture) (*wire.Refusal, string) {
			return f.one("orders.a", `{"specversion":"1.0","id":"1","source":"/shop/checkout","type":"order.paid"}`, "Content-Type: application/cloudevents+json")
		},
		"by default": func(f *fixture) (*wire.Refusal, string) { return f.one("orders.a", "x") },
	} {
		t.Run(name, func(t *testing.T) {
			text := limitsPolicy
			if name == "by default" { // the type of an event that says none is its subject
				text = strings.Replace(text, "types: [order.paid,", "types: [orders.a, order.paid,", 1)
			}
			f := newFixtureOf(t, text)
			f.admits(1, "orders.b", "ce-type: order.paid")
			if r, _ := second(f); r != nil {
				t.Fatal(r)
			}
			if r, frame := second(f); code(r) != wire.CodeRateLimited || r.Rule != "limit paid" || frame != "" {
				t.Errorf("got %v and %q, want limit paid", r, frame)
			}
			f.admits(2, "orders.b", "ce-type: order.created")
			if r := f.as("other", "orders.c", "ce-type: com.acme.y"); code(r) != wire.CodeRateLimited || r.Rule != "limit paid" {
				t.Errorf("another principal: %v, want limit paid", r)
			}
			// What the limit of the type refuses takes nothing from the rates of the subject.
			for range 9 {
				_ = f.limited("limit paid", "orders.slow.t", "ce-type: com.acme.x")
			}
			f.admits(4, "orders.slow.t", "ce-type: order.created")
			// Nor the other way round: slow is spent, and the minute of paid goes on.
			_ = f.limited("limit paid", "orders.slow.t", "ce-type: com.acme.x")
		})
	}
}

func TestLimitsOfBytesSayWhatIsLeft(t *testing.T) {
	f := newFixtureOf(t, limitsPolicy)
	if r, _ := f.one("orders.sized", strings.Repeat("x", 40)); r != nil {
		t.Fatal(r)
	}
	r, _ := f.one("orders.sized", strings.Repeat("x", 40))
	if code(r) != wire.CodeByteRateLimited || r.Rule != "limit sized" || r.Remaining != 24 || r.RetryAfter != 250*time.Millisecond {
		t.Fatalf("got %v with %d left, want 24 bytes and 250ms", r, r.Remaining)
	}
	problem := string(r.Answer("", false))
	if !strings.Contains(problem, `"remaining":24`) || !strings.Contains(problem, `"retryAfterMs":250`) {
		t.Errorf("the answer does not say so: %s", problem)
	}
	f.admits(24, "orders.sized") // of one byte each
	if r, _ = f.one("orders.sized", "x"); code(r) != wire.CodeByteRateLimited || !strings.Contains(string(r.Answer("", false)), `"remaining":0`) {
		t.Errorf("nothing left must be said too: %s", r.Answer("", false))
	}
}

func TestLimitsOfCalls(t *testing.T) {
	f := newFixtureOf(t, limitsPolicy)
	f.admits(2, "rpc.inventory.reserve")
	_ = f.limited("limit callers", "rpc.inventory.reserve")
	if f.session.Rejection().MayWait {
		t.Error("limit callers rejects, so nothing may wait")
	}
	f.admits(5, "orders.a") // is no call
}

// TestWaitNeedsAllToWait: what one limit would hold and another one rejects is rejected.
func TestWaitNeedsAllToWait(t *testing.T) {
	f := newFixtureOf(t, strings.Replace(limitsPolicy, "callers: {calls: 2/m, burst: 1m}", "callers: {calls: 2/m, burst: 1m, exceed: wait}", 1))
	f.admits(2, "rpc.inventory.reserve")
	_ = f.limited("limit callers", "rpc.inventory.reserve")
	if !f.session.Rejection().MayWait {
		t.Error("each limit that refuses says wait")
	}
}

func TestLimitsOfPayload(t *testing.T) {
	f := newFixtureOf(t, limitsPolicy)
	if r, _ := f.one("orders.small", "12345"); code(r) != wire.CodePayloadTooLarge || r.Rule != "limit small" {
		t.Errorf("got %v", r)
	}
	if r, _ := f.one("orders.small", "1234"); r != nil {
		t.Error(r)
	}
}

// TestLimitsInAuditCount: once for each publish and bound, and nothing is refused or spent.
func TestLimitsInAuditCount(t *testing.T) {
	f := newFixtureOf(t, limitsPolicy)
	f.admits(3, "orders.watched") // the first is within the rate
	if r, _ := f.one("orders.watched", "123"); r != nil {
		t.Fatal(r)
	}
	for i := range f.session.p.Limits {
		if l := &f.session.p.Limits[i]; l.Name == "watched" && l.Spare.Load() != 4 {
			t.Errorf("%d counted, want 3 over the rate and 1 over the size", l.Spare.Load())
		}
	}
}

// TestPlansAreChargedWithTheirTarget: all or none of both.
func TestPlansAreChargedWithTheirTarget(t *testing.T) {
	f := newFixtureOf(t, limitsPolicy)
	plan := []string{"Nats-Schedule: @at 2100-01-01T00:00:00Z", "Nats-Schedule-Target: orders.slow.a"}
	f.admits(4, "orders.plan", plan...)
	_ = f.limited("limit slow", "orders.plan", plan...)
	_ = f.limited("limit slow", "orders.slow.a")
}

// flights is a Flights that counts.
type flights struct{ n int }

func (f *flights) Enter(most int) (int, bool) {
	if most > 0 && f.n >= most {
		return f.n + 1, false
	}
	f.n++
	return f.n, true
}

func TestLimitsInFlight(t *testing.T) {
	f := newFixtureOf(t, limitsPolicy)
	up := &flights{}
	send := func(subject, reply string) *wire.Refusal {
		f.session.Begin(start)
		defer f.session.release()
		return f.session.Publish(&Publish{Subject: []byte(subject), Reply: []byte(reply), Flights: up})
	}
	for _, subject := range []string{"orders.a", "$KV.config.key", "orders.slow.a"} {
		if r := send(subject, "_INBOX.s.r"); r != nil {
			t.Fatal(r)
		}
	}
	for _, subject := range []string{"orders.b", "orders.slow.a"} {
		if r := send(subject, "_INBOX.s.r"); code(r) != wire.CodeInFlightLimited || r.Rule != "limit polite" || r.RetryAfter <= 0 {
			t.Fatalf("got %v", r)
		}
	}
	// Nobody waits for an acknowledgement of these, and what was refused took no tokens.
	for _, subject := range []string{"telemetry.a", "rpc.inventory.reserve"} {
		if r := send(subject, "_INBOX.s.r"); r != nil {
			t.Error(r)
		}
	}
	for range 3 {
		if r := send("orders.slow.a", ""); r != nil {
			t.Error(r)
		}
	}
	for i := range f.session.p.Limits {
		if l := &f.session.p.Limits[i]; l.Name == "calm" && l.Spare.Load() != 4 {
			t.Errorf("the limit in audit counted %d, want 4: two in flight beside the first, and two refused", l.Spare.Load())
		}
	}
}

func limitedPublishes() (p, h *Publish) {
	return &Publish{Subject: []byte("orders.slow.both"), Reply: []byte("_INBOX.s.r"), Payload: bytes.Repeat([]byte("x"), 256)},
		&Publish{Subject: []byte("orders.slow.both"), Header: block("ce-id: 1", "ce-type: com.acme.order", "content-type: text/plain"), Payload: []byte("x")}
}

// fastPolicy is limitsPolicy with rates that nobody reaches.
func fastPolicy() string {
	return strings.NewReplacer("4/s", "1000000000/s", "1/s", "1000000000/s", "8/m", "1000000000/s", "2/m", "1000000000/s", "inFlight: 3", "inFlight: 1000000", "1/m", "1000000000/s", "calm: {inFlight: 1,", "calm: {inFlight: 999999,").Replace(limitsPolicy)
}

// TestLimitsDoNotAllocate is TestPublishDoesNotAllocate with four limits on each event.
func TestLimitsDoNotAllocate(t *testing.T) {
	f := newFixtureOf(t, fastPolicy())
	up := &flights{}
	p, h := limitedPublishes()
	p.Flights, h.Flights = up, up
	var out []byte
	run := func() {
		up.n = 0
		f.session.Begin(start)
		for range 32 {
			for _, one := range [...]*Publish{p, h} {
				if r := f.session.Publish(one); r != nil {
					t.Fatal(r)
				}
			}
		}
		out = f.session.Flush(out[:0])
	}
	run()
	const most = 6.4 // 0.1 for each of 64 events
	if n := testing.AllocsPerRun(50, run); n > most && !raceEnabled {
		t.Errorf("%.1f allocations for 64 events, want at most %.1f", n, most)
	}
}

// BenchmarkLimits is what the limits alone cost: one, and four of which one is by type.
func BenchmarkLimits(b *testing.B) {
	for name, subject := range map[string]string{"one": "orders.sized", "four": "orders.slow.both"} {
		b.Run(name, func(b *testing.B) {
			f := newFixtureOf(b, strings.Replace(fastPolicy(), "64B/s", "1GiB/s", 1))
			f.session.Begin(start)
			rt, r := f.session.resolve(subject)
			if r != nil {
				b.Fatal(r)
			}
			eventType := []byte("order.paid")
			b.ReportAllocs()
			now := start
			for b.Loop() {
				now = now.Add(time.Microsecond)
				f.session.now = now
				if r := f.session.charge(rt, rt, eventType, 256); r != nil {
					b.Fatal(r)
				}
			}
		})
	}
}
