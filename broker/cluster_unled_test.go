package broker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/store"
)

const unledPolicy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
  - {name: SOLO, subjects: [solo.>], maxBytes: 16MiB, unsafeSingleReplica: true}
principals:
  - {name: writer, identities: [{nkey: {{nkey "writer"}}}], publish: [orders.>, solo.>]}
  - {name: reader, identities: [{nkey: {{nkey "reader"}}}], subscribe: [orders.>, solo.>]}
`

// holders are the nodes with a copy of a stream, by index, the leader first.
func holders(ctx context.Context, t *testing.T, c *brokertest.Cluster, stream string) []int {
	t.Helper()
	nc := c.NATS("writer")
	defer nc.Close()
	js := must(jetstream.New(nc))(t)
	var info *jetstream.StreamInfo
	eventually(t, stream+" is led", func() bool {
		ask, cancel := context.WithTimeout(ctx, 2*time.Second) // some are lost
		defer cancel()
		s, err := js.Stream(ask, stream)
		if err != nil {
			return false
		}
		info = s.CachedInfo()
		return info.Cluster != nil && info.Cluster.Leader != ""
	})
	out := []int{int(info.Cluster.Leader[1] - '1')}
	for _, r := range info.Cluster.Replicas {
		out = append(out, int(r.Name[1]-'1'))
	}
	return out
}

// TestClusterStreamsWithoutLeader: streams whose nodes are away are neither made anew nor
// changed blindly nor forgotten: a change of policy is refused, and says why; what does
// not touch them goes on; when the nodes are back, the change is made.
func TestClusterStreamsWithoutLeader(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := brokertest.NewCluster(t, 5, brokertest.Options{Policy: unledPolicy})
	nc := c.NATS("writer")
	js := must(jetstream.New(nc))(t)
	const events, size = 40, 50_000
	for i := range events {
		for _, subject := range []string{"orders.a", "solo.a"} {
			if _, err := js.Publish(ctx, subject, fmt.Appendf(make([]byte, size), "%d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	replicasCurrent(ctx, t, nc, "ORDERS")
	nc.Close()
	for _, tc := range []struct {
		name, stream string
		away         int // of its copies
		from, to     string
		refused      error // when the nodes are back
	}{
		{"most copies are away", "ORDERS", 2, "maxBytes: 64MiB", "maxBytes: 64MiB, maxAge: 240h", nil},
		{"the only copy is away", "SOLO", 1, "maxBytes: 16MiB", "maxBytes: 1MiB", store.ErrWouldLose},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := holders(ctx, t, c, tc.stream)
			away := all[:tc.away] // the leader among them
			there := 0
			for contains(away, there) {
				there++
			}
			stopAt(t, c, away)
			n := c.Nodes[there]
			old := must(os.ReadFile(n.State.Policy))(t)
			put := func(text string) {
				t.Helper()
				if err := os.WriteFile(n.State.Policy, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			unled(ctx, t, n, tc.stream)
			began, before := time.Now(), n.Policy().Digest()
			put(strings.Replace(string(old), tc.from, tc.to, 1))
			soon, cancel := context.WithTimeout(ctx, time.Minute)
			err := n.Reload(soon)
			cancel()
			t.Logf("after %v: %v", time.Since(began), err)
			if !errors.Is(err, store.ErrNoLeader) || !strings.Contains(err.Error(), tc.stream) || !strings.Contains(err.Error(), "start the nodes") {
				t.Errorf("reload: %v", err)
			}
			var wg sync.WaitGroup
			for _, i := range away {
				wg.Go(func() { c.Start(i) })
			}
			wg.Wait()
			holders(ctx, t, c, tc.stream)
			// Nobody touches a file or sends a signal: the node has to think of it.
			broker.ReloadAgain(ctx, n.Broker)
			if changed := n.Policy().Digest() != before; changed != (tc.refused == nil) {
				t.Errorf("by itself, with all nodes: changed %t, want %t", changed, tc.refused == nil)
			}
			if err := n.Reload(ctx); !errors.Is(err, tc.refused) {
				t.Errorf("reload with all nodes: %v, want %v", err, tc.refused)
			}
			put(string(old))
			if err := n.Reload(ctx); err != nil {
				t.Errorf("back: %v", err)
			}
			nc := c.NATS("reader")
			defer nc.Close()
			info := must(must(jetstream.New(nc))(t).Stream(ctx, tc.stream))(t).CachedInfo()
			if info.State.Msgs != events {
				t.Errorf("%d of %d events", info.State.Msgs, events)
			}
		})
	}
}

// unled waits until the server knows that a stream has no leader: one that has lost its
// followers gives up after a while.
func unled(ctx context.Context, t *testing.T, n *brokertest.Broker, stream string) {
	t.Helper()
	nc := n.NATS("reader")
	defer nc.Close()
	js := must(jetstream.New(nc))(t)
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	// The copy that is left leads for seconds more, and one answer may be lost.
	for silent := 0; silent < 5; {
		ask, cancel := context.WithTimeout(ctx, time.Second)
		s, err := js.Stream(ask, stream)
		cancel()
		var answer *jetstream.APIError
		switch {
		case errors.As(err, &answer), err == nil && (s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader == ""):
			return
		case err != nil:
			silent++
		default:
			silent = 0
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s is still led", stream)
		case <-poll.C:
		}
	}
}

func contains(list []int, i int) bool {
	for _, x := range list {
		if x == i {
			return true
		}
	}
	return false
}

// stopAt stops nodes at once, without the time that a farewell to a quorum takes.
func stopAt(t *testing.T, c *brokertest.Cluster, which []int) {
	t.Helper()
	var wg sync.WaitGroup
	for _, i := range which {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := c.Nodes[i].Shutdown(ctx); err != nil {
				t.Logf("node %d: %v", i+1, err)
			}
		})
	}
	wg.Wait()
}
