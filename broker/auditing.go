package broker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/broker/diskguard"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// auditDir is the folder of the spool, beside the streams.
const auditDir = "audit"

// floorsWithin bounds the questions for ack floors, once a minute.
const floorsWithin = 10 * time.Second

// AuditConfig is the audit trail of this node (docs/spec/audit.md).
type AuditConfig struct {
	// Spool is how much waits on disk while the stream takes no records; when it is full,
	// logins and changes are refused. Default audit.DefaultSpoolBytes, at least audit.MinSpoolBytes.
	Spool ByteSize `yaml:"spool"`
	// Sinks get a copy of all records of this node. Default: none.
	Sinks []AuditSink `yaml:"sinks,omitempty"`
	// UnsafeContinueUnaudited lets logins and changes through when the spool is full:
	// nobody will know of them. Logged, and visible in health.
	UnsafeContinueUnaudited bool `yaml:"unsafeContinueUnaudited"`
}

// AuditSink is one place for a copy of the records: exactly one of File, Stdout and
// Syslog.
type AuditSink struct {
	File     string   `yaml:"file,omitempty"`     // appended to and synced; made with mode 0600
	MaxBytes ByteSize `yaml:"maxBytes,omitempty"` // of File, after which it is renamed; default audit.DefaultSinkFileBytes, at least audit.MinSinkFileBytes
	Stdout   bool     `yaml:"stdout,omitempty"`
	Syslog   string   `yaml:"syslog,omitempty"` // udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH
}

func (c *AuditConfig) validate(fail func(format string, args ...any)) {
	if c.Spool < audit.MinSpoolBytes || c.Spool > 1<<40 {
		fail("audit.spool: want %d to %d, got %d", audit.MinSpoolBytes, int64(1)<<40, int64(c.Spool))
	}
	for i := range c.Sinks {
		s := &c.Sinks[i]
		chosen := 0
		for _, is := range []bool{s.File != "", s.Stdout, s.Syslog != ""} {
			if is {
				chosen++
			}
		}
		if chosen != 1 {
			fail("audit.sinks[%d]: want exactly one of file, stdout and syslog", i)
		}
		if s.MaxBytes != 0 && (s.File == "" || s.MaxBytes < audit.MinSinkFileBytes) {
			fail("audit.sinks[%d].maxBytes: of a file, at least %d", i, audit.MinSinkFileBytes)
		}
		if s.Syslog != "" {
			if _, _, err := audit.ParseSyslog(s.Syslog); err != nil {
				fail("audit.sinks[%d]: %v", i, err)
			}
		}
	}
}

// open makes the sinks.
func (c *AuditConfig) open(node string) ([]audit.Sink, error) {
	var out []audit.Sink
	for i := range c.Sinks {
		var s audit.Sink
		var err error
		switch f := &c.Sinks[i]; {
		case f.Stdout:
			s = audit.NewWriterSink("stdout", os.Stdout)
		case f.Syslog != "":
			s, err = audit.NewSyslogSink(f.Syslog, strings.ReplaceAll(node, " ", "_"))
		default:
			s, err = audit.NewFileSink(f.File, int64(f.MaxBytes))
		}
		if err != nil {
			for _, o := range out {
				err = errors.Join(err, o.Close())
			}
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// auditing is what the broker puts on record with. Its methods may be called from the
// goroutines of connections: they do no I/O.
type auditing struct {
	trail   *audit.Trail
	journal *audit.Journal
	minute  *audit.Minute
	records *audit.Records
	pruner  *audit.Pruner
	heads   *audit.Heads
}

// startAudit opens the journal before anything can happen that must be on record. What
// it gathers goes to the stream from startAuditStream on.
func (b startup) startAudit(ctx context.Context, m *material) error {
	key, _ := m.ring.ByID(m.signer.KeyID())
	sinks, err := b.cfg.Audit.open(key.Principal)
	if err != nil {
		return err
	}
	b.journal, err = audit.OpenJournal(audit.JournalConfig{
		Node: key.Principal, Dir: filepath.Join(b.cfg.State, auditDir), Spool: int64(b.cfg.Audit.Spool), Sinks: sinks,
		Signer: func() *signing.Signer { return b.material.Load().signer }, Log: b.component("audit"),
	})
	if err != nil {
		return err
	}
	b.running("journal", b.journal.Shutdown)
	b.minute = audit.NewMinute(b.journal)
	b.pruner = audit.NewPruner(audit.PrunerConfig{
		Journal: b.journal, Log: b.component("audit"), Clock: func() error { return clockHealth(b.Broker) },
		Members: func() []string { return auditMembers(b.Broker) },
		Keep:    func(tenant string) audit.Retention { return retention(b.Policy(), tenant) },
		Verify:  func(batch *auditlog.Batch, tenant string) error { return batch.Verify(tenant, b.material.Load().ring) },
	})
	b.heads = audit.NewHeads(audit.HeadsConfig{
		Journal: b.journal, Keep: store.HeadsAge, Log: b.component("audit"),
		Full: func() bool { return b.guards.reading().Level >= diskguard.Hard },
	})
	b.trail = audit.New(audit.Config{Log: b.component("audit"), Record: func(e auditlog.Entry) { b.note(b.Policy(), e) }})
	if err := b.trail.Start(ctx); err != nil {
		return err
	}
	b.running("audit", func(ctx context.Context) error {
		err := b.trail.Shutdown(ctx)
		b.journal.Note(auditlog.Entry{Kind: auditlog.KindBroker, Outcome: auditlog.OutcomeOK, Subject: "stop"})
		return err
	})
	if b.cfg.Audit.UnsafeContinueUnaudited {
		b.log.Warn().Msg("audit.unsafeContinueUnaudited is on: when the spool is full, logins and changes leave no record")
	}
	b.journal.Note(auditlog.Entry{
		Kind: auditlog.KindBroker, Outcome: auditlog.OutcomeOK, Subject: "start", After: m.policy.Digest(), Version: m.ring.Version(),
		Detail: "signet " + b.version + ", node key " + m.signer.KeyID(),
	})
	return nil
}

// auditMembers are the nodes of the configuration and of the cluster's log: one that is in
// neither is gone. nil while that is not known.
func auditMembers(b *Broker) []string {
	key, _ := b.material.Load().ring.ByID(b.material.Load().signer.KeyID())
	out := []string{key.Principal}
	if b.cfg.Cluster == nil {
		return out
	}
	state := b.server.Cluster()
	if b.nodes == nil || state.Quorum() != nil {
		return nil
	}
	for name := range b.cfg.Cluster.Nodes {
		out = append(out, name)
	}
	for _, peer := range state.Peers {
		out = append(out, peer.Name)
	}
	return out
}

// health says what somebody must look at, or nil.
func (a *auditing) health() error {
	return errors.Join(a.journal.Health(), a.pruner.Health(), a.heads.Health())
}

// note puts an entry on record. What the log says of accounts that are no tenants is the
// broker's.
func (a *auditing) note(set *policy.Set, e auditlog.Entry) {
	if set.Tenant(e.Tenant) == nil {
		e.Tenant = auditlog.SystemTenant
	}
	a.journal.Note(e)
}

// startAuditStream brings the records to the stream from here on.
func (b startup) startAuditStream(context.Context, *material) error {
	own := func() (*nats.Conn, error) { return b.store.Conn(wire.BrokerAccount) }
	durable := func(ctx context.Context) error {
		if b.barrier == nil {
			return nil
		}
		return b.barrier.Wait(ctx)
	}
	s := audit.NewStream(own, store.StreamAudit, durable)
	b.records = audit.NewRecords(b.journal, s)
	b.journal.Attach(s)
	b.pruner.Attach(s)
	b.heads.Start(audit.NewStream(own, store.StreamHeads, durable))
	b.running("audit stream", func(ctx context.Context) error {
		b.pruner.Detach()
		b.trail.Flush()
		flushMinute(ctx, b.Broker)
		err := b.journal.Detach(ctx)
		b.heads.Shutdown(ctx) // with those of the last records
		return err
	})
	return nil
}

// retention is how much of a trail is kept. The broker's own is kept for as long as that
// of any tenant; one of a tenant that the policy does not have any more, as by default.
func retention(set *policy.Set, tenant string) audit.Retention {
	if t := set.Tenant(tenant); t != nil {
		return audit.Retention{MaxBytes: int64(t.Audit.MaxBytes), MaxAge: t.Audit.MaxAge}
	}
	out := audit.Retention{MaxBytes: int64(policy.DefaultAuditMaxBytes), MaxAge: policy.DefaultAuditMaxAge}
	if tenant == auditlog.SystemTenant {
		out.MaxBytes = store.AuditSystemBytes
		for _, t := range set.Tenants() {
			out.MaxAge = max(out.MaxAge, t.Audit.MaxAge)
		}
	}
	return out
}

// recordable is gate.Deps.Recordable.
func (b *Broker) recordable() error {
	if b.cfg.Audit.UnsafeContinueUnaudited {
		return nil
	}
	return b.journal.Room()
}

// flushMinute puts on record what was gathered in the last minute.
func flushMinute(ctx context.Context, b *Broker) {
	ctx, cancel := context.WithTimeout(ctx, floorsWithin)
	defer cancel()
	floors := map[[3]string]uint64{}
	for _, tenant := range b.minute.Tenants() {
		states, err := b.store.ConsumerStates(ctx, tenant)
		if err != nil {
			b.log.Debug().Err(err).Str("tenant", tenant).Msg("no ack floors for the audit trail")
			continue
		}
		for i := range states {
			floors[[3]string{tenant, states[i].Stream, states[i].Name}] = states[i].AckFloor
		}
	}
	b.minute.Flush(func(tenant, stream, consumer string) uint64 { return floors[[3]string{tenant, stream, consumer}] })
}

// reloaded puts on record what a reload has changed, or that it was refused.
func (a *auditing) reloaded(old, now *material, err error) {
	e := auditlog.Entry{Kind: auditlog.KindPolicy, Outcome: auditlog.OutcomeOK, Subject: "reload", Before: old.policy.Digest(), After: now.policy.Digest()}
	if err != nil {
		e.Outcome, e.Detail = auditlog.OutcomeFailed, err.Error()
	}
	if err != nil || now.policyChanged(old) {
		a.journal.Note(e)
	}
	if now.policyChanged(old) {
		for _, t := range now.policy.Tenants() {
			of := e
			of.Tenant, of.Detail = t.Name, ""
			a.journal.Note(of)
			a.schemas(old.policy.Tenant(t.Name), t)
		}
	}
	if string(old.ringDoc) != string(now.ringDoc) {
		a.journal.Note(auditlog.Entry{
			Kind: auditlog.KindKeys, Outcome: auditlog.OutcomeOK, Subject: "keyring", Version: now.ring.Version(),
			Before: digest(old.ringDoc), After: digest(now.ringDoc),
		})
	}
	if old.signer.KeyID() != now.signer.KeyID() {
		a.journal.Note(auditlog.Entry{Kind: auditlog.KindKeys, Outcome: auditlog.OutcomeOK, Subject: "node key", Before: old.signer.KeyID(), After: now.signer.KeyID()})
	}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// schemas puts on record which schema versions of a tenant came, went or changed.
func (a *auditing) schemas(old, now *policy.Tenant) {
	type key struct {
		name    string
		version int
	}
	before := map[key]string{}
	if old != nil {
		for i := range old.Schemas {
			d := &old.Schemas[i]
			before[key{d.Name, d.Version}] = hex.EncodeToString(d.SHA256[:])
		}
	}
	note := func(k key, before, after string) {
		a.journal.Note(auditlog.Entry{
			Tenant: now.Name, Kind: auditlog.KindSchema, Outcome: auditlog.OutcomeOK, Subject: k.name, Version: uint64(k.version),
			Before: before, After: after,
		})
	}
	for i := range now.Schemas {
		d := &now.Schemas[i]
		k, after := key{d.Name, d.Version}, hex.EncodeToString(d.SHA256[:])
		if before[k] != after {
			note(k, before[k], after)
		}
		delete(before, k)
	}
	for k, was := range before {
		note(k, was, "")
	}
}

// connected puts a login on record.
func (a *auditing) connected(c *gate.Connection) {
	a.minute.Each(auditlog.Entry{
		Tenant: c.Tenant, Kind: auditlog.KindLogin, Outcome: auditlog.OutcomeOK, Who: c.Tenant + "/" + c.Principal, Remote: c.Remote,
		Detail: strings.TrimSpace(c.Method + " " + c.Identity + "; " + c.Lang + " " + c.Version + " " + c.Name),
	})
}

// Requested implements gate.Sink.
func (s *sink) Requested(c *gate.Connection, access jsapi.Access, v *jsapi.Verdict) {
	e := auditlog.Entry{
		Tenant: c.Tenant, Kind: auditlog.KindAPI, Outcome: auditlog.OutcomeBegun, Who: c.Tenant + "/" + c.Principal, Remote: c.Remote,
		Subject: v.Subject, Stream: v.Stream, Consumer: v.Consumer, Detail: asked(v.Body),
	}
	if access == jsapi.AccessRead {
		t := s.policy().Tenant(c.Tenant)
		if t == nil || !auditsStream(t, v.Stream) {
			return
		}
		e.Kind = auditlog.KindRead
	}
	if access == jsapi.AccessDelete { // each by itself: one of them must not hide behind others
		s.rec.journal.Note(e)
		return
	}
	s.rec.minute.Each(e)
}

// auditsStream reports whether a rule with audit: full reaches into a stream.
func auditsStream(t *policy.Tenant, name string) bool {
	stream := t.Stream(name)
	if stream == nil {
		return false
	}
	for i := range t.Bindings {
		for _, subject := range stream.Subjects {
			if b := &t.Bindings[i]; b.AuditFull && wire.Overlap(b.Match, subject) {
				return true
			}
		}
	}
	return false
}

// asked says what a JetStream API request was about: selectors, never contents.
func asked(body []byte) string {
	var q struct {
		Seq    uint64          `json:"seq"`
		Filter string          `json:"filter"`
		Keep   uint64          `json:"keep"`
		Last   string          `json:"last_by_subj"`
		Next   string          `json:"next_by_subj"`
		Multi  []string        `json:"multi_last"`
		Pause  json.RawMessage `json:"pause_until"`
		Config struct {
			Filter  string   `json:"filter_subject"`
			Filters []string `json:"filter_subjects"`
		} `json:"config"`
	}
	if json.Unmarshal(body, &q) != nil {
		return ""
	}
	var out []string
	add := func(name, value string) {
		if value != "" && value != "0" {
			out = append(out, name+"="+value)
		}
	}
	add("seq", fmt.Sprint(q.Seq))
	add("keep", fmt.Sprint(q.Keep))
	add("filter", q.Filter+q.Last+q.Next+q.Config.Filter+strings.Join(append(q.Multi, q.Config.Filters...), ","))
	add("pauseUntil", string(q.Pause))
	return strings.Join(out, " ")
}

// Delivered implements gate.Sink.
func (s *sink) Delivered(c *gate.Connection, d *gate.Delivery) {
	e := auditlog.Entry{
		Tenant: c.Tenant, Kind: auditlog.KindDelivery, Outcome: auditlog.OutcomeOK, Who: c.Tenant + "/" + c.Principal, Remote: c.Remote,
		Subject: d.Subject, Stream: d.Stream, Consumer: d.Consumer, First: d.Sequence,
	}
	if d.Attempt > 1 {
		e.Count = d.Attempt
	}
	s.rec.journal.Note(e)
}

// Tallied implements gate.Sink.
func (s *sink) Tallied(c *gate.Connection, ranges []gate.Range) {
	for _, r := range ranges {
		s.rec.minute.Count(auditlog.Entry{
			Tenant: c.Tenant, Kind: auditlog.KindDelivered, Outcome: auditlog.OutcomeOK, Who: c.Tenant + "/" + c.Principal, Remote: c.Remote,
			Stream: r.Stream, Consumer: r.Consumer, First: r.First, Last: r.Last, Count: r.Count,
		})
	}
}

// auditMetrics are the sources of the operations port for the trail.
func auditMetrics(b *Broker) []ops.Source {
	one := func(name, help string, kind ops.Kind, read func(audit.JournalStats) float64) ops.Source {
		return ops.Source{Name: name, Help: help, Kind: kind, Read: func(emit func(float64, ...string)) { emit(read(b.journal.Stats())) }}
	}
	return []ops.Source{
		one("signet_audit_records_total", "Audit records kept.", ops.Counter, func(s audit.JournalStats) float64 { return float64(s.Records) }),
		one("signet_audit_lost_total", "Audit records that could not be kept.", ops.Counter, func(s audit.JournalStats) float64 { return float64(s.Lost) }),
		one("signet_audit_spool_bytes", "Bytes of audit records in the spool.", ops.Gauge, func(s audit.JournalStats) float64 { return float64(s.SpoolBytes) }),
		one("signet_audit_spool_limit_bytes", "Size of the spool from which on logins and changes are refused.", ops.Gauge, func(s audit.JournalStats) float64 { return float64(s.SpoolLimit) }),
		one("signet_audit_pending_batches", "Batches of audit records that the stream does not have.", ops.Gauge, func(s audit.JournalStats) float64 { return float64(s.Pending) }),
		one("signet_audit_ok", "1 while the audit trail is stored and whole as far as this node knows, else 0.", ops.Gauge, func(audit.JournalStats) float64 {
			if b.auditing.health() != nil {
				return 0
			}
			return 1
		}),
		{Name: "signet_audit_heads_total", Help: "Heads of this node's chains that it has published in the stream HEADS.", Kind: ops.Counter, Read: func(emit func(float64, ...string)) {
			emit(float64(b.heads.Published()))
		}},
		{Name: "signet_audit_pruned_total", Help: "Audit records of this node that were pruned, with a record of it.", Kind: ops.Counter, Labels: []string{"why"}, Read: func(emit func(float64, ...string)) {
			s := b.pruner.Stats()
			emit(float64(s.Age), auditlog.PrunedAge)
			emit(float64(s.Size), auditlog.PrunedSize)
		}},
		{Name: "signet_audit_pruned_early_total", Help: "Audit records that were pruned for their size before half of their time.", Kind: ops.Counter, Read: func(emit func(float64, ...string)) {
			emit(float64(b.pruner.Stats().Early))
		}},
		{Name: "signet_audit_sink_errors_total", Help: "Batches of audit records that a sink did not take.", Kind: ops.Counter, Labels: []string{"sink"}, Read: func(emit func(float64, ...string)) {
			for sink, n := range b.journal.Stats().SinkErrors {
				emit(float64(n), sink)
			}
		}},
	}
}
