package integrity

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/freeport"
)

// clusterTrials bounds TestClusterHeals, whose trials take some seconds each, for each
// way to store; all of them take twenty minutes.
var clusterTrials = flag.Int("trials", 3, "trials of TestClusterHeals; 0 for all")

// cluster is three plain nats-servers in this process, syncing every write.
type cluster struct {
	v       variant
	top     *testing.T // outlives t, which may be one trial's
	t       *testing.T
	dirs    [3]string
	ports   [3]int // of routes
	clients [3]int
	nodes   [3]*server.Server
}

func newCluster(t *testing.T, v variant) *cluster {
	c := &cluster{v: v, top: t, t: t}
	for i := range c.dirs {
		c.dirs[i], c.ports[i], c.clients[i] = t.TempDir(), freePort(t), freePort(t)
	}
	for i := range c.nodes {
		c.start(i)
	}
	c.eventually("a meta leader", func() bool {
		for _, n := range c.nodes {
			if n.JetStreamIsLeader() {
				return true
			}
		}
		return false
	})
	return c
}

func freePort(t *testing.T) int {
	t.Helper()
	addr, err := freeport.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return int(netip.MustParseAddrPort(addr).Port())
}

func (c *cluster) start(i int) {
	c.t.Helper()
	var routes []*url.URL
	for _, p := range c.ports {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p)})
	}
	c.nodes[i] = startServer(c.top, c.dirs[i], c.v.server, func(o *server.Options) {
		o.ServerName, o.Port, o.SyncAlways = fmt.Sprintf("n%d", i), c.clients[i], true
		o.Cluster = server.ClusterOpts{Name: "C", Host: "127.0.0.1", Port: c.ports[i]}
		o.Routes = routes
	})
}

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline, tick := time.After(60*time.Second), time.NewTicker(25*time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Fatalf("no %s within a minute", what)
		}
	}
}

func (c *cluster) jet() (*nats.Conn, jetstream.JetStream) {
	c.t.Helper()
	var urls []string
	for _, p := range c.clients {
		urls = append(urls, fmt.Sprintf("nats://127.0.0.1:%d", p))
	}
	nc, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		c.t.Fatal(err)
	}
	c.top.Cleanup(nc.Close)
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(512))
	if err != nil {
		c.t.Fatal(err)
	}
	return nc, js
}

// leader returns the number of the node that leads ORDERS, -1 if there is none or a
// replica is behind.
func (c *cluster) leader(js jetstream.JetStream) int {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second)
	defer cancel()
	st, err := js.Stream(ctx, "ORDERS")
	if err != nil {
		return -1
	}
	cl := st.CachedInfo().Cluster
	if cl == nil || cl.Leader == "" || len(cl.Replicas) != 2 {
		return -1
	}
	for _, r := range cl.Replicas {
		if !r.Current || r.Offline {
			return -1
		}
	}
	return int(cl.Leader[1] - '0')
}

// whole waits until every node has stored all of ORDERS. An acknowledgement says that two
// of three have: the third may be behind, and has less to harm.
func (c *cluster) whole() {
	c.t.Helper()
	for i, n := range c.nodes {
		c.eventually(fmt.Sprintf("whole copy at n%d", i), func() bool {
			info, err := n.Jsz(&server.JSzOptions{Account: "$G", Streams: true})
			return err == nil && len(info.AccountDetails) == 1 && len(info.AccountDetails[0].Streams) == 1 &&
				info.AccountDetails[0].Streams[0].State.LastSeq == messages
		})
	}
}

// lead makes node i the leader of ORDERS.
func (c *cluster) lead(nc *nats.Conn, js jetstream.JetStream, i int) {
	c.t.Helper()
	req, err := json.Marshal(map[string]any{"placement": map[string]any{"preferred": fmt.Sprintf("n%d", i)}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.eventually(fmt.Sprintf("leader n%d", i), func() bool {
		switch c.leader(js) {
		case i:
			return true
		case -1:
			return false
		}
		_, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.ORDERS", req, time.Second)
		return err == nil && c.leader(js) == i
	})
}

// gate is what a broker does at its start: check, decide, set aside.
func (c *cluster) gate(i int) (Verdict, []string) {
	c.t.Helper()
	l := mustLedger(c.t, c.dirs[i])
	rep := mustCheck(c.t, Options{Dir: c.dirs[i], Key: c.v.key, Ledger: l, Full: true})
	v := Decide(rep, Situation{Clustered: true})
	var aside []string
	done := map[string]bool{}
	for _, r := range v.Rulings {
		if r.Action != ActionSetAside || done[r.Replica.Dir] {
			continue
		}
		a, err := SetAside(c.dirs[i], rep, r.Replica, time.Now())
		if err != nil {
			c.t.Fatal(err)
		}
		aside = append(aside, a.Folder)
		for _, dir := range a.Moved {
			done[dir] = true
			l.Forget(dir)
		}
	}
	if v.Action != ActionRefuse {
		if err := l.Running(); err != nil {
			c.t.Fatal(err)
		}
	}
	return v, aside
}

// TestClusterHeals: one replica of three is damaged, in every way there is; the gate
// sets it aside, its peers fill it again, and when that node leads, it serves every
// message that was acknowledged. Without the gate it would serve a hole.
func TestClusterHeals(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) { clusterHeals(t, v) })
	}
}

func clusterHeals(t *testing.T, v variant) {
	c := newCluster(t, v)
	nc, js := c.jet()
	c.eventually("stream", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err := js.CreateStream(ctx, appendOnlyConfig("ORDERS", 3))
		return err == nil
	})
	fill(t, js, "ORDERS.a", 1, messages, 100)
	stream := func(i int) string { return filepath.Join(c.dirs[i], "jetstream/$G/streams/ORDERS") }
	group := func(t *testing.T, i int) string {
		t.Helper()
		list, err := filepath.Glob(filepath.Join(c.dirs[i], "jetstream/$SYS/_js_/S-R3F-*"))
		if err != nil || len(list) != 1 {
			t.Fatalf("groups %v: %v", list, err)
		}
		return list[0]
	}
	type trial struct {
		name  string
		do    func(t *testing.T, r *rand.Rand, i int) string
		crash bool // the node is not stopped in order: its folder is as a kill leaves it
		maybe bool // the server may heal it by itself
	}
	var trials []trial
	for _, h := range v.harms() {
		trials = append(trials, trial{h.name, func(t *testing.T, r *rand.Rand, i int) string { return h.do(t, r, v.orders(c.dirs[i])) }, false, false})
	}
	trials = append(trials,
		trial{"bit flip in the Raft log", func(t *testing.T, r *rand.Rand, i int) string {
			blocks, err := listBlocks(filepath.Join(group(t, i), "msgs"))
			if err != nil || len(blocks) == 0 {
				t.Fatalf("blocks %v: %v", blocks, err)
			}
			file := filepath.Join(group(t, i), "msgs", blocks[0].name)
			flip(t, file, int64(r.IntN(len(read(t, file)))), 1<<r.IntN(8))
			return file
		}, false, false},
		trial{"messages removed", func(t *testing.T, _ *rand.Rand, i int) string {
			if err := os.RemoveAll(filepath.Join(stream(i), "msgs")); err != nil {
				t.Fatal(err)
			}
			return "msgs"
		}, false, false},
		trial{"configuration damaged", func(t *testing.T, _ *rand.Rand, i int) string {
			flip(t, filepath.Join(stream(i), "meta.inf"), 40, 1)
			return "meta.inf"
		}, false, false},
		trial{"configuration of the Raft group damaged", func(t *testing.T, _ *rand.Rand, i int) string {
			flip(t, filepath.Join(group(t, i), "meta.inf"), 10, 1)
			return "meta.inf"
		}, false, false},
	)
	for _, h := range v.harms() {
		// After a crash index.db is missing or old; what a block has lost at its very end
		// may still be in the Raft log, which brings it back.
		maybe := h.unseen || strings.Contains(h.name, "last block")
		trials = append(trials, trial{h.name, func(t *testing.T, r *rand.Rand, i int) string { return h.do(t, r, v.orders(c.dirs[i])) }, true, maybe})
	}
	if n := *clusterTrials; n > 0 { // spread over all kinds
		if v.key != nil {
			n = (n + 1) / 2
		}
		var picked []trial
		for i := range n {
			picked = append(picked, trials[(i*len(trials)/n+v.first)%len(trials)])
		}
		trials = picked
	}
	const seed = 549
	healed := 0
	for n, tr := range trials {
		t.Run(fmt.Sprintf("%s/crash %t", tr.name, tr.crash), func(t *testing.T) {
			c.t = t
			c.whole()
			victim := n % 3
			image := ""
			if tr.crash {
				image = copyStore(c.top, c.dirs[victim])
			}
			stopServer(c.nodes[victim])
			if tr.crash {
				c.dirs[victim] = image
			} else {
				seal(t, c.dirs[victim], Options{Key: v.key})
			}
			// After a power cut the server writes anew what its Raft log has, so damage there
			// may be served over; after a kill of the process nothing may be.
			killed := tr.crash && n%2 == 0
			if killed {
				if err := mustLedger(t, c.dirs[victim]).Running(); err != nil {
					t.Fatal(err)
				}
			}
			what := tr.do(t, rand.New(rand.NewPCG(seed, uint64(n))), victim)
			v, aside := c.gate(victim)
			if v.Action != ActionSetAside && !tr.maybe && (killed || !tr.crash) {
				t.Errorf("%s: %s, want it set aside", what, v.Action)
			}
			c.start(victim)
			c.lead(nc, js, victim)
			got := uint64(0)
			for try := 0; try < 3 && got != messages; try++ { // the API of a busy machine may not answer yet
				asked := js
				if try > 0 {
					_, asked = c.jet()
				}
				got = served(t, asked, "ORDERS", messages)
			}
			if got != messages {
				t.Errorf("%s: n%d leads and serves %d of %d (%s)", what, victim, got, messages, v.Action)
			}
			if v.Action == ActionSetAside {
				healed++
			}
			for _, a := range aside { // evidence of a trial, not of this disk
				if err := os.RemoveAll(a); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	t.Logf("%d trials, %d replicas set aside and fetched again", len(trials), healed)
}
