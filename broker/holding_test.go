package broker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func answerOf(name string, store holding, phase string) nodeInfo {
	return nodeInfo{Node: name, Store: store, Phase: phase, Current: phase == "ready"}
}

func TestMayStart(t *testing.T) {
	three, five := []string{"n1", "n2", "n3"}, []string{"n1", "n2", "n3", "n4", "n5"}
	let := func(i nodeInfo, name string) nodeInfo { i.LetsIn = name; return i }
	tests := []struct {
		name  string
		own   holding
		nodes []string
		heard []nodeInfo
		as    holding
		text  string // of the refusal
	}{
		{"a store goes on alone", holdsAll, three, nil, holdsAll, ""},
		{"a store that forms goes on alone", holdsForming, three, nil, holdsForming, ""},
		{"the first start", holdsNothing, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsNothing, "waiting")}, holdsForming, ""},
		{"the first start, others are ahead", holdsNothing, three, []nodeInfo{answerOf("n2", holdsForming, "starting"), answerOf("n3", holdsNothing, "waiting")}, holdsForming, ""},
		{"the first start, one is missing", holdsNothing, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting")}, "", "the first start of a cluster needs all nodes"},
		{"two of five are missing", holdsNothing, five, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsNothing, "waiting")}, "", "silent: [n4 n5]"},
		{"one other has all", holdsNothing, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsAll, "starting")}, "", "signet cluster rescue"},
		{"one other has ended the first start", holdsNothing, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsFormed, "starting")}, "", "with a store: [n3]"},
		{"all others have all, and nobody leads", holdsNothing, three, []nodeInfo{answerOf("n2", holdsAll, "starting"), answerOf("n3", holdsAll, "starting")}, "", "start all nodes that still have their volumes, and wait"},
		{"the leader lets it in", holdsNothing, three, []nodeInfo{let(answerOf("n2", holdsAll, "ready"), "n1"), answerOf("n3", holdsAll, "ready")}, holdsFilling, ""},
		{"the leader lets it in again", holdsFilling, three, []nodeInfo{let(answerOf("n2", holdsAll, "ready"), "n1")}, holdsFilling, ""},
		{"the leader lets another in", holdsNothing, three, []nodeInfo{let(answerOf("n2", holdsAll, "ready"), "n3"), answerOf("n3", holdsNothing, "waiting")}, "", "lets this one in now"},
		{"one without a store lets nobody in", holdsNothing, three, []nodeInfo{let(answerOf("n2", holdsFilling, "ready"), "n1"), answerOf("n3", holdsAll, "waiting")}, "", "without: [n2]"},
		{"nobody has a whole store", holdsNothing, three, []nodeInfo{answerOf("n2", holdsFilling, "waiting"), answerOf("n3", holdsNothing, "waiting")}, "", "empty the state folders of all nodes"},
		{"not filled, and nobody has anything", holdsFilling, three, []nodeInfo{answerOf("n2", holdsNothing, "waiting"), answerOf("n3", holdsNothing, "waiting")}, "", "was not filled yet"},
		{"a release that does not tell", holdsNothing, three, []nodeInfo{answerOf("n2", "", "ready"), answerOf("n3", holdsNothing, "waiting")}, "", "with a store: [n2]"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			as, err := mayStart("n1", tc.own, tc.nodes, tc.heard)
			if as != tc.as || (err == nil) != (tc.text == "") || err != nil && (!errors.Is(err, ErrStoreWaits) || !strings.Contains(err.Error(), tc.text)) {
				t.Errorf("as %q, %v; want %q, %q", as, err, tc.as, tc.text)
			}
		})
	}
}

// TestReadHolding: what is on the disk has the first word, then the note.
func TestReadHolding(t *testing.T) {
	tests := []struct {
		name, note string
		meta       bool
		want       holding
		fails      bool
	}{
		{name: "nothing", want: holdsNothing},
		{name: "a note survived its store", note: `{"store":"kept"}`, want: holdsNothing},
		{name: "a store of an older release", meta: true, want: holdsAll},
		{name: "filled", note: `{"store":"kept"}`, meta: true, want: holdsAll},
		{name: "not filled", note: `{"store":"filling"}`, meta: true, want: holdsFilling},
		{name: "not formed", note: `{"store":"forming"}`, meta: true, want: holdsForming},
		{name: "of a newer release", note: `{"store":"mirrored"}`, meta: true, fails: true},
		{name: "torn", note: `{"sto`, meta: true, fails: true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			group := filepath.Join(dir, "jetstream", "SYS", "_js_", "_meta_")
			if tc.meta {
				if err := errors.Join(os.MkdirAll(group, 0o700), os.WriteFile(filepath.Join(group, "peers.idx"), nil, 0o600)); err != nil {
					t.Fatal(err)
				}
			} else if err := os.MkdirAll(filepath.Join(dir, "jetstream", "shop", "streams", "ORDERS"), 0o700); err != nil {
				t.Fatal(err)
			}
			if tc.note != "" {
				if err := os.WriteFile(filepath.Join(dir, holdingFile), []byte(tc.note), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := readHolding(dir)
			if got != tc.want || (err != nil) != tc.fails {
				t.Errorf("%q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// TestLetIn: the leader lets in one node after the other.
func TestLetIn(t *testing.T) {
	began := time.Now()
	running := func(name string, current bool) nodeInfo {
		return nodeInfo{Node: name, Store: holdsFilling, Phase: "starting", Current: current}
	}
	waits := func(name string) nodeInfo { return answerOf(name, holdsNothing, phaseWaiting) }
	tests := []struct {
		name   string
		last   string // let in before
		ago    time.Duration
		most   int
		others []nodeInfo
		want   string
	}{
		{"nobody else", "", 0, 1, []nodeInfo{waits("n3")}, "n3"},
		{"asks again", "n3", time.Second, 1, []nodeInfo{running("n2", false)}, "n3"},
		{"another was let in just now", "n2", time.Second, 2, nil, "n2"},
		{"another is on its way", "n2", 10 * time.Second, 2, []nodeInfo{waits("n3")}, "n2"},
		{"another still waits, and asks no more", "n2", 10 * time.Second, 2, []nodeInfo{waits("n2"), waits("n3")}, "n2"},
		{"another never came", "n2", letFor, 1, []nodeInfo{waits("n3")}, "n3"},
		{"another has not joined", "n2", 10 * time.Second, 2, []nodeInfo{running("n2", false)}, "n2"},
		{"another has not joined for long", "n2", time.Hour, 2, []nodeInfo{running("n2", false)}, "n2"},
		{"another is filled, one at a time", "n2", time.Hour, 1, []nodeInfo{running("n2", true)}, "n2"},
		{"another is filled, two at a time", "n2", 10 * time.Second, 2, []nodeInfo{running("n2", true)}, "n3"},
		{"two others are filled", "n2", time.Hour, 2, []nodeInfo{running("n2", true), running("n4", true)}, "n2"},
		{"another is done", "n2", 10 * time.Second, 1, []nodeInfo{answerOf("n2", holdsAll, "ready")}, "n3"},
		{"the last leader let one in", "", 0, 1, []nodeInfo{running("n4", false)}, "n4"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			l := letIn{name: tc.last, at: began.Add(-tc.ago)}
			if got := l.turn("n3", tc.most, began, func() []nodeInfo { return tc.others }); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// modelNode is one node of the model below.
type modelNode struct {
	store holding
	runs  string // "", phaseWaiting or "ready"
	joins bool   // a store that is filled knows the log by now
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
	seen  map[modelState]bool
	todo  []modelState
}

// TestEmptyStoresNeverOutvote walks through every state that nodes can get into by
// starts, crashes, lost volumes, partitions and rescues, in any order.
func TestEmptyStoresNeverOutvote(t *testing.T) {
	for _, n := range []int{3, 5} {
		m := &model{t: t, n: n, names: []string{"n1", "n2", "n3", "n4", "n5"}[:n], seen: map[modelState]bool{}}
		var first modelState
		for i := range n {
			first.nodes[i].store = holdsNothing
		}
		m.add(first)
		for len(m.todo) > 0 && !t.Failed() {
			s := m.todo[len(m.todo)-1]
			m.todo = m.todo[:len(m.todo)-1]
			m.expand(s)
		}
		full := first
		for i := range n {
			full.nodes[i] = modelNode{store: holdsAll, runs: "ready"}
		}
		full.acked = true
		if !m.seen[full] {
			t.Errorf("%d nodes never get ready", n)
		}
		t.Logf("%d nodes: %d states", n, len(m.seen))
	}
}

// add enters a state, in one of the orders of its nodes, which are alike.
func (m *model) add(s modelState) {
	if !slices.ContainsFunc(s.nodes[:m.n], func(x modelNode) bool { return x.store.remembers() }) {
		s.acked, s.rescued = false, false // all is lost, whatever is done now
	}
	slices.SortFunc(s.nodes[:m.n], func(a, b modelNode) int {
		return strings.Compare(string(a.store)+a.runs+boolText(a.joins), string(b.store)+b.runs+boolText(b.joins))
	})
	if !m.seen[s] {
		m.seen[s] = true
		m.todo = append(m.todo, s)
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
				m.with(s, i, modelNode{store: as, runs: "ready", joins: x.joins})
			}
		}
	}
	m.rescue(s, leads)
}

// rescue is what an operator may do when no node leads; nodes that form a cluster and
// are lost are off for good.
func (m *model) rescue(s modelState, leads bool) {
	if leads || s.rescued || slices.ContainsFunc(s.nodes[:m.n], func(x modelNode) bool { return x.store == holdsForming }) {
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
	var all, out []nodeInfo
	for j, x := range s.nodes[:m.n] {
		if x.runs != "" {
			all = append(all, nodeInfo{Node: m.names[j], Store: x.store, Phase: x.runs, Current: x.joins})
		}
	}
	for _, a := range all {
		if a.Node == m.names[i] {
			continue
		}
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
	switch x.runs {
	case "":
		m.with(s, i, modelNode{store: x.store, runs: phaseWaiting, joins: x.joins})
		m.with(s, i, modelNode{store: holdsNothing}) // its volume is lost
		return
	case "ready":
		formed := !slices.ContainsFunc(s.nodes[:m.n], func(o modelNode) bool { return o.store == holdsNothing || o.store == holdsForming })
		switch {
		case x.store == holdsForming && leads:
			m.with(s, i, modelNode{store: holdsFormed, runs: "ready"})
		case x.store == holdsFormed && formed:
			m.with(s, i, modelNode{store: holdsAll, runs: "ready"})
		case x.store == holdsFilling && leads && !x.joins:
			m.with(s, i, modelNode{store: holdsFilling, runs: "ready", joins: true})
		case x.store == holdsFilling && leads:
			m.with(s, i, modelNode{store: holdsAll, runs: "ready"})
		}
		if (x.store == holdsAll || x.store == holdsFilling && x.joins) && leads {
			s := s
			s.acked = true
			m.add(s)
		}
	}
	m.with(s, i, modelNode{store: x.store, joins: x.joins}) // it crashes
}
