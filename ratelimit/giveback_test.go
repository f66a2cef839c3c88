package ratelimit

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestGiveBackLosesNothing: a bucket of which takes were given back decides as one that
// never saw them, at every later moment, whatever was taken in between.
func TestGiveBackLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLimit(t)
		b, plain := NewBucket(l), NewBucket(l)
		now := rapid.Int64Range(0, 1e18).Draw(t, "start")
		b.Take(now, 0)
		plain.Take(now, 0)
		for range rapid.IntRange(1, 100).Draw(t, "requests") {
			now += rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "pause")
			size := rapid.IntRange(0, 1<<20).Draw(t, "size")
			if rapid.Bool().Draw(t, "given back") {
				b.GiveBack(b.Take(now, size), size)
				continue
			}
			if got, want := b.Take(now, size), plain.Take(now, size); got != want {
				t.Fatalf("Take(%d) = %+v, without the others %+v", size, got, want)
			}
		}
	})
}

// TestGiveBackAfterOthersTook: what others took in between stays taken.
func TestGiveBackAfterOthersTook(t *testing.T) {
	b := NewBucket(Limit{Messages: 4, Burst: time.Second})
	for range 4 { // the second is given back after the third was taken
		if !b.Take(0, 0).OK {
			t.Fatal("refused within the burst")
		}
	}
	b.GiveBack(Decision{OK: true}, 0)
	if !b.Take(0, 0).OK {
		t.Error("the place that was given back is not there")
	}
	if b.Take(0, 0).OK {
		t.Error("a place that nobody gave back is there")
	}
}

// TestLeft: as many as Left says pass, and no more.
func TestLeft(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limit{
			Messages: float64(rapid.IntRange(1, 1000).Draw(t, "messages")), Bytes: float64(rapid.IntRange(1, 1<<20).Draw(t, "bytes")),
			Burst: time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "burst")),
		}
		b := NewBucket(l)
		now := int64(0)
		for range rapid.IntRange(0, 20).Draw(t, "takes") {
			now += rapid.Int64Range(0, int64(time.Second)/4).Draw(t, "pause")
			b.Take(now, rapid.IntRange(0, 1<<16).Draw(t, "size"))
		}
		messages, bytes := b.Left(now)
		if bytes > 0 {
			c := cloneBucket(b)
			if messages > 0 && !c.Take(now, int(bytes)).OK {
				t.Fatalf("%d bytes are left and are refused", bytes)
			}
		}
		for i := range messages {
			if !b.Take(now, 0).OK {
				t.Fatalf("%d messages are left, number %d is refused", messages, i)
			}
		}
		if b.Take(now, 0).OK {
			t.Fatalf("%d messages were left, and one more passed", messages)
		}
	})
	if m, n := NewBucket(Limit{}).Left(0); m != -1 || n != -1 {
		t.Errorf("a bucket without limits has %d and %d left", m, n)
	}
}

// TestGiveBackOfAPart: a part of a bucket of the cluster gets back what was taken of it, its
// own burst and tokens given alike, and nothing beyond.
func TestGiveBackOfAPart(t *testing.T) {
	b, now, _ := spreadBucket(Limit{Messages: 500, Burst: 1200 * time.Millisecond})
	left := func() int64 {
		n, _ := b.Left(*now)
		return n
	}
	if left() != 100 {
		t.Errorf("%d are left of a new part, want the sixth of the burst", left())
	}
	for range 40 {
		d := b.Take(*now, 0)
		if !d.OK {
			t.Fatal("refused within the burst")
		}
		b.GiveBack(d, 0)
	}
	if left() != 100 || takeAll(b, now) != 100 || left() != 0 {
		t.Error("what was given back is not there, or more")
	}
	a, _, _ := b.report()
	b.apply(Lease{Key: a.Key, Extra: [dimensions]time.Duration{inMessages: 100 * time.Millisecond}}, int64(time.Second))
	if left() != 50 {
		t.Errorf("%d are left, want the 50 that were given", left())
	}
	for range 30 {
		if !b.Take(*now, 0).OK {
			t.Fatal("refused within what was given")
		}
	}
	for range 30 {
		b.GiveBack(Decision{OK: true}, 0)
	}
	if got := takeAll(b, now); got != 50 {
		t.Errorf("%d after 30 of 50 were given back, want 50", got)
	}
}
