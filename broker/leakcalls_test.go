package broker_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/signetbus/signet/internal/adminapi"
)

// leakCall is one thing that a reader does.
type leakCall struct{ subject, reply, header, body string }

func (c leakCall) String() string {
	return fmt.Sprintf("PUB %s reply %q header %q: %s", c.subject, c.reply, c.header, c.body)
}

// Inboxes of a reader, by route: what comes back says how.
var leakRoutes = []string{"push", "direct get", "message get", "pull", "+NXT", "other", "consumer"}

func inboxOf(route string) string {
	return "_INBOX." + strings.Trim(strings.ReplaceAll(route, " ", ""), "+")
}

// longPull waits for as long as the test goes on, over changes of policy.
const longPull = `{"batch":20,"expires":600000000000}`

// leakCalls are requests by any route, at random; some are one after the other.
func leakCalls(r *rand.Rand, n int) []leakCall {
	filter, second, stream := one(r, filterPool), one(r, filterPool), one(r, leakStreams)
	if r.IntN(2) == 0 { // often enough a filter that belongs to the stream
		filter = map[string]string{
			"A": one(r, filterPool[:9]), "B": one(r, filterPool[9:12]), "KV_one": "$KV.one.>", "KV_two": "$KV.two.k", "OBJ_files": "$O.files.>", "OBJ_vault": "$O.vault.M.x", "DLQ": "$SIGNET.DLQ.>",
		}[stream]
	}
	name := fmt.Sprintf("c%d", r.IntN(4))
	call := func(subject, route string, body any) leakCall {
		c := leakCall{subject: subject, reply: fmt.Sprintf("%s.%d", inboxOf(route), n)}
		if s, ok := body.(string); ok {
			c.body = s
		} else if body != nil {
			raw, err := json.Marshal(body)
			if err != nil {
				panic(err)
			}
			c.body = string(raw)
		}
		return c.twist(r)
	}
	const api = "$JS.API."
	switch k := r.IntN(12); k {
	case 0, 1, 2, 3:
		create := leakCreate(r, call, stream, name, filter, second)
		if k == 3 {
			return []leakCall{create, call("$JS.ACK."+stream+"."+name+".1.1.1.0.0", "+NXT", one(r, []string{"+NXT", "+NXT 5", `+NXT {"batch":9,"no_wait":true}`, "+NXT " + longPull}))}
		}
		return []leakCall{create, call(api+"CONSUMER.MSG.NEXT."+stream+"."+name, "pull", one(r, []string{`{"batch":20,"no_wait":true}`, `{"batch":20,"no_wait":true}`, longPull}))}
	case 4:
		return []leakCall{call(api+"CONSUMER.MSG.NEXT."+stream+"."+name, "pull", one(r, []string{"", "5", `{"batch":9,"no_wait":true}`, `{"batch":3,"expires":1000000}`, longPull, `{"batch":1,"group":"g","no_wait":true}`}))}
	case 5:
		return []leakCall{call("$JS.ACK."+stream+"."+name+".1.1.1.0.0", "+NXT", one(r, []string{"+NXT", "+NXT 5", "+ACK", "-NAK", "+TERM", `+NXT {"batch":9,"no_wait":true}`, "+NXT " + longPull}))}
	case 6:
		return []leakCall{call(api+"DIRECT.GET."+stream+"."+filter, "direct get", nil)}
	case 7, 8:
		subject, route := api+"DIRECT.GET."+stream, "direct get"
		if r.IntN(2) == 0 {
			subject, route = api+"STREAM.MSG.GET."+stream, "message get"
		}
		seq := 1 + r.IntN(20)
		return []leakCall{call(subject, route, []map[string]any{
			{"last_by_subj": filter},
			{"next_by_subj": filter, "seq": seq},
			{"multi_last": []string{filter, second}, "batch": 9},
			{"multi_last": []string{filter}, "up_to_seq": seq},
			{"seq": seq},
			{"seq": 1, "batch": 9},
			{"seq": 1, "batch": 9, "next_by_subj": filter},
			{"start_time": "2020-01-01T00:00:00Z", "batch": 9},
		}[r.IntN(8)])}
	case 9:
		verb := one(r, []string{"INFO", "DELETE", "RESET", "UNPIN", "PAUSE"})
		return []leakCall{call(api+"CONSUMER."+verb+"."+stream+"."+name, "consumer", map[string]any{"INFO": nil, "DELETE": nil, "RESET": map[string]any{"seq": 1}, "UNPIN": map[string]any{"group": "g"}, "PAUSE": nil}[verb])}
	default:
		return []leakCall{leakOther(r, call, stream, filter, second)}
	}
}

// leakCreate makes or changes a consumer, in one of the forms.
func leakCreate(r *rand.Rand, call func(string, string, any) leakCall, stream, name, filter, second string) leakCall {
	cfg := map[string]any{"ack_policy": one(r, []string{"none", "explicit", "all"}), "name": name, "mem_storage": true}
	if r.IntN(3) == 0 {
		cfg["deliver_subject"] = one(r, []string{inboxOf("push") + ".1", inboxOf("push") + ".1", inboxOf("push") + ".1", "e.x", "_INBOX.source"})
	}
	subject := "$JS.API.CONSUMER.CREATE." + stream + "." + name
	switch r.IntN(7) {
	case 0:
		cfg["filter_subject"] = filter
		subject += "." + filter
	case 1:
		cfg["filter_subject"] = second
		subject += "." + filter
	case 2:
		cfg["filter_subject"] = filter
	case 3:
		cfg["filter_subjects"] = []string{filter, second}
	case 4:
		cfg["durable_name"], cfg["filter_subject"] = name, filter
		subject = "$JS.API.CONSUMER.DURABLE.CREATE." + stream + "." + name
	case 5:
		delete(cfg, "name")
		cfg["filter_subject"], cfg["inactive_threshold"] = filter, 1e9
		subject = "$JS.API.CONSUMER.CREATE." + stream
	}
	return call(subject, "consumer", consumerRequest(stream, cfg))
}

// leakOther are the side doors.
func leakOther(r *rand.Rand, call func(string, string, any) leakCall, stream, filter, second string) leakCall {
	const api = "$JS.API."
	inbox := inboxOf("other") + ".side"
	source := map[string]any{"name": stream, "filter_subject": filter}
	switch r.IntN(12) {
	case 0:
		return call(api+"STREAM.CREATE.SIDE", "other", map[string]any{"name": "SIDE", "subjects": []string{"e.side"}, "sources": []any{source}})
	case 1:
		return call(api+"STREAM.CREATE.SIDE", "other", map[string]any{"name": "SIDE", "mirror": source})
	case 2:
		return call(api+"STREAM.UPDATE."+stream, "other", map[string]any{"name": stream, "republish": map[string]any{"src": ">", "dest": "e.>"}})
	case 3:
		return call(api+"STREAM.SNAPSHOT."+stream, "other", map[string]any{"deliver_subject": inbox})
	case 4:
		return call(api+"STREAM.INFO."+stream, "other", map[string]any{"subjects_filter": filter})
	case 5:
		return call(api+"STREAM.PURGE."+stream, "other", map[string]any{"filter": filter, "keep": 9})
	case 6:
		verb := one(r, []string{adminapi.SubjectDLQShow, adminapi.SubjectDLQShow, adminapi.SubjectDLQLs, adminapi.SubjectRefusalsLs, adminapi.SubjectAuditLs})
		body := map[string]any{}
		if verb == adminapi.SubjectDLQShow {
			body["seq"] = 1 + r.IntN(4)
		}
		return call(verb, "other", body)
	case 7:
		c := call(one(r, storedSubjects), "other", "x")
		c.header = one(r, []string{"Nats-Trace-Dest: " + inbox + "\r\n", "Nats-Expected-Last-Msg-Id: x\r\n", "Nats-Rollup: all\r\n", ""})
		return c
	case 8:
		return call("$JS.FC."+stream+".c1.x", "other", nil)
	case 9:
		return call(one(r, []string{"$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.USER.INFO", "$SRV.INFO", "$JS.API.STREAM.LIST", "$JS.API.CONSUMER.LIST." + stream, "$JS.EVENT.ADVISORY.API"}), "other", nil)
	case 10:
		return call("$JS.hub.API.STREAM.MSG.GET."+stream, "other", map[string]any{"seq": 1})
	default:
		return call(api+"STREAM.NAMES", "other", map[string]any{"subject": second})
	}
}

// twist makes of some calls what another parser could read otherwise, and sends some
// answers elsewhere.
func (c leakCall) twist(r *rand.Rand) leakCall {
	switch r.IntN(16) {
	case 0:
		for member, twin := range map[string]string{"filter_subject": "Filter_Subject", "seq": "Seq", "multi_last": "MULTI_LAST", "next_by_subj": "Next_By_Subj"} {
			if i := strings.Index(c.body, `"`+member+`"`); i >= 0 {
				value := map[string]string{"seq": "1", "multi_last": `[">"]`}[member]
				if value == "" {
					value = `">"`
				}
				c.body = c.body[:i] + fmt.Sprintf("%q:%s,", twin, value) + c.body[i:]
				break
			}
		}
	case 1:
		c.reply = one(r, []string{"e.x", "a.x", "_INBOX.source.1", "$KV.one.k", "_R_.x"})
	case 2:
		c.header = "Nats-Trace-Dest: e.x\r\n"
	}
	return c
}
