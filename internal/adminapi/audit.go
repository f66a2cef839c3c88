package adminapi

import (
	"encoding/json"
	"time"
)

// AuditLsRequest is the request of audit.ls. A zero member selects everything.
type AuditLsRequest struct {
	System    bool      `json:"system,omitempty"`    // the broker's own trail; needs the grant of the area cluster too
	Principal string    `json:"principal,omitempty"` // name within the tenant, or tenant/name; with System only this
	Kind      string    `json:"kind,omitempty"`
	Outcome   string    `json:"outcome,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"`
	After     uint64    `json:"after,omitempty"`  // AuditList.Cursor of the page before
	Newest    bool      `json:"newest,omitempty"` // nothing that is there: only the cursor after it
	Limit     int       `json:"limit,omitempty"`  // default DefaultListLimit, at most MaxListLimit; a page may be longer by a batch
	WaitMs    int64     `json:"waitMs,omitempty"` // wait for at least one record, at most MaxWaitMs
}

// AuditList is the result of audit.ls: records of docs/spec/audit.md, oldest first.
type AuditList struct {
	Records []json.RawMessage `json:"records"`
	Cursor  uint64            `json:"cursor"`
	More    bool              `json:"more,omitempty"`
}

// AuditReadRequest is the request of audit.read.
type AuditReadRequest struct {
	System bool   `json:"system,omitempty"`
	After  uint64 `json:"after,omitempty"` // sequence of the last batch that the caller has
}

// AuditBatches is the result of audit.read; none: that was the end.
type AuditBatches struct {
	Tenant  string       `json:"tenant"`
	Batches []AuditBatch `json:"batches"`
}

// AuditBatch is one message of the trail as it is stored.
type AuditBatch struct {
	Seq  uint64 `json:"seq"`
	Data []byte `json:"data"`
}

// AuditSealRequest is the request of audit.seal.
type AuditSealRequest struct {
	System bool `json:"system,omitempty"`
}

// AuditSeals is the result of audit.seal: signed heads, to be kept elsewhere.
type AuditSeals struct {
	Tenant string            `json:"tenant"`
	Seal   string            `json:"seal"`             // of the node that answers, with the chains of all nodes
	Nodes  []string          `json:"nodes,omitempty"`  // of each other node, with its own chain
	Silent map[string]string `json:"silent,omitempty"` // nodes that did not say how far they are, and why
}

// AuditHeadsRequest is the request of audit.heads.
type AuditHeadsRequest struct {
	System bool `json:"system,omitempty"`
	// Since is a checkpoint of the log of the heads that was kept elsewhere:
	// AuditHeads.Consistency proves that the log begins with it.
	Since string `json:"since,omitempty"`
}

// MaxAuditHeads bounds the heads in one AuditHeads, of each of the two kinds.
const MaxAuditHeads = 128

// AuditHeads is the result of audit.heads: the newest head of each chain of a tenant in the
// stream HEADS, with the proof that its log has it (docs/spec/audit.md, section 7).
type AuditHeads struct {
	Tenant string   `json:"tenant"`
	Logged []string `json:"logged,omitempty"` // lines as in an export
	Recent []string `json:"recent,omitempty"` // newer heads, which the log does not cover yet
	// Checkpoint is the last of the log: all of Logged are under it. Empty: there is none.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Consistency are the hashes from AuditHeadsRequest.Since to Checkpoint; none where
	// they are of two logs, or Since is no smaller.
	Consistency [][]byte `json:"consistency,omitempty"`
	// Finding is the first place where the stream is not as its log has it: heads may be
	// gone. Empty: it is.
	Finding string `json:"finding,omitempty"`
	// Unlogged is why the proofs do not prove the trail, or are not there: a log that has
	// not begun, does not go on, or of which heads are gone that nobody vouches for the age
	// of. Empty: they do.
	Unlogged string `json:"unlogged,omitempty"`
}
