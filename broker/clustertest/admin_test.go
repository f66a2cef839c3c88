package clustertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

// logBuffer takes the logs of all nodes.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			return true
		}
	}
	return false
}

// TestClusterAnswersAtEveryNode: whichever node is asked, refusals are those of all,
// leaders are spread, and only the grant lets anybody in.
func TestClusterAnswersAtEveryNode(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var log logBuffer
	r := &rig{T: t, ctx: ctx, Cluster: brokertest.NewCluster(t, 3, brokertest.Options{Policy: policy, Log: &log})}
	at := func(i int) *admin.API { return admin.New(r.Nodes[i].Client("root")) }
	r.api = at(0)
	r.await("healthy", healthy)

	clerk := admin.New(r.Client("clerk"))
	r.refused("status without the grant", func() error { _, err := clerk.ClusterStatus(ctx); return err }, client.ErrDenied)
	r.refused("evacuation without the grant", func() error { return clerk.ClusterEvacuate(ctx, "n3") }, client.ErrDenied)
	r.refused("rescue without the grant", func() error { _, err := clerk.ClusterRescue(ctx, "n3"); return err }, client.ErrDenied)

	t.Run("refusals", func(t *testing.T) { r.refusals(t, at) })
	t.Run("rebalance", func(t *testing.T) { r.rebalance(t) })
	if !log.has("cluster-rebalance", "done", "shop/root") || !log.has("cluster-stepdown", "begun", "n2") {
		t.Error("changes are not in the audit log")
	}
	t.Run("policy", func(t *testing.T) { r.otherPolicy(t) })
}

func (r *rig) refusals(t *testing.T, at func(int) *admin.API) {
	var refs []string
	for i, n := range r.Nodes {
		_, err := n.Client("reader").Publish(r.ctx, "orders.a", &client.Event{Data: fmt.Append(nil, i)})
		var refusal *client.Error
		if !asRefusal(err, &refusal) || refusal.Ref == "" {
			t.Fatalf("node %d: %v", i+1, err)
		}
		refs = append(refs, refusal.Ref)
	}
	for i := range r.Nodes {
		list, err := at(i).Refusals(r.ctx, admin.RefusalsQuery{Principal: "reader"}, 0)
		if err != nil || len(list.Entries) != 3 || len(list.Without) != 0 {
			t.Fatalf("at node %d: %+v, %v", i+1, list, err)
		}
		for j, e := range list.Entries {
			if e.Node != fmt.Sprintf("n%d", j+1) || e.Ref != refs[j] {
				t.Errorf("at node %d: entry %d is %s of %s", i+1, j, e.Ref, e.Node)
			}
		}
		// Nothing comes twice, and what is new is found wherever it happens.
		rest, err := at(i).Refusals(r.ctx, admin.RefusalsQuery{After: list.Cursor, Cursors: list.Cursors}, 0)
		if err != nil || len(rest.Entries) != 0 {
			t.Errorf("at node %d again: %+v, %v", i+1, rest, err)
		}
		for _, ref := range refs {
			if got, err := at(i).Explain(r.ctx, ref); err != nil || got.Ref != ref {
				t.Errorf("explain %s at node %d: %+v, %v", ref, i+1, got, err)
			}
		}
	}
	r.refused("a ref that is nobody's", func() error { _, err := at(0).Explain(r.ctx, "NOSUCHREF"); return err }, client.ErrNotFound)
}

func (r *rig) rebalance(t *testing.T) {
	for _, to := range []string{"n2", "n1"} {
		if err := r.api.ClusterStepDown(r.ctx, to); err != nil {
			t.Fatal(err)
		}
		r.await(to+" leads", func(s *admin.ClusterStatus) bool { return s.Leader == to && healthy(s) })
	}
	out, err := r.rebalanced()
	if err != nil || len(out.Failed) > 0 {
		t.Fatalf("%+v, %v", out, err)
	}
	r.await("leaders are spread", func(s *admin.ClusterStatus) bool {
		least, most := s.Nodes[0].Leads, s.Nodes[0].Leads
		for _, n := range s.Nodes {
			least, most = min(least, n.Leads), max(most, n.Leads)
		}
		return least > 0 && most-least <= 1 && healthy(s) // the number of streams need not divide by that of nodes
	})
	again, err := r.rebalanced()
	if err != nil || len(again.Moves) != 0 {
		t.Errorf("a second time: %+v, %v", again, err)
	}
}

// rebalanced asks again while a copy counts as behind, as one does for a moment after its
// leader has moved.
func (r *rig) rebalanced() (*admin.ClusterRebalance, error) {
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		out, err := r.api.ClusterRebalance(r.ctx)
		if !errors.Is(err, client.ErrConflict) || r.ctx.Err() != nil {
			return out, err
		}
		<-poll.C
	}
}

// otherPolicy: one node that has another policy is marked, and the command says so.
func (r *rig) otherPolicy(t *testing.T) {
	out, err := r.signet("cluster", "status")
	if code := exit(t, err); code != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), "health ok") {
		t.Errorf("exit %d\n%s", code, out)
	}
	file := r.Nodes[2].State.Policy
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, bytes.Replace(text, []byte(", refusals"), nil, 1), 0o600)
	}
	if err == nil {
		err = r.Nodes[2].Reload(r.ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := r.await("n3 is marked", func(s *admin.ClusterStatus) bool { return node(s, "n3").PolicyDiffers })
	if node(s, "n1").PolicyDiffers || node(s, "n2").PolicyDiffers {
		t.Errorf("%+v", s.Nodes)
	}
	out, err = r.signet("cluster", "status")
	if code := exit(t, err); code != 1 || !strings.Contains(out, "DEGRADED") || !strings.Contains(out, "fix: give all nodes the same files") {
		t.Errorf("exit %d\n%s", code, out)
	}
	r.Stop(1)
	list, err := r.api.Refusals(r.ctx, admin.RefusalsQuery{}, 0)
	if err != nil || len(list.Without) != 2 || !strings.Contains(list.Without["n2"], "n2: ") || !strings.Contains(list.Without["n3"], "area refusals") {
		t.Errorf("a node is gone and another refuses: %+v, %v", list, err)
	}
	if _, err := r.api.Explain(r.ctx, "NOSUCHREF"); err == nil || !strings.Contains(err.Error(), "n2 (") {
		t.Errorf("a ref that is nobody's: %v", err)
	}
}
