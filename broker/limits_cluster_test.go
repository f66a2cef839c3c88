package broker_test

import (
	"slices"
	"testing"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client/admin"
)

// TestClusterThrottledAtAllNodes: whichever node is asked tells who was refused because of
// a limit at which node, and which node it could not ask.
func TestClusterThrottledAtAllNodes(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Change: quickDrain, Policy: `tenant: shop
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 1MiB}]
limits: {few: {subscriptions: 2}}
principals:
  - {name: reader, identities: [{nkey: '{{nkey "reader"}}'}], subscribe: [orders.>], limit: few}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [status]}
`})
	for _, i := range []int{0, 2} { // the counts are of each node
		nc := connect(t, c.Nodes[i], "reader")
		for range 3 {
			_ = must(nc.SubscribeSync("orders.x"))(t)
		}
		check(t, nc.Flush())
	}
	root := c.Nodes[1].Client("root")
	defer root.Close()
	var nodes []string
	var list *admin.ThrottleList
	eventually(t, "both nodes tell of it", func() bool {
		var err error
		if list, err = admin.Throttled(within(t), admin.New(root)); err != nil {
			t.Logf("asked again: %v", err)
			return false
		}
		nodes = nil
		for _, row := range list.Throttled {
			if row.Principal == "shop/reader" && row.Rule == "limit few" && row.Refused == 1 {
				nodes = append(nodes, row.Node)
			}
		}
		slices.Sort(nodes)
		return slices.Equal(nodes, []string{nodeName(0), nodeName(2)})
	})
	if len(list.Without) > 0 || len(list.Throttled) != 2 {
		t.Errorf("got %+v", list)
	}
	c.Stop(2)
	eventually(t, "the node that is gone is named", func() bool {
		list, err := admin.Throttled(within(t), admin.New(root))
		return err == nil && len(list.Throttled) == 1 && list.Throttled[0].Node == nodeName(0) && list.Without[nodeName(2)] != ""
	})
}
