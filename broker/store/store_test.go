package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

func compile(t *testing.T, text string) *policy.Set {
	t.Helper()
	b, err := policy.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policy.Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const shop = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 4MiB, maxAge: 1h, maxMsgSize: 100KiB}
  - {name: BILLS, subjects: [bills.>], maxBytes: 4MiB}
kv: [{bucket: prices, maxBytes: 1MiB, history: 5, ttl: 24h}]
objects: [{bucket: scans, maxBytes: 2MiB}]
deadLetter: {maxBytes: 2MiB, maxAge: 1h}
`

// rig is a server with the accounts of a policy, and a store on it.
type rig struct {
	t      *testing.T
	server *embed.Server
	store  *Store
}

func newRig(t *testing.T, set *policy.Set, barrier *Barrier) *rig {
	t.Helper()
	var tenants []embed.TenantAccount
	for _, tenant := range set.Tenants() {
		tenants = append(tenants, embed.TenantAccount{Name: tenant.Name, MaxBytes: AccountBytes(tenant, 1)})
	}
	server, err := embed.Start(testContext(t), embed.Config{StoreDir: t.TempDir(), ServerName: "test", Tenants: tenants})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	s, err := Open(t.Context(), Config{
		Internal: Internal(server), Barrier: barrier,
		Deleted: func(ctx context.Context, account, stream string) error {
			return embed.AwaitDeleted(ctx, server, account, stream)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{t, server, s}
}

// change reloads the accounts and applies the policy, as the broker does.
func (r *rig) change(set *policy.Set) error {
	r.t.Helper()
	ctx := testContext(r.t)
	var tenants []embed.TenantAccount
	for _, tenant := range set.Tenants() {
		n, err := r.store.Reservation(ctx, tenant)
		if err != nil {
			return err
		}
		tenants = append(tenants, embed.TenantAccount{Name: tenant.Name, MaxBytes: n})
	}
	if err := r.server.ReloadAccounts(tenants); err != nil {
		return err
	}
	return r.store.ApplyPolicy(ctx, set)
}

func (r *rig) js(tenant string) jetstream.JetStream {
	r.t.Helper()
	nc, err := r.store.Conn(tenant)
	if err != nil {
		r.t.Fatal(err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		r.t.Fatal(err)
	}
	return js
}

func (r *rig) config(stream string) jetstream.StreamConfig {
	r.t.Helper()
	s, err := r.js("shop").Stream(testContext(r.t), stream)
	if err != nil {
		r.t.Fatal(err)
	}
	return s.CachedInfo().Config
}

func (r *rig) publish(subject string, size int) {
	r.t.Helper()
	if _, err := r.js("shop").Publish(testContext(r.t), subject, make([]byte, size)); err != nil {
		r.t.Fatal(err)
	}
}

func applied(t *testing.T, text string) *rig {
	t.Helper()
	set := compile(t, text)
	r := newRig(t, set, nil)
	if err := r.store.ApplyPolicy(testContext(t), set); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestMadeAgainAtOnce: streams that were all deleted are made again, and are empty,
// although the server removes the account's folders meanwhile.
func TestMadeAgainAtOnce(t *testing.T) {
	r := applied(t, shop)
	ctx := testContext(t)
	for range 30 {
		if _, err := r.js("shop").Publish(ctx, "orders.a", []byte("x")); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"ORDERS", "BILLS", "DLQ", "RETRY", "KV_prices", "OBJ_scans"} {
			a, err := r.store.account("shop")
			if err != nil {
				t.Fatal(err)
			}
			if err := a.remove(ctx, name); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.store.ApplyPolicy(ctx, compile(t, shop)); err != nil {
			t.Fatal(err)
		}
		if st, err := r.store.StreamInfo(ctx, "shop", "ORDERS"); err != nil || st.Messages != 0 || st.LastSeq != 0 {
			t.Fatalf("%+v, %v", st, err)
		}
	}
}

// TestDecisive: a fault that may pass does not hide one that does not.
func TestDecisive(t *testing.T) {
	unled := noLeader("shop", "ORDERS")
	if err := decisive([]error{nil, unled, nil}); !errors.Is(err, ErrNoLeader) {
		t.Error(err)
	}
	if err := decisive([]error{unled, ErrWouldLose, nil}); errors.Is(err, ErrNoLeader) || !errors.Is(err, ErrWouldLose) {
		t.Error(err)
	}
	if err := decisive([]error{nil}); err != nil {
		t.Error(err)
	}
}

func TestApplyPolicy(t *testing.T) {
	r := applied(t, shop)
	for _, stream := range []string{"ORDERS", "BILLS", "DLQ", "KV_prices", "OBJ_scans"} {
		c := r.config(stream)
		event, bucket := stream == "ORDERS" || stream == "BILLS", strings.Contains(stream, "_")
		if c.Storage != jetstream.FileStorage || c.Retention != jetstream.LimitsPolicy || c.Discard != jetstream.DiscardNew || c.Replicas != 1 || c.DenyDelete == (stream == "DLQ") || c.MaxBytes <= 0 ||
			c.Duplicates <= 0 || c.NoAck || c.Sealed || c.PersistMode != jetstream.DefaultPersistMode || c.AllowMsgTTL || c.AllowMsgCounter || c.AllowMsgSchedules || c.AllowAtomicPublish || c.AllowBatchPublish ||
			c.Mirror != nil || c.Sources != nil || c.RePublish != nil || c.SubjectTransform != nil {
			t.Errorf("%s is not safe: %+v", stream, c)
		}
		if c.DenyPurge == bucket || c.AllowRollup != bucket || c.AllowDirect != (event || bucket) {
			t.Errorf("%s: deny purge %v, rollup %v, direct %v", stream, c.DenyPurge, c.AllowRollup, c.AllowDirect)
		}
	}
	if c := r.config("ORDERS"); c.MaxAge != time.Hour || c.Duplicates != policy.DefaultDuplicateWindow || c.MaxMsgSize != 100<<10+headerBudget || c.MaxBytes != 4<<20 {
		t.Errorf("ORDERS: %+v", c)
	}
	if c := r.config("DLQ"); len(c.Subjects) != 1 || c.Subjects[0] != "$SIGNET.DLQ.>" || c.MaxAge != time.Hour {
		t.Errorf("DLQ: %+v", c)
	}
	if c := r.config("RETRY"); c.Retention != jetstream.WorkQueuePolicy || c.Discard != jetstream.DiscardNew || !c.DenyPurge || c.MaxAge != 0 || c.MaxBytes <= 0 || c.Duplicates != RetryWindow {
		t.Errorf("RETRY: %+v", c)
	}
	// A second time changes nothing, and asks for nothing to be changed.
	set := compile(t, shop)
	steps, err := r.store.plan(testContext(t), "shop", declared(set.Tenant("shop"), 1))
	if err != nil || len(steps) != 0 {
		t.Errorf("second plan: %d steps, %v", len(steps), err)
	}
	all, err := r.store.Streams(testContext(t), "shop")
	if err != nil || len(all) != 6 || all[0].Name != "BILLS" || all[0].MaxBytes != 4<<20 {
		t.Errorf("Streams: %+v, %v", all, err)
	}
	if _, err := r.store.StreamInfo(testContext(t), "shop", "NONE"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown stream: %v", err)
	}
	if _, err := r.store.StreamInfo(testContext(t), "shop", "A.B"); !errors.Is(err, ErrNotFound) {
		t.Errorf("stream with a dot: %v", err)
	}
}

func TestDeleteAndPurgeAreDenied(t *testing.T) {
	r := applied(t, shop)
	ctx := testContext(t)
	r.publish("orders.a", 10)
	s, err := r.js("shop").Stream(ctx, "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteMsg(ctx, 1); err == nil {
		t.Error("a message was deleted")
	}
	if err := s.Purge(ctx); err == nil {
		t.Error("the stream was purged")
	}
	_, err = r.js("shop").PublishMsg(ctx, &nats.Msg{Subject: "orders.a", Header: nats.Header{"Nats-Rollup": {"all"}}})
	if st, ierr := r.store.StreamInfo(ctx, "shop", "ORDERS"); err == nil || ierr != nil || st.Messages != 1 {
		t.Errorf("rollup: %v; %d messages, %v", err, st.Messages, ierr)
	}
}

func TestNoStreamTakesTheAdminAPI(t *testing.T) {
	r := applied(t, shop)
	nc, err := r.store.Conn("shop")
	if err != nil {
		t.Fatal(err)
	}
	_, err = nc.RequestWithContext(testContext(t), wire.PrefixAdmin+"status.get", nil)
	if !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("got %v, want no responders: a stream would have acknowledged it", err)
	}
}

func TestFullStreamDiscardsNew(t *testing.T) {
	r := applied(t, shop)
	ctx := testContext(t)
	var err error
	for range 100 {
		if _, err = r.js("shop").Publish(ctx, "orders.a", make([]byte, 90<<10)); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("the stream never got full")
	}
	st, err := r.store.StreamInfo(ctx, "shop", "ORDERS")
	if err != nil || st.FirstSeq != 1 || st.Deleted != 0 || st.Messages != st.LastSeq {
		t.Errorf("messages were dropped: %+v, %v", st, err)
	}
}

func TestBucketsWorkWithNatsGo(t *testing.T) {
	r := applied(t, shop)
	ctx := testContext(t)
	js := r.js("shop")
	kv, err := js.KeyValue(ctx, "prices")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := kv.PutString(ctx, "apple", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := kv.History(ctx, "apple"); err != nil || len(h) != 3 {
		t.Errorf("history: %d, %v", len(h), err)
	}
	if err := kv.Purge(ctx, "apple"); err != nil {
		t.Errorf("purge of a key: %v", err)
	}
	if err := kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)); err != nil {
		t.Errorf("purge of delete markers: %v", err)
	}
	if _, err := kv.Get(ctx, "apple"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("after purge: %v", err)
	}
	objects, err := js.ObjectStore(ctx, "scans")
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("x"), 300<<10)
	for range 4 { // each replaces the one before: four would not fit
		if _, err := objects.PutBytes(ctx, "a", want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := objects.GetBytes(ctx, "a"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("object: %d bytes, %v", len(got), err)
	}
	if err := objects.Delete(ctx, "a"); err != nil {
		t.Errorf("delete of an object: %v", err)
	}
}

func TestChangesThatAreApplied(t *testing.T) {
	r := applied(t, shop)
	r.publish("orders.a", 10)
	for _, tc := range []struct {
		name, old, new, stream string
		ok                     func(jetstream.StreamConfig) bool
	}{
		{"more bytes", "ORDERS, subjects: [orders.>], maxBytes: 4MiB", "ORDERS, subjects: [orders.>], maxBytes: 8MiB", "ORDERS", func(c jetstream.StreamConfig) bool { return c.MaxBytes == 8<<20 }},
		{"fewer bytes, still enough", "maxBytes: 4MiB, maxAge: 1h", "maxBytes: 1MiB, maxAge: 1h", "ORDERS", func(c jetstream.StreamConfig) bool { return c.MaxBytes == 1<<20 }},
		{"longer age", "maxAge: 1h, maxMsg", "maxAge: 2h, maxMsg", "ORDERS", func(c jetstream.StreamConfig) bool { return c.MaxAge == 2*time.Hour }},
		{"shorter age, nothing that old", "maxAge: 1h, maxMsg", "maxAge: 30m, maxMsg", "ORDERS", func(c jetstream.StreamConfig) bool { return c.MaxAge == 30*time.Minute }},
		{"smaller messages", "maxMsgSize: 100KiB", "maxMsgSize: 50KiB", "ORDERS", func(c jetstream.StreamConfig) bool { return c.MaxMsgSize == 50<<10+headerBudget }},
		{"one more subject", "[bills.>]", "[bills.>, notes.>]", "BILLS", func(c jetstream.StreamConfig) bool { return len(c.Subjects) == 2 }},
		{"more history", "history: 5", "history: 9", "KV_prices", func(c jetstream.StreamConfig) bool { return c.MaxMsgsPerSubject == 9 }},
		{"new stream", "kv:", "  - {name: NEW, subjects: [new.>], maxBytes: 1MiB}\nkv:", "NEW", func(c jetstream.StreamConfig) bool { return c.MaxBytes == 1<<20 }},
		{"larger dead letter reserve", "deadLetter: {maxBytes: 2MiB", "deadLetter: {maxBytes: 3MiB", "DLQ", func(c jetstream.StreamConfig) bool { return c.MaxBytes == 3<<20 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(shop, tc.old, tc.new, 1)
			if text == shop {
				t.Fatal("the test changes nothing")
			}
			if err := r.change(compile(t, text)); err != nil {
				t.Fatal(err)
			}
			if c := r.config(tc.stream); !tc.ok(c) {
				t.Errorf("%+v", c)
			}
		})
	}
	t.Run("a subject moves to another stream", func(t *testing.T) {
		moved := strings.NewReplacer("[orders.>]", "[orders.a, orders.new]", "[bills.>]", "[bills.>, orders.old.>]").Replace(shop)
		if err := r.change(compile(t, moved)); err != nil {
			t.Fatal(err)
		}
		back := strings.NewReplacer("[bills.>]", "[orders.new]", "[orders.>]", "[orders.a, bills.>]").Replace(shop)
		if err := r.change(compile(t, back)); err == nil || !strings.Contains(err.Error(), "overlap") {
			t.Errorf("two streams swap their subjects: got %v, want an overlap", err)
		}
	})
	t.Run("a tenant is added", func(t *testing.T) {
		set := compile(t, shop+"---\ntenant: lab\nstreams: [{name: RUNS, subjects: [runs.>], maxBytes: 1MiB}]\n")
		if err := r.change(set); err != nil {
			t.Fatal(err)
		}
		if st, err := r.store.StreamInfo(testContext(t), "lab", "RUNS"); err != nil || st.MaxBytes != 1<<20 {
			t.Errorf("%+v, %v", st, err)
		}
	})
	t.Run("what is no longer declared stays", func(t *testing.T) {
		if err := r.change(compile(t, "tenant: shop\nstreams: [{name: OTHER, subjects: [other.>], maxBytes: 64MiB}]\n")); err != nil {
			t.Fatal(err)
		}
		if st, err := r.store.StreamInfo(testContext(t), "shop", "ORDERS"); err != nil || st.Messages != 1 {
			t.Errorf("%+v, %v", st, err)
		}
	})
}

func TestChangesThatAreRefused(t *testing.T) {
	r := applied(t, shop)
	ctx := testContext(t)
	for range 20 {
		r.publish("orders.a", 90<<10)
		r.publish("bills.a", 90<<10)
		r.publish("$KV.prices.apple", 10)
	}
	for _, tc := range []struct {
		name, old, new, field string
		want                  error
	}{
		{"fewer bytes than are stored", "maxBytes: 4MiB, maxAge: 1h", "maxBytes: 1MiB, maxAge: 1h", "ORDERS: store: the change would lose stored messages: max_bytes", ErrWouldLose},
		{"less history than is stored", "history: 5", "history: 2", "KV_prices: store: the change would lose stored messages: max_msgs_per_subject", ErrWouldLose},
		{"a subject that has events", "[orders.>]", "[orders.new, orders.b.>]", "ORDERS: store: the stream holds events on subjects that it would no longer have: orders.a", ErrUncovered},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// The good part of the same policy must not be applied either.
			text := strings.Replace(strings.Replace(shop, tc.old, tc.new, 1), "[bills.>]", "[bills.>, more.>]", 1)
			err := r.store.ApplyPolicy(ctx, compile(t, text))
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.field) || !strings.Contains(err.Error(), "tenant shop") {
				t.Errorf("got %v, want %v of %s", err, tc.want, tc.field)
			}
			if c := r.config("BILLS"); len(c.Subjects) != 1 {
				t.Errorf("half of a refused policy was applied: %v", c.Subjects)
			}
		})
	}
	t.Run("age below the oldest message", func(t *testing.T) {
		info := &jetstream.StreamInfo{State: jetstream.StreamState{Msgs: 1, FirstTime: time.Now().Add(-time.Hour)}}
		have, want := r.config("ORDERS"), r.config("ORDERS")
		want.MaxAge = time.Minute
		for _, d := range differences(&have, &want) {
			if d.field == "metadata" {
				continue
			}
			if err := d.check(info, time.Now()); !errors.Is(err, ErrWouldLose) {
				t.Errorf("%s: got %v, want ErrWouldLose", d.field, err)
			}
		}
	})
	t.Run("fields that no policy can change", func(t *testing.T) {
		base := eventStream(&policy.Stream{Name: "S", Subjects: []string{"s"}, MaxBytes: 1, Replicas: 1})
		for field, change := range map[string]func(*jetstream.StreamConfig){
			"storage":       func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage },
			"retention":     func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy },
			"sealed":        func(c *jetstream.StreamConfig) { c.Sealed = true },
			"mirror":        func(c *jetstream.StreamConfig) { c.Mirror = &jetstream.StreamSource{Name: "X"} },
			"sources":       func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "X"}} },
			"persist_mode":  func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode },
			"allow_msg_ttl": func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true },
			"compression":   func(c *jetstream.StreamConfig) { c.Compression = jetstream.S2Compression },
		} {
			have := base
			change(&have)
			found := differences(&have, &base)
			if len(found) != 1 || found[0].field != field {
				t.Errorf("%s: found %+v", field, found)
				continue
			}
			if err := found[0].check(&jetstream.StreamInfo{}, time.Now()); !errors.Is(err, ErrImmutable) || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: got %v, want ErrImmutable", field, err)
			}
		}
		have := base
		have.DenyPurge = true
		want := base
		want.DenyPurge = false
		if found := differences(&have, &want); len(found) != 1 || !errors.Is(found[0].check(&jetstream.StreamInfo{}, time.Now()), ErrImmutable) {
			t.Errorf("deny_purge taken back: %+v", found)
		}
	})
	t.Run("a stream that somebody else made otherwise", func(t *testing.T) {
		if _, err := r.js("shop").CreateStream(ctx, jetstream.StreamConfig{Name: "ALIEN", Subjects: []string{"alien"}, Storage: jetstream.MemoryStorage, MaxBytes: 1 << 10}); err != nil {
			t.Fatal(err)
		}
		err := r.change(compile(t, strings.Replace(shop, "kv:", "  - {name: ALIEN, subjects: [alien], maxBytes: 1MiB}\nkv:", 1)))
		if !errors.Is(err, ErrImmutable) || !strings.Contains(err.Error(), "stream ALIEN") || !strings.Contains(err.Error(), "storage") {
			t.Errorf("got %v, want ErrImmutable of ALIEN's storage", err)
		}
	})
	t.Run("tenant without an account", func(t *testing.T) {
		if err := r.store.ApplyPolicy(ctx, compile(t, "tenant: nobody\n")); !errors.Is(err, ErrNoAccount) {
			t.Errorf("got %v, want ErrNoAccount", err)
		}
	})
}

func TestConsumerOwner(t *testing.T) {
	r := applied(t, shop)
	ctx := testContext(t)
	js := r.js("shop")
	for _, c := range []jetstream.ConsumerConfig{
		{Durable: "owned", Metadata: map[string]string{wire.MetaOwner: "shop/billing"}},
		{Durable: "free"},
	} {
		if _, err := js.CreateConsumer(ctx, "ORDERS", c); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		stream, consumer, owner string
		found                   bool
	}{
		{"ORDERS", "owned", "shop/billing", true},
		{"ORDERS", "free", "", true},
		{"ORDERS", "none", "", false},
		{"NONE", "owned", "", false},
		{"ORDERS", "a.b", "", false},
		{"*", "owned", "", false},
		{"ORDERS", ">", "", false},
		{"", "", "", false},
	} {
		owner, found, err := r.store.ConsumerOwner(ctx, "shop", tc.stream, tc.consumer)
		if owner != tc.owner || found != tc.found || err != nil {
			t.Errorf("%s %s: got %q, %v, %v", tc.stream, tc.consumer, owner, found, err)
		}
	}
	if _, _, err := r.store.ConsumerOwner(ctx, "nobody", "ORDERS", "owned"); !errors.Is(err, ErrNoAccount) {
		t.Errorf("unknown tenant: %v", err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := r.store.ConsumerOwner(over, "shop", "ORDERS", "owned"); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

func TestDeadLetters(t *testing.T) {
	syncs := 0
	var mu sync.Mutex
	barrier := newBarrier(func() error { mu.Lock(); syncs++; mu.Unlock(); return nil }, func() error { return nil })
	set := compile(t, shop)
	r := newRig(t, set, barrier)
	ctx := testContext(t)
	if _, _, err := r.store.ReadDLQ(ctx, "shop", 0, nil, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("before ApplyPolicy: %v", err)
	}
	if err := r.store.ApplyPolicy(ctx, set); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	if syncs != 1 {
		t.Errorf("ApplyPolicy waited for %d syncs, want 1", syncs)
	}
	mu.Unlock()
	body := []byte("NATS/1.0\r\nce-id: 1\r\n\r\n\x00\xffbytes")
	for i := 1; i <= 10; i++ {
		reason := []string{"schema", "acl"}[i%2]
		header := nats.Header{"Signet-Dlq-Reason": {reason}, "lower-Case": {fmt.Sprint(i)}}
		seq, err := r.store.PublishDLQ(ctx, "shop", wire.PrefixDLQ+reason+".shop.checkout", header, body)
		if err != nil || seq != uint64(i) {
			t.Fatalf("dead letter %d: %d, %v", i, seq, err)
		}
	}
	if st := barrier.Stats(); st.Waits != 11 {
		t.Errorf("%d waits for the barrier, want 11", st.Waits)
	}
	d, err := r.store.GetDLQ(ctx, "shop", 3)
	if err != nil || !bytes.Equal(d.Data, body) || d.Subject != "$SIGNET.DLQ.acl.shop.checkout" || len(d.Header) != 2 || d.Header["lower-Case"][0] != "3" || d.Time.IsZero() {
		t.Errorf("GetDLQ: %+v, %v", d, err)
	}
	for _, seq := range []uint64{0, 11} {
		if _, err := r.store.GetDLQ(ctx, "shop", seq); !errors.Is(err, ErrNotFound) {
			t.Errorf("sequence %d: %v", seq, err)
		}
	}
	for _, tc := range []struct {
		name    string
		filters []string
		limit   int
		want    string
	}{
		{"all", nil, 0, "[1 2 3 4 5 6 7 8 9 10]"},
		{"pages", nil, 4, "[1 2 3 4][5 6 7 8][9 10]"},
		{"one filter", []string{"$SIGNET.DLQ.schema.>"}, 3, "[2 4 6][8 10]"},
		{"two filters", []string{"$SIGNET.DLQ.schema.>", "$SIGNET.DLQ.acl.>"}, 6, "[1 2 3 4 5 6][7 8 9 10]"},
		{"filters that overlap", []string{"$SIGNET.DLQ.>", "$SIGNET.DLQ.acl.>"}, 0, "[1 2 3 4 5 6 7 8 9 10]"},
		{"nothing", []string{"$SIGNET.DLQ.size.>"}, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got string
			var after uint64
			for {
				page, next, err := r.store.ReadDLQ(ctx, "shop", after, tc.filters, tc.limit)
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					if next != after {
						t.Errorf("the cursor moved from %d to %d without a dead letter", after, next)
					}
					break
				}
				var seqs []uint64
				for _, d := range page {
					seqs = append(seqs, d.Sequence)
				}
				got, after = got+fmt.Sprint(seqs), next
			}
			if got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
	t.Run("a repetition is not stored twice", func(t *testing.T) {
		header := nats.Header{wire.HeaderMsgID: {"ORDERS.billing.7"}}
		first, err1 := r.store.PublishDLQ(ctx, "shop", "$SIGNET.DLQ.terminated.shop.billing", header, body)
		again, err2 := r.store.PublishDLQ(ctx, "shop", "$SIGNET.DLQ.terminated.shop.billing", header, body)
		if first != again || err1 != nil || err2 != nil {
			t.Errorf("%d %v, %d %v", first, err1, again, err2)
		}
	})
	t.Run("large body", func(t *testing.T) {
		large := bytes.Repeat([]byte{0xff}, 1<<20)
		seq, err := r.store.PublishDLQ(ctx, "shop", "$SIGNET.DLQ.schema.shop.a", nil, large)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := r.store.GetDLQ(ctx, "shop", seq); err != nil || !bytes.Equal(d.Data, large) || d.Header != nil {
			t.Errorf("%v", err)
		}
	})
	t.Run("full", func(t *testing.T) {
		_, err := r.store.PublishDLQ(ctx, "shop", "$SIGNET.DLQ.schema.shop.a", nil, make([]byte, 1<<20))
		if !errors.Is(err, ErrFull) {
			t.Errorf("got %v, want ErrFull", err)
		}
	})
	t.Run("other subjects", func(t *testing.T) {
		for _, subject := range []string{"orders.a", "$SIGNET.API.x", "$SIGNET.DLQ.", "$SIGNET.DLQ.*", "$SIGNET.DLQ.a b", ""} {
			if _, err := r.store.PublishDLQ(ctx, "shop", subject, nil, nil); !errors.Is(err, ErrSubject) {
				t.Errorf("%q: got %v, want ErrSubject", subject, err)
			}
		}
		if _, _, err := r.store.ReadDLQ(ctx, "shop", 0, []string{"orders.>"}, 0); !errors.Is(err, ErrSubject) {
			t.Errorf("got %v, want ErrSubject", err)
		}
	})
	t.Run("failed barrier", func(t *testing.T) {
		closeBarrier(t, barrier)
		if _, err := r.store.PublishDLQ(ctx, "shop", "$SIGNET.DLQ.acl.shop.a", nil, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v, want ErrClosed: an unsynced dead letter was reported as stored", err)
		}
	})
}

func TestCloseAndOpen(t *testing.T) {
	if _, err := Open(t.Context(), Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("no Internal: %v", err)
	}
	r := applied(t, shop)
	before := r.server.Stats()
	if before.Connections != 1 || before.Tickets != 1 {
		t.Errorf("%d connections, %d tickets; want one of each for one tenant", before.Connections, before.Tickets)
	}
	if err := errors.Join(r.store.Close(), r.store.Close()); err != nil {
		t.Error(err)
	}
	if _, err := r.store.Conn("shop"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := r.store.ApplyPolicy(testContext(t), compile(t, shop)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	eventually(t, "connections and tickets are gone", func() bool {
		st := r.server.Stats()
		return st.Connections == 0 && st.Tickets == 0
	})
}

// The broker's connections survive a reload, and a cut: with a fresh ticket.
func TestInternalReconnects(t *testing.T) {
	r := applied(t, shop)
	nc, err := r.store.Conn("shop")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.server.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := nc.FlushTimeout(5 * time.Second); err != nil || nc.Reconnects != 0 {
		t.Errorf("after a reload: %v, %d reconnects", err, nc.Reconnects)
	}
	if err := nc.ForceReconnect(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it reconnects", func() bool { return nc.Stats().Reconnects == 1 && nc.IsConnected() })
	if _, err := r.store.StreamInfo(testContext(t), "shop", "ORDERS"); err != nil {
		t.Error(err)
	}
	if n := r.server.Stats().Tickets; n != 1 {
		t.Errorf("%d tickets, want 1", n)
	}
}
