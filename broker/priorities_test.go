package broker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/memguard"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const priorityPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
  - {name: SMALL, subjects: [small.>], maxBytes: 1MiB}
schemas: [{name: never, version: 1, text: '{"type":"object"}'}]
subjects: [{match: small.ask, schema: never, onFailure: [reject]}]
roles: {batch: {publish: [orders.>, small.>], priority: low}}
principals:
  - {name: low, identities: [{nkey: '{{nkey "low"}}'}], roles: [batch]}
  - {name: normal, identities: [{nkey: '{{nkey "normal"}}'}], publish: [orders.>, small.>]}
  - {name: high, identities: [{nkey: '{{nkey "high"}}'}], publish: [orders.>, small.>], priority: high}
`

func peers(t *testing.T, b *brokertest.Broker) (low, normal, high *peer) {
	return connect(t, b, "low"), connect(t, b, "normal"), connect(t, b, "high")
}

func shed(t *testing.T, what string, p *wire.Problem, says ...string) {
	t.Helper()
	if p.Code != wire.CodePriorityShed || p.RetryAfterMs != 1000 {
		t.Errorf("%s: %+v", what, p)
	}
	for _, s := range says {
		if !strings.Contains(p.Detail, s) {
			t.Errorf("%s: %q does not say %q", what, p.Detail, s)
		}
	}
}

// TestPrioritiesOnTheVolume: as the volume fills, low publishes are refused first, then
// normal ones, high ones last; each comes back only well below its mark.
func TestPrioritiesOnTheVolume(t *testing.T) {
	v := &volume{size: 1 << 40}
	v.used.Store(50)
	b := newBroker(t, onVolume(v), func(o *brokertest.Options) { o.Policy = priorityPolicy })
	low, normal, high := peers(t, b)
	x := []byte("x")
	taken := func(who ...*peer) {
		t.Helper()
		for _, p := range who {
			inForce(t, p, "orders.a", x, "")
		}
	}
	taken(low, normal, high)
	v.used.Store(86)
	shed(t, "low", inForce(t, low, "orders.a", x, "storage.softWatermark"), "86 %", "priority low", "from 85 %")
	taken(normal, high)
	v.used.Store(89)
	shed(t, "normal", inForce(t, normal, "orders.a", x, "storage.hardWatermark"), "89 %", "priority normal", "from 88.5 %")
	inForce(t, low, "orders.a", x, "storage.softWatermark")
	taken(high)
	v.used.Store(93) // and the hard mark is everybody's
	for _, p := range []*peer{high, normal, low} {
		if got := inForce(t, p, "orders.a", x, "storage.hardWatermark"); got.Code != wire.CodeUnavailable {
			t.Errorf("above the hard mark: %+v", got)
		}
	}
	v.used.Store(87) // below the mark of normal, and not below its hysteresis
	taken(high)
	shed(t, "normal within the hysteresis", inForce(t, normal, "orders.a", x, "storage.hardWatermark"))
	v.used.Store(86)
	taken(normal)
	shed(t, "low within the hysteresis", inForce(t, low, "orders.a", x, "storage.softWatermark"))
	v.used.Store(82)
	taken(low, normal, high)

	// Where nobody has priority high, nothing is kept back from the normal ones.
	reload(t, b, strings.Replace(priorityPolicy, ", priority: high", "", 1))
	v.used.Store(90)
	inForce(t, low, "orders.a", x, "storage.softWatermark")
	taken(normal, high)
}

// TestPrioritiesInAStream: the same near the maxBytes of a stream, for that stream only.
// What asks is refused for its schema where there is room, so that to ask fills nothing.
func TestPrioritiesInAStream(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = priorityPolicy })
	low, normal, high := peers(t, b)
	x := []byte("x")
	const room = "schema never@1"
	body := strings.Repeat("x", 32<<10) // 3.2 % of the stream, with its headers
	for i := range 26 {
		high.publish(t, fmt.Sprintf("small.%d", i), body)
	}
	shed(t, "low", inForce(t, low, "small.ask", x, "stream SMALL"), "stream SMALL is 8", "priority low", "from 80 %")
	inForce(t, normal, "small.ask", x, room)
	inForce(t, high, "small.ask", x, room)
	for range 5 {
		high.publish(t, "small.more", body)
	}
	shed(t, "normal", inForce(t, normal, "small.ask", x, "stream SMALL"), "stream SMALL is 9", "priority normal", "from 95 %")
	inForce(t, low, "small.ask", x, "stream SMALL")
	inForce(t, high, "small.ask", x, room)
	inForce(t, low, "orders.a", x, "") // another stream has room
	// There is room, and those that were shed come back.
	reload(t, b, strings.Replace(priorityPolicy, "maxBytes: 1MiB", "maxBytes: 2MiB", 1))
	inForce(t, low, "small.ask", x, room)
	inForce(t, normal, "small.ask", x, room)
}

// TestPrioritiesByMemory: near gate.maxMemory the same, and nobody is refused far below.
func TestPrioritiesByMemory(t *testing.T) {
	for most, want := range map[int64][3]bool{1: {true, true, false}, 1 << 50: {}} {
		m := memguard.New(most, nil)
		m.Start(context.Background())
		for i, p := range policy.Priorities {
			s := broker.ShedByMemory(m, p, true)
			if (s != nil) != want[i] || s != nil && (s.Rule != "gate.maxMemory" || s.Code != wire.CodePriorityShed || s.RetryAfter <= 0) {
				t.Errorf("%d bytes, priority %s: %+v", most, p, s)
			}
		}
		if s := broker.ShedByMemory(m, policy.PriorityNormal, false); s != nil {
			t.Errorf("%d bytes, nobody has priority high: %+v", most, s)
		}
		check(t, m.Shutdown(within(t)))
	}
}
