package clustertest_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

func TestMain(m *testing.M) {
	if order := os.Getenv(failWorkerEnv); order != "" {
		if err := failWorker(order, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "signet")
	if err == nil {
		binary = filepath.Join(dir, "signet")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", binary, "../../cmd/signet").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func asRefusal(err error, into **client.Error) bool { return errors.As(err, into) }

const policy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 64MiB}
kv: [{bucket: prices, maxBytes: 1MiB}]
principals:
  - {name: writer, identities: [{nkey: {{nkey "writer"}}}], publish: [orders.>]}
  - {name: reader, identities: [{nkey: {{nkey "reader"}}}], subscribe: [orders.>]}
  - {name: root, identities: [{nkey: {{nkey "root"}}}], admin: [cluster, status, policy, refusals]}
  - {name: clerk, identities: [{nkey: {{nkey "clerk"}}}], admin: [status]}
`

// limit bounds each test; a machine that is busy needs some of it.
const limit = 5 * time.Minute

type rig struct {
	*testing.T
	*brokertest.Cluster
	ctx  context.Context
	api  *admin.API
	sent int
}

func newRig(t *testing.T, n int) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	r := &rig{T: t, ctx: ctx, Cluster: brokertest.NewCluster(t, n, brokertest.Options{Policy: policy})}
	r.api = admin.New(r.Client("root"))
	return r
}

// publish stores n events more.
func (r *rig) publish(n int) {
	r.Helper()
	c := r.Client("writer")
	defer c.Close()
	brokertest.PublishNumbers(r.ctx, r, c, "orders.a", r.sent, r.sent+n)
	r.sent += n
}

// read reads everything back, in order.
func (r *rig) read() {
	r.Helper()
	c := r.Client("reader")
	defer c.Close()
	brokertest.CheckNumbers(r.ctx, r, c, "orders.>", r.sent)
}

// await asks for the status until ok.
func (r *rig) await(what string, ok func(*admin.ClusterStatus) bool) *admin.ClusterStatus {
	r.Helper()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	var last *admin.ClusterStatus
	for {
		s, err := r.api.ClusterStatus(r.ctx)
		if err == nil && ok(s) {
			return s
		}
		if err == nil {
			last = s
		}
		select {
		case <-r.ctx.Done():
			r.Fatalf("never: %s; last %+v, %v", what, last, err)
		case <-poll.C:
		}
	}
}

func healthy(s *admin.ClusterStatus) bool { return len(s.Problems) == 0 }

func node(s *admin.ClusterStatus, name string) *admin.ClusterNode {
	i := slices.IndexFunc(s.Nodes, func(n admin.ClusterNode) bool { return n.Name == name })
	return &s.Nodes[i]
}

// wipe empties the volume of a node that is stopped.
func (r *rig) wipe(i int) {
	r.Helper()
	if err := os.RemoveAll(filepath.Join(r.Nodes[i].State.Dir, "store")); err != nil {
		r.Fatal(err)
	}
}

// refused makes a request that must fail with want, again while a stream elects its
// leader, when nothing can be put on record.
func (r *rig) refused(what string, request func() error, want error) {
	r.Helper()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		err := request()
		switch {
		case errors.Is(err, want):
			return
		case !errors.Is(err, client.ErrUnavailable) || r.ctx.Err() != nil:
			r.Fatalf("%s: %v, want %v", what, err, want)
		}
		<-poll.C
	}
}

// TestClusterNodeIsReplaced: a node whose volume is lost comes back under its name
// with an empty one, and gets everything, with nothing removed.
func TestClusterNodeIsReplaced(t *testing.T) {
	r := newRig(t, 3)
	r.publish(50)
	r.await("healthy", healthy)
	r.Stop(2)
	r.wipe(2)
	s := r.await("n3 is missed", func(s *admin.ClusterStatus) bool { return !node(s, "n3").Answers && !healthy(s) })
	if s.Leader == "" || len(s.Streams) != 4 {
		t.Errorf("without n3: %+v", s)
	}
	r.publish(50)
	r.Start(2)
	s = r.await("healthy again", healthy)
	for _, st := range s.Streams {
		if len(st.Replicas) != 3 || !st.Whole || len(st.CannotLose) != 0 {
			t.Errorf("%+v", st)
		}
	}
	r.read()
	// The copy on n3 is real: it carries on with one of the others alone.
	r.Stop(0)
	r.publish(10)
	r.read()
}

// TestClusterScalesDown: 5 to 3 by the steps of signet cluster scale-down.
func TestClusterScalesDown(t *testing.T) {
	r := newRig(t, 5)
	r.publish(50)
	r.await("healthy", healthy)
	r.refused("remove a node that runs", func() error { return r.api.ClusterRemove(r.ctx, "n5") }, client.ErrConflict)
	r.refused("evacuate nobody", func() error { return r.api.ClusterEvacuate(r.ctx, "n9") }, client.ErrNotFound)
	out, err := r.signet("cluster", "scale-down", "--to", "3", "--dry-run", "-o", "json")
	if err != nil || strings.Count(out, `"step":"remove"`) != 2 {
		t.Errorf("dry run: %v\n%s", err, out)
	}
	if s := r.await("nothing done", healthy); s.Size != 5 {
		t.Errorf("%d members after a dry run", s.Size)
	}
	// The first run ends while it waits for an operator; the next goes on, and gives up.
	r.scaleUntilStop()
	if out, err := r.signet("cluster", "scale-down", "--to", "3", "--wait", "10s", "-o", "json"); err == nil || !strings.Contains(out, `"step":"stop"`) {
		t.Errorf("a run with nobody there: %v\n%s", err, out)
	}
	if n := node(r.await("n5 is empty", healthy), "n5"); n.Copies+n.Consumers != 0 || !n.Member {
		t.Errorf("%+v", n)
	}
	r.scaleDown()
	r.await("healthy", func(s *admin.ClusterStatus) bool { return healthy(s) && s.Size == 3 })
	r.publish(50)
	r.read()
	r.refused("evacuate one of three", func() error { return r.api.ClusterEvacuate(r.ctx, "n3") }, client.ErrConflict)
	r.Stop(2)
	r.refused("remove one of three", func() error { return r.api.ClusterRemove(r.ctx, "n3") }, client.ErrConflict)
	r.publish(10)
}

// scaleUntilStop runs the command until it says to stop a node, and ends it there.
func (r *rig) scaleUntilStop() {
	r.Helper()
	cmd := r.command("cluster", "scale-down", "--to", "3", "-o", "json")
	lines, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.Fatal(err)
	}
	told := false
	for s := bufio.NewScanner(lines); s.Scan(); {
		if strings.Contains(s.Text(), `"step":"stop"`) {
			told = true
			_ = cmd.Process.Kill() // it may have ended
		}
	}
	if err := cmd.Wait(); err == nil || !told {
		r.Errorf("a run that was ended: %v, told to stop a node: %t", err, told)
	}
}

// scaleDown runs the command to its end and stops the nodes that it says to stop.
func (r *rig) scaleDown() {
	r.Helper()
	cmd := r.command("cluster", "scale-down", "--to", "3", "-o", "json")
	var said bytes.Buffer
	cmd.Stderr = &said
	lines, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		r.Fatal(err)
	}
	var steps []string
	for s := bufio.NewScanner(lines); s.Scan(); {
		var line struct{ Node, Step string }
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			r.Fatalf("%s: %v", s.Text(), err)
		}
		steps = append(steps, line.Node+" "+line.Step)
		if line.Step == "stop" {
			r.Stop(nodeIndex(line.Node))
		}
	}
	if err := cmd.Wait(); err != nil {
		r.Fatalf("%v\n%s", err, &said)
	}
	if got := strings.Join(steps, ", "); !strings.HasSuffix(got, "n5 stop, n5 remove, n5 delete, n4 evacuate, n4 stop, n4 remove, n4 delete") {
		r.Errorf("steps: %s", got)
	}
}

// TestClusterIsRescued: two of three nodes are gone for good; the third goes on.
func TestClusterIsRescued(t *testing.T) {
	r := newRig(t, 3)
	r.publish(50)
	r.await("healthy", healthy)
	r.api = admin.New(r.Nodes[0].Client("root"))
	rescue := func(nodes ...string) func() error {
		return func() error { _, err := r.api.ClusterRescue(r.ctx, nodes...); return err }
	}
	r.refused("rescue with a quorum", rescue("n2", "n3"), client.ErrConflict)
	r.Stop(1)
	r.kill(2)
	r.await("no quorum", func(s *admin.ClusterStatus) bool { return s.Leader == "" })
	if st, err := r.api.Status(r.ctx); err != nil || !slices.ContainsFunc(st.Health, func(h admin.HealthPart) bool { return h.Part == "streams" && !h.OK }) ||
		!slices.ContainsFunc(st.Health, func(h admin.HealthPart) bool { return h.Part == "server" && strings.Contains(h.Detail, "no quorum") }) {
		t.Errorf("status without a quorum: %+v, %v", st, err)
	}
	r.refused("evacuate without a quorum", func() error { return r.api.ClusterEvacuate(r.ctx, "n2") }, client.ErrUnavailable)
	r.refused("rescue with one node not named", rescue("n2"), client.ErrConflict)
	r.refused("rescue from a node that lives", rescue("n1", "n2", "n3"), client.ErrConflict)
	out, err := r.api.ClusterRescue(r.ctx, "n2", "n3")
	if err != nil {
		t.Fatal(err)
	}
	if out.Leader != "n1" || !slices.Equal(out.Removed, []string{"n2", "n3"}) {
		t.Errorf("%+v", out)
	}
	s := r.await("the streams are led", func(s *admin.ClusterStatus) bool {
		return !slices.ContainsFunc(s.Streams, func(st admin.ClusterStream) bool { return st.Leader != "n1" })
	})
	if s.Size != 1 || s.Rescue {
		t.Errorf("%+v", s)
	}
	r.publish(10)
	r.read()
}

// kill ends a node without its farewell to a quorum that is gone: with a bound.
func (r *rig) kill(i int) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	if err := r.Nodes[i].Shutdown(ctx); err != nil {
		r.Logf("node %d: %v", i+1, err)
	}
}

// TestClusterIsRescuedFromItsFolder: the nodes that are left were started again, let
// no client in, and take the order where only their owner can write.
func TestClusterIsRescuedFromItsFolder(t *testing.T) {
	r := newRig(t, 5)
	r.publish(50)
	left, other, lost := r.survivors(r.await("healthy", healthy))
	rescue := func(timeout string, lost ...string) (string, error) {
		args := []string{"cluster", "rescue", "--i-understand", "--timeout", timeout, "--config", r.Nodes[left].State.Config}
		for _, name := range lost {
			args = append(args, "--lost", name)
		}
		return r.signet(args...)
	}
	if out, err := rescue("3s", lost[0]); exit(t, err) != 1 || !strings.Contains(out, "withdrawn") {
		t.Errorf("a node that is well took it: %v\n%s", err, out)
	}
	r.killAll()
	// As if it had been in the first start: the rescue of one ends that for both.
	r.formed(left)
	r.formed(other)
	var started sync.WaitGroup
	started.Go(func() { r.Start(left) })
	if out, err := rescue("30s", slices.Concat(lost, []string{nodeName(other)})...); exit(t, err) != 1 || !strings.Contains(out, "started alone") {
		t.Errorf("a node that is alone: %v\n%s", err, out)
	}
	started.Go(func() { r.Start(other) })
	if out, err := rescue("30s", lost[:2]...); exit(t, err) != 1 || !strings.Contains(out, "does not answer either") && !strings.Contains(out, "started alone") {
		t.Errorf("one node not named: %v\n%s", err, out)
	}
	for {
		out, err := rescue("30s", lost...)
		if err == nil && strings.Contains(out, "removed  "+strings.Join(lost, " ")) {
			break
		}
		if !strings.Contains(out, nodeName(other)+" does not answer either") { // it is on its way
			t.Fatalf("%v\n%s", err, out)
		}
	}
	started.Wait()
	r.api = admin.New(r.Nodes[left].Client("root"))
	r.publish(10)
	r.read()
}

// formed makes of a node that is stopped one which has not seen the end of the first start.
func (r *rig) formed(i int) {
	r.Helper()
	if err := os.WriteFile(filepath.Join(r.Nodes[i].State.Dir, "store", "cluster-store.json"), []byte(`{"store":"formed"}`), 0o600); err != nil {
		r.Fatal(err)
	}
}

// TestClusterFirstStartIsRescued: a node that waits for the end of the first start, and
// has lost the others by then, takes the order of a rescue there.
func TestClusterFirstStartIsRescued(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var log logBuffer
	r := &rig{T: t, ctx: ctx, Cluster: brokertest.NewCluster(t, 3, brokertest.Options{Policy: policy, Log: &log})}
	r.publish(10)
	r.killAll()
	r.formed(0)
	r.formed(1)
	var started sync.WaitGroup
	defer started.Wait()
	started.Go(func() {
		if err := r.StartWithin(ctx, 0); err != nil {
			t.Errorf("n1: %v", err)
		}
	})
	second, gone := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.StartWithin(second, 1) }()
	r.awaitLog(&log, `"node":"n1"`, "the first start of a cluster needs all of them")
	gone()
	if err := <-ended; err == nil {
		t.Error("n2 did not wait for the end of the first start")
	}
	r.wipe(1)
	started.Go(func() {
		if err := r.StartWithin(ctx, 1); err != nil {
			t.Errorf("n2: %v", err)
		}
	})
	for {
		out, err := r.signet("cluster", "rescue", "--i-understand", "--timeout", "30s", "--config", r.Nodes[0].State.Config, "--lost", "n3")
		if err == nil && strings.Contains(out, "removed  n3") {
			break
		}
		// n2 is on its way down, or up again.
		if !strings.Contains(out, "n2 does not answer either") && !strings.Contains(out, "knows a leader") && !strings.Contains(out, "started alone") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	started.Wait()
	r.api = admin.New(r.Nodes[0].Client("root"))
	r.publish(10)
	r.read()
}

// survivors are two nodes, of which the first has a copy of ORDERS, and the names of
// the others. Where the server puts three copies on five nodes is its choice; a stream
// all of whose copies are lost is lost.
func (r *rig) survivors(s *admin.ClusterStatus) (left, other int, lost []string) {
	r.Helper()
	orders := slices.IndexFunc(s.Streams, func(st admin.ClusterStream) bool { return st.Name == "ORDERS" })
	left = nodeIndex(s.Streams[orders].Replicas[0].Node)
	other = (left + 1) % len(r.Nodes)
	for i := range r.Nodes {
		if i != left && i != other {
			lost = append(lost, nodeName(i))
		}
	}
	return left, other, lost
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i+1) }

func nodeIndex(name string) int { return int(name[1]-'0') - 1 }

// TestClusterLoneSurvivorIsRescued: two of three have lost their volumes, and the third
// was started again. One of them comes back empty beside it, only one, and the rescue
// counts that one's vote for the node that has the log.
func TestClusterLoneSurvivorIsRescued(t *testing.T) {
	r := newRig(t, 3)
	r.publish(50)
	r.await("healthy", healthy)
	r.killAll()
	r.wipe(1)
	var started sync.WaitGroup
	for i := range 2 {
		started.Go(func() { r.Start(i) })
	}
	for {
		out, err := r.signet("cluster", "rescue", "--i-understand", "--timeout", "30s", "--config", r.Nodes[0].State.Config, "--lost", "n3")
		if err == nil && strings.Contains(out, "removed  n3") {
			break
		}
		if !strings.Contains(out, "n2 does not answer either") && !strings.Contains(out, "started alone") { // n2 is on its way
			t.Fatalf("%v\n%s", err, out)
		}
	}
	started.Wait()
	r.api = admin.New(r.Nodes[0].Client("root"))
	r.publish(10)
	r.read()
}

// killAll ends all nodes at once.
func (r *rig) killAll() {
	r.Helper()
	var wg sync.WaitGroup
	for i := range r.Nodes {
		wg.Go(func() { r.kill(i) })
	}
	wg.Wait()
}
