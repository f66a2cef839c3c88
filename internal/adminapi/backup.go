package adminapi

import (
	"strings"
	"time"
)

// A backup is read, and a restore is written, in a session: parts of at most
// MaxChunkBytes, in order, one request each. A request that had no answer is sent
// again with the same offset. A session belongs to the principal that opened it and
// ends when it is closed, or SessionIdle after its last request; a restore that is
// being applied goes on.
const SessionIdle = 30 * time.Second

// BackupOpenRequest begins a backup of the caller's tenant.
type BackupOpenRequest struct {
	Tenant string `json:"tenant,omitempty"` // must be the caller's, if it is given
}

// BackupOpened is the result of backup.open and backup.restore.
type BackupOpened struct {
	Session string `json:"session"`
	Tenant  string `json:"tenant"`
}

// BackupReadRequest asks for the next part of the file, or once more for the last.
type BackupReadRequest struct {
	Session string `json:"session"`
	Offset  int64  `json:"offset"`
}

// BackupPart is a part of the file. EOF: it ends with this part.
type BackupPart struct {
	Offset int64  `json:"offset"`
	Data   []byte `json:"data"`
	EOF    bool   `json:"eof,omitempty"`
}

// RestoreRequest begins a restore into the caller's tenant.
type RestoreRequest struct {
	Bytes     int64    `json:"bytes"`               // of the file
	Tenant    string   `json:"tenant,omitempty"`    // must be the caller's, if it is given
	TrustRoot string   `json:"trustRoot,omitempty"` // root key of the cluster that made the backup; empty: the broker's own
	Skip      []string `json:"skip,omitempty"`      // streams that are verified and not restored
	DryRun    bool     `json:"dryRun,omitempty"`    // verify and say what would happen
}

// RestoreWriteRequest is the next part of the file.
type RestoreWriteRequest struct {
	Session string `json:"session"`
	Offset  int64  `json:"offset"`
	Data    []byte `json:"data"`
}

// RestoreWritten is the offset of the part that is expected next.
type RestoreWritten struct {
	Offset int64 `json:"offset"`
}

// BackupSessionRequest is the request of backup.apply and backup.close.
type BackupSessionRequest struct {
	Session string `json:"session"`
}

// RestoreProgressRequest asks how far a restore is, and waits up to WaitMs (at most
// MaxWaitMs) for its end. A restore that failed is answered with its refusal.
type RestoreProgressRequest struct {
	Session string `json:"session"`
	WaitMs  int64  `json:"waitMs,omitempty"`
}

// Phases of a restore.
const (
	RestoreReceiving = "receiving"
	RestoreVerifying = "verifying"
	RestoreApplying  = "restoring"
	RestoreDone      = "done"
)

// RestoreProgress says how far a restore is. Report is there when Phase is done.
type RestoreProgress struct {
	Phase  string         `json:"phase"`
	Report *RestoreReport `json:"report,omitempty"`
}

// RestoreReport says what a restore has done, or would do.
type RestoreReport struct {
	DryRun   bool             `json:"dryRun,omitempty"`
	ID       string           `json:"id"` // of the backup
	Tenant   string           `json:"tenant"`
	Node     string           `json:"node"` // that made it
	Created  time.Time        `json:"created"`
	Policy   string           `json:"policy"`   // digest of the policy then
	Key      string           `json:"key"`      // that signed the manifest
	Proven   uint64           `json:"proven"`   // events whose attestation holds
	Unproven uint64           `json:"unproven"` // messages that only the signed manifest covers
	Streams  []RestoredStream `json:"streams"`
}

// RestoredStream is one stream of a RestoreReport.
type RestoredStream struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // events, dead letters, key-value, objects
	Messages  uint64 `json:"messages"`
	Bytes     uint64 `json:"bytes"`
	FirstSeq  uint64 `json:"firstSeq"`
	LastSeq   uint64 `json:"lastSeq"`
	Consumers int    `json:"consumers"`
	Skipped   bool   `json:"skipped,omitempty"`
}

// SessionName is how a client names a session of a node: any node of a cluster may get
// a request, and hands it to the one that has the session.
func SessionName(id, node string) string { return id + "@" + node }

// SessionNode returns the node that has a session, empty if the name has none.
func SessionNode(session string) string {
	_, node, _ := strings.Cut(session, "@")
	return node
}
