package audit

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// clock is one that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (r *journalRig) prune(j *Journal, s Stream, keep Retention) *Pruner {
	p := NewPruner(PrunerConfig{
		Journal: j, Keep: func(string) Retention { return keep }, Log: zerolog.Nop(),
		Verify: func(b *auditlog.Batch, tenant string) error { return b.Verify(tenant, r.ring) },
	})
	p.Attach(s)
	r.t.Cleanup(p.Detach)
	return p
}

// fill keeps n logins, each in a batch of its own.
func (r *journalRig) fill(j *Journal, from, n int) {
	r.t.Helper()
	for i := range n {
		r.must(j.Keep(r.t.Context(), login(from+i)))
	}
	r.settle(j)
}

// bytes is what the trail of the tenant shop has.
func (r *journalRig) bytes() (n int64) {
	r.t.Helper()
	for seq := uint64(1); ; {
		m, err := r.stream.Next(r.t.Context(), PrefixRecord+"shop.>", seq)
		r.must(err)
		if m == nil {
			return n
		}
		n, seq = n+size(m), m.Seq+1
	}
}

const quarter = 90 * 24 * time.Hour

func TestPruneBySize(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	r.fill(j, 0, 60)
	keep := Retention{MaxBytes: r.bytes() / 2, MaxAge: quarter}
	p := r.prune(j, r.stream, keep)
	pruned := func(more uint64) func() bool {
		return func() bool { return p.Stats().Size > more }
	}
	until(t, "something is pruned", pruned(0))
	for round := range 3 { // and again, with pruned records that are pruned
		had := p.Stats().Size
		r.fill(j, 1000*(round+1), 30)
		until(t, "more is pruned", pruned(had))
	}
	p.Detach()
	if n := r.bytes(); n > keep.MaxBytes*(fullPercent+5)/100 || n < keep.MaxBytes/2 {
		t.Errorf("%d bytes are there, %d may be", n, keep.MaxBytes)
	}
	records, report := r.read("shop", r.seal(j))
	if !report.OK || report.Chains[0].Pruned == 0 || report.Chains[0].Pruned != records[0].Seq-1 {
		t.Fatalf("%+v", report)
	}
	if s := p.Stats(); s.Age != 0 || s.Early != s.Size {
		t.Errorf("%+v: everything went before half of its time", s)
	}
}

func TestPruneByAge(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	var c clock
	j := r.open(func(cfg *JournalConfig) { cfg.Now = c.now })
	j.Attach(r.stream)
	c.ahead.Store(int64(-40 * time.Minute)) // the key of the rig is valid for an hour before and after now
	r.fill(j, 0, 5)
	c.ahead.Store(int64(-20 * time.Minute))
	r.fill(j, 5, 5)
	c.ahead.Store(0)
	p := r.prune(j, r.stream, Retention{MaxBytes: 1 << 20, MaxAge: 30 * time.Minute})
	until(t, "what is old is pruned", func() bool { return p.Stats().Age == 6 }) // with the first record of the chain
	p.Detach()
	records, report := r.read("shop", r.seal(j))
	if !report.OK || records[0].Detail != "number 5" || p.Stats().Early != 0 {
		t.Fatalf("from %q: %+v", records[0].Detail, report)
	}
	last := records[len(records)-1]
	from, end, ok := last.PrunedSpan()
	if !ok || last.Kind != auditlog.KindPruned || last.Rule != auditlog.PrunedAge || last.First != 1 || last.Last != 6 || last.Outcome != auditlog.OutcomeOK ||
		end.Sub(from) > time.Minute || c.now().Sub(end) < 30*time.Minute {
		t.Errorf("%+v", last)
	}

	// One message more than the record says.
	s, err := r.js.Stream(t.Context(), "AUDIT")
	r.must(err)
	m, err := r.stream.Next(t.Context(), RecordSubject("shop", "n1"), 1)
	r.must(err)
	r.must(s.DeleteMsg(t.Context(), m.Seq))
	_, report = r.read("shop")
	if report.OK || report.Faults[0].What != auditlog.FaultDeleted || report.Faults[0].Seq != 7 || report.Faults[0].Last != 7 {
		t.Fatalf("%+v", report.Faults)
	}
}

// TestPruneTightStream: what fills the stream beside the shares, such as a tenant that is
// gone, makes the shares smaller before nothing fits any more.
func TestPruneTightStream(t *testing.T) {
	r := newJournalRig(t, 128<<10)
	j := r.open(nil)
	j.Attach(r.stream)
	for n := 0; ; n += 10 {
		r.fill(j, n, 10)
		used, limit, err := r.stream.Used(t.Context())
		r.must(err)
		if used > limit/100*(fullPercent+2) {
			break
		}
	}
	p := r.prune(j, r.stream, Retention{MaxBytes: 192 << 10, MaxAge: quarter})
	until(t, "something is pruned", func() bool { return p.Stats().Size > 0 })
	p.Detach()
	if _, report := r.read("shop", r.seal(j)); !report.OK {
		t.Fatalf("%+v", report)
	}
	if n := r.bytes(); n > 192<<10*(goalPercent+5)/200 {
		t.Errorf("%d bytes are left", n)
	}
}

// TestPruneWhatIsNotWhole: what somebody has deleted does not go unseen with the rest.
func TestPruneWhatIsNotWhole(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	r.fill(j, 0, 20)
	s, err := r.js.Stream(t.Context(), "AUDIT")
	r.must(err)
	r.must(s.DeleteMsg(t.Context(), 3))
	p := r.prune(j, r.stream, Retention{MaxBytes: r.bytes() * 9 / 8, MaxAge: quarter})
	until(t, "something is pruned", func() bool { return p.Stats().Size > 0 })
	p.Detach()
	_, report := r.read("shop")
	if report.OK || report.Faults[0].What != auditlog.FaultDeleted || !strings.Contains(report.Faults[0].Detail, "not whole") {
		t.Fatalf("%+v", report.Faults)
	}
}

// halting takes everything but purges: as if the process had ended before them.
type halting struct {
	Stream
	asked atomic.Bool
}

func (h *halting) Purge(context.Context, string, uint64) error {
	h.asked.Store(true)
	return errors.New("the process has ended")
}

func TestEndBetweenRecordAndPurge(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	r.fill(j, 0, 20)
	keep := Retention{MaxBytes: r.bytes() * 9 / 8, MaxAge: quarter}
	h := &halting{Stream: r.stream}
	p := r.prune(j, h, keep)
	until(t, "the purge is tried", h.asked.Load)
	p.Detach()
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK || records[0].Seq != 1 || report.Chains[0].Pruned != 0 {
		t.Fatalf("before the purge: %+v", report)
	}
	said := records[len(records)-1]
	if said.Kind != auditlog.KindPruned {
		t.Fatalf("%+v", said)
	}
	r.close(j)

	j = r.open(nil)
	j.Attach(r.stream)
	keep.MaxBytes *= 100 // nothing is to go but what was said
	p = r.prune(j, r.stream, keep)
	until(t, "what was said is done", func() bool {
		m, err := r.stream.Next(t.Context(), RecordSubject("shop", "n1"), 1)
		r.must(err)
		b, err := auditlog.ParseBatch(m.Data)
		r.must(err)
		return b.Records[0].Seq == said.Last+1
	})
	p.Detach()
	records, report = r.read("shop", r.seal(j))
	if !report.OK || report.Chains[0].Pruned != said.Last || records[len(records)-1].Seq != said.Seq {
		t.Fatalf("after it: %+v", report)
	}
}

// TestForgedPrunedRecord: the node does not act on a record that it did not write, and
// a verifier does not take it for one.
func TestForgedPrunedRecord(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	r.fill(j, 0, 10)
	at, _ := j.Position("shop")
	r.close(j)
	m, err := r.stream.Next(t.Context(), RecordSubject("shop", "n1"), 4)
	r.must(err)
	b, err := auditlog.ParseBatch(m.Data)
	r.must(err)
	end := b.Last()
	other, _ := nodeKey(t)
	e := (&auditlog.Pruning{
		Chain: end.Chain, First: 1, Last: end.Seq, Hash: end.Hash, From: time.Now(), Until: time.Now(), Why: auditlog.PrunedSize,
	}).Entry(time.Now(), "shop")
	forged, _, _, err := auditlog.ResumeWriter("shop", at).Batch([]auditlog.Entry{e}, time.Now(), other)
	r.must(err)
	last, err := r.stream.Last(t.Context(), RecordSubject("shop", "n1"))
	r.must(err)
	_, err = r.stream.Publish(t.Context(), RecordSubject("shop", "n1"), last.Seq, forged)
	r.must(err)

	j = r.open(nil)
	j.Attach(r.stream)
	p := r.prune(j, r.stream, Retention{MaxBytes: 1 << 20, MaxAge: quarter})
	r.fill(j, 100, 1) // the node goes on in a new chain: the stream is not where it left it
	until(t, "the pruner has looked", func() bool { return p.looked.Load() > 1 })
	p.Detach()
	records, report := r.read("shop")
	if report.OK || records[0].Seq != 1 || report.Faults[0].What != auditlog.FaultForged {
		t.Fatalf("from %d: %+v", records[0].Seq, report.Faults)
	}
}

// TestShutdownOfPruner: it ends although the stream does not answer.
func TestShutdownOfPruner(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	p := r.prune(j, silent{r.stream}, Retention{MaxBytes: 1 << 20, MaxAge: quarter})
	p.Detach()
}

type silent struct{ Stream }

func (silent) Used(ctx context.Context) (int64, int64, error) {
	<-ctx.Done()
	return 0, 0, ctx.Err()
}

// TestPruneUnderAnInvalidKey: batches whose heads were signed while the key was not valid
// are pruned once a valid head covers them, not as broken ones, and not before.
func TestPruneUnderAnInvalidKey(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	var c clock
	j := r.open(func(cfg *JournalConfig) { cfg.Now = c.now })
	j.Attach(r.stream)
	r.fill(j, 0, 5)
	c.ahead.Store(int64(48 * time.Hour)) // the clock jumps, and is set back
	r.fill(j, 5, 30)
	if _, report := r.read("shop"); report.OK {
		t.Fatal("heads of no valid key prove the trail")
	}
	keep := Retention{MaxBytes: r.bytes() / 2, MaxAge: quarter}
	p := r.prune(j, r.stream, keep)
	until(t, "the pruner has looked", func() bool { return p.looked.Load() > 1 })
	if s := p.Stats(); s.Size > 6 { // the first five may go: they are under valid heads
		t.Fatalf("%+v: what nothing proves was pruned", s)
	}
	c.ahead.Store(0)
	r.fill(j, 35, 5)
	until(t, "what is covered is pruned", func() bool { return p.Stats().Size > 20 })
	p.Detach()
	r.settle(j)
	records, report := r.read("shop", r.seal(j))
	if !report.OK || report.Chains[0].Pruned == 0 {
		t.Fatalf("from %d: %+v", records[0].Seq, report)
	}
}

// TestClockThatIsAhead: a clock that jumps, or that is wrong from the start, prunes nothing
// for its age, and says so; records go when the time is what it was said to be.
func TestClockThatIsAhead(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	var c clock
	open := func() *Journal { return r.open(func(cfg *JournalConfig) { cfg.Now = c.now }) }
	keep := Retention{MaxBytes: 1 << 20, MaxAge: quarter}
	looked := func(p *Pruner) {
		t.Helper()
		n := p.looked.Load()
		until(t, "the pruner has looked", func() bool { return p.looked.Load() > n+1 })
	}
	j := open()
	j.Attach(r.stream)
	r.fill(j, 0, 5)
	p := r.prune(j, r.stream, keep)
	looked(p)
	const year = 365 * 24 * time.Hour
	refused := func(what string) {
		t.Helper()
		looked(p)
		if err := p.Health(); err == nil || !strings.Contains(err.Error(), clockFile) || p.Stats().Age != 0 {
			t.Fatalf("%s: health %v, %+v", what, err, p.Stats())
		}
	}
	c.ahead.Store(int64(year))
	r.must(j.Keep(t.Context(), login(5))) // a record of that time is no proof of it
	r.settle(j)
	refused("a jump while it runs")
	p.Detach()
	r.close(j)
	j = open()
	j.Attach(r.stream)
	p = r.prune(j, r.stream, keep)
	refused("a start with a clock that is ahead")
	c.ahead.Store(0)
	until(t, "the clock is right again", func() bool { return p.Health() == nil })
	p.Detach()
	r.close(j)

	// A file that nobody can read stops that too, and what is pruned for its size goes on.
	r.must(os.WriteFile(filepath.Join(r.dir, clockFile), []byte("{"), 0o600))
	j = open()
	j.Attach(r.stream)
	r.fill(j, 6, 20)
	small := keep
	small.MaxBytes = r.bytes()
	p = r.prune(j, r.stream, small)
	until(t, "it is pruned for its size", func() bool { return p.Stats().Size > 0 })
	if err := p.Health(); err == nil || !strings.Contains(err.Error(), "not readable") {
		t.Errorf("health: %v", err)
	}
	p.Detach()
	r.settle(j)
	r.close(j)

	// The node was off for a year, and the operator says so.
	r.must(os.Remove(filepath.Join(r.dir, clockFile)))
	c.ahead.Store(int64(year))
	r.ring = longRing(t, r.signer)
	j = open()
	j.Attach(r.stream)
	r.fill(j, 26, 1)
	p = r.prune(j, r.stream, keep)
	until(t, "what is old is pruned", func() bool { return p.Stats().Age > 0 })
	p.Detach()
}

// longRing has the key of s for years.
func longRing(t *testing.T, s *signing.Signer) *keyring.Ring {
	t.Helper()
	now := time.Now()
	ring, err := keyring.New(2, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{{
		ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(3 * 365 * 24 * time.Hour),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// TestClockOfOtherNodes: a node that has nothing to go by believes what the others have
// signed.
func TestClockOfOtherNodes(t *testing.T) {
	now := time.Now()
	p := &Pruner{cfg: PrunerConfig{Clock: func() error { return nil }}}
	for _, tt := range []struct {
		name          string
		known, others time.Duration // before now; 0: nothing is known
		age           time.Duration
		fault, allows bool
	}{
		{"a new node by itself", 0, 0, quarter, false, true},
		{"the others say the same", 0, time.Hour, quarter, false, true},
		{"the others are a year behind", 0, 365 * 24 * time.Hour, quarter, true, false},
		{"it was off, and the others were not", 60 * 24 * time.Hour, time.Hour, quarter, false, true},
		{"all were off", 60 * 24 * time.Hour, 60 * 24 * time.Hour, quarter, true, false},
		{"all were off for a fortnight", 14 * 24 * time.Hour, 14 * 24 * time.Hour, quarter, false, false},
		{"all were off for a weekend", 2 * 24 * time.Hour, 2 * 24 * time.Hour, quarter, false, true},
		{"and records are kept for three days", 2 * 24 * time.Hour, 2 * 24 * time.Hour, 3 * 24 * time.Hour, false, false},
	} {
		c := clockWatch{began: now, checked: true}
		if tt.known != 0 {
			c.known = now.Add(-tt.known)
		}
		if tt.others != 0 {
			c.others = now.Add(-tt.others)
		}
		c.judgeLocked(p, clockFile, now, 0)
		if (c.fault != nil) != tt.fault || c.allows(tt.age) != tt.allows {
			t.Errorf("%s: %v, allows %t", tt.name, c.fault, c.allows(tt.age))
		}
	}
	// A step that is not implausible is believed when the node has run with it for a day.
	w := clockWatch{began: now, checked: true, offAt: -1, known: now}
	const age = 3 * 24 * time.Hour
	for _, step := range []struct {
		run, ahead time.Duration
		allows     bool
	}{
		{30 * time.Hour, 0, true},
		{31 * time.Hour, 48 * time.Hour, false},
		{31*time.Hour + time.Second, 48 * time.Hour, false},
		{50 * time.Hour, 48 * time.Hour, false},
		{56 * time.Hour, 48 * time.Hour, false},
		{56*time.Hour + time.Second, 48 * time.Hour, true},
	} {
		at := now.Add(step.run + step.ahead)
		w.judgeLocked(p, clockFile, at, step.run)
		if w.allows(age) != step.allows || w.health() != nil {
			t.Errorf("after %s: allows %t, %v", step.run, w.allows(age), w.health())
		}
		w.carryLocked(at, step.run)
	}
	wrong := &Pruner{cfg: PrunerConfig{Clock: func() error { return errors.New("two hours ahead of n2") }}}
	c := clockWatch{began: now, checked: true}
	if c.judgeLocked(wrong, clockFile, now, 0); c.health() == nil || c.allows(quarter) {
		t.Error("what the other nodes say is not believed")
	}
}
