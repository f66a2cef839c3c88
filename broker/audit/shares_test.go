package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

// stranger is a login of nobody that was refused, as the trail makes it.
func stranger() auditlog.Entry {
	return auditlog.Entry{
		Tenant: auditlog.SystemTenant, Kind: auditlog.KindLogin, Outcome: auditlog.OutcomeRefused,
		Remote: "192.0.2.1:1", Code: wire.CodeAuthRequired, Rule: "connect",
	}
}

// Whoever has no credentials must not be able to fill what logins need.
func TestRefusedLoginsLeaveTheReserve(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(func(c *JournalConfig) { c.Spool = 2 << 20 })
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(0)))
	r.must(j.Keep(t.Context(), auditlog.Entry{Tenant: auditlog.SystemTenant, Kind: auditlog.KindNotice, Outcome: auditlog.OutcomeOK}))
	r.settle(j)
	r.must(j.Detach(t.Context())) // AUDIT takes nothing
	until(t, "the refused logins have filled their part", func() bool {
		for range 200 {
			j.Note(stranger())
		}
		return j.spool.bytes.Load() >= j.cfg.Spool*(100-reserve)/100 && j.Stats().Lost > 0
	})
	// What is in the queue is gathered before this login, or with it.
	if err := j.Keep(t.Context(), login(1)); err != nil {
		t.Fatalf("a login after a flood of refused ones: %v", err)
	}
	for range 20000 {
		j.Note(stranger())
	}
	if err := errors.Join(j.Keep(t.Context(), login(2)), j.Room()); err != nil {
		t.Fatalf("a login after more of them: %v", err)
	}
}

// idle is a journal whose worker does not run: the queue stays as it is.
func idle() *Journal {
	return &Journal{cfg: JournalConfig{Now: time.Now, Spool: DefaultSpoolBytes}, spool: &spool{}, lost: map[string]uint64{}}
}

func TestQueueShares(t *testing.T) {
	bulk := []auditlog.Entry{
		{Kind: auditlog.KindRefusal}, {Kind: auditlog.KindRead}, {Kind: auditlog.KindDelivery}, {Kind: auditlog.KindDelivered}, stranger(),
	}
	for _, e := range bulk {
		j := idle()
		for range 2 * maxQueue {
			j.Note(e)
		}
		if want := maxQueue * 3 / 4; len(j.queue) != want {
			t.Errorf("%s %s: %d in the queue, want %d", e.Kind, e.Outcome, len(j.queue), want)
		}
		if err := j.Room(); err != nil {
			t.Errorf("%s %s: no room for a login: %v", e.Kind, e.Outcome, err)
		}
		if j.Note(login(1)); len(j.queue) != maxQueue*3/4+1 {
			t.Errorf("%s %s: they keep a login out", e.Kind, e.Outcome)
		}
	}
	j := idle()
	for i := range 2 * maxQueue {
		j.Note(login(i))
	}
	if len(j.queue) != maxQueue {
		t.Fatalf("%d in the queue, want %d", len(j.queue), maxQueue)
	}
	if err := j.Room(); !errors.Is(err, ErrFull) {
		t.Errorf("Room with a full queue: %v", err)
	}
	lost := j.Stats().Lost
	rare := []auditlog.Kind{auditlog.KindPolicy, auditlog.KindKeys, auditlog.KindSchema, auditlog.KindBroker, auditlog.KindChain}
	for _, k := range rare {
		j.Note(auditlog.Entry{Kind: k})
	}
	if len(j.queue) != maxQueue+len(rare) || j.Stats().Lost != lost {
		t.Errorf("%d in the queue, want %d: a change was dropped", len(j.queue), maxQueue+len(rare))
	}
}

// A segment is removed after chains.json is written; a kill between the two leaves it.
func TestSegmentThatOutlivedItsRemoval(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	for i := range 5 {
		r.must(j.Keep(t.Context(), login(i)))
	}
	r.settle(j)
	files, err := filepath.Glob(filepath.Join(r.dir, "*"+segmentSuffix))
	r.must(err)
	saved := map[string][]byte{}
	for _, f := range files {
		saved[f], err = os.ReadFile(f)
		r.must(err)
	}
	if len(saved) == 0 {
		t.Fatal("no segment")
	}
	r.must(j.spool.forget(j))
	r.close(j)
	for f, data := range saved {
		r.must(os.WriteFile(f, data, 0o600))
	}
	j = r.open(nil)
	if left := j.Left(); left != 0 {
		t.Errorf("%d pending, and the stream has all", left)
	}
	j.Attach(r.stream)
	r.must(j.Keep(t.Context(), login(5)))
	r.settle(j)
	records, report := r.read("shop", r.seal(j))
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	r.exactly(records, 6)
	r.must(j.spool.forget(j))
	if again, _ := filepath.Glob(filepath.Join(r.dir, "*"+segmentSuffix)); len(again) != 0 {
		t.Errorf("the old segment stays: %v", again)
	}
}

// What is pending and stored alike is settled, not sent again.
func TestMatchLooksAtWhatIsPendingFirst(t *testing.T) {
	at := auditlog.Position{ChainID: auditlog.ChainID{Node: "n1", Chain: "0123456789abcdef"}, Seq: 7, Hash: auditlog.NoHash}
	l := &chain{writer: auditlog.ResumeWriter("shop", at), stored: at, pending: []frame{{to: at}}}
	if done, known := (publisher{Journal: idle()}).match(l, at); done != 1 || !known {
		t.Errorf("match: %d %v, want 1 true", done, known)
	}
}

// A file that a failed attempt left must not end the spool until the next start.
func TestNewSegmentAfterAFault(t *testing.T) {
	dir := t.TempDir()
	s, _, _, _, err := openSpool(dir, "n1", 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.close() })
	s.limit = 1
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%020d%s", s.next, segmentSuffix)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.append([][]byte{[]byte("a")}); err == nil {
		t.Fatal("a segment was made over a file that was there")
	}
	if _, err := s.append([][]byte{[]byte("b")}); err != nil {
		t.Fatalf("the next attempt: %v", err)
	}
}
