package broker_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

// TestClusterSchedules: firings go on while any one node is away, and none is published twice.
func TestClusterSchedules(t *testing.T) {
	policy := strings.Replace(clusterPolicy, "publish: [orders.>]}", "publish: [orders.>], headers: [Nats-Schedule-Cron]}", 1)
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: policy})
	_, err := client.SchedulesOf(c.Nodes[1].Client("writer")).Put(within(t), client.Schedule{
		Name: "beat", Spec: "@every 1s", NATSSubject: "orders.beat", Event: client.NewEvent("t", nil),
	})
	check(t, err)
	count := func(node int) (n uint64) {
		s, err := insideJS(t, c.Nodes[node], "shop").Stream(within(t), "ORDERS")
		if err == nil {
			n = s.CachedInfo().State.Msgs
		}
		return n // without a leader: later
	}
	for node := range c.Nodes {
		at := (node + 1) % 3
		eventually(t, "firings", func() bool { return count(at) > 0 })
		had := count(at)
		c.Stop(node)
		eventually(t, "firings without a node", func() bool { return count(at) >= had+2 })
		c.Start(node)
	}
	ids := map[string]bool{}
	s := must(insideJS(t, c.Nodes[0], "shop").Stream(within(t), "ORDERS"))(t)
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		var m *jetstream.RawStreamMsg
		eventually(t, "an event", func() bool {
			m, err = s.GetMsg(within(t), seq)
			return err == nil
		})
		id := m.Header.Get("ce-id")
		if ids[id] {
			t.Errorf("%s came before", id)
		}
		ids[id] = true
	}
}
