package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

const keyedPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
kv: [{bucket: groups, maxBytes: 1MiB}, {bucket: short, maxBytes: 1MiB, ttl: 2s}]
principals:
  - {name: checkout, identities: [{nkey: '{{nkey "checkout"}}'}], publish: [orders.>]}
  - {name: billing, identities: [{nkey: '{{nkey "billing"}}'}], subscribe: [orders.>], kv: {read: [groups, short], write: [groups, short]}}
  - {name: poor, identities: [{nkey: '{{nkey "poor"}}'}], subscribe: [orders.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [keys, consumers]}
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

func (l *ledger) start(t *testing.T, b *brokertest.Broker, cfg client.Keyed) *instance {
	t.Helper()
	i := &instance{c: b.Client("billing")}
	s, err := i.c.SubscribeKeyed(within(t, time.Minute), "orders.>", func(_ context.Context, d *client.Delivery) error {
		if !l.enter(i, d) {
			return errNotNow // to nobody: the connection is closed
		}
		fails := d.NumDelivered == 1 && d.Sequence%17 == 0
		time.Sleep(time.Duration(d.Sequence%5) * time.Millisecond) //nolint:forbidigo // work, so that handlers overlap
		if !l.leave(i, d, !fails) {
			return errNotNow
		}
		if fails {
			return errNotNow
		}
		return nil
	}, cfg, client.AckWait(2*time.Second))
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
	l := &ledger{last: map[string]int{}, busy: map[string]*instance{}, fences: map[string]uint64{}}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	live := []*instance{l.start(t, b, cfg)}
	var publishing sync.WaitGroup
	pub := b.Client("checkout")
	publishing.Go(func() {
		for n := 1; n <= perKey; n++ {
			for k := range keys {
				ev := client.NewEvent("t", fmt.Append(nil, n))
				ev.Extensions = map[string]string{"partitionkey": fmt.Sprint("k", k)}
				if _, err := pub.Publish(within(t, time.Minute), "orders.x", ev); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	kills, lost := 0, uint64(0)
	for step := range 6 {
		// The next change comes when some more was handled, wherever that stands by then.
		reach(t, l, (step+1)*keys*perKey/12)
		switch op := rng.IntN(3); {
		case op == 0 && len(live) < 4 || len(live) == 0:
			live = append(live, l.start(t, b, cfg))
		case op == 1:
			n := rng.IntN(len(live))
			live[n].s.Drain()
			next(t, live[n].s.Closed())
			if err := live[n].s.Err(); err != nil {
				t.Error(err)
			}
			lost += live[n].s.Stats().Lost
			live = append(live[:n], live[n+1:]...)
			live = append(live, l.start(t, b, cfg))
		default:
			n := rng.IntN(len(live))
			l.kill(live[n])
			kills++
			live = append(live[:n], live[n+1:]...)
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
	if kills == 0 && lost == 0 && dups > 0 {
		t.Errorf("%d were handled twice without a crash", dups)
	}
}

// reach waits until so many events were handled.
func reach(t *testing.T, l *ledger, want int) {
	t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		done, dups, faults := l.counts()
		switch {
		case len(faults) > 0:
			t.Fatalf("%d handled, %d twice: %v", done, dups, faults)
		case done >= want:
			return
		case time.Now().After(deadline):
			t.Fatalf("%d of %d handled, %d twice", done, want, dups)
		}
		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // polls
	}
}
