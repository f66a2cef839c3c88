package broker_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
)

const clusterLimitsPolicy = `
tenant: shop
ephemeral: [pulse.>]
limits:
  beat: {messages: 100/s, burst: 1s}
principals:
  - {name: sensor, identities: [{nkey: {{nkey "sensor"}}}], publish: [pulse.>], subscribe: [pulse.>], limit: beat}
`

// gauge is metric as a number.
func gauge(t *testing.T, b *brokertest.Broker, name string) float64 {
	t.Helper()
	return must(strconv.ParseFloat(metric(t, b, name), 64))(t)
}

// awaitRate waits until what is let in reaches 0.9 of the rate over three seconds.
func awaitRate(t *testing.T, what string, f *brokertest.Flood, rate float64) {
	t.Helper()
	const span = 3 * time.Second
	began := time.Now()
	tick := time.NewTicker(span)
	defer tick.Stop()
	from := f.Total()
	for range 20 {
		at := time.Now()
		<-tick.C
		now := f.Total()
		got := float64(now-from) / time.Since(at).Seconds()
		if from = now; got >= 0.9*rate {
			t.Logf("%s: %.0f a second, after %s", what, got, time.Since(began).Round(100*time.Millisecond))
			return
		}
		t.Logf("%s: %.0f a second", what, got)
	}
	t.Errorf("%s: never 0.9 of %v a second", what, rate)
}

// TestClusterLimits: a limit holds over all nodes, whichever of them the demand is at, and follows it.
func TestClusterLimits(t *testing.T) {
	const rate, burst = 100, 100
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterLimitsPolicy})
	var conns []*nats.Conn
	for _, n := range c.Nodes {
		conns = append(conns, n.NATS("sensor", nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})))
	}
	f := brokertest.NewFlood(t, "pulse.x", conns...)
	paces := func(list ...int) {
		for i, pace := range list {
			f.Pace(i, pace)
		}
	}
	paces(rate, rate, rate)
	awaitRate(t, "three times the rate, at all nodes", f, rate)
	paces(3*rate, 0, 0)
	awaitRate(t, "at one node", f, rate)
	eventually(t, "one node has the leases", func() bool {
		return gauge(t, c.Nodes[0], "signet_limit_shares") > 0.9 && gauge(t, c.Nodes[1], "signet_limit_shares")+gauge(t, c.Nodes[2], "signet_limit_shares") < 0.1
	})

	// What cannot be of another node is refused, and changes nothing.
	before := gauge(t, c.Nodes[0], "signet_limit_messages_refused_total")
	for _, text := range []string{
		`{"node":"n9","life":"a","number":1,"asks":[]}`, `{"node":"n1","life":"a","number":1,"asks":[]}`, `not JSON`,
	} {
		reply := must(broker.AskLimits(c.Nodes[0].Broker, text))(t)
		if !strings.Contains(reply, `"fault"`) {
			t.Errorf("%s is answered with %s", text, reply)
		}
	}
	if got := gauge(t, c.Nodes[0], "signet_limit_messages_refused_total") - before; got < 3 {
		t.Errorf("%v messages are counted as refused, want 3", got)
	}

	paces(0, 3*rate, rate)
	awaitRate(t, "at the two others", f, rate)
	paces(rate, rate, rate)
	awaitRate(t, "at all nodes again", f, rate)
	eventually(t, "ten seconds have passed", func() bool { _, window := f.Over(10, rate); return window != "" })
	f.Stop()
	beyond, window := f.Over(10, 1.05*rate)
	t.Logf("%d in all; at most %.0f beyond 1.05 of the rate: %s", f.Total(), beyond, window)
	if beyond > burst {
		t.Errorf("%.0f beyond 1.05 of the rate in %s, the burst is %d", beyond, window, burst)
	}
}
