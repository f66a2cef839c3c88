package admission

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/ratelimit"
	"github.com/signetbus/signet/schema"
)

// Judge says what admission would make of an event, with the same code, and lets nothing
// in: nothing is attested, counted, limited or forwarded. It does not ask what depends on
// the moment: rates, room in the store, and whether a signature is good, though it asks
// whether one is there that the policy demands. It is not safe for concurrent use.
type Judge struct {
	chain    Chain
	sessions map[*policy.Principal]*Session
}

// NewJudge returns a judge. validator and maxPayload are as in Config.
func NewJudge(validator func(*policy.SchemaDoc) schema.Validator, maxPayload int) *Judge {
	if maxPayload <= 0 {
		maxPayload = DefaultMaxPayload
	}
	return &Judge{
		chain:    Chain{cfg: Config{Validator: validator, MaxPayload: maxPayload, Explain: true, Buckets: &ratelimit.Table{}}},
		sessions: map[*policy.Principal]*Session{},
	}
}

// Event judges one event as p would publish it, or as it was stored: a header block, which
// may be empty, and the payload. verb and what say which grant a refusal is about, empty
// where it is about none.
func (j *Judge) Event(p *policy.Principal, subject string, header, payload []byte, now time.Time) (verb, what string, _ *wire.Refusal) {
	s := j.sessions[p]
	if s == nil {
		s = j.chain.Session(p)
		s.dry = true
		j.sessions[p] = s
	}
	s.Begin(now)
	defer s.release()
	s.rejected = Rejection{}
	rt := s.routes[subject]
	if rt == nil {
		var r *wire.Refusal
		if rt, r = s.resolve(subject); r != nil {
			return policy.VerbPublish, subject, r
		}
	}
	if len(payload) > rt.maxPayload {
		return "", "", wire.Refuse(wire.CodePayloadTooLarge, rt.sizeRule, "")
	}
	if err := s.headers.Parse(header); err != nil {
		return "", "", headerRefusal(err)
	}
	if rt.class != acl.ClassEvent && rt.class != acl.ClassEphemeral {
		return "", "", s.checkSchema(rt, s.mediaType(rt), payload)
	}
	sl := s.nextSlot()
	e := &sl.event
	structured, err := cloudevent.IsStructured(&s.headers)
	switch {
	case err != nil:
	case structured:
		err = e.FromJSON(payload, &sl.scratch)
	default:
		err = e.FromHeaders(&s.headers, payload, &sl.scratch)
	}
	if err != nil {
		return "", "", eventRefusal(err)
	}
	if r := requireEncryption(rt, e); r != nil {
		return "", "", r
	}
	if len(e.Get(wire.AttrDSSE)) == 0 {
		if _, r := openSignature(s, rt, &Publish{}, e); r != nil {
			return "", "", r
		}
	}
	switch r := s.complete(rt, e, true); {
	case r == nil:
	case r.Code == wire.CodeSourceDenied:
		return policy.VerbSource, string(e.Source), r
	case r.Code == wire.CodeTypeDenied:
		return policy.VerbType, string(e.Type), r
	default:
		return "", "", r
	}
	if r := schemaBlinded(rt, e); r != nil {
		return "", "", r
	}
	return "", "", s.checkSchema(rt, e.ContentType, e.Data)
}

var structuredHeader = []byte(wire.HeaderLine + wire.HeaderContentType + ": application/cloudevents+json\r\n\r\n")

// CanPublish is acl.Explain for a publish of one event on subject: a CloudEvent in JSON,
// or, if it has no specversion, the bare payload. The violations are of its schema.
func (j *Judge) CanPublish(p *policy.Principal, subject string, event []byte, now time.Time) (acl.Explanation, []wire.Violation) {
	e := acl.Explain(p, policy.VerbPublish, subject)
	if !e.Allowed {
		return e, nil
	}
	var header []byte
	var look struct {
		SpecVersion string `json:"specversion"`
	}
	if json.Unmarshal(event, &look) == nil && look.SpecVersion != "" {
		header = structuredHeader
	}
	verb, what, r := j.Event(p, subject, header, event, now)
	switch {
	case r == nil:
		return e, nil
	case verb == policy.VerbSource || verb == policy.VerbType:
		return acl.Explain(p, verb, what), nil
	}
	e.Allowed, e.Rule, e.At, e.Nearest = false, r.Rule, policy.Position{}, ""
	if b := p.Tenant.Binding(subject); b != nil {
		e.At, e.Ruled = b.At, true
	}
	e.Fix = strings.TrimSuffix(r.Code.Entry().Title+": "+r.Detail, ": ")
	return e, r.Violations
}
