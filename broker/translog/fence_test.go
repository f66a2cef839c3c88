package translog

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/signing/tlog"
)

// checkpoints reads all checkpoints of ORDERS, in the order of LOG.
func checkpoints(t *testing.T, js jetstream.JetStream) []*tlog.Note {
	t.Helper()
	cons, err := js.OrderedConsumer(t.Context(), StreamLog, jetstream.OrderedConsumerConfig{FilterSubjects: []string{SubjectCheckpoint("shop", "ORDERS")}})
	if err != nil {
		t.Fatal(err)
	}
	var out []*tlog.Note
	for {
		m, err := cons.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		n, err := tlog.ParseNote(m.Data())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
		if meta, err := m.Metadata(); err != nil {
			t.Fatal(err)
		} else if meta.NumPending == 0 {
			return out
		}
	}
}

// checkOneHistory checks that each checkpoint only appends to the one before it, and so
// that no two of equal size have different roots.
func checkOneHistory(t *testing.T, s *Service, all []*tlog.Note) {
	t.Helper()
	for i := 1; i < len(all); i++ {
		older, newer := &all[i-1].Checkpoint, &all[i].Checkpoint
		proof, err := s.Consistency(t.Context(), "shop", "ORDERS", older, newer)
		if err != nil {
			t.Fatalf("from %d to %d leaves: %v", older.Size, newer.Size, err)
		}
		if err := tlog.CheckConsistency(older, newer, proof); err != nil {
			t.Fatalf("checkpoint %d: %v", i, err)
		}
		if newer.Time.Before(older.Time) {
			t.Errorf("checkpoint %d: time goes back from %s to %s", i, older.Time, newer.Time)
		}
	}
}

// Three nodes that all believe to lead, all the time: one history comes of it, which
// goes on, whoever is fenced.
func TestWritersThatAllLeadDoNotFork(t *testing.T) {
	r := newRigKeeping(t, -1)
	var services []*Service
	for range 3 {
		s, _ := r.serve(nil)
		services = append(services, s)
	}
	n := 0
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); n += 50 {
		r.publish(n, n+50)
	}
	awaitSize(t, services[0], int64(n))
	all := checkpoints(t, r.js(system))
	checkOneHistory(t, services[0], all)
	fenced := uint64(0)
	for _, s := range services {
		fenced += s.States()[0].Failures
	}
	if fenced == 0 {
		t.Error("no writer was ever fenced: the test has proven nothing")
	}
	if got := verifyAll(t, services[1], &all[len(all)-1].Checkpoint); got.Finding != nil || got.Compared != uint64(n) {
		t.Errorf("verify: %+v %+v", got, got.Finding)
	}
	t.Logf("%d events, %d checkpoints, %d times fenced", n, len(all), fenced)
}

// A writer that was stopped in the middle of a checkpoint, tiles out and checkpoint not,
// wakes up after another has gone on: what it does then has no effect.
func TestWriterThatWakesUpLate(t *testing.T) {
	r := newRigKeeping(t, -1)
	r.publish(0, 100)
	var asleep atomic.Bool
	gate, in := make(chan struct{}), make(chan struct{}, 16)
	late, stopLate := r.serve(func(c *Config) {
		calls := 0 // the writer waits for storage before tiles, after them, and after the checkpoint
		c.Durable = func(context.Context) error {
			if calls++; asleep.Load() && calls%3 == 0 {
				in <- struct{}{}
				<-gate
			}
			return nil
		}
	})
	awaitSize(t, late, 100)
	asleep.Store(true)
	r.publish(100, 140)
	select {
	case <-in:
	case <-time.After(patient):
		t.Fatal("the writer did not come to its next checkpoint")
	}
	other, _ := r.serve(nil)
	r.publish(140, 400)
	awaitSize(t, other, 400)
	asleep.Store(false)
	close(gate)
	eventually(t, "the late writer was fenced", func() (bool, string) {
		st := late.States()[0]
		return st.Failures > 0, fmt.Sprintf("%+v", st)
	})
	r.publish(400, 500)
	note := awaitSize(t, other, 500)
	checkOneHistory(t, other, checkpoints(t, r.js(system)))
	if got := verifyAll(t, other, &note.Checkpoint); got.Finding != nil || got.Compared != 500 {
		t.Errorf("verify: %+v %+v", got, got.Finding)
	}
	stopLate()
}
