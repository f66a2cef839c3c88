package ratelimit

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// tokens is the naive model: a float level per dimension that refills with time.
type tokens struct {
	rate, cap, level float64
	last             int64
}

func newTokens(rate float64, burst time.Duration) *tokens {
	c := rate * burst.Seconds()
	return &tokens{rate: rate, cap: c, level: c}
}

func (m *tokens) refill(now int64) {
	m.level = min(m.cap, m.level+m.rate*float64(now-m.last)/1e9)
	m.last = now
}

// can reports whether n fits; a request larger than the bucket needs a full one.
func (m *tokens) can(n float64) bool { return m.rate == 0 || n == 0 || m.level >= min(n, m.cap) }

func drawLimit(t *rapid.T) Limit {
	rate := func(name string, most float64) float64 {
		if rapid.Bool().Draw(t, name+" unlimited") {
			return 0
		}
		return math.Exp(rapid.Float64Range(math.Log(0.01), math.Log(most)).Draw(t, name))
	}
	return Limit{
		Messages: rate("messages", 1e6), Bytes: rate("bytes", 1e9),
		Burst: time.Duration(rapid.Int64Range(0, int64(10*time.Second)).Draw(t, "burst")),
	}
}

// TestBucketModel drives a bucket and the model with the same requests. Rounding
// may make the bucket stricter by a hair, so a difference is allowed only where
// the model stands within one part in a million of its border.
func TestBucketModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		b := NewBucket(l)
		messages, bytes := newTokens(l.Messages, l.Burst), newTokens(l.Bytes, l.Burst)
		now := rapid.Int64Range(-1e18, 2e18).Draw(t, "start")
		messages.last, bytes.last = now, now
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			now += rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "pause")
			size := rapid.IntRange(0, 1<<20).Draw(t, "size")
			messages.refill(now)
			bytes.refill(now)
			want := messages.can(1) && bytes.can(float64(size))
			d := b.Take(now, size)
			if d.OK != want && !near(messages, 1) && !near(bytes, float64(size)) {
				t.Fatalf("Take(%d bytes) = %+v, the model says %v (messages %+v, bytes %+v)", size, d, want, messages, bytes)
			}
			if d.OK {
				messages.level--
				bytes.level -= float64(size)
			}
		}
	})
}

func near(m *tokens, n float64) bool {
	if m.rate == 0 || n == 0 {
		return false
	}
	need := min(n, m.cap)
	return math.Abs(m.level-need) <= 1e-6*max(1, need, m.cap)
}

// TestBucketWindow: over any window of time no more is admitted than the burst and
// what the rate gives in the window.
func TestBucketWindow(t *testing.T) {
	type take struct {
		at   int64
		size float64
	}
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		b := NewBucket(l)
		var taken []take
		now, largest := int64(0), 0.0
		for range rapid.IntRange(1, 150).Draw(t, "requests") {
			now += rapid.Int64Range(0, int64(time.Second)).Draw(t, "pause")
			size := rapid.IntRange(0, 1<<16).Draw(t, "size")
			if b.Take(now, size).OK {
				taken = append(taken, take{now, float64(size)})
				largest = max(largest, float64(size))
			}
		}
		for i := range taken {
			count, sum := 0.0, 0.0
			for _, k := range taken[i:] {
				count++
				sum += k.size
				window := float64(k.at-taken[i].at) / 1e9
				if most := max(1, l.Messages*l.Burst.Seconds()) + l.Messages*window; l.Messages > 0 && count > most*(1+1e-9) {
					t.Fatalf("%v messages in %vs, at most %v", count, window, most)
				}
				if most := max(largest, l.Bytes*l.Burst.Seconds()) + l.Bytes*window; l.Bytes > 0 && sum > most*(1+1e-9) {
					t.Fatalf("%v bytes in %vs, at most %v", sum, window, most)
				}
			}
		}
	})
}

// TestRetryAfter: the same request passes after RetryAfter, and not one
// nanosecond before.
func TestRetryAfter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		b := NewBucket(l)
		now := rapid.Int64Range(0, 1e18).Draw(t, "start")
		for range rapid.IntRange(1, 100).Draw(t, "requests") {
			size := rapid.IntRange(0, 1<<20).Draw(t, "size")
			d := b.Take(now, size)
			if d.OK {
				continue
			}
			if d.RetryAfter <= 0 {
				t.Fatalf("refused without RetryAfter: %+v", d)
			}
			early := *cloneBucket(b)
			if early.Take(now+int64(d.RetryAfter)-1, size).OK {
				t.Fatalf("passed before RetryAfter %v", d.RetryAfter)
			}
			now += int64(d.RetryAfter)
			if again := b.Take(now, size); !again.OK {
				t.Fatalf("refused again after RetryAfter: %+v", again)
			}
		}
	})
}

func cloneBucket(b *Bucket) *Bucket {
	c := NewBucket(b.limit)
	c.started, c.base, c.last, c.messages, c.bytes = b.started, b.base, b.last, b.messages, b.bytes
	return c
}

func TestBucketTable(t *testing.T) {
	const second = int64(time.Second)
	type step struct {
		at    int64
		bytes int
		want  Decision
	}
	for _, tt := range []struct {
		name  string
		limit Limit
		steps []step
	}{
		{"unlimited", Limit{}, []step{{0, 1 << 30, Decision{OK: true}}, {0, 1 << 30, Decision{OK: true}}}},
		{"one at a time", Limit{Messages: 10}, []step{
			{0, 0, Decision{OK: true}},
			{0, 0, Decision{RetryAfter: 100 * time.Millisecond}},
			{second / 10, 0, Decision{OK: true}},
		}},
		{"burst", Limit{Messages: 1, Burst: 2 * time.Second}, []step{
			{0, 0, Decision{OK: true}},
			{0, 0, Decision{OK: true}},
			{0, 0, Decision{RetryAfter: time.Second}},
			{5 * second, 0, Decision{OK: true}},
		}},
		{"bytes decide", Limit{Messages: 1000, Bytes: 100, Burst: time.Second}, []step{
			{0, 60, Decision{OK: true}},
			{0, 60, Decision{RetryAfter: 200 * time.Millisecond, Bytes: true}},
			{second / 5, 60, Decision{OK: true}},
		}},
		{"a refused request takes nothing", Limit{Messages: 2, Bytes: 100, Burst: time.Second}, []step{
			{0, 100, Decision{OK: true}},
			{0, 100, Decision{RetryAfter: time.Second, Bytes: true}},
			{0, 0, Decision{OK: true}},
		}},
		{"larger than the bucket", Limit{Bytes: 100, Burst: time.Second}, []step{
			{0, 300, Decision{OK: true}},
			{0, 1, Decision{RetryAfter: 2*time.Second + 10*time.Millisecond, Bytes: true}},
			{3 * second, 300, Decision{OK: true}},
		}},
		{"late clock is held", Limit{Messages: 1}, []step{
			{second, 0, Decision{OK: true}},
			{second / 2, 0, Decision{RetryAfter: time.Second}},
		}},
		{"stepped clock moves the bucket", Limit{Messages: 1}, []step{
			{3600 * second, 0, Decision{OK: true}},
			{0, 0, Decision{RetryAfter: time.Second}},
			{second, 0, Decision{OK: true}},
		}},
		{"absurdly slow rate does not overflow", Limit{Bytes: 1e-9, Messages: 1e-9, Burst: time.Hour}, []step{
			{0, math.MaxInt32, Decision{OK: true}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := NewBucket(tt.limit)
			for i, s := range tt.steps {
				if got := b.Take(s.at, s.bytes); got != s.want {
					t.Fatalf("step %d: got %+v, want %+v", i, got, s.want)
				}
			}
		})
	}
}

func TestBucketConcurrent(t *testing.T) {
	const each, workers = 5000, 8
	b := NewBucket(Limit{Messages: 1000, Burst: time.Second})
	var clock, admitted atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range each {
				if b.Take(clock.Add(int64(25*time.Microsecond)), 1).OK {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	// 40,000 requests over one second of fake time: the burst and one second of rate.
	if got := admitted.Load(); got < 1990 || got > 2001 {
		t.Fatalf("admitted %d, want about 2000", got)
	}
}

func TestTakeAllocates(t *testing.T) {
	b := NewBucket(Limit{Messages: 10, Bytes: 1000, Burst: time.Second})
	now := int64(0)
	if n := testing.AllocsPerRun(1000, func() { now += 1e7; b.Take(now, 100) }); n != 0 {
		t.Fatalf("got %v allocations, want 0", n)
	}
}

func BenchmarkTake(b *testing.B) {
	bucket := NewBucket(Limit{Messages: 1e6, Bytes: 1e9, Burst: time.Second})
	b.ReportAllocs()
	now := int64(0)
	for b.Loop() {
		now += 1000
		bucket.Take(now, 256)
	}
}
