package integrity

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// TestSoundStores: what nats-server itself leaves behind is sound, stopped in order or
// not: deletes, overwritten keys, purges, compressed blocks, messages past their age.
func TestSoundStores(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) { soundStores(t, v) })
	}
}

func soundStores(t *testing.T, v variant) {
	dir := t.TempDir()
	s := startServer(t, dir, v.server)
	_, js := jet(t, s)
	ctx := t.Context()
	for _, cfg := range []jetstream.StreamConfig{
		appendOnlyConfig("ORDERS", 1),
		{Name: "PACKED", Subjects: []string{"PACKED.>"}, MaxBytes: small, Compression: jetstream.S2Compression, DenyDelete: true, DenyPurge: true, Discard: jetstream.DiscardNew},
		{Name: "AGED", Subjects: []string{"AGED.>"}, MaxAge: time.Second, DenyDelete: true, DenyPurge: true, MaxBytes: small},
		{Name: "KEYS", Subjects: []string{"KEYS.>"}, MaxBytes: small, MaxMsgsPerSubject: 1, AllowRollup: true},
		{Name: "LOOSE", Subjects: []string{"LOOSE.>"}, MaxBytes: small},
		{Name: "WORK", Subjects: []string{"WORK.>"}, MaxBytes: small, Retention: jetstream.WorkQueuePolicy},
	} {
		if _, err := js.CreateStream(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		fill(t, js, cfg.Name+".a", 1, messages, 100)
	}
	for i := range messages {
		if _, err := js.PublishAsync(fmt.Sprintf("KEYS.%d", i%7), body(uint64(i), 100), jetstream.WithStallWait(30*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
	loose, err := js.Stream(ctx, "LOOSE")
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(5); seq < messages; seq += 3 {
		if seq%2 == 0 {
			err = loose.DeleteMsg(ctx, seq)
		} else {
			err = loose.SecureDeleteMsg(ctx, seq)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := loose.Purge(ctx, jetstream.WithPurgeSequence(100)); err != nil {
		t.Fatal(err)
	}
	work, err := js.CreateConsumer(ctx, "WORK", jetstream.ConsumerConfig{Durable: "w", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := work.Fetch(300)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		if err := m.DoubleAck(ctx); err != nil {
			t.Fatal(err)
		}
	}
	sound := func(what, dir string) *Report {
		t.Helper()
		rep := mustCheck(t, Options{Dir: dir, Key: v.key})
		for _, r := range rep.Damaged() {
			t.Errorf("%s: %s is damaged: %v", what, r.ID(), r.Damage)
		}
		return rep
	}
	sound("while it runs, as after kill -9", copyStore(t, dir))
	stopServer(s)
	rep := sound("stopped", dir)
	if r := replica(t, rep, "$G/ORDERS"); !r.AppendOnly || r.FirstSeq != 1 || r.LastSeq != messages || r.Messages != messages || r.Blocks < 3 {
		t.Errorf("ORDERS: %+v", r)
	}
	if r := replica(t, rep, "$G/KEYS"); r.AppendOnly {
		t.Error("KEYS is not append-only")
	}
	seal(t, dir, Options{Key: v.key})
	s = startServer(t, dir, v.server)
	stopServer(s)
	sound("restarted", dir)
}

// TestIncremental: a second check reads only the last blocks, and a full one everything.
func TestIncremental(t *testing.T) {
	dir := ordersStore(t)
	seal(t, dir, Options{})
	l := mustLedger(t, dir)
	rep := mustCheck(t, Options{Dir: dir, Ledger: l})
	if rep.Trusted == 0 || rep.Read == 0 || rep.Read > rep.Trusted {
		t.Errorf("read %d, trusted %d", rep.Read, rep.Trusted)
	}
	if rep := mustCheck(t, Options{Dir: dir, Ledger: l, Full: true}); rep.Trusted != 0 {
		t.Errorf("a full check trusted %d bytes", rep.Trusted)
	}
	// What is traded: a bit under an unchanged time is seen by a full check only.
	file := filepath.Join(dir, "jetstream/$G/streams/ORDERS/msgs/2.blk")
	fi, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, file, 100, 1)
	if err := os.Chtimes(file, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if rep := mustCheck(t, Options{Dir: dir, Ledger: l}); len(rep.Damaged()) != 0 {
		t.Error("the incremental check reads what it should trust")
	}
	if rep := mustCheck(t, Options{Dir: dir, Ledger: l, Full: true}); len(rep.Damaged()) != 1 {
		t.Error("the full check does not see the flipped bit")
	}
}

// TestHeadThatHasAged: messages that an age has taken are not missed, also when the
// stream has that age no more and the ledger still knows their block.
func TestHeadThatHasAged(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	_, js := jet(t, s)
	cfg := appendOnlyConfig("ORDERS", 1)
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	fill(t, js, "ORDERS.a", 1, 500, 100)
	stopServer(s)
	seal(t, dir, Options{})
	s = startServer(t, dir)
	_, js = jet(t, s)
	cfg.MaxAge, cfg.Duplicates = 100*time.Millisecond, 100*time.Millisecond
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for aged := false; !aged; {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("nothing ages")
		}
		st, err := js.Stream(t.Context(), "ORDERS")
		if err != nil {
			t.Fatal(err)
		}
		aged = st.CachedInfo().State.Msgs == 0
	}
	cfg.MaxAge, cfg.Duplicates = 0, time.Minute
	if _, err := js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	fill(t, js, "ORDERS.a", 501, 550, 100)
	stopServer(s)
	seal(t, dir, Options{})
	rep := mustCheck(t, Options{Dir: dir, Ledger: mustLedger(t, dir), Full: true})
	if r := replica(t, rep, "$G/ORDERS"); r.Damaged() || r.FirstSeq < 2 {
		t.Errorf("%+v", r)
	}
}

// TestLedgerIsChecked: a ledger that was damaged itself is as good as none.
func TestLedgerIsChecked(t *testing.T) {
	dir := ordersStore(t)
	seal(t, dir, Options{})
	flip(t, filepath.Join(dir, "integrity", ledgerFile), 200, 1)
	rep := mustCheck(t, Options{Dir: dir, Ledger: mustLedger(t, dir)})
	if rep.Trusted != 0 || len(rep.Damaged()) != 0 {
		t.Errorf("trusted %d, damaged %v", rep.Trusted, rep.Damaged())
	}
}

func TestCheckEndsWithItsContext(t *testing.T) {
	dir := ordersStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Check(ctx, Options{Dir: dir, SystemAccount: systemAccount}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// ordersStore is a stopped store with ORDERS in four blocks.
func ordersStore(tb testing.TB, change ...func(*server.Options)) string {
	tb.Helper()
	dir := tb.TempDir()
	s := startServer(tb, dir, change...)
	_, js := jet(tb, s)
	if _, err := js.CreateStream(tb.Context(), appendOnlyConfig("ORDERS", 1)); err != nil {
		tb.Fatal(err)
	}
	fill(tb, js, "ORDERS.a", 1, messages, 100)
	stopServer(s)
	return dir
}

func flip(tb testing.TB, file string, at int64, mask byte) {
	tb.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	b[at] ^= mask
	if err := os.WriteFile(file, b, 0o600); err != nil {
		tb.Fatal(err)
	}
}
