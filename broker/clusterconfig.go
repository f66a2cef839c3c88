package broker

import (
	"maps"
	"net"
	"regexp"
	"slices"

	"github.com/signetbus/signet/signing"
)

// ClusterConfig makes a broker one node of a cluster of 3 or 5.
type ClusterConfig struct {
	// Name of the cluster, the same on all nodes: 1 to 64 of A-Z a-z 0-9 _ -.
	Name string `yaml:"name"`
	// Listen is host:port for the routes between nodes.
	Listen string `yaml:"listen"`
	// Nodes has the address (host:port) of every node's routes by the node's name, this
	// node's included: 3 or 5 of them, the same on all nodes.
	Nodes map[string]string `yaml:"nodes"`
	// TLS of the routes, both ends.
	TLS ClusterTLS `yaml:"tls"`
}

// ClusterTLS names the certificate with which a node shows itself to the others. It
// carries the URI name spiffe://<cluster>/node/<name>.
type ClusterTLS struct {
	Certificate string `yaml:"certificate"` // PEM chain
	Key         string `yaml:"key"`         // PEM private key, mode 0600 or stricter
	CA          string `yaml:"ca"`          // PEM, the authorities that issue nodes' certificates
}

var nodeNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

func (c *ClusterConfig) validate(all *Config, fail func(string, ...any)) {
	if !signing.ValidClusterName(c.Name) {
		fail("cluster.name %q: want 1 to 64 of A-Z a-z 0-9 _ -", c.Name)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		fail("cluster.listen: want host:port, got %q", c.Listen)
	}
	for key, v := range map[string]string{"certificate": c.TLS.Certificate, "key": c.TLS.Key, "ca": c.TLS.CA} {
		if v == "" {
			fail("cluster.tls.%s is required", key)
		}
	}
	if n := len(c.Nodes); n != 3 && n != 5 {
		fail("cluster.nodes: want 3 or 5 nodes, got %d: two cannot outvote each other, and four bear no more losses than three", n)
	}
	if _, ok := c.Nodes[all.Name]; !ok {
		fail("cluster.nodes does not have this node: name is %q, the nodes are %v", all.Name, slices.Sorted(maps.Keys(c.Nodes)))
	}
	at := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Nodes)) {
		addr := c.Nodes[name]
		if !nodeNames.MatchString(name) {
			fail("cluster.nodes: name %q: letters, digits, dash and underscore, at most 64", name)
		}
		host, port, err := net.SplitHostPort(addr)
		if err != nil || host == "" || port == "0" {
			fail("cluster.nodes.%s: want host:port, got %q", name, addr)
		}
		if other, twice := at[addr]; twice {
			fail("cluster.nodes: %s and %s have one address, %s", other, name, addr)
		}
		at[addr] = name
	}
	if all.Storage.Durability == DurabilityBarrier {
		fail("storage.durability: a cluster has no barrier, use sync-always")
	}
}

// size is how many nodes there are, 1 without a cluster.
func (c *Config) size() int {
	if c.Cluster == nil {
		return 1
	}
	return len(c.Cluster.Nodes)
}

// nodeNames are all nodes of the cluster, sorted.
func (c *Config) nodeNames() []string { return slices.Sorted(maps.Keys(c.Cluster.Nodes)) }
