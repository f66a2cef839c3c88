package integrity

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestScrubber: damage to a sealed block of a store in use is found, and what the
// server does to its blocks meanwhile is not taken for damage.
func TestScrubber(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel() // it waits, mostly
			scrubber(t, v)
		})
	}
}

func scrubber(t *testing.T, v variant) {
	dir := t.TempDir()
	s := startServer(t, dir, v.server)
	_, js := jet(t, s)
	if _, err := js.CreateStream(t.Context(), appendOnlyConfig("ORDERS", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "KEYS", Subjects: []string{"KEYS.>"}, MaxBytes: small, MaxMsgsPerSubject: 1}); err != nil {
		t.Fatal(err)
	}
	fill(t, js, "ORDERS.a", 1, messages, 100)
	l := mustLedger(t, dir)
	var damaged []*Replica
	scrub := NewScrubber(ScrubConfig{
		Dir: dir, SystemAccount: systemAccount, Key: v.key, Ledger: l, Interval: time.Hour, Rate: 1 << 30,
		Found: func(d []*Replica, _ *Report) { damaged = d }, Failed: func(err error) { t.Error(err) },
	})
	stop := make(chan struct{})
	churned := make(chan struct{})
	go func() { // keeps blocks being overwritten, compacted and removed
		defer close(churned)
		for i := uint64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := js.PublishAsync("KEYS.a", body(i, 1000), jetstream.WithStallWait(5*time.Second)); err != nil {
				continue
			}
		}
	}()
	pass := func() []*Replica {
		t.Helper()
		if err := scrub.Pass(t.Context()); err != nil {
			t.Fatal(err)
		}
		return damaged
	}
	for range 5 {
		if d := pass(); len(d) != 0 {
			t.Fatalf("a sound store: %v", d[0].Damage)
		}
	}
	msgs := filepath.Join(dir, "jetstream/$G/streams/ORDERS/msgs")
	flip(t, filepath.Join(msgs, "2.blk"), 700, 16)
	if d := pass(); len(d) != 1 || d[0].ID() != "$G/ORDERS" || d[0].Damage[0].File != "jetstream/$G/streams/ORDERS/msgs/2.blk" {
		t.Errorf("got %v", d)
	}
	passes := uint64(6)
	if v.key != nil {
		passes++
		flip(t, filepath.Join(msgs, "1.key"), 40, 1)
		if d := pass(); len(d) != 1 || len(d[0].Damage) != 2 || d[0].Damage[0].Kind != KindKey {
			t.Errorf("got %v", d)
		}
	}
	close(stop)
	<-churned
	if n, bytes := scrub.Stats(); n != passes || bytes == 0 {
		t.Errorf("%d passes, %d bytes", n, bytes)
	}
}

// TestScrubberSeesUncoveredBytes: the length of a subject is in no checksum; the ledger
// knows the block.
func TestScrubberSeesUncoveredBytes(t *testing.T) {
	h, err := newHasher(blockKey("S", 1), false)
	if err != nil {
		t.Fatal(err)
	}
	b := appendRecord(h, nil, 1, 1, "a.b", nil, []byte("payload"))
	b[20]++
	if _, kind := h.read(b); kind != "" {
		t.Fatal("a subject that is one letter longer is seen: this test is out of date")
	}
	dir := ordersStore(t)
	l := mustLedger(t, dir)
	rep := mustCheck(t, Options{Dir: dir, Ledger: l})
	known, _ := l.known(replica(t, rep, "$G/ORDERS").Dir)
	k := known[2]
	k.Hash = contentHash([]byte("what it was"))
	l.remember(replica(t, rep, "$G/ORDERS").Dir, []knownBlock{k})
	r := replica(t, mustCheck(t, Options{Dir: dir, Ledger: l, Full: true}), "$G/ORDERS")
	if len(r.Damage) != 1 || r.Damage[0].Kind != KindChanged {
		t.Errorf("got %v", r.Damage)
	}
}
