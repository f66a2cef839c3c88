package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

const keyedPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
  - {name: JOBS, subjects: [jobs.>], maxBytes: 64MiB, retention: workqueue}
retry: {maxDeliveries: 100} # an instance that is cut off gets what it cannot answer
kv: [{bucket: groups, maxBytes: 1MiB}, {bucket: short, maxBytes: 1MiB, ttl: 2s}]
principals:
  - {name: checkout, identities: [{nkey: '{{nkey "checkout"}}'}], publish: [orders.>]}
  - {name: billing, identities: [{nkey: '{{nkey "billing"}}'}], subscribe: [orders.>, jobs.>], kv: {read: [groups, short], write: [groups, short]}}
  - {name: poor, identities: [{nkey: '{{nkey "poor"}}'}], subscribe: [orders.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [keys, consumers, dlq]}
`

// ledger checks what handlers of all instances do: one at a time for each key, in order,
// nothing left out.
type ledger struct {
	mu     sync.Mutex
	faults []string
	last   map[string]int       // the greatest number handled of each key
	busy   map[string]*instance // whose handler has the key
	dups   int
	done   int // events handled for the first time
	fences map[string]uint64
}

type instance struct {
	c    *client.Client
	s    *client.KeyedSubscription
	dead bool // guarded by ledger.mu
}

func (l *ledger) faultf(format string, args ...any) {
	l.faults = append(l.faults, fmt.Sprintf(format, args...))
}

// enter and leave bracket the work of a handler; false: its instance was killed.
func (l *ledger) enter(i *instance, d *client.Delivery) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i.dead {
		return false
	}
	if other := l.busy[d.Key]; other != nil {
		l.faultf("key %s is with two handlers", d.Key)
	}
	l.busy[d.Key] = i
	return true
}

func (l *ledger) leave(i *instance, d *client.Delivery, handled bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i.dead {
		return false
	}
	delete(l.busy, d.Key)
	if !handled {
		return true
	}
	n, err := strconv.Atoi(string(d.Event.Data))
	if err != nil {
		l.faultf("data %q", d.Event.Data)
	}
	switch last := l.last[d.Key]; {
	case n == last+1:
		l.last[d.Key] = n
		l.done++
	case n <= last:
		l.dups++
	default:
		l.faultf("key %s: %d after %d (sequence %d, delivery %d)", d.Key, n, last, d.Sequence, d.NumDelivered)
	}
	if d.Fence < l.fences[d.Key] {
		l.faultf("key %s: fence %d after %d", d.Key, d.Fence, l.fences[d.Key])
	}
	l.fences[d.Key] = d.Fence
	return true
}

// kill ends an instance as a crash does: nothing it does from now on counts, and it says
// nothing to the broker any more.
func (l *ledger) kill(i *instance) {
	l.mu.Lock()
	i.dead = true
	for key, who := range l.busy {
		if who == i {
			delete(l.busy, key)
		}
	}
	l.mu.Unlock()
	i.c.Close()
}

func (l *ledger) counts() (done, dups int, faults []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done, l.dups, append([]string(nil), l.faults...)
}

var errNotNow = errors.New("not now")

// connects is a broker, or a cluster of them.
type connects interface {
	Client(principal string, opts ...client.Option) *client.Client
}

func newLedger() *ledger {
	return &ledger{last: map[string]int{}, busy: map[string]*instance{}, fences: map[string]uint64{}}
}

func (l *ledger) start(t *testing.T, b connects, cfg client.Keyed) *instance {
	t.Helper()
	i := &instance{c: b.Client("billing")}
	handle := func(_ context.Context, d *client.Delivery) error {
		if !l.enter(i, d) {
			return errNotNow // to nobody: the connection is closed
		}
		fails := d.NumDelivered == 1 && d.Sequence%17 == 0
		<-time.After(time.Duration(d.Sequence%5) * time.Millisecond) // work, so that handlers overlap
		if !l.leave(i, d, !fails) {
			return errNotNow
		}
		if fails {
			return client.Retry(time.Millisecond, errNotNow)
		}
		return nil
	}
	ctx := within(t, 2*time.Minute)
	s, err := i.c.SubscribeKeyed(ctx, "orders.>", handle, cfg)
	for err != nil && client.Retryable(err) && ctx.Err() == nil { // no node leads at this moment
		<-time.After(100 * time.Millisecond)
		s, err = i.c.SubscribeKeyed(ctx, "orders.>", handle, cfg)
	}
	if err != nil {
		t.Fatal(err)
	}
	i.s = s
	return i
}

// TestKeyedChurn: instances of a group start, leave and are killed while events come:
// every event is handled, in order for its key, by one handler at a time, and twice only
// because of a kill.
func TestKeyedChurn(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: keyedPolicy})
	cfg := client.Keyed{Group: "churn", Bucket: "groups", Partitions: 3, Lease: client.MinLease}
	const keys, perKey = 12, 40
	l := newLedger()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	live := []*instance{l.start(t, b, cfg)}
	var publishing sync.WaitGroup
	pub := b.Client("checkout")
	publishing.Go(func() {
		for n := 1; n <= perKey; n++ {
			for k := range keys {
				if _, err := pub.Publish(within(t, time.Minute), "orders.x", keyedEvent(fmt.Sprint("k", k), n)); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	kills, lost := 0, uint64(0)
	steps := []string{"start", "leave", "kill", "start", "kill", "leave"}
	rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for n, step := range steps {
		// The next change comes when some more was handled, wherever that stands by then.
		reach(t, l, (n+1)*keys*perKey/12)
		if step != "start" {
			at := rng.IntN(len(live))
			i := live[at]
			live = append(live[:at], live[at+1:]...)
			if step == "kill" {
				l.kill(i)
				kills++
			} else {
				i.s.Drain()
				next(t, i.s.Closed())
				if err := i.s.Err(); err != nil {
					t.Error(err)
				}
				lost += i.s.Stats().Lost + i.s.Stats().Fenced
			}
		}
		if len(live) == 0 || step == "start" {
			live = append(live, l.start(t, b, cfg))
		}
	}
	publishing.Wait()
	reach(t, l, keys*perKey)
	for _, i := range live {
		lost += i.s.Stats().Lost + i.s.Stats().Fenced
		i.s.Drain()
	}
	for _, i := range live {
		next(t, i.s.Closed())
	}
	done, dups, faults := l.counts()
	t.Logf("%d events, %d kills, %d partitions lost, %d handled twice", done, kills, lost, dups)
	if done != keys*perKey || len(faults) > 0 {
		t.Errorf("%d of %d; %v", done, keys*perKey, faults)
	}
}

// reach waits until so many events were handled.
func reach(t *testing.T, l *ledger, want int) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Minute); ; <-tick.C {
		done, dups, faults := l.counts()
		switch {
		case len(faults) > 0:
			t.Fatalf("%d handled, %d twice: %v", done, dups, faults)
		case done >= want:
			return
		case time.Now().After(deadline):
			t.Fatalf("%d of %d handled, %d twice", done, want, dups)
		}
	}
}

// connectVia is Broker.Client by another address.
func connectVia(t *testing.T, b *brokertest.Broker, addr, principal string) *client.Client {
	t.Helper()
	c, err := client.Connect(within(t, time.Minute), "tls://"+addr, client.WithNkeySeedFile(b.Cred(principal)),
		client.WithTLSRoots(b.State.CA), client.WithRoot(b.State.Root), client.WithTimeout(2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func keyedEvent(key string, n int) *client.Event {
	ev := client.NewEvent("t", fmt.Append(nil, n))
	if key != "" {
		ev.Extensions = map[string]string{"partitionkey": key}
	}
	return ev
}

// TestKeyedFencing: an instance that cannot reach the broker stops before another one
// takes its partitions, and what it still says arrives to no effect.
func TestKeyedFencing(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: keyedPolicy})
	link, err := brokertest.NewProxy(b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	cfg := client.Keyed{Group: "fence", Bucket: "groups", Partitions: 1, Lease: client.MinLease}
	ctx := within(t, 2*time.Minute)
	pub := b.Client("checkout")
	for n := 1; n <= 3; n++ {
		if _, err := pub.Publish(ctx, "orders.x", keyedEvent("k", n)); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var busy string
	var faults []string
	begin := func(who string) {
		mu.Lock()
		defer mu.Unlock()
		if busy != "" {
			faults = append(faults, who+" began while "+busy+" had the key")
		}
		busy = who
	}
	end := func() { mu.Lock(); busy = ""; mu.Unlock() }

	entered, left := make(chan uint64, 3), make(chan struct{})
	first, err := connectVia(t, b, link.Addr(), "billing").SubscribeKeyed(ctx, "orders.>", func(ctx context.Context, d *client.Delivery) error {
		begin("the first")
		defer end()
		entered <- d.Fence
		<-ctx.Done()
		defer close(left)
		return nil // done, it thinks
	}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	old := next(t, entered)
	link.Set(brokertest.Link{Cut: true})
	got := make(chan *client.Delivery, 9)
	second, err := b.Client("billing").SubscribeKeyed(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error {
		begin("the second")
		defer end()
		got <- d
		return nil
	}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 3; n++ {
		d := next(t, got)
		if string(d.Event.Data) != strconv.Itoa(n) || d.Fence <= old || d.Key != "k" {
			t.Errorf("event %d: %s, key %q, fence %d after %d", n, d.Event.Data, d.Key, d.Fence, old)
		}
	}
	next(t, left)
	link.Set(brokertest.Link{}) // now what it said arrives
	if _, err := pub.Publish(ctx, "orders.x", keyedEvent("k", 4)); err != nil {
		t.Fatal(err)
	}
	// The broker may still send it to a pull of the first, which drops it; then it comes again.
	if d := next(t, got); string(d.Event.Data) != "4" {
		t.Errorf("event 4: %s", d.Event.Data)
	}
	second.Drain()
	next(t, second.Closed())
	first.Stop()
	next(t, first.Closed())
	if s := first.Stats(); s.Fenced != 1 || s.Lost != 1 || s.Delivered != 1 {
		t.Errorf("stats of the first: %+v", s)
	}
	if s := second.Stats(); s.Delivered != 4 || s.Fenced != 0 || second.Err() != nil {
		t.Errorf("stats of the second: %+v, %v", s, second.Err())
	}
	mu.Lock()
	defer mu.Unlock()
	if len(faults) > 0 {
		t.Error(faults)
	}
}

// TestKeyedBlocksOneKey: an event that fails holds back those of its own key, until it is
// handled or given up; other keys go on.
func TestKeyedBlocksOneKey(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: keyedPolicy})
	ctx := within(t, 2*time.Minute)
	type seen struct {
		key, data string
		delivery  uint64
	}
	got := make(chan seen, 100)
	heal := make(chan struct{})
	handle := func(_ context.Context, d *client.Delivery) error {
		got <- seen{d.Key, string(d.Event.Data), d.NumDelivered}
		switch string(d.Event.Data) + d.Key {
		case "1retried":
			select {
			case <-heal:
			default:
				return client.Retry(20 * time.Millisecond)
			}
		case "1rejected":
			return client.Reject("never")
		}
		return nil
	}
	s, err := b.Client("billing").SubscribeKeyed(ctx, "orders.>", handle, client.Keyed{Group: "block", Bucket: "groups", Key: client.SubjectToken(2)},
		client.Concurrency(2))
	if err != nil {
		t.Fatal(err)
	}
	pub := b.Client("checkout")
	for n := 1; n <= 3; n++ {
		for _, key := range []string{"retried", "rejected", "fine"} {
			if _, err := pub.Publish(ctx, "orders."+key, keyedEvent("", n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	order := map[string][]string{}
	for healed := false; len(order["retried"]) < 3 || len(order["rejected"]) < 3 || len(order["fine"]) < 3; {
		e := next(t, got)
		if e.key == "retried" && e.data == "1" && !healed {
			if e.delivery > 3 && len(order["fine"]) == 3 && len(order["rejected"]) == 3 {
				close(heal)
				healed = true
			}
			continue
		}
		if e.key == "retried" && e.data == "1" && len(order["retried"]) == 1 {
			continue // it was on its way when it could go on
		}
		order[e.key] = append(order[e.key], e.data)
	}
	for key, list := range order {
		if fmt.Sprint(list) != "[1 2 3]" {
			t.Errorf("%s: %v", key, list)
		}
	}
	s.Drain()
	next(t, s.Closed())
}

// TestKeyedOtherLeases: instances with different leases work together, and each can read how
// long the other may be silent.
func TestKeyedOtherLeases(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: keyedPolicy})
	none := func(context.Context, *client.Delivery) error { return nil }
	for _, lease := range []time.Duration{time.Minute, client.MinLease} {
		s, err := b.Client("billing").SubscribeKeyed(within(t, time.Minute), "orders.>", none, client.Keyed{Group: "g", Bucket: "groups", Lease: lease})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
	}
	js, err := b.NATS("billing").JetStream()
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue("groups")
	if err != nil {
		t.Fatal(err)
	}
	e, err := kv.Get("g")
	if err != nil {
		t.Fatal(err)
	}
	var roll struct {
		Leases map[string]time.Duration `json:"leases"`
	}
	if err := json.Unmarshal(e.Value(), &roll); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Values(roll.Leases))
	if !slices.Equal(got, []time.Duration{client.MinLease, time.Minute}) {
		t.Errorf("the roll has the leases %v", got)
	}
}

// TestKeyedRefuses: what cannot work is said at once, and leaves nothing behind.
func TestKeyedRefuses(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: keyedPolicy})
	c, ctx := b.Client("billing"), within(t, time.Minute)
	none := func(context.Context, *client.Delivery) error { return nil }
	s, err := c.SubscribeKeyed(ctx, "orders.>", none, client.Keyed{Group: "g", Bucket: "groups"})
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Partitions(); n != client.DefaultPartitions {
		t.Errorf("the only instance has %d partitions", n)
	}
	for _, tt := range []struct {
		name   string
		c      *client.Client
		filter string
		k      client.Keyed
		opts   []client.SubOption
		want   error
	}{
		{"no group", c, "orders.>", client.Keyed{Bucket: "groups"}, nil, client.ErrInvalidOption},
		{"long group", c, "orders.>", client.Keyed{Group: strings.Repeat("g", 59), Bucket: "groups"}, nil, client.ErrInvalidOption},
		{"no bucket", c, "orders.>", client.Keyed{Group: "h"}, nil, client.ErrInvalidOption},
		{"partitions", c, "orders.>", client.Keyed{Group: "h", Bucket: "groups", Partitions: 33}, nil, client.ErrInvalidOption},
		{"lease", c, "orders.>", client.Keyed{Group: "h", Bucket: "groups", Lease: time.Second}, nil, client.ErrInvalidOption},
		{"lease over the ttl", c, "orders.>", client.Keyed{Group: "h", Bucket: "short"}, nil, client.ErrInvalidOption},
		{"durable", c, "orders.>", client.Keyed{Group: "h", Bucket: "groups"}, []client.SubOption{client.Durable("d")}, client.ErrInvalidOption},
		{"a short wait", c, "orders.>", client.Keyed{Group: "h", Bucket: "groups"}, []client.SubOption{client.AckWait(14 * time.Second)}, client.ErrInvalidOption},
		{"ordered", c, "orders.>", client.Keyed{Group: "h", Bucket: "groups"}, []client.SubOption{client.Ordered()}, client.ErrInvalidOption},
		{"unknown bucket", c, "orders.>", client.Keyed{Group: "h", Bucket: "nowhere"}, nil, client.ErrDenied},
		{"bucket not granted", b.Client("poor"), "orders.>", client.Keyed{Group: "h", Bucket: "groups"}, nil, client.ErrDenied},
		{"filter not granted", c, "other.>", client.Keyed{Group: "h", Bucket: "groups"}, nil, client.ErrDenied},
		{"a work queue", c, "jobs.>", client.Keyed{Group: "h", Bucket: "groups", Partitions: 2}, nil, client.ErrInvalidOption},
		{"a longer lease", c, "orders.>", client.Keyed{Group: "g", Bucket: "groups", Lease: 2 * client.DefaultLease}, nil, client.ErrConflict},
		{"other partitions", c, "orders.>", client.Keyed{Group: "g", Bucket: "groups", Partitions: 2}, nil, client.ErrConflict},
		{"other filter", c, "orders.x", client.Keyed{Group: "g", Bucket: "groups"}, nil, client.ErrConflict},
	} {
		if _, err := tt.c.SubscribeKeyed(ctx, tt.filter, none, tt.k, tt.opts...); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	// One partition is one reader, which a work queue takes, as nothing was left in its way.
	jobs, err := c.SubscribeKeyed(ctx, "jobs.>", none, client.Keyed{Group: "j", Bucket: "groups", Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer jobs.Stop()
	s.Drain()
	next(t, s.Closed())
	if err := s.Err(); err != nil {
		t.Error(err)
	}
	// Whoever comes next has everything at once: the roll says that nobody is there.
	if s, err = c.SubscribeKeyed(ctx, "orders.>", none, client.Keyed{Group: "g", Bucket: "groups"}); err != nil || s.Partitions() != client.DefaultPartitions {
		t.Fatalf("again: %v", err)
	}
	c.Close()
	next(t, s.Closed())
	if err := s.Err(); err != nil {
		t.Errorf("after Close: %v", err)
	}
}
