package audit

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// TestChainsOfANodeThatIsGone: the first of the members prunes them, with a record of its
// own, by the rules of their own pruning; the newest batch stays. While the node is a
// member, or has just written, nobody does.
func TestChainsOfANodeThatIsGone(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	gone, _ := nodeKey(t)
	now := time.Now()
	key := func(s *signing.Signer, node string) keyring.Key {
		return keyring.Key{ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: node, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour)}
	}
	var err error
	r.ring, err = keyring.New(2, now.Add(-time.Hour), now.Add(time.Hour), []keyring.Key{key(r.signer, "n1"), key(gone, "n2")})
	r.must(err)
	dir := r.dir
	r.dir = filepath.Join(t.TempDir(), "n2")
	old := r.open(func(c *JournalConfig) { c.Node, c.Signer = "n2", func() *signing.Signer { return gone } })
	old.Attach(r.stream)
	r.fill(old, 0, 40)
	r.close(old)
	r.dir = dir

	var c clock
	const later = auditlog.GoneFor + 24*time.Hour
	j := r.open(func(cfg *JournalConfig) { cfg.Now = c.now })
	j.Attach(r.stream)
	r.fill(j, 40, 1)
	before := r.bytes()
	members, stream := []string{"n1", "n2"}, r.stream
	run := func(look func(p *Pruner)) PrunerStats {
		t.Helper()
		p := NewPruner(PrunerConfig{
			Journal: j, Keep: func(string) Retention { return Retention{MaxBytes: before, MaxAge: quarter} }, Log: zerolog.Nop(),
			Members: func() []string { return members },
			Verify:  func(b *auditlog.Batch, tenant string) error { return b.Verify(tenant, r.ring) },
		})
		p.Attach(stream)
		defer p.Detach()
		look(p)
		if err := p.Health(); err != nil {
			t.Error(err)
		}
		return p.Stats()
	}
	looked := func(p *Pruner) { until(t, "the pruner has looked", func() bool { return p.looked.Load() > 1 }) }
	nothing := func(what string) {
		t.Helper()
		if s := run(looked); s.Size+s.Age != 0 {
			t.Fatalf("%s: %+v", what, s)
		}
	}
	nothing("a member")
	members = []string{"n1"}
	nothing("it has just written")
	c.ahead.Store(int64(later))
	at, err := json.Marshal(clockState{V: 1, Time: c.now()})
	r.must(err)
	r.must(os.WriteFile(filepath.Join(r.dir, clockFile), at, 0o600)) // a week has gone by
	r.fill(j, 41, 1)
	members = []string{"n0", "n1"}
	nothing("another one is the first")
	members = []string{"n1"}
	h := &halting{Stream: r.stream}
	stream = h
	run(func(*Pruner) { until(t, "the purge is tried", h.asked.Load) }) // and the process ends
	stream = r.stream
	for range 2 { // what was said is done, and that is enough
		run(looked)
		until(t, "the stream has what was said", func() bool { return j.Left() == 0 })
	}
	records, report := r.read("shop", r.seal(j))
	if !report.OK || report.Chains[0].Node != "n2" || report.Chains[0].Pruned == 0 || len(report.Chains) != 2 {
		t.Fatalf("%+v", report)
	}
	if n := r.bytes(); n > before*3/4 {
		t.Errorf("%d of %d bytes are left", n, before)
	}
	said := 0
	for i := range records {
		if e := &records[i]; e.Kind == auditlog.KindPruned {
			said++
			if e.Node != "n1" || e.Who != "n2" || e.Rule != auditlog.PrunedSize || e.Outcome != auditlog.OutcomeOK {
				t.Errorf("%+v", e.Entry)
			}
		}
	}
	if said != 1 {
		t.Errorf("it is said %d times", said)
	}
	if r.must(r.stream.Purge(t.Context(), RecordSubject("shop", "n2"), 1<<40)); true {
		if _, report := r.read("shop", r.seal(j)); report.OK {
			t.Error("nothing of the node is left, and nobody sees it")
		}
	}
}
