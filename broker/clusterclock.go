package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
)

// clockLimit is from which difference on nodes are told of, in the log and in
// `signet cluster status`. A time service keeps clocks within milliseconds; recorded times,
// ages and the window in which an event id is known again are by the clock of whichever
// node has a client or leads a stream.
const clockLimit = time.Second

// clockBound is from which difference on a node does not start. A store drops what is too
// old by the clock of its own node: one that is ahead by more than a stream keeps events
// would empty its copy, and might lead afterwards (seen with nats-server 2.15.2). And no
// stream knows an event id for longer than its window again, of which this is less than
// the least one. A node that runs is not ready.
const clockBound = policy.ReplayPast + policy.ReplayFuture

// ErrClock: the clock of this node is not that of the other nodes.
var ErrClock = errors.New("broker: this node's clock is wrong")

// errClocks: which clock is wrong cannot be told yet.
var errClocks = errors.New("broker: the clocks differ, and too few nodes are there to tell which one is wrong")

// wrongClock judges the clock here by those of the nodes that were heard of: ErrClock
// where more of them differ from it than agree, itself counted; errClocks where as many
// do, since the node that differs may be the one that is wrong. It is asked before the
// store opens.
func wrongClock(infos []nodeInfo) error {
	var differ []string
	var by time.Duration
	for i := range infos {
		if d := infos[i].ahead; d.Abs() > clockBound {
			differ, by = append(differ, infos[i].Node), d
		}
	}
	agree := len(infos) - len(differ) + 1
	side := "behind"
	if by < 0 {
		side = "ahead of"
	}
	switch what := fmt.Sprintf("%v %s that of %v, more than %v", by.Abs().Round(time.Second), side, differ, clockBound); {
	case len(differ) > agree:
		return fmt.Errorf("%w: it is %s: set it (chronyc makestep)", ErrClock, what)
	case len(differ) == agree:
		return fmt.Errorf("%w: the clock here is %s: set the wrong one (chronyc makestep), or start another node", errClocks, what)
	}
	return nil
}

// ahead is by how much a clock is ahead of this one that said now between sent and got of
// this one; negative: behind. The time that the answer may have been on its way is not
// counted. 0 for a node that does not say.
func ahead(now, sent, got time.Time) time.Duration {
	switch {
	case now.IsZero():
		return 0
	case now.Before(sent):
		return now.Sub(sent)
	case now.After(got):
		return now.Sub(got)
	}
	return 0
}

// compareClocks asks the other nodes what time it is, once a minute and whenever the
// clock here was set, and warns of those that have another one. A clock here that is wrong by
// clockBound makes the node not ready until it is right: it goes on to serve, since an end would
// take a copy of every stream away, and a start is refused.
func compareClocks(ctx context.Context, b *Broker) {
	if b.nodes == nil {
		return
	}
	was := clockHealth(b)
	seen := map[string]time.Duration{}
	for _, info := range b.nodes.ask(ctx, question{}) {
		seen[info.Node] = info.ahead
		warnClock(b, &info)
	}
	b.nodes.clocks.Store(&seen)
	switch err := clockHealth(b); {
	case err != nil:
		b.log.Error().Err(err).Msg("the clock of this node is wrong: it is not ready until that is right")
	case was != nil:
		b.log.Info().Msg("the clock of this node is right again")
	}
}

// clockHealth says whether the clock here is wrong by more than clockBound, as far as the
// latest comparison knows. nil on a broker by itself.
func clockHealth(b *Broker) error {
	if b.nodes == nil || b.nodes.clocks.Load() == nil {
		return nil
	}
	seen := *b.nodes.clocks.Load()
	var infos []nodeInfo
	for _, node := range slices.Sorted(maps.Keys(seen)) {
		infos = append(infos, nodeInfo{Node: node, ahead: seen[node]})
	}
	if err := wrongClock(infos); errors.Is(err, ErrClock) { // where nobody can tell, both would go
		return err
	}
	return nil
}

// clockEvery is how often clockSet looks.
const clockEvery = 2 * time.Second

// clockSet notices when somebody sets the clock here: its time and that of the clock
// which is never set have gone on by different amounts. It begins with a first look.
type clockSet struct {
	wall   time.Time // of the latest look, without its monotonic part
	steady time.Duration
}

// look returns by how much the clock was set since the last look; 0 below clockLimit.
func (c *clockSet) look(wall time.Time, steady time.Duration) time.Duration {
	was := *c
	*c = clockSet{wall: wall.Round(0), steady: steady}
	d := c.wall.Sub(was.wall) - (steady - was.steady)
	if d.Abs() <= clockLimit {
		return 0
	}
	return d
}

// watchClock says when the clock here was set, and compares it then.
func watchClock(ctx context.Context, b *Broker, c *clockSet, began time.Time) {
	if d := c.look(time.Now(), time.Since(began)); d != 0 {
		b.log.Warn().Stringer("by", d.Round(time.Millisecond)).Msg("this node's clock was set: run a time service that slews (chronyc tracking)")
		compareClocks(ctx, b)
	}
}

func warnClock(b *Broker, other *nodeInfo) {
	if other.ahead.Abs() > clockLimit {
		b.log.Warn().Str("node", other.Node).Stringer("ahead", other.ahead.Round(time.Millisecond)).
			Msg("another node's clock differs: run a time service on every node (chronyc tracking)")
	}
}

// clockMetrics are nothing on a broker by itself.
func clockMetrics(b *Broker) []ops.Source {
	if b.cfg.Cluster == nil {
		return nil
	}
	return []ops.Source{{
		Name: "signet_cluster_clock_ahead_seconds", Help: "By how much another node's clock is ahead of this one's; looked at once a minute.",
		Kind: ops.Gauge, Labels: []string{"node"}, Read: func(emit func(float64, ...string)) {
			if b.nodes == nil || b.nodes.clocks.Load() == nil {
				return
			}
			for node, d := range *b.nodes.clocks.Load() {
				emit(d.Seconds(), node)
			}
		},
	}}
}
