package acl

import (
	"slices"
	"strings"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// jsAPI are the JetStream API subjects that the read guard may let through for
// everybody (reads, own consumers, filtered purge); it decides on the body.
var jsAPI = []string{
	"INFO", "STREAM.NAMES", "STREAM.INFO.*", "STREAM.MSG.GET.*", "STREAM.PURGE.*", "DIRECT.GET.>",
	"CONSUMER.CREATE.>", "CONSUMER.DURABLE.CREATE.*.*", "CONSUMER.INFO.*.*", "CONSUMER.DELETE.*.*",
	"CONSUMER.MSG.NEXT.*.*", "CONSUMER.UNPIN.*.*", "CONSUMER.RESET.*.*",
}

// jsAdmin are those for principals with the admin area streams or consumers.
// Streams themselves come from the policy, for administrators too.
var jsAdmin = map[string][]string{
	"streams":   {"STREAM.LIST", "STREAM.MSG.DELETE.*"},
	"consumers": {"CONSUMER.NAMES.*", "CONSUMER.LIST.*", "CONSUMER.PAUSE.*.*"},
}

// KeyringSubject answers the keyring to every principal; no grant is needed.
const KeyringSubject = wire.PrefixAdmin + "keys.ring"

// CertifySubject issues a certificate to every principal, for its own names only.
const CertifySubject = wire.PrefixAdmin + "keys.certify"

// OpenToAll reports whether every principal may ask for the admin subject.
func OpenToAll(subject string) bool { return subject == KeyringSubject || subject == CertifySubject }

// ownLetters are the admin subjects about one's own dead letters.
var ownLetters = []string{wire.PrefixAdmin + "dlq.ls", wire.PrefixAdmin + "dlq.show", wire.PrefixAdmin + "dlq.stats", wire.PrefixAdmin + "dlq.redrive"}

// OwnLetters reports whether p may ask for the admin subject about its own dead letters,
// without a grant: its tenant has deadLetter: {owners: true}. Whoever answers must keep to
// those of p.
func OwnLetters(p *policy.Principal, subject string) bool {
	return p.Tenant.DeadLetter.Owners && !p.Disabled && slices.Contains(ownLetters, subject)
}

// ownSchedules are the admin subjects about one's own schedules.
var ownSchedules = []string{wire.PrefixAdmin + "schedules.put", wire.PrefixAdmin + "schedules.ls", wire.PrefixAdmin + "schedules.rm"}

// OwnSchedules reports whether p may ask for the admin subject about its own schedules: it has
// the right policy.Cron. Whoever answers must keep to those of p.
func OwnSchedules(p *policy.Principal, subject string) bool {
	return !p.Disabled && slices.Contains(ownSchedules, subject) && Header(p, policy.Cron).Allowed
}

// serviceVerbs are the verbs of the NATS micro protocol.
var serviceVerbs = []string{"PING", "INFO", "STATS"}

// Permissions returns the allow lists under which the connection of p is known to
// nats-server behind the gate: the second lock. session is the token that the gate
// puts into the connection's inboxes. The lists are a superset of what the gate
// lets through, never empty (which nats-server would read as everything), and hold
// no deny entries.
func Permissions(p *policy.Principal, session string) (publish, subscribe []string) {
	publish = slices.Concat(p.PublishPatterns(), []string{
		UserInfo, "$JS.ACK.>", "$JS.FC.>", "_INBOX.>", "_R_.>", KeyringSubject + ".*", CertifySubject + ".*", // the node behind them
	})
	for _, s := range jsAPI {
		publish = append(publish, wire.PrefixJSAPI+s)
	}
	g := &p.Grants
	for _, grant := range g.Call.All() {
		publish = append(publish, wire.PrefixRPC+grant.Pattern)
	}
	for _, grant := range g.KVWrite.All() {
		publish = append(publish, wire.PrefixKV+grant.Pattern+".>")
	}
	for _, grant := range g.ObjectWrite.All() {
		publish = append(publish, wire.PrefixObject+grant.Pattern+".>")
	}
	for _, grant := range g.Admin.All() {
		publish = append(publish, wire.PrefixAdmin+grant.Pattern+".>")
		for _, s := range jsAdmin[grant.Pattern] {
			publish = append(publish, wire.PrefixJSAPI+s)
		}
	}
	if p.Tenant.DeadLetter.Owners {
		for _, s := range ownLetters {
			publish = append(publish, s+".*") // the node behind it
		}
	}
	if Header(p, policy.Cron).Allowed {
		for _, s := range ownSchedules {
			publish = append(publish, s+".*")
		}
	}
	if g.Discover != nil {
		publish = append(publish, wire.PrefixService+">")
	}
	subscribe = append([]string{wire.PrefixInbox + session + ".>"}, p.SubscribePatterns()...)
	subscribe = append(subscribe, servePermissions(g.Serve.All())...)
	return unique(publish), unique(subscribe)
}

func servePermissions(serve []policy.Grant) (subscribe []string) {
	for _, grant := range serve {
		subscribe = append(subscribe, wire.PrefixRPC+grant.Pattern)
		name, _, _ := strings.Cut(grant.Pattern, ".")
		for _, verb := range serviceVerbs {
			s := wire.PrefixService + verb
			subscribe = append(subscribe, s, s+"."+name, s+"."+name+".*")
		}
	}
	return subscribe
}

func unique(list []string) []string {
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(s string) bool {
		dup := seen[s]
		seen[s] = true
		return dup
	})
}
