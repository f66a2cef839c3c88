package gate

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/policy"
)

// tallyOf is the tally of a connection of a tenant, of which orders.secret is audited
// fully.
func tallyOf(tb testing.TB) (*tally, *recorder) {
	tb.Helper()
	const text = `
tenant: shop
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 1MiB}]
principals: [{name: billing, identities: [{nkey: UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4}], subscribe: [orders.>]}]
subjects: [{match: orders.secret, audit: full}]
`
	bundle, err := policy.ParseAll([]policy.Source{{Name: "p.yaml", Data: []byte(text)}})
	check(tb, err)
	set, err := policy.Compile(bundle)
	check(tb, err)
	rec := &recorder{}
	c := &conn{gate: &Gate{sink: rec}}
	c.access.principal.Store(set.Principal("shop", "billing"))
	c.relay.tally.c = c
	return &c.relay.tally, rec
}

// tell is what the relay does with a message that it hands on.
func tell(tl *tally, f *frame) {
	d := tl.look(f)
	tl.message(f, &d, time.Unix(1700000000, 0))
}

func ackOf(consumer string, attempt, seq int) []byte {
	return fmt.Appendf(nil, "$JS.ACK.ORDERS.%s.%d.%d.9.1700000000000000000.4", consumer, attempt, seq)
}

func TestTally(t *testing.T) {
	tl, rec := tallyOf(t)
	tl.c.access.creds = creds()
	tl.begin()
	for _, f := range []frame{
		{subject: []byte("orders.a"), reply: ackOf("c1", 1, 7)},
		{subject: []byte("orders.a"), reply: ackOf("c1", 1, 9)},
		{subject: []byte("orders.a"), reply: ackOf("c2", 2, 3)},
		{subject: []byte("orders.a"), reply: ackOf("c1", 3, 5)},
		{subject: []byte("orders.a"), reply: ackOf("c12", 1, 1)}, // c1 is a prefix of its name
		{subject: []byte("orders.a"), reply: []byte("$JS.ACK._.hash.ORDERS.c2.1.4.9.17.0.rnd")},
		{subject: []byte("orders.a"), reply: []byte("$JS.ACK.ORDERS.c1.x.4.9.17.0")},
		{subject: []byte("orders.a"), reply: []byte("$JS.ACK.ORDERS.c1")},
		{subject: []byte("orders.secret"), reply: ackOf("c1", 2, 6)},
		{subject: []byte("orders.secret")},
		{subject: []byte("orders.secret.not"), reply: []byte("_R_.x")},
	} {
		tell(tl, &f)
	}
	tl.end()
	got := tl.take()
	want := []Range{
		{Stream: "ORDERS", Consumer: "c1", First: 5, Last: 9, Count: 4},
		{Stream: "ORDERS", Consumer: "c2", First: 3, Last: 3, Count: 1},
		{Stream: "ORDERS", Consumer: "c12", First: 1, Last: 1, Count: 1},
		{Stream: "ORDERS", Consumer: "c2", First: 4, Last: 4, Count: 1}, // the long form, until the next minute
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if left := tl.take(); left != nil {
		t.Errorf("told twice: %+v", left)
	}
	told := []string{
		"delivered billing {Subject:orders.secret Stream:ORDERS Consumer:c1 Sequence:6 Attempt:2}",
		"delivered billing {Subject:orders.secret Stream: Consumer: Sequence:0 Attempt:1}",
	}
	if !reflect.DeepEqual(rec.told, told) {
		t.Errorf("got %q", rec.told)
	}
}

func TestTallyIsBounded(t *testing.T) {
	tl, rec := tallyOf(t)
	tl.c.access.creds = creds()
	for i := range 3 * maxRanges {
		tl.begin()
		tell(tl, &frame{subject: fmt.Appendf(nil, "orders.%d", i), reply: ackOf(fmt.Sprint("c", i), 1, 1)})
		tl.end()
	}
	if len(tl.counts) > maxRanges || len(rec.told) != 2 {
		t.Errorf("%d counts, told %d times", len(tl.counts), len(rec.told))
	}
	for i := range 2 * maxJudged {
		tl.isFull(fmt.Appendf(nil, "orders.%d", i))
	}
	if len(tl.full) > maxJudged {
		t.Errorf("%d subjects are remembered", len(tl.full))
	}
}

// The way of an event to its reader allocates nothing for the trail.
func TestTallyAllocatesNothing(t *testing.T) {
	tl, _ := tallyOf(t)
	f := frame{subject: []byte("orders.created.of.a.rather.long.subject"), reply: ackOf("c1", 1, 7)}
	count := func() {
		tl.begin()
		tell(tl, &f)
		tl.end()
	}
	if n := testing.AllocsPerRun(100, count); n > 0 {
		t.Errorf("%v allocations for each event", n)
	}
}

func BenchmarkTally(b *testing.B) {
	tl, _ := tallyOf(b)
	f := frame{subject: []byte("orders.created"), reply: ackOf("c1", 1, 7)}
	b.ReportAllocs()
	tl.begin()
	defer tl.end()
	for b.Loop() {
		tell(tl, &f)
	}
}
