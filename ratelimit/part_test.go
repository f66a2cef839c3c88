package ratelimit

import (
	"errors"
	"math"
	"testing"
	"time"
)

// spreadBucket returns a bucket that is one of three parts, and its clock.
func spreadBucket(l Limit) (*Bucket, *int64, *int) {
	now, woken := new(int64), new(int)
	var t Table
	t.Spread(&Spread{Nodes: 3, Clock: func() int64 { return *now }, Wake: func() { *woken++ }})
	return t.Bucket("shop/checkout", "writer", l), now, woken
}

func takeAll(b *Bucket, now *int64) (n int) {
	for b.Take(*now, 0).OK {
		n++
	}
	return n
}

func TestPart(t *testing.T) {
	b, now, woken := spreadBucket(Limit{Messages: 500, Burst: 1200 * time.Millisecond})
	if got := takeAll(b, now); got != 100 {
		t.Errorf("%d without a lease, want the sixth of the burst", got)
	}
	if *woken != 2 {
		t.Errorf("woken %d times, want one for the first request and one for the first refusal", *woken)
	}
	a, due, hot := b.report()
	if !due || !hot || a.Demand[inMessages] <= 0 || a.Short[inMessages] <= 0 || a.Check() != nil {
		t.Fatalf("the report is %+v", a)
	}
	lease := Lease{Key: a.Key, Share: [dimensions]float64{0.5, 1}, Extra: [dimensions]time.Duration{inMessages: time.Second / 2}}
	b.apply(lease, int64(time.Second))
	if got := takeAll(b, now); got != 250 {
		t.Errorf("%d at once with half a second given, want 250", got)
	}
	*now += int64(time.Second) / 10
	if got := takeAll(b, now); got != 25 {
		t.Errorf("%d in 0.1 s with half of the rate, want 25", got)
	}
	d := b.Take(*now, 0)
	if d.OK || d.RetryAfter <= 0 || d.RetryAfter > time.Second {
		t.Errorf("a refusal says %+v", d)
	}
	*now += int64(10 * time.Second) // the lease ended after 0.9 s
	if got, want := takeAll(b, now), 100; got != want {
		t.Errorf("%d after a rest, want the %d of the node's part", got, want)
	}
	*now += int64(time.Second)
	if got := takeAll(b, now); got != 6 {
		t.Errorf("%d in 1 s without a lease, want the floor of 6", got)
	}
	// The wall clock is nothing to it.
	if b.Take(math.MaxInt64/32, 0).OK {
		t.Error("a wall clock that is set forward fills the bucket")
	}
}

// TestPartKeepsDebts: no change of a share makes a token.
func TestPartKeepsDebts(t *testing.T) {
	b, now, _ := spreadBucket(Limit{Messages: 500, Burst: 1200 * time.Millisecond})
	takeAll(b, now)
	for i := range 1000 {
		l := Lease{Share: [dimensions]float64{float64(i % 2), 0}}
		if b.apply(l, *now+int64(LeaseTime)); b.Take(int64(i), 0).OK {
			t.Fatalf("a request passes after %d changes of the share", i)
		}
	}
}

func TestAskRange(t *testing.T) {
	good := Ask{Key: "0123456789012345678901", Burst: time.Second, Demand: [dimensions]float64{1, 0}, Short: [dimensions]time.Duration{time.Second, 0}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Ask){
		"key":             func(a *Ask) { a.Key = "x" },
		"burst":           func(a *Ask) { a.Burst = -1 },
		"demand over all": func(a *Ask) { a.Demand[1] = 1.01 },
		"demand unknown":  func(a *Ask) { a.Demand[0] = math.NaN() },
		"demand negative": func(a *Ask) { a.Demand[0] = -0.1 },
		"short":           func(a *Ask) { a.Short[0] = 2 * time.Second },
		"holds":           func(a *Ask) { a.Holds[0] = 2 },
		"extra":           func(a *Ask) { a.Extra[1] = time.Minute },
	} {
		a := good
		if change(&a); !errors.Is(a.Check(), ErrAsk) {
			t.Errorf("%s: %+v passes", name, a)
		}
	}
}

func TestTakeSpreadAllocates(t *testing.T) {
	b, now, _ := spreadBucket(Limit{Messages: 10, Bytes: 1000, Burst: time.Second})
	if n := testing.AllocsPerRun(1000, func() { *now += 1e7; b.Take(*now, 100) }); n != 0 {
		t.Fatalf("got %v allocations, want 0", n)
	}
}

// BenchmarkTakeSpread: requests that follow each other closely, and so far apart that the clock is read
// for each.
func BenchmarkTakeSpread(b *testing.B) {
	b.Run("every_us", func(b *testing.B) { benchmarkTakeSpread(b, time.Microsecond) })
	b.Run("every_ms", func(b *testing.B) { benchmarkTakeSpread(b, time.Millisecond) })
}

func benchmarkTakeSpread(b *testing.B, apart time.Duration) {
	began := time.Now()
	var t Table
	t.Spread(&Spread{Nodes: 3, Clock: func() int64 { return int64(time.Since(began)) }, Wake: func() {}})
	bucket := t.Bucket("shop/checkout", "writer", Limit{Messages: 1e9, Bytes: 1e12, Burst: time.Second})
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		bucket.Take(i*int64(apart), 256)
	}
}

// BenchmarkLedger is the cost of one bucket's report to the owner, of 3 nodes and 5,000 buckets.
func BenchmarkLedger(b *testing.B) {
	l := NewLedger(3, 0)
	asks := make([]Ask, 5000)
	for i := range asks {
		asks[i] = Ask{Key: time.Duration(i).String(), Burst: time.Second, Demand: [dimensions]float64{0.5, 0.5}}
	}
	nodes, now, i := [...]string{"n1", "n2", "n3"}, int64(time.Second), 0
	b.ReportAllocs()
	for b.Loop() {
		l.Answer(nodes[i%3], &asks[i/3%len(asks)], now)
		i++
		now += 1000
	}
}

func FuzzAsks(f *testing.F) {
	f.Add([]byte(`{"node":"n1","life":"a","number":1,"asks":[{"k":"0123456789012345678901","burst":1000000000,"demand":[0.5,0],"short":[0,0],"holds":[0,0],"extra":[0,0]}]}`))
	f.Add([]byte(`{"node":"n1","life":"a","number":1,"asks":[{"k":"0123456789012345678901","gone":true}]}`))
	f.Add([]byte(`{"node":"n2","life":"b","term":7}`))
	f.Add([]byte(`{"node":"n2","leases":[{"k":"0123456789012345678901","share":[1,1],"extra":[5,0]}]}`))
	f.Add([]byte(`{"node":"n2","owner":"n1"}`))
	f.Add([]byte(`{"yes":true,"term":3,"to":"n1","since":5}`))
	f.Add([]byte(`{"node":"n1","life":"a","number":1,"asks":[]} x`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = ParseVote(data)
		_, _ = ParseLeases(data)
		if b, err := ParseBid(data); err == nil {
			NewVoter(-int64(PromiseTime)).Vote(b, 0)
		}
		m, err := ParseAsks(data)
		if err != nil {
			return
		}
		l := NewLedger(3, 0)
		for _, now := range []int64{0, 1e9, 5e9} {
			for i := range m.Asks {
				lease, ok := l.Answer("n1/a", &m.Asks[i], now)
				if ok && lease.Check() != nil {
					t.Fatalf("%+v is answered with %+v", m.Asks[i], lease)
				}
			}
		}
	})
}

func TestMessagesRefused(t *testing.T) {
	for _, text := range []string{
		``, `{}`, `[]`, `{"node":"n1"}`, `{"node":"n1","life":"a","number":1,"asks":[{}]}`,
		`{"node":"n1","life":"a","number":0,"asks":[]}`, `{"node":"n1","life":"a","number":1,"asks":[],"more":1}`,
		`{"node":"n1","life":"a","number":1,"asks":[]}{}`, `{"node":"","life":"a","number":1,"asks":[]}`,
	} {
		if m, err := ParseAsks([]byte(text)); err == nil {
			t.Errorf("%s is taken for %+v", text, m)
		}
	}
	for _, text := range []string{`{}`, `{"node":"n1","life":"a"}`, `{"node":"n1","life":"a","term":9007199254740993}`, `{"node":"n1","life":"a","term":-1}`} {
		if b, err := ParseBid([]byte(text)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s is taken for %+v", text, b)
		}
	}
}

// BenchmarkAsks is one look of a node at its 5,000 buckets, of which the first tenth is asked for.
func BenchmarkAsks(b *testing.B) {
	now := int64(time.Second)
	var t Table
	t.Spread(&Spread{Nodes: 3, Clock: func() int64 { return now }, Wake: func() {}})
	for i := range 5000 {
		bucket := t.Bucket(time.Duration(i).String(), "writer", Limit{Messages: 100, Burst: time.Second})
		if i < 500 {
			bucket.Take(now, 1)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		t.Asks()
	}
}
