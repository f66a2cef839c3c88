package jsapi

import (
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// TestTable holds every API subject constant of nats-server v2.15.2
// (server/jetstream_api.go) against what a principal without grants, with part of
// the stream, with all of it, and with the admin areas may do.
func TestTable(t *testing.T) {
	const denied = "APIDenied"
	for _, tt := range []struct {
		subject, body            string
		none, part, whole, admin string
	}{
		{"INFO", "", "forward", "forward", "forward", "forward"},
		{"STREAM.CREATE.S", "{}", denied, denied, denied, denied},
		{"STREAM.UPDATE.ORDERS", "{}", denied, denied, denied, denied},
		{"STREAM.DELETE.ORDERS", "", denied, denied, denied, denied},
		{"STREAM.NAMES", "", "AdminDenied", "AdminDenied", "AdminDenied", "forward"},
		{"STREAM.NAMES", `{"subject":"orders.1.paid"}`, "FilterDenied", "forward", "forward", "forward"},
		{"STREAM.NAMES", `{"subject":"orders.>"}`, "FilterDenied", "FilterDenied", "forward", "forward"},
		{"STREAM.NAMES", `{"subject":">"}`, "FilterDenied", "FilterDenied", "FilterDenied", "forward"},
		{"STREAM.NAMES", `{"subject":"$KV.cfg.>"}`, "FilterDenied", "forward", "forward", "forward"},
		{"STREAM.NAMES", `{"subject":"$KV.*.>"}`, "FilterDenied", "FilterDenied", "FilterDenied", "forward"},
		{"STREAM.LIST", "", "AdminDenied", "AdminDenied", "AdminDenied", "forward"},
		{"STREAM.INFO.ORDERS", "", denied, "forward", "forward", "forward"},
		{"STREAM.INFO.METERS", "", denied, denied, denied, "forward"},
		{"STREAM.INFO.KV_cfg", "", denied, "forward", "forward", "forward"},
		{"STREAM.INFO.KV_secret", "", denied, denied, denied, "forward"},
		{"STREAM.INFO.DLQ", "", denied, denied, denied, "forward"},
		{"STREAM.PURGE.ORDERS", "", "AdminDenied", "AdminDenied", "AdminDenied", "forward"},
		{"STREAM.PURGE.ORDERS", `{"filter":"orders.1.paid"}`, "FilterDenied", "FilterDenied", "FilterDenied", "forward"},
		{"STREAM.PURGE.KV_cfg", `{"filter":"$KV.cfg.k","keep":1}`, "FilterDenied", "FilterDenied", "forward", "forward"},
		{"STREAM.PURGE.KV_secret", `{"filter":"$KV.cfg.k"}`, "FilterDenied", "FilterDenied", "FilterDenied", "forward"},
		{"STREAM.PURGE.OBJ_files", `{"filter":"$O.files.C.abc"}`, "FilterDenied", "FilterDenied", "forward", "forward"},
		{"STREAM.PURGE.KV_cfg", `{"filter":"$KV.cfg.k","filter":""}`, "RequestMalformed", "RequestMalformed", "RequestMalformed", "RequestMalformed"},
		{"STREAM.PURGE.KV_cfg", ``, "AdminDenied", "AdminDenied", "AdminDenied", "forward"},
		{"STREAM.SNAPSHOT.ORDERS", `{"deliver_subject":"_INBOX.a"}`, denied, denied, denied, denied},
		{"STREAM.RESTORE.ORDERS", "{}", denied, denied, denied, denied},
		{"STREAM.MSG.DELETE.ORDERS", `{"seq":1}`, "AdminDenied", "AdminDenied", "AdminDenied", "forward"},
		{"STREAM.MSG.GET.ORDERS", `{"last_by_subj":"orders.1.paid"}`, "FilterDenied", "forward", "forward", "FilterDenied"},
		{"DIRECT.GET.ORDERS", `{"seq":1}`, "FilterDenied", "FilterDenied", "forward", "FilterDenied"},
		{"DIRECT.GET.ORDERS.orders.1.paid", "", "FilterDenied", "forward", "forward", "FilterDenied"},
		{"CONSUMER.CREATE.ORDERS", `{"stream_name":"ORDERS","config":{}}`, "FilterDenied", "FilterDenied", "forward", "FilterDenied"},
		{"CONSUMER.CREATE.ORDERS.c.orders.1.paid", `{"stream_name":"ORDERS","config":{"filter_subject":"orders.1.paid"}}`, "FilterDenied", "forward", "forward", "FilterDenied"},
		{"CONSUMER.DURABLE.CREATE.ORDERS.c", `{"stream_name":"ORDERS","config":{"durable_name":"c","filter_subject":"orders.1.paid"}}`, "FilterDenied", "forward", "forward", "FilterDenied"},
		{"CONSUMER.NAMES.ORDERS", "", "AdminDenied", "AdminDenied", "AdminDenied", "forward"},
		{"CONSUMER.LIST.ORDERS", "", "AdminDenied", "AdminDenied", "AdminDenied", "forward"},
		{"CONSUMER.INFO.ORDERS.mine", "", "forward", "forward", "forward", "forward"},
		{"CONSUMER.DELETE.ORDERS.theirs", "", "ConsumerNotOwned", "ConsumerNotOwned", "ConsumerNotOwned", "forward"},
		{"CONSUMER.PAUSE.ORDERS.mine", `{"pause_until":"2030-01-01T00:00:00Z"}`, "AdminDenied", "AdminDenied", "AdminDenied", "forward"},
		{"CONSUMER.MSG.NEXT.ORDERS.theirs", "", "ConsumerNotOwned", "ConsumerNotOwned", "ConsumerNotOwned", "ConsumerNotOwned"},
		{"CONSUMER.RESET.ORDERS.theirs", "", "ConsumerNotOwned", "ConsumerNotOwned", "ConsumerNotOwned", "forward"},
		{"CONSUMER.UNPIN.ORDERS.theirs", `{"group":"g"}`, "ConsumerNotOwned", "ConsumerNotOwned", "ConsumerNotOwned", "forward"},
		{"STREAM.PEER.REMOVE.ORDERS", "", denied, denied, denied, denied},
		{"STREAM.PEER.EVACUATE.ORDERS", "", denied, denied, denied, denied},
		{"STREAM.CANCEL_MOVE.ORDERS", "", denied, denied, denied, denied},
		{"STREAM.LEADER.STEPDOWN.ORDERS", "", denied, denied, denied, denied},
		{"CONSUMER.LEADER.STEPDOWN.ORDERS.mine", "", denied, denied, denied, denied},
		{"CONSUMER.PEER.REMOVE.ORDERS.mine", "", denied, denied, denied, denied},
		{"CONSUMER.PEER.EVACUATE.ORDERS.mine", "", denied, denied, denied, denied},
		{"META.LEADER.STEPDOWN", "", denied, denied, denied, denied},
		{"META.RESCUE", "", denied, denied, denied, denied},
		{"SERVER.REMOVE", "", denied, denied, denied, denied},
		{"SERVER.EVACUATE", "", denied, denied, denied, denied},
		{"ACCOUNT.PURGE.shop", "", denied, denied, denied, denied},
		{"ACCOUNT.STREAM.MOVE.shop.ORDERS", "", denied, denied, denied, denied},
		{"ACCOUNT.STREAM.CANCEL_MOVE.shop.ORDERS", "", denied, denied, denied, denied},
		// not in the server's list
		{"STREAM.TEMPLATE.CREATE.x", "", denied, denied, denied, denied},
		{"STREAM", "", denied, denied, denied, denied},
		{"NEW.THING", "", denied, denied, denied, denied},
		{"stream.info.ORDERS", "", denied, denied, denied, denied},
		{"STREAM.INFO.*", "", "SubjectMalformed", "SubjectMalformed", "SubjectMalformed", "SubjectMalformed"},
		{"STREAM.INFO.>", "", "SubjectMalformed", "SubjectMalformed", "SubjectMalformed", "SubjectMalformed"},
		{"STREAM.INFO", "", "SubjectMalformed", "SubjectMalformed", "SubjectMalformed", "SubjectMalformed"},
		{"INFO.ORDERS", "", "SubjectMalformed", "SubjectMalformed", "SubjectMalformed", "SubjectMalformed"},
	} {
		want := map[string]string{"none": tt.none, "part": tt.part, "whole": tt.whole, "admin": tt.admin}
		for who, want := range want {
			v := judge(who, "$JS.API."+tt.subject, inbox, tt.body)
			if got := outcome(v); got != want {
				t.Errorf("%s %s %s: got %s (%v), want %s", who, tt.subject, tt.body, got, v.Refusal, want)
			}
		}
	}
	for _, subject := range []string{
		"$JS.hub.API.INFO", "$JS.API", "$JS.SNAPSHOT.ACK.ORDERS.x", "$JS.SNAPSHOT.RESTORE.ORDERS.x", "$JS.M.x", "$JS.S.x",
		"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ORDERS.mine", "$JSC.x", "$NRG.x", "$GR.x", "_GR_.x", "$MQTT.x", "$LDS.x",
		"$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO.x", "$SYS.ACCOUNT.shop.CONNECT", "orders.1.paid", "_R_.x",
	} {
		for _, who := range []string{"none", "whole", "admin"} {
			if v := judge(who, subject, inbox, ""); outcome(v) != denied {
				t.Errorf("%s %s: got %s, want %s", who, subject, outcome(v), denied)
			}
		}
	}
	for words, v := range verbs {
		if n := strings.Count(words, ".") + 1; n > maxVerbWords {
			t.Errorf("%s has %d words, findVerb sees %d", words, n, maxVerbWords)
		}
		if v.judge == nil && v.apiType == "" {
			t.Errorf("%s would be refused without a type", words)
		}
	}
}

// TestNormalWork: what nats.go (core, pull, ordered, push, key-value, object store,
// micro) and the nats CLI send in normal work, recorded from v1.55.0.
func TestNormalWork(t *testing.T) {
	const next = `{"expires":30000000000,"batch":500,"max_bytes":0,"no_wait":false,"idle_heartbeat":15000000000}`
	runRows(t, []row{
		{"account info", "none", "$JS.API.INFO", "", "forward"},
		{"user info", "none", "$SYS.REQ.USER.INFO", "", "forward"},
		{"stream of a subject", "whole", "$JS.API.STREAM.NAMES", `{"offset":0,"subject":"orders.1.paid"}`, "forward"},
		{"stream info", "whole", "$JS.API.STREAM.INFO.ORDERS", "", "forward"},
		{"stream info of a writer", "writer", "$JS.API.STREAM.INFO.ORDERS", "", "forward"},
		{"stream info with subjects", "whole", "$JS.API.STREAM.INFO.ORDERS", `{"offset":0,"subjects_filter":">","deleted_details":true}`, "forward"},
		{"get message", "whole", "$JS.API.DIRECT.GET.ORDERS", `{"seq":1}`, "forward"},
		{"get message by the leader", "whole", "$JS.API.STREAM.MSG.GET.ORDERS", `{"seq":1}`, "forward"},
		{"durable pull", "whole", "$JS.API.CONSUMER.CREATE.ORDERS.D.orders.1.paid", `{"stream_name":"ORDERS","config":{"durable_name":"D","name":"D","deliver_policy":"all","ack_policy":"explicit","filter_subject":"orders.1.paid","replay_policy":"instant","num_replicas":0},"action":""}`, "forward"},
		{"consumer info", "whole", "$JS.API.CONSUMER.INFO.ORDERS.mine", "", "forward"},
		{"fetch", "whole", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", next, "forward"},
		{"fetch pinned", "whole", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", `{"batch":1,"group":"a","id":"x","min_pending":5,"priority":1}`, "forward"},
		{"cli consumer next", "whole", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", `{"batch":1}`, "forward"},
		{"double ack", "whole", "$JS.ACK.ORDERS.mine.1.1.1.1730000000000000000.0", "+ACK", "forward"},
		{"in progress", "whole", "$JS.ACK.ORDERS.mine.1.1.1.1730000000000000000.0", "+WPI", "forward"},
		{"ordered pull", "whole", "$JS.API.CONSUMER.CREATE.ORDERS.fX3a9_1.orders.1.paid", `{"stream_name":"ORDERS","config":{"name":"fX3a9_1","deliver_policy":"by_start_sequence","opt_start_seq":1,"ack_policy":"none","max_deliver":-1,"filter_subject":"orders.1.paid","replay_policy":"instant","inactive_threshold":300000000000,"num_replicas":1,"mem_storage":true,"metadata":{"k":"v"}},"action":""}`, "forward"},
		{"ordered last per subject", "whole", "$JS.API.CONSUMER.CREATE.ORDERS.fX3a9_1", `{"stream_name":"ORDERS","config":{"name":"fX3a9_1","deliver_policy":"last_per_subject","ack_policy":"none","filter_subjects":[">"],"replay_policy":"instant","num_replicas":1,"mem_storage":true},"action":""}`, "forward"},
		{"ordered push", "whole", "$JS.API.CONSUMER.CREATE.KV_cfg.TcDgJ4dz.$KV.cfg.>", `{"stream_name":"KV_cfg","config":{"deliver_policy":"last_per_subject","ack_policy":"none","max_deliver":1,"filter_subject":"$KV.cfg.>","replay_policy":"instant","flow_control":true,"deliver_subject":"_INBOX.Vj4.x","idle_heartbeat":5000000000,"num_replicas":1,"mem_storage":true}}`, "forward"},
		{"flow control", "whole", "$JS.FC.KV_cfg.mine.Ab12", "", "forward"},
		{"key get", "whole", "$JS.API.DIRECT.GET.KV_cfg.$KV.cfg.k", "", "forward"},
		{"key revision", "whole", "$JS.API.DIRECT.GET.KV_cfg", `{"seq":3}`, "forward"},
		{"bucket open", "whole", "$JS.API.STREAM.INFO.KV_cfg", "", "forward"},
		{"purge deletes", "whole", "$JS.API.STREAM.PURGE.KV_cfg", `{"filter":"$KV.cfg.k","keep":1}`, "forward"},
		{"object info", "whole", "$JS.API.DIRECT.GET.OBJ_files.$O.files.M.ZmlsZQ==", "", "forward"},
		{"object delete", "whole", "$JS.API.STREAM.PURGE.OBJ_files", `{"filter":"$O.files.C.NUID"}`, "forward"},
		{"consumer delete", "whole", "$JS.API.CONSUMER.DELETE.ORDERS.mine", "", "forward"},
		{"null is absent", "whole", "$JS.API.CONSUMER.CREATE.ORDERS.c", `{"stream_name":"ORDERS","config":{"opt_start_time":null,"metadata":null}}`, "forward"},
	})
	v := judge("whole", "$JS.API.STREAM.INFO.ORDERS", inbox, `{"offset":7,"subjects_filter":">","deleted_details":true}`)
	if string(v.Body) != `{"offset":7}` {
		t.Errorf("stream info forwards %s", v.Body)
	}
	if v := judge("whole", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", inbox, " 5\n"); string(v.Body) != `{"batch":5}` {
		t.Errorf("number forwards %s", v.Body)
	}
}

// TestJudgeSub is the table of the other half: subscriptions.
func TestJudgeSub(t *testing.T) {
	for _, tt := range []struct{ who, filter, queue, want string }{
		{"part", "orders.*.paid", "", ""},
		{"part", "orders.7.paid", "workers", ""},
		{"part", "orders.>", "", "SubscribeDenied"},
		{"part", "orders.*.*", "", "SubscribeDenied"},
		{"whole", "telemetry.cpu", "", ""},
		{"part", ">", "", "SubscribeDenied"},
		{"part", "*.>", "", "SubscribeDenied"},
		{"part", "*.1.paid", "", "SubscribeDenied"},
		{"part", "_INBOX.>", "", "SubscribeDenied"},
		{"part", "$JS.>", "", "SubscribeDenied"},
		{"part", "$KV.cfg.>", "", "SubscribeDenied"},
		{"part", "$SYS.>", "", "SubscribeDenied"},
		{"part", "$SIGNET.DLQ.>", "", "SubscribeDenied"},
		{"part", "_R_.>", "", "SubscribeDenied"},
		{"part", "orders..paid", "", "SubjectMalformed"},
		{"part", "orders.1.paid", "a b", "SubjectMalformed"},
		{"part", "orders.1.paid", "*", "SubjectMalformed"},
		{"server", "rpc.billing.charge", "q", ""},
		{"server", "rpc.billing.*", "", ""},
		{"server", "rpc.>", "", "ServeDenied"},
		{"server", "rpc.stock.take", "", "ServeDenied"},
		{"part", "rpc.billing.charge", "", "ServeDenied"},
		{"server", "$SRV.PING", "", ""},
		{"server", "$SRV.INFO.billing", "", ""},
		{"server", "$SRV.STATS.billing.ID", "", ""},
		{"server", "$SRV.PING.stock", "", "ServeDenied"},
		{"server", "$SRV.>", "", "ServeDenied"},
		{"server", "$SRV.PING.*", "", "ServeDenied"},
		{"part", "$SRV.PING", "", "ServeDenied"},
	} {
		upstream, r := JudgeSub(principal(tt.who), tt.filter, tt.queue, session)
		got := ""
		if r != nil {
			got = r.Code.Entry().Name
			if r.Rule == "" || r.Subject != tt.filter || r.Principal == "" {
				t.Errorf("%s %s: incomplete refusal %+v", tt.who, tt.filter, r)
			}
		}
		if got != tt.want || got == "" && upstream != tt.filter || got != "" && upstream != "" {
			t.Errorf("%s SUB %s %s: got %q %q, want %q", tt.who, tt.filter, tt.queue, upstream, got, tt.want)
		}
	}
}

// FuzzJudge: no panic; what is forwarded is judged the same again, byte for byte;
// what a forwarded request can read is inside the grants.
func FuzzJudge(f *testing.F) {
	for _, seed := range [][3]string{
		{"$JS.API.CONSUMER.CREATE.ORDERS.c.orders.1.paid", `{"stream_name":"ORDERS","config":{"filter_subject":"orders.1.paid","deliver_subject":"_INBOX.x"}}`, ""},
		{"$JS.API.CONSUMER.CREATE.ORDERS.mine", `{"stream_name":"ORDERS","config":{"filter_subjects":["orders.*.paid"],"metadata":{"a":"\ud800"}}}`, "Nats-Required-Api-Level: 1\r\n"},
		{"$JS.API.DIRECT.GET.ORDERS", `{"multi_last":["orders.*.paid"],"up_to_time":"2026-01-01T00:00:00+01:00"}`, ""},
		{"$JS.API.DIRECT.GET.ORDERS.orders.*.paid", ``, "a: b\r\n"},
		{"$JS.API.STREAM.MSG.GET.KV_cfg", `{"seq":1}`, ""},
		{"$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", ` 7 `, ""},
		{"$JS.ACK.ORDERS.mine.1.2.3.4.5", `-NAK 5s`, ""},
		{"$JS.ACK._.abcdefgh.ORDERS.mine.1.2.3.4.5", `+NXT {"batch":1}`, ""},
		{"$JS.API.STREAM.NAMES", `{"subject":"orders.1.paid"}`, ""},
		{"$JS.API.STREAM.PURGE.KV_cfg", `{"filter":"$KV.cfg.>"}`, ""},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	g := New(Config{})
	f.Fuzz(func(t *testing.T, subject, body, lines string) {
		var h wire.Headers
		if h.Parse([]byte("NATS/1.0\r\n"+lines+"\r\n")) != nil {
			return
		}
		for _, who := range []string{"part", "whole", "shared", "none"} {
			p := principal(who)
			r := Request{Principal: p, Subject: subject, Reply: inbox, Header: &h, Body: []byte(body), MapInbox: mapInbox}
			v := g.Judge(&r, owners(p.FullName()))
			switch v.Action {
			case Refuse:
				if v.Refusal == nil {
					t.Fatal("refused without a refusal")
				}
				continue
			case NeedOwner:
				continue
			}
			checkReads(t, &r, &v)
			var h2 wire.Headers
			if err := h2.Parse(v.Header); err != nil {
				t.Fatalf("forwarded headers: %v", err)
			}
			again := Request{Principal: p, Subject: v.Subject, Reply: v.Reply, Header: &h2, Body: v.Body, MapInbox: mapInbox}
			v2 := g.Judge(&again, owners(p.FullName()))
			if v2.Action != Forward || v2.Subject != v.Subject || v2.Reply != v.Reply ||
				string(v2.Header) != string(v.Header) || string(v2.Body) != string(v.Body) {
				t.Fatalf("%s %q forwards %q, which is judged %s %q %v", subject, body, v.Body, outcome(v2), v2.Body, v2.Refusal)
			}
		}
	})
}

// checkReads decodes what is forwarded with the model below, which shares nothing
// with the guard but the wire package.
func checkReads(t *testing.T, r *Request, v *Verdict) {
	t.Helper()
	tokens := strings.Split(strings.TrimPrefix(v.Subject, "$JS.API."), ".")
	var filters []string
	var streamName string
	switch {
	case strings.HasPrefix(v.Subject, "$JS.API.CONSUMER.CREATE."):
		var req consumerCreate
		if decodeStrict(v.Body, &req) != nil {
			t.Fatalf("forwarded body is malformed: %s", v.Body)
		}
		streamName, filters = tokens[2], req.Config.FilterSubjects
		if f := req.Config.FilterSubject; f != "" {
			filters = append(filters, f)
		}
		if req.Config.Metadata[wire.MetaOwner] == "" || req.Stream != streamName {
			t.Fatalf("no owner, or another stream: %s", v.Body)
		}
	case strings.HasPrefix(v.Subject, "$JS.API.DIRECT.GET.") && len(tokens) > 3:
		streamName, filters = tokens[2], []string{strings.Join(tokens[3:], ".")}
	case strings.HasPrefix(v.Subject, "$JS.API.DIRECT.GET."), strings.HasPrefix(v.Subject, "$JS.API.STREAM.MSG.GET."):
		var req msgGet
		if decodeStrict(v.Body, &req) != nil {
			t.Fatalf("forwarded body is malformed: %s", v.Body)
		}
		streamName, filters = tokens[len(tokens)-1], req.MultiLastFor
		for _, f := range []string{req.LastFor, req.NextFor} {
			if f != "" {
				filters = append(filters, f)
			}
		}
	default:
		return
	}
	if len(filters) == 0 {
		filters = []string{">"}
	}
	subjects := map[string][]string{
		"ORDERS": {"orders.>"}, "METERS": {"meters.a", "meters.b"},
		"KV_cfg": {"$KV.cfg.>"}, "OBJ_files": {"$O.files.C.>", "$O.files.M.>"},
	}[streamName]
	granted := map[string][]string{
		"shop/part":   {"orders.*.paid", "orders.*.sent", "$KV.cfg.>", "$O.files.>"},
		"shop/whole":  {"orders.>", "$KV.cfg.>", "$O.files.>"},
		"shop/shared": {"orders.*.paid"},
	}[r.Principal.FullName()]
	if len(subjects) == 0 {
		t.Fatalf("reads undeclared stream %q", streamName)
	}
	for _, f := range filters {
		reads := []string{f}
		if f == ">" {
			reads = subjects
		}
		for _, s := range reads {
			if !wire.SubsetOfAny(s, granted) {
				t.Fatalf("%s reads %s of %s", r.Principal.FullName(), s, streamName)
			}
		}
	}
}
