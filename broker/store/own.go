package store

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// The broker's own streams, in the account wire.BrokerAccount.
const (
	// StreamAudit has the audit records and the checkpoints of the logs. What is full
	// takes nothing more: nothing makes way by itself. The nodes take the oldest records
	// away, each with a record of it (broker/audit).
	StreamAudit   = "AUDIT"
	SubjectsAudit = "audit.>"
	// StreamLog has the tiles of the logs, of each subject the latest message only.
	StreamLog   = "LOG"
	SubjectsLog = "log.>"
	// StreamKeys has the keyrings that were pushed, the latest few of each subject.
	StreamKeys   = "KEYS"
	SubjectsKeys = "keys.>"
	// StreamHeads has the heads of the audit trail that the nodes publish. It has a log,
	// as a stream of a tenant with log: true.
	StreamHeads   = wire.StreamHeads
	SubjectsHeads = wire.PrefixHeads + ">"
	// StreamPolicy has the versions of the policy that were applied, the last
	// PolicyHistory of them.
	StreamPolicy   = "POLICY"
	SubjectsPolicy = "policy.>"
)

// PolicyHistory is how many versions of the policy are kept.
const PolicyHistory = 16

// Sizes of the broker's own streams in bytes. Those that grow with the policy only ever
// grow: nodes that have different policies for a while would else undo each other's work.
const (
	auditBase = 16 << 20
	logBase   = 16 << 20
	// A logged stream has 33 bytes of tiles for each event, also for those that have aged
	// out, and in AUDIT a checkpoint of some 700 bytes for each minute with events.
	auditPerLog = 16 << 20
	logPerLog   = 16 << 20
	logShare    = 8 // of maxBytes, beside it
	keysBytes   = 16 << 20
	keysHistory = 4
	// A head takes some 900 bytes: at one in ten minutes a chain fills 4 MiB in HeadsAge.
	// What comes near the limit is published less often.
	headsBase      = 8 << 20
	headsPerTenant = 4 << 20
	headsLogBase   = 4 << 20 // of its log in LOG, beside a share as that of other logs
	policyBytes    = 8 << 20 // of PolicyHistory versions as large as they may be
)

// HeadsAge is how long StreamHeads keeps a head. A later head covers all records before
// it, so an old one may go.
const HeadsAge = 30 * 24 * time.Hour

// headsBytes is the size of StreamHeads.
func headsBytes(set *policy.Set) policy.ByteSize {
	return headsBase + headsPerTenant*policy.ByteSize(len(set.Tenants()))
}

// HeadsLogRoom is what the log of StreamHeads may take in StreamLog.
func HeadsLogRoom(set *policy.Set) int64 { return int64(headsLogBase + headsBytes(set)/logShare) }

// AuditSystemBytes is the share of StreamAudit of the broker's own trail: half of what
// is no tenant's.
const AuditSystemBytes = auditBase / 2

// ownStreams are the streams that the broker keeps for itself.
func ownStreams(set *policy.Set, nodes int) []jetstream.StreamConfig {
	audit, log := policy.ByteSize(auditBase+auditPerLog), policy.ByteSize(logBase+HeadsLogRoom(set))
	for _, t := range set.Tenants() {
		audit += t.Audit.MaxBytes
		for i := range t.Streams {
			if t.Streams[i].Log {
				audit += auditPerLog
				log += policy.ByteSize(LogRoom(t.Streams[i].MaxBytes))
			}
		}
	}
	records := safe(StreamAudit, audit, SubjectsAudit)
	records.Duplicates = recordWindow
	tiles := safe(StreamLog, log, SubjectsLog)
	tiles.Duplicates = bucketWindow
	tiles.MaxMsgsPerSubject = 1
	rings := safe(StreamKeys, keysBytes, SubjectsKeys)
	rings.Duplicates = bucketWindow
	rings.MaxMsgsPerSubject = keysHistory
	said := safe(StreamHeads, headsBytes(set), SubjectsHeads)
	said.Duplicates = bucketWindow
	said.MaxAge, said.DenyPurge = HeadsAge, true
	versions := safe(StreamPolicy, policyBytes, SubjectsPolicy)
	versions.Duplicates = bucketWindow
	versions.MaxMsgsPerSubject = PolicyHistory
	return replicated([]jetstream.StreamConfig{records, tiles, rings, said, versions}, nodes)
}

// LogRoom is what the log of a stream of so many bytes may take in StreamLog.
func LogRoom(maxBytes policy.ByteSize) int64 { return int64(logPerLog + maxBytes/logShare) }

// OwnNodeBytes is NodeBytes of the broker's own account, and of the retry queues of the
// tenants.
func OwnNodeBytes(set *policy.Set) int64 {
	sum := allCopies(ownStreams(set, 1))
	for _, t := range set.Tenants() {
		sum = addSat(sum, retryStream(t).MaxBytes)
	}
	return sum
}

// OwnAccountBytes is AccountBytes of the broker's own account.
func OwnAccountBytes(set *policy.Set, nodes int) int64 {
	return allCopies(ownStreams(set, nodes))
}

// OwnReservation is Reservation of the broker's own account.
//
// Errors: those of Reservation.
func OwnReservation(ctx context.Context, s *Store, set *policy.Set) (int64, error) {
	return reservation(ctx, s, wire.BrokerAccount, ownStreams(set, s.cfg.Nodes))
}

// ApplyOwn makes the broker's own streams, or enlarges them to what set needs, and waits
// until that is durable. Every node of a cluster must have the account by then.
//
// Errors: those of ApplyPolicy.
func ApplyOwn(ctx context.Context, s *Store, set *policy.Set) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	a, err := s.account(wire.BrokerAccount)
	if err != nil {
		return err
	}
	l, err := a.list(ctx)
	if err != nil {
		return err
	}
	wanted := ownStreams(set, s.cfg.Nodes)
	for i := range wanted {
		have := l.silent[wanted[i].Name]
		if info, ok := l.infos[wanted[i].Name]; ok {
			have = &info.Config
		}
		if have != nil {
			wanted[i].MaxBytes = max(wanted[i].MaxBytes, have.MaxBytes)
			wanted[i].DenyPurge = have.DenyPurge // the server never takes it back
		}
	}
	steps, err := s.plan(ctx, wire.BrokerAccount, wanted)
	if err != nil {
		return err
	}
	return carryOut(ctx, s, steps)
}
