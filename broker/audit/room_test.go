package audit

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
)

// bulky is an entry of about 2 KB.
func bulky(tenant string, i int) auditlog.Entry {
	e := login(i)
	e.Tenant = tenant
	e.Subject, e.Rule, e.Ref = strings.Repeat("s", 500), strings.Repeat("r", 500), strings.Repeat("t", 500)
	return e
}

// TestBacklogLargerThanTheStreamDrains: a spool that is full, of many times what the
// stream may have, goes through it without anybody's help.
func TestBacklogLargerThanTheStreamDrains(t *testing.T) {
	for name, share := range map[string]int64{"the share is full": 600 << 10, "the stream is full": 8 << 20} {
		t.Run(name, func(t *testing.T) {
			r := newJournalRig(t, 1<<20)
			j := r.open(func(c *JournalConfig) { c.Spool = MinSpoolBytes })
			j.Attach(r.stream)
			r.must(j.Keep(t.Context(), login(0)))
			r.settle(j)
			r.must(j.Detach(t.Context()))
			j.Attach(never{r.stream})
			kept := 1
			var err error
			for ; err == nil; kept++ {
				err = j.Keep(t.Context(), bulky("shop", kept))
				for range 100 { // beside it what is counted when there is no room
					j.Note(bulky("shop", 1<<20))
				}
			}
			kept--
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			until(t, "the spool is full", func() bool { return j.Stats().SpoolBytes >= MinSpoolBytes })
			r.must(j.Detach(t.Context()))
			j.Attach(r.stream)
			p := r.prune(j, r.stream, Retention{MaxBytes: share, MaxAge: quarter})
			until(t, "the backlog is in the stream", func() bool { return j.Left() == 0 && j.Room() == nil })
			r.must(j.Keep(t.Context(), login(kept)))
			r.settle(j)
			until(t, "what was said is done", func() bool { return p.looked.Load() > 0 && j.Left() == 0 })
			p.Detach()
			r.settle(j)
			records, report := r.read("shop", r.seal(j))
			if !report.OK || report.Chains[0].Pruned == 0 {
				t.Fatalf("%+v", report)
			}
			if last := numbers(records); last["number "+itoa(kept)] != 1 {
				t.Errorf("the newest login is there %d times", last["number "+itoa(kept)])
			}
			if s := p.Stats(); s.Size == 0 || s.Age != 0 {
				t.Errorf("%+v", s)
			}
			if err := j.Health(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func itoa(n int) string { return strings.TrimPrefix(login(n).Detail, "number ") }

// TestEndWhileABacklogDrains: a process that ends when batches went whose record is still
// in the spool goes on, and the trail verifies in the end.
func TestEndWhileABacklogDrains(t *testing.T) {
	r := newJournalRig(t, 1<<20)
	small := func(c *JournalConfig) { c.Spool = MinSpoolBytes }
	j := r.open(small)
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(0)))
	r.settle(j)
	r.must(j.Detach(t.Context()))
	for n := 0; j.Stats().SpoolBytes < 3<<20; n++ {
		j.Note(bulky("shop", n))
		if n%100 == 0 {
			r.must(j.Keep(t.Context(), login(n)))
		}
	}
	keep := Retention{MaxBytes: 600 << 10, MaxAge: quarter}
	c := &counting{Stream: r.stream, ends: 2}
	j.Attach(c)
	p := NewPruner(PrunerConfig{
		Journal: j, Keep: func(string) Retention { return keep }, Log: j.cfg.Log,
		Verify: func(b *auditlog.Batch, tenant string) error { return b.Verify(tenant, r.ring) },
	})
	p.Attach(c)
	until(t, "the process ends", c.ended)
	p.Detach()
	r.close(j)
	if left := j.Left(); left == 0 {
		t.Fatal("nothing is left: the test tests nothing")
	}
	j = r.open(small)
	j.Attach(r.stream)
	p = r.prune(j, r.stream, keep)
	until(t, "the backlog is in the stream", func() bool { return j.Left() == 0 })
	p.Detach()
	r.settle(j)
	if _, report := r.read("shop", r.seal(j)); !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
}

// counting is a stream that takes nothing more after some purges.
type counting struct {
	Stream
	ends   int64
	purged atomic.Int64
}

func (c *counting) ended() bool { return c.purged.Load() >= c.ends }

func (c *counting) Purge(ctx context.Context, subject string, upTo uint64) error {
	defer c.purged.Add(1)
	return c.Stream.Purge(ctx, subject, upTo)
}

func (c *counting) Publish(ctx context.Context, subject string, expect uint64, data []byte) (uint64, error) {
	if c.ended() {
		return 0, errors.New("the process has ended")
	}
	return c.Stream.Publish(ctx, subject, expect, data)
}

// TestOneTenantDoesNotFillTheStream: what is beyond the share of a tenant waits, and the
// records of the others go on.
func TestOneTenantDoesNotFillTheStream(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	r.must(errors.Join(j.Keep(t.Context(), login(0)), j.Keep(t.Context(), bulky("mill", 0))))
	r.settle(j)
	const share = 600 << 10
	measured(j, "shop", r.bytes(), 2, share)
	for n := 0; j.Stats().SpoolBytes < 2<<20; n++ {
		j.Note(bulky("shop", n))
		if n%100 == 0 {
			r.must(j.Keep(t.Context(), bulky("shop", n)))
		}
	}
	until(t, "the tenant is held up", func() bool { return heldUp(j, "shop") })
	for i := range 5 {
		r.must(j.Keep(t.Context(), bulky("mill", i)))
	}
	until(t, "the other tenant's records are stored", func() bool {
		at, ok := j.Position("mill")
		return ok && at.Seq >= 7
	})
	if n := r.bytes(); n > share || n < share/2 {
		t.Errorf("the tenant has %d bytes in the stream, its share is %d", n, share)
	}
	if err := j.Health(); err != nil {
		t.Errorf("it is soon: %v", err)
	}
	j.mu.Lock()
	j.lines["shop"].room.since = time.Now().Add(-2 * heldFor)
	j.mu.Unlock()
	if err := j.Health(); err == nil || !strings.Contains(err.Error(), "audit.maxBytes") {
		t.Errorf("nobody is told: %v", err)
	}
	measured(j, "shop", 0, 0, 16<<20)
	j.poke()
	r.settle(j)
	if _, report := r.read("shop", r.seal(j)); !report.OK || j.Health() != nil {
		t.Fatalf("%+v, health %v", report, j.Health())
	}
}

// unsure loses the answer to every publish, and what it shows is not yet on stable
// storage.
type unsure struct {
	Stream
	safe  atomic.Bool
	asked atomic.Int64
}

func (u *unsure) Publish(ctx context.Context, subject string, expect uint64, data []byte) (uint64, error) {
	_, err := u.Stream.Publish(ctx, subject, expect, data)
	return 0, errors.Join(err, errors.New("the answer is lost"))
}

func (u *unsure) Durable(context.Context) error {
	u.asked.Add(1)
	if !u.safe.Load() {
		return errors.New("the disk does not answer")
	}
	return nil
}

// TestNothingIsSettledBeforeItIsDurable: what the stream shows, and has not acknowledged,
// stays in the spool until it is on stable storage.
func TestNothingIsSettledBeforeItIsDurable(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	u := &unsure{Stream: r.stream}
	j.Attach(u)
	r.must(j.Keep(t.Context(), login(0)))
	until(t, "it was asked for twice", func() bool { return u.asked.Load() > 1 })
	if at, ok := j.Position("shop"); ok || j.Left() == 0 {
		t.Fatalf("settled at %+v, %d left", at, j.Left())
	}
	u.safe.Store(true)
	r.settle(j)
	records, report := r.read("shop", r.seal(j))
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	r.exactly(records, 1)
}
