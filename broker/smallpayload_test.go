package broker_test

import (
	"testing"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
)

// The embedded server takes more than clients may send; what they meet is the gate.
func TestClientsMeetTheLimitOfTheGate(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Change: func(c *broker.Config) { c.Gate.MaxPayload = 4096 }})
	c := b.NATS("app")
	defer c.Close()
	if got := c.MaxPayload(); got != 4096 {
		t.Errorf("the gate says max_payload %d, want 4096", got)
	}
}
