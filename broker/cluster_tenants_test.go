package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/brokertest"
)

const secondTenant = `
---
tenant: mill
streams:
  - {name: GRAIN, subjects: [grain.>], maxBytes: 8MiB}
principals:
  - {name: miller, identities: [{nkey: {{nkey "miller"}}}], publish: [grain.>], subscribe: [grain.>]}
`

// replicasCurrent waits until all copies of a stream are up to date.
func replicasCurrent(ctx context.Context, t *testing.T, nc *nats.Conn, stream string) {
	t.Helper()
	js := must(jetstream.New(nc))(t)
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		s, err := js.Stream(ctx, stream)
		if err == nil {
			info, good := s.CachedInfo(), 0
			for _, r := range info.Cluster.Replicas {
				if r.Current && !r.Offline {
					good++
				}
			}
			if info.Cluster.Leader != "" && good == info.Config.Replicas-1 {
				return
			}
			err = context.DeadlineExceeded
		}
		select {
		case <-ctx.Done():
			t.Fatalf("stream %s: its copies are not current: %v", stream, err)
		case <-poll.C:
		}
	}
}

// TestClusterNewTenant: a tenant that is added on all nodes gets its streams only
// when every node has its account; then they have all their copies.
func TestClusterNewTenant(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicy})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	kp := must(nkeys.CreateUser())(t)
	add := `
---
tenant: dock
streams:
  - {name: CARGO, subjects: [cargo.>], maxBytes: 8MiB}
principals:
  - {name: docker, identities: [{nkey: ` + must(kp.PublicKey())(t) + `}], publish: [cargo.>], subscribe: [cargo.>]}
`
	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		text := must(os.ReadFile(n.State.Policy))(t)
		if err := os.WriteFile(n.State.Policy, append(text, add...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range c.Nodes {
		wg.Go(func() {
			if err := n.Reload(ctx); err != nil {
				t.Errorf("node %d: %v", i+1, err)
			}
		})
	}
	wg.Wait()
	for _, n := range c.Nodes {
		nc := must(nats.Connect(n.URL(), nats.Timeout(patience), nats.Secure(n.TLS()), nats.Nkey(must(kp.PublicKey())(t), kp.Sign)))(t)
		defer nc.Close()
		replicasCurrent(ctx, t, nc, "CARGO")
		if _, err := must(jetstream.New(nc))(t).Publish(ctx, "cargo.x", []byte("x")); err != nil {
			t.Error(err)
		}
	}
}

// TestClusterLearnsTenant: a node with a new volume, whose policy lacks a tenant that
// the others have, hears of it before its store starts. Without that
// the copy stays dead, or the cluster even deletes the stream.
func TestClusterLearnsTenant(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicy + secondTenant})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	miller := c.Nodes[0].NATS("miller")
	if _, err := must(jetstream.New(miller))(t).Publish(ctx, "grain.a", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	c.Stop(2)
	st := c.Nodes[2].State
	if err := os.RemoveAll(filepath.Join(st.Dir, "store")); err != nil {
		t.Fatal(err)
	}
	text := string(must(os.ReadFile(st.Policy))(t))
	if err := os.WriteFile(st.Policy, []byte(text[:strings.Index(text, "---\ntenant: mill")]), 0o600); err != nil {
		t.Fatal(err)
	}
	c.Start(2)
	replicasCurrent(ctx, t, miller, "GRAIN")
	stream := must(must(jetstream.New(miller))(t).Stream(ctx, "GRAIN"))(t)
	if got := must(stream.GetLastMsgForSubject(ctx, "grain.a"))(t); string(got.Data) != "kept" {
		t.Errorf("got %q", got.Data)
	}
}
