package jsapi

import (
	"fmt"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// TestRow09AckForging: an ack, in every shape the server understands, only on a
// consumer that the principal owns or shares.
func TestRow09AckForging(t *testing.T) {
	hash := accountHash("shop")
	v1, v2 := "$JS.ACK.ORDERS.%s.1.9.9.0.0", "$JS.ACK._."+hash+".ORDERS.%s.1.9.9.0.0"
	var rows []row
	for _, payload := range []string{"", "+ACK", "-NAK", `-NAK {"delay":1000}`, "-NAK 1s", "+WPI", "+NXT", "+NXT 5", "+TERM", "+TERM bad order"} {
		for form, subject := range map[string]string{"9 tokens": v1, "11 tokens": v2, "13 tokens": v2 + ".x.y"} {
			rows = append(rows,
				row{form + " own " + payload, "part", fmt.Sprintf(subject, "mine"), payload, "forward"},
				row{form + " theirs " + payload, "part", fmt.Sprintf(subject, "theirs"), payload, "ConsumerNotOwned"},
				row{form + " ownerless " + payload, "part", fmt.Sprintf(subject, "bare"), payload, "ConsumerNotOwned"},
				row{form + " shared " + payload, "shared", fmt.Sprintf(subject, "theirs"), payload, "forward"},
				row{form + " gone " + payload, "part", fmt.Sprintf(subject, "gone"), payload, "NotFound"},
				row{form + " not looked up " + payload, "part", fmt.Sprintf(subject, "unknown"), payload, "owner"},
			)
		}
	}
	rows = append(rows,
		row{"10 tokens", "part", "$JS.ACK.ORDERS.mine.1.1.1.0.0.x", "", "SubjectMalformed"},
		row{"8 tokens", "part", "$JS.ACK.ORDERS.mine.1.1.1.0", "", "SubjectMalformed"},
		// The server reads 11 tokens as domain and account first: own names in front
		// of another's consumer, or the reverse, must not confuse the guard.
		row{"v1 names in front", "part", "$JS.ACK.ORDERS.mine.ORDERS.theirs.1.1.1.0.0", "", "ConsumerNotOwned"},
		row{"11 tokens, v1 reading", "part", "$JS.ACK.ORDERS.mine.1.1.1.0.0.x.y", "", "ConsumerNotOwned"},
		row{"12 tokens", "part", "$JS.ACK.ORDERS.theirs.ORDERS.mine.1.1.1.0.0.x", "", "ConsumerNotOwned"},
		row{"14 tokens", "part", "$JS.ACK.ORDERS.theirs.ORDERS.mine.1.1.1.0.0.x.y.z", "", "ConsumerNotOwned"},
		row{"other account", "part", "$JS.ACK._." + accountHash("bank") + ".ORDERS.mine.1.1.1.0.0", "", "ConsumerNotOwned"},
		row{"other domain", "part", "$JS.ACK.hub." + hash + ".ORDERS.mine.1.1.1.0.0", "", "ConsumerNotOwned"},
		row{"wildcard", "part", "$JS.ACK.ORDERS.mine.1.1.1.0.*", "", "SubjectMalformed"},
		row{"wildcard consumer", "part", "$JS.ACK.ORDERS.*.1.1.1.0.0", "", "SubjectMalformed"},
		row{"unknown payload", "part", "$JS.ACK.ORDERS.mine.1.1.1.0.0", "+HUH", "RequestMalformed"},
		row{"delay twice", "part", "$JS.ACK.ORDERS.mine.1.1.1.0.0", `-NAK {"delay":1,"Delay":2}`, "RequestMalformed"},
		row{"reason with a line break", "part", "$JS.ACK.ORDERS.mine.1.1.1.0.0", "+TERM a\r\nb", "RequestMalformed"},
		row{"undeclared stream", "part", "$JS.ACK.DLQ.mine.1.1.1.0.0", "", "APIDenied"},
		row{"flow own", "part", "$JS.FC.ORDERS.mine.x", "", "forward"},
		row{"flow theirs", "part", "$JS.FC.ORDERS.theirs.x", "", "ConsumerNotOwned"},
		row{"flow own v2", "part", "$JS.FC._." + hash + ".ORDERS.mine.x", "", "forward"},
		row{"flow theirs v2", "part", "$JS.FC._." + hash + ".ORDERS.theirs.x", "", "ConsumerNotOwned"},
		row{"flow 6 tokens", "part", "$JS.FC.ORDERS.mine.x.y", "", "SubjectMalformed"},
		row{"flow with payload", "part", "$JS.FC.ORDERS.mine.x", "x", "RequestMalformed"},
	)
	runRows(t, rows)
}

// TestRow09AckParser pins Ack itself.
func TestRow09AckParser(t *testing.T) {
	for _, tt := range []struct {
		subject, stream, consumer string
		ok                        bool
	}{
		{"$JS.ACK.S.C.1.2.3.4.5", "S", "C", true},
		{"$JS.ACK._.HASH1234.S.C.1.2.3.4.5", "S", "C", true},
		{"$JS.ACK._.HASH1234.S.C.1.2.3.4.5.x.y.z", "S", "C", true},
		{"$JS.ACK.S.C.1.2.3.4.5.6", "", "", false},
		{"$JS.ACK.S.C", "", "", false},
		{"$JS.ACK..C.1.2.3.4.5", "", "C", false},
		{"$JS.FC.S.C.1", "", "", false},
	} {
		stream, consumer, ok := Ack(tt.subject)
		if ok != tt.ok || ok && (stream != tt.stream || consumer != tt.consumer) {
			t.Errorf("Ack(%s) = %s %s %v, want %s %s %v", tt.subject, stream, consumer, ok, tt.stream, tt.consumer, tt.ok)
		}
	}
	p := principal("part")
	own := owners(p.FullName())
	r := &Request{Principal: p, Subject: "$JS.ACK.ORDERS.mine.1.2.3.4.5", MapInbox: mapInbox}
	g := New(Config{})
	if n := testing.AllocsPerRun(100, func() { g.Judge(r, own) }); n > 0 {
		t.Errorf("an ack costs %.0f allocations, want 0", n)
	}
}

// TestRow16DeputyReply: the four ways in which plain NATS delivers chosen bytes to
// a subject that the sender may not publish on.
func TestRow16DeputyReply(t *testing.T) {
	victims := []string{
		"orders.1.paid", "payments.cmd", "$KV.cfg.k", "$JS.API.STREAM.DELETE.ORDERS", "_R_.x", "_GR_.x", "$SIGNET.API.keys.ring",
		"_INBOX.*", "_INBOX.>", "_INBOX.a.b.1.fail.1.0.$FI", "_INBOX." + strings.Repeat("x", 260), "_INBOX.a b",
	}
	requests := []row{
		{"direct get", "whole", "$JS.API.DIRECT.GET.ORDERS", `{"seq":1}`, ""},
		{"direct get last", "whole", "$JS.API.DIRECT.GET.ORDERS.orders.1.paid", "", ""},
		{"pull next", "whole", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", "", ""},
		{"ack next", "whole", "$JS.ACK.ORDERS.mine.1.1.1.0.0", "+NXT", ""},
		{"ack", "whole", "$JS.ACK.ORDERS.mine.1.1.1.0.0", "", ""},
		{"msg get", "whole", "$JS.API.STREAM.MSG.GET.ORDERS", `{"seq":1}`, ""},
		{"create", "whole", "$JS.API.CONSUMER.CREATE.ORDERS.c", `{"stream_name":"ORDERS","config":{}}`, ""},
		{"user info", "whole", "$SYS.REQ.USER.INFO", "", ""},
		{"info", "none", "$JS.API.INFO", "", ""},
	}
	for _, tt := range requests {
		t.Run(tt.name, func(t *testing.T) {
			for _, victim := range victims {
				if v := judge(tt.who, tt.subject, victim, tt.body); outcome(v) != "ReplyDenied" {
					t.Errorf("reply %s: %s, want ReplyDenied", victim, outcome(v))
				}
			}
			v := judge(tt.who, tt.subject, inbox, tt.body)
			if v.Action != Forward || v.Reply != "_INBOX."+session+".a.b" {
				t.Errorf("own inbox: %s reply %q", outcome(v), v.Reply)
			}
		})
	}
	for _, victim := range victims {
		if strings.Contains(victim, " ") {
			continue
		}
		body := fmt.Sprintf(`{"stream_name":"ORDERS","config":{"deliver_subject":%q}}`, victim)
		if v := judge("whole", "$JS.API.CONSUMER.CREATE.ORDERS.c", inbox, body); outcome(v) != "ReplyDenied" {
			t.Errorf("deliver_subject %s: %s, want ReplyDenied", victim, outcome(v))
		}
	}
	v := judge("whole", "$JS.API.CONSUMER.CREATE.ORDERS.c", inbox, `{"stream_name":"ORDERS","config":{"deliver_subject":"_INBOX.push"}}`)
	if v.Action != Forward || !strings.Contains(string(v.Body), `"deliver_subject":"_INBOX.`+session+`.push"`) {
		t.Errorf("own deliver_subject: %s %s", outcome(v), v.Body)
	}
	for _, subject := range []string{"$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", "$JS.ACK.ORDERS.mine.1.1.1.0.0"} {
		if v := judge("whole", subject, "", "+NXT"); v.Action != Refuse || !v.Status {
			t.Errorf("%s without a reply: %s status %v, want a refusal by status", subject, outcome(v), v.Status)
		}
	}
}

// TestRow17DirectGet: reading by sequence, subject, batch and time stays within
// the grants, in each form of the request.
func TestRow17DirectGet(t *testing.T) {
	var rows []row
	for _, verb := range []string{"DIRECT.GET", "STREAM.MSG.GET"} {
		s := "$JS.API." + verb + "."
		rows = append(rows,
			row{verb + " seq part", "part", s + "ORDERS", `{"seq":1}`, "FilterDenied"},
			row{verb + " seq whole", "whole", s + "ORDERS", `{"seq":1}`, "forward"},
			row{verb + " last granted", "part", s + "ORDERS", `{"last_by_subj":"orders.1.paid"}`, "forward"},
			row{verb + " last wildcard granted", "part", s + "ORDERS", `{"last_by_subj":"orders.*.paid"}`, "forward"},
			row{verb + " last secret", "part", s + "ORDERS", `{"last_by_subj":"orders.secret"}`, "FilterDenied"},
			row{verb + " last too wide", "part", s + "ORDERS", `{"last_by_subj":"orders.>"}`, "FilterDenied"},
			row{verb + " next granted", "part", s + "ORDERS", `{"seq":7,"next_by_subj":"orders.*.paid"}`, "forward"},
			row{verb + " next secret", "part", s + "ORDERS", `{"seq":7,"next_by_subj":"orders.secret"}`, "FilterDenied"},
			row{verb + " time part", "part", s + "ORDERS", `{"start_time":"2026-01-01T00:00:00Z"}`, "FilterDenied"},
			row{verb + " time next", "part", s + "ORDERS", `{"start_time":"2026-01-01T00:00:00Z","next_by_subj":"orders.1.paid"}`, "forward"},
			row{verb + " seq and last", "part", s + "ORDERS", `{"seq":1,"last_by_subj":"orders.1.paid"}`, "RequestMalformed"},
			row{verb + " time and last", "part", s + "ORDERS", `{"start_time":"2026-01-01T00:00:00Z","last_by_subj":"orders.1.paid"}`, "RequestMalformed"},
			row{verb + " last and next", "part", s + "ORDERS", `{"last_by_subj":"orders.1.paid","next_by_subj":"orders.1.paid"}`, "RequestMalformed"},
			row{verb + " key twice", "part", s + "ORDERS", `{"last_by_subj":"orders.1.paid","last_by_subj":"orders.secret"}`, "RequestMalformed"},
			row{verb + " case twin", "part", s + "ORDERS", `{"last_by_subj":"orders.1.paid","LAST_BY_SUBJ":"orders.secret"}`, "RequestMalformed"},
			row{verb + " other case", "whole", s + "ORDERS", `{"Seq":1}`, "RequestMalformed"},
			row{verb + " empty", "whole", s + "ORDERS", ``, "RequestMalformed"},
			row{verb + " nothing", "whole", s + "ORDERS", `{}`, "RequestMalformed"},
			row{verb + " no grants", "none", s + "ORDERS", `{"seq":1}`, "FilterDenied"},
			row{verb + " writer only", "writer", s + "ORDERS", `{"last_by_subj":"orders.1.paid"}`, "FilterDenied"},
			row{verb + " dead letters", "whole", s + "DLQ", `{"seq":1}`, "FilterDenied"},
			row{verb + " undeclared", "whole", s + "OTHER", `{"last_by_subj":"orders.1.paid"}`, "FilterDenied"},
			row{verb + " bucket", "part", s + "KV_cfg", `{"seq":1}`, "forward"},
			row{verb + " bucket key", "part", s + "KV_cfg", `{"last_by_subj":"$KV.cfg.a=b/c"}`, "forward"},
			row{verb + " other bucket", "part", s + "KV_secret", `{"seq":1}`, "FilterDenied"},
			row{verb + " key of other bucket", "part", s + "KV_secret", `{"last_by_subj":"$KV.cfg.k"}`, "FilterDenied"},
			row{verb + " object meta", "part", s + "OBJ_files", `{"last_by_subj":"$O.files.M.bmFtZQ=="}`, "forward"},
			row{verb + " other objects", "part", s + "OBJ_vault", `{"last_by_subj":"$O.vault.M.bmFtZQ=="}`, "FilterDenied"},
		)
	}
	s := "$JS.API.DIRECT.GET."
	rows = append(rows,
		row{"suffix granted", "part", s + "ORDERS.orders.1.paid", "", "forward"},
		row{"suffix wildcard granted", "part", s + "ORDERS.orders.*.paid", "", "forward"},
		row{"suffix secret", "part", s + "ORDERS.orders.secret", "", "FilterDenied"},
		row{"suffix everything", "part", s + "ORDERS.>", "", "FilterDenied"},
		row{"suffix everything whole", "whole", s + "ORDERS.>", "", "forward"},
		row{"suffix key", "part", s + "KV_cfg.$KV.cfg.a", "", "forward"},
		row{"suffix other key", "part", s + "KV_secret.$KV.secret.a", "", "FilterDenied"},
		row{"multi granted", "part", s + "ORDERS", `{"multi_last":["orders.*.paid","orders.*.sent"]}`, "forward"},
		row{"multi one secret", "part", s + "ORDERS", `{"multi_last":["orders.*.paid","orders.secret"]}`, "FilterDenied"},
		row{"multi up to", "part", s + "ORDERS", `{"multi_last":["orders.*.paid"],"up_to_seq":9,"batch":5}`, "forward"},
		row{"batch by seq", "part", s + "ORDERS", `{"seq":1,"batch":100}`, "FilterDenied"},
		row{"batch by subject", "part", s + "ORDERS", `{"seq":1,"next_by_subj":"orders.*.paid","batch":100,"max_bytes":1000}`, "forward"},
		row{"batch negative", "whole", s + "ORDERS", `{"seq":1,"batch":-1}`, "RequestMalformed"},
		// MSG.GET ignores multi_last and would read the sequence.
		row{"msg get smuggles a sequence", "part", "$JS.API.STREAM.MSG.GET.ORDERS", `{"seq":7,"multi_last":["orders.*.paid"]}`, "RequestMalformed"},
	)
	runRows(t, rows)

	v := judge("part", s+"ORDERS.orders.1.paid", inbox, `{"seq":7,"no_hdr":true}`)
	if v.Action != Forward || string(v.Body) != `{"no_hdr":true}` {
		t.Errorf("selectors beside a subject: %s %s, want them dropped", outcome(v), v.Body)
	}
}

// TestRow18ConsumerAPI: consumers only within the grants, and only one's own.
func TestRow18ConsumerAPI(t *testing.T) {
	create := "$JS.API.CONSUMER.CREATE.ORDERS"
	cfg := func(config string) string { return `{"stream_name":"ORDERS","config":{` + config + `},"action":""}` }
	rows := []row{
		{"filter granted", "part", create + ".c", cfg(`"filter_subject":"orders.*.paid"`), "forward"},
		{"filters granted", "part", create + ".c", cfg(`"filter_subjects":["orders.*.paid","orders.1.sent"]`), "forward"},
		{"filter in subject", "part", create + ".c.orders.*.paid", cfg(`"filter_subject":"orders.*.paid"`), "forward"},
		{"filter in subject, none in body", "part", create + ".c.orders.*.paid", cfg(``), "RequestMalformed"},
		{"filter in subject, other in body", "part", create + ".c.orders.*.paid", cfg(`"filter_subject":"orders.secret"`), "RequestMalformed"},
		{"filter in subject, list in body", "part", create + ".c.orders.*.paid", cfg(`"filter_subjects":["orders.secret"]`), "RequestMalformed"},
		{"escape by filter_subjects", "part", create + ".c", cfg(`"filter_subjects":["orders.*.paid","orders.secret"]`), "FilterDenied"},
		{"escape by filter", "part", create + ".c", cfg(`"filter_subject":"orders.>"`), "FilterDenied"},
		{"escape by no filter", "part", create + ".c", cfg(``), "FilterDenied"},
		{"escape by >", "part", create + ".c", cfg(`"filter_subject":">"`), "FilterDenied"},
		{"both filters", "part", create + ".c", cfg(`"filter_subject":"orders.1.paid","filter_subjects":["orders.1.paid"]`), "RequestMalformed"},
		{"empty filter", "part", create + ".c", cfg(`"filter_subjects":["orders.1.paid",""]`), "RequestMalformed"},
		{"no filter, whole", "whole", create + ".c", cfg(``), "forward"},
		{"> whole", "whole", create + ".c", cfg(`"filter_subjects":[">"]`), "forward"},
		{"config twice", "part", create + ".c", `{"stream_name":"ORDERS","config":{"filter_subject":"orders.1.paid"},"config":{}}`, "RequestMalformed"},
		{"case twin", "part", create + ".c", cfg(`"filter_subject":"orders.1.paid","Filter_Subject":""`), "RequestMalformed"},
		{"unknown member", "part", create + ".c", cfg(`"filter_subject":"orders.1.paid","mirror":true`), "RequestMalformed"},
		{"other stream in body", "part", create + ".c", `{"stream_name":"METERS","config":{"filter_subject":"orders.1.paid"}}`, "RequestMalformed"},
		{"direct", "whole", create + ".c", cfg(`"direct":true`), "RequestMalformed"},
		{"sourcing", "whole", create + ".c", cfg(`"sourcing":true`), "RequestMalformed"},
		{"flow control ack", "whole", create + ".c", cfg(`"ack_policy":"flow_control"`), "RequestMalformed"},
		{"action", "whole", create + ".c", `{"stream_name":"ORDERS","config":{},"action":"upsert"}`, "RequestMalformed"},
		{"path in name", "whole", create + ".a/b", cfg(``), "SubjectMalformed"},
		{"wildcard name", "whole", create + ".*", cfg(``), "SubjectMalformed"},
		{"other name in body", "whole", create + ".c", cfg(`"name":"d"`), "RequestMalformed"},
		{"other durable in body", "whole", create + ".c", cfg(`"durable_name":"theirs"`), "RequestMalformed"},
		{"nameless", "whole", create, cfg(``), "forward"},
		{"nameless with name of another", "whole", create, cfg(`"name":"theirs"`), "ConsumerNotOwned"},
		{"nameless durable", "whole", create, cfg(`"durable_name":"d"`), "RequestMalformed"},
		{"durable create", "whole", "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.d", cfg(`"durable_name":"d"`), "forward"},
		{"durable create of another", "whole", "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.theirs", cfg(`"durable_name":"theirs"`), "ConsumerNotOwned"},
		{"durable create, other name", "whole", "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.d", cfg(`"durable_name":"theirs"`), "RequestMalformed"},
		{"durable create, filter", "part", "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.d", cfg(`"durable_name":"d"`), "FilterDenied"},
		{"not looked up", "whole", create + ".unknown", cfg(``), "owner"},
		{"refused before the look-up", "part", create + ".unknown", cfg(``), "FilterDenied"},
		{"replace another's", "whole", create + ".theirs", cfg(``), "ConsumerNotOwned"},
		{"replace an ownerless", "whole", create + ".bare", cfg(``), "ConsumerNotOwned"},
		{"update own", "whole", create + ".mine", `{"stream_name":"ORDERS","config":{},"action":"update"}`, "forward"},
		{"update nothing", "whole", create + ".c", `{"stream_name":"ORDERS","config":{},"action":"update"}`, "NotFound"},
		{"update shared", "shared", create + ".theirs", `{"stream_name":"ORDERS","config":{"filter_subject":"orders.*.paid"},"action":"update"}`, "ConsumerNotOwned"},
		{"metadata owner self", "whole", create + ".c", cfg(`"metadata":{"signet.owner":"shop/whole"}`), "forward"},
		{"metadata too large", "whole", create + ".c", cfg(`"metadata":{"k":"` + strings.Repeat("x", 4096) + `"}`), "RequestMalformed"},
		{"metadata owner other", "whole", create + ".c", cfg(`"metadata":{"signet.owner":"shop/other"}`), "ConsumerNotOwned"},
		{"on dead letters", "whole", "$JS.API.CONSUMER.CREATE.DLQ.c", `{"stream_name":"DLQ","config":{}}`, "FilterDenied"},
		{"watch bucket", "part", "$JS.API.CONSUMER.CREATE.KV_cfg.x.$KV.cfg.>", `{"stream_name":"KV_cfg","config":{"filter_subject":"$KV.cfg.>","deliver_subject":"_INBOX.w","flow_control":true,"idle_heartbeat":5000000000}}`, "forward"},
		{"watch other bucket", "part", "$JS.API.CONSUMER.CREATE.KV_secret.x.$KV.cfg.>", `{"stream_name":"KV_secret","config":{"filter_subject":"$KV.cfg.>"}}`, "FilterDenied"},
		{"bucket without filter", "part", "$JS.API.CONSUMER.CREATE.KV_cfg.x", `{"stream_name":"KV_cfg","config":{}}`, "forward"},
		{"object chunks", "part", "$JS.API.CONSUMER.CREATE.OBJ_files.x.$O.files.C.abc", `{"stream_name":"OBJ_files","config":{"filter_subject":"$O.files.C.abc"}}`, "forward"},

		{"next own", "part", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", `{"batch":10,"expires":1000000000,"no_wait":true}`, "forward"},
		{"next number", "part", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", "5", "forward"},
		{"next theirs", "part", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.theirs", "", "ConsumerNotOwned"},
		{"next shared", "shared", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.theirs", "", "forward"},
		{"next after the grant is gone", "none", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", "", "FilterDenied"},
		{"ack next after the grant is gone", "none", "$JS.ACK.ORDERS.mine.1.1.1.0.0", "+NXT", "FilterDenied"},
		{"ack after the grant is gone", "none", "$JS.ACK.ORDERS.mine.1.1.1.0.0", "+ACK", "forward"},
		{"next garbage", "part", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", "ten", "RequestMalformed"},
		{"next negative", "part", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine", `{"batch":-1}`, "RequestMalformed"},
		{"next more tokens", "part", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine.x", "", "SubjectMalformed"},
		{"next as admin", "admin", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.theirs", "", "ConsumerNotOwned"},
	}
	for _, verb := range []struct{ name, body string }{{"INFO", ""}, {"DELETE", ""}, {"UNPIN", `{"group":"a"}`}, {"RESET", `{"seq":1}`}} {
		s := "$JS.API.CONSUMER." + verb.name + ".ORDERS."
		sharedWant := "ConsumerNotOwned"
		if verb.name == "INFO" {
			sharedWant = "forward"
		}
		rows = append(rows,
			row{verb.name + " own", "part", s + "mine", verb.body, "forward"},
			row{verb.name + " theirs", "part", s + "theirs", verb.body, "ConsumerNotOwned"},
			row{verb.name + " shared", "shared", s + "theirs", verb.body, sharedWant},
			row{verb.name + " admin", "admin", s + "theirs", verb.body, "forward"},
			row{verb.name + " not looked up", "part", s + "unknown", verb.body, "owner"},
		)
	}
	rows = append(rows,
		row{"info of nothing lets the server answer", "part", "$JS.API.CONSUMER.INFO.ORDERS.gone", "", "forward"},
		row{"info of nothing, no grants", "none", "$JS.API.CONSUMER.INFO.ORDERS.gone", "", "NotFound"},
		row{"delete of nothing", "part", "$JS.API.CONSUMER.DELETE.ORDERS.gone", "", "NotFound"},
		row{"reset to the floor", "part", "$JS.API.CONSUMER.RESET.ORDERS.mine", "", "forward"},
	)
	runRows(t, rows)
}

// TestRow18SharingReachesPrincipalsOnly: a grant for all consumers of a stream reaches
// those of other principals, neither the broker's own nor those of nobody.
func TestRow18SharingReachesPrincipalsOnly(t *testing.T) {
	var rows []row
	for _, r := range []struct{ name, subject, body string }{
		{"next", "$JS.API.CONSUMER.MSG.NEXT.ORDERS.", ""},
		{"info", "$JS.API.CONSUMER.INFO.ORDERS.", ""},
		{"create", "$JS.API.CONSUMER.CREATE.ORDERS.", `{"stream_name":"ORDERS","config":{"filter_subject":"orders.1.paid"}}`},
	} {
		who := "sharedall"
		if r.name == "create" {
			who = "whole" // which reads enough, and shares nothing
		}
		for consumer, want := range map[string]string{"theirs": "forward", "brokers": "ConsumerNotOwned", "bare": "ConsumerNotOwned", "unknown": "owner"} {
			if who == "whole" && consumer == "theirs" {
				want = "ConsumerNotOwned"
			}
			rows = append(rows, row{r.name + " " + consumer, who, r.subject + consumer, r.body, want})
		}
	}
	for consumer, want := range map[string]string{"theirs": "forward", "brokers": "ConsumerNotOwned", "bare": "ConsumerNotOwned"} {
		for _, payload := range []string{"", "+TERM", "+NXT"} {
			rows = append(rows, row{"ack " + payload + consumer, "sharedall", "$JS.ACK.ORDERS." + consumer + ".1.1.1.0.0", payload, want})
		}
		rows = append(rows, row{"flow " + consumer, "sharedall", "$JS.FC.ORDERS." + consumer + ".x", "", want})
	}
	runRows(t, rows)
}

// TestRow18SharedCreateWithinOwner: a sharer's request to make the shared consumer is in the
// name of its owner, who may have lost the consumer meanwhile and must not get one that
// reads what only the sharer may.
func TestRow18SharedCreateWithinOwner(t *testing.T) {
	s := "$JS.API.CONSUMER.CREATE.ORDERS.theirs"
	cfg := func(config string) string { return `{"stream_name":"ORDERS","config":{` + config + `},"action":""}` }
	runRows(t, []row{
		{"within", "sharedwide", s, cfg(`"filter_subject":"orders.1.paid"`), "forward"},
		{"several within", "sharedwide", s, cfg(`"filter_subjects":["orders.1.paid","orders.2.paid"]`), "forward"},
		{"beyond", "sharedwide", s, cfg(`"filter_subject":"orders.secret"`), "ConsumerNotOwned"},
		{"one beyond", "sharedwide", s, cfg(`"filter_subjects":["orders.1.paid","orders.secret"]`), "ConsumerNotOwned"},
		{"everything", "sharedwide", s, cfg(``), "ConsumerNotOwned"},
		// It would be the owner's, and send to the inbox of the sharer for ever.
		{"pushed to the sharer", "sharedwide", s, cfg(`"filter_subject":"orders.1.paid","deliver_subject":"_INBOX.push"`), "ConsumerNotOwned"},
	})
}

// TestRow18ConsumerRewrite pins what reaches the server.
func TestRow18ConsumerRewrite(t *testing.T) {
	for _, tt := range []struct{ name, who, consumer, action, wantAction, wantOwner string }{
		{"new", "whole", "c", "", "create", "shop/whole"},
		{"own", "whole", "mine", "", "", "shop/whole"},
		{"own update", "whole", "mine", "update", "update", "shop/whole"},
		{"shared", "shared", "theirs", "", "create", "shop/other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body := `{"config":{"metadata":{"a":"b"},"filter_subject":"orders.*.paid","max_deliver":-1,"backoff":[1,2],"num_replicas":1},"stream_name":"ORDERS","action":"` + tt.action + `"}`
			v := judge(tt.who, "$JS.API.CONSUMER.CREATE.ORDERS."+tt.consumer, inbox, body)
			if v.Action != Forward || v.Effect != EffectCreated || v.Stream != "ORDERS" || v.Consumer != tt.consumer {
				t.Fatalf("got %s %+v", outcome(v), v)
			}
			want := `{"stream_name":"ORDERS","config":{"filter_subject":"orders.*.paid","max_deliver":-1,"backoff":[1,2],"num_replicas":1,"metadata":{"a":"b","signet.owner":"` +
				tt.wantOwner + `"}},"action":"` + tt.wantAction + `"}`
			if string(v.Body) != want {
				t.Errorf("body\n got %s\nwant %s", v.Body, want)
			}
		})
	}
	if v := judge("part", "$JS.API.CONSUMER.DELETE.ORDERS.mine", inbox, ""); v.Effect != EffectDeleted {
		t.Errorf("delete has effect %d, want EffectDeleted", v.Effect)
	}
	for _, tt := range []struct {
		who     string
		filters []string
		want    bool
	}{
		{"part", []string{"orders.*.paid"}, true},
		{"part", []string{"orders.*.paid", "orders.>"}, false},
		{"part", nil, false},
		{"whole", nil, true},
	} {
		if got := ReadsWithin(principal(tt.who), "ORDERS", tt.filters); got != tt.want {
			t.Errorf("ReadsWithin(%s, %q) = %v, want %v", tt.who, tt.filters, got, tt.want)
		}
	}
}

// TestHeaders: one header passes, the server's other levers are refused.
func TestHeaders(t *testing.T) {
	for _, tt := range []struct{ name, lines, want, block string }{
		{"level", "Nats-Required-Api-Level: 2\r\n", "forward", "NATS/1.0\r\nNats-Required-Api-Level: 2\r\n\r\n"},
		{"trace context is dropped", "traceparent: x\r\n", "forward", ""},
		{"trace destination", "Nats-Trace-Dest: orders.1.paid\r\n", "HeaderDenied", ""},
		{"request info", "nats-request-info: {}\r\n", "HeaderDenied", ""},
		{"identity", "Nats-Stream-Identity: x\r\n", "HeaderDenied", ""},
		{"level twice", "Nats-Required-Api-Level: 2\r\nNats-Required-Api-Level: 3\r\n", "HeaderDenied", ""},
		{"level text", "Nats-Required-Api-Level: x\r\n", "HeaderDenied", ""},
		{"ours", "Signet-Principal: shop/admin\r\n", "HeaderDenied", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h wire.Headers
			if err := h.Parse([]byte("NATS/1.0\r\n" + tt.lines + "\r\n")); err != nil {
				t.Fatal(err)
			}
			r := &Request{Principal: principal("whole"), Subject: "$JS.API.INFO", Reply: inbox, Header: &h, MapInbox: mapInbox}
			v := New(Config{}).Judge(r, owners(""))
			if outcome(v) != tt.want || string(v.Header) != tt.block {
				t.Errorf("got %s %q, want %s %q", outcome(v), v.Header, tt.want, tt.block)
			}
		})
	}
}
