package signing

import (
	"fmt"
	"testing"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

var benchSubject = []byte(testSubject)

func TestAllocations(t *testing.T) {
	s := testSigner(t, fillBroker)
	events := make([]*cloudevent.Event, 64)
	for i := range events {
		events[i] = testEvent(i)
	}
	events[1].Time = []byte("2026-11-22T08:30:00.120+01:00")
	var b Batch
	var out []byte
	add := func() {
		b.Reset()
		for _, e := range events {
			b.Add(e, benchSubject)
		}
	}
	write := func() {
		for i := range events {
			out = b.AppendAttestation(out[:0], i)
		}
	}
	add()
	b.Sign(s)
	write()
	if got := testing.AllocsPerRun(100, add); got != 0 {
		t.Errorf("Add of 64 events: %v allocations, want 0", got)
	}
	b.Sign(s)
	if got := testing.AllocsPerRun(100, write); got != 0 {
		t.Errorf("AppendAttestation of 64 events: %v allocations, want 0", got)
	}
	if got := testing.AllocsPerRun(100, func() { b.Sign(s) }); got != 0 && !raceEnabled {
		t.Errorf("Sign of 2 trees: %v allocations, want 0", got)
	}
	for i, e := range events {
		e.SetExt([]byte(wire.AttrAttestation), b.AppendAttestation(nil, i))
	}
	v := testVerifier(testRing(t))
	verify := func() {
		for _, e := range events {
			if _, err := v.Verify(e, testSubject); err != nil {
				t.Fatal(err)
			}
		}
	}
	verify()
	if got := testing.AllocsPerRun(20, verify); got > 1 && !raceEnabled { // a pool may be emptied
		t.Errorf("Verify of 64 events under known roots: %v allocations, want 0", got)
	}
}

// BenchmarkAdd is the hashing of one event of 256 B.
func BenchmarkAdd(b *testing.B) {
	for name, event := range map[string]func(int) *cloudevent.Event{"plain": plainEvent, "full": testEvent} {
		b.Run(name, func(b *testing.B) {
			events := make([]*cloudevent.Event, 32)
			for i := range events {
				events[i] = event(i)
			}
			var batch Batch
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if i%32 == 0 {
					batch.Reset()
				}
				batch.Add(events[i%32], benchSubject)
				i++
			}
		})
	}
}

// BenchmarkBatch32 is everything a broker does per event of a full batch; ns/event
// counts.
func BenchmarkBatch32(b *testing.B) {
	s := testSigner(b, fillBroker)
	events := make([]*cloudevent.Event, 32)
	for i := range events {
		events[i] = plainEvent(i)
	}
	var batch Batch
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		for _, e := range events {
			batch.Add(e, benchSubject)
		}
		batch.Sign(s)
		for i := range events {
			out = batch.AppendAttestation(out[:0], i)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/event")
	b.ReportMetric(float64(len(out)), "attr-bytes")
}

func BenchmarkBatch1(b *testing.B) {
	s, e := testSigner(b, fillBroker), plainEvent(0)
	var batch Batch
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		batch.Reset()
		batch.Add(e, benchSubject)
		batch.Sign(s)
		out = batch.AppendAttestation(out[:0], 0)
	}
}

// BenchmarkVerify: single, an event of a batch whose root is known, and the whole
// batch with its root seen for the first time.
func BenchmarkVerify(b *testing.B) {
	s, ring := testSigner(b, fillBroker), testRing(b)
	single := plainEvent(0)
	attest(b, s, testSubject, single)
	events := make([]*cloudevent.Event, 32)
	for i := range events {
		events[i] = plainEvent(i)
	}
	attest(b, s, testSubject, events...)
	check := func(b *testing.B, v *Verifier, e *cloudevent.Event) {
		if _, err := v.Verify(e, testSubject); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("single", func(b *testing.B) {
		v := testVerifier(ring)
		b.ReportAllocs()
		for b.Loop() {
			check(b, v, single)
		}
	})
	b.Run("root-known", func(b *testing.B) {
		v := testVerifier(ring)
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			check(b, v, events[i%32])
			i++
		}
	})
	b.Run("batch32-root-new", func(b *testing.B) {
		v := testVerifier(ring)
		b.ReportAllocs()
		for b.Loop() {
			v.roots = newRoots(8)
			for _, e := range events {
				check(b, v, e)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/32, "ns/event")
	})
}

// The cost per event of producer signatures: alone and with 31 others, and of checking
// them, where the root of a batch was seen before.
func BenchmarkProducer(b *testing.B) {
	p, v := testProducer(b, fillEvents), testProducerVerifier(producerRing(b))
	for _, n := range []int{1, MaxProducerBatch} {
		events := make([]*cloudevent.Event, n)
		for i := range events {
			events[i] = unsigned(i)
		}
		var batch ProducerBatch
		var out []byte
		b.Run(fmt.Sprint("sign/batch=", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < b.N; i += n {
				batch.Reset()
				for _, e := range events {
					if _, err := batch.Add(e, benchSubject); err != nil {
						b.Fatal(err)
					}
				}
				batch.Sign(p)
				for j := range events {
					out = batch.AppendMaterial(out[:0], j)
				}
			}
		})
		produce(b, p, testSubject, events...)
		b.Run(fmt.Sprint("verify/batch=", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; i < b.N; i += n {
				for _, e := range events {
					if _, err := v.Verify(e, testSubject); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
		for _, e := range events {
			e.DelExt(wire.AttrDSSE)
		}
	}
}
