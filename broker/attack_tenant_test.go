package broker_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// TestAdminWithoutGrant: each verb of the admin API needs the grant of its area.
func TestAdminWithoutGrant(t *testing.T) {
	b := newBroker(t)
	for _, who := range []string{"wide", "caller", "keeper"} {
		p := connect(t, b, who)
		for _, s := range adminapi.Subjects() {
			if s == adminapi.SubjectKeysRing {
				if problem, _ := p.ask(t, s, nil); problem != nil {
					t.Errorf("%s: the keyring was refused: %+v", who, problem)
				}
				continue
			}
			if s == adminapi.SubjectKeysCertify {
				p.denied(t, s, `{"request":"x"}`, wire.CodeUnavailable) // open to all, and nobody issues here
				continue
			}
			problem := p.denied(t, s, `{}`, wire.CodeAdminDenied)
			if problem.Principal != "shop/"+who || problem.Explain != nil {
				t.Errorf("%s on %s: %+v", who, s, problem)
			}
		}
		for _, s := range []string{"$SIGNET.API.keys.ring.x", "$SIGNET.API.keys", "$SIGNET.API.none.none", "$SIGNET.API.keys.rotate", "$SIGNET.x", "$SIGNET.API."} {
			p.denied(t, s, nil, wire.CodeAdminDenied, wire.CodePublishDenied, wire.CodeSubjectUnknown, wire.CodeSubjectMalformed)
		}
	}
	// A grant of one area is not a grant of another, and unknown verbs are errors.
	root := connect(t, b, "root")
	root.denied(t, "$SIGNET.API.streams.ls", nil, wire.CodeAdminDenied)
	root.denied(t, "$SIGNET.API.keys.none", nil, wire.CodeNotFound)
	for _, body := range []string{`{"x":1}`, `[]`, `{"limit":"a"}`, `{} {}`, `{"cursor":-1}`, "\x00", strings.Repeat("[", 100000)} {
		root.denied(t, adminapi.SubjectDLQLs, body, wire.CodeRequestMalformed)
	}
	// Whoever asks cannot say who asks.
	msg := nats.NewMsg(adminapi.SubjectStatusGet)
	msg.Header.Set(wire.HeaderPrincipal, "shop/root")
	refusedHeader(t, connect(t, b, "wide"), msg)
}

// TestTenantsAreStrangers: nothing of one tenant is visible to the other, though
// their streams, buckets and subjects have the same names.
func TestTenantsAreStrangers(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	writer, keeper, miller := connect(t, b, "writer"), connect(t, b, "keeper"), connect(t, b, "miller")
	shopLive := must(connect(t, b, "wide").SubscribeSync("telemetry.>"))(t)
	millLive := must(miller.SubscribeSync("telemetry.>"))(t)
	millOrders := must(miller.SubscribeSync("orders.>"))(t)
	check(t, miller.Flush())

	// Everything of shop has "SHOPSECRET" in its bytes or names.
	const secret = "SHOPSECRET"
	writer.publish(t, "orders."+secret, secret)
	writer.publish(t, "payments."+secret, secret)
	check(t, writer.Publish("telemetry."+secret, []byte(secret)))
	kv := must(keeper.js(t).KeyValue(ctx, "secrets"))(t)
	must(kv.Put(ctx, secret, []byte(secret)))(t)
	settings := must(writer.js(t).KeyValue(ctx, "settings"))(t)
	must(settings.Put(ctx, secret, []byte(secret)))(t)
	if _, err := writer.js(t).Publish(ctx, "orders.checked", []byte(`{"`+secret+`":1}`)); err == nil {
		t.Fatal("the schema did not refuse")
	}
	refusal := writer.denied(t, "billing."+secret, secret, wire.CodePublishDenied)
	deadLetters(t, b, "shop", 1)
	if m := must(shopLive.NextMsg(patience))(t); string(m.Data) != secret {
		t.Fatalf("%q", m.Data)
	}

	// Whatever mill asks, by whoever.
	var answers []string
	collect := func(p *peer, subject string, body any) {
		_, m := p.ask(t, subject, body)
		answers = append(answers, subject+" "+string(m.Data)+fmt.Sprint(m.Header))
	}
	boss := connect(t, b, "boss")
	for _, p := range []*peer{boss, miller} {
		for _, s := range []string{
			"$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.ORDERS", "$JS.API.STREAM.INFO.PAYMENTS", "$JS.API.STREAM.INFO.DLQ",
			"$JS.API.STREAM.INFO.KV_secrets", "$JS.API.CONSUMER.NAMES.ORDERS", "$JS.API.CONSUMER.LIST.ORDERS", "$JS.API.DIRECT.GET.ORDERS.orders.checked",
			"$SYS.REQ.USER.INFO",
			adminapi.SubjectStatusGet, adminapi.SubjectStatusConsumers, adminapi.SubjectStatusThrottled, adminapi.SubjectDLQLs, adminapi.SubjectRefusalsLs, adminapi.SubjectKeysLs,
		} {
			collect(p, s, nil)
		}
		collect(p, "$JS.API.STREAM.MSG.GET.ORDERS", `{"seq":1}`)
		collect(p, "$JS.API.DIRECT.GET.ORDERS", `{"seq":1}`)
		collect(p, adminapi.SubjectDLQShow, `{"seq":1}`)
		collect(p, adminapi.SubjectPolicyExplain, map[string]string{"ref": refusal.Ref})
		collect(p, adminapi.SubjectPolicyCanI, `{"verb":"publish","subject":"orders.x","principal":"writer"}`)
		collect(p, adminapi.SubjectPolicyCanI, `{"verb":"publish","subject":"orders.x","principal":"shop/writer"}`)
		collect(p, adminapi.SubjectRefusalsLs, `{"principal":"../shop/writer"}`)
		collect(p, adminapi.SubjectDLQLs, `{"principal":"writer"}`)
	}
	for _, a := range answers {
		subject, _, _ := strings.Cut(a, " ")
		for _, leak := range []string{"SHOPSECRET", "shop/", "PAYMENTS", "KV_secrets"} {
			if strings.Contains(a, leak) && !strings.Contains(subject, leak) {
				t.Errorf("mill learns %q: %.300s", leak, a)
			}
		}
	}
	var status struct {
		Result adminapi.Status `json:"result"`
	}
	_, m := boss.ask(t, adminapi.SubjectStatusGet, nil)
	check(t, json.Unmarshal(m.Data, &status))
	if s := status.Result; s.Policy.Tenants != 1 || s.Policy.Principals != 2 || len(s.Streams) != 3 || s.DeadLetters.Messages != 0 {
		t.Errorf("status of mill: %+v", s)
	}
	for _, c := range status.Result.Refusals {
		if c.Code == wire.CodeSchemaViolation {
			t.Errorf("the status of mill counts shop's refusals: %+v", c)
		}
	}
	for _, sub := range []*nats.Subscription{millLive, millOrders} {
		if n, _, _ := sub.Pending(); n > 0 {
			t.Errorf("mill hears %s of shop", sub.Subject)
		}
	}
	// Same names, other data: mill's own works and starts empty.
	if seq := miller.publish(t, "orders.x", "flour"); seq != 1 {
		t.Errorf("mill's first event has sequence %d", seq)
	}
	c := must(miller.js(t).CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{FilterSubject: "orders.>"}))(t)
	if m := must(c.Next(jetstream.FetchMaxWait(patience)))(t); string(m.Data()) != "flour" {
		t.Errorf("mill read %q", m.Data())
	}
	// Another tenant's key is nobody here: the same key is one principal only.
	if p := must(connect(t, b, "miller").Request("$SIGNET.API.policy.cani", []byte(`{}`), patience))(t); !strings.Contains(string(p.Data), "mill/miller") {
		t.Errorf("miller is %s", p.Data)
	}
}

// TestRefusalSaysEverything: code, rule, subject, principal, ref and fix reach the
// caller; file and line reach only an administrator who asks for the ref.
func TestRefusalSaysEverything(t *testing.T) {
	b := newBroker(t)
	narrow, root := connect(t, b, "narrow"), b.Client("root")
	p := narrow.denied(t, "orders.us.x", "x", wire.CodePublishDenied)
	if p.Rule != "default-deny/publish" || p.Subject != "orders.us.x" || p.Principal != "shop/narrow" || p.Ref == "" || p.Fix == "" ||
		p.Class != wire.ClassPermissionDenied || p.Status != 403 || p.Explain != nil {
		t.Errorf("%+v", p)
	}
	api := admin.New(root)
	e, err := api.Explain(within(t), p.Ref)
	check(t, err)
	if e.Explain == nil || e.Explain.File == "" || e.Explain.Line == 0 || !strings.Contains(e.Explain.Nearest, "orders.eu.>") || e.Explain.Fix == "" {
		t.Errorf("explained: %+v %+v", e, e.Explain)
	}
	// Without a reply subject it is an -ERR with the same words.
	check(t, narrow.Publish("orders.us.y", nil))
	narrow.refused(t, wire.CodePublishDenied)

	// The audit ring has both, in order, and filters.
	list, err := api.Refusals(within(t), admin.RefusalsQuery{Principal: "narrow"}, 0)
	check(t, err)
	if len(list.Entries) != 2 || list.Entries[0].Ref != p.Ref || list.Entries[1].Subject != "orders.us.y" || list.Entries[0].Name == "" {
		t.Errorf("%+v", list.Entries)
	}
	if more, err := api.Refusals(within(t), admin.RefusalsQuery{After: list.Cursor}, 0); err != nil || len(more.Entries) != 0 {
		t.Errorf("after the cursor: %+v, %v", more, err)
	}

	// A rate limit says when to come back, and coming back then works.
	throttled := b.Client("throttled")
	var limited *client.Error
	eventually(t, "limit", func() bool {
		_, err := throttled.Publish(within(t), "orders.x", client.NewEvent("t", nil), client.WithoutRetry())
		return asError(err, &limited)
	})
	if limited.Code != int(wire.CodeRateLimited) || limited.Rule != "limit slow" || limited.RetryAfter <= 0 || limited.RetryAfter > patience || !client.Retryable(limited) {
		t.Errorf("%+v", limited)
	}
	if _, err := throttled.Publish(within(t), "orders.x", client.NewEvent("t", nil)); err != nil {
		t.Errorf("with retries: %v", err)
	}

	// A schema violation says where.
	writer := b.Client("writer")
	_, err = writer.Publish(within(t), "orders.checked", &client.Event{Type: "t", DataContentType: "application/json", Data: []byte(`{"id":"seven"}`)})
	var broken *client.Error
	if !asError(err, &broken) || broken.Code != int(wire.CodeSchemaViolation) || len(broken.Violations) != 1 || broken.Violations[0].At != "/id" ||
		!strings.Contains(broken.Rule, "order@1") || strings.Contains(fmt.Sprintf("%+v", broken), "seven") {
		t.Errorf("%+v", broken)
	}
}

// TestDeadLetterKeepsTheBytes: a dead letter has the original header block and
// payload, byte for byte, and says why.
func TestDeadLetterKeepsTheBytes(t *testing.T) {
	b := newBroker(t)
	api := admin.New(b.Client("root"))
	block := "NATS/1.0\r\nX-Mine: a\r\nx-mine:  b \r\nce-id: 7\r\nce-type: t\r\nce-specversion: 1.0\r\nce-datacontenttype: application/json\r\n\r\n"
	payload := "{\"id\": \"seven\",\r\n \"é\":\t1}"
	r, _ := rawTLS(t, b, b.Cred("writer"))
	r.send(fmt.Sprintf("SUB _INBOX.a.* 1\r\nHPUB orders.checked _INBOX.a.1 %d %d\r\n%s%s\r\nPING\r\n", len(block), len(block)+len(payload), block, payload))
	answer := r.line()
	if !strings.HasPrefix(answer, "MSG _INBOX.a.1 1 ") {
		t.Fatalf("answer %q", answer)
	}
	var problem wire.ErrorAnswer
	check(t, json.Unmarshal([]byte(r.line()), &problem))
	if l := r.line(); l != "PONG" {
		t.Errorf("after the refusal: %q", l)
	}
	deadLetters(t, b, "shop", 1)
	list, err := api.DLQList(within(t), admin.DLQQuery{})
	check(t, err)
	if len(list.Entries) != 1 {
		t.Fatalf("%+v", list)
	}
	e := list.Entries[0]
	if e.Reason != "schema" || e.Code != wire.CodeSchemaViolation || e.Principal != "shop/writer" || e.Subject != "orders.checked" || e.Stage != "ingress" ||
		e.Ref != problem.Problem.Ref || e.Ref == "" || e.Schema != "order@1" || e.Policy != b.Policy().Digest() || len(e.Violations) == 0 || e.Violations[0].At != "/id" {
		t.Errorf("%+v", e)
	}
	letter, err := api.DLQShow(within(t), e.Seq)
	check(t, err)
	if string(letter.Header) != block || string(letter.Payload) != payload {
		t.Errorf("header %q\npayload %q", letter.Header, letter.Payload)
	}
	// What the ACL refuses is counted and sampled, but not stored.
	connect(t, b, "narrow").denied(t, "orders.us.x", payload, wire.CodePublishDenied)
	s, err := api.Status(within(t))
	check(t, err)
	if s.DeadLetters.Messages != 1 || s.Gate.Refused < 2 {
		t.Errorf("%+v %+v", s.DeadLetters, s.Gate)
	}
}
