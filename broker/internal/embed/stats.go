package embed

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
)

// ErrUnhealthy wraps what nats-server says of its own state.
var ErrUnhealthy = errors.New("embed: nats-server is not healthy")

// Stats are the server's counters and gauges at one moment. Counters start at 0
// with the server. The broker's internal connections are counted too.
type Stats struct {
	Connections      int
	ConnectionsTotal uint64
	Subscriptions    uint32
	InMsgs, InBytes  int64 // from connections
	OutMsgs          int64
	OutBytes         int64
	SlowConsumers    int64
	StaleConnections int64
	Tickets          int    // live
	TicketsRefused   uint64 // failed checks of a CONNECT or at a reload
	JetStream        JetStreamStats
}

// JetStreamStats is the part of Stats about the store.
type JetStreamStats struct {
	Enabled       bool // false: JetStream has shut itself off, for instance on a full disk
	StoredBytes   uint64
	ReservedBytes uint64 // by max_bytes of streams
	LimitBytes    uint64 // of all accounts
	APIRequests   uint64
	APIErrors     uint64
	Tenants       []TenantStats // sorted by name
}

// TenantStats is one account's part.
type TenantStats struct {
	Name                                   string
	Streams, Consumers                     int
	StoredBytes, ReservedBytes, LimitBytes uint64
}

// Stats reads the counters. It costs some tens of microseconds and some more per
// tenant; call it per scrape, not per message.
func (s *Server) Stats() Stats {
	v, err := s.ns.Varz(nil)
	if err != nil { // it has no way to fail in v2.15
		v = &server.Varz{}
	}
	st := Stats{
		Connections: v.Connections, ConnectionsTotal: v.TotalConnections, Subscriptions: v.Subscriptions,
		InMsgs: v.InMsgs, InBytes: v.InBytes, OutMsgs: v.OutMsgs, OutBytes: v.OutBytes,
		SlowConsumers: v.SlowConsumers, StaleConnections: v.StaleConnections,
		Tickets: s.tickets.len(), TicketsRefused: s.tickets.refused.Load(),
	}
	st.JetStream.Enabled = s.JetStreamEnabled()
	if js := v.JetStream.Stats; js != nil {
		st.JetStream.StoredBytes, st.JetStream.ReservedBytes = js.Store, js.ReservedStore
		st.JetStream.APIRequests, st.JetStream.APIErrors = js.API.Total, js.API.Errors
	}
	s.mu.Lock()
	accounts := slices.Collect(maps.Values(s.accounts))
	s.mu.Unlock()
	for _, a := range slices.SortedFunc(slices.Values(accounts), byName) {
		t := TenantStats{Name: a.Name, LimitBytes: uint64(a.MaxBytes)}
		if acc, err := s.ns.LookupAccount(a.Name); err == nil && acc.JetStreamEnabled() {
			u := acc.JetStreamUsage()
			t.Streams, t.Consumers, t.StoredBytes, t.ReservedBytes = u.Streams, u.Consumers, u.Store, u.ReservedStore
		}
		st.JetStream.LimitBytes += t.LimitBytes
		st.JetStream.Tenants = append(st.JetStream.Tenants, t)
	}
	return st
}

// JetStreamEnabled reports whether JetStream runs. It shuts itself off when it has no
// space or may not write, and only a new server has it again.
func (s *Server) JetStreamEnabled() bool { return s.ns.JetStreamEnabled() }

// Health returns nil while the server, JetStream and every stream serve, else why
// not, wrapping ErrUnhealthy. In a cluster streams are not looked at, since one that
// lags, or that a client broke, must not take a node out; that the node has a quorum
// is (ErrNoQuorum).
func (s *Server) Health() error {
	clustered := s.cfg.Cluster != nil
	if h := s.ns.Healthz(&server.HealthzOptions{JSEnabledOnly: clustered}); h.Status != "ok" {
		return fmt.Errorf("%w: %s", ErrUnhealthy, cmp.Or(h.Error, h.Status))
	}
	return s.Cluster().Quorum()
}
