package broker_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/brokertest"
)

// TestFastBatchIsNotInFlight: most events of a fast batch are never answered; a limit on
// those in flight must not stop it. A single publish of the same principal counts.
func TestFastBatchIsNotInFlight(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) {
		o.Policy = strings.Replace(fmt.Sprintf(controlPolicy, strings.Join(rights, ", ")), "roles:\n", "limit: few\nlimits:\n  few: {inFlight: 2}\nroles:\n", 1)
	})
	p := connect(t, b, "able")
	inbox := nats.NewInbox()
	sub := must(p.SubscribeSync(inbox + ".>"))(t)
	const count = 20
	for i := 1; i <= count; i++ {
		op := 1 // one more; 0 begins, 2 ends
		switch i {
		case 1:
			op = 0
		case count:
			op = 2
		}
		check(t, p.PublishRequest("ctrl.fast", fmt.Sprintf("%s.uuid.100.fail.%d.%d.$FI", inbox, i, op), []byte("x")))
		if i == 1 {
			must(sub.NextMsg(patience))(t) // how many may be in flight
		}
	}
	for {
		var a answerOf
		m := must(sub.NextMsg(patience))(t)
		check(t, json.Unmarshal(m.Data, &a))
		if a.Error != nil {
			t.Fatalf("%s", m.Data)
		}
		if a.Stream == "" {
			continue // of the flow
		}
		if a.Count != count {
			t.Errorf("%d events are stored, want %d", a.Count, count)
		}
		return
	}
}
