package embed

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/signetbus/signet/internal/wire"
)

// ErrNoQuorum: too few nodes of the cluster are in touch for it to decide anything.
var ErrNoQuorum = errors.New("embed: the cluster has no quorum")

const (
	// routePing finds a dead route sooner than nats-server's two minutes.
	routePing = 5 * time.Second
	// lameDuckGrace is between transferring leaders and shutting JetStream down. The
	// gate has drained by then, so nobody is left to wait for.
	lameDuckGrace = 100 * time.Millisecond
)

// ClusterConfig makes the server one node of a cluster. Routes are mutual TLS, never
// advertised to clients, and every node that joins has to show who it is.
type ClusterConfig struct {
	// Name of the cluster, the same on every node.
	Name string
	// Listen is host:port for routes.
	Listen string
	// Nodes are the addresses of all nodes by name, this one's included; others
	// connect to it there. Their number is the size that a quorum is counted from.
	Nodes map[string]string
	// TLS is for both ends of a route.
	TLS *tls.Config
	// Trust says of a node of Nodes why it must not be dialled, nil to dial it. It is
	// asked at the start and at every reload, which closes routes to those it refuses.
	Trust func(node string) error
	// Token returns what this node shows to the others. It is asked at the start and at
	// every reload.
	Token func() string
	// Admit judges a node that connects: the name and token that it shows, and its
	// certificate, which TLS has verified. It may be called from many goroutines.
	Admit func(node, token string, cert *x509.Certificate) error
}

func (c *ClusterConfig) validate(self string, fault func(string, ...any)) {
	if c.Name == "" || c.TLS == nil || c.Admit == nil || c.Token == nil || c.Trust == nil {
		fault("Cluster lacks Name, TLS, Token, Trust or Admit")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		fault("Cluster.Listen %q is not host:port", c.Listen)
	}
	if _, ok := c.Nodes[self]; !ok {
		fault("Cluster.Nodes does not have this node, %q", self)
	}
	for name, addr := range c.Nodes {
		if _, _, err := net.SplitHostPort(addr); err != nil || !serverName.MatchString(name) {
			fault("Cluster.Nodes: %q at %q", name, addr)
		}
	}
}

// apply sets the options. They are not rendered: text may end up in a log, and the
// token must not.
func (c *ClusterConfig) apply(o *server.Options, self string, gate *routeGate) error {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("%w: port of Cluster.Listen: %w", ErrConfig, err)
	}
	token := c.Token()
	o.Cluster = server.ClusterOpts{
		Name: c.Name, Host: host, Port: n, Advertise: c.Nodes[self], NoAdvertise: true,
		Username: self, Password: token, TLSConfig: c.TLS, TLSTimeout: 5, AuthTimeout: 8,
		ConnectRetries: 0, PingInterval: routePing, MaxPingsOut: maxPingsOut, WriteDeadline: writeDeadline,
		Compression: server.CompressionOpts{Mode: server.CompressionOff},
	}
	o.CustomRouterAuthentication = gate
	o.LameDuckDuration, o.LameDuckGracePeriod = time.Second, lameDuckGrace
	for _, name := range slices.Sorted(maps.Keys(c.Nodes)) {
		if name == self {
			continue
		}
		if err := c.Trust(name); err != nil {
			gate.log.Errorf("no route to %s: %v", name, err)
		} else {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats-route", User: url.UserPassword(self, token), Host: c.Nodes[name]})
		}
	}
	// In the order that a reload sorts them into: it does so in place, while the
	// goroutines that dial read the same slice.
	slices.SortFunc(o.Routes, func(a, b *url.URL) int { return cmp.Compare(a.String(), b.String()) })
	return nil
}

// routeGate is what nats-server asks about every node that connects.
type routeGate struct {
	self  string
	admit func(node, token string, cert *x509.Certificate) error
	log   *logger
}

// Check admits a node, or says in the log why not: the other side only sees its
// connection closed.
func (g *routeGate) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	err := g.judge(c, o.Username, o.Password)
	if err != nil {
		g.log.Errorf("route from %v refused: %v", c.RemoteAddress(), err)
	}
	return err == nil
}

func (g *routeGate) judge(c server.ClientAuthentication, node, token string) error {
	if c.Kind() != server.ROUTER {
		return fmt.Errorf("%w: not a route", ErrConfig)
	}
	state := c.GetTLSConnectionState()
	switch {
	case state == nil || len(state.PeerCertificates) == 0:
		return errors.New("it shows no certificate")
	case node == g.self:
		return fmt.Errorf("a second node calls itself %q: every node needs a name of its own", node)
	}
	return g.admit(node, token, state.PeerCertificates[0])
}

// ClusterPeer is one node as the leader of the cluster sees it, or as this node does
// when it is not in touch with one.
type ClusterPeer struct {
	Name    string        `json:"name"`
	Current bool          `json:"current,omitempty"` // has everything that was decided
	Online  bool          `json:"online,omitempty"`  // was heard of lately
	Active  time.Duration `json:"active,omitempty"`  // since it was heard of
	Lag     uint64        `json:"lag,omitempty"`     // decisions behind
}

// Whole reports whether the peer is in touch and has everything that was decided.
func (p *ClusterPeer) Whole() bool { return p.Current && p.Online && p.Lag == 0 }

// ClusterState is this node's view of its cluster.
type ClusterState struct {
	Name   string        `json:"name"`
	Self   string        `json:"self"`
	Leader string        `json:"leader,omitempty"` // of the cluster's own log; empty: none is known
	Size   int           `json:"size"`             // members by the cluster's log
	Peers  []ClusterPeer `json:"peers,omitempty"`  // of them, those that are known; without this node where there is a leader
	Rescue bool          `json:"rescue,omitempty"` // the quorum is lowered for a while

	Nodes   int      `json:"nodes"`             // by the configuration
	Missing []string `json:"missing,omitempty"` // nodes of the configuration that are not connected
	Current bool     `json:"current,omitempty"` // a leader is known, and what it has decided is here
}

// Cluster returns this node's view; nil on a server by itself.
func (s *Server) Cluster() *ClusterState {
	if s.cfg.Cluster == nil {
		return nil
	}
	c := s.cfg.Cluster
	st := &ClusterState{
		Name: c.Name, Self: s.cfg.ServerName, Nodes: len(c.Nodes),
		Current: s.ns.JetStreamIsLeader() || s.ns.JetStreamIsCurrent(),
	}
	js, err := s.ns.Jsz(&server.JSzOptions{})
	if err == nil && js.Meta != nil {
		st.Leader, st.Size, st.Rescue = js.Meta.Leader, js.Meta.Size, js.Meta.Rescue
		for _, p := range js.Meta.Replicas {
			st.Peers = append(st.Peers, peerOf(s, p))
		}
	}
	// nats-server calls a node current that has lost its leader, as long as it had
	// everything that this leader decided.
	st.Current = st.Current && st.Leader != ""
	connected := map[string]bool{st.Self: true}
	if z, err := s.ns.Routez(nil); err == nil {
		for _, r := range z.Routes {
			connected[r.RemoteName] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Nodes)) {
		if !connected[name] {
			st.Missing = append(st.Missing, name)
		}
	}
	slices.SortFunc(st.Peers, func(a, b ClusterPeer) int { return cmp.Compare(a.Name, b.Name) })
	return st
}

// Quorum returns nil while the node can take part in decisions: it is by itself (a nil
// state), or it knows a leader and has what that leader has decided.
//
// Errors: ErrNoQuorum, with who is missing.
func (c *ClusterState) Quorum() error {
	if c == nil || c.Current {
		return nil
	}
	return fmt.Errorf("%w: %d of %d nodes are in touch, missing: %v, leader: %q", ErrNoQuorum,
		c.Nodes-len(c.Missing), c.Nodes, c.Missing, c.Leader)
}

// HasMetaGroup reports whether dir, a Config.StoreDir, has the store of a node of a
// cluster: the membership of the cluster's own log. Streams without it are no vote.
func HasMetaGroup(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, server.JetStreamStoreDir, wire.SystemAccount, "_js_", "_meta_", "peers.idx"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Stored returns nil when every stream that belongs on this node is there and has
// applied what its group has decided. The leader of a stream cannot see that: to it a copy is
// current that has the log, also while it still fetches what the log has no more. It costs
// some microseconds per stream and consumer.
//
// Errors: ErrUnhealthy, with the first stream that is not.
func Stored(s *Server) error {
	h := s.ns.Healthz(&server.HealthzOptions{Details: true})
	for i := range h.Errors {
		// Consumers are judged by their leaders: one that a client broke stays broken.
		if e := &h.Errors[i]; e.Type != server.HealthzErrorConsumer {
			return fmt.Errorf("%w: %s %s: %s", ErrUnhealthy, e.Account, e.Stream, e.Error)
		}
	}
	return nil
}

// Storeless reports whether s runs without a store (Config.NoStore).
func Storeless(s *Server) bool { return s.cfg.NoStore }
