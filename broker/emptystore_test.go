package broker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
)

// modelNode is one node of the model below.
type modelNode struct {
	store holding
	runs  string // "", phaseWaiting or "ready"
	joins bool   // a store that is filled knows the log by now
	has   bool   // and has the copies of the streams
}

// modelState is a whole cluster. Only the first n nodes count.
type modelState struct {
	nodes   [5]modelNode
	acked   bool // clients were let in, and somebody has what they stored
	rescued bool // an operator has lowered the quorum
}

type model struct {
	t     *testing.T
	n     int
	names []string
	seen  map[modelState]int32 // the place in all
	all   []modelState
	from  [][]step // the steps that lead to each
	at    int32    // the state whose steps are taken now
	kind  stepKind // of those
}

// step is one step of the model, from a state.
type step struct {
	from int32
	kind stepKind
}

type stepKind int8

const (
	goesOn   stepKind = iota // by itself, or a start
	crashes                  // or is stopped by an operator
	rescues                  // by an operator
	forgets                  // a volume is lost
	anything                 // any of these
)

// TestClusterEmptyStoresNeverOutvote walks through every state that nodes can get into by
// starts, crashes, lost volumes, partitions and rescues, in any order. And from every state
// in which most nodes have what they need, all get ready by themselves; from every one in which some
// copy of each stream is left, an operator gets them there.
func TestClusterEmptyStoresNeverOutvote(t *testing.T) {
	for _, n := range []int{3, 5} {
		m := &model{t: t, n: n, names: []string{"n1", "n2", "n3", "n4", "n5"}[:n], seen: map[modelState]int32{}}
		var first modelState
		for i := range n {
			first.nodes[i].store = holdsNothing
		}
		m.add(first)
		for m.at = 0; int(m.at) < len(m.all) && !t.Failed(); m.at++ {
			m.expand(m.all[m.at])
		}
		t.Logf("%d nodes: %d states", n, len(m.all))
		m.getReady("by themselves", func(s *modelState) bool {
			// A node that the rescue did not reach is rescued by itself.
			reached := !s.rescued || slices.ContainsFunc(s.nodes[:n], func(x modelNode) bool { return x.store == holdsAll && x.runs == "ready" })
			return reached && m.leads(s) && m.streamsLed(s)
		}, goesOn)
		m.getReady("with an operator", func(s *modelState) bool {
			lost := 0 // a stream all of whose copies are lost is lost
			for _, x := range s.nodes[:n] {
				if !x.store.remembers() {
					lost++
				}
			}
			return s.acked && lost < 3
		}, goesOn, crashes, rescues)
	}
}

// getReady fails where a state of those that should has no way, by steps of the given
// kinds, to the one in which all nodes are ready and have everything.
func (m *model) getReady(how string, should func(*modelState) bool, kinds ...stepKind) {
	reach := make([]bool, len(m.all))
	var todo []int32
	for i := range m.all {
		if !slices.ContainsFunc(m.all[i].nodes[:m.n], func(x modelNode) bool { return x.store != holdsAll || x.runs != "ready" }) {
			reach[i] = true
			todo = append(todo, int32(i))
		}
	}
	for len(todo) > 0 {
		to := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, s := range m.from[to] {
			if slices.Contains(kinds, s.kind) && !reach[s.from] {
				reach[s.from] = true
				todo = append(todo, s.from)
			}
		}
	}
	meant, stuck := 0, 0
	for i := range m.all {
		if !should(&m.all[i]) {
			continue
		}
		if meant++; reach[i] {
			continue
		}
		if stuck++; stuck <= 3 {
			m.t.Errorf("%d nodes never get ready %s from %+v", m.n, how, m.all[i])
		}
	}
	if meant == 0 || stuck > 0 {
		m.t.Errorf("%d nodes, %s: stuck in %d of %d states", m.n, how, stuck, meant)
	}
}

// add enters a state, in one of the orders of its nodes, which are alike, and the step
// to it.
func (m *model) add(s modelState) {
	if !slices.ContainsFunc(s.nodes[:m.n], func(x modelNode) bool { return x.store.remembers() }) {
		s.acked, s.rescued = false, false // all is lost, whatever is done now
	}
	text := func(x modelNode) string { return string(x.store) + x.runs + boolText(x.joins) + boolText(x.has) }
	slices.SortFunc(s.nodes[:m.n], func(a, b modelNode) int { return strings.Compare(text(a), text(b)) })
	i, known := m.seen[s]
	if !known {
		i = int32(len(m.all))
		m.seen[s] = i
		m.all, m.from = append(m.all, s), append(m.from, nil)
	}
	if by := (step{m.at, m.kind}); i != m.at && !slices.Contains(m.from[i], by) {
		m.from[i] = append(m.from[i], by)
	}
}

func boolText(b bool) string {
	if b {
		return "y"
	}
	return "n"
}

// leads reports whether a node that remembers could be elected.
func (m *model) leads(s *modelState) bool {
	votes, remember := 0, false
	for _, x := range s.nodes[:m.n] {
		if x.runs != "ready" {
			continue
		}
		if x.store.remembers() || x.joins {
			votes++
		}
		remember = remember || x.store.remembers()
	}
	return remember && (votes > m.n/2 || s.rescued)
}

// with adds the state in which node i is x.
func (m *model) with(s modelState, i int, x modelNode) {
	s.nodes[i] = x
	m.check(&s)
	m.add(s)
}

func (m *model) check(s *modelState) {
	blank, lacking := 0, 0
	for _, x := range s.nodes[:m.n] {
		if x.runs == "ready" && x.store == holdsFilling {
			lacking++
			if !x.joins {
				blank++
			}
		}
		if x.store == holdsForming && s.acked {
			m.t.Errorf("a node forms a cluster where one was: %+v", s)
		}
	}
	if blank > 1 || lacking > m.n/2 {
		m.t.Errorf("%d blank stores, %d not filled: %+v", blank, lacking, s)
	}
}

func (m *model) expand(s modelState) {
	leads := m.leads(&s)
	for i := range m.n {
		x := s.nodes[i]
		m.events(s, i, leads)
		if x.runs != phaseWaiting {
			continue
		}
		answers := m.answers(&s, i, leads)
		for reach := range 1 << len(answers) { // whom it reaches is anybody's guess
			var heard []nodeInfo
			for j := range answers {
				if reach&(1<<j) != 0 {
					heard = append(heard, answers[j])
				}
			}
			if as, err := mayStart(m.names[i], x.store, m.names, heard); err == nil {
				m.with(s, i, modelNode{store: as, runs: "ready", joins: x.joins, has: x.has})
			}
		}
	}
	m.kind = rescues
	m.rescue(s, leads)
}

// rescue is what an operator may do when no node leads; nodes that form a cluster and
// are lost are off for good.
func (m *model) rescue(s modelState, leads bool) {
	if leads && !s.rescued || slices.ContainsFunc(s.nodes[:m.n], func(x modelNode) bool { return x.store == holdsForming }) {
		return
	}
	s.rescued = true
	for i, x := range s.nodes[:m.n] {
		if x.store == holdsFormed && x.runs == "ready" {
			s.nodes[i].store = holdsAll
		}
	}
	m.add(s)
}

// answers are those of the nodes that run, each of which leads if any can.
func (m *model) answers(s *modelState, i int, leads bool) []nodeInfo {
	var out []nodeInfo
	all := m.infos(s, -1)
	for _, a := range m.infos(s, i) {
		if leads && a.Phase == "ready" {
			var l letIn
			others := func() []nodeInfo {
				return slices.DeleteFunc(slices.Clone(all), func(o nodeInfo) bool { return o.Node == a.Node })
			}
			rest := slices.DeleteFunc(slices.Clone(m.names), func(name string) bool { return name == a.Node || name == m.names[i] })
			if mayLetIn(a.Store, rest, others) {
				a.LetsIn = l.turn(m.names[i], mayLack(m.n), time.Now(), others)
			}
		}
		out = append(out, a)
	}
	return out
}

// events are what else can happen to a node.
func (m *model) events(s modelState, i int, leads bool) {
	x := s.nodes[i]
	m.kind = goesOn
	switch x.runs {
	case "":
		m.with(s, i, modelNode{store: x.store, runs: phaseWaiting, joins: x.joins, has: x.has})
		m.kind = forgets
		m.with(s, i, modelNode{store: holdsNothing})
		return
	case "ready":
		m.work(s, i, leads)
	}
	m.kind = crashes
	m.with(s, i, modelNode{store: x.store, joins: x.joins, has: x.has})
	m.kind = goesOn
}

// work is what a node that runs gets done.
func (m *model) work(s modelState, i int, leads bool) {
	x := s.nodes[i]
	others := slices.Delete(slices.Clone(m.names), i, i+1)
	switch {
	case x.store == holdsForming && leads:
		m.with(s, i, modelNode{store: holdsFormed, runs: "ready"})
	case x.store == holdsFormed && len(unformed(others, m.infos(&s, i))) == 0:
		m.with(s, i, modelNode{store: holdsAll, runs: "ready"})
	case x.store == holdsFilling && leads && !x.joins:
		m.with(s, i, modelNode{store: holdsFilling, runs: "ready", joins: true})
	case x.store == holdsFilling && leads && !x.has && m.streamsLed(&s, i):
		m.with(s, i, modelNode{store: holdsFilling, runs: "ready", joins: true, has: true})
	}
	if x.store == holdsFilling && len(m.view(&s, i).lacks(whole{})) == 0 {
		if !x.has || !leads {
			m.t.Errorf("node %d counts as filled: %+v", i, s)
		}
		m.with(s, i, modelNode{store: holdsAll, runs: "ready"})
	}
	if (x.store == holdsAll || x.store == holdsFilling && x.joins) && leads {
		s.acked = true
		m.add(s)
	}
}

// infos are the answers of the nodes that run, but i.
func (m *model) infos(s *modelState, i int) []nodeInfo {
	var out []nodeInfo
	for j, x := range s.nodes[:m.n] {
		if x.runs != "" && j != i {
			out = append(out, nodeInfo{Node: m.names[j], Store: x.store, Phase: x.runs, Current: x.joins})
		}
	}
	return out
}

// streams are the sets of nodes that the model keeps a stream on: every three.
func (m *model) streams() [][]int {
	var out [][]int
	for a := range m.n {
		for b := range a {
			for c := range b {
				out = append(out, []int{c, b, a})
			}
		}
	}
	return out
}

// streamLeader is the member that leads a stream, -1 for none. The vote of an empty copy
// counts when all members vote, or in a rescue.
func (m *model) streamLeader(s *modelState, members []int) int {
	leader, ready, have := -1, 0, 0
	for _, i := range members {
		x := s.nodes[i]
		if x.runs != "ready" {
			continue
		}
		ready++
		if x.store.remembers() || x.has {
			have++
			if leader < 0 {
				leader = i
			}
		}
	}
	if have >= 2 || ready == len(members) || s.rescued {
		return leader
	}
	return -1
}

// streamsLed reports whether all streams are led that have a copy on all of nodes.
func (m *model) streamsLed(s *modelState, nodes ...int) bool {
	return !slices.ContainsFunc(m.streams(), func(members []int) bool {
		for _, i := range nodes {
			if !slices.Contains(members, i) {
				return false
			}
		}
		return m.streamLeader(s, members) < 0
	})
}

// view is what node self hears of the cluster, with one consumer on each stream.
func (m *model) view(s *modelState, self int) *clusterView {
	leader := ""
	for i, x := range s.nodes[:m.n] {
		if leader == "" && x.runs == "ready" && x.store.remembers() && m.leads(s) {
			leader = m.names[i]
		}
	}
	peer := func(i int, has bool) embed.ClusterPeer {
		up := s.nodes[i].runs == "ready"
		return embed.ClusterPeer{Name: m.names[i], Current: has && up, Online: up}
	}
	views := make([]*nodeView, m.n)
	for i, x := range s.nodes[:m.n] {
		if x.runs == "" {
			continue
		}
		v := &nodeView{nodeInfo: nodeInfo{Node: m.names[i], Phase: x.runs, Store: x.store}}
		v.Cluster = embed.ClusterState{Self: v.Node}
		if x.runs == "ready" {
			v.Cluster.Leader, v.Cluster.Size, v.Cluster.Current = leader, m.n, leader != ""
			for j, o := range s.nodes[:m.n] {
				if j != i {
					v.Cluster.Peers = append(v.Cluster.Peers, peer(j, o.store.remembers() || o.joins))
				}
			}
		}
		views[i] = v
	}
	for k, members := range m.streams() {
		leads := m.streamLeader(s, members)
		for _, i := range members {
			if s.nodes[i].runs != "ready" {
				continue
			}
			g := embed.Group{Account: "shop", Stream: string(rune('a' + k)), Wanted: 3, Consumers: 1}
			counts := map[string]int{}
			for _, j := range members {
				g.Assigned = append(g.Assigned, m.names[j])
				counts[m.names[j]] = 1
			}
			switch {
			case leads == i:
				g.Leader, g.Holders, g.Lacking = m.names[i], counts, map[string]int{}
				for _, j := range members {
					p := peer(j, s.nodes[j].store.remembers() || s.nodes[j].has)
					g.Members = append(g.Members, p)
					if !p.Whole() {
						g.Behind, g.Lacking[p.Name] = 1, 1
					}
				}
			case leads >= 0:
				g.Leader, g.Following = m.names[leads], map[string]map[string]int{m.names[leads]: counts}
			default:
				g.Following = map[string]map[string]int{"": counts}
			}
			views[i].Groups = append(views[i].Groups, g)
		}
	}
	return newClusterView(m.names[self], m.names, views)
}
