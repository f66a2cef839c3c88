package acl

import (
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Explanation is the whole answer to "can this principal do that, and why". It is
// for policy administrators: it shows the policy.
type Explanation struct {
	Allowed   bool
	Principal string // tenant/name
	Verb      string
	Subject   string
	Class     Class           // of the subject, for publish
	Rule      string          // as in Decision
	At        policy.Position // of the grant that allows or, when denied, the nearest one
	Ruled     bool            // denied by a rule of the policy, which stands at At
	Nearest   string          // pattern of the nearest grant, when denied
	Fix       string          // what to change, when denied
	Limits    []string        // that a publish or a call has to pass, when allowed
}

// String writes the explanation for people, in a few lines.
func (e Explanation) String() string {
	var b strings.Builder
	word := "DENIED"
	if e.Allowed {
		word = "ALLOWED"
	}
	fmt.Fprintf(&b, "%s: %s may ", word, e.Principal)
	if !e.Allowed {
		b.WriteString("not ")
	}
	fmt.Fprintf(&b, "%s %q\n  rule: %s", e.Verb, e.Subject, e.Rule)
	if e.At.Line > 0 && (e.Allowed || e.Ruled) {
		fmt.Fprintf(&b, " (%s)", e.At)
	}
	if e.Nearest != "" {
		fmt.Fprintf(&b, "\n  nearest grant: %s (%s)", e.Nearest, e.At)
	}
	for _, l := range e.Limits {
		fmt.Fprintf(&b, "\n  %s", l)
	}
	if e.Fix != "" {
		fmt.Fprintf(&b, "\n  fix: %s", e.Fix)
	}
	return b.String()
}

// Wire returns what a refusal and an audit record hold of it.
func (e Explanation) Wire() *wire.Explanation {
	return &wire.Explanation{File: e.At.File, Line: e.At.Line, Nearest: e.Nearest, Fix: e.Fix}
}

// Verbs are the words that Explain understands.
var Verbs = []string{
	policy.VerbPublish, policy.VerbSubscribe, policy.VerbCall, policy.VerbServe, policy.VerbDiscover,
	policy.VerbKVRead, policy.VerbKVWrite, policy.VerbObjectRead, policy.VerbObjectWrite, policy.VerbAdmin,
	policy.VerbHeader, policy.VerbSource, policy.VerbType, policy.VerbConsumer, "connect",
}

// Explain decides about verb on subject (for the verbs without a subject: a bucket,
// area, header, source, type, STREAM.CONSUMER, or nothing) and says why. An unknown
// verb is denied.
func Explain(p *policy.Principal, verb, subject string) Explanation {
	e := Explanation{Principal: p.FullName(), Verb: verb, Subject: subject}
	if p.Disabled {
		e.Rule, e.At = "principal disabled", p.At
		e.Fix = fmt.Sprintf("remove disabled: true from principal %s", p.Name)
		if !p.Until.IsZero() {
			e.Fix = fmt.Sprintf("principal %s is disabled by disabled: true, or since its until, %s: set a later one", p.Name, p.Until.Format(time.RFC3339))
		}
		return e
	}
	d, fix := decide(p, verb, subject, &e)
	e.Allowed, e.Rule = d.Allowed, d.Rule
	switch {
	case d.Nearest != nil:
		e.At = d.Nearest.Position
	case !d.Allowed:
		e.At = p.At
	}
	if d.Allowed {
		e.Limits = limitsOf(p, verb, subject)
		return e
	}
	if g := lapsed(p, verb, subject); g != nil {
		e.Nearest, e.At = g.Pattern, g.Position
		e.Fix = fmt.Sprintf("the grant, or the role that has it, has lapsed at %s: set a later until", g.Until.Format(time.RFC3339))
		return e
	}
	if d.Nearest == nil {
		d.Nearest = closest(p, verb, subject)
	}
	if d.Nearest != nil {
		e.Nearest, e.At = d.Nearest.Pattern, d.Nearest.Position
	}
	e.Fix = fix
	return e
}

// limitsOf are the limits that hold for what is allowed.
func limitsOf(p *policy.Principal, verb, subject string) []string {
	switch verb {
	case policy.VerbPublish:
		if Classify(p.Tenant, subject) == ClassAdmin {
			return nil
		}
		return p.LimitTexts(subject)
	case policy.VerbCall:
		return p.LimitTexts(wire.PrefixRPC + subject)
	case "connect":
		return p.LimitTexts("")
	}
	return nil
}

// decide asks the function of the verb and returns the fix for a denial.
func decide(p *policy.Principal, verb, subject string, e *Explanation) (Decision, string) {
	grant := func(key string) string {
		return fmt.Sprintf("add %q to %s of principal %s (%s) or of one of its roles", subject, key, p.Name, p.At)
	}
	switch verb {
	case policy.VerbPublish:
		return explainPublish(p, subject, e, grant("publish"))
	case policy.VerbSubscribe:
		if err := wire.CheckFilter(subject); err != nil {
			return Decision{Rule: "grammar"}, err.Error()
		}
		d := Subscribe(p, subject)
		if d.Rule == "default-deny/wildcard-first" {
			return d, "name the first token: a wildcard there would also match rpc, inbox and system subjects"
		}
		return d, grant("subscribe")
	case policy.VerbCall:
		return Call(p, subject), grant("call")
	case policy.VerbServe:
		return Serve(p, subject), grant("serve")
	case policy.VerbDiscover:
		return Discover(p), fmt.Sprintf("set discover: true on principal %s (%s)", p.Name, p.At)
	case policy.VerbKVRead:
		return KVRead(p, subject), grant("kv.read")
	case policy.VerbKVWrite:
		return KVWrite(p, subject), grant("kv.write")
	case policy.VerbObjectRead:
		return ObjectRead(p, subject), grant("objects.read")
	case policy.VerbObjectWrite:
		return ObjectWrite(p, subject), grant("objects.write")
	case policy.VerbAdmin:
		return Admin(p, subject), grant("admin")
	case policy.VerbHeader:
		return Header(p, subject), grant("headers")
	case policy.VerbSource:
		return Source(p, subject), grant("sources")
	case policy.VerbType:
		return Type(p, subject), grant("types")
	case policy.VerbConsumer:
		stream, consumer, _ := strings.Cut(subject, ".")
		return Consumer(p, stream, consumer), grant("consumers")
	case "connect":
		return Decision{Allowed: p.CanConnect(), Rule: "identities"},
			fmt.Sprintf("add an nkey or another identity under identities of principal %s (%s)", p.Name, p.At)
	}
	return Decision{Rule: "unknown verb"}, "use one of: " + strings.Join(Verbs, ", ")
}

// explainPublish follows the admission chain: grammar, class, then the grant.
func explainPublish(p *policy.Principal, subject string, e *Explanation, fix string) (Decision, string) {
	e.Class = Classify(p.Tenant, subject)
	switch e.Class {
	case ClassEvent, ClassEphemeral:
		if err := wire.CheckSubject(subject); err != nil {
			return Decision{Rule: "grammar"}, err.Error()
		}
		return Publish(p, subject), fix
	case ClassRPC:
		return Call(p, subject), fmt.Sprintf("add %q to call of principal %s (%s)", endpoint(subject), p.Name, p.At)
	case ClassKV:
		bucket, _, _ := KVBucket(subject)
		return KVWrite(p, bucket), fmt.Sprintf("add %q to kv.write of principal %s (%s)", bucket, p.Name, p.At)
	case ClassObject:
		bucket, _ := ObjectBucket(subject)
		return ObjectWrite(p, bucket), fmt.Sprintf("add %q to objects.write of principal %s (%s)", bucket, p.Name, p.At)
	case ClassAdmin:
		switch subject {
		case KeyringSubject:
			return Decision{Allowed: true, Rule: "keyring"}, ""
		case CertifySubject:
			return Decision{Allowed: true, Rule: "enrolment"}, ""
		}
		if OwnLetters(p, subject) {
			return Decision{Allowed: true, Rule: "deadLetter.owners"}, ""
		}
		if OwnSchedules(p, subject) {
			return Header(p, policy.Cron), ""
		}
		area, _, _ := AdminArea(subject)
		return Admin(p, area), fmt.Sprintf("add %q to admin of principal %s (%s)", area, p.Name, p.At)
	case ClassService:
		return Discover(p), fmt.Sprintf("set discover: true on principal %s (%s)", p.Name, p.At)
	case ClassDenied:
		if err := wire.CheckSubject(subject); err != nil && !strings.HasPrefix(subject, "$") {
			return Decision{Rule: "grammar"}, err.Error()
		}
		return Decision{Rule: "default-deny/undeclared"},
			fmt.Sprintf("declare %q under streams or ephemeral of tenant %s", subject, p.Tenant.Name)
	}
	return Decision{Rule: "depends on the connection"}, "the gate decides: only what was handed to the connection is allowed"
}

// closest looks for the grant of the verb that looks most like subject, for
// denials that no shared first token explains (a misspelt one).
func closest(p *policy.Principal, verb, subject string) *policy.Grant {
	g := &p.Grants
	lists := map[string][]policy.Grant{
		policy.VerbPublish: g.Publish.All(), policy.VerbSubscribe: g.Subscribe.All(), policy.VerbCall: g.Call.All(),
		policy.VerbServe: g.Serve.All(), policy.VerbHeader: g.Headers.All(), policy.VerbSource: g.Sources.All(),
		policy.VerbType: g.Types.All(), policy.VerbConsumer: g.Consumers.All(),
	}
	var best *policy.Grant
	most := 2 // fewer common characters in front and behind say nothing
	for i := range lists[verb] {
		if n := alike(lists[verb][i].Pattern, subject); n > most {
			best, most = &lists[verb][i], n
		}
	}
	return best
}

// alike counts the characters that two strings share at their ends.
func alike(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	a, b = a[n:], b[n:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
		n++
	}
	return n
}

// lapsed returns the grant that would allow, had its time not ended.
func lapsed(p *policy.Principal, verb, subject string) *policy.Grant {
	if verb == policy.VerbCall || verb == policy.VerbServe {
		subject = endpoint(subject)
	}
	for i := range p.Lapsed {
		g := &p.Lapsed[i]
		prefix, open := strings.CutSuffix(g.Pattern, "*")
		if g.Verb == verb && (g.Pattern == subject || open && strings.HasPrefix(subject, prefix) || wire.Subset(subject, g.Pattern)) {
			return g
		}
	}
	return nil
}
