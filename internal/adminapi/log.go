package adminapi

import (
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// AreaLog is about the logs of the caller's tenant (docs/spec/log.md).
const AreaLog = "log"

// The subjects of the area log.
const (
	SubjectLogLs          = wire.PrefixAdmin + AreaLog + ".ls"
	SubjectLogCheckpoint  = wire.PrefixAdmin + AreaLog + ".checkpoint"
	SubjectLogVerify      = wire.PrefixAdmin + AreaLog + ".verify"
	SubjectLogConsistency = wire.PrefixAdmin + AreaLog + ".consistency"
	SubjectLogFind        = wire.PrefixAdmin + AreaLog + ".find"
	SubjectLogProve       = wire.PrefixAdmin + AreaLog + ".prove"
	SubjectLogPart        = wire.PrefixAdmin + AreaLog + ".part"
	SubjectLogRestart     = wire.PrefixAdmin + AreaLog + ".restart"
)

// LogStatus is one log.
type LogStatus struct {
	Stream  string    `json:"stream"`
	Origin  string    `json:"origin,omitempty"` // empty: no checkpoint yet
	First   uint64    `json:"first,omitempty"`  // sequence of the first leaf
	Size    int64     `json:"size"`             // leaves
	LastSeq uint64    `json:"lastSeq"`          // of the stream
	Lag     uint64    `json:"lag"`              // sequences that no checkpoint covers yet
	Time    time.Time `json:"time,omitzero"`    // of the last checkpoint
	Fault   string    `json:"fault,omitempty"`  // why it cannot be said, or does not go on as far as this node knows
	Behind  time.Time `json:"behind,omitzero"`  // since when something stored waits for a checkpoint, where this node writes
}

// LogList is the result of log.ls.
type LogList struct {
	Logs []LogStatus `json:"logs"` // by stream
}

// LogStreamRequest names a log.
type LogStreamRequest struct {
	Stream string `json:"stream"`
}

// LogCheckpoint is the last checkpoint of a log.
type LogCheckpoint struct {
	Checkpoint string `json:"checkpoint"` // signed note
	LastSeq    uint64 `json:"lastSeq"`    // of the stream
}

// LogVerifyRequest asks for a walk over a part of a stream, from the sequence From on.
// With a Checkpoint, which may be older than the last, the stream is compared with that.
type LogVerifyRequest struct {
	Stream     string `json:"stream"`
	Checkpoint string `json:"checkpoint,omitempty"`
	From       uint64 `json:"from,omitempty"`
}

// LogVerified is what a walk has found. Next is where the next one begins; the walk is at
// its end when Next is End.
type LogVerified struct {
	Checkpoint string `json:"checkpoint"` // that was compared with
	Next       uint64 `json:"next"`
	End        uint64 `json:"end"`
	Compared   uint64 `json:"compared"` // events that are as they were logged
	Absent     uint64 `json:"absent"`   // sequences that never had an event
	Aged       uint64 `json:"aged"`     // sequences that the stream has let go when they were old enough
	// Unproven are sequences that the stream has let go, and of which nothing signed says
	// that they were old enough; Doubt says why.
	Unproven uint64      `json:"unproven,omitempty"`
	Doubt    string      `json:"doubt,omitempty"`
	Finding  *LogFinding `json:"finding,omitempty"`
}

// LogFinding is the first sequence that is not as it was logged.
type LogFinding struct {
	Sequence uint64 `json:"sequence"`
	What     string `json:"what"` // dropped, altered, reordered, added
	Detail   string `json:"detail"`
}

// LogConsistencyRequest asks for the proof that New only appends to Old.
type LogConsistencyRequest struct {
	Old string `json:"old"` // signed notes
	New string `json:"new"`
}

// LogConsistency is that proof.
type LogConsistency struct {
	Hashes [][]byte `json:"hashes"`
}

// LogFindRequest looks for an event by its id, from the sequence From on.
type LogFindRequest struct {
	Stream string `json:"stream"`
	ID     string `json:"id"`
	From   uint64 `json:"from,omitempty"`
}

// LogFound is the sequence of the event; 0 if it was not found up to Next, from which on
// to look further, 0 at the end.
type LogFound struct {
	Sequence uint64 `json:"sequence"`
	Next     uint64 `json:"next"`
}

// LogProveRequest asks for a proof of the sequences First to Last.
type LogProveRequest struct {
	Stream string `json:"stream"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
}

// LogProof is a proof to be fetched with log.part, within a minute.
type LogProof struct {
	ID    string `json:"id"`
	Bytes int    `json:"bytes"`
}

// LogPartRequest asks for the part of a proof at Offset.
type LogPartRequest struct {
	ID     string `json:"id"`
	Offset int    `json:"offset"`
}

// LogPart is a part of at most MaxChunkBytes.
type LogPart struct {
	Offset int    `json:"offset"`
	Data   []byte `json:"data"`
}
