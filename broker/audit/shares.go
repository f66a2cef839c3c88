package audit

import (
	"math"

	"github.com/signetbus/signet/internal/auditlog"
)

// claim is what an entry may fill of the queue and of the spool.
type claim uint8

const (
	claimWhole claim = iota
	claimBulk        // not the reserve
	claimRare        // whatever the trail is like
)

// claimOf says which claim an entry has. What a stranger can cause has the bulk claim:
// a login that failed costs nobody a credential.
func claimOf(e *auditlog.Entry) claim {
	switch e.Kind {
	case auditlog.KindRefusal, auditlog.KindDelivered, auditlog.KindDelivery, auditlog.KindRead:
		return claimBulk
	case auditlog.KindLogin:
		if e.Outcome == auditlog.OutcomeRefused {
			return claimBulk
		}
	case auditlog.KindPolicy, auditlog.KindSchema, auditlog.KindKeys, auditlog.KindBroker, auditlog.KindChain:
		// Few, and a revocation must get through.
		return claimRare
	}
	return claimWhole
}

// queueFor is how many records may wait in memory for an entry to be added.
func queueFor(e *auditlog.Entry) int {
	switch claimOf(e) {
	case claimBulk:
		return maxQueue - maxQueue*reserve/100
	case claimRare:
		return math.MaxInt // bounded by how seldom they come
	}
	return maxQueue
}

// fullFor says whether the spool has no room for an entry.
func (j *Journal) fullFor(e *auditlog.Entry) bool {
	limit := j.cfg.Spool
	switch claimOf(e) {
	case claimBulk:
		limit -= limit * reserve / 100
	case claimRare:
		limit += limit * reserve / 100
	}
	return j.spool.bytes.Load() >= limit
}
