package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/ops"
)

const (
	// letFor is how long a node that was let in may be out of touch, on its way from the
	// server without a store to the one with it, before another one is let in.
	letFor = 30 * time.Second
	// letAgain is within what a node that waits asks again.
	letAgain = 3 * time.Second
	// phaseWaiting is told to the others by a node that has not started its store.
	phaseWaiting = "waiting"
)

// holds is what a broker has of the cluster's data.
type holds struct {
	now atomic.Pointer[holding]
	let letIn
	// rescuing: this node leads a rescue, and lets nobody in before the lost are removed.
	rescuing atomic.Bool
}

func (h *holds) get() holding {
	if p := h.now.Load(); p != nil {
		return *p
	}
	return ""
}

// become writes down what a node holds before anybody hears of it.
func (h *holds) become(dir string, to holding) error {
	if h.get() == to {
		return nil
	}
	if err := writeHolding(dir, to); err != nil {
		return err
	}
	h.now.Store(&to)
	return nil
}

// letIn is what the leader of the cluster knows of nodes that have to be filled. They
// start one after the other: two empty stores next to each other can elect one of
// themselves, whoever else leads (nats-server 2.15.2 counts a cluster of three as two
// where it begins a log). And at most most of them run before they are filled, so that
// they are no majority.
type letIn struct {
	mu   sync.Mutex // guards the rest; never held while others are asked
	name string
	at   time.Time // when name asked last
}

// turn returns the node that is let in: asker, or the one that it has to wait for.
// others are the answers of the other nodes, asked for only where they count.
func (l *letIn) turn(asker string, most int, now time.Time, others func() []nodeInfo) string {
	l.mu.Lock()
	name, since := l.name, now.Sub(l.at)
	l.mu.Unlock()
	if name != asker {
		if name != "" && since < letAgain {
			return name
		}
		if busy := inTheWay(name, asker, since, most, others()); busy != "" {
			return busy
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.name != name && l.name != asker {
		return l.name // another one came first meanwhile
	}
	l.name, l.at = asker, now
	return asker
}

// inTheWay returns a node that has to get further before asker is let in: name, which
// was let in last, or one that runs and is not filled.
func inTheWay(name, asker string, since time.Duration, most int, others []nodeInfo) string {
	var filling []string
	for i := range others {
		o := &others[i]
		started := o.Phase != phaseWaiting
		if o.Node != asker && o.Store == holdsFilling && started {
			if !o.Current {
				return o.Node
			}
			filling = append(filling, o.Node)
		}
		if o.Node == name && started {
			name = "" // it is there
		}
	}
	switch {
	case len(filling) >= most:
		return filling[0]
	case since < letFor:
		return name
	}
	return ""
}

// mayLack is how many of n nodes may run without being filled.
func mayLack(n int) int { return (n - 1) / 2 }

// mayLetIn reports whether a leader that holds own may let a node in at all: it has
// forgotten nothing itself, and the first start of the cluster, in which nodes are not
// filled but form it, has ended for all of the rest.
func mayLetIn(own holding, rest []string, others func() []nodeInfo) bool {
	if own != holdsFormed {
		return own == holdsAll
	}
	for _, o := range others() {
		if o.Store != holdsNothing && o.Store != holdsForming {
			rest = slices.DeleteFunc(rest, func(name string) bool { return name == o.Node })
		}
	}
	return len(rest) == 0
}

// givesWay returns a node that comes before asker: one that waits as well, and is a member of
// the log where asker is none. A node that was removed joins only minutes after it, and
// those that come after it would wait as long.
func givesWay(asker string, members []embed.ClusterPeer, others func() []nodeInfo) string {
	is := func(name string) bool {
		return slices.ContainsFunc(members, func(p embed.ClusterPeer) bool { return p.Name == name })
	}
	if is(asker) {
		return ""
	}
	for _, o := range others() {
		if o.Node != asker && o.Phase == phaseWaiting && !o.Store.remembers() && is(o.Node) {
			return o.Node
		}
	}
	return ""
}

// letsIn answers a node that has to be filled. Only the leader of the cluster does. The
// other nodes are asked at most once, and until ctx ends.
func (n *nodes) letsIn(ctx context.Context, asker string) string {
	cluster := n.server.Cluster()
	if cluster.Leader != n.b.cfg.Name || n.b.held.rescuing.Load() {
		return ""
	}
	others := sync.OnceValue(func() []nodeInfo { return n.ask(ctx, question{}) })
	rest := slices.DeleteFunc(n.others(), func(name string) bool { return name == asker })
	if !mayLetIn(n.b.held.get(), rest, others) {
		return ""
	}
	if first := givesWay(asker, cluster.Peers, others); first != "" {
		return first
	}
	return n.b.held.let.turn(asker, mayLack(n.b.cfg.size()), time.Now(), others)
}

// mayStartStore decides by the answers of the others whether the store may be started,
// and writes down as what. The operations port says what a node waits for.
func mayStartStore(b startup, heard []nodeInfo, port *waitingPort) error {
	as, err := mayStart(b.cfg.Name, b.held.get(), b.cfg.nodeNames(), heard)
	if err == nil {
		return b.held.become(b.cfg.State, as)
	}
	if fault := port.says(err); fault != nil {
		return fault
	}
	return err
}

// waitingPort is the operations port of a node that waits before its server is there.
type waitingPort struct {
	b      *Broker
	server *ops.Server
	why    atomic.Pointer[error]
}

// says opens the port, where it is not open, and gives the reason to whoever asks.
func (w *waitingPort) says(why error) error {
	w.why.Store(&why)
	if w.server != nil || w.b.cfg.Ops.Listen == "off" {
		return nil
	}
	check := func() error { return *w.why.Load() }
	s, err := ops.New(ops.Config{Listen: w.b.cfg.Ops.Listen, Ready: check, Started: check})
	if err != nil {
		return err
	}
	w.server = s
	s.Start()
	return nil
}

// close frees the port for the one that a started broker has.
func (w *waitingPort) close(ctx context.Context) error {
	if w.server == nil {
		return nil
	}
	return w.server.Shutdown(ctx)
}

// awaitFormed ends the first start of a cluster: no node lets clients in before all have
// written down that they are part of it. So a node that says that it still forms one
// knows that nothing was ever acknowledged.
func awaitFormed(ctx context.Context, b startup) error {
	if h := b.held.get(); b.nodes == nil || h != holdsForming && h != holdsFormed {
		return nil
	}
	if err := b.held.become(b.cfg.State, holdsFormed); err != nil {
		return err
	}
	poll := time.NewTicker(4 * quorumPoll)
	defer poll.Stop()
	missing, told, looked := b.nodes.others(), time.Now(), time.Now()
	for {
		if missing = unformed(missing, b.nodes.ask(ctx, question{})); len(missing) == 0 {
			return b.held.become(b.cfg.State, holdsAll)
		}
		if time.Since(looked) > rescueLook {
			// This is where a node may wait that has lost the others for good.
			b.nodes.takeOrder(ctx)
			looked = time.Now()
		}
		if b.held.get() == holdsAll { // by a rescue
			return nil
		}
		if time.Since(told) > quorumTell {
			told = time.Now()
			b.log.Warn().Strs("missing", missing).Msg("waiting for the other nodes: the first start of a cluster needs all of them")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.server.Done():
			return errors.Join(ErrServerEnded, b.server.Err())
		case <-poll.C:
		}
	}
}

// unformed takes those of missing out that are past the first start, by one round of
// answers. Where a node has ended it, nobody is missing: it knew all of them to be past
// it, or an operator said in a rescue which of them are lost.
func unformed(missing []string, heard []nodeInfo) []string {
	for _, info := range heard {
		if info.Store == holdsAll {
			return nil
		}
		if info.Store != holdsNothing && info.Store != holdsForming {
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == info.Node })
		}
	}
	return missing
}

// phaseOf is what a node tells of itself.
func phaseOf(b *Broker, server *embed.Server) string {
	if embed.Storeless(server) {
		return phaseWaiting
	}
	return phaseNames[b.phase.Load()]
}
