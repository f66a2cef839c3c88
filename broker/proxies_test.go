package broker_test

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
)

// proxyDialer sends a header of the PROXY protocol before anything else.
type proxyDialer struct{ client net.IP }

func (d proxyDialer) Dial(network, address string) (net.Conn, error) {
	nc, err := net.Dial(network, address)
	if err != nil {
		return nil, err
	}
	header := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11"), 0, 12)
	header = append(append(header, d.client.To4()...), 192, 0, 2, 1)
	header = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(header, 4711), 4222)
	_, err = nc.Write(header)
	return nc, err
}

// TestTrustedProxy: behind a listed proxy the log and the record have the client's own
// address, over TLS as well; whoever is not listed cannot give himself one.
func TestTrustedProxy(t *testing.T) {
	var log logBuffer
	through := proxyDialer{net.IPv4(203, 0, 113, 9)}
	b := newBroker(t, logTo(&log), func(o *brokertest.Options) {
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Gate.TrustedProxies = []string{"127.0.0.1"}
		}
	})
	nc := connect(t, b, "writer", nats.SetCustomDialer(through))
	if ip := must(nc.GetClientIP())(t); !ip.Equal(through.client) {
		t.Errorf("it is told that it is %v", ip)
	}
	if _, err := nats.Connect(b.URL(), nats.Secure(b.TLS()), nats.SetCustomDialer(through), nats.NoReconnect()); err == nil {
		t.Fatal("connected without a credential")
	}
	eventually(t, "the refused login has the client's address", func() bool { return strings.Contains(log.String(), `"remote":"203.0.113.9:4711"`) })

	open := newBroker(t)
	seed := must(nats.NkeyOptionFromSeed(open.Cred("writer")))(t)
	if nc, err := nats.Connect(open.URL(), seed, nats.Secure(open.TLS()), nats.SetCustomDialer(through), nats.NoReconnect()); err == nil {
		nc.Close()
		t.Error("a header was read from who is not listed")
	}
	for _, bad := range []string{"x", "127.0.0.1/8", "0.0.0.0/0", "::/0", "fe80::1%eth0", "10.0.0.0/33"} {
		cfg := must(broker.LoadConfig(open.State.Config, nil))(t)
		cfg.Gate.TrustedProxies = []string{bad}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "gate.trustedProxies") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
