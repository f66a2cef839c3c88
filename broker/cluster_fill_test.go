package broker_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

const fillPolicy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
principals:
  - {name: writer, identities: [{nkey: {{nkey "writer"}}}], publish: [orders.>]}
  - {name: reader, identities: [{nkey: {{nkey "reader"}}}], subscribe: [orders.>]}
  - {name: root, identities: [{nkey: {{nkey "root"}}}], admin: [cluster, status]}
`

// fillRig is a cluster in which n1 is not called filled before mayFill.
type fillRig struct {
	*testing.T
	*brokertest.Cluster
	ctx     context.Context
	api     *admin.API
	log     *logWatch
	mayFill atomic.Bool
	sent    int
}

func newFillRig(t *testing.T, n int) *fillRig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	r := &fillRig{T: t, ctx: ctx, log: newLogWatch()}
	r.Cluster = brokertest.NewCluster(t, n, brokertest.Options{Policy: fillPolicy, Log: r.log, Change: func(c *broker.Config) {
		if c.Name == "n1" {
			broker.SetFilled(c, r.mayFill.Load)
		}
	}})
	r.api = admin.New(r.Client("root"))
	return r
}

// consume reads with a durable consumer until the end of the test.
func (r *fillRig) consume() {
	r.Helper()
	sub := must(r.Client("reader").Subscribe(r.ctx, "orders.>", func(context.Context, *client.Delivery) error { return nil },
		client.Durable("billing"), client.FromStart()))(r)
	r.Cleanup(sub.Stop)
}

func (r *fillRig) publish(n int) {
	r.Helper()
	c := r.Client("writer")
	defer c.Close()
	brokertest.PublishNumbers(r.ctx, r, c, "orders.a", r.sent, r.sent+n)
	r.sent += n
}

func (r *fillRig) lose(i int) {
	r.Helper()
	r.Stop(i)
	if err := os.RemoveAll(filepath.Join(r.Nodes[i].State.Dir, "store")); err != nil {
		r.Fatal(err)
	}
}

// until polls for ok.
func (r *fillRig) until(what string, ok func() bool) {
	r.Helper()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-r.ctx.Done():
			s, err := r.api.ClusterStatus(context.Background())
			r.Fatalf("never: %s; %+v, %v", what, s, err)
		case <-poll.C:
		}
	}
}

// status waits for a status that is ok.
func (r *fillRig) status(what string, ok func(*admin.ClusterStatus) bool) {
	r.Helper()
	r.until(what, func() bool {
		s, err := r.api.ClusterStatus(r.ctx)
		return err == nil && ok(s)
	})
}

// is says that a node is in a phase with a store.
func is(node, phase, store string) func(*admin.ClusterStatus) bool {
	return func(s *admin.ClusterStatus) bool {
		return slices.ContainsFunc(s.Nodes, func(n admin.ClusterNode) bool {
			return n.Name == node && n.Phase == phase && n.Store == store
		})
	}
}

func well(s *admin.ClusterStatus) bool { return len(s.Problems) == 0 }

// TestClusterSecondVolumeLost: n1 was replaced and has got everything, when n2 is lost
// before that is written down. n1 must not wait for the copies on n2, and not lead, since n2
// waits for n1 to be filled. And n2, while it waits, keeps no new tenant from the others.
func TestClusterSecondVolumeLost(t *testing.T) {
	r := newFillRig(t, 3)
	r.consume()
	r.publish(50)
	r.status("well", well)
	r.lose(0)
	r.publish(20)
	r.Start(0)
	r.status("n1 is being filled", is("n1", "ready", "filling"))
	r.status("n1 could lead", func(s *admin.ClusterStatus) bool {
		return slices.ContainsFunc(s.Nodes, func(n admin.ClusterNode) bool { return n.Name == "n1" && n.Current && n.Online })
	})
	if err := r.api.ClusterStepDown(r.ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	r.log.wait(r.ctx, t, "it hands that over")
	r.status("another node leads", func(s *admin.ClusterStatus) bool { return s.Leader == "n2" || s.Leader == "n3" })

	r.lose(1)
	r.publish(20)
	second := make(chan error, 1)
	go func() { second <- r.StartWithin(r.ctx, 1) }()
	r.status("n2 waits", is("n2", "waiting", "empty"))
	r.newTenant()
	r.status("n1 is not filled yet", is("n1", "ready", "filling"))
	r.mayFill.Store(true)
	r.status("n1 is filled", is("n1", "ready", "kept"))
	if err := <-second; err != nil {
		t.Fatalf("n2: %v", err)
	}
	r.status("n2 is filled", is("n2", "ready", "kept"))
	for i, n := range r.Nodes {
		if err := n.Reload(r.ctx); err != nil {
			t.Errorf("node %d: %v", i+1, err)
		}
	}
	r.status("well again", well)
	c := r.Client("reader")
	defer c.Close()
	brokertest.CheckNumbers(r.ctx, r, c, "orders.>", r.sent)
}

// newTenant gives all nodes a policy with one tenant more, and waits until n2, which
// does not start its store yet, has the tenant.
func (r *fillRig) newTenant() {
	r.Helper()
	kp := must(nkeys.CreateUser())(r)
	add := `
---
tenant: dock
streams:
  - {name: CARGO, subjects: [cargo.>], maxBytes: 8MiB}
principals:
  - {name: docker, identities: [{nkey: ` + must(kp.PublicKey())(r) + `}], publish: [cargo.>], subscribe: [cargo.>]}
`
	for _, n := range r.Nodes { // those that run see it by themselves
		text := must(os.ReadFile(n.State.Policy))(r)
		if err := os.WriteFile(n.State.Policy, append(text, add...), 0o600); err != nil {
			r.Fatal(err)
		}
	}
	r.until("n2 knows the tenant", func() bool {
		return slices.Contains(broker.TenantsOf(r.ctx, r.Nodes[2].Broker, "n2"), "dock")
	})
}

// TestClusterFillsWithoutOne: a node is filled while another one is down.
func TestClusterFillsWithoutOne(t *testing.T) {
	r := newFillRig(t, 5)
	r.mayFill.Store(true)
	r.consume()
	r.publish(20)
	r.status("well", well)
	lost, down := r.strangers()
	r.lose(lost)
	r.Stop(down)
	r.publish(20)
	r.Start(lost)
	r.status("it is filled", is(nodeOf(lost), "ready", "kept"))
	r.Start(down)
	r.status("well again", well)
}

func nodeOf(i int) string { return fmt.Sprintf("n%d", i+1) }

// strangers returns two nodes that have no stream in common: one that both have has no
// quorum without them. The broker's own streams are taken away, with which there may be no such two.
func (r *fillRig) strangers() (lost, down int) {
	r.Helper()
	nc := must(r.Nodes[1].Inside(wire.BrokerAccount))(r)
	for _, name := range []string{store.StreamAudit, store.StreamLog, store.StreamKeys, store.StreamHeads} {
		if m := must(nc.RequestWithContext(r.ctx, "$JS.API.STREAM.DELETE."+name, nil))(r); !strings.Contains(string(m.Data), `"success":true`) {
			r.Fatalf("%s: %s", name, m.Data)
		}
	}
	s := must(r.api.ClusterStatus(r.ctx))(r)
	for lost := range r.Nodes {
		for down := range lost {
			if !slices.ContainsFunc(s.Streams, func(t admin.ClusterStream) bool {
				has := func(i int) bool {
					return slices.ContainsFunc(t.Replicas, func(c admin.ClusterReplica) bool { return c.Node == nodeOf(i) })
				}
				return has(lost) && has(down)
			}) {
				return lost, down
			}
		}
	}
	r.Fatalf("every two nodes share a stream: %+v", s.Streams)
	return 0, 0
}

// TestClusterAnswersSideBySide: the leader, which asks a node that hangs whether another
// one may be filled, answers other questions meanwhile, and this one in time.
func TestClusterAnswersSideBySide(t *testing.T) {
	r := newFillRig(t, 3)
	if err := r.api.ClusterStepDown(r.ctx, "n1"); err != nil {
		t.Fatal(err)
	}
	r.Stop(2)
	r.status("n1 leads", func(s *admin.ClusterStatus) bool { return s.Leader == "n1" })
	if err := broker.Pause(r.Nodes[0].Broker, "n3"); err != nil {
		t.Fatal(err)
	}
	first, err := broker.AnsweredFirst(r.Nodes[0].Broker, "n2")
	if err != nil || first != "plain" {
		t.Errorf("first answer %q, %v", first, err)
	}
}
