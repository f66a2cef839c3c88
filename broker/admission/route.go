package admission

import (
	"strconv"
	"strings"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
)

// maxRoutes bounds the subjects that one connection keeps decided. A connection
// that uses more starts anew, which costs time and never correctness.
const maxRoutes = 4096

// areaSchedules is the one admin area that is not all that opens it.
const areaSchedules = "schedules"

// route is everything that policy says about one subject for one principal,
// decided once per connection and subject.
type route struct {
	subject string
	class   acl.Class
	limits
	maxPayload int
	sizeRule   string
	binding    *policy.Binding
	validator  schema.Validator
	schemaName string        // name@version
	eventType  []byte        // default type: the subject
	mediaType  []byte        // default datacontenttype
	forward    []byte        // subject on which it is sent on; nil: as the client wrote it
	spared     *policy.Count // of the mode of the principal; nil: there is a grant
	// softPayload is a size that a rule only counts, in softCount; 0: none.
	softPayload int
	softCount   *policy.Count
	room        *Room    // of the stream; nil: everything is taken
	dry         bool     // nothing is counted
	forgets     bool     // the stream may have lost what is still to be known again
	logged      Attested // wants to know of the events; nil: nobody
}

func (s *Session) resolve(subject string) (*route, *wire.Refusal) {
	class := acl.Classify(s.p.Tenant, subject)
	rt := &route{subject: subject, class: class, dry: s.dry, maxPayload: s.chain.cfg.MaxPayload, sizeRule: "gate.maxPayload"}
	if r := s.authorise(rt, subject); r != nil {
		return nil, r
	}
	limitRoute(s, rt, subject)
	if class == acl.ClassEvent || class == acl.ClassEphemeral {
		rt.eventType = []byte(subject)
		rt.mediaType = []byte(wire.DefaultContentType)
		if st := s.p.Tenant.StreamFor(subject); st != nil {
			rt.forgets = st.Forgets()
			if st.MaxMsgSize > 0 {
				rt.capPayload(int(st.MaxMsgSize), "stream "+st.Name)
			}
			if s.chain.cfg.StreamRoom != nil {
				rt.room = s.chain.cfg.StreamRoom(s.p.Tenant.Name, st.Name)
			}
			if st.Log && s.chain.cfg.Attested != nil {
				rt.logged = s.chain.cfg.Attested(s.p.Tenant.Name, st.Name)
			}
		}
	}
	if class == acl.ClassAdmin {
		rt.forward = []byte(wire.AtNode(subject, s.chain.cfg.Node))
	}
	if class == acl.ClassEvent || class == acl.ClassEphemeral || class == acl.ClassRPC {
		if r := s.bind(rt, subject); r != nil {
			return nil, r
		}
	}
	if len(s.routes) >= maxRoutes {
		clear(s.routes)
	}
	s.routes[subject] = rt
	return rt, nil
}

// bind attaches what the subjects section of the policy demands.
func (s *Session) bind(rt *route, subject string) *wire.Refusal {
	b := s.p.Tenant.Binding(subject)
	if b == nil {
		return nil
	}
	rt.binding = b
	switch {
	case b.MaxPayload == 0:
	case b.Mode == policy.ModeEnforce:
		rt.capPayload(int(b.MaxPayload), b.Rule)
	case b.Mode == policy.ModeAudit:
		rt.sparePayload(int(b.MaxPayload), b.Spare)
	}
	if b.ContentType != "" {
		rt.mediaType = []byte(b.ContentType)
	}
	if b.Schema == nil {
		return nil
	}
	if b.ContentType == "" {
		rt.mediaType = []byte("application/json")
	}
	if b.Mode == policy.ModeOff {
		return nil
	}
	rt.schemaName = b.Schema.Name + "@" + strconv.Itoa(b.Schema.Version)
	if rt.validator = s.chain.cfg.Validator(b.Schema); rt.validator == nil {
		return rt.judged(wire.Refuse(wire.CodeUnavailable, "schema "+rt.schemaName, "the schema is not ready"))
	}
	return nil
}

// judged is what the rule of the subject has found, as its mode has it: nil where that
// lets it through.
func (rt *route) judged(r *wire.Refusal) *wire.Refusal {
	if r == nil || rt.binding == nil || rt.binding.Mode == policy.ModeEnforce {
		return r
	}
	if rt.binding.Mode == policy.ModeAudit && !rt.dry {
		rt.binding.Spare.Add()
	}
	return nil
}

// use counts a decision that lets something in.
func use(s *Session, d acl.Decision) acl.Decision {
	if !s.dry {
		d.Use()
	}
	return d
}

// stored reports whether what is published here is stored.
func (rt *route) stored() bool {
	return rt.class == acl.ClassEvent || rt.class == acl.ClassKV || rt.class == acl.ClassObject
}

// sparePayload counts what is larger than most. Of several sizes the least counts.
func (rt *route) sparePayload(most int, count *policy.Count) {
	if rt.softPayload == 0 || most < rt.softPayload {
		rt.softPayload, rt.softCount = most, count
	}
}

func (rt *route) capPayload(most int, rule string) {
	if most < rt.maxPayload {
		rt.maxPayload, rt.sizeRule = most, rule
	}
}

// authorise is the class and the ACL: who may publish on subject at all.
func (s *Session) authorise(rt *route, subject string) *wire.Refusal {
	if subject == "" {
		return malformedSubject(wire.ErrSubjectEmpty)
	}
	switch rt.class {
	case acl.ClassEvent, acl.ClassEphemeral:
		if err := wire.CheckSubject(subject); err != nil {
			return malformedSubject(err)
		}
		d := acl.Publish(s.p, subject)
		rt.spared = d.Spared
		return s.denied(d, wire.CodePublishDenied, policy.VerbPublish, subject)
	case acl.ClassRPC:
		if err := wire.CheckSubject(subject); err != nil {
			return malformedSubject(err)
		}
		endpoint := strings.TrimPrefix(subject, wire.PrefixRPC)
		return s.denied(acl.Call(s.p, endpoint), wire.CodeCallDenied, policy.VerbCall, endpoint)
	case acl.ClassKV:
		bucket, key, _ := strings.Cut(strings.TrimPrefix(subject, wire.PrefixKV), ".")
		if !bucketKey(key) {
			return malformedSubject(wire.ErrSubjectChar)
		}
		return s.denied(acl.KVWrite(s.p, bucket), wire.CodeBucketDenied, policy.VerbKVWrite, bucket)
	case acl.ClassObject:
		bucket, key, _ := strings.Cut(strings.TrimPrefix(subject, wire.PrefixObject), ".")
		if !bucketKey(key) || !strings.HasPrefix(key, "C.") && !strings.HasPrefix(key, "M.") {
			return malformedSubject(wire.ErrSubjectChar)
		}
		return s.denied(acl.ObjectWrite(s.p, bucket), wire.CodeBucketDenied, policy.VerbObjectWrite, bucket)
	case acl.ClassService:
		if err := wire.CheckRawSubject(subject, false); err != nil {
			return malformedSubject(err)
		}
		return s.denied(acl.Discover(s.p), wire.CodeDiscoverDenied, policy.VerbDiscover, "")
	case acl.ClassAdmin:
		if err := wire.CheckRawSubject(subject, false); err != nil {
			return malformedSubject(err)
		}
		area, verb, ok := strings.Cut(strings.TrimPrefix(subject, wire.PrefixAdmin), ".")
		if !ok || strings.Contains(verb, ".") {
			return wire.Refuse(wire.CodeAdminDenied, "admin", "no such request")
		}
		if acl.OpenToAll(subject) {
			return nil // public keys: whoever may connect may verify
		}
		if acl.OwnLetters(s.p, subject) {
			return nil // the admin service keeps to those of the caller
		}
		if acl.OwnSchedules(s.p, subject) {
			use(s, acl.Header(s.p, policy.Cron))
			return nil // likewise
		}
		r := s.denied(acl.Admin(s.p, area), wire.CodeAdminDenied, policy.VerbAdmin, area)
		if r != nil && area == areaSchedules {
			r.Detail = "for one's own schedules the right " + policy.Cron + " is enough, under headers in the policy"
		}
		return r
	}
	if err := wire.CheckSubject(subject); err != nil && subject[:1] != "$" && subject[:1] != "_" {
		return malformedSubject(err)
	}
	// That a subject is not declared is told only to those who were granted it: the
	// others must not learn the layout of the streams by asking.
	if d := acl.Publish(s.p, subject); !d.Allowed {
		return s.denied(d, wire.CodePublishDenied, policy.VerbPublish, subject)
	}
	r := wire.Refuse(wire.CodeSubjectUnknown, "default-deny/subject", "")
	if s.chain.cfg.Explain {
		r.Explain = acl.Explain(s.p, policy.VerbPublish, subject).Wire()
	}
	return r
}

// denied turns a decision into a refusal. The explanation is looked up only where
// the caller may see it; administrators get it when they ask for the reference.
func (s *Session) denied(d acl.Decision, code wire.Code, verb, what string) *wire.Refusal {
	if d.Allowed {
		use(s, d)
		return nil
	}
	r := wire.Refuse(code, d.Rule, "")
	if s.chain.cfg.Explain {
		r.Explain = acl.Explain(s.p, verb, what).Wire()
	}
	return r
}

func malformedSubject(err error) *wire.Refusal {
	return wire.Refuse(wire.CodeSubjectMalformed, "subject-grammar", err.Error())
}

// bucketKey is the key grammar of nats.go's key-value and object stores
// (jetstream/kv.go validKeyRe).
func bucketKey(k string) bool {
	if k == "" || k[0] == '.' || k[len(k)-1] == '.' || strings.Contains(k, "..") || len(k) > 512 {
		return false
	}
	for i := range len(k) {
		c := k[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '-', c == '/', c == '_', c == '=', c == '.':
		default:
			return false
		}
	}
	return true
}
