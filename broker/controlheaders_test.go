package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
)

// rights are the control headers that can be granted, and the words of a policy.
var rights = []string{
	"Nats-Expected-Stream", "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Msg-Id", "Nats-Expected-Last-Subject-Sequence",
	"Nats-Expected-Last-Subject-Sequence-Subject", "Nats-TTL", "Nats-Rollup", "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit",
	"Nats-Schedule", "Nats-Schedule-Target", "Nats-Schedule-TTL",
}

// never are the other names that begin with Nats- in the source of nats-server 2.15.2.
var never = strings.Fields(`Nats-Consumer-Stalled Nats-Counter-Sources Nats-Incr Nats-Last-Consumer Nats-Last-Sequence
Nats-Last-Stream Nats-Marker-Reason Nats-Msg-Size Nats-No-Masking Nats-Num-Pending Nats-Pending-Bytes Nats-Pending-Messages
Nats-Pin-Id Nats-Request-Info Nats-Required-Api-Level Nats-Response-Type Nats-Schedule-Next Nats-Schedule-Rollup
Nats-Schedule-Source Nats-Schedule-Time-Zone Nats-Scheduler Nats-Sequence Nats-Server-Xkey Nats-Stream Nats-Stream-Identity
Nats-Stream-Source Nats-Subject Nats-Time-Stamp Nats-Trace-Dest Nats-Trace-Hop Nats-Trace-Only Nats-Trace-Origin-Account
Nats-UpTo-Sequence Nats-Fast-Batch Nats-Future`)

const controlPolicy = `tenant: shop
streams:
  - {name: CTRL, subjects: [ctrl.>], maxBytes: 8MiB, messageTTL: true, atomicBatches: true, fastBatches: true, unsafeRollup: true, unsafeSchedules: true}
  - {name: PLAIN, subjects: [plain.>], maxBytes: 8MiB}
schemas:
  - {name: order, version: 1, text: '{"type":"object","required":["id"]}'}
subjects:
  - {match: ctrl.due.checked, schema: order}
roles:
  all: {headers: [%s, Nats-Fast-Batch]}
principals:
  - {name: able, identities: [{nkey: '{{nkey "able"}}'}], roles: [all], publish: [ctrl.>, plain.>], subscribe: [ctrl.>]}
  - {name: narrow, identities: [{nkey: '{{nkey "narrow"}}'}], roles: [all], publish: [ctrl.plan.>, ctrl.due.a]}
  - {name: unable, identities: [{nkey: '{{nkey "unable"}}'}], publish: [ctrl.>, plain.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [keys, status]}
`

func newControlBroker(t *testing.T) *brokertest.Broker {
	return newBroker(t, func(o *brokertest.Options) { o.Policy = fmt.Sprintf(controlPolicy, strings.Join(rights, ", ")) })
}

// answerOf is what comes back on the reply subject of a publish.
type answerOf struct {
	jetstream.PubAck
	Batch string `json:"batch"`
	Count int    `json:"count"`
	Error *struct {
		Code    uint16 `json:"err_code"`
		Message string `json:"description"`
	} `json:"error"`
}

func (a *answerOf) code() int {
	if a.Error == nil {
		return 0
	}
	return int(a.Error.Code)
}

// send publishes with headers, in pairs, and waits for the answer.
func (p *peer) send(t testing.TB, subject, data string, pairs ...string) *answerOf {
	t.Helper()
	m := nats.NewMsg(subject)
	m.Data = []byte(data)
	for i := 0; i < len(pairs); i += 2 {
		m.Header[pairs[i]] = []string{pairs[i+1]} // byte for byte
	}
	var out answerOf
	check(t, json.Unmarshal(must(p.RequestMsg(m, patience))(t).Data, &out))
	return &out
}

// TestControlHeadersAreRights: a header that makes the server do something is refused
// without the right by its name, and with all rights if it is none.
func TestControlHeadersAreRights(t *testing.T) {
	b := newControlBroker(t)
	able, unable := connect(t, b, "able"), connect(t, b, "unable")
	value := map[string]string{"Nats-Schedule": "@at 2100-01-01T00:00:00Z", "Nats-Schedule-Target": "ctrl.due.a", "Nats-TTL": "1h", "Nats-Schedule-TTL": "1h", "Nats-Rollup": "sub"}
	for _, name := range rights {
		v := value[name]
		if v == "" {
			v = "1"
		}
		if a := unable.send(t, "ctrl.x", "x", name, v); a.code() != int(wire.CodeHeaderDenied) {
			t.Errorf("%s without the right: %+v %+v", name, a, a.Error)
		}
		if a := able.send(t, "ctrl.x", "x", strings.ToLower(name), v); a.code() != int(wire.CodeHeaderDenied) {
			t.Errorf("%s in lower case: %+v %+v", name, a, a.Error)
		}
	}
	for _, name := range never {
		for _, subject := range []string{"ctrl.x", "plain.x"} {
			if a := able.send(t, subject, "x", name, "1"); a.code() != int(wire.CodeHeaderDenied) {
				t.Errorf("%s on %s: %+v %+v", name, subject, a, a.Error)
			}
		}
	}
	info := must(able.js(t).Stream(within(t), "CTRL"))(t).CachedInfo()
	if info.State.Msgs != 0 {
		t.Errorf("%d of what was refused is stored", info.State.Msgs)
	}
	t.Logf("%d rights, %d names that are none", len(rights), len(never))
}

// TestControlHeadersAct: with its right, each header does at the server what it is for.
func TestControlHeadersAct(t *testing.T) {
	b := newControlBroker(t)
	p := connect(t, b, "able")
	ctx := within(t)
	stream := must(p.js(t).Stream(ctx, "CTRL"))(t)
	const wrongLast, wrongStream, wrongMsgID = 10071, 10060, 10070
	first := p.send(t, "ctrl.a", "1")
	seq := fmt.Sprint(first.Sequence)
	for _, tt := range []struct {
		name  string
		pairs []string
		want  int
	}{
		{"stream", []string{"Nats-Expected-Stream", "PLAIN"}, wrongStream},
		{"stream as expected", []string{"Nats-Expected-Stream", "CTRL"}, 0},
		{"last sequence", []string{"Nats-Expected-Last-Sequence", "77"}, wrongLast},
		{"last sequence of the subject", []string{"Nats-Expected-Last-Subject-Sequence", "77"}, wrongLast},
		{"of another subject", []string{"Nats-Expected-Last-Subject-Sequence", "77", "Nats-Expected-Last-Subject-Sequence-Subject", "ctrl.a"}, wrongLast},
		{"of another subject as expected", []string{"Nats-Expected-Last-Subject-Sequence", seq, "Nats-Expected-Last-Subject-Sequence-Subject", "ctrl.a"}, 0},
		{"last message", []string{"Nats-Expected-Last-Msg-Id", "x"}, wrongMsgID},
	} {
		if a := p.send(t, "ctrl.b", "x", tt.pairs...); a.code() != tt.want {
			t.Errorf("%s: %+v, want %d", tt.name, a.Error, tt.want)
		}
	}

	t.Run("ttl", func(t *testing.T) {
		a := p.send(t, "ctrl.ttl", "x", "Nats-TTL", "1s")
		if a.code() != 0 {
			t.Fatalf("%+v", a.Error)
		}
		eventually(t, "the event goes", func() bool {
			_, err := stream.GetMsg(ctx, a.Sequence)
			return err != nil
		})
	})
	t.Run("rollup", func(t *testing.T) {
		old := p.send(t, "ctrl.roll", "1")
		if a := p.send(t, "ctrl.roll", "2", "Nats-Rollup", "sub"); a.code() != 0 {
			t.Fatalf("%+v", a.Error)
		}
		eventually(t, "the old event is replaced", func() bool {
			_, err := stream.GetMsg(ctx, old.Sequence)
			return err != nil
		})
	})
	t.Run("atomic batch", func(t *testing.T) {
		before := must(stream.Info(ctx))(t).State.Msgs
		m := nats.NewMsg("ctrl.batch")
		m.Header["Nats-Batch-Id"], m.Header["Nats-Batch-Sequence"] = []string{"b1"}, []string{"1"}
		check(t, p.PublishMsg(m))
		check(t, p.Flush())
		if n := must(stream.Info(ctx))(t).State.Msgs; n != before {
			t.Errorf("half of a batch is stored")
		}
		a := p.send(t, "ctrl.batch", "x", "Nats-Batch-Id", "b1", "Nats-Batch-Sequence", "2", "Nats-Batch-Commit", "1")
		if a.code() != 0 || a.Batch != "b1" || a.Count != 2 {
			t.Errorf("%+v %+v", a, a.Error)
		}
		if n := must(stream.Info(ctx))(t).State.Msgs; n != before+2 {
			t.Errorf("%d events more, want 2", n-before)
		}
		m = nats.NewMsg("ctrl.batch")
		m.Header["Nats-Batch-Id"], m.Header["Nats-Batch-Sequence"], m.Header["Signet-Ack"] = []string{"b2"}, []string{"1"}, []string{"signed"}
		var refused answerOf
		check(t, json.Unmarshal(must(p.RequestMsg(m, patience))(t).Data, &refused))
		if refused.code() != int(wire.CodeHeaderDenied) {
			t.Errorf("a signed acknowledgement in a batch: %+v", refused.Error)
		}
	})
	t.Run("fast batch", func(t *testing.T) {
		unable, narrow := connect(t, b, "unable"), connect(t, b, "narrow")
		for who, c := range map[string]*peer{"unable": unable, "narrow on another stream": p} {
			subject := "ctrl.fast"
			if c == p {
				subject = "plain.fast"
			}
			inbox := nats.NewInbox()
			sub := must(c.SubscribeSync(inbox + ".>"))(t)
			check(t, c.PublishRequest(subject, inbox+".uuid.16.fail.1.0.$FI", []byte("x")))
			var a answerOf
			check(t, json.Unmarshal(must(sub.NextMsg(patience))(t).Data, &a))
			if a.code() != int(wire.CodeReplyDenied) {
				t.Errorf("%s: %+v", who, a.Error)
			}
		}
		_ = narrow
		inbox := nats.NewInbox()
		sub := must(p.SubscribeSync(inbox + ".>"))(t)
		before := must(stream.Info(ctx))(t).State.Msgs
		check(t, p.PublishRequest("ctrl.fast", inbox+".uuid.16.fail.1.0.$FI", []byte("1")))
		must(sub.NextMsg(patience))(t) // how many may be in flight
		check(t, p.PublishRequest("ctrl.fast", inbox+".uuid.16.fail.2.2.$FI", []byte("2")))
		for {
			var a answerOf
			check(t, json.Unmarshal(must(sub.NextMsg(patience))(t).Data, &a))
			if a.Error != nil {
				t.Fatalf("%+v", a.Error)
			}
			if a.Stream == "" {
				continue // of the flow
			}
			if a.Count != 2 || must(stream.Info(ctx))(t).State.Msgs != before+2 {
				t.Errorf("%+v", a)
			}
			return
		}
	})
}

// TestScheduleTargetIsAPublish: a plan is judged as the publish that it will be; what
// comes of it verifies on its target, and nowhere else.
func TestScheduleTargetIsAPublish(t *testing.T) {
	b := newControlBroker(t)
	able, narrow := connect(t, b, "able"), connect(t, b, "narrow")
	soon := func() string { return "@at " + time.Now().Add(time.Second).UTC().Format(time.RFC3339) }
	for _, tt := range []struct {
		name, subject, data string
		who                 *peer
		pairs               []string
		want                wire.Code
	}{
		{"a target that is not granted", "ctrl.plan.1", "x", narrow, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "ctrl.due.b"}, wire.CodePublishDenied},
		{"a plan on a subject that is not granted", "ctrl.due.b", "x", narrow, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "ctrl.due.a"}, wire.CodePublishDenied},
		{"another stream", "ctrl.plan.1", "x", able, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "plain.x"}, wire.CodeHeaderDenied},
		{"from a stream without schedules", "plain.x", "x", able, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "plain.y"}, wire.CodeHeaderDenied},
		{"the JetStream API", "ctrl.plan.1", "x", able, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "$JS.API.STREAM.DELETE.CTRL"}, 0},
		{"a wildcard", "ctrl.plan.1", "x", able, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "ctrl.due.*"}, wire.CodeSubjectMalformed},
		{"itself", "ctrl.plan.1", "x", able, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "ctrl.plan.1"}, wire.CodeHeaderDenied},
		{"no target", "ctrl.plan.1", "x", able, []string{"Nats-Schedule", soon()}, wire.CodeHeaderDenied},
		{"no schedule", "ctrl.plan.1", "x", able, []string{"Nats-Schedule-Target", "ctrl.due.a"}, wire.CodeHeaderDenied},
		{"for ever", "ctrl.plan.1", "x", able, []string{"Nats-Schedule", "@every 1s", "Nats-Schedule-Target", "ctrl.due.a"}, wire.CodeHeaderDenied},
		{"as cron", "ctrl.plan.1", "x", able, []string{"Nats-Schedule", "* * * * * *", "Nats-Schedule-Target", "ctrl.due.a"}, wire.CodeHeaderDenied},
		{"the schema of the target", "ctrl.plan.1", "{}", able, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "ctrl.due.checked"}, wire.CodeSchemaViolation},
		{"with a receipt", "ctrl.plan.1", "x", able, []string{"Nats-Schedule", soon(), "Nats-Schedule-Target", "ctrl.due.a", "Signet-Ack", "signed"}, wire.CodeHeaderDenied},
	} {
		a := tt.who.send(t, tt.subject, tt.data, tt.pairs...)
		if a.code() == 0 || tt.want != 0 && a.code() != int(tt.want) {
			t.Errorf("%s: %+v, want %d", tt.name, a.Error, tt.want)
		}
	}
	if n := must(able.js(t).Stream(within(t), "CTRL"))(t).CachedInfo().State.Msgs; n != 0 {
		t.Fatalf("%d of what was refused is stored", n)
	}

	reader := b.Client("able")
	defer reader.Close()
	got := make(chan *client.Delivery, 1)
	sub := must(reader.Subscribe(within(t), "ctrl.due.checked", func(_ context.Context, d *client.Delivery) error {
		got <- d
		return nil
	}))(t)
	defer sub.Stop()
	a := able.send(t, "ctrl.plan.1", `{"id":1}`, "Nats-Schedule", soon(), "Nats-Schedule-Target", "ctrl.due.checked")
	if a.code() != 0 {
		t.Fatalf("%+v", a.Error)
	}
	select {
	case d := <-got:
		if d.NATSSubject != "ctrl.due.checked" || d.Principal != "shop/able" || string(d.Event.Data) != `{"id":1}` {
			t.Errorf("got %s of %s: %s", d.NATSSubject, d.Principal, d.Event.Data)
		}
	case <-within(t).Done():
		t.Fatal("what was planned does not come, or does not verify")
	}
}

// TestControlHeadersReachNoFurther: the right to a header is no right to the events of
// others on subjects that are not granted.
func TestControlHeadersReachNoFurther(t *testing.T) {
	b := newControlBroker(t)
	able, narrow := connect(t, b, "able"), connect(t, b, "narrow")
	kept := able.send(t, "ctrl.other", "x")
	for _, tt := range []struct {
		name  string
		who   *peer
		pairs []string
		want  int
	}{
		{"a rollup of all, by who may publish a part", narrow, []string{"Nats-Rollup", "all"}, int(wire.CodeHeaderDenied)},
		{"the sequence of a subject of others", narrow, []string{"Nats-Expected-Last-Subject-Sequence", "9", "Nats-Expected-Last-Subject-Sequence-Subject", "ctrl.other"}, int(wire.CodeHeaderDenied)},
		{"of all subjects", narrow, []string{"Nats-Expected-Last-Subject-Sequence", "9", "Nats-Expected-Last-Subject-Sequence-Subject", "ctrl.>"}, int(wire.CodeHeaderDenied)},
		{"of the API", narrow, []string{"Nats-Expected-Last-Subject-Sequence", "9", "Nats-Expected-Last-Subject-Sequence-Subject", "$KV.x"}, int(wire.CodeHeaderDenied)},
		{"of an own one", narrow, []string{"Nats-Expected-Last-Subject-Sequence", "0", "Nats-Expected-Last-Subject-Sequence-Subject", "ctrl.plan.9"}, 0},
		{"a rollup of one's own", narrow, []string{"Nats-Rollup", "sub"}, 0},
	} {
		if a := tt.who.send(t, "ctrl.plan.1", "x", tt.pairs...); a.code() != tt.want {
			t.Errorf("%s: %+v, want %d", tt.name, a.Error, tt.want)
		}
	}
	// Of two the server takes the first: neither order hides a target that is not granted.
	for _, targets := range [][]string{{"ctrl.due.b", "ctrl.due.a"}, {"ctrl.due.a", "ctrl.due.b"}} {
		m := nats.NewMsg("ctrl.plan.1")
		m.Header["Nats-Schedule"], m.Header["Nats-Schedule-Target"] = []string{"@at 2100-01-01T00:00:00Z"}, targets
		var a answerOf
		check(t, json.Unmarshal(must(narrow.RequestMsg(m, patience))(t).Data, &a))
		if a.code() != int(wire.CodeHeaderDuplicate) {
			t.Errorf("targets %v: %+v", targets, a.Error)
		}
	}
	stream := must(able.js(t).Stream(within(t), "CTRL"))(t)
	must(stream.GetMsg(within(t), kept.Sequence))(t)
	if a := able.send(t, "ctrl.plan.1", "x", "Nats-Rollup", "all"); a.code() != 0 {
		t.Errorf("a rollup of all, by who may publish all: %+v", a.Error)
	}
	eventually(t, "all others go", func() bool {
		_, err := stream.GetMsg(within(t), kept.Sequence)
		return err != nil
	})
}
