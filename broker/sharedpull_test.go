package broker_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// TestPullOfALostShare: a pull request that waits at a shared consumer brings nothing any
// more when its sender has lost the share, by a pull nor by +NXT. Its client reconnects.
func TestPullOfALostShare(t *testing.T) {
	const pull = `{"batch":9,"expires":600000000000}`
	shared := edit(t, shopPolicy, "publish: [orders.eu.>], subscribe: [orders.eu.>, telemetry.eu.>]", "publish: [orders.eu.>], subscribe: [orders.eu.>, telemetry.eu.>], consumers: [ORDERS.wide]")
	for _, next := range []bool{false, true} {
		b := newBroker(t)
		reload(t, b, shared)
		back := make(chan struct{}, 1)
		narrow := connect(t, b, "narrow", reconnects, nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
		wide, writer := connect(t, b, "wide"), connect(t, b, "writer")
		if p, _ := wide.ask(t, "$JS.API.CONSUMER.CREATE.ORDERS.wide", consumerRequest("ORDERS", map[string]any{"name": "wide", "ack_policy": "explicit", "inactive_threshold": time.Hour})); p != nil {
			t.Fatal(p)
		}
		waiting := func() int {
			var info struct {
				Waiting int `json:"num_waiting"`
			}
			check(t, json.Unmarshal(must(wide.Request("$JS.API.CONSUMER.INFO.ORDERS.wide", nil, patience))(t).Data, &info))
			return info.Waiting
		}
		got := must(narrow.SubscribeSync("_INBOX.waits"))(t)
		check(t, narrow.PublishMsg(&nats.Msg{Subject: "$JS.API.CONSUMER.MSG.NEXT.ORDERS.wide", Reply: "_INBOX.waits", Data: []byte(pull)}))
		check(t, narrow.Flush())
		writer.publish(t, "orders.us.a", "while it is shared")
		first := must(got.NextMsg(patience))(t)
		if next {
			check(t, narrow.PublishMsg(&nats.Msg{Subject: first.Reply, Reply: "_INBOX.waits", Data: []byte("+NXT " + pull)}))
			check(t, narrow.Flush())
		}
		eventually(t, "the request waits", func() bool { return waiting() > 0 })
		reload(t, b, shopPolicy)
		writer.publish(t, "orders.us.b", "secret")
		select {
		case <-back:
		case <-time.After(patience):
			t.Fatal("the client has not come back")
		}
		eventually(t, "nothing waits any more", func() bool { return waiting() == 0 })
		writer.publish(t, "orders.us.c", "secret")
		check(t, narrow.Flush())
		if n, _, _ := got.Pending(); n != 0 {
			t.Errorf("%d events came after the share was taken away (+NXT: %v)", n, next)
		}
	}
}
