package translog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// A log that cannot write says since when it is behind, and why, and is a fault after
// Patience; when it can, it is none.
func TestLogThatCannotWriteIsBehind(t *testing.T) {
	r := newRig(t)
	s, _ := r.serve(nil)
	r.publish(0, 10)
	awaitSize(t, s, 10)
	eventually(t, "nothing is behind", func() (bool, string) {
		st := s.States()[0]
		return st.Behind.IsZero() && st.Fault == nil, fmt.Sprintf("%+v", st)
	})
	js := r.js(system)
	stream, err := js.Stream(t.Context(), StreamLog)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.MaxBytes, cfg.Discard = int64(stream.CachedInfo().State.Bytes)+1, jetstream.DiscardNew // full
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	r.publish(10, 400)
	eventually(t, "the log is behind", func() (bool, string) {
		st := s.States()[0]
		return !st.Behind.IsZero() && st.Fault != nil, fmt.Sprintf("%+v", st)
	})
	st := s.States()[0]
	if err := st.Trouble(st.Behind.Add(Patience - time.Second)); err != nil {
		t.Errorf("a fault at once: %v", err)
	}
	if err := st.Trouble(st.Behind.Add(Patience + time.Second)); err == nil || !strings.Contains(err.Error(), "maximum bytes") {
		t.Errorf("after %s: %v", Patience, err)
	}
	since := st.Behind
	eventually(t, "it tries again", func() (bool, string) {
		now := s.States()[0]
		return now.Failures > st.Failures+1, fmt.Sprintf("%+v", now)
	})
	if now := s.States()[0]; !now.Behind.Equal(since) || now.Lag() != 390 {
		t.Errorf("trying again changed it from %s to %+v", since, now)
	}
	cfg.MaxBytes = 64 << 20
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	awaitSize(t, s, 400)
	eventually(t, "nothing is behind", func() (bool, string) {
		st := s.States()[0]
		return st.Behind.IsZero() && st.Fault == nil, fmt.Sprintf("%+v", st)
	})
}

// The share of one log is its own: when it is used up, that log stands and says so, and
// another goes on.
func TestShareOfOneLogIsItsOwn(t *testing.T) {
	r := newRig(t)
	r.makeStream("shop", jetstream.StreamConfig{Name: "PAYMENTS", Subjects: []string{"payments.>"}})
	s, _ := r.serve(nil)
	small := orders
	small.Room = 8 * storedTile
	other := Source{Tenant: "shop", Account: "shop", Stream: "PAYMENTS", Room: 8 * storedTile}
	s.Set([]Source{small, other})
	r.publish(0, 20*tlog.TileWidth)
	eventually(t, "the share is used up", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, errRoom) && !st.Behind.IsZero(), fmt.Sprintf("%+v", st)
	})
	st := s.States()[0]
	if err := st.Trouble(st.Behind.Add(Patience + time.Second)); err == nil || !strings.Contains(err.Error(), "raise maxBytes") {
		t.Errorf("health: %v", err)
	}
	js := r.js("shop")
	for range 10 {
		if _, err := js.Publish(t.Context(), "payments.x", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the other log", func() (bool, string) {
		st := s.States()[1]
		return st.Size == 10 && st.Fault == nil, fmt.Sprintf("%+v", st)
	})
	small.Room = 0
	s.Set([]Source{small, other})
	awaitSize(t, s, 20*tlog.TileWidth)
}

// Tiles whose events have all aged out make way, so a log goes on for ever in its share.
// What needs them says so, and is no fault.
func TestOldTilesMakeWay(t *testing.T) {
	r := newRig(t)
	r.updateStream(keeping(4 * time.Second))
	s, stop := r.serve(nil)
	small := orders
	small.Room = 12 * storedTile
	s.Set([]Source{small})
	const batch = 6 * tlog.TileWidth
	var old *tlog.Note
	n := 0
	for range 4 { // twice what there is room for
		r.publish(n, n+batch)
		n += batch
		note := awaitSize(t, s, int64(n))
		awaitSample(t, s, &note.Origin, uint64(n)+1)
		r.awaitMessages(0)
		eventually(t, "it is noted that all aged out", func() (bool, string) {
			a, _, err := s.ages(t.Context(), &note.Origin)
			return err == nil && a.Gone > uint64(n), fmt.Sprintf("%+v, %v", a, err)
		})
		if st := s.States()[0]; st.Used > small.Room || st.Trouble(time.Now()) != nil {
			t.Errorf("%+v", st)
		}
		old = note
	}
	r.updateStream(keeping(time.Hour))
	stop()
	s, _ = r.serve(nil)
	s.Set([]Source{small})
	r.publish(n, n+batch)
	note := awaitSize(t, s, int64(n+batch))
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding != nil || got.Aged != uint64(n) || got.Compared != batch || got.Unproven != 0 {
		t.Errorf("verify: %+v, %+v", got, got.Finding)
	}
	a, _, err := s.ages(t.Context(), &note.Origin)
	if err != nil || a.LetGo == 0 || a.LetGo > int64(n) {
		t.Errorf("%+v, %v", a, err)
	}
	if m, _, err := s.archive.tile(t.Context(), &note.Origin, 0, 0); err != nil || m != nil {
		t.Errorf("the oldest tile is there: %d bytes, %v", len(m), err)
	}
	checkProof(t, r, s, uint64(n)+1, uint64(n)+10)
	cp := old.Checkpoint
	cp.Size = 100 // a checkpoint in the middle of a tile that has gone
	if _, err := s.Consistency(t.Context(), "shop", "ORDERS", &cp, &note.Checkpoint); !errors.Is(err, ErrLetGo) {
		t.Errorf("consistency over what has gone: %v", err)
	}
	if proof, err := s.Consistency(t.Context(), "shop", "ORDERS", &old.Checkpoint, &note.Checkpoint); err != nil {
		t.Errorf("consistency with the last but one: %v", err)
	} else if err := tlog.CheckConsistency(&old.Checkpoint, &note.Checkpoint, proof); err != nil {
		t.Error(err)
	}
}

// No checkpoint is signed with a key that is not valid now.
func TestNoCheckpointWithAKeyThatIsNotValid(t *testing.T) {
	r := newRig(t)
	var ring atomic.Pointer[keyring.Ring]
	ring.Store(r.ring)
	s, _ := r.serve(func(c *Config) { c.Ring = ring.Load })
	r.publish(0, 10)
	before := awaitSize(t, s, 10)
	key, _ := r.ring.ByID(r.signer.KeyID())
	key.RevokedAt = time.Now()
	revoked, err := keyring.New(2, r.ring.Issued(), r.ring.Expires(), []keyring.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	ring.Store(revoked)
	r.publish(10, 20)
	eventually(t, "the fault", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, errKey), fmt.Sprintf("%+v", st)
	})
	after, _, err := s.Last(t.Context(), "shop", "ORDERS")
	if err != nil || after.Size != before.Size {
		t.Errorf("the log went on to %d leaves: %v", after.Size, err)
	}
	ring.Store(r.ring) // as if the key were one that is valid
	awaitSize(t, s, 20)
}

// The checkpoint of a key that was revoked proves nothing more: the log of a stream in which
// nothing happens gets another one too.
func TestCheckpointOfARevokedKeyIsRenewed(t *testing.T) {
	r := newRig(t)
	old, _ := r.ring.ByID(r.signer.KeyID())
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteServer, bytes.Repeat([]byte("n"), 32))
	if err != nil {
		t.Fatal(err)
	}
	next, err := signing.NewSigner(seed)
	if err != nil {
		t.Fatal(err)
	}
	var signer atomic.Pointer[signing.Signer]
	var ring atomic.Pointer[keyring.Ring]
	turn := func(version uint64, to *signing.Signer, revoked time.Time) {
		one, two := old, old
		one.RevokedAt, two.ID = revoked, next.KeyID()
		keys, err := keyring.New(version, r.ring.Issued(), r.ring.Expires(), []keyring.Key{one, two})
		if err != nil {
			t.Fatal(err)
		}
		ring.Store(keys)
		signer.Store(to)
	}
	turn(2, r.signer, time.Time{})
	s, stop := r.serve(func(c *Config) { c.Ring, c.Signer = ring.Load, signer.Load })
	r.publish(0, 10)
	renewed := func(size int64) {
		t.Helper()
		eventually(t, "a checkpoint by the new key", func() (bool, string) {
			note, _, err := s.Last(t.Context(), "shop", "ORDERS")
			if err != nil || note == nil || note.Size != size {
				return false, fmt.Sprintf("%+v, %v", note, err)
			}
			key, err := note.Verify(ring.Load())
			return err == nil && key.ID == next.KeyID(), fmt.Sprintf("by %s, %v", key.ID, err)
		})
	}
	awaitSize(t, s, 10)
	turn(3, next, time.Now())
	renewed(10)
	doc, err := s.Prove(t.Context(), "shop", "ORDERS", 3, 3)
	if err != nil {
		t.Fatal(err)
	}
	p, err := tlog.ParseProof(doc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(r.root, ring.Load()); err != nil {
		t.Error(err)
	}
	// The node was away when the key was revoked, and from before its last checkpoint on.
	turn(4, r.signer, time.Time{})
	r.publish(10, 20)
	note := awaitSize(t, s, 20)
	stop()
	turn(5, next, note.Time.Add(-time.Millisecond))
	s, _ = r.serve(func(c *Config) { c.Ring, c.Signer = ring.Load, signer.Load })
	renewed(20)
}

// lineCount counts the lines that tell of a checkpoint from the future.
type lineCount struct{ n atomic.Int64 }

func (c *lineCount) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(tlog.ErrFuture.Error())) {
		c.n.Add(1)
	}
	return len(b), nil
}

// A checkpoint from the future is no base to go on from: its time would be that of all
// that follow.
func TestCheckpointFromTheFutureIsNotContinued(t *testing.T) {
	r := newRig(t)
	r.publish(0, 10)
	s, stop := r.serve(nil)
	note := awaitSize(t, s, 10)
	stop()
	cp := note.Checkpoint
	cp.Time = time.Now().Add(30 * time.Minute).UTC().Truncate(time.Millisecond)
	raw, err := cp.Sign(r.signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.js(system).Publish(t.Context(), SubjectCheckpoint("shop", "ORDERS"), raw); err != nil {
		t.Fatal(err)
	}
	var told lineCount
	s, _ = r.serve(func(c *Config) { c.Log = zerolog.New(&told) })
	eventually(t, "the fault, three times", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, tlog.ErrFuture) && st.Failures >= 3, fmt.Sprintf("%+v", st)
	})
	if n := told.n.Load(); n != 1 {
		t.Errorf("it is told in %d lines of the log, once is enough", n)
	}
	if err := s.Restart(t.Context(), "shop", "ORDERS"); err != nil {
		t.Fatal(err)
	}
	anew := awaitSize(t, s, 10)
	if anew.Origin.String() == note.Origin.String() || anew.CheckTime(time.Now()) != nil {
		t.Errorf("the new log: %s", anew.Bytes())
	}
}

// AUDIT may take no checkpoints for a while: the log goes on, says so, and catches up.
func TestLogGoesOnWithoutHistory(t *testing.T) {
	r := newRig(t)
	js := r.js(system)
	if err := js.DeleteStream(t.Context(), StreamAudit); err != nil {
		t.Fatal(err)
	}
	s, _ := r.serve(func(c *Config) { c.HistoryEvery = time.Millisecond })
	for i := range 3 {
		r.publish(100*i, 100*i+100)
		awaitSize(t, s, int64(100*i+100))
	}
	eventually(t, "it says so", func() (bool, string) {
		st := s.States()[0]
		return st.Unkept != nil && st.Fault == nil && st.Leading, fmt.Sprintf("%+v", st)
	})
	st := s.States()[0]
	if err := st.Trouble(st.UnkeptSince.Add(Patience + time.Second)); err == nil || !strings.Contains(err.Error(), "AUDIT") {
		t.Errorf("health: %v", err)
	}
	r.makeStream(system, jetstream.StreamConfig{Name: StreamAudit, Subjects: []string{"audit.>"}})
	eventually(t, "it catches up", func() (bool, string) {
		st := s.States()[0]
		return st.Unkept == nil, fmt.Sprintf("%+v", st)
	})
}

// A node that comes back with an earlier state of its volume does not sign a second
// history: the sink knows better.
func TestStoreThatWasPutBackIsSeen(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "checkpoints")
	withSink := func(c *Config) { c.Sink, c.SinkEvery = file, 10*time.Millisecond }
	inSink := func(n int64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d leaves in the sink", n), func() (bool, string) {
			size := int64(0)
			f, err := os.Open(file)
			if err != nil {
				return false, err.Error()
			}
			defer f.Close()
			_, err = tlog.ScanNotes(f, func(n *tlog.Note) error { size = n.Size; return nil })
			return size == n, fmt.Sprintf("%d, %v", size, err)
		})
	}
	r.publish(0, 100)
	s, stop := r.serve(withSink)
	awaitSize(t, s, 100)
	stop()
	r.end()
	snapshot := t.TempDir()
	if err := os.CopyFS(snapshot, os.DirFS(r.dir)); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.publish(100, 200)
	s, stop = r.serve(withSink)
	awaitSize(t, s, 200)
	inSink(200)
	stop()
	r.end()
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(r.dir, os.DirFS(snapshot)); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.publish(1000, 1150)
	s, stop = r.serve(withSink)
	stands := func(says string, size int64) {
		t.Helper()
		eventually(t, "the fault", func() (bool, string) {
			st := s.States()[0]
			return errors.Is(st.Fault, ErrDisagrees) && strings.Contains(st.Fault.Error(), says) && s.Fault() != nil, fmt.Sprintf("%+v", st)
		})
		if note, _, err := s.Last(t.Context(), "shop", "ORDERS"); err != nil || note.Size != size {
			t.Errorf("the log has gone on to %d leaves, %v", note.Size, err)
		}
	}
	stands("put back", 100)
	stop()
	// Without the sink nobody knew, and the second history has become the longer one.
	s, stop = r.serve(nil)
	awaitSize(t, s, 250)
	stop()
	s, _ = r.serve(withSink)
	stands("another history", 250)
	if err := s.Restart(t.Context(), "shop", "ORDERS"); err != nil {
		t.Fatal(err)
	}
	awaitSize(t, s, 250)
	eventually(t, "the new log goes on", func() (bool, string) {
		st := s.States()[0]
		return st.Fault == nil && st.Leading, fmt.Sprintf("%+v", st)
	})
}

// Logs that are set while the service shuts down: nothing is left behind, and nothing
// races.
func TestSetDuringShutdown(t *testing.T) {
	r := newRig(t)
	for range 20 {
		s, err := New(r.config())
		if err != nil {
			t.Fatal(err)
		}
		var both sync.WaitGroup
		both.Go(func() {
			for i := range 20 {
				s.Set([]Source{{Tenant: "shop", Account: "shop", Stream: fmt.Sprint("S", i)}})
			}
		})
		both.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patient)
			defer cancel()
			if err := s.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
	}
}

// A part of a checkpoint at the end of the sink does not spoil the next one, and several
// logs in one file are told apart.
func TestTornSink(t *testing.T) {
	r := newRig(t)
	r.publish(0, 10)
	file := filepath.Join(t.TempDir(), "checkpoints")
	s, stop := r.serve(func(c *Config) { c.Sink = file })
	note := awaitSize(t, s, 10)
	awaitState(t, s, 10) // now the sink has it, too
	stop()
	other := note.Checkpoint
	other.Origin.Tenant, other.Size = "else", 5000
	raw, err := other.Sign(r.signer)
	if err != nil {
		t.Fatal(err)
	}
	whole := readFile(t, file)
	torn := append(append(append([]byte{}, whole...), raw...), whole[:70]...)
	if err := os.WriteFile(file, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	r.publish(10, 20)
	s, stop = r.serve(func(c *Config) { c.Sink = file })
	awaitSize(t, s, 20)
	stop()
	var sizes []int64
	n, err := tlog.ScanNotes(strings.NewReader(string(readFile(t, file))), func(n *tlog.Note) error {
		sizes = append(sizes, n.Size)
		return nil
	})
	if err != nil || n != 1 || len(sizes) != 3 || sizes[0] != 10 || sizes[1] != 5000 || sizes[2] != 20 {
		t.Errorf("sizes %v, %d torn, %v", sizes, n, err)
	}
}

// TestBeginningWriterHandsOn: the sink and AUDIT get a checkpoint whose writer ended before
// it had brought it there, also if no event follows; and they get it once.
func TestBeginningWriterHandsOn(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "checkpoints")
	kept := func() uint64 {
		st, err := r.js(system).Stream(t.Context(), StreamAudit)
		if err != nil {
			t.Fatal(err)
		}
		return st.CachedInfo().State.Msgs
	}
	r.publish(0, 10)
	s, stop := r.serve(nil) // no sink; AUDIT gets the first checkpoints, and the next in an hour
	awaitSize(t, s, 10)
	eventually(t, "AUDIT has a checkpoint of ten", func() (bool, string) { return kept() == 2, fmt.Sprint(kept()) })
	r.publish(10, 20)
	note := awaitSize(t, s, 20)
	stop()
	if kept() != 2 {
		t.Fatalf("AUDIT has %d checkpoints", kept())
	}
	for range 2 {
		s, stop = r.serve(func(c *Config) { c.Sink = file })
		awaitState(t, s, 20)
		eventually(t, "AUDIT has the last one", func() (bool, string) { return kept() == 3, fmt.Sprint(kept()) })
		stop()
		if got := readFile(t, file); !bytes.Equal(got, note.Bytes()) {
			t.Fatalf("the sink has\n%s", got)
		}
	}
	if kept() != 3 {
		t.Errorf("AUDIT has %d checkpoints", kept())
	}
}

// LOG alone is put back, and nobody has a sink: AUDIT still knows better.
func TestLogThatWasPutBackBehindAudit(t *testing.T) {
	r := newRigKeeping(t, -1)
	s, stop := r.serve(func(c *Config) { c.HistoryEvery = time.Millisecond })
	r.publish(0, 100)
	old := awaitSize(t, s, 100)
	r.publish(100, 200)
	note := awaitSize(t, s, 200)
	l, err := s.find("shop", "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "AUDIT has the checkpoint", func() (bool, string) {
		n := l.history(t.Context())
		return n != nil && n.Size == note.Size, fmt.Sprintf("%+v", n)
	})
	stop()
	if _, err := r.js(system).Publish(t.Context(), SubjectCheckpoint("shop", "ORDERS"), old.Bytes()); err != nil {
		t.Fatal(err)
	}
	s, _ = r.serve(nil)
	eventually(t, "the fault", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, ErrDisagrees) && strings.Contains(st.Fault.Error(), "AUDIT has a checkpoint of 200"), fmt.Sprintf("%+v", st)
	})
}

// What has left the stream cannot be proven any more; that is not a disagreement.
func TestProofOfWhatHasAgedOut(t *testing.T) {
	r := newRig(t)
	r.updateStream(keeping(3 * time.Second))
	s, _ := r.serve(nil)
	r.publish(0, 10)
	awaitSize(t, s, 10)
	r.awaitMessages(0)
	if _, err := s.Prove(t.Context(), "shop", "ORDERS", 3, 5); !errors.Is(err, ErrLetGo) || errors.Is(err, ErrDisagrees) {
		t.Errorf("got %v", err)
	}
}
