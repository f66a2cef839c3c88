package ratelimit

import (
	"testing"
	"time"
)

// TestVoter: one vote at a time, none after a start before an older promise is over, and what is said
// of earlier terms is never too early.
func TestVoter(t *testing.T) {
	const second = int64(time.Second)
	one, two := Bid{Node: "n1", Life: "a", Term: 1}, Bid{Node: "n2", Life: "b", Term: 2}
	again, done := two, one
	again.Life, done.Done = "c", true
	for _, tt := range []struct {
		name string
		bids []Bid
		at   []int64
		want Vote // the last
	}{
		{"just started", []Bid{one}, []int64{second - 1}, Vote{}},
		{"started", []Bid{one}, []int64{second}, Vote{Yes: true, Term: 1, To: "n1", Since: time.Second}},
		{"renewed", []Bid{one, one}, []int64{second, 3 * second / 2}, Vote{Yes: true, Term: 1, To: "n1", Since: 3 * time.Second / 2}},
		{"promised", []Bid{one, two}, []int64{second, 2*second - 1}, Vote{Term: 1, To: "n1"}},
		{"promise is over", []Bid{one, two}, []int64{second, 2 * second}, Vote{Yes: true, Term: 2, To: "n2", Since: time.Second}},
		{"older term", []Bid{two, one}, []int64{second, 9 * second}, Vote{Term: 2}},
		{"same term of another life", []Bid{two, again}, []int64{second, 9 * second}, Vote{Term: 2}},
		{"given back", []Bid{one, done, two}, []int64{second, second, second}, Vote{Yes: true, Term: 2, To: "n2", Since: longAgo}},
		{"given back by another", []Bid{two, done, one}, []int64{second, second, second}, Vote{Term: 2, To: "n2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := NewVoter(0)
			var got Vote
			for i, b := range tt.bids {
				got = v.Vote(b, tt.at[i])
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// TestLedgerBooks: what may be in force somewhere counts, whether it arrived or not.
func TestLedgerBooks(t *testing.T) {
	const key, second = "0123456789012345678901", int64(time.Second)
	all := [dimensions]float64{1, 1}
	ask := func(demand float64, holds [dimensions]float64) *Ask {
		return &Ask{Key: key, Burst: time.Second, Demand: [dimensions]float64{demand, demand}, Holds: holds}
	}
	share := func(l *Ledger, who string, a *Ask, now int64) float64 {
		t.Helper()
		lease, ok := l.Answer(who, a, now)
		if !ok {
			t.Fatalf("%s has no lease", who)
		}
		return lease.Share[inMessages]
	}
	var none [dimensions]float64
	l := NewLedger(3, 0)
	now := 10 * second
	if got := share(l, "n1/a", ask(1, none), now); got != 1 {
		t.Errorf("the only node gets %v", got)
	}
	if got := share(l, "n2/a", ask(1, none), now); got != 0 {
		t.Errorf("a second one gets %v while the first has all", got)
	}
	if got := share(l, "n1/a", ask(1, all), now); got != 0.5 {
		t.Errorf("the first keeps %v of two", got)
	}
	if got := share(l, "n2/a", ask(1, none), now); got != 0 {
		t.Errorf("the second gets %v before the first has said that it has less", got)
	}
	if got := share(l, "n1/a", ask(1, [dimensions]float64{0.5, 0.5}), now); got != 0.5 {
		t.Errorf("the first keeps %v", got)
	}
	if got := share(l, "n2/a", ask(1, none), now); got != 0.5 {
		t.Errorf("the second gets %v then", got)
	}
	// Who claims more than it was given has no more by it, and who is silent has it until its lease ends.
	if got := share(l, "n2/a", ask(1, all), now); got != 0.5 {
		t.Errorf("who claims to have all gets %v", got)
	}
	if got := share(l, "n3/a", ask(1, all), now+second); got != 0 {
		t.Errorf("a third one that claims to have all gets %v", got)
	}
	if got := share(l, "n3/a", ask(1, none), now+3*second); got != 1 {
		t.Errorf("it gets %v when the leases of the others have ended", got)
	}

	// Before the leases of the owner before have ended: what a node has, and no more.
	l = NewLedger(3, now)
	if got := share(l, "n1/a", ask(1, [dimensions]float64{0.25, 0}), now-1); got != 0.25 {
		t.Errorf("it gets %v", got)
	}
	if got := share(l, "n2/a", ask(1, none), now-1); got != 0 {
		t.Errorf("one that has nothing gets %v", got)
	}
}

// TestLedgerTokens: the owner's part of the burst is given once, and fills again only when it is not
// with a node any more.
func TestLedgerTokens(t *testing.T) {
	const second = int64(time.Second)
	const half = 600 * time.Millisecond
	l := NewLedger(3, 0)
	give := func(short, has time.Duration, now int64) time.Duration {
		t.Helper()
		lease, ok := l.Answer("n1/a", &Ask{
			Key: "0123456789012345678901", Burst: 2 * half,
			Short: [dimensions]time.Duration{inMessages: short}, Extra: [dimensions]time.Duration{inMessages: has},
		}, now)
		if !ok {
			t.Fatal("no lease")
		}
		return lease.Extra[inMessages]
	}
	if got := give(time.Second, 0, 10*second); got != half {
		t.Errorf("%v are given first, want half of the burst", got)
	}
	for at := 11 * second; at < 15*second; at += second {
		if got := give(time.Second, half, at); got != 0 {
			t.Errorf("%v are given while the node has all of it", got)
		}
	}
	if got := give(0, 0, 15*second); got != 0 {
		t.Errorf("%v are given that nobody asks for", got)
	}
	if got := give(time.Second, 0, 17*second); got < half/2 || got > half {
		t.Errorf("%v are given when the node has used them, want up to half of the burst", got)
	}
}
