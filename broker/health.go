package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// statusStreams bounds the wait for the list of streams in status.get; a command line
// waits 5 s for the answer.
const statusStreams = 3 * time.Second

// view reads the state of a broker, for probes, metrics and status.get.
type view struct{ *Broker }

// live says whether a restart would help: only a store that reported a failed sync is
// beyond repair from within, or one that had no space and has it again. While there is
// no space a restart would only fail.
func (b view) live() error {
	switch {
	case b.guards.spaceBack():
		return ErrSpaceBack
	case b.guards.starved.Load():
		return b.server.Err()
	}
	return b.storage()
}

// storage says whether acknowledgements can be given.
func (b view) storage() error {
	if b.barrier != nil && b.barrier.Stats().Failed {
		return errors.New("stable storage reported an error: nothing more is acknowledged until a restart")
	}
	return b.server.Err()
}

// ready says whether clients should be sent here.
func (b view) ready() error {
	if p := phase(b.phase.Load()); p != phaseReady {
		return errors.New(phaseNames[p])
	}
	return errors.Join(b.storage(), b.server.Health(), b.keyringHealth(), b.guards.ready(), clockHealth(b.Broker), b.recordable())
}

func (b view) keyringHealth() error {
	from, until := b.material.Load().attests()
	if now := time.Now(); now.Before(from) || !now.Before(until) {
		return fmt.Errorf("the attestation key is valid from %s to %s: events are refused", from.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	return nil
}

// reloadHealth says whether what is on disk is what is in force. It does not make
// the broker less ready.
func (b view) reloadHealth() error {
	if f := b.fault.Load(); f != nil {
		return fmt.Errorf("the last reload failed: %w", *f)
	}
	return nil
}

// status answers status.get for one tenant: of the others it tells nothing but the
// load of the node as a whole.
func (b view) status(ctx context.Context, tenant string) (adminapi.Status, error) {
	m := b.material.Load()
	g := b.gate.Stats()
	out := adminapi.Status{
		Server: adminapi.ServerStatus{
			Name: b.cfg.Name, Version: b.version, NATSVersion: embed.Version,
			Started: b.started, Time: time.Now(), Durability: string(b.Durability()),
		},
		Policy:       adminapi.PolicyStatus{Digest: m.policy.Digest(), Version: m.applied.inForce(), Loaded: m.loaded},
		Gate:         adminapi.GateStatus{Connections: int(g.Connections), Subscriptions: int(g.Subscriptions), Accepted: g.Messages},
		Certificates: []adminapi.Certificate{{Subject: b.cfg.TLS.Certificate, NotAfter: b.cert.Expires()}},
	}
	if b.cfg.Cluster != nil {
		out.Server.Cluster = b.cfg.Cluster.Name
	}
	if t := m.policy.Tenant(tenant); t != nil {
		out.Policy.Tenants, out.Policy.Principals = 1, len(t.Principals())
	}
	out.DeadLetters.Dropped = b.letters.DroppedOf(tenant)
	for code, n := range b.trail.CountsOf(tenant) {
		out.Gate.Refused += n
		out.Refusals = append(out.Refusals, adminapi.CodeCount{Code: code, Name: code.Entry().Name, Count: n})
	}
	slices.SortFunc(out.Refusals, func(x, y adminapi.CodeCount) int {
		if x.Count != y.Count {
			return int(y.Count) - int(x.Count)
		}
		return int(x.Code) - int(y.Code)
	})
	if err := streamStatus(ctx, b, tenant, &out); err != nil {
		out.Health = append(out.Health, adminapi.HealthPart{Part: "streams", Detail: "not listed: " + err.Error()})
	}
	for part, check := range map[string]func() error{
		"storage": b.storage, "server": b.server.Health, "keyring": b.keyringHealth, "reload": b.reloadHealth,
		"volume": b.guards.volumeHealth, "audit": b.auditing.health, "memory": b.guards.memory.Over, "clock": func() error { return clockHealth(b.Broker) },
	} {
		h := adminapi.HealthPart{Part: part, OK: true}
		if err := check(); err != nil {
			h.OK, h.Detail = false, err.Error()
		}
		out.Health = append(out.Health, h)
	}
	out.Health = append(out.Health, b.integrityHealth(tenant), b.logHealth(tenant), b.roomHealth(), b.failuresHealth(tenant))
	if b.cfg.Audit.UnsafeContinueUnaudited {
		out.Health = append(out.Health, adminapi.HealthPart{Part: "audit", Detail: "unsafeContinueUnaudited: when the spool is full, logins and changes leave no record"})
	}
	if b.Durability() == DurabilityUnsafeLazy {
		out.Health = append(out.Health, adminapi.HealthPart{Part: "durability", Detail: "unsafe-lazy-sync: a power cut loses acknowledged events"})
	}
	out.Health = append(out.Health, ringFileHealth(b.Broker), givenHealth(b.Broker))
	slices.SortFunc(out.Health, func(x, y adminapi.HealthPart) int { return cmpText(x.Part, y.Part) })
	return out, nil
}

// streamStatus fills in what the store says of the streams. A cluster without a quorum
// does not answer that: whoever asks wants to know the rest then, and soon.
func streamStatus(ctx context.Context, b view, tenant string, out *adminapi.Status) error {
	ctx, cancel := context.WithTimeout(ctx, statusStreams)
	defer cancel()
	streams, err := b.store.Streams(ctx, tenant)
	if err != nil {
		return err
	}
	for _, s := range streams {
		if s.Name == wire.StreamDLQ {
			out.DeadLetters.Messages, out.DeadLetters.Bytes, out.DeadLetters.MaxBytes = s.Messages, s.Bytes, s.MaxBytes
			continue
		}
		if s.Name == wire.StreamRetry {
			out.DeadLetters.Queued = s.Messages
			continue
		}
		out.Streams = append(out.Streams, adminapi.StreamStatus{
			Name: s.Name, Subjects: s.Subjects, Messages: s.Messages, Bytes: s.Bytes, MaxBytes: s.MaxBytes,
			FirstSeq: s.FirstSeq, LastSeq: s.LastSeq, Consumers: s.Consumers, MaxAgeMs: s.MaxAge.Milliseconds(), FirstTime: s.FirstTime,
		})
	}
	return nil
}

// consumers answers status.consumers for one tenant.
func (b view) consumers(ctx context.Context, tenant string) ([]adminapi.ConsumerStatus, error) {
	states, err := b.store.ConsumerStates(ctx, tenant)
	if err != nil {
		return nil, wire.Refuse(wire.CodeUnavailable, "status", err.Error())
	}
	out := make([]adminapi.ConsumerStatus, len(states))
	for i := range states {
		out[i] = adminapi.ConsumerStatus(states[i])
	}
	return out, nil
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// metrics are the sources of the operations port (docs/operations.md).
func (b view) metrics() []ops.Source {
	one := func(name, help string, kind ops.Kind, read func() float64) ops.Source {
		return ops.Source{Name: name, Help: help, Kind: kind, Read: func(emit func(float64, ...string)) { emit(read()) }}
	}
	out := []ops.Source{
		one("signet_gate_connections", "Client connections open now.", ops.Gauge, func() float64 { return float64(b.gate.Stats().Connections) }),
		one("signet_gate_messages_total", "Publishes that were let in.", ops.Counter, func() float64 { return float64(b.gate.Stats().Messages) }),
		{Name: "signet_gate_turned_away_total", Help: "Connections that were not let in, by the setting that is the limit.", Kind: ops.Counter, Labels: []string{"limit"}, Read: func(emit func(float64, ...string)) {
			for limit, n := range b.gate.Stats().TurnedAway {
				emit(float64(n), limit)
			}
		}},
		one("signet_gate_panics_total", "Connections that a fault of the broker has ended.", ops.Counter, func() float64 { return float64(b.gate.Stats().Panics) }),
		one("signet_gate_read_bytes_total", "Bytes read from clients.", ops.Counter, func() float64 { return float64(b.gate.Stats().BytesIn) }),
		one("signet_gate_written_bytes_total", "Bytes written to clients.", ops.Counter, func() float64 { return float64(b.gate.Stats().BytesOut) }),
		one("signet_gate_held_acks_total", "Acknowledgements that waited for stable storage.", ops.Counter, func() float64 { return float64(b.gate.Stats().HeldAcks) }),
		{Name: "signet_refusals_total", Help: "Refusals by code.", Kind: ops.Counter, Labels: []string{"code", "name"}, Read: func(emit func(float64, ...string)) {
			for code, n := range b.trail.Counts() {
				emit(float64(n), strconv.Itoa(int(code)), code.Entry().Name)
			}
		}},
		one("signet_dead_letters_written_total", "Dead letters stored.", ops.Counter, func() float64 { return float64(b.letters.Stats().Written) }),
		{Name: "signet_dead_letters_dropped_total", Help: "Dead letters not stored, by cause.", Kind: ops.Counter, Labels: []string{"cause"}, Read: func(emit func(float64, ...string)) {
			for cause, n := range b.letters.Stats().Dropped {
				emit(float64(n), string(cause))
			}
		}},
		one("signet_reload_ok", "1 while the last reload went well, 0 after one that failed.", ops.Gauge, func() float64 {
			if b.reloadHealth() != nil {
				return 0
			}
			return 1
		}),
		one("signet_certificate_expiry_seconds", "Unix time at which the server certificate expires.", ops.Gauge, func() float64 { return float64(b.cert.Expires().Unix()) }),
		one("signet_attestation_expiry_seconds", "Unix time from which events are refused because the attestation key or the keyring has expired.", ops.Gauge, func() float64 {
			_, until := b.material.Load().attests()
			return float64(until.Unix())
		}),
		{Name: "signet_store_bytes", Help: "Bytes stored, reserved and allowed, by tenant.", Kind: ops.Gauge, Labels: []string{"tenant", "what"}, Read: func(emit func(float64, ...string)) {
			for _, t := range b.server.Stats().JetStream.Tenants {
				emit(float64(t.StoredBytes), t.Name, "stored")
				emit(float64(t.ReservedBytes), t.Name, "reserved")
				emit(float64(t.LimitBytes), t.Name, "limit")
			}
		}},
		one("signet_server_slow_consumers_total", "Connections cut because they read too slowly.", ops.Counter, func() float64 { return float64(b.server.Stats().SlowConsumers) }),
	}
	out = append(out, b.guards.metrics()...)
	out = append(out, auditMetrics(b.Broker)...)
	out = append(out, b.integrityMetrics()...)
	out = append(out, clockMetrics(b.Broker)...)
	out = append(out, logMetrics(b.Broker)...)
	out = append(out, policyMetrics(b.Broker)...)
	out = append(out, limitMetrics(b.Broker)...)
	out = append(out, trustMetrics(b.Broker)...)
	out = append(out, routeMetrics(b.Broker)...)
	out = append(out, ringMetrics(b.Broker)...)
	out = append(out, receiptMetrics(b.Broker)...)
	out = append(out, failureMetrics(b.Broker)...)
	out = append(out, scheduleMetrics(b.Broker)...)
	if b.barrier != nil {
		out = append(out,
			one("signet_barrier_syncs_total", "Syncs of the store's volume.", ops.Counter, func() float64 { return float64(b.barrier.Stats().Syncs) }),
			one("signet_barrier_waits_total", "Waits for a sync.", ops.Counter, func() float64 { return float64(b.barrier.Stats().Waits) }),
		)
	}
	return out
}
