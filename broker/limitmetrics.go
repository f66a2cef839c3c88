package broker

import "github.com/signetbus/signet/broker/ops"

// limitMetrics are those of rate limits over several nodes; none on a broker by itself.
func limitMetrics(b *Broker) []ops.Source {
	if b.nodes == nil {
		return nil
	}
	s := b.nodes.limits
	one := func(name, help string, kind ops.Kind, read func() float64) ops.Source {
		return ops.Source{Name: name, Help: help, Kind: kind, Read: func(emit func(float64, ...string)) { emit(read()) }}
	}
	return []ops.Source{
		one("signet_limit_owner", "1 while this node shares out the rate limits among the nodes.", ops.Gauge, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.peer.Rules(s.now()) {
				return 1
			}
			return 0
		}),
		one("signet_limit_terms_total", "How often this node became the one that shares out the rate limits.", ops.Counter, func() float64 { return float64(s.stats.terms.Load()) }),
		one("signet_limit_asked", "Rate limits that something is counted against at this node now.", ops.Gauge, func() float64 { return float64(b.buckets.Held().Asked) }),
		one("signet_limit_leases", "Of these, those that this node has a lease for.", ops.Gauge, func() float64 { return float64(b.buckets.Held().Leased) }),
		one("signet_limit_shares", "Sum of the shares that this node has by its leases; 1 is the whole rate of one limit.", ops.Gauge, func() float64 { return b.buckets.Held().Shares }),
		one("signet_limit_alone_total", "Reports of demand that no node answered with leases.", ops.Counter, func() float64 { return float64(s.stats.alone.Load()) }),
		one("signet_limit_messages_refused_total", "Messages about rate limits that cannot be of a node of this cluster.", ops.Counter, func() float64 { return float64(s.stats.refused.Load()) }),
	}
}
