package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Set is a compiled policy: immutable, safe for concurrent use.
type Set struct {
	digest     string
	tenants    []*Tenant
	byName     map[string]*Tenant
	byNkey     map[string]*Principal
	byIdentity map[identityKey]*Principal
	clock      clock
	counts     *Counts
}

// Digest returns the policy version: the lower-case hex SHA-256 over the contents
// of all policy and schema files, whatever their order and names.
func (s *Set) Digest() string { return s.digest }

// Tenants returns all tenants, sorted by name.
func (s *Set) Tenants() []*Tenant { return s.tenants }

// Tenant returns the tenant of that name, or nil.
func (s *Set) Tenant(name string) *Tenant { return s.byName[name] }

// Principal returns a principal by tenant and name, or nil.
func (s *Set) Principal(tenant, name string) *Principal {
	t := s.byName[tenant]
	if t == nil {
		return nil
	}
	return t.principals[name]
}

// PrincipalByFullName is Principal for "tenant/name".
func (s *Set) PrincipalByFullName(full string) *Principal {
	tenant, name, ok := strings.Cut(full, "/")
	if !ok {
		return nil
	}
	return s.Principal(tenant, name)
}

// ByNkey returns the principal with that public user nkey ("U..."), or nil. The
// principal may be disabled.
func (s *Set) ByNkey(public string) *Principal { return s.byNkey[public] }

// Principal returns the principal of that name, or nil.
func (t *Tenant) Principal(name string) *Principal { return t.principals[name] }

// Tenant is everything that one tenant declares. All slices are sorted by name,
// except Ephemeral and Bindings, which keep the order of the files.
type Tenant struct {
	Name       string
	Streams    []Stream
	Ephemeral  []string // declared core subjects: attested, not stored
	KV         []Bucket
	Objects    []Bucket
	Schemas    []SchemaDoc
	Bindings   []Binding
	Limits     []Limit
	DeadLetter DeadLetter
	Audit      Audit
	Quota      Quota

	principals    map[string]*Principal
	principalList []*Principal
	streamIndex   index // subjects -> Streams
	streamOf      []int32
	ephemeral     index
	bindings      index // rules that do not start with rpc.
	bindingOf     []int32
	rpcBindings   index
	rpcBindingOf  []int32
}

// Principals returns the tenant's principals, sorted by name.
func (t *Tenant) Principals() []*Principal { return t.principalList }

// StreamFor returns the stream that captures the literal event subject, or nil.
// It does not retain subject.
func (t *Tenant) StreamFor(subject string) *Stream {
	if i := t.streamIndex.covers(subject); i >= 0 {
		return &t.Streams[t.streamOf[i]]
	}
	return nil
}

// Stream returns the stream of that name, or nil. The dead letter stream is not among them.
func (t *Tenant) Stream(name string) *Stream {
	for i := range t.Streams {
		if t.Streams[i].Name == name {
			return &t.Streams[i]
		}
	}
	return nil
}

// IsEphemeral reports whether a declared ephemeral subject covers the literal
// subject. It does not retain subject.
func (t *Tenant) IsEphemeral(subject string) bool { return t.ephemeral.covers(subject) >= 0 }

// Binding returns the most specific rule under subjects that matches the literal
// subject, or nil. Subjects under rpc. match only rules that start with rpc. too.
// It does not retain subject.
func (t *Tenant) Binding(subject string) *Binding {
	ix, of := &t.bindings, t.bindingOf
	if strings.HasPrefix(subject, wire.PrefixRPC) {
		ix, of = &t.rpcBindings, t.rpcBindingOf
	}
	if i := ix.covers(subject); i >= 0 {
		return &t.Bindings[of[i]]
	}
	return nil
}

// AuditsFully reports whether a rule of the tenant has audit: full.
func (t *Tenant) AuditsFully() bool {
	return slices.ContainsFunc(t.Bindings, func(b Binding) bool { return b.AuditFull })
}

// KVBucket returns the declared key-value bucket of that name, or nil.
func (t *Tenant) KVBucket(name string) *Bucket { return findBucket(t.KV, name) }

// ObjectBucket returns the declared object bucket of that name, or nil.
func (t *Tenant) ObjectBucket(name string) *Bucket { return findBucket(t.Objects, name) }

func findBucket(list []Bucket, name string) *Bucket {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// Stream is one declared event stream.
type Stream struct {
	Name       string
	Subjects   []string
	MaxBytes   ByteSize
	MaxAge     time.Duration // default 30 days
	MaxMsgSize ByteSize      // payload of one event; 0 is the gate's limit
	Replicas   int           // copies: 1, 3 or 5; 0 is the broker's default, 3 in a cluster
	// UnsafeSingleReplica keeps one copy in a cluster too: the stream is gone with its
	// node. Without it one copy is refused there.
	UnsafeSingleReplica bool
	DuplicateWindow     time.Duration // default and least 4 minutes
	// Log keeps a transparency log of the stream (docs/spec/log.md). Default: none; it
	// costs work and storage for every event.
	Log bool
	// What the server takes on the stream beside plain events, of whoever has the right by
	// the name of the header. None by default.
	MessageTTL    bool // Nats-TTL: an event may go before its time
	AtomicBatches bool // Nats-Batch-*: all of a batch or nothing
	FastBatches   bool // FastBatch
	// UnsafeRollup lets Nats-Rollup replace what is stored; the stream can be purged.
	UnsafeRollup bool
	// UnsafeSchedules lets Nats-Schedule publish later. The server makes of it that the
	// oldest events go when the stream is full, and that it can be purged.
	UnsafeSchedules bool
	// Retention says when an event goes: by age alone, or when its consumers are done.
	Retention Retention
	Retry     StreamRetry // see Tenant.Retry
	At        Position
}

// Bucket is one declared key-value or object bucket.
type Bucket struct {
	Name     string
	MaxBytes ByteSize
	History  int           // key-value only: revisions kept per key, 1 to 64, default 1
	TTL      time.Duration // key-value only: 0 is for ever
	At       Position
}

// DeadLetter sizes the tenant's dead letter stream.
type DeadLetter struct {
	MaxBytes ByteSize      // default 64 MiB
	MaxAge   time.Duration // default 7 days
	Owners   bool          // each principal may see and redrive its own
	At       Position      // zero when the defaults hold
}

// Audit is how much of the tenant's audit trail is kept.
type Audit struct {
	MaxBytes ByteSize      // its share of the stream AUDIT; default 32 MiB, at least 1 MiB
	MaxAge   time.Duration // default 90 days, at least an hour
	At       Position      // zero when the defaults hold
}

// SchemaDoc is one declared schema version.
type SchemaDoc struct {
	Name    string
	Version int
	Format  string // "jsonschema"
	Text    []byte // shared between declarations that name the same file
	Ref     string // fragment inside Text, such as "#/definitions/order"; may be empty
	SHA256  [32]byte
	File    string // path of the schema file as loaded; empty for inline text
	At      Position
}

// Failure says where a refused event goes beside the answer to its sender.
type Failure uint8

const (
	// FailureDefault stores schema and signature failures as dead letters and samples the others.
	FailureDefault Failure = iota
	// FailureReject stores nothing.
	FailureReject
	// FailureDeadLetter stores every refusal on the subject.
	FailureDeadLetter
)

// Binding is what must hold for an event on the subjects that match.
type Binding struct {
	Match       string
	Schema      *SchemaDoc // nil: payloads are not checked
	Require     string     // RequireAttested, RequireProducer, RequireLogged, or empty (which is attested too, except on rpc subjects)
	ContentType string     // media type that is demanded; empty: application/json when there is a schema
	OnFailure   Failure
	MaxPayload  ByteSize // 0: the stream's or the gate's limit
	AuditFull   bool     // every delivery is put on record
	Mode        Mode     // of the schema, content type, size and signature that the rule demands
	Spare       *Count   // of what ModeAudit has let through
	Encrypted   bool     // payloads are encrypted end to end, and nothing else is let in
	Rule        string   // "subject orders.*.created"
	At          Position
}

// Principal is a named workload of a tenant, with the grants of its roles and its
// own merged.
type Principal struct {
	Tenant     *Tenant
	Name       string
	Disabled   bool
	Nkeys      []string // public user keys
	Identities Identities
	Roles      []string
	Grants     Grants
	Limits     []LimitUse // sorted by name, each once
	// Until is when the principal is disabled by itself; zero: never.
	Until time.Time
	// Mode says what comes of the events of the tenant that no grant is for: ModeEnforce
	// refuses them.
	Mode Mode
	// Priority is when its publishes are refused where room is short.
	Priority Priority
	Spare    *Count  // of what ModeAudit has let through
	Lapsed   []Grant // that it would have, had their time not ended
	At       Position

	full          string
	defaultSource string
	publish       []string
	subscribe     []string
}

// FullName returns "tenant/name".
func (p *Principal) FullName() string { return p.full }

// DefaultSource returns "/tenant/name", the event source that is always granted.
func (p *Principal) DefaultSource() string { return p.defaultSource }

// PublishPatterns returns the publish grants as NATS patterns that reach event
// and ephemeral subjects only: a grant that starts with a wildcard is narrowed to
// what the tenant declares, because to NATS it would also reach rpc, inbox and
// system subjects.
func (p *Principal) PublishPatterns() []string { return p.publish }

// SubscribePatterns is PublishPatterns for the subscribe grants.
func (p *Principal) SubscribePatterns() []string { return p.subscribe }

// Grants are the merged grants of a principal.
type Grants struct {
	Publish     SubjectGrants
	Subscribe   SubjectGrants
	Call        SubjectGrants // patterns of service.endpoint, without rpc.
	Serve       SubjectGrants // as Call; the first token, the service, is literal
	Headers     NameGrants
	Sources     NameGrants // exact or with a trailing *
	Types       NameGrants // exact or with a trailing *; empty means every type
	KVRead      NameGrants
	KVWrite     NameGrants
	ObjectRead  NameGrants
	ObjectWrite NameGrants
	Admin       NameGrants
	Consumers   SubjectGrants // STREAM.CONSUMER
	Discover    *Grant        // nil: not granted
}

// Grant is one line of the policy that allows something.
type Grant struct {
	Verb    string // "publish", "subscribe", "call", ...
	Pattern string
	Written string // the pattern as it stands in the policy, with its templates
	Rule    string // "role order-writer/publish[1]" or "principal checkout/publish[0]"
	// Until is when the grant lapses; zero: never. A Set has none that had lapsed when it
	// was compiled, but in Principal.Lapsed.
	Until time.Time
	// Used counts the decisions that rest on this line of the policy, for whomever.
	Used *Count
	Position
}

// String returns the rule, the pattern and the place.
func (g *Grant) String() string {
	return g.Rule + " " + g.Pattern + " (" + g.Position.String() + ")"
}

// Words of Grant.Verb, of the policy keys and of can-i.
const (
	VerbPublish     = "publish"
	VerbSubscribe   = "subscribe"
	VerbCall        = "call"
	VerbServe       = "serve"
	VerbDiscover    = "discover"
	VerbHeader      = "header"
	VerbSource      = "source"
	VerbType        = "type"
	VerbKVRead      = "kv-read"
	VerbKVWrite     = "kv-write"
	VerbObjectRead  = "object-read"
	VerbObjectWrite = "object-write"
	VerbAdmin       = "admin"
	VerbConsumer    = "consumer"
)

// AdminAreas are the areas that an admin grant may name.
var AdminAreas = []string{"audit", "backup", "cluster", "consumers", "dlq", "keys", "log", "policy", "refusals", "schedules", "services", "status", "streams"}
