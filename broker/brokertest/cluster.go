package brokertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/client"
)

// startLimit bounds the start of a cluster on a busy machine.
const startLimit = 90 * time.Second

// Cluster is a running cluster inside the test's process.
type Cluster struct {
	Nodes []*Broker
	urls  []string
	o     Options
	tb    testing.TB
}

// NewCluster starts a cluster of n nodes (3 or 5), waits until all are ready, and
// stops it at the end of the test. Options.Change is called for each node.
func NewCluster(tb testing.TB, n int, o Options) *Cluster {
	tb.Helper()
	c := PrepareCluster(tb, n, o)
	var wg sync.WaitGroup
	faults := make([]error, n)
	for i := range c.Nodes {
		wg.Go(func() { faults[i] = c.TryStart(i) })
	}
	wg.Wait()
	for i, err := range faults {
		if err != nil {
			tb.Errorf("node %d: %v", i+1, err)
		}
	}
	if tb.Failed() {
		tb.FailNow()
	}
	return c
}

// PrepareCluster makes the state of a cluster and starts nothing: Start starts a
// node, and what runs at the end of the test is stopped.
func PrepareCluster(tb testing.TB, n int, o Options) *Cluster {
	tb.Helper()
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	addrs, err := unusedAddrs(2 * n)
	if err != nil {
		tb.Fatal(err)
	}
	s := broker.ClusterSetup{Dir: o.Dir, Name: "test", Dev: true, Policy: o.Policy, Encrypt: o.Encrypt}
	var urls []string
	for i := range n {
		urls = append(urls, "tls://"+addrs[2*i])
		s.Nodes = append(s.Nodes, broker.ClusterNode{
			Name: fmt.Sprintf("n%d", i+1), Listen: addrs[2*i], Client: addrs[2*i], Route: addrs[2*i+1],
		})
	}
	states, err := s.Run()
	if err != nil {
		tb.Fatal(err)
	}
	c := &Cluster{urls: urls, o: o, tb: tb}
	for _, st := range states {
		for name, data := range o.Files {
			if err := os.WriteFile(filepath.Join(st.Dir, name), data, 0o600); err != nil {
				tb.Fatal(err)
			}
		}
		c.Nodes = append(c.Nodes, &Broker{State: st, tb: tb})
	}
	tb.Cleanup(c.stopAll)
	return c
}

// Start starts node i (from 0) again, or for the first time, and waits until it is
// ready.
func (c *Cluster) Start(i int) {
	c.tb.Helper()
	if err := c.TryStart(i); err != nil {
		c.tb.Fatalf("node %d: %v", i+1, err)
	}
}

// TryStart is Start for a node that may not start.
func (c *Cluster) TryStart(i int) error {
	ctx, cancel := context.WithTimeout(c.tb.Context(), startLimit)
	defer cancel()
	return c.StartWithin(ctx, i)
}

// StartWithin is TryStart for a node that waits as long as ctx lasts.
func (c *Cluster) StartWithin(ctx context.Context, i int) error {
	n := c.Nodes[i]
	cfg, err := broker.LoadConfig(n.State.Config, nil)
	if err != nil {
		return err
	}
	c.o.settle(&cfg)
	log := zerolog.Nop()
	if c.o.Log != nil {
		log = zerolog.New(c.o.Log).With().Str("node", cfg.Name).Logger()
	}
	b, err := broker.New(cfg, "test", log)
	if err != nil {
		return err
	}
	n.Broker = b
	return b.Start(ctx)
}

// Stop drains node i and waits until it is gone.
func (c *Cluster) Stop(i int) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	if err := c.Nodes[i].Shutdown(ctx); err != nil {
		c.tb.Errorf("shut node %d down: %v", i+1, err)
	}
}

// stopAll stops the nodes at the same time: one after the other, the last ones would
// wait for a quorum that is gone.
func (c *Cluster) stopAll() {
	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		if n.Broker == nil {
			continue
		}
		select {
		case <-n.Done():
			continue
		default:
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), startLimit)
			defer cancel()
			if err := n.Shutdown(ctx); err != nil {
				c.tb.Errorf("shut down: %v", err)
			}
		})
	}
	wg.Wait()
}

// URLs are the addresses of all nodes for clients, whether they run or not.
func (c *Cluster) URLs() string {
	return strings.Join(c.urls, ",")
}

// Client connects with the SDK to whichever node answers.
func (c *Cluster) Client(principal string, opts ...client.Option) *client.Client {
	c.tb.Helper()
	return c.Nodes[0].connect(c.URLs(), principal, opts...)
}

// NATS connects with plain, unmodified nats.go to whichever node answers.
func (c *Cluster) NATS(principal string, opts ...nats.Option) *nats.Conn {
	c.tb.Helper()
	return c.Nodes[0].dial(c.URLs(), principal, opts...)
}
