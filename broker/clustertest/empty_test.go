package clustertest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/freeport"
)

// awaitLog waits until a line has all parts.
func (r *rig) awaitLog(l *logBuffer, parts ...string) {
	r.Helper()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for !l.has(parts...) {
		select {
		case <-r.ctx.Done():
			r.Fatalf("never logged: %q", parts)
		case <-poll.C:
		}
	}
}

func probe(t *testing.T, addr, path string) (code int, text string) {
	t.Helper()
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestClusterEmptyStoresWait: two of three nodes have lost their volumes and come up
// first. They wait and say for what, also beside the third; the rescue that they name
// brings the cluster back, and everything is there.
func TestClusterEmptyStoresWait(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	port, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	var log logBuffer
	r := &rig{T: t, ctx: ctx, Cluster: brokertest.NewCluster(t, 3, brokertest.Options{Policy: policy, Log: &log, Change: func(c *broker.Config) {
		if c.Name == "n2" {
			c.Ops.Listen = port
		}
	}})}
	r.api = admin.New(r.Client("root"))
	r.publish(50)
	r.await("healthy", healthy)
	r.killAll()
	r.wipe(1)
	r.wipe(2)

	// n3 stays lost: a start that ends with the test.
	lost, gone := context.WithCancel(ctx)
	var started sync.WaitGroup
	defer started.Wait()
	defer gone()
	started.Go(func() { _ = r.StartWithin(lost, 2) })
	started.Go(func() {
		if err := r.StartWithin(ctx, 1); err != nil {
			t.Errorf("n2: %v", err)
		}
	})
	r.awaitLog(&log, `"node":"n2"`, "the store is not started", "the first start of a cluster needs all nodes", "silent: [n1]")
	r.awaitLog(&log, `"node":"n3"`, "the store is not started", "silent: [n1]")
	if code, text := probe(t, port, "/startupz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "silent: [n1]") {
		t.Errorf("/startupz: %d %s", code, text)
	}
	if code, text := probe(t, port, "/livez"); code != http.StatusOK {
		t.Errorf("/livez: %d %s", code, text)
	}

	first := make(chan error, 1)
	go func() { first <- r.StartWithin(ctx, 0) }()
	r.awaitLog(&log, `"node":"n2"`, "with a store: [n1]", "signet cluster rescue --config signet.yaml --i-understand --lost NAME")
	r.awaitLog(&log, `"node":"n3"`, "with a store: [n1]")
	for _, i := range []int{1, 2} {
		if kept, err := filepath.Glob(filepath.Join(r.Nodes[i].State.Dir, "store", "jetstream", "SYS", "*")); err != nil || len(kept) != 0 {
			t.Errorf("node %d has made a store: %v, %v", i+1, kept, err)
		}
	}
	rescue := func(lost ...string) (string, error) {
		args := []string{"cluster", "rescue", "--i-understand", "--timeout", "30s", "--config", r.Nodes[0].State.Config}
		for _, name := range lost {
			args = append(args, "--lost", name)
		}
		return r.signet(args...)
	}
	if out, err := rescue("n1", "n3"); exit(t, err) != 1 || !strings.Contains(out, "n1 is not lost") {
		t.Errorf("with the node that has it all named: %v\n%s", err, out)
	}
	if out, err := rescue("n3"); err != nil || !strings.Contains(out, "removed  n3") {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := <-first; err != nil {
		t.Fatalf("n1: %v", err)
	}
	r.awaitLog(&log, `"node":"n2"`, "the store is filled")
	r.api = admin.New(r.Nodes[0].Client("root"))
	r.publish(10)
	r.read()
	r.await("the copies on n2 are whole", func(s *admin.ClusterStatus) bool {
		for _, st := range s.Streams {
			if !slices.ContainsFunc(st.Replicas, func(c admin.ClusterReplica) bool { return c.Node == "n2" && c.Current && c.Online }) {
				return false
			}
		}
		return s.Leader == "n1" && node(s, "n2").Current && len(s.Streams) == 4
	})
}

// TestClusterFirstNodeSaysWhatItWaitsFor: the first node of a new cluster hears of no
// other one. It is live, not ready, and names them, until it is told to stop.
func TestClusterFirstNodeSaysWhatItWaitsFor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	port, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	var log logBuffer
	r := &rig{T: t, ctx: ctx, Cluster: brokertest.PrepareCluster(t, 3, brokertest.Options{Policy: policy, Log: &log, Change: func(c *broker.Config) {
		c.Ops.Listen = port
	}})}
	alone, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.StartWithin(alone, 0) }()
	r.awaitLog(&log, "the first start of a cluster needs all nodes", "silent: [n2 n3]", "start the others")
	for path, want := range map[string]int{"/livez": http.StatusOK, "/readyz": http.StatusServiceUnavailable, "/startupz": http.StatusServiceUnavailable} {
		code, text := probe(t, port, path)
		if code != want || code != http.StatusOK && !strings.Contains(text, "silent: [n2 n3]") {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the start ended with %v", err)
	}
}
