package broker

import (
	"context"
	"errors"
	"fmt"
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
// stream knows an event id for longer than its window again.
const clockBound = policy.MinDuplicateWindow

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
		return fmt.Errorf("%w: it is %s: nothing was opened; set the clock (chronyc makestep) and start again", ErrClock, what)
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

// compareClocks asks the other nodes what time it is, once a minute, and warns of those
// that have another one.
func compareClocks(ctx context.Context, b *Broker) {
	if b.nodes == nil {
		return
	}
	seen := map[string]time.Duration{}
	for _, info := range b.nodes.ask(ctx, question{}) {
		seen[info.Node] = info.ahead
		warnClock(b, &info)
	}
	b.nodes.clocks.Store(&seen)
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
