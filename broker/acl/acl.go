package acl

import (
	"strings"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Decision is the answer of every question to this package.
type Decision struct {
	Allowed bool
	// Rule names the grant that allows ("role order-writer/publish[1]"), or the
	// built-in check that denies ("default-deny/publish").
	Rule string
	// Nearest is the grant that decided or, when denied, the one that comes closest
	// by leading tokens; nil if there is none. It is policy-internal: not for callers.
	Nearest *policy.Grant
	// Spared counts what only the mode of the principal lets through, where that is
	// ModeAudit; nil otherwise. Use counts the decision itself.
	Spared *policy.Count
}

// Use counts that something was let in by this decision: the grant is in use. Questions,
// which let nothing in, do not.
func (d Decision) Use() Decision {
	if d.Allowed && d.Nearest != nil {
		d.Nearest.Used.Add()
	}
	return d
}

// spare lets through what no grant is for and the mode of p does not hold against it.
// inside says that it is about an event that the tenant declares, or one that p may
// publish: nothing else is ever spared.
func spare(p *policy.Principal, d Decision, verb string, inside bool) Decision {
	if d.Allowed || !inside || p.Mode == policy.ModeEnforce {
		return d
	}
	d = Decision{Allowed: true, Rule: "mode-" + p.Mode.String() + "/" + verb}
	if p.Mode == policy.ModeAudit {
		d.Spared = p.Spare
	}
	return d
}

func allow(g *policy.Grant) Decision { return Decision{Allowed: true, Rule: g.Rule, Nearest: g} }

// reserved reports whether an event verb never reaches subject, whatever the
// grants: rpc, inbox and system subjects have verbs of their own.
func reserved(subject string) bool {
	return subject == "" || subject[0] == '$' || subject[0] == '_' ||
		strings.HasPrefix(subject, wire.PrefixRPC) || subject == "rpc"
}

func subjects(g *policy.SubjectGrants, filter, deny string) Decision {
	if grant := g.Covers(filter); grant != nil {
		return allow(grant)
	}
	return Decision{Rule: deny, Nearest: g.Nearest(filter)}
}

func names(g *policy.NameGrants, name, deny string) Decision {
	if grant := g.Match(name); grant != nil {
		return allow(grant)
	}
	return Decision{Rule: deny}
}

// Publish decides about a literal event or ephemeral subject. Whether the subject
// is declared is Classify's question.
func Publish(p *policy.Principal, subject string) Decision {
	if reserved(subject) {
		return Decision{Rule: "default-deny/publish"}
	}
	d := subjects(&p.Grants.Publish, subject, "default-deny/publish")
	return spare(p, d, policy.VerbPublish, !d.Allowed && p.Tenant.Declares(subject))
}

// Subscribe decides about a subscription or consumer filter: one grant must cover
// every subject that the filter matches. A filter whose first token is a wildcard
// is denied even under a grant of ">", because to the server it would also match
// rpc, inbox and system subjects.
func Subscribe(p *policy.Principal, filter string) Decision {
	if reserved(filter) {
		return Decision{Rule: "default-deny/subscribe"}
	}
	if filter[0] == '*' || filter[0] == '>' {
		return Decision{Rule: "default-deny/wildcard-first"}
	}
	d := subjects(&p.Grants.Subscribe, filter, "default-deny/subscribe")
	return spare(p, d, policy.VerbSubscribe, !d.Allowed && p.Tenant.Declares(filter))
}

// endpoint cuts the rpc. prefix: both "rpc.service.endpoint" and
// "service.endpoint" are understood; no service is called rpc.
func endpoint(s string) string { return strings.TrimPrefix(s, wire.PrefixRPC) }

// Call decides about a request to an endpoint, "service.endpoint" with or without rpc.
func Call(p *policy.Principal, service string) Decision {
	return subjects(&p.Grants.Call, endpoint(service), "default-deny/call")
}

// Serve decides about a subscription that answers an endpoint; wildcards as in Subscribe.
func Serve(p *policy.Principal, service string) Decision {
	return subjects(&p.Grants.Serve, endpoint(service), "default-deny/serve")
}

// ServeName decides whether p may announce the service name: some serve grant is
// for it. An empty name asks whether p may announce any.
func ServeName(p *policy.Principal, name string) Decision {
	list := p.Grants.Serve.All()
	for i := range list {
		if service, _, _ := strings.Cut(list[i].Pattern, "."); name == "" || service == name {
			return allow(&list[i])
		}
	}
	return Decision{Rule: "default-deny/serve"}
}

// ServiceSubject decides about a subscription on "$SRV.<verb>[.name[.id]]" (verbs
// PING, INFO, STATS): without wildcards, and only for services that p serves.
func ServiceSubject(p *policy.Principal, filter string) Decision {
	denied := Decision{Rule: "default-deny/serve"}
	rest, ok := strings.CutPrefix(filter, wire.PrefixService)
	if !ok || strings.ContainsAny(rest, "*>") {
		return denied
	}
	verb, rest, named := strings.Cut(rest, ".")
	if verb != "PING" && verb != "INFO" && verb != "STATS" {
		return denied
	}
	name, id, hasID := strings.Cut(rest, ".")
	if named && name == "" || hasID && (id == "" || strings.Contains(id, ".")) {
		return denied
	}
	return ServeName(p, name)
}

// KVRead decides about reading a key-value bucket.
func KVRead(p *policy.Principal, bucket string) Decision {
	return names(&p.Grants.KVRead, bucket, "default-deny/kv-read")
}

// KVWrite decides about writing a key-value bucket; it does not include reading.
func KVWrite(p *policy.Principal, bucket string) Decision {
	return names(&p.Grants.KVWrite, bucket, "default-deny/kv-write")
}

// ObjectRead decides about reading an object bucket.
func ObjectRead(p *policy.Principal, bucket string) Decision {
	return names(&p.Grants.ObjectRead, bucket, "default-deny/object-read")
}

// ObjectWrite decides about writing an object bucket; it does not include reading.
func ObjectWrite(p *policy.Principal, bucket string) Decision {
	return names(&p.Grants.ObjectWrite, bucket, "default-deny/object-write")
}

// Admin decides about an area of the admin API.
func Admin(p *policy.Principal, area string) Decision {
	return names(&p.Grants.Admin, area, "default-deny/admin")
}

// Discover decides about asking services for PING, INFO and STATS.
func Discover(p *policy.Principal) Decision {
	if g := p.Grants.Discover; g != nil {
		return allow(g)
	}
	return Decision{Rule: "default-deny/discover"}
}

// Header decides about a header that is a capability. Names are compared byte for byte.
func Header(p *policy.Principal, name string) Decision {
	return names(&p.Grants.Headers, name, "default-deny/header")
}

// Source decides about an event source. "/tenant/principal" is always granted.
func Source(p *policy.Principal, source string) Decision {
	if source == p.DefaultSource() {
		return Decision{Allowed: true, Rule: "default-source"}
	}
	return spare(p, names(&p.Grants.Sources, source, "default-deny/source"), policy.VerbSource, true)
}

// Type decides about an event type. Without a types grant every type is allowed.
func Type(p *policy.Principal, eventType string) Decision {
	if len(p.Grants.Types.All()) == 0 {
		return Decision{Allowed: true, Rule: "default-type"}
	}
	return spare(p, names(&p.Grants.Types, eventType, "default-deny/type"), policy.VerbType, true)
}

// Consumer decides about a consumer that another principal made: a consumers grant
// of "STREAM.CONSUMER" or "STREAM.*" shares it.
func Consumer(p *policy.Principal, stream, consumer string) Decision {
	list := p.Grants.Consumers.All()
	for i := range list {
		s, c, _ := strings.Cut(list[i].Pattern, ".")
		if s == stream && (c == consumer || c == "*") {
			return allow(&list[i])
		}
	}
	return Decision{Rule: "default-deny/consumer"}
}
