package broker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

// consumerRequest is a CONSUMER.CREATE body by hand.
func consumerRequest(stream string, config map[string]any) map[string]any {
	return map[string]any{"stream_name": stream, "config": config}
}

// TestReadEscapeConsumerOfOther: a reader of orders.eu.> cannot make, pull from,
// look at, ack for or delete what reaches other subjects or belongs to others.
func TestReadEscapeConsumerOfOther(t *testing.T) {
	b := newBroker(t)
	writer, narrow := connect(t, b, "writer"), connect(t, b, "narrow")
	writer.publish(t, "orders.us.secret", "secret")
	writer.publish(t, "orders.eu.open", "open")

	// The escape as it was reproduced: a consumer of one's own, with another's filter.
	for name, cfg := range map[string]map[string]any{
		"whole stream":   {"durable_name": "x", "ack_policy": "explicit"},
		"other's filter": {"durable_name": "x", "ack_policy": "explicit", "filter_subject": "orders.us.>"},
		"too wide":       {"durable_name": "x", "ack_policy": "explicit", "filter_subject": "orders.>"},
		"star":           {"durable_name": "x", "ack_policy": "explicit", "filter_subject": "orders.*.secret"},
		"full wildcard":  {"durable_name": "x", "ack_policy": "explicit", "filter_subject": ">"},
	} {
		t.Run(name, func(t *testing.T) {
			filter, _ := cfg["filter_subject"].(string)
			subjects := []string{"$JS.API.CONSUMER.CREATE.ORDERS.x", "$JS.API.CONSUMER.DURABLE.CREATE.ORDERS.x", "$JS.API.CONSUMER.CREATE.ORDERS"}
			if filter != "" {
				subjects = append(subjects, "$JS.API.CONSUMER.CREATE.ORDERS.x."+filter)
			}
			for _, s := range subjects {
				narrow.denied(t, s, consumerRequest("ORDERS", cfg), wire.CodeFilterDenied, wire.CodeRequestMalformed)
			}
		})
	}
	// The subject says a granted filter, the body another.
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.x.orders.eu.>",
		consumerRequest("ORDERS", map[string]any{"name": "x", "filter_subject": "orders.us.>"}), wire.CodeFilterDenied, wire.CodeRequestMalformed)
	// The subject names one stream, the body another.
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.x",
		consumerRequest("PAYMENTS", map[string]any{"name": "x", "filter_subject": "orders.eu.>"}), wire.CodeRequestMalformed)

	// Another's consumer is another's.
	wide := connect(t, b, "wide")
	must(wide.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "wide", AckPolicy: jetstream.AckExplicitPolicy}))(t)
	m := must(narrow.Request("$JS.API.CONSUMER.MSG.NEXT.ORDERS.wide", []byte(`{"batch":1,"no_wait":true}`), patience))(t)
	if len(m.Data) > 0 || m.Header.Get("Status") != "400" {
		t.Errorf("pull from another's consumer: %v %q", m.Header, m.Data)
	}
	narrow.denied(t, "$JS.API.CONSUMER.INFO.ORDERS.wide", nil, wire.CodeConsumerNotOwned)
	narrow.denied(t, "$JS.API.CONSUMER.DELETE.ORDERS.wide", nil, wire.CodeConsumerNotOwned)
	narrow.denied(t, "$JS.API.CONSUMER.RESET.ORDERS.wide", nil, wire.CodeConsumerNotOwned)
	narrow.denied(t, "$JS.API.CONSUMER.UNPIN.ORDERS.wide", `{"group":"g"}`, wire.CodeConsumerNotOwned)
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.wide",
		consumerRequest("ORDERS", map[string]any{"name": "wide", "durable_name": "wide", "ack_policy": "explicit", "filter_subject": "orders.eu.>"}), wire.CodeConsumerNotOwned)
	// A consumer that claims another's ownership.
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.y.orders.eu.>",
		consumerRequest("ORDERS", map[string]any{"name": "y", "filter_subject": "orders.eu.>", "metadata": map[string]string{wire.MetaOwner: "shop/wide"}}), wire.CodeConsumerNotOwned)

	// A second member of the same name: what one parser reads, another overwrites.
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.z.orders.eu.>",
		`{"stream_name":"ORDERS","config":{"name":"z","filter_subject":"orders.eu.>","filter_subject":"orders.>"}}`, wire.CodeRequestMalformed)
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.z.orders.eu.>",
		`{"stream_name":"ORDERS","config":{"name":"z","filter_subject":"orders.eu.>","Filter_Subject":"orders.>"}}`, wire.CodeRequestMalformed)

	if n := streamOf(t, b, "shop", "ORDERS").State.Consumers; n != 1 {
		t.Errorf("%d consumers in the stream, want wide's only", n)
	}
	// And what is granted works, and shows what is granted only.
	c := must(narrow.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{FilterSubject: "orders.eu.>"}))(t)
	if got := must(c.Next(jetstream.FetchMaxWait(patience)))(t); string(got.Data()) != "open" {
		t.Errorf("got %q", got.Data())
	}
}

// TestReadEscapeFilterSubjects: the list of filters is judged element by element.
func TestReadEscapeFilterSubjects(t *testing.T) {
	b := newBroker(t)
	writer, narrow := connect(t, b, "writer"), connect(t, b, "narrow")
	writer.publish(t, "orders.us.secret", "secret")
	writer.publish(t, "orders.eu.open", "open")
	for _, filters := range [][]string{
		{"orders.us.secret"},
		{"orders.eu.open", "orders.us.secret"},
		{"orders.eu.>", "orders.>"},
		{"orders.eu.>", ""},
		{""},
		{"orders.eu.>", ">"},
		{"orders.eu.>", "*.us.>"},
	} {
		narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.x", consumerRequest("ORDERS", map[string]any{"name": "x", "filter_subjects": filters}),
			wire.CodeFilterDenied, wire.CodeRequestMalformed)
	}
	// Both members at once.
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.x",
		consumerRequest("ORDERS", map[string]any{"name": "x", "filter_subject": "orders.eu.>", "filter_subjects": []string{"orders.us.secret"}}),
		wire.CodeFilterDenied, wire.CodeRequestMalformed)
	if n := streamOf(t, b, "shop", "ORDERS").State.Consumers; n != 0 {
		t.Errorf("%d consumers were made", n)
	}
	// An update of one's own consumer towards the secret.
	js := narrow.js(t)
	must(js.CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "own", FilterSubject: "orders.eu.>"}))(t)
	if _, err := js.UpdateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "own", FilterSubjects: []string{"orders.eu.>", "orders.us.>"}}); err == nil {
		t.Error("the filters of an own consumer were widened")
	}
	if _, err := js.UpdateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "own"}); err == nil {
		t.Error("the filter of an own consumer was taken away")
	}
}

// TestReadEscapeDirectGet: no way of a direct or message get reaches a subject
// that is not granted.
func TestReadEscapeDirectGet(t *testing.T) {
	b := newBroker(t)
	writer, narrow := connect(t, b, "writer"), connect(t, b, "narrow")
	seq := writer.publish(t, "orders.us.secret", "secret")
	writer.publish(t, "orders.eu.open", "open")
	now := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	denied := []wire.Code{wire.CodeFilterDenied, wire.CodeRequestMalformed}
	for _, body := range []string{
		fmt.Sprintf(`{"seq":%d}`, seq), `{"last_by_subj":"orders.us.secret"}`, `{"last_by_subj":"orders.>"}`, `{"last_by_subj":">"}`,
		`{"next_by_subj":"orders.us.>","seq":1}`, `{"next_by_subj":"orders.>"}`, `{"multi_last":["orders.us.secret"]}`,
		`{"multi_last":["orders.eu.open","orders.us.secret"],"batch":10}`, `{"multi_last":["orders.>"],"up_to_seq":10}`,
		`{"multi_last":["orders.>"],"up_to_time":"` + now + `"}`, `{"start_time":"2020-01-01T00:00:00Z"}`, `{"seq":1,"batch":10}`,
		`{"seq":1,"last_by_subj":"orders.eu.open"}`, `{"last_by_subj":"orders.eu.open","next_by_subj":"orders.us.secret"}`,
		`{"last_by_subj":"orders.eu.open","LAST_BY_SUBJ":"orders.us.secret"}`, `{}`, ``,
	} {
		t.Run(body, func(t *testing.T) {
			narrow.denied(t, "$JS.API.DIRECT.GET.ORDERS", body, denied...)
			narrow.denied(t, "$JS.API.STREAM.MSG.GET.ORDERS", body, denied...)
		})
	}
	// The server reads the list and not the sequence, or neither, but never both.
	if _, m := narrow.ask(t, "$JS.API.DIRECT.GET.ORDERS", `{"seq":1,"multi_last":["orders.eu.open"]}`); strings.Contains(string(m.Data), "secret") {
		t.Errorf("a sequence beside a granted list reads %q", m.Data)
	}
	narrow.denied(t, "$JS.API.STREAM.MSG.GET.ORDERS", `{"seq":1,"multi_last":["orders.eu.open"]}`, denied...)
	for _, s := range []string{"orders.us.secret", "orders.>", ">", "orders.*.secret", "orders.us.>"} {
		narrow.denied(t, "$JS.API.DIRECT.GET.ORDERS."+s, nil, denied...)
	}
	narrow.denied(t, "$JS.API.DIRECT.GET.ORDERS.orders.eu.open", `{"last_by_subj":"orders.us.secret","multi_last":["orders.us.secret"]`, denied...)
	// A body beside the subject cannot widen it.
	_, m := narrow.ask(t, "$JS.API.DIRECT.GET.ORDERS.orders.eu.open", `{"seq":1}`)
	if strings.Contains(string(m.Data), "secret") {
		t.Errorf("a body reached %q", m.Data)
	}
	_, m = narrow.ask(t, "$JS.API.DIRECT.GET.ORDERS.orders.eu.open", nil)
	if string(m.Data) != "open" {
		t.Errorf("the granted get: %v %q", m.Header, m.Data)
	}
	// What lists subjects is a read too.
	_, m = narrow.ask(t, "$JS.API.STREAM.INFO.ORDERS", `{"subjects_filter":">"}`)
	if strings.Contains(string(m.Data), "secret") {
		t.Error("STREAM.INFO lists subjects")
	}
	narrow.denied(t, "$JS.API.STREAM.NAMES", `{"subject":"payments.>"}`, wire.CodeFilterDenied)
	narrow.denied(t, "$JS.API.STREAM.NAMES", nil, wire.CodeAdminDenied)
	narrow.denied(t, "$JS.API.STREAM.LIST", nil, wire.CodeAdminDenied)
	narrow.denied(t, "$JS.API.STREAM.INFO.PAYMENTS", nil, wire.CodeAPIDenied)
	narrow.denied(t, "$JS.API.STREAM.SNAPSHOT.ORDERS", `{"deliver_subject":"_INBOX.x.y"}`, wire.CodeAPIDenied)
}

// TestReadDeadLettersWithoutAdmin: the dead letter stream is the admin API's.
func TestReadDeadLettersWithoutAdmin(t *testing.T) {
	b := newBroker(t)
	writer := connect(t, b, "writer")
	if _, err := writer.js(t).Publish(within(t), "orders.checked", []byte(`{"id":"secret"}`)); err == nil {
		t.Fatal("the schema did not refuse")
	}
	deadLetters(t, b, "shop", 1)
	for _, who := range []string{"wide", "root"} {
		p := connect(t, b, who)
		codes := []wire.Code{wire.CodeFilterDenied, wire.CodeAPIDenied, wire.CodeRequestMalformed}
		p.denied(t, "$JS.API.CONSUMER.CREATE.DLQ.x", consumerRequest("DLQ", map[string]any{"name": "x"}), codes...)
		p.denied(t, "$JS.API.CONSUMER.CREATE.DLQ.x.$SIGNET.DLQ.>", consumerRequest("DLQ", map[string]any{"name": "x", "filter_subject": "$SIGNET.DLQ.>"}), codes...)
		p.denied(t, "$JS.API.DIRECT.GET.DLQ", `{"seq":1}`, codes...)
		p.denied(t, "$JS.API.STREAM.MSG.GET.DLQ", `{"seq":1}`, codes...)
		p.denied(t, "$JS.API.DIRECT.GET.DLQ.$SIGNET.DLQ.schema.writer", nil, codes...)
		p.denied(t, "$JS.API.STREAM.INFO.DLQ", nil, codes...)
		p.denied(t, "$JS.API.STREAM.PURGE.DLQ", nil, wire.CodeAdminDenied)
		p.denied(t, "$JS.API.STREAM.MSG.DELETE.DLQ", `{"seq":1}`, wire.CodeAdminDenied)
		for _, s := range []string{"$SIGNET.DLQ.>", "$SIGNET.>", "$SIGNET.API.>", "$SIGNET.API.dlq.ls", "$SIGNET.API.*.*"} {
			sub := must(p.SubscribeSync(s))(t)
			p.refused(t, wire.CodeSubscribeDenied)
			_ = sub.Unsubscribe()
		}
	}
	// Nobody writes dead letters by hand, either.
	p := connect(t, b, "wide")
	p.denied(t, "$SIGNET.DLQ.schema.writer", "forged", wire.CodePublishDenied, wire.CodeSubjectUnknown)
	deadLetters(t, b, "shop", 1)
}

// TestSubscribeToTheAdminAPI: requests to the admin API, which carry dead letters
// and refusals back, are not to be listened to or answered by others.
func TestSubscribeToTheAdminAPI(t *testing.T) {
	b := newBroker(t)
	wide, root := connect(t, b, "wide"), connect(t, b, "root")
	for _, s := range []string{"$SIGNET.API.>", "$SIGNET.API.status.get", ">", "*.>", "*.API.>", "*.*.*.*", "$*.>"} {
		sub := must(wide.SubscribeSync(s))(t)
		before := len(wide.failures(t))
		eventually(t, "refusal of "+s, func() bool { return len(wide.failures(t)) >= max(before, 1) })
		if p, _ := root.ask(t, "$SIGNET.API.status.get", nil); p != nil {
			t.Fatalf("status: %+v", p)
		}
		if n, _, _ := sub.Pending(); n > 0 {
			t.Errorf("%s heard a request", s)
		}
		_ = sub.Unsubscribe()
	}
}

// TestReadBucketsWithoutGrant: buckets are read by grant only, by any route.
func TestReadBucketsWithoutGrant(t *testing.T) {
	b := newBroker(t)
	keeper, narrow := connect(t, b, "keeper"), connect(t, b, "narrow")
	kv := must(keeper.js(t).KeyValue(within(t), "secrets"))(t)
	must(kv.Put(within(t), "pin", []byte("1234")))(t)
	js := narrow.js(t)
	if _, err := js.KeyValue(within(t), "secrets"); err == nil {
		t.Error("opened a bucket without a grant")
	}
	if _, err := js.ObjectStore(within(t), "files"); err == nil {
		t.Error("opened an object store without a grant")
	}
	codes := []wire.Code{wire.CodeFilterDenied, wire.CodeAPIDenied, wire.CodeRequestMalformed}
	narrow.denied(t, "$JS.API.DIRECT.GET.KV_secrets.$KV.secrets.pin", nil, codes...)
	narrow.denied(t, "$JS.API.DIRECT.GET.KV_secrets", `{"last_by_subj":"$KV.secrets.pin"}`, codes...)
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.KV_secrets.x", consumerRequest("KV_secrets", map[string]any{"name": "x", "filter_subject": "$KV.secrets.>"}), codes...)
	// The granted bucket's stream does not open another's subjects.
	narrow.denied(t, "$JS.API.DIRECT.GET.KV_settings.$KV.secrets.pin", nil, codes...)
	narrow.denied(t, "$JS.API.CONSUMER.CREATE.KV_settings.x", consumerRequest("KV_settings", map[string]any{"name": "x", "filter_subject": "$KV.*.>"}), codes...)
	narrow.denied(t, "$KV.secrets.pin", "0000", wire.CodeBucketDenied)
	narrow.denied(t, "$KV.settings.x", "0000", wire.CodeBucketDenied) // read only
	narrow.denied(t, "$JS.API.STREAM.PURGE.KV_secrets", `{"filter":"$KV.secrets.pin"}`, wire.CodeFilterDenied, wire.CodeAPIDenied)
	sub := must(narrow.SubscribeSync("$KV.secrets.>"))(t)
	narrow.refused(t, wire.CodeSubscribeDenied)
	must(kv.Put(within(t), "pin", []byte("5678")))(t)
	check(t, narrow.Flush())
	if n, _, _ := sub.Pending(); n > 0 {
		t.Error("a core subscription reads a bucket")
	}
	if e := must(kv.Get(within(t), "pin"))(t); string(e.Value()) != "5678" {
		t.Errorf("pin is %q", e.Value())
	}
	w := must(connect(t, b, "narrow").js(t).KeyValue(within(t), "settings"))(t)
	if _, err := w.Get(within(t), "none"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("the granted bucket: %v", err)
	}
}

// TestRow08InboxTheft: nobody hears another's replies.
func TestRow08InboxTheft(t *testing.T) {
	b := newBroker(t)
	root := connect(t, b, "root")
	thief := connect(t, b, "wide")
	inbox := nats.NewInbox()
	prefix := inbox[:strings.LastIndexByte(inbox, '.')]
	var subs []*nats.Subscription
	// What the server sees of root's inboxes, guessed and known.
	tap := newTap(t, b, "shop", "$SIGNET.API.>")
	if p, _ := root.ask(t, "$SIGNET.API.status.get", nil); p != nil {
		t.Fatal(p)
	}
	upstream := tap.seen(t)[0].Reply
	session := strings.Split(upstream, ".")[1]
	if len(session) != 22 {
		t.Fatalf("the reply upstream is %q", upstream)
	}
	filters := []string{
		"_INBOX.>", "_INBOX.*", "_INBOX.*.>", "_INBOX.*.*.>", "_INBOX.*.*.*", ">", "*.>", "*.*.>", "*", "_*.>",
		inbox, prefix + ".>", prefix + ".*", "_INBOX." + session + ".>", "_INBOX." + session + ".*.*",
		strings.Join(strings.Split(upstream, ".")[:3], ".") + ".>", upstream, "_R_.>", "_GR_.>",
	}
	for _, f := range filters {
		subs = append(subs, must(thief.SubscribeSync(f))(t), must(thief.QueueSubscribeSync(f, "q"))(t))
	}
	check(t, thief.Flush())
	for range 20 {
		if p, m := root.ask(t, "$SIGNET.API.keys.ring", nil); p != nil || len(m.Data) < 100 {
			t.Fatalf("%+v", p)
		}
	}
	// A reply on root's inbox by the tap's all-seeing connection, to be sure.
	check(t, inside(t, b, "shop").Publish(upstream, []byte("reply")))
	check(t, inside(t, b, "shop").Flush())
	check(t, thief.Flush())
	for i, s := range subs {
		if n, _, err := s.Pending(); err == nil && n > 0 {
			t.Errorf("%s heard %d of another's replies", filters[i/2], n)
		}
	}
	// Writing into another's inbox, guessed or known, is refused too. While the thief
	// listens on _INBOX.>, that is an inbox of its own that it writes to.
	replies := newTap(t, b, "shop", "_INBOX."+session+".>")
	check(t, thief.Publish(upstream, []byte("forged reply")))
	check(t, thief.Flush())
	for _, s := range subs {
		_ = s.Unsubscribe()
	}
	for _, s := range []string{upstream, "_INBOX." + session + ".x", inbox} {
		thief.denied(t, s, "forged reply", wire.CodeInboxDenied)
	}
	replies.nothing(t, "a publish into another's inbox")
}

// streamInfo is a part of what the server says of a stream.
type streamInfo struct {
	State struct {
		Messages  uint64 `json:"messages"`
		FirstSeq  uint64 `json:"first_seq"`
		LastSeq   uint64 `json:"last_seq"`
		Consumers int    `json:"consumer_count"`
	} `json:"state"`
}

func streamOf(t testing.TB, b interface {
	Inside(string) (*nats.Conn, error)
}, tenant, stream string,
) streamInfo {
	t.Helper()
	m := must(must(b.Inside(tenant))(t).Request("$JS.API.STREAM.INFO."+stream, nil, patience))(t)
	var info streamInfo
	check(t, json.Unmarshal(m.Data, &info))
	return info
}

// deadLetters waits until a tenant has exactly n dead letters.
func deadLetters(t testing.TB, b interface {
	Inside(string) (*nats.Conn, error)
}, tenant string, n uint64,
) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d dead letters", n), func() bool { return streamOf(t, b, tenant, "DLQ").State.Messages >= n })
	if got := streamOf(t, b, tenant, "DLQ").State.Messages; got != n {
		t.Fatalf("%d dead letters, want %d", got, n)
	}
}
