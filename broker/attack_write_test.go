package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

// forbidden are subjects that narrow may not write to. orders.us.x is a stream's,
// telemetry.us.x is ephemeral, the others belong to the system or to others.
var forbidden = []string{
	"orders.us.x", "telemetry.us.x", "payments.x", "rpc.billing.charge", "$KV.settings.x", "$JS.API.STREAM.PURGE.ORDERS",
	"$JS.ACK.ORDERS.wide.1.1.1.1.0", "$JS.FC.ORDERS.wide.x", "$SIGNET.DLQ.schema.x", "$SIGNET.API.status.get", "$SYS.REQ.SERVER.PING",
	"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ORDERS.wide", "_R_.x", "_GR_.x", "$SRV.PING", "undeclared.x", "_INBOX.x.$FI",
}

// deputy tries one way of making the server write to each forbidden subject, and
// watches the whole account.
func deputy(t *testing.T, b interface {
	Inside(string) (*nats.Conn, error)
}, tap *tap, attack func(target string),
) {
	t.Helper()
	for _, target := range forbidden {
		attack(target)
		for _, m := range tap.seen(t) {
			if m.Subject == target || strings.Contains(m.Subject, ".us.") {
				t.Errorf("%s was written to: %.80q", m.Subject, m.Data)
			}
		}
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; n != 1 {
		t.Errorf("the stream has %d events, want 1", n)
	}
}

// TestRow16DeputyPubAck: the acknowledgement of a publish does not go to a subject
// of the publisher's choice.
func TestRow16DeputyPubAck(t *testing.T) {
	b := newBroker(t)
	narrow := connect(t, b, "narrow")
	narrow.publish(t, "orders.eu.x", "one")
	deputy(t, b, newTap(t, b, "shop", ">"), func(target string) {
		check(t, narrow.PublishRequest("orders.eu.x", target, []byte("x")))
		narrow.refused(t, wire.CodeReplyDenied)
	})
}

// TestRow16DeputyDirectGet: nor does the answer to a read.
func TestRow16DeputyDirectGet(t *testing.T) {
	b := newBroker(t)
	narrow := connect(t, b, "narrow")
	narrow.publish(t, "orders.eu.x", "one")
	deputy(t, b, newTap(t, b, "shop", ">"), func(target string) {
		for _, s := range []string{
			"$JS.API.DIRECT.GET.ORDERS.orders.eu.x", "$JS.API.STREAM.INFO.ORDERS", "$JS.API.INFO", "$SYS.REQ.USER.INFO",
			"$JS.API.CONSUMER.INFO.ORDERS.none", "$SIGNET.API.keys.ring",
		} {
			check(t, narrow.PublishRequest(s, target, nil))
		}
		check(t, narrow.PublishRequest("$JS.API.STREAM.MSG.GET.ORDERS", target, []byte(`{"last_by_subj":"orders.eu.x"}`)))
		narrow.refused(t, wire.CodeReplyDenied)
	})
}

// TestRow16DeputyPullNext: nor do the events of a pull, or those that an ack asks
// for, or the confirmation of an ack.
func TestRow16DeputyPullNext(t *testing.T) {
	b := newBroker(t)
	narrow := connect(t, b, "narrow")
	narrow.publish(t, "orders.eu.x", "one")
	c := must(narrow.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "own", FilterSubject: "orders.eu.>", AckPolicy: jetstream.AckExplicitPolicy}))(t)
	m := must(c.Next(jetstream.FetchMaxWait(patience)))(t)
	check(t, m.Nak())
	deputy(t, b, newTap(t, b, "shop", ">"), func(target string) {
		check(t, narrow.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.ORDERS.own", target, []byte(`{"batch":1,"no_wait":true}`)))
		check(t, narrow.PublishRequest(m.Reply(), target, []byte("+NXT")))
		check(t, narrow.PublishRequest(m.Reply(), target, []byte("+WPI")))
		narrow.refused(t, wire.CodeReplyDenied)
	})
}

// TestRow16DeputyPushDeliver: nor does a push consumer deliver there.
func TestRow16DeputyPushDeliver(t *testing.T) {
	b := newBroker(t)
	narrow := connect(t, b, "narrow")
	narrow.publish(t, "orders.eu.x", "one")
	n := 0
	deputy(t, b, newTap(t, b, "shop", ">"), func(target string) {
		n++
		name := fmt.Sprintf("p%d", n)
		narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS."+name+".orders.eu.>", consumerRequest("ORDERS", map[string]any{
			"name": name, "filter_subject": "orders.eu.>", "deliver_subject": target, "ack_policy": "none",
		}), wire.CodeReplyDenied)
	})
	for _, target := range []string{"_INBOX.>", "_INBOX.*.x", "_INBOX.x.>", "_INBOX.", "_INBOX"} {
		narrow.denied(t, "$JS.API.CONSUMER.CREATE.ORDERS.w.orders.eu.>", consumerRequest("ORDERS", map[string]any{
			"name": "w", "filter_subject": "orders.eu.>", "deliver_subject": target,
		}), wire.CodeReplyDenied)
	}
	// Another session's inbox becomes one of the own session's, so it reaches nobody.
	victim := connect(t, b, "wide")
	sub := must(victim.SubscribeSync(nats.NewInbox()))(t)
	check(t, victim.Flush())
	p, _ := narrow.ask(t, "$JS.API.CONSUMER.CREATE.ORDERS.v.orders.eu.>", consumerRequest("ORDERS", map[string]any{
		"name": "v", "filter_subject": "orders.eu.>", "deliver_subject": sub.Subject,
	}))
	if p != nil {
		t.Fatalf("%+v", p)
	}
	narrow.publish(t, "orders.eu.x", "two")
	check(t, victim.Flush())
	if got, _, _ := sub.Pending(); got > 0 {
		t.Error("a push consumer delivered into another's inbox")
	}
}

// TestRow09AckForging: an ack counts from the owner of the consumer only, in each
// form that the server understands.
func TestRow09AckForging(t *testing.T) {
	b := newBroker(t)
	wide, narrow := connect(t, b, "wide"), connect(t, b, "narrow")
	narrow.publish(t, "orders.eu.x", "one")
	c := must(wide.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "wide", AckPolicy: jetstream.AckExplicitPolicy}))(t)
	m := must(c.Next(jetstream.FetchMaxWait(patience)))(t)
	rest := strings.TrimPrefix(m.Reply(), "$JS.ACK.ORDERS.wide.") // the 9-token form
	if rest == m.Reply() || strings.Count(rest, ".") != 4 {
		t.Fatalf("ack subject %q", m.Reply())
	}
	// The hash of the account's name stands in the long form.
	hash := accountHash("shop")
	forms := []string{m.Reply(), "$JS.ACK.ORDERS.wide.1.1.1.0.0"}
	for _, domain := range []string{"_", "hub", "shop"} {
		for _, h := range []string{hash, "_", "shop", accountHash("mill")} {
			long := "$JS.ACK." + domain + "." + h + ".ORDERS.wide." + rest
			for _, tail := range []string{"", ".x", ".x.y", ".x.y.z"} { // 11 to 14 tokens
				forms = append(forms, long+tail)
			}
		}
	}
	// Ten tokens are no ack at all.
	forms = append(forms, m.Reply()+".x", "$JS.ACK.ORDERS.wide", "$JS.ACK.>", "$JS.ACK.ORDERS.*.1.1.1.0.0", "$JS.FC.ORDERS.wide.x", "$JS.FC._."+hash+".ORDERS.wide.x")
	acks := newTap(t, b, "shop", "$JS.ACK.>")
	flow := newTap(t, b, "shop", "$JS.FC.>")
	for _, subject := range forms {
		for _, body := range []string{"+ACK", "", "-NAK", "+WPI", "+TERM", "+NXT", "+TERM because", `-NAK {"delay":1}`} {
			if strings.Contains(subject, "$JS.FC") && body != "" {
				continue
			}
			if body == "+NXT" { // answered by a status
				check(t, narrow.Publish(subject, []byte(body)))
				continue
			}
			narrow.denied(t, subject, body, wire.CodeConsumerNotOwned, wire.CodeSubjectMalformed, wire.CodeNotFound)
		}
	}
	check(t, narrow.Flush())
	acks.nothing(t, "a forged ack")
	flow.nothing(t, "a forged flow control")
	if info := must(c.Info(within(t)))(t); info.NumAckPending != 1 {
		t.Errorf("%d acks pending, want 1", info.NumAckPending)
	}
	check(t, m.DoubleAck(within(t)))
	// Another tenant has a consumer of the same names; its hash is its own.
	miller := connect(t, b, "miller")
	must(miller.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "wide"}))(t)
	miller.denied(t, "$JS.ACK._."+hash+".ORDERS.wide."+rest, "+ACK", wire.CodeConsumerNotOwned)
}

// TestRow10RollupWipe: no event wipes a stream, no key wipes a bucket.
func TestRow10RollupWipe(t *testing.T) {
	b := newBroker(t)
	writer := connect(t, b, "writer")
	for i := range 5 {
		writer.publish(t, "orders.eu.x", fmt.Sprint(i))
	}
	for _, name := range []string{"Nats-Rollup", "nats-rollup", "NATS-ROLLUP"} {
		for _, v := range []string{"all", "sub"} {
			msg := nats.NewMsg("orders.eu.x")
			msg.Header[name] = []string{v}
			refusedHeader(t, writer, msg)
		}
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; n != 5 {
		t.Errorf("%d events are left of 5", n)
	}
	keeper := connect(t, b, "keeper")
	kv := must(keeper.js(t).KeyValue(within(t), "secrets"))(t)
	for i := range 5 {
		must(kv.Put(within(t), fmt.Sprintf("k%d", i), []byte("v")))(t)
	}
	for _, v := range []string{"all", "ALL", "all ", "sub,all"} {
		msg := nats.NewMsg("$KV.secrets.k0")
		msg.Header.Set("Nats-Rollup", v)
		refusedHeader(t, keeper, msg)
	}
	// Neither by two headers, nor by a bare line feed that one parser reads and the
	// other does not.
	keeperRaw, _ := rawTLS(t, b, b.Cred("keeper"))
	for _, block := range []string{
		"NATS/1.0\r\nNats-Rollup: sub\r\nNats-Rollup: all\r\n\r\n",
		"NATS/1.0\r\nNats-Rollup: sub\nNats-Rollup: all\r\n\r\n",
		"NATS/1.0\r\nx: y\nNats-Rollup: all\r\n\r\n",
	} {
		keeperRaw.send(fmt.Sprintf("HPUB $KV.secrets.k0 %d %d\r\n%sv\r\n", len(block), len(block)+1, block))
	}
	keeperRaw.send("PING\r\n")
	for range 3 {
		if l := keeperRaw.line(); !strings.HasPrefix(l, "-ERR 'Permissions Violation") {
			t.Errorf("answer %q", l)
		}
	}
	if keys := must(kv.Keys(within(t)))(t); len(keys) != 5 {
		t.Errorf("keys left: %v", keys)
	}
	if n := streamOf(t, b, "shop", "KV_secrets").State.Messages; n != 5 {
		t.Errorf("%d revisions are left of 5", n)
	}
}

func refusedHeader(t *testing.T, p *peer, msg *nats.Msg) {
	t.Helper()
	m := must(p.RequestMsg(msg, patience))(t)
	if !strings.Contains(string(m.Data), `"class":"permission-denied"`) && !strings.Contains(string(m.Data), `"class":"malformed"`) {
		t.Errorf("headers %v: answer %.200q", msg.Header, m.Data)
	}
}

// TestRow11DedupPoisoning: nobody spends the identifiers of another.
func TestRow11DedupPoisoning(t *testing.T) {
	b := newBroker(t)
	victim, thief := connect(t, b, "writer"), connect(t, b, "narrow")
	thieves := func(h nats.Header) *nats.Msg {
		msg := nats.NewMsg("orders.eu.x")
		msg.Header = h
		return msg
	}
	// What the victim's event will be stored under.
	first := nats.NewMsg("orders.eu.x")
	first.Header.Set(nats.MsgIdHdr, "probe")
	must(victim.js(t).PublishMsg(within(t), first))(t)
	stored := must(must(insideJS(t, b, "shop").Stream(within(t), "ORDERS"))(t).GetMsg(within(t), 1))(t)
	derived := stored.Header.Get(nats.MsgIdHdr)
	if derived == "" || derived == "probe" {
		t.Fatalf("the stored id is %q", derived)
	}
	before := streamOf(t, b, "shop", "ORDERS").State.Messages
	for _, h := range []nats.Header{
		{nats.MsgIdHdr: {"order-1"}}, {nats.MsgIdHdr: {derived}}, {"ce-id": {"order-1"}, "ce-source": {"/shop/narrow"}, "ce-type": {"t"}, "ce-specversion": {"1.0"}},
	} {
		must(thief.js(t).PublishMsg(within(t), thieves(h)))(t)
	}
	// The third is the thief's own first again. The victim's source is the victim's.
	refusedHeader(t, thief, thieves(nats.Header{"ce-id": {"order-1"}, "ce-source": {"/shop/writer"}, "ce-type": {"t"}, "ce-specversion": {"1.0"}}))
	msg := nats.NewMsg("orders.eu.x")
	msg.Header.Set(nats.MsgIdHdr, "order-1")
	ack := must(victim.js(t).PublishMsg(within(t), msg))(t)
	if ack.Duplicate || ack.Sequence != before+3 {
		t.Errorf("the victim's event: %+v", ack)
	}
	if ack := must(victim.js(t).PublishMsg(within(t), msg))(t); !ack.Duplicate {
		t.Errorf("its own repetition: %+v", ack)
	}
}

// TestRow12ControlHeaders: headers that make the server schedule, trace, expire,
// batch or republish are refused on events, in any case of letters.
func TestRow12ControlHeaders(t *testing.T) {
	b := newBroker(t)
	narrow := connect(t, b, "narrow")
	all := newTap(t, b, "shop", ">")
	for name, value := range map[string]string{
		"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": "orders.us.victim", "Nats-Schedule-TTL": "1s",
		"Nats-Trace-Only": "true", "Nats-Trace-Dest": "orders.us.victim", "Nats-Trace-Hop": "1", "Nats-Trace-Origin-Account": "mill",
		"Nats-TTL": "1s", "Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1", "Nats-Incr": "+1",
		"Nats-Marker-Reason": "MaxAge", "Nats-Expected-Stream": "OTHER", "Nats-Expected-Last-Sequence": "7", "Nats-Stream-Source": "x",
		"Nats-Required-Api-Level": "99", "Nats-Request-Info": `{"acc":"mill"}`, "Nats-Rollup": "sub", "Nats-Pending-Messages": "1",
		"Nats-Stream": "x", "Nats-Subject": "orders.us.victim", "Nats-Sequence": "1", "Nats-Time-Stamp": "x", "Nats-Msg-Size": "1",
		"Signet-Principal": "shop/root", "Signet-Dlq-Reason": "schema", "Accept-Encoding": "",
	} {
		if value == "" {
			continue
		}
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			msg := nats.NewMsg("orders.eu.x")
			msg.Header[spelling] = []string{value}
			refusedHeader(t, narrow, msg)
		}
	}
	// The traceparent of W3C triggers no trace of the server's by itself.
	msg := nats.NewMsg("orders.eu.x")
	msg.Header["traceparent"] = []string{"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	must(narrow.js(t).PublishMsg(within(t), msg))(t)
	for _, m := range all.seen(t) {
		if strings.Contains(m.Subject, "victim") {
			t.Errorf("%s was written", m.Subject)
		}
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; n != 1 {
		t.Errorf("%d events stored, want 1", n)
	}
}

// TestSpoofedCallerHeaders: a service learns who calls from the broker alone.
func TestSpoofedCallerHeaders(t *testing.T) {
	b := newBroker(t)
	service, caller := connect(t, b, "service"), connect(t, b, "caller")
	got := make(chan nats.Header, 8)
	must(service.Subscribe("rpc.billing.charge", func(m *nats.Msg) {
		got <- m.Header
		_ = m.Respond([]byte("charged"))
	}))(t)
	check(t, service.Flush())
	for _, h := range []nats.Header{
		{wire.HeaderPrincipal: {"shop/root"}},
		{"signet-principal": {"shop/root"}},
		{"SIGNET-PRINCIPAL": {"shop/root"}},
		{"Nats-Request-Info": {`{"acc":"shop","user":"root"}`}},
		{"nats-request-info": {"x"}},
		{"Nats-Trace-Dest": {"x"}},
	} {
		msg := nats.NewMsg("rpc.billing.charge")
		msg.Header = h
		refusedHeader(t, caller, msg)
	}
	msg := nats.NewMsg("rpc.billing.charge")
	msg.Header.Set("x-mine", "1")
	if m := must(caller.RequestMsg(msg, patience))(t); string(m.Data) != "charged" {
		t.Fatalf("%q", m.Data)
	}
	h := <-got
	if v := h.Values(wire.HeaderPrincipal); len(v) != 1 || v[0] != "shop/caller" {
		t.Errorf("the service saw %v", h)
	}
	if len(got) > 0 {
		t.Error("a refused call reached the service")
	}
	// The answer carries no claims either: a service cannot pose as the broker.
	bad := must(service.Subscribe("rpc.billing.forge", func(m *nats.Msg) {
		r := nats.NewMsg(m.Reply)
		r.Header.Set(wire.HeaderPrincipal, "shop/root")
		_ = m.RespondMsg(r)
		_ = m.Respond([]byte("plain"))
	}))(t)
	check(t, service.Flush())
	m := must(caller.Request("rpc.billing.forge", nil, patience))(t)
	if string(m.Data) != "plain" || m.Header.Get(wire.HeaderPrincipal) != "" {
		t.Errorf("answer %v %q", m.Header, m.Data)
	}
	_ = bad.Unsubscribe()
}

// TestRow07SystemSubjects: nobody publishes on, or asks, what is the system's; and
// an advisory that a client sends is nothing.
func TestRow07SystemSubjects(t *testing.T) {
	b := newBroker(t)
	names := []string{"wide", "narrow", "root", "caller", "service"}
	all := newTap(t, b, "shop", ">")
	for _, who := range names {
		p := connect(t, b, who)
		for _, s := range []string{
			"$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.SERVER.PING.VARZ", "$SYS.ACCOUNT.shop.CONNECT", "$SYS.SERVER.x.SHUTDOWN",
			"$SYS.REQ.CLAIMS.UPDATE", "$SYS.REQ.SERVER.x.RELOAD", "$SYS.REQ.ACCOUNT.shop.INFO", "$SYS._INBOX.x", "$SYS.DEBUG.SUBSCRIBERS",
			"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ORDERS.c", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.ORDERS.c", "$JS.EVENT.METRIC.CONSUMER.ACK.ORDERS.c",
			"$JS.hub.API.INFO", "$JS.API.META.LEADER.STEPDOWN", "$JS.API.SERVER.REMOVE", "$JS.API.ACCOUNT.PURGE.shop", "$JS.API.STREAM.CREATE.X",
			"$JS.API.STREAM.UPDATE.ORDERS", "$JS.API.STREAM.DELETE.ORDERS", "$JS.API.STREAM.PURGE.ORDERS", "$JS.API.STREAM.RESTORE.X",
			"$JS.API.STREAM.PEER.REMOVE.ORDERS", "$JS.API.STREAM.LEADER.STEPDOWN.ORDERS", "$JS.API.CONSUMER.LEADER.STEPDOWN.ORDERS.c",
			"$JS.API.ACCOUNT.STREAM.MOVE.shop.ORDERS", "$JS.API.STREAM.MSG.DELETE.ORDERS", "$JS.API.CONSUMER.PAUSE.ORDERS.c", "$JS.API.CONSUMER.LIST.ORDERS",
			"$JS.SNAPSHOT.ACK.x.y", "$JS.M.x", "$JS.S.x", "$JSC.CI.x", "$NRG.x", "$GR.x", "_GR_.x", "$MQTT.x", "$LDS.x", "$NR.x", "$JS.API.NONE", "$JS.API.", "$JS.x", "$x", "$",
		} {
			problem, m := p.ask(t, s, `{"seq":1,"name":"X"}`)
			if problem == nil {
				t.Errorf("%s: %s was not refused: %.100q", who, s, m.Data)
			}
		}
	}
	for _, m := range all.seen(t) {
		if strings.HasPrefix(m.Subject, "$") {
			t.Errorf("%s reached the server: %.80q", m.Subject, m.Data)
		}
	}
}

// TestRow19SpoofedAdvisory: an advisory of a client makes no dead letter.
func TestRow19SpoofedAdvisory(t *testing.T) {
	b := newBroker(t)
	wide := connect(t, b, "wide")
	wide.publish(t, "orders.eu.x", "one")
	c := must(wide.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{Durable: "wide", MaxDeliver: 1, AckPolicy: jetstream.AckExplicitPolicy}))(t)
	must(c.Next(jetstream.FetchMaxWait(patience)))(t)
	body := `{"type":"io.nats.jetstream.advisory.v1.max_deliver","stream":"ORDERS","consumer":"wide","stream_seq":1,"deliveries":99}`
	for _, s := range []string{
		"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ORDERS.wide", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.ORDERS.wide", "$SIGNET.DLQ.delivery.wide",
	} {
		wide.denied(t, s, body, wire.CodePublishDenied, wire.CodeAPIDenied, wire.CodeSubjectUnknown)
	}
	// A schema refusal afterwards is the first and only dead letter: the queue is in order.
	writer := connect(t, b, "writer")
	if _, err := writer.js(t).Publish(within(t), "orders.checked", []byte(`{}`)); err == nil {
		t.Fatal("the schema did not refuse")
	}
	deadLetters(t, b, "shop", 1)
}

// TestForgedAttestation: what the broker states cannot be stated by a client.
func TestForgedAttestation(t *testing.T) {
	b := newBroker(t)
	writer := connect(t, b, "writer")
	for _, name := range []string{"ce-attestation", "ce-authid", "ce-authtype", "ce-recordedtime", "ce-natssubject", "ce-dssematerial", "Ce-attestation", "CE-AUTHID"} {
		msg := nats.NewMsg("orders.eu.x")
		msg.Header[name] = []string{"x"}
		m := must(writer.RequestMsg(msg, patience))(t)
		if !strings.Contains(string(m.Data), `"problem"`) {
			t.Errorf("%s was let in: %s", name, m.Data)
		}
	}
	msg := nats.NewMsg("orders.eu.x")
	msg.Header.Set("content-type", "application/cloudevents+json")
	msg.Data = []byte(`{"specversion":"1.0","id":"1","source":"/shop/writer","type":"t","authid":"shop/root","data":1}`)
	m := must(writer.RequestMsg(msg, patience))(t)
	if !strings.Contains(string(m.Data), `"class":"bad-signature"`) {
		t.Errorf("structured: %s", m.Data)
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; n != 0 {
		t.Errorf("%d events stored", n)
	}
}
