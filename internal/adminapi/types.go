package adminapi

import (
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Limits of requests and answers. A server applies the default where a request
// says 0, and the maximum where it says more.
const (
	DefaultListLimit  = 50
	MaxListLimit      = 500
	MaxWaitMs         = 30_000     // RefusalsLsRequest.WaitMs
	MaxChunkBytes     = 256 * 1024 // payload bytes in one DLQShow answer
	MaxBundleBytes    = 768 * 1024 // sum of the files of a PolicyCheckRequest
	MaxExplainRefSize = 64         // bytes of ExplainRequest.Ref
)

// MaxRingWaitMs is the longest that keys.ring waits for a newer keyring.
const MaxRingWaitMs = 300_000

// KeysRingRequest asks for the keyring in force. With WaitMs the answer comes as soon
// as its version is higher than After, or when that many milliseconds are over.
type KeysRingRequest struct {
	After  uint64 `json:"after,omitempty"`
	WaitMs int64  `json:"waitMs,omitempty"`
}

// KeysPutRequest brings a new version of the keyring to all nodes.
type KeysPutRequest struct {
	Document []byte `json:"document"` // signed by the root key of the cluster
	// CutOff names the nodes that are meant to lose their last valid key.
	CutOff []string `json:"cutOff,omitempty"`
}

// KeysPut is the result of keys.put: at least one node has the keyring, or the stream
// KEYS keeps it. The nodes of Waiting take it when they are in touch. To push the same
// keyring again is harmless, and tries those that wait once more.
type KeysPut struct {
	Version uint64   `json:"version"`
	InForce []string `json:"inForce"` // nodes, sorted
	Waiting []string `json:"waiting,omitempty"`
	// Kept: the stream KEYS has it, so that it outlives the nodes that have it. false while
	// the cluster has no quorum: a node that has it in force goes on trying.
	Kept bool `json:"kept"`
	// Faults says of each node of Waiting what it, or the way to it, said.
	Faults map[string]string `json:"faults,omitempty"`
}

// KeyRing is the result of keys.ring.
type KeyRing struct {
	Document []byte    `json:"document"` // the signed keyring, to be verified against the pinned root
	Version  uint64    `json:"version"`
	Expires  time.Time `json:"expires"`
	Caller   string    `json:"caller"` // who asked, tenant/name: a reader accepts its own tenant's events only
}

// CertifyRequest asks for a certificate for names of the caller.
type CertifyRequest struct {
	Request string `json:"request"` // PEM, CERTIFICATE REQUEST
}

// Certified is a certificate that was issued.
type Certified struct {
	Chain    string    `json:"chain"` // PEM, the leaf first
	NotAfter time.Time `json:"notAfter"`
}

// Key is one key of the keyring.
type Key struct {
	ID        string    `json:"id"`   // nkeys public key
	Alg       string    `json:"alg"`  // ed25519
	Role      string    `json:"role"` // broker or producer
	Principal string    `json:"principal,omitempty"`
	Sources   []string  `json:"sources,omitempty"`  // that a producer may sign; none: what its policy grants
	Subjects  []string  `json:"subjects,omitempty"` // the same
	NotBefore time.Time `json:"notBefore,omitzero"`
	NotAfter  time.Time `json:"notAfter,omitzero"`
	RevokedAt time.Time `json:"revokedAt,omitzero"`
}

// KeyList is the result of keys.ls.
type KeyList struct {
	Version uint64    `json:"version"`
	Issued  time.Time `json:"issued,omitzero"`
	Expires time.Time `json:"expires"`
	Keys    []Key     `json:"keys"`
}

// Status is the result of status.get: one page on one broker, as the caller's tenant
// may see it. Only Server, Connections, Subscriptions and Accepted are of the whole
// broker.
type Status struct {
	Server       ServerStatus   `json:"server"`
	Policy       PolicyStatus   `json:"policy"`
	Gate         GateStatus     `json:"gate"`
	Streams      []StreamStatus `json:"streams"` // of the caller's tenant, sorted by name
	DeadLetters  DLQStatus      `json:"deadLetters"`
	Refusals     []CodeCount    `json:"refusals"` // since start, most frequent first
	Certificates []Certificate  `json:"certificates"`
	Health       []HealthPart   `json:"health"`
}

// ServerStatus says which broker answers.
type ServerStatus struct {
	Name        string    `json:"name"`
	Cluster     string    `json:"cluster,omitempty"` // that it is a node of
	Version     string    `json:"version"`
	NATSVersion string    `json:"natsVersion"`
	Started     time.Time `json:"started"`
	Time        time.Time `json:"time,omitzero"` // of its clock, when it answered
	Durability  string    `json:"durability"`    // barrier, sync-always, or the ugly name of the unsafe setting
}

// PolicyStatus says what is enforced.
type PolicyStatus struct {
	Digest string `json:"digest"` // SHA-256 of the sources
	// Version is that of the applied policy that is in force; 0: the policy files of the node are.
	Version    uint64    `json:"version,omitempty"`
	Loaded     time.Time `json:"loaded"`
	Tenants    int       `json:"tenants"`    // that the caller may see: 1
	Principals int       `json:"principals"` // of the caller's tenant
}

// GateStatus counts what passes the gate.
type GateStatus struct {
	Connections   int    `json:"connections"`
	Subscriptions int    `json:"subscriptions"`
	Accepted      uint64 `json:"accepted"` // publishes let in since start
	Refused       uint64 `json:"refused"`  // publishes and requests of the tenant refused since start
}

// StreamStatus is the state of one stream.
type StreamStatus struct {
	Name      string   `json:"name"`
	Subjects  []string `json:"subjects"`
	Messages  uint64   `json:"messages"`
	Bytes     uint64   `json:"bytes"`
	MaxBytes  int64    `json:"maxBytes"`
	FirstSeq  uint64   `json:"firstSeq"`
	LastSeq   uint64   `json:"lastSeq"`
	Consumers int      `json:"consumers"`
	// MaxAgeMs is how long an event is kept; 0 for ever. FirstTime is when the oldest
	// that is left was stored.
	MaxAgeMs  int64     `json:"maxAgeMs,omitempty"`
	FirstTime time.Time `json:"firstTime,omitzero"`
}

// StatusConsumersRequest asks for the consumers of the caller's tenant, those with the
// most to do first.
type StatusConsumersRequest struct {
	Limit int `json:"limit,omitempty"`
}

// ConsumerList is the result of status.consumers. Total counts those beyond the
// limit too.
type ConsumerList struct {
	Consumers []ConsumerStatus `json:"consumers"`
	Total     int              `json:"total"`
}

// ConsumerStatus is the state of one consumer.
type ConsumerStatus struct {
	Stream       string    `json:"stream"`
	Name         string    `json:"name"`
	Owner        string    `json:"owner,omitempty"` // tenant/name
	Durable      bool      `json:"durable"`
	Created      time.Time `json:"created"`
	Pending      uint64    `json:"pending"`     // not yet delivered
	AckPending   int       `json:"ackPending"`  // delivered, not yet acknowledged
	Redelivered  int       `json:"redelivered"` // of those, delivered more than once
	AckFloor     uint64    `json:"ackFloor"`    // every event up to this sequence of the stream is done
	LastAck      time.Time `json:"lastAck,omitzero"`
	LastDelivery time.Time `json:"lastDelivery,omitzero"`
}

// DLQStatus is the state of the tenant's dead-letter stream.
type DLQStatus struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	MaxBytes int64  `json:"maxBytes"`
	Dropped  uint64 `json:"dropped"` // not stored since start: queue or rate limit
	Queued   uint64 `json:"queued"`  // redriven, and not yet acknowledged by the consumer that failed
}

// CodeCount counts the refusals of one code.
type CodeCount struct {
	Code  wire.Code `json:"code"`
	Name  string    `json:"name"`
	Count uint64    `json:"count"`
}

// Certificate is a server certificate in use.
type Certificate struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"notAfter"`
}

// HealthPart is the state of one part of the broker.
type HealthPart struct {
	Part   string `json:"part"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// PolicyFile is one file of a bundle, as text.
type PolicyFile struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// PolicyCheckRequest asks whether a bundle is valid. Nothing is applied.
type PolicyCheckRequest struct {
	Files []PolicyFile `json:"files"`
}

// PolicyFault is one fault of a bundle.
type PolicyFault struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

// PolicyCheck is the result of policy.check.
type PolicyCheck struct {
	OK         bool          `json:"ok"`
	Faults     []PolicyFault `json:"faults,omitempty"`
	Digest     string        `json:"digest,omitempty"` // of a valid bundle
	Tenants    int           `json:"tenants,omitempty"`
	Principals int           `json:"principals,omitempty"`
}

// CanIRequest asks whether a principal may do something.
type CanIRequest struct {
	Verb      string `json:"verb"`                // publish, subscribe, call, serve, admin, discover, header, source, type, kv-read ...
	Subject   string `json:"subject,omitempty"`   // subject, filter, bucket, area or name, by verb
	Principal string `json:"principal,omitempty"` // of the caller's tenant, name or tenant/name; empty: the caller
	// Event, for publish, asks about this event too: its source, type, size and schema. A
	// CloudEvent in JSON, or, without specversion, the payload.
	Event []byte `json:"event,omitempty"`
}

// CanI is the result of policy.cani.
type CanI struct {
	Allowed   bool   `json:"allowed"`
	Principal string `json:"principal"` // tenant/name
	Verb      string `json:"verb"`
	Subject   string `json:"subject,omitempty"`
	Rule      string `json:"rule,omitempty"` // the grant that allows
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
	Nearest   string `json:"nearest,omitempty"` // the closest grant that does not reach
	Fix       string `json:"fix,omitempty"`
	// Limits are those that hold for what is allowed: of publish, call and connect.
	Limits []string `json:"limits,omitempty"`
	Text   string   `json:"text,omitempty"` // the same, for people
	// Violations are those of the schema of the subject.
	Violations []wire.Violation `json:"violations,omitempty"`
}

// ExplainRequest asks for the audit record of one refusal.
type ExplainRequest struct {
	Ref string `json:"ref"`
}

// Refusal is one refusal as audit keeps it: the result of policy.explain and an
// entry of refusals.ls. Equal refusals within a second are one entry with a
// count.
type Refusal struct {
	Cursor     uint64            `json:"cursor"`         // position, strictly rising on each node
	Node       string            `json:"node,omitempty"` // in a cluster: that refused
	Time       time.Time         `json:"time"`
	Code       wire.Code         `json:"code"`
	Name       string            `json:"name"`
	Class      wire.Class        `json:"class"`
	Title      string            `json:"title"`
	Rule       string            `json:"rule,omitempty"`
	Subject    string            `json:"subject,omitempty"`
	Principal  string            `json:"principal,omitempty"`
	Detail     string            `json:"detail,omitempty"`
	Ref        string            `json:"ref,omitempty"`
	Count      uint64            `json:"count"`
	Fix        string            `json:"fix,omitempty"`
	Violations []wire.Violation  `json:"violations,omitempty"`
	Truncated  bool              `json:"truncated,omitempty"`
	Policy     string            `json:"policy,omitempty"`  // digest of the policy that decided
	Explain    *wire.Explanation `json:"explain,omitempty"` // only with the admin grant policy
}

// RefusalsLsRequest lists refusals after a cursor.
type RefusalsLsRequest struct {
	After     uint64    `json:"after,omitempty"`  // entries with a greater cursor; 0: from the oldest kept
	WaitMs    int64     `json:"waitMs,omitempty"` // when there are none, wait this long for one; at most MaxWaitMs
	Limit     int       `json:"limit,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Code      wire.Code `json:"code,omitempty"`
	Principal string    `json:"principal,omitempty"` // of the caller's tenant: name, or tenant/name
	Subject   string    `json:"subject,omitempty"`   // filter
	// Cursors is After by node, for a cluster: those of the list before. With an After
	// alone only the node that answers is asked.
	Cursors map[string]uint64 `json:"cursors,omitempty"`
}

// RefusalList is the result of refusals.ls. Cursor and Cursors are the After and the
// Cursors of the next request, also when Entries is empty.
type RefusalList struct {
	Entries []Refusal         `json:"entries"`
	Cursor  uint64            `json:"cursor"`
	Cursors map[string]uint64 `json:"cursors,omitempty"` // by node, in a cluster
	Without map[string]string `json:"without,omitempty"` // by node that gave none, why: theirs are not here
	Missed  bool              `json:"missed,omitempty"`  // entries after After were already overwritten
}

// DLQLsRequest lists dead letters, oldest first.
type DLQLsRequest struct {
	DLQFilter
	Cursor uint64 `json:"cursor,omitempty"` // entries with a greater sequence
	Limit  int    `json:"limit,omitempty"`
}

// DeadLetter describes one dead letter.
type DeadLetter struct {
	Seq       uint64    `json:"seq"` // in the DLQ stream
	Time      time.Time `json:"time"`
	Reason    string    `json:"reason"`
	Code      wire.Code `json:"code,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Rule      string    `json:"rule,omitempty"`
	Ref       string    `json:"ref,omitempty"`
	Stage     string    `json:"stage,omitempty"` // ingress, consumer, bridge
	Principal string    `json:"principal,omitempty"`
	Subject   string    `json:"subject"` // the original subject
	Stream    string    `json:"stream,omitempty"`
	StreamSeq uint64    `json:"streamSeq,omitempty"`
	Consumer  string    `json:"consumer,omitempty"`
	DLQHistory
	Policy     string           `json:"policy,omitempty"`
	Schema     string           `json:"schema,omitempty"`
	Violations []wire.Violation `json:"violations,omitempty"`
	Type       string           `json:"type,omitempty"` // of the event, if it is one
	Bytes      int              `json:"bytes"`          // original payload
}

// DLQList is the result of dlq.ls. More says that the filter matches more
// entries after Cursor.
type DLQList struct {
	Entries []DeadLetter `json:"entries"`
	Cursor  uint64       `json:"cursor"`
	More    bool         `json:"more,omitempty"`
}

// DLQShowRequest asks for one dead letter with its original bytes. Offset and
// Limit choose a part of the payload, because a whole one does not fit an
// answer; Limit 0 is MaxChunkBytes.
type DLQShowRequest struct {
	Seq    uint64 `json:"seq"`
	Offset int    `json:"offset,omitempty"`
	Limit  int    `json:"limit,omitempty"`
}

// DLQShow is the result of dlq.show. Header and Payload are the exact original
// bytes (base64 in JSON); Header is left out after the first part.
type DLQShow struct {
	DeadLetter
	Header  []byte `json:"header,omitempty"`
	Payload []byte `json:"payload"`
	Offset  int    `json:"offset"` // of Payload in the original payload
}
