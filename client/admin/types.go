package admin

import "github.com/signetbus/signet/internal/adminapi"

// The results of the calls. Results only ever gain members.
type (
	// Key is one key of the keyring: ID (nkeys public key), Alg, Role, Principal,
	// NotBefore, NotAfter, RevokedAt.
	Key = adminapi.Key
	// KeyList is the keyring as a list: Version, Issued, Expires, Keys.
	KeyList = adminapi.KeyList
	// KeyRing is the signed keyring: Document (for keyring.Parse), Version, Expires.
	KeyRing = adminapi.KeyRing
	// KeysPut says where a keyring that was brought is in force: Version, InForce, Waiting.
	KeysPut = adminapi.KeysPut
	// Status is one page on the broker that answers: Server, Policy, Gate, Streams,
	// DeadLetters, Refusals, Certificates, Health.
	Status = adminapi.Status
	// ServerStatus says which broker answers.
	ServerStatus = adminapi.ServerStatus
	// PolicyStatus says what is enforced.
	PolicyStatus = adminapi.PolicyStatus
	// GateStatus counts what passes the gate.
	GateStatus = adminapi.GateStatus
	// StreamStatus is the state of one stream.
	StreamStatus = adminapi.StreamStatus
	// ConsumerList lists consumers; Total counts those beyond the limit too.
	ConsumerList = adminapi.ConsumerList
	// ConsumerStatus is the state of one consumer.
	ConsumerStatus = adminapi.ConsumerStatus
	// ThrottleList says who was refused because of a limit: Minutes, Throttled, Without.
	ThrottleList = adminapi.ThrottleList
	// Throttle is one row of it: Principal, Rule, Code, Node, Refused, Last.
	Throttle = adminapi.Throttle
	// DLQStatus is the state of the dead-letter stream.
	DLQStatus = adminapi.DLQStatus
	// CodeCount counts the refusals of one code.
	CodeCount = adminapi.CodeCount
	// Certificate is a server certificate in use.
	Certificate = adminapi.Certificate
	// HealthPart is the state of one part of the broker.
	HealthPart = adminapi.HealthPart
	// PolicyFile is one file of a bundle: Name and Text.
	PolicyFile = adminapi.PolicyFile
	// PolicyCheck says whether a bundle is valid, with all Faults.
	PolicyCheck = adminapi.PolicyCheck
	// PolicyFault is one fault of a bundle: File, Line, Column, Message.
	PolicyFault = adminapi.PolicyFault
	// CanIRequest is a question about a grant: Verb, Subject, Principal (empty: the
	// caller).
	CanIRequest = adminapi.CanIRequest
	// CanI is its answer: Allowed, Rule, File, Line, Nearest, Fix, Text.
	CanI = adminapi.CanI
	// Refusal is one refusal as audit keeps it.
	Refusal = adminapi.Refusal
	// RefusalsQuery filters refusals: After (cursor), Since, Code, Principal,
	// Subject, Limit.
	RefusalsQuery = adminapi.RefusalsLsRequest
	// RefusalList is a page of refusals; its Cursor is the next After.
	RefusalList = adminapi.RefusalList
	// DLQFilter selects dead letters: Reason, Stage, Code, Subject, Principal, Stream,
	// Consumer, Type, Where (conditions on the payload), Since, Until.
	DLQFilter = adminapi.DLQFilter
	// DLQQuery is a filter with Cursor and Limit.
	DLQQuery = adminapi.DLQLsRequest
	// DLQList is a page of dead letters; with More, its Cursor is the next one.
	DLQList = adminapi.DLQList
	// DLQStatsQuery is a filter with a Cursor.
	DLQStatsQuery = adminapi.DLQStatsRequest
	// DLQStats counts dead letters by what they have in common.
	DLQStats = adminapi.DLQStats
	// PurgeRequest says which dead letters to take away for ever.
	PurgeRequest = adminapi.DLQPurgeRequest
	// Purged says how many were.
	Purged = adminapi.DLQPurged
	// RedriveRequest says which dead letters to redrive, and to whom.
	RedriveRequest = adminapi.DLQRedriveRequest
	// RedrivePage says what became of each.
	RedrivePage = adminapi.DLQRedriven
	// Redriven is one of them.
	Redriven = adminapi.Redriven
	// Schedule is one schedule, without what it publishes.
	Schedule = adminapi.Schedule
	// DeadLetter describes one dead letter.
	DeadLetter = adminapi.DeadLetter
	// DLQHistory is the part of it about what came before: Attempts, Redrives, By, Stored,
	// Deliveries.
	DLQHistory = adminapi.DLQHistory
	// DLQDelivery is when a consumer was delivered its event: Attempt, At.
	DLQDelivery = adminapi.DLQDelivery
	// RestoreRequest says what to restore: Bytes, Tenant, TrustRoot, Skip, DryRun.
	RestoreRequest = adminapi.RestoreRequest
	// RestoreReport says what a restore has done.
	RestoreReport = adminapi.RestoreReport
	// RestoredStream is one stream of it.
	RestoredStream = adminapi.RestoredStream
)

// StoredLetter is a dead letter with its exact original bytes.
type StoredLetter struct {
	DeadLetter
	Header  []byte // the original header block, nil if there was none
	Payload []byte
}

// Limits of the calls.
const (
	DefaultListLimit = adminapi.DefaultListLimit // of DLQQuery.Limit and RefusalsQuery.Limit
	MaxListLimit     = adminapi.MaxListLimit
	MaxRedrive       = adminapi.MaxRedrive     // of RedriveRequest.Limit
	MaxBundleBytes   = adminapi.MaxBundleBytes // of all files of a PolicyCheck
)
