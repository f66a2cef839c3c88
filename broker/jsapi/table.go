package jsapi

import (
	"strings"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Admin areas that open the verbs marked admin.
const (
	areaStreams   = "streams"
	areaConsumers = "consumers"
)

// verb is one row of the table: the request `$JS.API.<words>[.<args>]`.
type verb struct {
	apiType string // between io.nats.jetstream.api.v1. and _response
	min     int    // number of argument tokens
	max     int    // 0 is min, -1 is no limit
	judge   func(*call) Verdict
}

// verbs is the whole table; a row without judge is denied by name so that the
// refusal says so, and a subject without a row is denied as unknown.
var verbs map[string]verb

func init() { // in init, because the judges refer back to the table through refuse
	verbs = map[string]verb{
		"INFO":         {"account_info", 0, 0, judgeAccountInfo},
		"STREAM.NAMES": {"stream_names", 0, 0, judgeStreamNames},
		"STREAM.INFO":  {"stream_info", 1, 0, judgeStreamInfo},
		"STREAM.PURGE": {"stream_purge", 1, 0, judgePurge},

		"STREAM.MSG.GET": {"stream_msg_get", 1, 0, judgeMsgGet},
		"DIRECT.GET":     {"stream_msg_get", 1, -1, judgeDirectGet},

		"CONSUMER.CREATE":         {"consumer_create", 1, -1, judgeConsumerCreate},
		"CONSUMER.DURABLE.CREATE": {"consumer_create", 2, 0, judgeDurableCreate},
		"CONSUMER.MSG.NEXT":       {"", 2, 0, judgeNext},
		"CONSUMER.INFO":           {"consumer_info", 2, 0, judgeConsumerInfo},
		"CONSUMER.DELETE":         {"consumer_delete", 2, 0, judgeConsumerDelete},
		"CONSUMER.UNPIN":          {"consumer_unpin", 2, 0, judgeUnpin},
		"CONSUMER.RESET":          {"consumer_reset", 2, 0, judgeReset},

		"STREAM.LIST":       {"stream_list", 0, 0, adminBody[paged](areaStreams, false)},
		"STREAM.MSG.DELETE": {"stream_msg_delete", 1, 0, judgeMsgDelete},
		"CONSUMER.NAMES":    {"consumer_names", 1, 0, adminBody[paged](areaConsumers, false)},
		"CONSUMER.LIST":     {"consumer_list", 1, 0, adminBody[paged](areaConsumers, false)},
		"CONSUMER.PAUSE":    {"consumer_pause", 2, 0, adminBody[pause](areaConsumers, false)},

		// Streams come from the policy bundle, for administrators too.
		"STREAM.CREATE": {"stream_create", 1, 0, nil},
		"STREAM.UPDATE": {"stream_update", 1, 0, nil},
		"STREAM.DELETE": {"stream_delete", 1, 0, nil},
		// Their deliver subjects and chunk acks write to subjects of the caller's
		// choice, and a restore puts events in that nobody attested.
		"STREAM.SNAPSHOT": {"stream_snapshot", 1, 0, nil},
		"STREAM.RESTORE":  {"stream_restore", 1, 0, nil},

		"STREAM.PEER.REMOVE":         {"stream_remove_peer", 1, 0, nil},
		"STREAM.PEER.EVACUATE":       {"stream_evacuate_peer", 1, 0, nil},
		"STREAM.CANCEL_MOVE":         {"stream_cancel_move", 1, 0, nil},
		"STREAM.LEADER.STEPDOWN":     {"stream_leader_stepdown", 1, 0, nil},
		"CONSUMER.LEADER.STEPDOWN":   {"consumer_leader_stepdown", 2, 0, nil},
		"CONSUMER.PEER.REMOVE":       {"consumer_remove_peer", 2, 0, nil},
		"CONSUMER.PEER.EVACUATE":     {"consumer_evacuate_peer", 2, 0, nil},
		"META.LEADER.STEPDOWN":       {"meta_leader_stepdown", 0, 0, nil},
		"META.RESCUE":                {"meta_rescue", 0, 0, nil},
		"SERVER.REMOVE":              {"meta_server_remove", 0, 0, nil},
		"SERVER.EVACUATE":            {"meta_server_evacuate", 0, 0, nil},
		"ACCOUNT.PURGE":              {"account_purge", 1, 0, nil},
		"ACCOUNT.STREAM.MOVE":        {"stream_update", 2, 0, nil},
		"ACCOUNT.STREAM.CANCEL_MOVE": {"stream_update", 2, 0, nil},
	}
}

const maxVerbWords = 3

// findVerb splits the subject after $JS.API. into the longest verb of the table
// and its arguments.
func findVerb(rest string) (words, args string, ok bool) {
	end := 0
	for range maxVerbWords {
		i := strings.IndexByte(rest[end:], '.')
		next, cut := len(rest), len(rest)
		if i >= 0 {
			cut = end + i
			next = cut + 1
		}
		if _, hit := verbs[rest[:cut]]; hit {
			words, args, ok = rest[:cut], rest[next:], true
		}
		if i < 0 {
			break
		}
		end = next
	}
	return words, args, ok
}

func judgeAPI(r *Request, owner OwnerFunc) Verdict {
	c := &call{Request: r, owner: owner, verb: "subject"}
	words, args, ok := findVerb(c.Subject[len(wire.PrefixJSAPI):])
	if !ok {
		return c.refuse(wire.CodeAPIDenied, "not in the table of allowed requests")
	}
	row := verbs[words]
	c.verb, c.args = strings.ToLower(words), args
	if c.status = row.apiType == ""; !c.status { // a pull is answered by status frames
		c.apiType = "io.nats.jetstream.api.v1." + row.apiType + "_response"
	}
	n := 0
	if args != "" {
		n = strings.Count(args, ".") + 1
	}
	if limit := max(row.max, row.min); n < row.min || row.max >= 0 && n > limit {
		return c.refuse(wire.CodeSubjectMalformed, "the subject has too few or too many tokens for this request")
	}
	if n > 0 {
		name, rest, _ := strings.Cut(args, ".")
		if !validToken(name) {
			return c.refuse(wire.CodeSubjectMalformed, "the stream name is malformed")
		}
		c.args = rest
		c.stream = lookupStream(c.Principal.Tenant, name)
		if row.max == 0 && n == 2 {
			if c.name = rest; !validToken(rest) {
				return c.refuse(wire.CodeSubjectMalformed, "the consumer name is malformed")
			}
		}
		if c.stream.kind == streamSchedules && !schedulesShown[words] {
			return c.refuse(wire.CodeAPIDenied, "schedules are put and removed by the admin API only, and their firings are the broker's")
		}
	}
	if row.judge == nil {
		return c.refuse(wire.CodeAPIDenied, "not open to clients")
	}
	return row.judge(c)
}

// adminBody is the judge of requests that only need an admin grant: the body is
// decoded into T and encoded again. required says whether it must be there.
func adminBody[T any](area string, required bool) func(*call) Verdict {
	return func(c *call) Verdict {
		if !isAdmin(c.Principal, area) {
			return c.refuse(wire.CodeAdminDenied, "needs an admin grant for "+area)
		}
		if len(c.Body) == 0 && !required {
			return c.forward(nil)
		}
		var body T
		if err := decodeStrict(c.Body, &body); err != nil {
			return c.malformed(err)
		}
		return c.forward(encode(&body))
	}
}

func isAdmin(p *policy.Principal, area string) bool { return acl.Admin(p, area).Allowed }

// malformed refuses a body. The error never holds more than a member's name.
func (c *call) malformed(err error) Verdict {
	return c.refuse(wire.CodeRequestMalformed, strings.TrimPrefix(err.Error(), "jsapi: "))
}
