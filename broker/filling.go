package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
)

const (
	fillLook = time.Second      // between two looks whether a store is filled
	fillTell = 15 * time.Second // between two lines that say what it lacks
)

// startFilling looks until the others have filled the store, and writes that down: from
// then on the node counts as one that has forgotten nothing. It begins before the streams
// are asked for: a start may wait for a stream whose other nodes wait for this one.
func startFilling(b startup) {
	if b.nodes == nil || b.held.get() != holdsFilling {
		return
	}
	life, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		look, done, told := time.NewTicker(fillLook), whole{}, time.Now()
		defer look.Stop()
		for b.held.get() == holdsFilling {
			select {
			case <-life.Done():
				return
			case <-look.C:
			}
			view := b.nodes.gather(life)
			lacks := view.lacks(done)
			if err := embed.Stored(b.server); err != nil {
				lacks = append(lacks, err.Error())
			}
			if len(lacks) > 0 || !mayFill(b) {
				if time.Since(told) > fillTell {
					told = time.Now()
					b.log.Info().Strs("lacks", lacks).Msg("the store is being filled")
				}
				giveLead(life, b, view)
				continue
			}
			if err := b.held.become(b.cfg.State, holdsAll); err != nil {
				b.log.Error().Err(err).Msg("the store is filled, and it could not be written down: after a restart this node waits to be let in again")
				continue
			}
			b.log.Info().Msg("the store is filled: this node has everything that the others have")
		}
	}()
	b.running("filling", func(context.Context) error {
		stop()
		<-ended
		return nil
	})
}

func mayFill(b startup) bool {
	hook := b.cfg.Storage.testOnlyFilled
	return hook == nil || hook()
}

// giveLead hands the cluster's log over where this node leads it: a leader that is not
// filled lets no other node in, and may need one of those to be filled itself.
func giveLead(ctx context.Context, b startup, view *clusterView) {
	to := view.heir()
	if to == "" {
		return
	}
	b.log.Info().Str("to", to).Msg("this node leads the cluster, and its store is not filled: it hands that over")
	if err := b.nodes.ask1(ctx, b.nodes.nc, "$JS.API.META.LEADER.STEPDOWN", preferred(to)); err != nil && ctx.Err() == nil {
		b.log.Warn().Err(err).Str("to", to).Msg("the lead of the cluster is not handed over, trying again")
	}
}

// heir is the node that should lead the log instead of this one, which is not filled;
// empty where this one does not lead, or no other one has forgotten nothing.
func (c *clusterView) heir() string {
	if c.state.Leader != c.self {
		return ""
	}
	for _, name := range c.online(c.self) {
		if c.views[name].Store.remembers() && c.views[name].Phase != phaseWaiting {
			return name
		}
	}
	return ""
}

// whole are the copies of streams on this node that had everything at some look since its
// store was started: what they lack later is on its way to them as to any copy. Without that,
// all streams in use would have to be without a lag at one moment.
type whole map[streamKey]bool

type streamKey struct {
	account, stream string
	consumers       bool // those of the stream, and not the stream itself
}

// lacks lists what this node has not got of what belongs on it: its copies of the log, of
// the streams and of their consumers, each by what the leader says. Copies on other nodes are no
// matter: they may be away for good, and wait for this very node.
func (c *clusterView) lacks(done whole) []string {
	lead := c.views[c.state.Leader]
	if lead == nil || lead.Cluster.Leader != lead.Node {
		return []string{"nobody leads the cluster"}
	}
	var out []string
	if p, member := c.member(c.self); !member || !p.Whole() {
		out = append(out, "the log of the cluster")
	}
	for i := range c.groups {
		g := &c.groups[i]
		at := slices.IndexFunc(g.members, func(m embed.ClusterPeer) bool { return m.Name == c.self })
		if at < 0 && !g.assigned[c.self] {
			continue
		}
		k := streamKey{account: g.account, stream: g.stream}
		if g.leader != "" && at >= 0 && g.members[at].Whole() {
			done[k] = true
		}
		if !done[k] {
			out = append(out, fmt.Sprintf("stream %s of %s, led by %q", g.stream, g.account, g.leader))
		}
		k.consumers = true
		if g.leader != "" && g.lacking[c.self] == 0 {
			done[k] = true
		}
		if !done[k] {
			out = append(out, fmt.Sprintf("%d consumers of stream %s of %s, led by %q", g.lacking[c.self], g.stream, g.account, g.leader))
		}
	}
	return out
}

// owe enters, into the stream s, what the node that tells of g says of the copies.
func (c *clusterView) owe(s *streamGroup, g *embed.Group) {
	for _, node := range g.Assigned {
		s.assigned[node] = true
	}
	for node, n := range g.Lacking {
		s.lacking[node] += n
	}
	if g.Behind > 0 && len(g.Lacking) == 0 { // of a release that tells no more
		for node := range g.Holders {
			s.lacking[node] += g.Behind
		}
	}
	for leader, copies := range g.Following {
		if c.views[leader] != nil {
			continue // it says itself what they have
		}
		for node, n := range copies {
			s.lacking[node] += n
		}
	}
}
