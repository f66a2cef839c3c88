package broker_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/dlq"
)

// failing is a broker with failPolicy and what most tests of failures need.
type failing struct {
	b              *brokertest.Broker
	worker, writer jetstream.JetStream
	inside         jetstream.JetStream
	nc             *nats.Conn // of the worker
}

func newFailing(t *testing.T, change ...func(*brokertest.Options)) *failing {
	t.Helper()
	b := newBroker(t, append([]func(*brokertest.Options){func(o *brokertest.Options) { o.Policy = failPolicy }}, change...)...)
	f := &failing{b: b, nc: b.NATS("worker"), inside: insideJS(t, b, "shop")}
	f.worker = must(jetstream.New(f.nc))(t)
	f.writer = must(jetstream.New(b.NATS("writer")))(t)
	return f
}

func (f *failing) consumer(t *testing.T, stream string, cfg jetstream.ConsumerConfig) jetstream.Consumer {
	t.Helper()
	if cfg.AckWait == 0 {
		cfg.AckWait = time.Minute
	}
	return must(f.worker.CreateOrUpdateConsumer(within(t), stream, cfg))(t)
}

func (f *failing) publish(t *testing.T, subject, data string) uint64 {
	t.Helper()
	return must(f.writer.Publish(within(t), subject, []byte(data)))(t).Sequence
}

// pulled pulls the next delivery.
func pulled(t *testing.T, c jetstream.Consumer) jetstream.Msg {
	t.Helper()
	var m jetstream.Msg
	eventually(t, "a delivery", func() bool {
		// Long: what comes when it ends would be lost until its ack wait is over.
		batch, err := c.Fetch(1, jetstream.FetchMaxWait(20*time.Second))
		check(t, err)
		m = <-batch.Messages()
		return m != nil
	})
	return m
}

// letter waits for the dead letter of a failure.
func (f *failing) letter(t *testing.T, stream, consumer string, seq uint64) *dlq.Record {
	t.Helper()
	var r *dlq.Record
	id := fmt.Sprintf("%s:%s:%d:0", stream, consumer, seq)
	eventually(t, "dead letter "+id, func() bool {
		r = letters(t, f.inside)[id]
		return r != nil
	})
	return r
}

// drained pulls and acknowledges until the dead letter is there, and returns it and what
// came: an event that failed is noticed at its next delivery.
func (f *failing) drained(t *testing.T, c jetstream.Consumer, stream, consumer string, seq uint64) (r *dlq.Record, came []uint64) {
	t.Helper()
	id := fmt.Sprintf("%s:%s:%d:0", stream, consumer, seq)
	eventually(t, "dead letter "+id, func() bool {
		for m := range must(c.Fetch(1, jetstream.FetchMaxWait(100*time.Millisecond)))(t).Messages() {
			came = append(came, must(m.Metadata())(t).Sequence.Stream)
			check(t, m.Ack())
		}
		r = letters(t, f.inside)[id]
		return r != nil
	})
	return r, came
}

// isLast waits for a failure of its own after what came before, and checks that the tenant
// has want dead letters with it: what should make none has not.
func (f *failing) isLast(t *testing.T, want int) {
	t.Helper()
	c := f.consumer(t, "LIMITS", jetstream.ConsumerConfig{Durable: "last", FilterSubject: "limits.last"})
	seq := f.publish(t, "limits.last", "last")
	check(t, pulled(t, c).Term())
	f.letter(t, "LIMITS", "last", seq)
	if got := letters(t, f.inside); len(got) != want {
		t.Errorf("%d dead letters, want %d: %+v", len(got), want, got)
	}
}

// TestTermIsAnsweredAfterTheLetter: who waits for the answer to a +TERM finds the dead
// letter when it comes, in both forms of the ack subject; a second +TERM makes none.
func TestTermIsAnsweredAfterTheLetter(t *testing.T) {
	f := newFailing(t)
	c := f.consumer(t, "WORK", jetstream.ConsumerConfig{Durable: "w"})
	for i, long := range []bool{false, true} {
		seq := f.publish(t, "work.a", fmt.Sprint("poison ", i))
		want := bytesAt(t, f.inside, "WORK", seq)
		ack := pulled(t, c).Reply()
		if long {
			tokens := strings.Split(ack, ".")
			ack = strings.Join(append([]string{"$JS", "ACK", "_", accountHash("shop")}, append(tokens[2:], "x")...), ".")
		}
		must(f.nc.RequestWithContext(within(t), ack, []byte("+TERM handler: it crashed")))(t)
		r := letters(t, f.inside)[fmt.Sprintf("WORK:w:%d:0", seq)]
		if r == nil {
			t.Fatalf("long form %v: answered, and there is no dead letter", long)
		}
		isOriginal(t, r, want)
		if r.Reason != dlq.ReasonHandler || r.Detail != "it crashed" || r.Attempts != 1 {
			t.Errorf("dead letter %+v", r)
		}
		check(t, f.nc.Publish(ack, []byte("+TERM again")))
	}
	if left := must(must(f.inside.Stream(within(t), "WORK"))(t).Info(within(t)))(t).State.Msgs; left != 0 {
		t.Errorf("%d events are left in the work queue", left)
	}
	f.isLast(t, 3)
}

// TestNakHasTheDelayOfThePolicy: a -NAK that says nothing gets the back-off, one that says
// how long keeps it.
func TestNakHasTheDelayOfThePolicy(t *testing.T) {
	f := newFailing(t, func(o *brokertest.Options) {
		o.Policy = strings.Replace(failPolicy, "{min: 1ms, max: 2ms}", "{min: 200ms, max: 1h, factor: 3}", 1)
	})
	acks := newTap(t, f.b, "shop", "$JS.ACK.>")
	c := f.consumer(t, "LIMITS", jetstream.ConsumerConfig{Durable: "w"})
	f.publish(t, "limits.a.x", "1")
	next := func() time.Duration {
		m := must(acks.sub.NextMsgWithContext(within(t)))(t)
		body, ok := bytes.CutPrefix(m.Data, []byte("-NAK "))
		var nak struct{ Delay time.Duration }
		if !ok || json.Unmarshal(body, &nak) != nil {
			t.Fatalf("the server got %q", m.Data)
		}
		return nak.Delay
	}
	check(t, pulled(t, c).Nak())
	if d := next(); d < 100*time.Millisecond || d > 200*time.Millisecond {
		t.Errorf("after the first delivery: %s", d)
	}
	check(t, pulled(t, c).Nak())
	if d := next(); d < 300*time.Millisecond || d > 600*time.Millisecond {
		t.Errorf("after the second delivery: %s", d)
	}
	check(t, pulled(t, c).NakWithDelay(7*time.Millisecond))
	if d := next(); d != 7*time.Millisecond {
		t.Errorf("of 7 ms the server got %s", d)
	}
}

// TestFailuresOfOtherConsumers: push consumers have dead letters as pull consumers have; who
// acknowledges together, or not at all, has no limit; the client may ask for fewer
// deliveries; +NXT goes on behind a poison event.
func TestFailuresOfOtherConsumers(t *testing.T) {
	f := newFailing(t)
	t.Run("push", func(t *testing.T) {
		js := must(f.nc.JetStream())(t)
		f.publish(t, "interest.none", "nobody wants it")
		done := make(chan uint64, 16)
		var seq, good uint64
		sub := must(js.Subscribe("interest.>", func(m *nats.Msg) {
			meta, err := m.Metadata()
			if err != nil || meta.NumDelivered > 3 {
				t.Errorf("delivery %+v: %v", meta, err)
			}
			if string(m.Data) == "good" {
				_ = m.Ack()
				done <- meta.Sequence.Stream
				return
			}
			_ = m.Nak()
		}, nats.Durable("push"), nats.ManualAck(), nats.AckWait(time.Minute), nats.BindStream("INTEREST")))(t)
		seq = f.publish(t, "interest.b", "bad")
		good = f.publish(t, "interest.b", "good")
		select {
		case got := <-done:
			if got != good {
				t.Errorf("%d was handled, want %d", got, good)
			}
		case <-within(t).Done():
			t.Fatal("the good event did not come")
		}
		if r := f.letter(t, "INTEREST", "push", seq); r.Reason != dlq.ReasonDelivery || r.Attempts != 3 {
			t.Errorf("dead letter %+v", r)
		}
		check(t, sub.Unsubscribe())
	})
	t.Run("fewer by the client", func(t *testing.T) {
		cfg := jetstream.ConsumerConfig{Durable: "fewer", FilterSubject: "limits.fewer", MaxDeliver: 2}
		f.consumer(t, "LIMITS", cfg)
		c := f.consumer(t, "LIMITS", cfg) // a library creates or updates what it uses
		info := must(c.Info(within(t)))(t)
		if info.Config.MaxDeliver != -1 {
			t.Errorf("the server counts to %d itself", info.Config.MaxDeliver)
		}
		f.consumer(t, "LIMITS", info.Config) // as it was read
		seq := f.publish(t, "limits.fewer", "x")
		for range 2 {
			m := pulled(t, c)
			must(f.nc.RequestWithContext(within(t), m.Reply(), []byte(`-NAK {"delay":1}`)))(t) // answered once the server has it
		}
		next := f.publish(t, "limits.fewer", "y")
		r, came := f.drained(t, c, "LIMITS", "fewer", seq)
		if r.Attempts != 2 || len(r.Deliveries) != 2 || len(came) > 1 || len(came) == 1 && came[0] != next {
			t.Errorf("after %v came the dead letter %+v", came, r)
		}
	})
	t.Run("next", func(t *testing.T) {
		c := f.consumer(t, "LIMITS", jetstream.ConsumerConfig{Durable: "next", FilterSubject: "limits.next", MaxDeliver: 1})
		inbox := f.nc.NewRespInbox()
		sub := must(f.nc.SubscribeSync(inbox))(t)
		const pull = `{"batch":1,"expires":30000000000}`
		check(t, f.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.LIMITS.next", inbox, []byte(pull)))
		bad := f.publish(t, "limits.next", "bad")
		m := must(sub.NextMsgWithContext(within(t)))(t)
		check(t, f.nc.PublishRequest(m.Reply, inbox, []byte("-NAK {\"delay\":1}"))) // answered once the server has it
		must(sub.NextMsgWithContext(within(t)))(t)
		good := f.publish(t, "limits.next", "good")
		check(t, f.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.LIMITS.next", inbox, []byte(pull)))
		m = must(sub.NextMsgWithContext(within(t)))(t)
		last := f.publish(t, "limits.next", "last")
		for _, want := range []uint64{good, last} {
			if meta := must(m.Metadata())(t); meta.Sequence.Stream != want || meta.NumDelivered != 1 {
				t.Errorf("got %+v, want %d", meta, want)
			}
			if want == good {
				check(t, f.nc.PublishRequest(m.Reply, inbox, []byte("+NXT "+pull)))
				m = must(sub.NextMsgWithContext(within(t)))(t)
			}
		}
		check(t, m.Ack())
		f.drained(t, c, "LIMITS", "next", bad)
	})
	t.Run("together", func(t *testing.T) {
		c := f.consumer(t, "LIMITS", jetstream.ConsumerConfig{Durable: "all", FilterSubject: "limits.all", AckPolicy: jetstream.AckAllPolicy})
		seq := f.publish(t, "limits.all", "x")
		for i := range 5 {
			m := pulled(t, c)
			if meta := must(m.Metadata())(t); meta.NumDelivered != uint64(i+1) {
				t.Errorf("delivery %d says %d", i+1, meta.NumDelivered)
			}
			if i == 4 {
				check(t, m.Term())
			} else {
				check(t, m.Nak())
			}
		}
		if r := f.letter(t, "LIMITS", "all", seq); r.Reason != dlq.ReasonTerminated || r.Attempts != 5 {
			t.Errorf("dead letter %+v", r)
		}
	})
	t.Run("ordered", func(t *testing.T) {
		c := must(f.worker.OrderedConsumer(within(t), "LIMITS", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"limits.all"}}))(t)
		if m := must(c.Next())(t); string(m.Data()) != "x" {
			t.Errorf("read %q", m.Data())
		}
	})
	f.isLast(t, 5)
}
