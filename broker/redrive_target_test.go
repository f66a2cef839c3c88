package broker_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/wire"
)

// TestRedriveToWhoDoesNotRead: an event does not go into a queue that nobody reads, or that
// is for other subjects; its letter stays.
func TestRedriveToWhoDoesNotRead(t *testing.T) {
	b := redriveBroker(t)
	api := admin.New(b.Client("root"))
	seq := publishOrders(t, b, 1)[0]
	sub, err := b.Client("payer").Subscribe(within(t), "orders.eu.>", func(context.Context, *client.Delivery) error {
		return client.Permanent(errors.New("cannot"))
	}, client.InStream("ORDERS"))
	check(t, err)
	t.Cleanup(sub.Stop)
	eventually(t, "the dead letter", func() bool { return lettersLeft(t, api) == 1 })
	list, err := api.DLQList(within(t), admin.DLQQuery{})
	check(t, err)
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: list.Entries[0].Seq}); v.Verdict != admin.VerdictUnsupported || !strings.Contains(v.Detail, "--to all") {
		t.Errorf("to a subscription without a durable: %+v", v)
	}

	wide, err := b.Client("wide").Subscribe(within(t), "orders.eu.>", (&readers{}).handle, client.Durable("ledger"), client.InStream("ORDERS"))
	check(t, err)
	t.Cleanup(wide.Stop)
	n := failedLetter(t, b, "ORDERS", seq, "ledger", "shop/wide", func(r *dlq.Record, _ nats.Header) { r.NATSSubject = "orders.us.x" })
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n}); v.Verdict != admin.VerdictGone || !strings.Contains(v.Detail, "orders.us.x") {
		t.Errorf("to a consumer of other subjects: %+v", v)
	}
	if left := lettersLeft(t, api); left != 2 {
		t.Errorf("%d letters, want 2", left)
	}
	if st := streamOf(t, b, "shop", wire.StreamRetry).State; st.Messages != 0 || st.Consumers != 0 {
		t.Errorf("the retry queues: %+v", st)
	}
}

// TestRedriveStopsAtALimit: when the limit of the sender is spent, a run stops at the letter
// that it has come to, and goes on from there.
func TestRedriveStopsAtALimit(t *testing.T) {
	b := redriveBroker(t)
	api := admin.New(b.Client("root"))
	writer := b.Client("writer")
	for range 4 {
		if _, err := writer.Publish(within(t), "orders.checked", client.NewEvent("t", []byte(`{"id":"x"}`))); err == nil {
			t.Fatal("let in")
		}
	}
	deadLetters(t, b, "shop", 4)
	open := edit(t, redrivePolicy, `"id":{"type":"integer"}`, `"id":{}`)
	limited := edit(t, open, "limits:\n", "limits:\n  tiny: {messages: 2/h, burst: 1h}\n")
	reload(t, b, edit(t, limited, "publish: [orders.>, payments.>, telemetry.>], kv", "limit: tiny, publish: [orders.>, payments.>, telemetry.>], kv"))
	q := admin.RedriveRequest{DLQFilter: admin.DLQFilter{Reason: "schema"}, To: admin.RedriveAll}
	page, err := admin.DLQOf(api).Redrive(within(t), q)
	check(t, err)
	if len(page.Letters) != 3 || page.Letters[2].Verdict != admin.VerdictFull || page.Letters[2].Rule != "limit tiny" || page.Cursor != 2 || !page.More || !strings.Contains(page.Stopped, "limit") {
		t.Fatalf("%+v", page)
	}
	reload(t, b, open)
	q.DLQ, q.Cursor, q.UpTo = page.DLQ, page.Cursor, page.UpTo
	page, err = admin.DLQOf(api).Redrive(within(t), q)
	check(t, err)
	if len(page.Letters) != 2 || page.More || page.Stopped != "" || lettersLeft(t, api) != 0 {
		t.Errorf("%+v", page)
	}
}

// TestRedriveThatEndedAndWasRead: a redrive to all into a work queue ended before its letter
// was taken away, the event was read, and the broker started anew, so that nothing tells any
// more whether it arrived: it is not published twice without being told to.
func TestRedriveThatEndedAndWasRead(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: failPolicy, Change: quickDrain})
	js := insideJS(t, b, "shop")
	r, err := b.Client("writer").Publish(within(t), "work.a", client.NewEvent("t", []byte("{}")))
	check(t, err)
	n := failedLetter(t, b, "WORK", r.Sequence, "w", "shop/worker")
	c := must(js.CreateConsumer(within(t), "WORK", jetstream.ConsumerConfig{Durable: "w", AckPolicy: jetstream.AckExplicitPolicy}))(t)
	check(t, pulled(t, c).DoubleAck(within(t)))
	letter := must(must(js.Stream(within(t), "DLQ"))(t).GetMsg(within(t), n))(t)
	must(js.PublishMsg(within(t), &nats.Msg{Subject: wire.PrefixRedrive + strconv.FormatUint(n, 10), Data: fmt.Appendf(nil,
		`{"letter":%d,"count":1,"to":"all","by":"shop/gone","boot":"another","time":%q,"before":0}`, n, time.Now().UTC().Format(time.RFC3339Nano))}))(t)
	id := fmt.Sprintf("redrive:%d:%s:1", n, strconv.FormatInt(letter.Time.UnixNano(), 36))
	again := must(js.PublishMsg(within(t), &nats.Msg{Subject: "work.a", Header: nats.Header{wire.HeaderMsgID: {id}}}))(t)
	check(t, pulled(t, c).DoubleAck(within(t)))
	check(t, b.Shutdown(within(t)))

	b = brokertest.New(t, brokertest.Options{Policy: failPolicy, Change: quickDrain, Dir: b.State.Dir})
	api := admin.New(b.Client("root"))
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n, To: admin.RedriveAll}); v.Verdict != admin.VerdictUncertain {
		t.Errorf("it was stored as %d, read, and then: %+v", again.Sequence, v)
	}
	if st := streamOf(t, b, "shop", "WORK").State; st.LastSeq != again.Sequence {
		t.Errorf("it was published again: %+v", st)
	}
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n, To: admin.RedriveAll, Force: true}); v.Verdict != admin.VerdictRedriven || lettersLeft(t, api) != 0 {
		t.Errorf("forced: %+v", v)
	}
}
