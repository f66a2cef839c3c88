package broker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/dlq"
)

// failPolicy has one stream of each retention, and a short back-off.
const failPolicy = `tenant: shop
streams:
  - {name: LIMITS, subjects: [limits.>], maxBytes: 16MiB}
  - {name: INTEREST, subjects: [interest.>], maxBytes: 16MiB, retention: interest}
  - {name: WORK, subjects: [work.>], maxBytes: 16MiB, retention: workqueue}
kv: [{bucket: settings, maxBytes: 1MiB}]
retry:
  maxDeliveries: 3
  backoff: {min: 1ms, max: 2ms}
deadLetter: {maxBytes: 4MiB}
principals:
  - {name: writer, identities: [{nkey: '{{nkey "writer"}}'}], publish: [limits.>, interest.>, work.>]}
  - {name: worker, identities: [{nkey: '{{nkey "worker"}}'}], subscribe: [limits.>, interest.>, work.>]}
  - {name: other, identities: [{nkey: '{{nkey "other"}}'}], subscribe: [limits.*.b]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [dlq, status, consumers]}
`

// letters are the dead letters of the tenant shop by MsgID; it fails the test where two
// are of one failure.
func letters(t testing.TB, js jetstream.JetStream) map[string]*dlq.Record {
	t.Helper()
	ctx := within(t)
	s := must(js.Stream(ctx, "DLQ"))(t)
	info := must(s.Info(ctx))(t)
	out := map[string]*dlq.Record{}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		check(t, err)
		r := must(dlq.Decode(m.Header, m.Data))(t)
		id := fmt.Sprintf("%s:%s:%d:%d", r.Origin.Stream, r.Origin.Consumer, r.Origin.Sequence, r.Redrives)
		if out[id] != nil {
			t.Errorf("two dead letters of %s", id)
		}
		out[id] = r
	}
	return out
}

// storedBytes is a message of a stream, byte for byte.
type storedBytes struct {
	Header []byte    `json:"hdrs"`
	Data   []byte    `json:"data"`
	Time   time.Time `json:"time"`
}

// bytesAt reads a message as the server has it: a direct get adds headers of its own.
func bytesAt(t testing.TB, js jetstream.JetStream, stream string, seq uint64) *storedBytes {
	t.Helper()
	m := must(js.Conn().RequestWithContext(within(t), "$JS.API.STREAM.MSG.GET."+stream, fmt.Appendf(nil, `{"seq":%d}`, seq)))(t)
	var answer struct{ Message *storedBytes }
	if err := json.Unmarshal(m.Data, &answer); err != nil || answer.Message == nil || len(answer.Message.Header) == 0 {
		t.Fatalf("sequence %d of %s: %v: %s", seq, stream, err, m.Data)
	}
	return answer.Message
}

// isOriginal compares the body of a dead letter with the message that failed.
func isOriginal(t testing.TB, r *dlq.Record, want *storedBytes) {
	t.Helper()
	if !bytes.Equal(r.Payload, want.Data) || !bytes.Equal(r.Header, want.Header) || !bytes.Contains(r.Header, []byte("ce-attestation: ")) {
		t.Errorf("the dead letter of %+v has %q %q, stored was %q %q", r.Origin, r.Header, r.Payload, want.Header, want.Data)
	}
}

// TestConsumerFailures: on every kind of stream what is given up, and what is delivered as
// often as the policy allows, is one dead letter with its original bytes, and gone from the
// consumer; the rest of a batch flows on.
func TestConsumerFailures(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = failPolicy })
	inside := insideJS(t, b, "shop")
	worker := must(jetstream.New(b.NATS("worker")))(t)
	writer := must(jetstream.New(b.NATS("writer")))(t)
	const n = 6
	for _, stream := range []string{"LIMITS", "INTEREST", "WORK"} {
		t.Run(stream, func(t *testing.T) {
			ctx := within(t)
			c := must(worker.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
				Durable: "w", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second, MaxDeliver: 100,
			}))(t)
			original := map[uint64]*storedBytes{}
			for i := range n {
				ack := must(writer.Publish(ctx, strings.ToLower(stream)+".a.x", fmt.Appendf(nil, "%d\x00\xff", i)))(t)
				original[ack.Sequence] = bytesAt(t, inside, stream, ack.Sequence)
			}
			attempts := map[uint64]uint64{}
			settled := func() bool {
				batch := must(c.Fetch(n, jetstream.FetchMaxWait(500*time.Millisecond)))(t)
				for m := range batch.Messages() {
					meta := must(m.Metadata())(t)
					seq := meta.Sequence.Stream
					attempts[seq]++
					if meta.NumDelivered > 3 || attempts[seq] > meta.NumDelivered { // one that came when a pull ended was not seen
						t.Errorf("delivery %d of %d says %d, and 3 are allowed", attempts[seq], seq, meta.NumDelivered)
					}
					switch seq % 3 {
					case 0:
						check(t, m.Ack())
					case 1:
						check(t, m.Nak())
					case 2:
						check(t, m.TermWithReason("no use"))
					}
				}
				info := must(must(inside.Consumer(ctx, stream, "w"))(t).Info(ctx))(t)
				return info.NumAckPending == 0 && info.NumPending == 0 && info.AckFloor.Stream == n
			}
			eventually(t, "all settled", settled)
			got := letters(t, inside)
			for seq := uint64(1); seq <= n; seq++ {
				r := got[fmt.Sprintf("%s:w:%d:0", stream, seq)]
				if seq%3 == 0 {
					if r != nil {
						t.Errorf("what was acknowledged has %d deliveries and the dead letter %+v", attempts[seq], r)
					}
					continue
				}
				if r == nil {
					t.Errorf("no dead letter of %d", seq)
					continue
				}
				isOriginal(t, r, original[seq])
				want := dlq.Record{Reason: dlq.ReasonDelivery, Rule: "retry " + stream + ".w", Attempts: 3, Detail: "not acknowledged after 3 deliveries"}
				if seq%3 == 2 {
					want = dlq.Record{Reason: dlq.ReasonTerminated, Attempts: 1, Detail: "no use"}
				}
				if r.Reason != want.Reason || r.Rule != want.Rule || r.Attempts != want.Attempts || r.Detail != want.Detail || int(attempts[seq]) > want.Attempts ||
					r.Stage != dlq.StageConsumer || r.Principal != "shop/worker" || r.By != "shop/worker" || r.Policy == "" ||
					r.NATSSubject != strings.ToLower(stream)+".a.x" || !r.Stored.Equal(original[seq].Time) {
					t.Errorf("dead letter of %d after %d deliveries: %+v", seq, attempts[seq], r)
				}
				if len(r.Deliveries) != want.Attempts || r.Deliveries[0].Attempt != 1 {
					t.Errorf("deliveries of %d: %+v, want %d", seq, r.Deliveries, want.Attempts)
				}
			}
			left := must(must(inside.Stream(ctx, stream))(t).Info(ctx))(t).State.Msgs
			if want := map[string]uint64{"LIMITS": n}[stream]; left != want {
				t.Errorf("%d events are left, want %d", left, want)
			}
		})
	}
}
