package audit

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/internal/auditlog"
)

// headsRig is a journal whose heads go to a stream HEADS of so many bytes.
type headsRig struct {
	*journalRig
	j      *Journal
	stream Stream // HEADS
	ahead  atomic.Int64
}

const testKeep = 40 * time.Minute

func newHeadsRig(t *testing.T, maxBytes int64) *headsRig {
	t.Helper()
	r := &headsRig{journalRig: newJournalRig(t, 16<<20)}
	_, err := r.js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: "HEADS", Subjects: []string{"heads.>"}, Discard: jetstream.DiscardNew, MaxBytes: maxBytes, Storage: jetstream.FileStorage,
	})
	r.must(err)
	r.stream = NewStream(func() (*nats.Conn, error) { return r.nc, nil }, "HEADS", func(context.Context) error { return nil })
	r.j = r.open(func(c *JournalConfig) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(r.ahead.Load())) }
	})
	return r
}

// heads are those of a run: what New makes after a start.
func (r *headsRig) heads() *Heads {
	h := NewHeads(HeadsConfig{Journal: r.j, Keep: testKeep, Log: zerolog.Nop()})
	h.stream = r.stream
	return h
}

// more puts a record on the chain and waits until it is stored.
func (r *headsRig) more() auditlog.Position {
	r.t.Helper()
	r.j.Note(login(1))
	r.settle(r.j)
	at, ok := r.j.Position("shop")
	if !ok {
		r.t.Fatal("nothing is stored")
	}
	return at
}

// said returns what the heads in the stream name, all of which must be signed.
func (r *headsRig) said() (out []auditlog.Position) {
	r.t.Helper()
	for seq := uint64(1); ; {
		m, err := r.stream.Next(r.t.Context(), "heads.shop.>", seq)
		r.must(err)
		if m == nil {
			return out
		}
		h, err := auditlog.OpenHead(m.Data, r.ring)
		r.must(err)
		if h.Tenant != "shop" || h.Seal || len(h.Chains) != 1 || m.Subject != auditlog.HeadSubject("shop", "n1") {
			r.t.Errorf("on %s: %+v", m.Subject, h)
		}
		out, seq = append(out, h.Chains[0]), m.Seq+1
	}
}

func (r *headsRig) want(what string, want ...auditlog.Position) {
	r.t.Helper()
	got := r.said()
	same := len(got) == len(want)
	for i := range want {
		same = same && got[i] == want[i]
	}
	if !same {
		r.t.Fatalf("%s: heads %+v, want %+v", what, got, want)
	}
}

// TestHeadsNameWhatIsStored: a head names only records that the stream has, at once where a
// chain or a run begins, and then when it is due.
func TestHeadsNameWhatIsStored(t *testing.T) {
	r := newHeadsRig(t, 1<<20)
	h := r.heads()
	r.j.Note(login(0))
	until(t, "the record waits for the stream", func() bool { return r.j.Left() > 0 })
	r.must(h.round(t.Context(), true))
	r.want("before the stream has anything")
	r.j.Attach(r.journalRig.stream)
	r.settle(r.j)
	first := r.more()
	r.must(h.round(t.Context(), false))
	r.want("a chain began", first)
	r.must(h.round(t.Context(), true))
	r.want("nothing came", first)
	second := r.more()
	r.must(h.round(t.Context(), false))
	r.want("not due", first)
	r.must(h.round(t.Context(), true))
	r.want("due", first, second)
	h = r.heads()
	r.must(h.round(t.Context(), false))
	r.want("a start without anything new", first, second)
	third := r.more()
	r.must(h.round(t.Context(), false))
	r.want("a start", first, second, third)
	if h.Published() != 1 || h.Health() != nil {
		t.Errorf("%d published, %v", h.Published(), h.Health())
	}
	r.ahead.Store(int64(testKeep/2 + time.Minute))
	r.must(h.round(t.Context(), true))
	r.want("before it ages out", first, second, third, third)
	r.must(h.round(t.Context(), true))
	r.want("once", first, second, third, third)
}

// TestHeadsWorkByThemselves: a Heads that runs publishes the first head of a chain soon, and
// the last one when it ends.
func TestHeadsWorkByThemselves(t *testing.T) {
	r := newHeadsRig(t, 1<<20)
	r.j.Attach(r.journalRig.stream)
	first := r.more()
	h := r.heads()
	h.Start(r.stream)
	until(t, "the first head is there", func() bool { return len(r.said()) > 0 })
	last := r.more()
	r.want("while it runs", first)
	h.Shutdown(t.Context())
	r.want("at its end", first, last)
}

// deaf is a stream whose answers to Publish are lost.
type deaf struct {
	Stream
	lost error
}

func (d *deaf) Publish(ctx context.Context, subject string, expect uint64, data []byte) (uint64, error) {
	seq, err := d.Stream.Publish(ctx, subject, expect, data)
	return seq, errors.Join(err, d.lost)
}

// TestHeadWithoutAnAnswer: a head whose answer was lost is there once.
func TestHeadWithoutAnAnswer(t *testing.T) {
	r := newHeadsRig(t, 1<<20)
	r.j.Attach(r.journalRig.stream)
	at := r.more()
	h := r.heads()
	lost := errors.New("the answer was lost")
	h.stream = &deaf{r.stream, lost}
	if err := h.round(t.Context(), false); !errors.Is(err, lost) {
		t.Fatalf("got %v", err)
	}
	h.stream = r.stream
	r.must(h.round(t.Context(), false))
	r.want("asked again", at)
	next := r.more()
	r.must(h.round(t.Context(), true))
	r.want("and on", at, next)
}

// TestHeadsMakeRoom: near the end of its room the stream gets heads less often, and when it
// is full health says so.
func TestHeadsMakeRoom(t *testing.T) {
	r := newHeadsRig(t, 64<<10)
	r.j.Attach(r.journalRig.stream)
	h := r.heads()
	fill := func(percent int64) {
		t.Helper()
		for {
			used, limit, err := r.stream.Used(t.Context())
			r.must(err)
			if used > limit/100*percent {
				return
			}
			_, err = r.js.Publish(t.Context(), "heads.other.x", []byte(strings.Repeat("x", 256)))
			r.must(err)
		}
	}
	first := r.more()
	r.must(h.round(t.Context(), true))
	fill(headsTight)
	second := r.more()
	r.must(h.round(t.Context(), true))
	r.want("tight", first)
	r.ahead.Store(int64(headsTightEvery))
	r.must(h.round(t.Context(), true))
	if at, _, ok := lastHead(r); !ok || at != second {
		t.Fatalf("after an hour: %+v", at)
	}
	fill(headsFull)
	third := r.more()
	r.ahead.Store(int64(2 * headsTightEvery))
	r.must(h.round(t.Context(), true))
	if at, _, _ := lastHead(r); at != second {
		t.Fatalf("full, after another hour: %+v", at)
	}
	r.ahead.Store(int64(2*headsTightEvery + headsFullEvery))
	r.must(h.round(t.Context(), true))
	if at, _, _ := lastHead(r); at != third {
		t.Fatalf("full, after a day: %+v", at)
	}
	for err := error(nil); err == nil; { // to the last byte
		_, err = r.js.Publish(t.Context(), "heads.other.x", nil)
	}
	r.more()
	r.ahead.Store(int64(3 * headsFullEvery))
	err := h.round(t.Context(), true)
	if !errors.Is(err, ErrNoRoom) {
		t.Fatalf("without room: %v", err)
	}
	h.note(err, t.Context())
	if err := h.Health(); err != nil {
		t.Errorf("at once: %v", err)
	}
	r.ahead.Add(int64(headsFailing))
	if err := h.Health(); !errors.Is(err, ErrNoRoom) {
		t.Errorf("after minutes: %v", err)
	}
	h.note(nil, t.Context())
	if err := h.Health(); err != nil {
		t.Errorf("well again: %v", err)
	}
}

func lastHead(r *headsRig) (auditlog.Position, time.Time, bool) {
	r.t.Helper()
	m, err := r.stream.Last(r.t.Context(), auditlog.HeadSubject("shop", "n1"))
	r.must(err)
	if m == nil {
		return auditlog.Position{}, time.Time{}, false
	}
	return auditlog.HeadPosition(m.Data)
}

// TestNoHeadsOnAFullVolume: while the volume takes nothing no head is tried, also at the
// end of a run; then it is published.
func TestNoHeadsOnAFullVolume(t *testing.T) {
	r := newHeadsRig(t, 1<<20)
	full := true
	h := NewHeads(HeadsConfig{Journal: r.j, Keep: testKeep, Log: zerolog.Nop(), Full: func() bool { return full }})
	r.j.Attach(r.journalRig.stream)
	at := r.more()
	h.stream = r.stream
	r.must(h.round(t.Context(), false))
	r.must(h.Publish(t.Context()))
	r.want("a full volume")
	full = false
	r.must(h.round(t.Context(), false))
	r.want("there is space again", at)
}
