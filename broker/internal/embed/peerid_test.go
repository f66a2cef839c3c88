package embed

import "testing"

// TestPeerIDIsTheServers: the name that we work out for a node is the one that
// nats-server itself has for it. A node that is gone for good is removed by that name.
func TestPeerIDIsTheServers(t *testing.T) {
	for _, name := range []string{"n1", "n2", "test", "signet-0.signet.svc.cluster.local", "a-node_with.a.rather.long.name"} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *Config) { c.ServerName = name })
			if got, want := PeerID(name), s.ns.Node(); got != want || want == "" {
				t.Errorf("%q, nats-server says %q", got, want)
			}
		})
	}
}
