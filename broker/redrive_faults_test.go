package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/wire"
)

// billing is a durable of payer, made and left, so that what is queued for it stays.
func billing(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	sub, err := b.Client("payer").Subscribe(within(t), "orders.eu.>", (&readers{}).handle, client.Durable("billing"), client.InStream("ORDERS"), client.FromNew())
	check(t, err)
	sub.Stop()
	<-sub.Closed()
}

func publishOrders(t *testing.T, b *brokertest.Broker, n int) (seqs []uint64) {
	t.Helper()
	writer := b.Client("writer")
	for i := range n {
		r, err := writer.Publish(within(t), "orders.eu.x", client.NewEvent("t", fmt.Appendf(nil, `{"n":%d}`, i)))
		check(t, err)
		seqs = append(seqs, r.Sequence)
	}
	return seqs
}

// queued is the sequences of the stream of what is in the retry queue of billing.
func queued(t *testing.T, b *brokertest.Broker) (seqs []string) {
	t.Helper()
	s := must(insideJS(t, b, "shop").Stream(within(t), wire.StreamRetry))(t)
	state := must(s.Info(within(t)))(t).State
	for seq := state.FirstSeq; seq <= state.LastSeq && state.Msgs > 0; seq++ {
		m, err := s.GetMsg(within(t), seq)
		if err != nil {
			continue // it was taken away
		}
		if m.Subject == wire.RetrySubject("ORDERS", "billing") {
			seqs = append(seqs, m.Header.Get(wire.HeaderRedriveSequence))
		}
	}
	return seqs
}

// TestRedriveThatEndedMidway: wherever a redrive ends, the next one completes it, and the
// target has the event once.
func TestRedriveThatEndedMidway(t *testing.T) {
	b := redriveBroker(t)
	api := admin.New(b.Client("root"))
	billing(t, b)
	seqs := publishOrders(t, b, 6)
	js := insideJS(t, b, "shop")
	mark := func(n uint64, body string) {
		t.Helper()
		must(js.PublishMsg(within(t), &nats.Msg{Subject: wire.PrefixRedrive + strconv.FormatUint(n, 10), Data: []byte(body)}))(t)
	}
	before := func() uint64 { return streamOf(t, b, "shop", wire.StreamRetry).State.LastSeq }
	now := time.Now().UTC()
	old := now.Add(-time.Hour)
	text := func(n uint64, to string, at time.Time) string {
		return fmt.Sprintf(`{"letter":%d,"count":1,"to":%q,"by":"shop/gone","boot":"another","time":%q,"before":%d}`, n, to, at.Format(time.RFC3339Nano), before())
	}
	var letter [6]uint64
	for i := range letter {
		letter[i] = failedLetter(t, b, "ORDERS", seqs[i], "billing", "shop/payer")
	}
	one := func(i int, q admin.RedriveRequest) admin.Redriven {
		t.Helper()
		q.Seq = letter[i]
		return redriveOne(t, api, q)
	}

	// After the mark: nothing was stored behind it.
	mark(letter[0], text(letter[0], "consumer", old))
	if v := one(0, admin.RedriveRequest{}); v.Verdict != admin.VerdictRedriven {
		t.Errorf("ended after the mark: %+v", v)
	}
	// After the event: it is in the queue.
	mark(letter[1], text(letter[1], "consumer", old))
	must(js.PublishMsg(within(t), &nats.Msg{Subject: wire.RetrySubject("ORDERS", "billing"), Header: nats.Header{
		wire.HeaderRedriveLetter: {strconv.FormatUint(letter[1], 10)}, wire.HeaderRedriveSequence: {strconv.FormatUint(seqs[1], 10)},
	}}))(t)
	if v := one(1, admin.RedriveRequest{}); v.Verdict != admin.VerdictRedriven {
		t.Errorf("ended after the event: %+v", v)
	}
	// The same, and somebody asks for another target: what is said is where it is.
	mark(letter[5], text(letter[5], "consumer", old))
	must(js.PublishMsg(within(t), &nats.Msg{Subject: wire.RetrySubject("ORDERS", "billing"), Header: nats.Header{
		wire.HeaderRedriveLetter: {strconv.FormatUint(letter[5], 10)}, wire.HeaderRedriveSequence: {strconv.FormatUint(seqs[5], 10)},
	}}))(t)
	if v := one(5, admin.RedriveRequest{To: admin.RedriveAll}); v.Verdict != admin.VerdictRedriven || v.To != admin.RedriveConsumer {
		t.Errorf("ended after the event, and then to all: %+v", v)
	}
	// The event may have been read and acknowledged since.
	mark(letter[2], text(letter[2], "consumer", now))
	must(js.PublishMsg(within(t), &nats.Msg{Subject: wire.RetrySubject("PAYMENTS", "other")}))(t)
	for _, dry := range []bool{true, false} {
		if v := one(2, admin.RedriveRequest{DryRun: dry}); v.Verdict != admin.VerdictUncertain || !strings.Contains(v.Detail, "shop/gone") {
			t.Errorf("nobody can tell: %+v", v)
		}
	}
	if v := one(2, admin.RedriveRequest{Force: true}); v.Verdict != admin.VerdictRedriven {
		t.Errorf("forced: %+v", v)
	}
	// To all: the stream knows the key for a while, and then nobody can tell.
	mark(letter[3], text(letter[3], "all", now))
	if v := one(3, admin.RedriveRequest{To: admin.RedriveAll}); v.Verdict != admin.VerdictRedriven || v.Duplicate {
		t.Errorf("to all, just now: %+v", v)
	}
	mark(letter[4], text(letter[4], "all", old))
	if v := one(4, admin.RedriveRequest{To: admin.RedriveAll}); v.Verdict != admin.VerdictUncertain {
		t.Errorf("to all, long ago: %+v", v)
	}
	if n := lettersLeft(t, api); n != 1 {
		t.Errorf("%d letters are left, want the one that is uncertain", n)
	}
	if got, want := queued(t, b), []string{"1", "2", "6", "3"}; !slices.Equal(got, want) {
		t.Errorf("the queue has %v, want %v", got, want)
	}
	// A purge takes the mark of a letter along.
	if p, err := admin.DLQOf(api).Purge(within(t), admin.PurgeRequest{Seq: letter[4], Confirm: true}); err != nil || p.Purged != 1 {
		t.Errorf("%+v %v", p, err)
	}
	if n := streamOf(t, b, "shop", wire.StreamRetry).State.Messages; n != 5 { // the queue of billing and that of other
		t.Errorf("%d messages in RETRY: marks are left", n)
	}
}

// TestMarksLeftBehind: a mark without its letter is taken away when no redrive can be at
// work on it any more, and no other.
func TestMarksLeftBehind(t *testing.T) {
	b := redriveBroker(t)
	billing(t, b)
	letter := failedLetter(t, b, "ORDERS", publishOrders(t, b, 1)[0], "billing", "shop/payer")
	js := insideJS(t, b, "shop")
	now := time.Now()
	for n, at := range map[uint64]time.Time{letter: now.Add(-2 * time.Hour), letter + 1: now.Add(-2 * time.Hour), letter + 2: now} {
		body := fmt.Appendf(nil, `{"letter":%d,"count":1,"to":"all","time":%q}`, n, at.UTC().Format(time.RFC3339Nano))
		must(js.PublishMsg(within(t), &nats.Msg{Subject: wire.PrefixRedrive + strconv.FormatUint(n, 10), Data: body}))(t)
	}
	broker.SweepConsumers(within(t), b.Broker)
	s := must(js.Stream(within(t), wire.StreamRetry))(t)
	for n, there := range map[uint64]bool{letter: true, letter + 1: false, letter + 2: true} {
		if _, err := s.GetLastMsgForSubject(within(t), wire.PrefixRedrive+strconv.FormatUint(n, 10)); (err == nil) != there {
			t.Errorf("mark of %d: %v, want it there: %v", n, err, there)
		}
	}
}

// TestRedrivesAtOnce: many redrives of the same letters bring each once.
func TestRedrivesAtOnce(t *testing.T) {
	b := redriveBroker(t)
	billing(t, b)
	const n = 20
	var want []string
	for _, seq := range publishOrders(t, b, n) {
		failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer")
		want = append(want, strconv.FormatUint(seq, 10))
	}
	var wg sync.WaitGroup
	for range 4 {
		api := admin.New(b.Client("root"))
		wg.Go(func() {
			q := admin.RedriveRequest{DLQFilter: admin.DLQFilter{Consumer: "billing"}, Limit: 3}
			for {
				page, err := admin.DLQOf(api).Redrive(within(t), q)
				if err != nil {
					t.Error(err)
					return
				}
				for _, l := range page.Letters {
					if l.Verdict != admin.VerdictRedriven && l.Verdict != admin.VerdictGone { // another was first
						t.Errorf("%+v", l)
					}
				}
				if !page.More {
					return
				}
				q.DLQ, q.Cursor, q.UpTo = page.DLQ, page.Cursor, page.UpTo
			}
		})
	}
	wg.Wait()
	got := queued(t, b)
	slices.SortFunc(got, func(a, b string) int { return len(a)*1000 - len(b)*1000 + strings.Compare(a, b) })
	if !slices.Equal(got, want) {
		t.Errorf("the queue has %v", got)
	}
	if st := streamOf(t, b, "shop", wire.StreamRetry).State; st.Messages != n || lettersLeft(t, admin.New(b.Client("root"))) != 0 {
		t.Errorf("%d messages in RETRY, want %d", st.Messages, n)
	}
}

// TestRedriveIsNoWayIn: a letter gives nobody what the policy of now does not.
func TestRedriveIsNoWayIn(t *testing.T) {
	b := redriveBroker(t)
	api := admin.New(b.Client("root"))
	billing(t, b)
	seq := publishOrders(t, b, 1)[0]
	consumer := failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer")
	expired := failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer", func(r *dlq.Record, _ nats.Header) {
		r.Header = append(r.Header[:len(r.Header)-2], "ce-expirytime: 2020-01-01T00:00:00Z\r\n\r\n"...)
	})
	looped := failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer", func(_ *dlq.Record, h nats.Header) {
		h.Set("Signet-Dlq-Redrives", "3")
	})
	forged := failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer", func(r *dlq.Record, _ nats.Header) { r.Payload = []byte(`{"n":"forged"}`) })
	moved := failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer", func(r *dlq.Record, _ nats.Header) { r.NATSSubject = "payments.x" })
	bad := map[string]struct {
		seq  uint64
		to   string
		want string
	}{
		"expired":            {expired, admin.RedriveConsumer, admin.VerdictExpired},
		"looped":             {looped, admin.RedriveConsumer, admin.VerdictQuarantined},
		"changed":            {forged, admin.RedriveAll, admin.VerdictRefused},
		"on another subject": {moved, admin.RedriveAll, admin.VerdictRefused},
	}
	for name, c := range bad {
		if v := redriveOne(t, api, admin.RedriveRequest{Seq: c.seq, To: c.to}); v.Verdict != c.want || v.Detail == "" {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: looped, Force: true, DryRun: true}); v.Verdict != admin.VerdictWould || v.Count != 4 {
		t.Errorf("forced: %+v", v)
	}

	// The sender has lost the subject, and the owner of the consumer, too.
	reload(t, b, edit(t, edit(t, redrivePolicy, "publish: [orders.>, payments.>, telemetry.>], kv", "publish: [payments.>], kv"), "subscribe: [payments.>, orders.eu.>]", "subscribe: [payments.>, orders.eu.y]"))
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: consumer, To: admin.RedriveAll}); v.Verdict != admin.VerdictRefused || v.Code != wire.CodePublishDenied {
		t.Errorf("of a sender without the grant: %+v", v)
	}
	// Its consumer reads outside of the grants and is deleted by the reload.
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: consumer}); v.Verdict != admin.VerdictGone {
		t.Errorf("to an owner without the grant: %+v", v)
	}
	if n := lettersLeft(t, api); n != 5 {
		t.Errorf("%d letters, want 5", n)
	}
	if got := queued(t, b); len(got) != 0 {
		t.Errorf("the queue has %v", got)
	}

	// Who has no grant redrives nothing, and reads nothing.
	for _, who := range []string{"writer", "payer", "narrow"} {
		_, err := admin.DLQOf(admin.New(b.Client(who))).Redrive(within(t), admin.RedriveRequest{Seq: consumer})
		if !errors.Is(err, client.ErrDenied) {
			t.Errorf("%s: %v", who, err)
		}
	}
}

// TestRetryQueueOfWhoLostItsGrants: what waits in a queue is read by nobody who may not
// read it any more.
func TestRetryQueueOfWhoLostItsGrants(t *testing.T) {
	b := redriveBroker(t)
	api := admin.New(b.Client("root"))
	billing(t, b)
	seq := publishOrders(t, b, 1)[0]
	n := failedLetter(t, b, "ORDERS", seq, "billing", "shop/payer")
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n}); v.Verdict != admin.VerdictRedriven {
		t.Fatalf("%+v", v)
	}
	name := wire.RetryConsumer("ORDERS", "billing")
	narrowed := edit(t, redrivePolicy, "subscribe: [payments.>, orders.eu.>]", "subscribe: [payments.>, orders.eu.y]")
	reload(t, b, narrowed)
	nc := b.NATS("payer")
	m := must(nc.RequestWithContext(within(t), "$JS.API.CONSUMER.MSG.NEXT.RETRY."+name, []byte(`{"batch":1,"no_wait":true}`)))(t)
	if m.Header.Get("Status") == "" {
		t.Errorf("payer reads %q", m.Data)
	}
	// A new consumer of that name, within the grants, does not open the old queue.
	sub, err := b.Client("payer").Subscribe(within(t), "orders.eu.y", (&readers{}).handle, client.Durable("billing"), client.InStream("ORDERS"))
	check(t, err)
	sub.Stop()
	<-sub.Closed()
	r, err := b.Client("writer").Publish(within(t), "orders.eu.y", client.NewEvent("t", []byte("{}")))
	check(t, err)
	n = failedLetter(t, b, "ORDERS", r.Sequence, "billing", "shop/payer")
	if v := redriveOne(t, api, admin.RedriveRequest{Seq: n}); v.Verdict != admin.VerdictRefused || v.Code != wire.CodeFilterDenied {
		t.Errorf("into a queue with what payer may not read: %+v", v)
	}
	if got := queued(t, b); !slices.Equal(got, []string{strconv.FormatUint(seq, 10)}) {
		t.Errorf("the queue has %v", got)
	}
}

// TestFullRetryQueue: what has no room stays a dead letter, and the run says so and stops.
func TestFullRetryQueue(t *testing.T) {
	b := redriveBroker(t) // 4 MiB of dead letters: 1 MiB of retry queues
	api := admin.New(b.Client("root"))
	billing(t, b)
	big := client.NewEvent("t", []byte(`"`+strings.Repeat("x", 400<<10)+`"`))
	for range 4 {
		r, err := b.Client("writer").Publish(within(t), "orders.eu.x", big)
		check(t, err)
		failedLetter(t, b, "ORDERS", r.Sequence, "billing", "shop/payer")
	}
	page, err := admin.DLQOf(api).Redrive(within(t), admin.RedriveRequest{DLQFilter: admin.DLQFilter{Consumer: "billing"}})
	check(t, err)
	if len(page.Letters) != 3 || page.Letters[2].Verdict != admin.VerdictFull || page.Stopped == "" || !page.More || page.Cursor != 2 {
		t.Fatalf("%+v", page)
	}
	if n := lettersLeft(t, api); n != 2 || len(queued(t, b)) != 2 {
		t.Errorf("%d letters, %d queued", n, len(queued(t, b)))
	}
	// When there is room again, the run goes on from there.
	reload(t, b, edit(t, redrivePolicy, "deadLetter: {maxBytes: 4MiB}\nprincipals:\n  - {name: writer", "deadLetter: {maxBytes: 16MiB}\nprincipals:\n  - {name: writer"))
	page, err = admin.DLQOf(api).Redrive(within(t), admin.RedriveRequest{DLQFilter: admin.DLQFilter{Consumer: "billing"}, DLQ: page.DLQ, Cursor: page.Cursor, UpTo: page.UpTo})
	check(t, err)
	if len(page.Letters) != 2 || page.More || page.Stopped != "" || lettersLeft(t, api) != 0 || len(queued(t, b)) != 4 {
		t.Errorf("%+v, %d letters, %d queued", page, lettersLeft(t, api), len(queued(t, b)))
	}
}

// TestCursorOfOtherLetters: the numbers of one DLQ mean nothing in another.
func TestCursorOfOtherLetters(t *testing.T) {
	b := redriveBroker(t)
	shop, mill := admin.DLQOf(admin.New(b.Client("root"))), admin.DLQOf(admin.New(b.Client("boss")))
	st, err := shop.Stats(within(t), admin.DLQStatsQuery{})
	check(t, err)
	_, err = mill.Redrive(within(t), admin.RedriveRequest{DLQFilter: admin.DLQFilter{Reason: "schema"}, DLQ: st.DLQ, Cursor: 1})
	if !errors.Is(err, client.ErrConflict) {
		t.Errorf("redrive: %v", err)
	}
	_, err = mill.Purge(within(t), admin.PurgeRequest{DLQFilter: admin.DLQFilter{Reason: "schema"}, DLQ: st.DLQ, Cursor: 1, Confirm: true})
	if !errors.Is(err, client.ErrConflict) {
		t.Errorf("purge: %v", err)
	}
	for name, q := range map[string]admin.RedriveRequest{
		"an unknown reason": {DLQFilter: admin.DLQFilter{Reason: "bored"}},
		"a bad pointer":     {DLQFilter: admin.DLQFilter{Where: []string{"action"}}},
		"an unknown target": {To: "nobody"},
		"too many":          {Limit: admin.MaxRedrive + 1},
	} {
		if _, err := shop.Redrive(within(t), q); !errors.Is(err, client.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := shop.Redrive(within(t), admin.RedriveRequest{Seq: 999}); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("an unknown number: %v", err)
	}
	if _, err := shop.Purge(within(t), admin.PurgeRequest{}); !errors.Is(err, client.ErrMalformed) {
		t.Errorf("a purge that was not confirmed: %v", err)
	}
}
