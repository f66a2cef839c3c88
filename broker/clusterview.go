package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/internal/adminapi"
)

// viewSubject is as nodeSubject, for the longer answer that only people ask for.
const viewSubject = "SIGNET.VIEW."

// nodeView is what one node sees of the cluster.
type nodeView struct {
	nodeInfo
	Cluster embed.ClusterState `json:"cluster"`
	Groups  []embed.Group      `json:"groups"`
}

func (n *nodes) view() *nodeView {
	info := n.info()
	info.Now = time.Now()
	return &nodeView{nodeInfo: info, Cluster: *n.server.Cluster(), Groups: embed.Groups(n.server)}
}

func (n *nodes) answerView(m *nats.Msg) {
	data, err := json.Marshal(n.view())
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		n.b.log.Warn().Err(err).Msg("another node's question was not answered")
	}
}

// others lists the other nodes of the configuration, sorted.
func (n *nodes) others() []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(n.b.cfg.Cluster.Nodes)) {
		if name != n.b.cfg.Name {
			out = append(out, name)
		}
	}
	return out
}

// gather asks all nodes for their views, this one included, and puts them together.
func (n *nodes) gather(ctx context.Context) *clusterView {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	others := n.others()
	views := make([]*nodeView, len(others))
	done := make(chan struct{})
	for i, name := range others {
		go func() {
			defer func() { done <- struct{}{} }()
			var v nodeView
			sent := time.Now()
			m, err := n.nc.RequestWithContext(ctx, viewSubject+name, nil)
			got := time.Now()
			if err == nil && json.Unmarshal(m.Data, &v) == nil && v.Node == name {
				v.ahead = ahead(v.Now, sent, got)
				views[i] = &v
			}
		}()
	}
	for range others {
		<-done
	}
	return newClusterView(n.b.cfg.Name, slices.Sorted(maps.Keys(n.b.cfg.Cluster.Nodes)), append(views, n.view()))
}

// clusterView is what all nodes that answered say, put together.
type clusterView struct {
	self   string
	names  []string             // of all nodes: of the configuration, and of the log
	views  map[string]*nodeView // of those that answered
	state  *embed.ClusterState  // by the leader of the log, else by this node
	groups []streamGroup        // sorted by account and stream
}

// streamGroup is one stream with its copies.
type streamGroup struct {
	account, stream string
	wanted          int
	leader          string // empty: there is none, or it does not answer
	moving          bool
	members         []embed.ClusterPeer
	consumers       map[string]int  // kept on each node
	behind          int             // consumers of which a copy is missing
	assigned        map[string]bool // nodes that should have a copy, by whoever has one
	lacking         map[string]int  // by node: copies of consumers of which no leader says that they have everything
}

func newClusterView(self string, configured []string, views []*nodeView) *clusterView {
	c := &clusterView{self: self, views: map[string]*nodeView{}}
	for _, v := range views {
		if v != nil {
			c.views[v.Node] = v
		}
	}
	c.state = &c.views[self].Cluster
	if v := c.views[c.state.Leader]; v != nil && v.Cluster.Leader == v.Node {
		c.state = &v.Cluster
	} else if v == nil {
		c.state = c.leading()
	}
	names := map[string]bool{}
	for _, name := range configured {
		names[name] = true
	}
	for _, p := range c.state.Peers {
		names[p.Name] = true
	}
	c.names = slices.Sorted(maps.Keys(names))
	c.join()
	return c
}

// leading returns the view of a node that says that it leads the log, else this one's.
func (c *clusterView) leading() *embed.ClusterState {
	for _, v := range c.views {
		if v.Cluster.Leader == v.Node {
			return &v.Cluster
		}
	}
	return &c.views[c.self].Cluster
}

// join puts the groups of all views together: members as the leader sees them, and
// where no leader answers, the nodes that say they have a copy.
func (c *clusterView) join() {
	type key struct{ account, stream string }
	all := map[key]*streamGroup{}
	for _, node := range slices.Sorted(maps.Keys(c.views)) {
		for i := range c.views[node].Groups {
			g := &c.views[node].Groups[i]
			k := key{g.Account, g.Stream}
			if all[k] == nil {
				all[k] = &streamGroup{
					account: g.Account, stream: g.Stream,
					consumers: map[string]int{}, assigned: map[string]bool{}, lacking: map[string]int{},
				}
			}
			s := all[k]
			s.wanted, s.moving, s.behind = max(s.wanted, g.Wanted), s.moving || g.Moving, s.behind+g.Behind
			if g.Leader == node {
				s.leader = node
			}
			for _, m := range g.Members {
				s.addMember(m, true)
			}
			s.addMember(embed.ClusterPeer{Name: node, Online: true}, false)
			s.consumers[node] = max(s.consumers[node], g.Consumers)
			for holder, n := range g.Holders {
				s.consumers[holder] = max(s.consumers[holder], n)
			}
			c.owe(s, g)
		}
	}
	for _, s := range all {
		slices.SortFunc(s.members, func(a, b embed.ClusterPeer) int { return cmpText(a.Name, b.Name) })
		c.groups = append(c.groups, *s)
	}
	slices.SortFunc(c.groups, func(a, b streamGroup) int {
		if a.account != b.account {
			return cmpText(a.account, b.account)
		}
		return cmpText(a.stream, b.stream)
	})
}

// addMember enters a member; what the leader says replaces what is there.
func (s *streamGroup) addMember(m embed.ClusterPeer, byLeader bool) {
	i := slices.IndexFunc(s.members, func(o embed.ClusterPeer) bool { return o.Name == m.Name })
	switch {
	case i < 0:
		s.members = append(s.members, m)
	case byLeader:
		s.members[i] = m
	}
}

func (s *streamGroup) has(node string) bool {
	return slices.ContainsFunc(s.members, func(m embed.ClusterPeer) bool { return m.Name == node })
}

// whole: it is led, every copy is where it should be and has everything.
func (s *streamGroup) whole() bool {
	if s.leader == "" || s.moving || s.behind > 0 || len(s.members) != s.wanted {
		return false
	}
	return len(s.live()) == s.wanted
}

// live are the members that could carry on.
func (s *streamGroup) live() []string {
	var out []string
	for _, m := range s.members {
		if m.Current && m.Online {
			out = append(out, m.Name)
		}
	}
	return out
}

// cannotLose are the nodes without which there would be no majority of copies.
func (s *streamGroup) cannotLose() []string {
	live := s.live()
	if len(live)-1 >= max(s.wanted, len(s.members))/2+1 {
		return nil
	}
	return live
}

// member reports whether node is in the cluster's log, and how it is there.
func (c *clusterView) member(node string) (embed.ClusterPeer, bool) {
	if node == c.state.Self && c.state.Size > 0 {
		return embed.ClusterPeer{Name: node, Current: c.state.Current, Online: true}, true
	}
	i := slices.IndexFunc(c.state.Peers, func(p embed.ClusterPeer) bool { return p.Name == node })
	if i < 0 {
		return embed.ClusterPeer{}, false
	}
	return c.state.Peers[i], true
}

// members are the names of the log's members that are known.
func (c *clusterView) members() []string {
	return slices.DeleteFunc(slices.Clone(c.names), func(name string) bool {
		_, ok := c.member(name)
		return !ok
	})
}

// silent are the members that do not answer.
func (c *clusterView) silent() []string {
	return slices.DeleteFunc(c.members(), func(name string) bool { return c.views[name] != nil })
}

// waiting are the members that answer and have not started their stores.
func (c *clusterView) waiting() []string {
	return slices.DeleteFunc(c.members(), func(name string) bool {
		return c.views[name] == nil || c.views[name].Phase != phaseWaiting
	})
}

// copies counts the streams and the consumers that are kept on a node, or on the way
// there or away from it.
func (c *clusterView) copies(node string) (streams, consumers, leads int) {
	for i := range c.groups {
		g := &c.groups[i]
		if g.has(node) {
			streams++
		}
		if g.leader == node {
			leads++
		}
		consumers += g.consumers[node]
	}
	return streams, consumers, leads
}

// status is the view for the administrators of one tenant.
func (c *clusterView) status(tenant string) adminapi.ClusterStatus {
	out := adminapi.ClusterStatus{
		Name: c.state.Name, Answered: c.self, Leader: c.state.Leader, Size: c.state.Size, Rescue: c.state.Rescue,
		Streams: []adminapi.ClusterStream{},
	}
	policy, keyring := c.usual()
	for _, name := range c.names {
		n := adminapi.ClusterNode{Name: name}
		var p embed.ClusterPeer
		p, n.Member = c.member(name)
		n.Current, n.Online, n.Lag = p.Current, p.Online, p.Lag
		n.Copies, n.Consumers, n.Leads = c.copies(name)
		if v := c.views[name]; v != nil {
			n.Answers, n.Version, n.Phase, n.Started, n.Advertise = true, v.Version, v.Phase, v.Started, v.Listen
			n.ClockAhead = v.ahead.Seconds()
			n.Store = string(v.Store)
			n.MissingRoutes, n.Policy, n.Keyring = v.Cluster.Missing, v.Policy, v.Keyring
			n.PolicyDiffers, n.KeyringDiffers = v.Policy != policy, ringNamed(&v.nodeInfo) != keyring
		}
		out.Nodes = append(out.Nodes, n)
	}
	for i := range c.groups {
		g := &c.groups[i]
		if g.account != tenant {
			out.Others.Streams++
			if g.whole() {
				out.Others.Whole++
			}
			continue
		}
		s := adminapi.ClusterStream{
			Name: g.stream, Wanted: g.wanted, Leader: g.leader, Whole: g.whole(), CannotLose: g.cannotLose(), ConsumersBehind: g.behind,
		}
		for _, m := range g.members {
			s.Replicas = append(s.Replicas, adminapi.ClusterReplica{Node: m.Name, Current: m.Current, Online: m.Online, Lag: m.Lag})
		}
		out.Streams = append(out.Streams, s)
	}
	out.Problems = problems(&out)
	return out
}

// whichRing names a keyring: two can be of the same version.
type whichRing struct {
	version uint64
	digest  string
}

func ringNamed(n *nodeInfo) whichRing { return whichRing{n.Keyring, n.Ring} }

// usual returns the policy and the keyring of most nodes; of equals this node's.
func (c *clusterView) usual() (policy string, keyring whichRing) {
	policies, rings := map[string]int{}, map[whichRing]int{}
	own := c.views[c.self]
	policy, keyring = own.Policy, ringNamed(&own.nodeInfo)
	for _, v := range c.views {
		policies[v.Policy]++
		rings[ringNamed(&v.nodeInfo)]++
	}
	for p, n := range policies {
		if n > policies[policy] {
			policy = p
		}
	}
	for r, n := range rings {
		if n > rings[keyring] {
			keyring = r
		}
	}
	return policy, keyring
}

// problems says what has to be mended, the worst first.
func problems(s *adminapi.ClusterStatus) []adminapi.ClusterProblem {
	out := []adminapi.ClusterProblem{}
	add := func(node, stream, what, fix string) {
		out = append(out, adminapi.ClusterProblem{Node: node, Stream: stream, What: what, Fix: fix})
	}
	if s.Leader == "" {
		add("", "", "the cluster has no quorum: nothing can be decided", "start the nodes that do not answer; if they are lost for good: signet cluster rescue --help")
	}
	if s.Rescue {
		add("", "", "the quorum is lowered after a rescue", "remove the nodes that are lost: signet cluster rescue --help")
	}
	known, answers := 0, map[string]bool{}
	for i := range s.Nodes {
		answers[s.Nodes[i].Name] = s.Nodes[i].Answers
	}
	for i := range s.Nodes {
		n := s.Nodes[i]
		// A route to a node that does not answer is not a second problem.
		n.MissingRoutes = slices.DeleteFunc(slices.Clone(n.MissingRoutes), func(name string) bool { return !answers[name] })
		if n.Member {
			known++
		}
		nodeProblems(&n, s.Leader != "", func(what, fix string) { add(n.Name, "", what, fix) })
	}
	if s.Leader != "" && known < s.Size {
		add("", "", fmt.Sprintf("the cluster counts %d nodes and has seen %d", s.Size, known), "start the nodes that never ran")
	}
	for i := range s.Streams {
		if t := &s.Streams[i]; !t.Whole {
			add("", t.Name, streamProblem(t), "wait while nodes catch up; start the nodes that do not answer")
		}
	}
	if n := s.Others.Streams - s.Others.Whole; n > 0 {
		add("", "", fmt.Sprintf("%d of %d streams of other tenants lack a copy", n, s.Others.Streams), "wait while nodes catch up; start the nodes that do not answer")
	}
	return out
}

func nodeProblems(n *adminapi.ClusterNode, led bool, add func(what, fix string)) {
	switch {
	case !n.Member && n.Answers && led:
		add("it runs and is no member of the cluster", "if it was removed: stop it and empty its volume; else wait: a node that is back after a removal is taken in after five minutes")
		return
	case !n.Member:
		return
	case !n.Answers:
		add("it does not answer", "start it; if its volume is lost: signet cluster replace "+n.Name)
		return
	case n.Phase == phaseWaiting:
		add("its store is not started", "start the nodes that have their volumes; its log says what it waits for. If they are too few for good: signet cluster rescue --help")
	case n.Phase != phaseNames[phaseReady]:
		add("it is "+n.Phase, "wait; its log says what it waits for")
	case led && !n.Current:
		add("it has not caught up with the cluster's log", "wait; if it stays so, look at its disk and its routes")
	}
	if n.Store == string(holdsFilling) && n.Phase != phaseWaiting {
		add("its store is being filled by the others: its copies are not all whole yet", "wait; if it stays so, start the nodes that do not answer, which it may need")
	}
	if len(n.MissingRoutes) > 0 {
		add(fmt.Sprintf("it has no route to %v", n.MissingRoutes), "see the logs of both for why the route is refused")
	}
	if d := time.Duration(n.ClockAhead * float64(time.Second)); d.Abs() > clockLimit {
		add(fmt.Sprintf("its clock is %v ahead of that of the node that answers", d.Round(time.Millisecond)), "run a time service on every node: chronyc tracking")
	}
	if n.PolicyDiffers {
		add("its policy differs from that of the others", "give all nodes the same files: signet policy check")
	}
	if n.KeyringDiffers {
		add("its keyring differs from that of the others", "wait some seconds; if it stays so, sign one with a higher version and push it: signet keys push")
	}
}

func streamProblem(t *adminapi.ClusterStream) string {
	live := 0
	for _, r := range t.Replicas {
		if r.Current && r.Online {
			live++
		}
	}
	switch {
	case t.Leader == "":
		return "no node leads it: it takes nothing"
	case live < t.Wanted:
		return fmt.Sprintf("%d of %d copies are current", live, t.Wanted)
	case t.ConsumersBehind > 0:
		return fmt.Sprintf("%d of its consumers lack a copy", t.ConsumersBehind)
	}
	return "its copies are being moved"
}
