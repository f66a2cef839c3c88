package adminapi

import "time"

// ClusterStatus is the result of cluster.status. Nodes are of the whole cluster;
// Streams are those of the caller's tenant, of the others there are only numbers.
type ClusterStatus struct {
	Name     string           `json:"name"`
	Answered string           `json:"answered"`         // the node that made this answer
	Leader   string           `json:"leader,omitempty"` // of the cluster's own log; empty: nothing can be decided
	Size     int              `json:"size"`             // members by that log
	Rescue   bool             `json:"rescue,omitempty"` // the quorum is lowered for a while
	Nodes    []ClusterNode    `json:"nodes"`            // sorted by name
	Streams  []ClusterStream  `json:"streams"`          // sorted by name
	Others   ClusterTotals    `json:"others"`           // streams of other tenants
	Problems []ClusterProblem `json:"problems"`         // empty: the cluster is healthy
}

// ClusterNode is one node: of the configuration, or of the cluster's log.
type ClusterNode struct {
	Name    string `json:"name"`
	Answers bool   `json:"answers"` // false: what is only known to the node itself is missing here
	Member  bool   `json:"member"`  // of the cluster's log; false once it was removed
	Current bool   `json:"current"` // has everything that the log decided
	Online  bool   `json:"online"`  // by the leader of the log
	Lag     uint64 `json:"lag,omitempty"`

	Version        string    `json:"version,omitempty"`
	Phase          string    `json:"phase,omitempty"` // waiting, starting, ready, draining
	Store          string    `json:"store,omitempty"` // kept, filling, empty; forming and formed in the first start of a cluster
	Started        time.Time `json:"started,omitzero"`
	Advertise      []string  `json:"advertise,omitempty"`
	MissingRoutes  []string  `json:"missingRoutes,omitempty"` // nodes that it is not connected to
	Policy         string    `json:"policy,omitempty"`        // digest
	PolicyDiffers  bool      `json:"policyDiffers,omitempty"` // from that of most nodes
	Keyring        uint64    `json:"keyring,omitempty"`       // version
	KeyringDiffers bool      `json:"keyringDiffers,omitempty"`
	ClockAhead     float64   `json:"clockAhead,omitempty"` // seconds, of the node that answered; less the time that its answer took

	// Copies of streams and consumers of all tenants on the node, and how many streams
	// it leads.
	Copies    int `json:"copies"`
	Consumers int `json:"consumers"`
	Leads     int `json:"leads"`
}

// ClusterStream is the replication of one stream.
type ClusterStream struct {
	Name     string           `json:"name"`
	Wanted   int              `json:"wanted"` // copies
	Leader   string           `json:"leader,omitempty"`
	Replicas []ClusterReplica `json:"replicas"` // the leader's included
	Whole    bool             `json:"whole"`    // led, all copies there and current, none on the way
	// CannotLose are the nodes without which the stream would stop taking events.
	CannotLose []string `json:"cannotLose,omitempty"`
	// ConsumersBehind counts its consumers of which a copy is missing.
	ConsumersBehind int `json:"consumersBehind,omitempty"`
}

// ClusterReplica is one copy of a stream.
type ClusterReplica struct {
	Node    string `json:"node"`
	Current bool   `json:"current"`
	Online  bool   `json:"online"`
	Lag     uint64 `json:"lag,omitempty"`
}

// ClusterTotals counts streams.
type ClusterTotals struct {
	Streams int `json:"streams"`
	Whole   int `json:"whole"`
}

// ClusterProblem is something that somebody has to mend, and how.
type ClusterProblem struct {
	Node   string `json:"node,omitempty"`
	Stream string `json:"stream,omitempty"`
	What   string `json:"what"`
	Fix    string `json:"fix"`
}

// ClusterNodeRequest names a node: cluster.evacuate and cluster.remove; for
// cluster.stepdown the node that should lead, empty for any.
type ClusterNodeRequest struct {
	Node string `json:"node"`
}

// ClusterRescueRequest asks for a new quorum out of the nodes that are left. Lost are
// all the others, which are never to come back with what they had. Confirm must be
// true: acknowledged events may be lost with them.
type ClusterRescueRequest struct {
	Lost    []string `json:"lost"`
	Confirm bool     `json:"confirm"`
}

// ClusterRescue is the result of cluster.rescue.
type ClusterRescue struct {
	Leader  string   `json:"leader"`
	Quorum  int      `json:"quorum"` // to which it was lowered
	Removed []string `json:"removed"`
}

// ClusterRebalance is the result of cluster.rebalance.
type ClusterRebalance struct {
	Moves  []ClusterMove  `json:"moves"`  // of leaders of the caller's tenant
	Others int            `json:"others"` // moves of leaders of other tenants
	Leads  map[string]int `json:"leads"`  // streams that each node leads, after it
	Failed []string       `json:"failed,omitempty"`
}

// ClusterMove is a stream that got another leader.
type ClusterMove struct {
	Stream string `json:"stream"`
	From   string `json:"from"`
	To     string `json:"to"`
}
