package translog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/signing/tlog"
)

func TestLogFollowsStream(t *testing.T) {
	r := newRig(t)
	r.publish(0, 700)
	sinkFile := filepath.Join(t.TempDir(), "checkpoints")
	s, stop := r.serve(func(c *Config) { c.Sink, c.SinkEvery = sinkFile, 10*time.Millisecond })
	note := awaitSize(t, s, 700)
	if _, err := note.Verify(r.ring); err != nil || note.First != 1 || note.Origin.Cluster != "test" {
		t.Fatalf("checkpoint: %v\n%s", err, note.Bytes())
	}
	r.publish(700, 1000)
	later := awaitSize(t, s, 1000)
	if got := verifyAll(t, s, &later.Checkpoint); got.Finding != nil || got.Compared != 1000 {
		t.Errorf("verify: %+v, %+v", got, got.Finding)
	}
	proof, err := s.Consistency(t.Context(), "shop", "ORDERS", &note.Checkpoint, &later.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if err := tlog.CheckConsistency(&note.Checkpoint, &later.Checkpoint, proof); err != nil {
		t.Error(err)
	}
	checkProof(t, r, s, 1, 1)
	checkProof(t, r, s, 500, 1000)
	if seq, _, err := s.Find(t.Context(), "shop", "ORDERS", "event-41", 1); err != nil || seq != 42 {
		t.Errorf("find: sequence %d, %v", seq, err)
	}
	if seq, next, err := s.Find(t.Context(), "shop", "ORDERS", "nobody", 1); err != nil || seq != 0 || next != 0 {
		t.Errorf("find nobody: sequence %d, %d, %v", seq, next, err)
	}
	for _, r := range [][2]uint64{{2, 1}, {1, 1 + tlog.MaxRange}} {
		if _, err := s.Prove(t.Context(), "shop", "ORDERS", r[0], r[1]); !errors.Is(err, tlog.ErrMalformed) {
			t.Errorf("%d to %d: %v", r[0], r[1], err)
		}
	}
	if _, err := s.Prove(t.Context(), "shop", "ORDERS", 1001, 1001); !errors.Is(err, tlog.ErrSize) {
		t.Errorf("an event that is not logged yet: %v", err)
	}
	if _, err := s.Prove(t.Context(), "shop", "OTHER", 1, 1); !errors.Is(err, ErrNotLogged) {
		t.Errorf("a stream without a log: %v", err)
	}
	stop()
	kept := string(readFile(t, sinkFile))
	if !strings.HasSuffix(kept, string(later.Bytes())) {
		t.Errorf("the sink ends with %q", kept[max(0, len(kept)-300):])
	}
}

func checkProof(t *testing.T, r *rig, s *Service, first, last uint64) {
	t.Helper()
	doc, err := s.Prove(t.Context(), "shop", "ORDERS", first, last)
	if err != nil {
		t.Fatal(err)
	}
	p, err := tlog.ParseProof(doc)
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Verify(r.root, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range v.Leaves {
		if want := fmt.Sprintf("event-%d", first-1+uint64(i)); l.Kind != tlog.Event || string(l.Event.ID) != want || l.Unattested != nil {
			t.Errorf("sequence %d: %v, want %s; %v", l.Sequence, l.Kind, want, l.Unattested)
		}
	}
}

// An idle log makes no checkpoints, and one while events flow at least each second.
func TestCheckpointsOnlyWhileEventsFlow(t *testing.T) {
	r := newRig(t)
	r.publish(0, 1)
	s, _ := r.serve(nil)
	awaitSize(t, s, 1)
	count := func() uint64 { return s.States()[0].Checkpoints }
	before := count()
	for end := time.After(3 * time.Second); ; { // two heartbeats and an idle check
		select {
		case <-time.After(50 * time.Millisecond):
			if now := count(); now != before {
				t.Fatalf("%d checkpoints of an idle log", now-before)
			}
			continue
		case <-end:
		}
		break
	}
	start := time.Now()
	for i := 1; time.Since(start) < 4*time.Second; i++ {
		r.publish(i, i+1)
	}
	if took := time.Since(start); count()-before < uint64(took.Seconds())-1 {
		t.Errorf("%d checkpoints in %s", count()-before, took)
	}
}

// A log goes on from its tiles, whatever the size was, and over removed sequences.
func TestLogGoesOnAfterRestart(t *testing.T) {
	r := newRig(t)
	n := 0
	var older *tlog.Note
	for round, more := range []int{3, 250, 3, 256, 600} {
		r.publish(n, n+more)
		n += more
		s, stop := r.serve(nil)
		note := awaitSize(t, s, int64(n))
		if older != nil {
			proof, err := s.Consistency(t.Context(), "shop", "ORDERS", &older.Checkpoint, &note.Checkpoint)
			if err != nil {
				t.Fatal(err)
			}
			if err := tlog.CheckConsistency(&older.Checkpoint, &note.Checkpoint, proof); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Compared != uint64(n) {
			t.Errorf("round %d: %+v %+v", round, got, got.Finding)
		}
		older = note
		stop()
	}
}

// Sequences that were removed before the log reached them are absent, in the middle and
// at the end; verify and proofs know them.
func TestRemovedBeforeLogged(t *testing.T) {
	r := newLooseRig(t)
	r.publish(0, 20)
	stream, err := r.js("shop").Stream(t.Context(), "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	for _, seq := range []uint64{5, 6, 19, 20} {
		if err := stream.DeleteMsg(t.Context(), seq); err != nil {
			t.Fatal(err)
		}
	}
	s, _ := r.serve(nil)
	note := awaitSize(t, s, 20)
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Compared != 16 || got.Absent != 4 {
		t.Errorf("%+v %+v", got, got.Finding)
	}
	doc, err := s.Prove(t.Context(), "shop", "ORDERS", 4, 7)
	if err != nil {
		t.Fatal(err)
	}
	p, err := tlog.ParseProof(doc)
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Verify(r.root, nil)
	if err != nil || v.Leaves[1].Kind != tlog.Absent || v.Leaves[2].Kind != tlog.Absent || v.Leaves[3].Kind != tlog.Event {
		t.Errorf("%v, %+v", err, v)
	}
	if st := s.States()[0]; st.Absent != 4 || st.Fault != nil {
		t.Errorf("state %+v", st)
	}
}

// A log of a part of a stream does not log what it writes there itself.
func TestLogOfAuditRecords(t *testing.T) {
	r := newRig(t)
	s, _ := r.serve(nil)
	s.Set([]Source{{Tenant: system, Account: system, Stream: StreamAudit, Filter: "audit.record.>"}})
	js := r.js(system)
	for i := range 30 {
		if _, err := js.Publish(t.Context(), "audit.record.shop", fmt.Appendf(nil, `{"record":%d}`, i)); err != nil {
			t.Fatal(err)
		}
		if i == 10 || i == 20 { // checkpoints come in between
			before := s.States()[0].Checkpoints
			eventually(t, "a checkpoint", func() (bool, string) {
				st := s.States()[0]
				return st.Checkpoints > before, fmt.Sprintf("%+v", st)
			})
		}
	}
	var last *jetstream.RawStreamMsg
	eventually(t, "all records logged", func() (bool, string) {
		st := s.States()[0]
		stream, err := js.Stream(t.Context(), StreamAudit)
		if err != nil {
			return false, err.Error()
		}
		if last, err = stream.GetLastMsgForSubject(t.Context(), "audit.record.shop"); err != nil {
			return false, err.Error()
		}
		return st.First > 0 && st.First+uint64(st.Size) > last.Sequence, fmt.Sprintf("%+v, last %d", st, last.Sequence)
	})
	if before := s.States()[0].Checkpoints; before < 2 {
		t.Errorf("%d checkpoints among the records", before)
	}
	before := s.States()[0].Checkpoints
	<-time.After(3 * checkpointEvery)
	if now := s.States()[0].Checkpoints; now != before {
		t.Errorf("its own checkpoints made %d more", now-before)
	}
	doc, err := s.Prove(t.Context(), system, StreamAudit, last.Sequence, last.Sequence)
	if err != nil {
		t.Fatal(err)
	}
	p, err := tlog.ParseProof(doc)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := p.Verify(r.root, nil); err != nil || v.Leaves[0].Kind != tlog.Message || string(v.Leaves[0].Data) != `{"record":29}` {
		t.Errorf("%v, %+v", err, v)
	}
}

func TestSinkThatCannotBeWrittenStopsStart(t *testing.T) {
	r := newRig(t)
	cfg := r.config()
	cfg.Sink = filepath.Join(t.TempDir(), "no", "folder")
	if _, err := New(cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
