package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/policy"
)

// save takes a snapshot of a stream as a value.
func (r *rig) save(stream string) (archive []byte, state jetstream.StreamState) {
	r.t.Helper()
	snap, err := r.store.OpenSnapshot(testContext(r.t), "shop", stream)
	if err != nil {
		r.t.Fatal(err)
	}
	defer snap.Close()
	var buf bytes.Buffer
	if err := snap.CopyTo(testContext(r.t), &buf); err != nil {
		r.t.Fatal(err)
	}
	var cfg jetstream.StreamConfig
	if err := json.Unmarshal(snap.Config, &cfg); err != nil || cfg.Name != stream {
		r.t.Fatalf("configuration %s: %v", snap.Config, err)
	}
	s, err := r.js("shop").Stream(testContext(r.t), stream)
	if err != nil {
		r.t.Fatal(err)
	}
	return buf.Bytes(), s.CachedInfo().State
}

func (r *rig) tenant(set *policy.Set) *policy.Tenant { return set.Tenant("shop") }

func restoring(name string, archive []byte, st jetstream.StreamState) Restoring {
	return Restoring{
		Name: name, FirstSeq: st.FirstSeq, EndSeq: st.LastSeq, Messages: st.Msgs,
		Archive: func() (io.Reader, error) { return bytes.NewReader(archive), nil },
	}
}

// filled is a rig whose ORDERS and BILLS hold something, with a durable.
func filled(t *testing.T) (*rig, *policy.Set) {
	t.Helper()
	set := compile(t, shop)
	r := newRig(t, set, nil)
	if err := r.change(set); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		r.publish("orders.new", 2000)
	}
	r.publish("bills.new", 10)
	c, err := r.js("shop").CreateConsumer(testContext(t), "ORDERS", jetstream.ConsumerConfig{Durable: "work", FilterSubject: "orders.>", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next(jetstream.FetchMaxWait(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DoubleAck(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return r, set
}

func empty(t *testing.T, set *policy.Set) *rig {
	t.Helper()
	r := newRig(t, set, nil)
	if err := r.change(set); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSnapshotAndRestore(t *testing.T) {
	from, set := filled(t)
	orders, ordersState := from.save("ORDERS")
	bills, billsState := from.save("BILLS")
	to := empty(t, set)
	before := to.config("ORDERS")
	ctx := testContext(t)
	if err := to.store.Restore(ctx, to.tenant(set), "id", []Restoring{restoring("ORDERS", orders, ordersState), restoring("BILLS", bills, billsState)}); err != nil {
		t.Fatal(err)
	}
	after := to.config("ORDERS")
	before.Metadata = nil // the server's own, which differences takes out of the other
	if d := differences(&after, &before); len(d) > 0 {
		t.Errorf("the restored stream has other settings: %+v", d)
	}
	_, state := to.save("ORDERS")
	if state.Msgs != 50 || state.LastSeq != 50 || !state.FirstTime.Equal(ordersState.FirstTime) || !state.LastTime.Equal(ordersState.LastTime) {
		t.Errorf("restored %+v, saved %+v", state, ordersState)
	}
	c, err := to.js("shop").Consumer(ctx, "ORDERS", "work")
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next(jetstream.FetchMaxWait(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if meta, err := m.Metadata(); err != nil || meta.Sequence.Stream != 2 {
		t.Errorf("the durable goes on at %+v: %v", meta, err)
	}
	to.publish("orders.new", 10) // the subjects are back
	if err := to.change(set); err != nil {
		t.Errorf("the policy does not fit any more: %v", err)
	}
	// And no stream is taken twice.
	err = to.store.Restore(ctx, to.tenant(set), "id2", []Restoring{restoring("ORDERS", orders, ordersState)})
	if !errors.Is(err, ErrNotEmpty) {
		t.Errorf("restored over events: %v", err)
	}
}

// What fails in the middle leaves nothing.
// TestRestoreRefusesWhatNoSubjectCovers: events of subjects that the policy has taken from
// the stream would be readable by whoever may read the subjects that are left.
func TestRestoreRefusesWhatNoSubjectCovers(t *testing.T) {
	from, _ := filled(t)
	orders, state := from.save("ORDERS")
	set := compile(t, strings.Replace(shop, "[orders.>]", "[orders.old]", 1))
	to := empty(t, set)
	err := to.store.Restore(testContext(t), to.tenant(set), "id", []Restoring{restoring("ORDERS", orders, state)})
	if !errors.Is(err, ErrUncovered) || !errors.Is(err, ErrNotRestored) || !strings.Contains(err.Error(), "orders.new") {
		t.Errorf("got %v, want ErrUncovered of orders.new", err)
	}
	if st, err := to.store.StreamInfo(testContext(t), "shop", "ORDERS"); err != nil || st.Messages != 0 || st.LastSeq != 0 {
		t.Errorf("something stayed: %+v, %v", st, err)
	}
}

func TestRestoreAllOrNothing(t *testing.T) {
	from, set := filled(t)
	orders, ordersState := from.save("ORDERS")
	bills, billsState := from.save("BILLS")
	boom := errors.New("boom")
	broken := restoring("ORDERS", orders, ordersState)
	for name, tc := range map[string]struct {
		change func(*Restoring)
		want   error
	}{
		"read error": {func(r *Restoring) {
			r.Archive = func() (io.Reader, error) {
				return io.MultiReader(bytes.NewReader(orders[:len(orders)/2]), failing{boom}), nil
			}
		}, boom},
		"truncated": {func(r *Restoring) {
			r.Archive = func() (io.Reader, error) { return bytes.NewReader(orders[:len(orders)/2]), nil }
		}, ErrNotRestored},
		"garbage": {func(r *Restoring) {
			r.Archive = func() (io.Reader, error) { return bytes.NewReader(make([]byte, 1<<20)), nil }
		}, ErrNotRestored},
		"wrong count": {func(r *Restoring) { r.EndSeq++ }, ErrNotRestored},
	} {
		t.Run(name, func(t *testing.T) {
			to := empty(t, set)
			bad := broken
			tc.change(&bad)
			// BILLS comes first and is whole: it must go again.
			err := to.store.Restore(testContext(t), to.tenant(set), "id", []Restoring{bad, restoring("BILLS", bills, billsState)})
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			for _, stream := range []string{"ORDERS", "BILLS"} {
				if _, st := to.save(stream); st.LastSeq != 0 || st.Consumers != 0 {
					t.Errorf("%s has %+v", stream, st)
				}
			}
			to.publish("orders.new", 10)
			to.publish("bills.new", 10)
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A restore that a crash cut off is undone at the next start before the mark, and
// finished after it; another broker's is left alone.
func TestRestoreAfterACrash(t *testing.T) {
	from, set := filled(t)
	orders, ordersState := from.save("ORDERS")
	bills, billsState := from.save("BILLS")
	staged := func(t *testing.T, node string, mark bool) *rig {
		to := empty(t, set)
		to.store.cfg.Node = node
		a, err := to.store.account("shop")
		if err != nil {
			t.Fatal(err)
		}
		ctx := testContext(t)
		for _, r := range []Restoring{restoring("BILLS", bills, billsState), restoring("ORDERS", orders, ordersState)} {
			if err := a.stage(ctx, to.store.staged(to.tenant(set), r.Name, "id"), &r); err != nil {
				t.Fatal(err)
			}
		}
		if mark {
			cfg := to.store.staged(to.tenant(set), "ORDERS", "id")
			cfg.Metadata[metaRestoreMark] = "id"
			if err := a.update(ctx, cfg); err != nil {
				t.Fatal(err)
			}
		}
		to.store.cfg.Node = "test"
		if err := to.store.ApplyPolicy(ctx, set); err != nil {
			t.Fatal(err)
		}
		return to
	}
	t.Run("before the mark", func(t *testing.T) {
		to := staged(t, "test", false)
		if _, st := to.save("ORDERS"); st.LastSeq != 0 {
			t.Errorf("half a restore stayed: %+v", st)
		}
		if err := to.store.Restore(testContext(t), to.tenant(set), "id3", []Restoring{restoring("ORDERS", orders, ordersState)}); err != nil {
			t.Errorf("it cannot be done again: %v", err)
		}
	})
	t.Run("after the mark", func(t *testing.T) {
		to := staged(t, "test", true)
		for stream, want := range map[string]uint64{"ORDERS": 50, "BILLS": 1} {
			if _, st := to.save(stream); st.LastSeq != want {
				t.Errorf("%s: %+v", stream, st)
			}
		}
		to.publish("orders.new", 1)
		to.publish("bills.new", 1)
	})
	t.Run("another broker's", func(t *testing.T) {
		to := staged(t, "other", false)
		if got := to.config("ORDERS").Subjects[0]; got != prefixStaged+"ORDERS" {
			t.Errorf("ORDERS has the subject %s", got)
		}
		to.store.cfg.Node = "other"
		if err := to.store.ApplyPolicy(testContext(t), set); err != nil {
			t.Fatal(err)
		}
		to.publish("orders.new", 1)
	})
}

// An event that slips in between the look and the deletion is never deleted.
func TestRestoreFence(t *testing.T) {
	from, set := filled(t)
	orders, ordersState := from.save("ORDERS")
	to := empty(t, set)
	to.publish("orders.new", 1)
	a, err := to.store.account("shop")
	if err != nil {
		t.Fatal(err)
	}
	r := restoring("ORDERS", orders, ordersState)
	if err := a.stage(testContext(t), to.store.staged(to.tenant(set), "ORDERS", "id"), &r); !errors.Is(err, ErrNotEmpty) {
		t.Fatalf("staged over an event: %v", err)
	}
	if err := to.store.ApplyPolicy(testContext(t), set); err != nil {
		t.Fatal(err)
	}
	if _, st := to.save("ORDERS"); st.Msgs != 1 {
		t.Fatalf("the event is gone: %+v", st)
	}
}

// A reader that is slower than the server's patience gets its snapshot whole.
func TestSnapshotOfASlowReader(t *testing.T) {
	from, _ := filled(t)
	noise := make([]byte, 64<<10)
	for range 40 { // more than the window, and it does not compress
		_, _ = rand.Read(noise)
		if _, err := from.js("shop").Publish(testContext(t), "orders.new", noise); err != nil {
			t.Fatal(err)
		}
	}
	snap, err := from.store.OpenSnapshot(testContext(t), "shop", "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := snap.CopyTo(context.WithoutCancel(t.Context()), pw)
		pw.CloseWithError(err)
		done <- err
	}()
	one := make([]byte, 1)
	if _, err := io.ReadFull(pr, one); err != nil {
		t.Fatal(err)
	}
	<-time.After(7 * time.Second) // over the 5 s of nats-server, which has no hook
	n, err := io.Copy(io.Discard, pr)
	if err != nil || n == 0 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
