package embed

import (
	"cmp"
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
)

// Group is the replication of one stream, as this node sees it. The view of the node
// that leads the stream is the one that counts.
type Group struct {
	Account string `json:"account"`
	Stream  string `json:"stream"`
	Wanted  int    `json:"wanted"` // copies that the stream is declared with
	Leader  string `json:"leader,omitempty"`
	// Members are the nodes that have a copy or are about to get one; only where this
	// node leads.
	Members []ClusterPeer `json:"members,omitempty"`
	// Moving: the copies are being moved to other nodes.
	Moving bool `json:"moving,omitempty"`
	// Consumers counts the consumers of the stream that are kept on this node.
	Consumers int `json:"consumers,omitempty"`
	// Holders counts, for the consumers that this node leads, where they are kept.
	Holders map[string]int `json:"holders,omitempty"`
	// Behind counts the consumers that this node leads and of which a copy is missing.
	Behind int `json:"behind,omitempty"`
	// Lacking counts, by node, the copies of consumers that have not got everything; of
	// the consumers that this node leads.
	Lacking map[string]int `json:"lacking,omitempty"`
	// Assigned are the nodes that the stream is to have copies on, whoever leads it.
	Assigned []string `json:"assigned,omitempty"`
	// Following counts the copies of consumers that this node does not lead: by the node
	// that does, as far as it is known, and by the node that the copy is on.
	Following map[string]map[string]int `json:"following,omitempty"`
}

// Accounts lists the tenants' accounts of s, sorted by name.
func Accounts(s *Server) []TenantAccount {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.accounts), byName)
}

// Groups lists the streams of which s has a copy, by account and name. It
// costs some microseconds per stream and consumer: call it when somebody asks.
func Groups(s *Server) []Group {
	var out []Group
	for _, a := range Accounts(s) {
		d, err := s.ns.JszAccount(&server.JSzOptions{Account: a.Name, Streams: true, Consumer: true, Config: true})
		if err != nil {
			continue // the account has nothing here
		}
		for i := range d.Streams {
			out = append(out, groupOf(s, a.Name, &d.Streams[i]))
		}
	}
	slices.SortFunc(out, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Stream, b.Stream))
	})
	return out
}

func groupOf(s *Server, account string, d *server.StreamDetail) Group {
	g := Group{Account: account, Stream: d.Name, Wanted: 1, Consumers: len(d.Consumer)}
	if d.Config != nil {
		g.Wanted = max(1, d.Config.Replicas)
	}
	if d.Cluster == nil {
		return g
	}
	self := s.cfg.ServerName
	g.Leader, g.Moving = d.Cluster.Leader, d.Cluster.Desired != nil
	peers := peersOf(s, d.Cluster)
	if g.Leader == self {
		g.Members = peers
	}
	for _, p := range peers {
		g.Assigned = append(g.Assigned, p.Name)
	}
	for _, c := range d.Consumer {
		if c.Cluster != nil {
			g.count(c.Cluster.Leader, c.Cluster.Leader == self, peersOf(s, c.Cluster))
		}
	}
	return g
}

// count enters a consumer with the given leader and copies.
func (g *Group) count(leader string, own bool, copies []ClusterPeer) {
	if !own {
		if g.Following == nil {
			g.Following = map[string]map[string]int{}
		}
		if g.Following[leader] == nil {
			g.Following[leader] = map[string]int{}
		}
		for _, p := range copies {
			g.Following[leader][p.Name]++
		}
		return
	}
	if g.Holders == nil {
		g.Holders, g.Lacking = map[string]int{}, map[string]int{}
	}
	whole := true
	for _, p := range copies {
		g.Holders[p.Name]++
		whole = whole && p.Current && p.Online
		if !p.Whole() {
			g.Lacking[p.Name]++
		}
	}
	if !whole {
		g.Behind++
	}
}

// peersOf lists the members of a group of which this node is one, itself included. What
// is said of them counts only where this node leads.
func peersOf(s *Server, c *server.ClusterInfo) []ClusterPeer {
	out := []ClusterPeer{{Name: s.cfg.ServerName, Current: true, Online: true}}
	for _, p := range c.Replicas {
		// Where nobody leads, nats-server lists the node that is asked, too.
		if peer := peerOf(s, p); peer.Name != s.cfg.ServerName {
			out = append(out, peer)
		}
	}
	slices.SortFunc(out, func(a, b ClusterPeer) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// peerOf names a peer also when nats-server has not heard of it since its start.
func peerOf(s *Server, p *server.PeerInfo) ClusterPeer {
	out := ClusterPeer{Name: p.Name, Current: p.Current && !p.Pending, Online: !p.Offline, Active: p.Active, Lag: p.Lag}
	for name := range s.cfg.Cluster.Nodes {
		if PeerID(name) == p.Peer {
			out.Name = name
		}
	}
	return out
}

// PeerID is the name that nats-server gives to a node in its logs and takes in
// requests, also of a node that nobody has heard of.
func PeerID(node string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(node))
	id := sum[:8]
	for i, b := range id {
		id[i] = digits[int(b)%len(digits)]
	}
	return string(id)
}

// Leads says whether s leads a stream; a server by itself leads all. It asks nobody.
func Leads(s *Server, account, stream string) bool {
	return s.cfg.Cluster == nil || s.ns.JetStreamIsStreamLeader(account, stream)
}
