package adminapi

import (
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

// Areas of the admin API, the words of an admin grant in the policy.
const (
	AreaAudit    = "audit"
	AreaKeys     = "keys"
	AreaStatus   = "status"
	AreaPolicy   = "policy"
	AreaDLQ      = "dlq"
	AreaRefusals = "refusals"
	AreaBackup   = "backup"
	// AreaSchedules is about the schedules of others; for its own a principal needs the
	// right policy.Cron alone.
	AreaSchedules = "schedules"
	// AreaCluster is about the machines that all tenants share, not about one tenant.
	AreaCluster = "cluster"
)

// The subjects of the requests.
const (
	SubjectKeysRing        = wire.PrefixAdmin + AreaKeys + ".ring"
	SubjectKeysLs          = wire.PrefixAdmin + AreaKeys + ".ls"
	SubjectKeysPut         = wire.PrefixAdmin + AreaKeys + ".put"
	SubjectKeysCertify     = wire.PrefixAdmin + AreaKeys + ".certify"
	SubjectStatusGet       = wire.PrefixAdmin + AreaStatus + ".get"
	SubjectStatusConsumers = wire.PrefixAdmin + AreaStatus + ".consumers"
	SubjectStatusThrottled = wire.PrefixAdmin + AreaStatus + ".throttled"
	SubjectPolicyCheck     = wire.PrefixAdmin + AreaPolicy + ".check"
	SubjectPolicyCanI      = wire.PrefixAdmin + AreaPolicy + ".cani"
	SubjectPolicyExplain   = wire.PrefixAdmin + AreaPolicy + ".explain"
	SubjectDLQLs           = wire.PrefixAdmin + AreaDLQ + ".ls"
	SubjectDLQShow         = wire.PrefixAdmin + AreaDLQ + ".show"
	SubjectDLQStats        = wire.PrefixAdmin + AreaDLQ + ".stats"
	SubjectDLQPurge        = wire.PrefixAdmin + AreaDLQ + ".purge"
	SubjectDLQRedrive      = wire.PrefixAdmin + AreaDLQ + ".redrive"
	SubjectRefusalsLs      = wire.PrefixAdmin + AreaRefusals + ".ls"

	SubjectSchedulesPut = wire.PrefixAdmin + AreaSchedules + ".put"
	SubjectSchedulesLs  = wire.PrefixAdmin + AreaSchedules + ".ls"
	SubjectSchedulesRm  = wire.PrefixAdmin + AreaSchedules + ".rm"

	SubjectAuditLs   = wire.PrefixAdmin + AreaAudit + ".ls"
	SubjectAuditRead = wire.PrefixAdmin + AreaAudit + ".read"
	SubjectAuditSeal = wire.PrefixAdmin + AreaAudit + ".seal"
	// SubjectAuditHeads asks for the heads that the log of the heads has.
	SubjectAuditHeads = wire.PrefixAdmin + AreaAudit + ".heads"

	SubjectBackupOpen     = wire.PrefixAdmin + AreaBackup + ".open"
	SubjectBackupRead     = wire.PrefixAdmin + AreaBackup + ".read"
	SubjectBackupRestore  = wire.PrefixAdmin + AreaBackup + ".restore"
	SubjectBackupWrite    = wire.PrefixAdmin + AreaBackup + ".write"
	SubjectBackupApply    = wire.PrefixAdmin + AreaBackup + ".apply"
	SubjectBackupProgress = wire.PrefixAdmin + AreaBackup + ".progress"
	SubjectBackupClose    = wire.PrefixAdmin + AreaBackup + ".close"

	SubjectClusterStatus    = wire.PrefixAdmin + AreaCluster + ".status"
	SubjectClusterEvacuate  = wire.PrefixAdmin + AreaCluster + ".evacuate"
	SubjectClusterRemove    = wire.PrefixAdmin + AreaCluster + ".remove"
	SubjectClusterRescue    = wire.PrefixAdmin + AreaCluster + ".rescue"
	SubjectClusterRebalance = wire.PrefixAdmin + AreaCluster + ".rebalance"
	SubjectClusterStepDown  = wire.PrefixAdmin + AreaCluster + ".stepdown"
)

// Areas returns every area, sorted. The caller owns the slice.
func Areas() []string {
	return []string{AreaAudit, AreaBackup, AreaCluster, AreaDLQ, AreaKeys, AreaLog, AreaPolicy, AreaRefusals, AreaSchedules, AreaStatus}
}

// Subjects returns every subject of the API, sorted. The caller owns the slice.
func Subjects() []string {
	return []string{
		SubjectAuditHeads, SubjectAuditLs, SubjectAuditRead, SubjectAuditSeal,
		SubjectBackupApply, SubjectBackupClose, SubjectBackupOpen, SubjectBackupProgress,
		SubjectBackupRead, SubjectBackupRestore, SubjectBackupWrite,
		SubjectClusterEvacuate, SubjectClusterRebalance, SubjectClusterRemove, SubjectClusterRescue,
		SubjectClusterStatus, SubjectClusterStepDown,
		SubjectDLQLs, SubjectDLQPurge, SubjectDLQRedrive, SubjectDLQShow, SubjectDLQStats,
		SubjectKeysCertify, SubjectKeysLs, SubjectKeysPut, SubjectKeysRing,
		SubjectLogCheckpoint, SubjectLogConsistency, SubjectLogFind, SubjectLogLs,
		SubjectLogPart, SubjectLogProve, SubjectLogRestart, SubjectLogVerify,
		SubjectPolicyCanI, SubjectPolicyCheck, SubjectPolicyExplain, SubjectPolicyGet, SubjectPolicyHistory,
		SubjectPolicyPlan, SubjectPolicyPut, SubjectPolicyShow, SubjectPolicyUsage,
		SubjectRefusalsLs,
		SubjectSchedulesLs, SubjectSchedulesPut, SubjectSchedulesRm,
		SubjectStatusConsumers, SubjectStatusGet, SubjectStatusThrottled,
	}
}

// Split returns the area and the verb of an admin subject. ok is false when
// subject is not of the form $SIGNET.API.<area>.<verb>.
func Split(subject string) (area, verb string, ok bool) {
	rest, ok := strings.CutPrefix(subject, wire.PrefixAdmin)
	if !ok {
		return "", "", false
	}
	area, verb, ok = strings.Cut(rest, ".")
	if !ok || area == "" || verb == "" || strings.Contains(verb, ".") {
		return "", "", false
	}
	return area, verb, true
}

// Grant returns the area whose admin grant subject needs; open is true when
// every principal may ask. An unknown subject needs a grant of its area, so a
// verb added later is closed until it is granted.
func Grant(subject string) (area string, open, ok bool) {
	area, _, ok = Split(subject)
	return area, subject == SubjectKeysRing || subject == SubjectKeysCertify, ok
}
