package broker_test

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/deadletter"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/dlq"
)

// TestFullDLQKeepsEventsPending: while the DLQ takes nothing no event is let go and
// the broker says so; when there is room each is one dead letter.
func TestFullDLQKeepsEventsPending(t *testing.T) {
	f := newFailing(t, func(o *brokertest.Options) {
		o.Policy = strings.Replace(failPolicy, "deadLetter: {maxBytes: 4MiB}", "deadLetter: {maxBytes: 64KiB}", 1)
	})
	ctx := within(t)
	const n = 6
	c := f.consumer(t, "WORK", jetstream.ConsumerConfig{Durable: "w", AckWait: 200 * time.Millisecond})
	for i := range n {
		f.publish(t, "work.a", strings.Repeat(fmt.Sprint(i), 20<<10))
	}
	work := must(f.inside.Stream(ctx, "WORK"))(t)
	left := func() uint64 { return must(work.Info(ctx))(t).State.Msgs }
	giveUp := func() {
		for m := range must(c.Fetch(n, jetstream.FetchMaxWait(100*time.Millisecond)))(t).Messages() {
			check(t, m.TermWithReason("no use"))
		}
	}
	root := admin.New(f.b.Client("root"))
	unwell := func() string {
		for _, h := range must(root.Status(ctx))(t).Health {
			if h.Part == "dead letters" && !h.OK {
				return h.Detail
			}
		}
		return ""
	}
	eventually(t, "the DLQ is full", func() bool {
		giveUp()
		return unwell() != ""
	})
	var stored uint64
	eventually(t, "what has a dead letter has gone, and nothing else", func() bool {
		stored = uint64(len(letters(t, f.inside)))
		return left() == n-stored
	})
	if stored == 0 || stored >= n {
		t.Errorf("%d dead letters of %d events", stored, n)
	}
	if text := unwell(); !strings.Contains(text, "full") {
		t.Errorf("the health says %q", text)
	}

	policy := must(os.ReadFile(f.b.State.Policy))(t)
	check(t, os.WriteFile(f.b.State.Policy, []byte(strings.Replace(string(policy), "deadLetter: {maxBytes: 64KiB}", "deadLetter: {maxBytes: 4MiB}", 1)), 0o600))
	check(t, f.b.Reload(ctx))
	eventually(t, "all are dead letters", func() bool {
		giveUp()
		return left() == 0
	})
	got := letters(t, f.inside)
	for seq := uint64(1); seq <= n; seq++ {
		r := got[fmt.Sprintf("WORK:w:%d:0", seq)]
		if r == nil || string(r.Payload) != strings.Repeat(fmt.Sprint(seq-1), 20<<10) {
			t.Errorf("dead letter of %d: %+v", seq, r)
		}
	}
	eventually(t, "well again", func() bool { return unwell() == "" })
}

// TestWhatMakesNoLetter: a client cannot make a dead letter of an event that its consumer
// did not get; dead letters and buckets have none; a consumer that the server limited is
// the gate's from the next start on, and its limit stays.
func TestWhatMakesNoLetter(t *testing.T) {
	f := newFailing(t)
	ctx := within(t)
	secret := f.publish(t, "limits.secret", "not for the consumer")
	mine := f.publish(t, "limits.a.b", "for it")
	other := must(jetstream.New(f.b.NATS("other")))(t)
	c := must(other.CreateConsumer(ctx, "LIMITS", jetstream.ConsumerConfig{Durable: "o", FilterSubject: "limits.a.b", AckWait: time.Minute}))(t)
	later := f.publish(t, "limits.a.b", "not delivered yet")
	m := pulled(t, c)
	forged := func(seq uint64) {
		tokens := strings.Split(m.Reply(), ".")
		tokens[5] = fmt.Sprint(seq)
		check(t, other.Conn().Publish(strings.Join(tokens, "."), []byte("+TERM")))
	}
	forged(secret)
	forged(later)
	forged(later + 1000)
	check(t, m.Term())
	if r := f.letter(t, "LIMITS", "o", mine); r.Principal != "shop/other" || string(r.Payload) != "for it" {
		t.Errorf("dead letter %+v", r)
	}
	if m := pulled(t, c); string(m.Data()) != "not delivered yet" {
		t.Errorf("the other event of the consumer is %q", m.Data())
	}

	// The dead letters themselves: whoever reads them acknowledges and terminates, inside.
	inside := must(f.inside.CreateConsumer(ctx, "DLQ", jetstream.ConsumerConfig{Durable: "d", AckPolicy: jetstream.AckExplicitPolicy}))(t)
	check(t, pulled(t, inside).Term())
	if _, err := f.worker.CreateConsumer(ctx, "DLQ", jetstream.ConsumerConfig{Durable: "x"}); err == nil {
		t.Error("a client may have a consumer of dead letters")
	}
	f.isLast(t, 2)
}

// TestServerLimitIsTakenOver: a durable of before, which the server limits, is the gate's
// after a look at the consumers: it keeps its limit, and its event is a dead letter.
func TestServerLimitIsTakenOver(t *testing.T) {
	f := newFailing(t)
	ctx := within(t)
	must(f.inside.CreateConsumer(ctx, "WORK", jetstream.ConsumerConfig{
		Durable: "old", FilterSubject: "work.old", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, MaxDeliver: 2,
		Metadata: map[string]string{"signet.owner": "shop/worker", "mine": "kept"}, Description: "of before",
	}))(t)
	before := must(must(f.inside.Consumer(ctx, "WORK", "old"))(t).Info(ctx))(t)
	broker.SweepConsumers(ctx, f.b.Broker)
	info := must(must(f.inside.Consumer(ctx, "WORK", "old"))(t).Info(ctx))(t)
	if info.Config.MaxDeliver != -1 || info.Config.Metadata["mine"] != "kept" || info.Config.Description != "of before" ||
		info.Config.Metadata["signet.owner"] != "shop/worker" || !info.Created.Equal(before.Created) {
		t.Fatalf("the consumer is %+v", info.Config)
	}
	// The program makes it as ever, and finds it.
	c := f.consumer(t, "WORK", jetstream.ConsumerConfig{
		Durable: "old", FilterSubject: "work.old", MaxDeliver: 2, Metadata: map[string]string{"mine": "kept"}, Description: "of before",
	})
	seq := f.publish(t, "work.old", "x")
	for range 2 {
		m := pulled(t, c)
		check(t, m.NakWithDelay(time.Millisecond))
	}
	if r, came := f.drained(t, c, "WORK", "old", seq); r.Attempts != 2 || r.Reason != dlq.ReasonDelivery || len(came) > 0 {
		t.Errorf("after %v came the dead letter %+v", came, r)
	}
}

// TestRedrivenFailures: what fails again after a redrive is another dead letter, of where
// it failed first, without the headers of the redrive.
func TestRedrivenFailures(t *testing.T) {
	f := newFailing(t)
	ctx := within(t)
	c := f.consumer(t, "LIMITS", jetstream.ConsumerConfig{Durable: "w", FilterSubject: "limits.a"})
	first := f.publish(t, "limits.a", "bad")
	original := bytesAt(t, f.inside, "LIMITS", first)
	check(t, pulled(t, c).Term())
	f.letter(t, "LIMITS", "w", first)

	// As a redrive to all does it: the event again, with the count.
	h := must(nats.DecodeHeadersMsg(original.Header))(t)
	h.Set("Signet-Redrive-Count", "1")
	again := must(f.inside.PublishMsg(ctx, &nats.Msg{Subject: "limits.a", Header: h, Data: original.Data}))(t).Sequence
	check(t, pulled(t, c).Term())
	id := fmt.Sprintf("LIMITS:w:%d:1", again)
	eventually(t, "dead letter "+id, func() bool { return letters(t, f.inside)[id] != nil })
	r := letters(t, f.inside)[id]
	if r.Redrives != 1 || bytes.Contains(r.Header, []byte("Signet-Redrive")) || !bytes.Equal(r.Payload, original.Data) {
		t.Errorf("dead letter of the redriven event: %+v %q", r, r.Header)
	}
	if got, want := must(nats.DecodeHeadersMsg(r.Header))(t), must(nats.DecodeHeadersMsg(original.Header))(t); !reflect.DeepEqual(got, want) {
		t.Errorf("headers %v, want %v", got, want)
	}
	// The same failure once more is the same dead letter; one that was taken out is not
	// taken for there.
	if n := len(letters(t, f.inside)); n != 2 {
		t.Errorf("%d dead letters", n)
	}
}

// TestSweepCounts: what is stuck at a consumer that nobody pulls, and what the server says
// of deliveries, is counted.
func TestSweepCounts(t *testing.T) {
	f := newFailing(t)
	ctx := within(t)
	c := f.consumer(t, "LIMITS", jetstream.ConsumerConfig{Durable: "idle", FilterSubject: "limits.idle", AckWait: time.Hour})
	const n = 3
	for range n {
		f.publish(t, "limits.idle", "x")
	}
	again := map[uint64]bool{}
	eventually(t, "all came again", func() bool {
		for m := range must(c.Fetch(n, jetstream.FetchMaxWait(20*time.Second)))(t).Messages() {
			meta := must(m.Metadata())(t)
			if meta.NumDelivered == 1 {
				check(t, m.NakWithDelay(time.Nanosecond))
				continue
			}
			again[meta.Sequence.Stream] = true // and it stays as it is
		}
		return len(again) == n
	})
	eventually(t, "nobody pulls", func() bool { return must(c.Info(ctx))(t).NumWaiting == 0 })
	if got := broker.SweepConsumers(ctx, f.b.Broker)["shop"]; got != n {
		t.Errorf("%d events are stuck, want %d", got, n)
	}

	// A consumer behind the gate's back, which the server limits.
	own := must(f.inside.CreateConsumer(ctx, "LIMITS", jetstream.ConsumerConfig{
		Durable: "limited", FilterSubject: "limits.limited", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute, MaxDeliver: 1,
	}))(t)
	eventually(t, "advisories of both kinds", func() bool {
		f.publish(t, "limits.limited", "given up")
		check(t, pulled(t, own).Term())
		f.publish(t, "limits.limited", "dropped")
		check(t, pulled(t, own).NakWithDelay(time.Nanosecond))
		for range must(own.Fetch(1, jetstream.FetchMaxWait(50*time.Millisecond)))(t).Messages() { //nolint:revive // to the end of its time: the server drops it then
		}
		dropped, terminated := broker.Advisories(f.b.Broker)
		return dropped > 0 && terminated > 0
	})
}

// TestOneLetterHowever: the same failure, taken by many at once and again after a restart,
// is one dead letter; what fails in the retry queue is of where it failed first.
func TestOneLetterHowever(t *testing.T) {
	f := newFailing(t)
	ctx := within(t)
	c := f.consumer(t, "LIMITS", jetstream.ConsumerConfig{Durable: "w", FilterSubject: "limits.a"})
	first := f.publish(t, "limits.a", "bad")
	original := bytesAt(t, f.inside, "LIMITS", first)
	m := pulled(t, c)
	failure := deadletter.Failure{Tenant: "shop", Stream: "LIMITS", Consumer: "w", Ack: m.Reply(), Sequence: first, Attempt: 4, By: "shop/worker"}
	for range 50 {
		if one := failure; !broker.Fail(f.b.Broker, &one) {
			t.Fatal("not taken")
		}
	}
	f.letter(t, "LIMITS", "w", first)
	eventually(t, "all are done with", func() bool { return broker.Failing(f.b.Broker) == 0 })
	if n := len(letters(t, f.inside)); n != 1 {
		t.Errorf("%d dead letters of one failure", n)
	}

	// From the retry queue, as a redrive fills it.
	h := must(nats.DecodeHeadersMsg(original.Header))(t)
	for name, value := range map[string]string{"Count": "1", "Stream": "LIMITS", "Consumer": "w", "Sequence": fmt.Sprint(first), "Subject": "limits.a"} {
		h.Set("Signet-Redrive-"+name, value)
	}
	queued := must(f.inside.PublishMsg(ctx, &nats.Msg{Subject: "$SIGNET.RETRY.LIMITS.w", Header: h, Data: original.Data}))(t).Sequence
	retry := must(f.inside.CreateConsumer(ctx, "RETRY", jetstream.ConsumerConfig{Durable: "r", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Minute}))(t)
	again := deadletter.Failure{Tenant: "shop", Stream: "RETRY", Consumer: "r", Ack: pulled(t, retry).Reply(), Sequence: queued, Attempt: 2, Terminated: true}
	if !broker.Fail(f.b.Broker, &again) {
		t.Fatal("not taken")
	}
	id := fmt.Sprintf("LIMITS:w:%d:1", first)
	eventually(t, "dead letter "+id, func() bool { return letters(t, f.inside)[id] != nil })
	r := letters(t, f.inside)[id]
	if r.NATSSubject != "limits.a" || r.Attempts != 2 || !bytes.Equal(r.Payload, original.Data) || bytes.Contains(r.Header, []byte("Signet-")) {
		t.Errorf("dead letter from the retry queue: %+v %q", r, r.Header)
	}
	eventually(t, "the retry queue is empty", func() bool {
		return must(must(f.inside.Stream(ctx, "RETRY"))(t).Info(ctx))(t).State.Msgs == 0
	})

	check(t, f.b.Shutdown(ctx))
	b := brokertest.New(t, brokertest.Options{Policy: failPolicy, Change: quickDrain, Dir: f.b.State.Dir})
	if one := failure; !broker.Fail(b.Broker, &one) {
		t.Fatal("not taken after the restart")
	}
	eventually(t, "it was known", func() bool { return broker.Repeated(b.Broker) == 1 })
	if n := len(letters(t, insideJS(t, b, "shop"))); n != 2 {
		t.Errorf("%d dead letters after the restart", n)
	}
}
