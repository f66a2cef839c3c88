package admission

import (
	"crypto/sha256"
	"errors"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/ratelimit"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// DefaultMaxPayload is the largest payload in bytes that a client may publish
// where neither the configuration nor the policy says less.
const DefaultMaxPayload = 1 << 20

// Config is what a Chain is made of.
type Config struct {
	// Node is the name of this node, whose admin service gets what its clients ask:
	// nats-server gives a request to any member of a queue group, on any node. Required.
	Node string
	// Signer attests events. Required.
	Signer *signing.Signer
	// Buckets holds the token buckets of all principals; it outlives the chain so
	// that a policy reload does not refill them. Required.
	Buckets *ratelimit.Table
	// Validator returns the compiled form of a schema of the policy. A nil answer
	// refuses the event: a schema that cannot be had is not a pass. Required.
	Validator func(*policy.SchemaDoc) schema.Validator
	// MaxPayload in bytes; 0 means DefaultMaxPayload.
	MaxPayload int
	// Explain puts the nearest grant and its place into refusals. For dev only.
	Explain bool
	// NotBefore and NotAfter bound the time in which the key of Signer may attest,
	// by the keyring that readers have. Outside of it events are refused: they would
	// be stored and acknowledged, and no reader would accept them. Required.
	NotBefore, NotAfter time.Time
	// Keyring returns the keyring in force: who may sign events. It is asked for each
	// signed event, must not block, and may return nil, which refuses them. Required.
	Keyring func() *keyring.Ring
	// Policy is the digest of the policy in force. Without it no receipt can be signed.
	Policy string
	// Connections has the ids of the producer keys of Keyring that some principal
	// connects with, and who: they count as unknown. It must not change.
	Connections map[string]string
	// Seen remembers signed ephemeral events; it outlives the chain. Required.
	Seen *Seen
	// Room says what the store does not take now; nil: it takes everything. What it does
	// not take is refused at once, instead of waiting for an answer that never comes. It
	// outlives the chain.
	Room *Room
	// StreamRoom returns the same of one stream, which outlives the chain too. No function,
	// or nil: everything is taken.
	StreamRoom func(tenant, stream string) *Room
	// Attested returns who wants to know of the events that go to a stream with a log. No
	// function: nobody.
	Attested func(tenant, stream string) Attested
}

// Attested is told which events go to one stream, and what was signed of each: a log of
// the stream need not compute that again. It is called from all sessions, must not block,
// and keeps no reference to what it is given.
type Attested interface {
	// Wanted says whether Put is of use now.
	Wanted() bool
	// Put is called before the event goes to the server, with the bytes that go there.
	// digest is the SHA-256 of the PAE that the attestation signs.
	Put(subject, block, data []byte, digest [sha256.Size]byte)
}

// Chain makes sessions over one policy snapshot. It is immutable and safe for
// concurrent use.
type Chain struct {
	cfg       Config
	producers *signing.ProducerVerifier
}

// NewChain checks cfg and returns a chain.
func NewChain(cfg Config) (*Chain, error) {
	if cfg.Node == "" || cfg.Signer == nil || cfg.Buckets == nil || cfg.Validator == nil || cfg.Keyring == nil || cfg.Seen == nil {
		return nil, errors.New("admission: node, signer, buckets, validator, keyring and seen are required")
	}
	if !cfg.NotBefore.Before(cfg.NotAfter) {
		return nil, errors.New("admission: the attestation key has no time of validity")
	}
	if cfg.MaxPayload <= 0 {
		cfg.MaxPayload = DefaultMaxPayload
	}
	return &Chain{cfg: cfg, producers: signing.NewProducerVerifier(cfg.Keyring)}, nil
}

// Publish is one publish as the gate parsed it. All slices are views into the
// gate's read buffer and must stay valid until Flush.
type Publish struct {
	Subject []byte // as the client wrote it
	Reply   []byte // in upstream form (session-scoped), empty for none
	Header  []byte // whole header block, empty for none
	Payload []byte
	// Receipts takes down which publishes want a signed acknowledgement. nil: none are
	// given on this connection.
	Receipts Receipts
	// Flights counts those without an acknowledgement. nil: nobody does.
	Flights Flights
}

// Rejection is what the storage rules for dead letters need to know of the last
// refusal of a session.
type Rejection struct {
	Store   bool   // the rule says: keep the exact bytes as a dead letter
	Schema  string // schema name and version that refused it, if one did
	MayWait bool   // the limit says exceed: wait, so the gate may hold and ask again
}

// Session is the admission state of one connection. Not safe for concurrent use.
type Session struct {
	chain  *Chain
	p      *policy.Principal
	authID []byte
	source []byte // default source
	routes map[string]*route

	now      time.Time
	seenAt   time.Time // when the event of Redrive came first; zero: now
	recorded []byte    // now in whole seconds, RFC 3339
	lastUnix int64

	ids      idSource
	grants   grantMemo
	rejected Rejection
	late     *route // that the publish under admission was sent on, where it is charged after its type is known
	asked    bool   // the publish under admission wants a signed acknowledgement
	dry      bool   // of a Judge: nothing is counted
	plans    plan   // of the publish under admission, if it is for later
	charges  []charged

	*work // between Begin and Flush; nil otherwise
}

// work is what a batch needs while it is being made. Sessions borrow it from a
// pool for that time, so that an idle connection holds none of it.
type work struct {
	headers wire.Headers
	ops     []op
	events  []slot
	batch   signing.Batch
	arena   []byte         // header lines, frames and identifiers of this batch
	block   []byte         // the header block under construction in Flush
	claim   *signing.Claim // of the signed event under admission; nil before the first
	// signedAt is the recordedtime of that event.
	signedAt time.Time
}

var works = sync.Pool{New: func() any { return new(work) }}

// slot is an event under admission and the memory its decoded values live in.
type slot struct {
	event   cloudevent.Event
	scratch cloudevent.Scratch
	logged  Attested // is told of it; nil: nobody
	digest  [sha256.Size]byte
}

// op is one accepted thing in order. Slices are views into the read buffer, the
// scratch or the arena.
type op struct {
	frame   []byte // complete frame: nothing else is set
	event   int    // index into events, -1 for a raw publish
	subject []byte
	reply   []byte
	extra   []byte // complete header lines that go along unsigned
	payload []byte
}

// Session returns the state for a new connection of p.
func (c *Chain) Session(p *policy.Principal) *Session {
	return &Session{
		chain: c, p: p,
		authID: []byte(p.FullName()), source: []byte(p.DefaultSource()),
		routes: make(map[string]*route),
		ids:    newIDSource(),
	}
}

// Principal returns whose session this is.
func (s *Session) Principal() *policy.Principal { return s.p }

// Begin starts a batch: everything until Flush is recorded as of now. Frame,
// Publish and Flush may be called only after it; Flush ends the batch.
func (s *Session) Begin(now time.Time) {
	s.now = now
	if u := now.Unix(); u != s.lastUnix || len(s.recorded) == 0 {
		s.lastUnix = u
		s.recorded = now.UTC().AppendFormat(s.recorded[:0], "2006-01-02T15:04:05Z")
	}
	if s.work == nil {
		s.work = works.Get().(*work)
	}
	s.ops = s.ops[:0]
	s.events = s.events[:0]
	s.arena = s.arena[:0]
	s.batch.Reset()
}

// Frame adds a complete canonical frame to be forwarded in order; b is copied.
func (s *Session) Frame(b []byte) {
	if s.work == nil {
		s.Begin(s.now) // the caller's fault, which must not cost a frame or the process
	}
	at := len(s.arena)
	s.arena = append(s.arena, b...)
	s.ops = append(s.ops, op{frame: s.arena[at:len(s.arena):len(s.arena)], event: -1})
}

// Publish judges one publish. nil means accepted: it will be part of the next
// Flush. A refusal names code, rule, subject and principal; what to do with the
// rejected bytes is in Rejection.
func (s *Session) Publish(p *Publish) *wire.Refusal {
	s.rejected = Rejection{}
	r := s.admit(p)
	if r != nil {
		r.Principal = s.p.FullName()
		if r.Subject == "" {
			r.Subject = string(p.Subject)
		}
		s.rejected.Store = s.stores(r, p)
	}
	return r
}

// stores applies the storage rules for dead letters (docs/spec/dlq.md): schema and
// signature failures are kept unless the subject says reject only, but for signatures
// that are late, repeated or missing; everything
// else is kept only where the subject says deadLetter.
func (s *Session) stores(r *wire.Refusal, p *Publish) bool {
	rt := s.routes[string(p.Subject)]
	if rt == nil {
		return false // no grant, no class: nothing of it is stored
	}
	failure := policy.FailureDefault
	if rt.binding != nil {
		failure = rt.binding.OnFailure
	}
	return keeps(r.Code, failure)
}

// keeps reports whether a refusal with this code is stored as a dead letter under
// the failure rule of its subject (policy.FailureDefault where no rule matches).
// What could not be authenticated has no tenant and is never stored.
func keeps(code wire.Code, failure policy.Failure) bool {
	reason := dlq.ReasonOf(code)
	switch {
	case reason == dlq.ReasonIdentity || failure == policy.FailureReject:
		return false
	case failure == policy.FailureDeadLetter:
		return true
	default:
		return dlq.CodeStoredByDefault(code)
	}
}

// Rejection returns what is known of the last refusal.
func (s *Session) Rejection() Rejection { return s.rejected }

func (s *Session) admit(p *Publish) *wire.Refusal {
	rt := s.routes[string(p.Subject)] // no allocation: map lookup by converted bytes
	if rt == nil {
		var r *wire.Refusal
		if rt, r = s.resolve(string(p.Subject)); r != nil {
			return r
		}
	}
	if len(p.Payload) > rt.maxPayload {
		return wire.Refuse(wire.CodePayloadTooLarge, rt.sizeRule, "")
	}
	if rt.softPayload > 0 && len(p.Payload) > rt.softPayload {
		rt.softCount.Add()
	}
	if err := s.headers.Parse(p.Header); err != nil {
		return headerRefusal(err)
	}
	at := len(s.arena)
	s.asked, s.plans = false, plan{}
	r := s.takeHeaders(rt)
	if r == nil && s.asked {
		r = mayAsk(s, rt, p)
	}
	as, planned := rt, p // a plan is judged as what it will be
	if r == nil && s.plans.any() {
		as, planned, r = planFor(s, rt, p)
	}
	if r != nil {
		s.arena = s.arena[:at]
		return r
	}
	extra := s.arena[at:len(s.arena):len(s.arena)]
	if r := s.fly(as, p); r != nil {
		return r
	}
	// What depends on the type of the event is charged with it, all at once.
	if s.late = nil; len(rt.typed)+len(as.typed) > 0 {
		s.late = rt
	} else if r := s.charge(rt, as, nil, len(p.Header)+len(p.Payload)); r != nil {
		return r
	}
	rt.spared.Add()
	if rt.stored() {
		for _, room := range [...]*Room{s.chain.cfg.Room, rt.room} {
			if r := room.Short(s.p.Priority).Refusal(len(p.Payload)); r != nil {
				return r
			}
		}
	}
	if rt.class != acl.ClassEvent && rt.class != acl.ClassEphemeral {
		if r := s.checkSchema(rt, s.mediaType(rt), p.Payload); r != nil {
			return r
		}
		subject := p.Subject
		if rt.forward != nil {
			subject = rt.forward
		}
		s.ops = append(s.ops, op{event: -1, subject: subject, reply: p.Reply, extra: extra, payload: p.Payload})
		return nil
	}
	if s.now.Before(s.chain.cfg.NotBefore) || !s.now.Before(s.chain.cfg.NotAfter) {
		return wire.Refuse(wire.CodeUnavailable, ruleAttestationKey, "the broker's attestation key is not valid now")
	}
	r = s.admitEvent(as, planned, extra)
	if r == nil && s.plans.any() {
		s.ops[len(s.ops)-1].subject = p.Subject // the plan lies where the client put it
	}
	return r
}

// Flush attests the events of the batch, appends every accepted publish and frame
// to dst in order, and returns the extended slice.
func (s *Session) Flush(dst []byte) []byte {
	if s.work == nil {
		return dst // nothing since the last Flush
	}
	if len(s.events) > 0 {
		s.batch.Sign(s.chain.cfg.Signer)
	}
	for i := range s.ops {
		o := &s.ops[i]
		switch {
		case o.frame != nil:
			dst = append(dst, o.frame...)
		case o.event >= 0:
			dst = s.appendEvent(dst, o)
		case len(o.extra) > 0:
			s.block = append(s.block[:0], wire.HeaderLine...)
			s.block = append(s.block, o.extra...)
			s.block = append(s.block, '\r', '\n')
			dst = wire.AppendHPub(dst, o.subject, o.reply, s.block, o.payload)
		default:
			dst = wire.AppendPub(dst, o.subject, o.reply, o.payload)
		}
	}
	s.release()
	return dst
}

// release drops the views of the finished batch and gives the work back. What
// one huge batch grew is not kept.
func (s *Session) release() {
	w := s.work
	s.work = nil
	const keep = 64 << 10
	if cap(w.arena) > keep || cap(w.block) > keep || cap(w.events) > 4096 {
		return
	}
	for i, all := 0, w.events[:cap(w.events)]; i < len(all); i++ {
		if cap(all[i].scratch) > keep/8 {
			all[i].scratch = nil
		}
	}
	clear(w.ops)
	for i := range w.events {
		w.events[i].event.Reset() // the views must not keep a read buffer alive
	}
	works.Put(w)
}
