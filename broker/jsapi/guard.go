package jsapi

import (
	"strings"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Action is what the gate does with a request.
type Action uint8

const (
	// Refuse: answer Verdict.Refusal; nothing is forwarded. It is the zero value,
	// so that a forgotten verdict denies.
	Refuse Action = iota
	// Forward: send Verdict.Subject, Reply, Header and Body upstream.
	Forward
	// NeedOwner: look up the owner of Verdict.Stream and Verdict.Consumer, then
	// call Judge again with an OwnerFunc that knows it.
	NeedOwner
)

// Effect is what a forwarded request may change about consumers.
type Effect uint8

const (
	// EffectNone: no consumer changes.
	EffectNone Effect = iota
	// EffectCreated: Verdict.Consumer may have been created or updated. The gate
	// forgets what it knew about it; the next request looks the owner up again.
	// (Only the server knows whether the request won, so nothing is remembered.)
	EffectCreated
	// EffectDeleted: Verdict.Consumer may be gone. The gate forgets it.
	EffectDeleted
)

// OwnerFunc returns the owner ("tenant/name") of a consumer. found is false if
// there is no such consumer; owner is empty if it has no owner in its metadata.
// known is false if the caller must look first. "Not found" must not be cached
// beyond one Judge: another connection may create the consumer at any time.
type OwnerFunc func(stream, consumer string) (owner string, found, known bool)

// Request is one publish of a client on a `$JS.` or `$SYS.` subject.
type Request struct {
	Principal *policy.Principal
	Session   string // the connection's inbox token; for the caller's use only
	Subject   string // as the client wrote it; may hold wildcard tokens in a filter
	Reply     string // as the client wrote it; empty is none
	Header    *wire.Headers
	Body      []byte

	// MapInbox turns an inbox of this client into its upstream form, and answers
	// false for anything else. It must leave its own output alone: a client reads
	// the upstream form of deliver_subject in a consumer's info and uses it again.
	MapInbox func(client string) (upstream string, ok bool)
}

// Verdict is the answer to a Request.
type Verdict struct {
	Action  Action
	Subject string // upstream
	Reply   string // upstream
	Header  []byte // whole canonical block, nil for none
	Body    []byte // canonical; may be a view into Request.Body

	Refusal *wire.Refusal
	APIType string // "type" member of the refusal's JSON answer
	Status  bool   // refuse by a 400 status frame, which is what a pulling client reads, not by JSON

	Stream, Consumer string // set when the request names them
	Effect           Effect
}

// Config configures a Guard.
type Config struct {
	// Domain is the JetStream domain of the embedded server; empty is none.
	Domain string
}

// Guard judges requests. It is immutable and safe for concurrent use.
type Guard struct{ domain string }

// New returns a Guard.
func New(cfg Config) *Guard {
	if cfg.Domain == "" {
		cfg.Domain = "_" // how the server spells "no domain" in ack subjects
	}
	return &Guard{domain: cfg.Domain}
}

const subjectUserInfo = "$SYS.REQ.USER.INFO"

// Judge gives the verdict. It never blocks and never panics; it does not retain
// the request. A refusal carries Code, Rule ("read-guard/<verb>"), Subject,
// Principal and Detail; the caller adds Ref.
func (g *Guard) Judge(r *Request, owner OwnerFunc) Verdict {
	switch {
	case wire.CheckRawSubject(r.Subject, true) != nil:
		c := call{Request: r, verb: "subject"}
		return c.refuse(wire.CodeSubjectMalformed, "not a subject of printable tokens within 1024 bytes")
	case strings.HasPrefix(r.Subject, wire.PrefixJSAck):
		return g.judgeAck(r, owner)
	case strings.HasPrefix(r.Subject, wire.PrefixJSFC):
		return g.judgeFlow(r, owner)
	case strings.HasPrefix(r.Subject, wire.PrefixJSAPI):
		return judgeAPI(r, owner)
	case r.Subject == subjectUserInfo:
		c := call{Request: r, verb: "user.info"}
		return c.forward(nil)
	}
	c := call{Request: r, verb: "subject"}
	return c.refuse(wire.CodeAPIDenied, "not in the table of allowed requests")
}

// call is one Judge in progress.
type call struct {
	*Request
	owner   OwnerFunc
	verb    string // for the rule name
	apiType string
	status  bool
	args    string // the subject after the verb
	stream  stream
	name    string // consumer
	effect  Effect
}

func (c *call) refuse(code wire.Code, detail string) Verdict {
	r := wire.Refuse(code, "read-guard/"+c.verb, detail)
	r.Subject = c.Subject
	if c.Principal != nil {
		r.Principal = c.Principal.FullName()
	}
	return Verdict{
		Action: Refuse, Refusal: r, APIType: c.apiType, Status: c.status,
		Stream: c.stream.name, Consumer: c.name,
	}
}

// needOwner says how to refuse too, for when the look-up fails.
func (c *call) needOwner() Verdict {
	return Verdict{
		Action: NeedOwner, APIType: c.apiType, Status: c.status,
		Stream: c.stream.name, Consumer: c.name,
	}
}

// refuseFilter is refuse with CodeFilterDenied, about what was asked for: the subject of the
// request does not say it. An empty filter is all of the stream.
func (c *call) refuseFilter(filter, detail string) Verdict {
	v := c.refuse(wire.CodeFilterDenied, detail)
	if filter == "" {
		for _, filter = range c.stream.subjects {
			if !canReadFilter(c.Principal, &c.stream, filter) {
				break
			}
		}
	}
	if bucket := c.stream.bucket; bucket != "" {
		verb := policy.VerbKVRead
		if c.stream.kind == streamObjects {
			verb = policy.VerbObjectRead
		}
		v.Refusal.Explain = acl.Explain(c.Principal, verb, bucket).Wire()
	} else if filter != "" {
		v.Refusal.Explain = acl.Explain(c.Principal, policy.VerbSubscribe, filter).Wire()
	}
	return v
}

// forward is the only way to Forward: reply and headers are checked here.
func (c *call) forward(body []byte) Verdict {
	v := Verdict{
		Action: Forward, Subject: c.Subject, Body: body, APIType: c.apiType, Status: c.status,
		Stream: c.stream.name, Consumer: c.name, Effect: c.effect,
	}
	if c.Reply != "" {
		reply, ok := c.inbox(c.Reply)
		if !ok {
			return c.refuse(wire.CodeReplyDenied, "the reply subject is not a literal inbox of this connection")
		}
		v.Reply = reply
	}
	header, refused := c.headers()
	if refused != "" {
		return c.refuse(wire.CodeHeaderDenied, "header "+refused+" is not allowed on API requests")
	}
	v.Header = header
	return v
}

// inbox maps a reply or deliver subject. Besides being an inbox it must be
// literal, and must not end in .$FI, which makes it a control channel of the
// server's fast batches.
func (c *call) inbox(subject string) (string, bool) {
	if len(subject) > wire.MaxSubjectBytes || wire.CheckRawSubject(subject, false) != nil ||
		strings.HasSuffix(subject, ".$FI") || !strings.HasPrefix(subject, wire.PrefixInbox) || c.MapInbox == nil {
		return "", false
	}
	return c.MapInbox(subject)
}

const headerAPILevel = "Nats-Required-Api-Level"

// headers keeps the one header that clients of the API need, refuses every other
// Nats- and Signet- header (Nats-Trace-Dest is a way to write), and drops the rest.
func (c *call) headers() (block []byte, refused string) {
	if c.Header == nil {
		return nil, ""
	}
	for _, h := range c.Header.All() {
		switch {
		case string(h.Name) == headerAPILevel && block == nil && apiLevel(h.Value):
			block = append(block, wire.HeaderLine...)
			block = wire.AppendHeader(block, headerAPILevel, h.Value)
			block = append(block, '\r', '\n')
		case wire.HasPrefixFold(h.Name, wire.PrefixNats), wire.HasPrefixFold(h.Name, wire.PrefixSignet):
			return nil, string(h.Name)
		}
	}
	return block, ""
}

func apiLevel(v []byte) bool {
	for _, c := range v {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(v) > 0 && len(v) < 6
}

// owned decides for requests on an existing consumer. shareable says whether a
// consumers grant is enough; area names an admin grant that is enough, empty for
// none. ok means go on.
//
// A grant shares what other principals made: neither what has no owner, nor what the
// broker reads by itself, so the owner is looked up here too. A shared consumer that is
// not there is left to the server, which clients expect to say so.
func (c *call) owned(shareable bool, area string) (v Verdict, ok bool) {
	switch {
	case area != "" && isAdmin(c.Principal, area):
		return v, true
	case c.stream.kind == streamUnknown || c.stream.kind == streamDeadLetters:
		return c.refuse(wire.CodeAPIDenied, "the policy declares no such stream"), false
	case c.stream.kind == streamRetry:
		return ownedRetry(c, shareable)
	}
	share := shareable && shared(c.Principal, c.stream.name, c.name)
	owner, found, known := c.owner(c.stream.name, c.name)
	switch {
	case !known:
		return c.needOwner(), false
	case share && (!found || sharable(owner)):
		return v, true
	case !found:
		return c.refuse(wire.CodeNotFound, "no such consumer"), false
	case owner == "" || owner != c.Principal.FullName():
		return c.refuse(wire.CodeConsumerNotOwned, "only its owner, or a principal with a consumers grant, may use it"), false
	}
	return v, true
}

// judgeAck has its own call so that it stays on the stack: acks are as frequent
// as events.
func (g *Guard) judgeAck(r *Request, owner OwnerFunc) Verdict {
	c := call{Request: r, owner: owner, verb: "ack"}
	stream, consumer, domain, account, ok := splitAck(c.Subject)
	if v, ok := g.target(&c, stream, consumer, domain, account, ok); !ok {
		return v
	}
	body, next, ok := ackBody(c.Body)
	c.status = next
	if !ok {
		return c.refuse(wire.CodeRequestMalformed, "the payload is none of +ACK -NAK +WPI +NXT +TERM, or its argument is malformed")
	}
	if next && c.Reply == "" {
		return c.refuse(wire.CodeReplyDenied, "+NXT needs a reply subject")
	}
	if v, ok := c.owned(true, ""); !ok {
		return v
	}
	if next && !c.stillReads() {
		return c.refuseFilter("", stillReadsNothing)
	}
	return c.forward(body)
}

const stillReadsNothing = "no subscribe grant reaches the stream any more"

// stillReads: a consumer was within the grants of its owner when it was made. Whoever has
// lost every grant on the stream since gets nothing more from it, however it asks;
// narrower losses are settled by ReadsWithin when the policy is applied.
func (c *call) stillReads() bool {
	if c.stream.kind == streamRetry {
		return retryReads(c)
	}
	return canReadSome(c.Principal, &c.stream) || shared(c.Principal, c.stream.name, c.name)
}

func (g *Guard) judgeFlow(r *Request, owner OwnerFunc) Verdict {
	c := call{Request: r, owner: owner, verb: "flow"}
	stream, consumer, domain, account, ok := splitFlow(c.Subject)
	if v, ok := g.target(&c, stream, consumer, domain, account, ok); !ok {
		return v
	}
	if len(c.Body) > 0 {
		return c.refuse(wire.CodeRequestMalformed, "a flow control answer has no payload")
	}
	if v, ok := c.owned(true, ""); !ok {
		return v
	}
	return c.forward(nil)
}

// target checks the names of an ack or flow control subject and enters them.
func (g *Guard) target(c *call, stream, consumer, domain, account string, ok bool) (Verdict, bool) {
	switch {
	case !ok || wire.CheckRawSubject(c.Subject, false) != nil:
		return c.refuse(wire.CodeSubjectMalformed, "the number of tokens or a name is wrong"), false
	case domain != "" && (domain != g.domain && domain != "_" || account != accountHash(c.Principal.Tenant.Name)):
		return c.refuse(wire.CodeConsumerNotOwned, "the subject names another domain or account"), false
	}
	c.stream = lookupStream(c.Principal.Tenant, stream)
	c.name = consumer
	return Verdict{}, true
}
