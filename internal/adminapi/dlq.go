package adminapi

import (
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Limits of the requests about dead letters.
const (
	// MaxRedrive is how many dead letters one dlq.redrive looks at.
	MaxRedrive = 100
	// MaxPurge is how many one dlq.purge takes away.
	MaxPurge = 500
	// DefaultRedrives is how often one event is redriven before it is left alone.
	DefaultRedrives = 3
	// MaxStatRows is how many rows a part of dlq.stats has.
	MaxStatRows = 50
)

// Targets of dlq.redrive.
const (
	RedriveConsumer = "consumer" // the consumer that failed, alone
	RedriveAll      = "all"      // everybody who reads the subject
)

// Verdicts of dlq.redrive on one dead letter. All but VerdictRedriven leave it where it is.
const (
	VerdictWould       = "would-redrive" // of a dry run
	VerdictRedriven    = "redriven"
	VerdictRefused     = "refused"     // the policy in force, or the event itself, forbids it
	VerdictGone        = "gone"        // the target is not there
	VerdictExpired     = "expired"     // its expirytime is over
	VerdictQuarantined = "quarantined" // it was redriven as often as it may
	VerdictUncertain   = "uncertain"   // it may have been redriven by a broker that ended meanwhile
	VerdictFull        = "full"        // the target has no room
	VerdictUnsupported = "unsupported" // it cannot be redriven in this way
)

// DLQFilter selects dead letters. A zero member selects everything; all must hold.
type DLQFilter struct {
	Reason    string    `json:"reason,omitempty"`
	Stage     string    `json:"stage,omitempty"`
	Code      wire.Code `json:"code,omitempty"`
	Subject   string    `json:"subject,omitempty"`   // filter on the original subject
	Principal string    `json:"principal,omitempty"` // of the caller's tenant: name, or tenant/name
	Stream    string    `json:"stream,omitempty"`    // of the event
	Consumer  string    `json:"consumer,omitempty"`  // that failed
	Type      string    `json:"type,omitempty"`      // CloudEvents type; a trailing * matches any rest
	Where     []string  `json:"where,omitempty"`     // /pointer, /pointer=value or /pointer!=value
	Since     time.Time `json:"since,omitzero"`
	Until     time.Time `json:"until,omitzero"` // exclusive
}

// DLQHistory is what a DeadLetter says of an event before a consumer failed on it.
type DLQHistory struct {
	Attempts   uint64        `json:"attempts,omitempty"`   // deliveries before it was given up
	Redrives   int           `json:"redrives,omitempty"`   // how often it was redriven before it failed again
	By         string        `json:"by,omitempty"`         // who had it last or gave it up, tenant/name
	Stored     time.Time     `json:"stored,omitzero"`      // when the event was stored
	Deliveries []DLQDelivery `json:"deliveries,omitempty"` // those whose time is known, in order
}

// DLQDelivery is when a consumer was delivered the event of a dead letter.
type DLQDelivery struct {
	Attempt int       `json:"attempt"` // from 1
	At      time.Time `json:"at"`
}

// DLQStatsRequest counts dead letters, a part at a time.
type DLQStatsRequest struct {
	DLQFilter
	Cursor uint64 `json:"cursor,omitempty"` // letters with a greater sequence
}

// DLQStats is the result of dlq.stats: the state of the stream, and counts of the letters
// that were looked at. Rows beyond MaxStatRows are in "other".
type DLQStats struct {
	DLQ        string            `json:"dlq"` // names this stream: another cluster's, or one made anew, has another name
	Messages   uint64            `json:"messages"`
	Bytes      uint64            `json:"bytes"`
	MaxBytes   int64             `json:"maxBytes"`
	Last       uint64            `json:"last"` // greatest sequence
	Kept       bool              `json:"kept,omitempty"`
	Matched    uint64            `json:"matched"` // by the filter
	Size       uint64            `json:"size"`    // bytes of their payloads
	Oldest     time.Time         `json:"oldest,omitzero"`
	Newest     time.Time         `json:"newest,omitzero"`
	Reasons    map[string]uint64 `json:"reasons"`
	Subjects   map[string]uint64 `json:"subjects"`
	Principals map[string]uint64 `json:"principals"`
	Types      map[string]uint64 `json:"types"`
	Consumers  map[string]uint64 `json:"consumers"` // STREAM.CONSUMER
	Cursor     uint64            `json:"cursor"`
	More       bool              `json:"more,omitempty"`
}

// DLQPurgeRequest takes dead letters away for ever: Seq alone, or those that the filter
// selects. Without DryRun it must be confirmed.
type DLQPurgeRequest struct {
	DLQFilter
	Seq     uint64 `json:"seq,omitempty"`
	DLQ     string `json:"dlq,omitempty"`    // refused if the dead letters have another name
	Cursor  uint64 `json:"cursor,omitempty"` // letters with a greater sequence
	UpTo    uint64 `json:"upTo,omitempty"`   // and none with a greater one; 0: the last that is there
	DryRun  bool   `json:"dryRun,omitempty"`
	Confirm bool   `json:"confirm,omitempty"`
}

// DLQPurged is the result of dlq.purge.
type DLQPurged struct {
	DLQ    string `json:"dlq"`
	Purged uint64 `json:"purged"` // or would be
	Bytes  uint64 `json:"bytes"`  // of their payloads
	Cursor uint64 `json:"cursor"`
	UpTo   uint64 `json:"upTo"`
	More   bool   `json:"more,omitempty"`
}

// DLQRedriveRequest redrives dead letters: Seq alone, or those that the filter selects, at
// most Limit of them.
type DLQRedriveRequest struct {
	DLQFilter
	Seq    uint64 `json:"seq,omitempty"`
	To     string `json:"to,omitempty"`     // RedriveConsumer (default) or RedriveAll
	DLQ    string `json:"dlq,omitempty"`    // refused if the dead letters have another name
	Cursor uint64 `json:"cursor,omitempty"` // letters with a greater sequence
	UpTo   uint64 `json:"upTo,omitempty"`   // and none with a greater one; 0: the last that is there
	Limit  int    `json:"limit,omitempty"`  // at most MaxRedrive, which is the default
	DryRun bool   `json:"dryRun,omitempty"`
	Force  bool   `json:"force,omitempty"` // also what is quarantined or uncertain
	Most   int    `json:"most,omitempty"`  // redrives of one event; default DefaultRedrives
	// Payload takes the place of that of the letter Seq: a new event of the caller, to all.
	Payload []byte `json:"payload,omitempty"`
}

// Redriven says what became of one dead letter.
type Redriven struct {
	Letter     uint64           `json:"letter"`
	Verdict    string           `json:"verdict"`
	Subject    string           `json:"subject"`
	To         string           `json:"to"`                 // what it went to, or would
	Count      int              `json:"count,omitempty"`    // the how manieth redrive of the event
	StoredAt   uint64           `json:"storedAt,omitempty"` // sequence in the stream that took it
	Duplicate  bool             `json:"duplicate,omitempty"`
	Code       wire.Code        `json:"code,omitempty"`
	Rule       string           `json:"rule,omitempty"`
	Detail     string           `json:"detail,omitempty"`
	Violations []wire.Violation `json:"violations,omitempty"`
}

// DLQRedriven is the result of dlq.redrive.
type DLQRedriven struct {
	DLQ     string     `json:"dlq"`
	Letters []Redriven `json:"letters"`
	Cursor  uint64     `json:"cursor"`
	UpTo    uint64     `json:"upTo"`
	More    bool       `json:"more,omitempty"`
	// Stopped says why the rest was not looked at: it would fail as well.
	Stopped string `json:"stopped,omitempty"`
}
