package broker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// againstLog verifies a trail against the log of the heads, and nothing else: what an
// auditor finds whom every node tells nothing.
func againstLog(t *testing.T, b *brokertest.Broker, principal string, system bool) (*auditlog.Report, *admin.AuditHeads) {
	t.Helper()
	c := b.Client(principal)
	defer c.Close()
	api := admin.New(c)
	ring := must(keyring.Parse(must(api.KeyRing(within(t)))(t).Document, b.State.Root, time.Now()))(t)
	said := must(admin.LoggedHeads(within(t), api, system))(t)
	v := auditlog.NewVerifier(said.Tenant, ring)
	for _, line := range said.Logged {
		check(t, v.ExpectLogged([]byte(line)))
	}
	for _, doc := range said.Recent {
		check(t, v.ExpectRecent([]byte(doc)))
	}
	if said.Finding != "" {
		v.LogFault(said.Finding)
	}
	for after := uint64(0); ; {
		page := must(api.AuditBatches(within(t), system, after))(t)
		if len(page.Batches) == 0 {
			return v.Finish(), said
		}
		for _, m := range page.Batches {
			v.Batch(m.Seq, m.Data)
			after = m.Seq
		}
	}
}

// published waits until the stream has every record, publishes the heads of all chains of
// a node, and waits until the log covers each chain of shop up to its head.
func published(t *testing.T, b *brokertest.Broker) *auditlog.Report {
	t.Helper()
	settled(t, b)
	check(t, broker.PublishHeads(within(t), b.Broker))
	var r *auditlog.Report
	var said *admin.AuditHeads
	end := time.Now().Add(patience)
	for {
		r, said = againstLog(t, b, "auditor", false)
		if said.Finding == "" && said.Unlogged == "" && len(said.Recent) == 0 && len(said.Logged) > 0 {
			return r
		}
		if time.Now().After(end) {
			t.Fatalf("the log does not cover the heads: %+v", said)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func faultOf(r *auditlog.Report, what, detail string) bool {
	return slices.ContainsFunc(r.Faults, func(f auditlog.Fault) bool { return f.What == what && strings.Contains(f.Detail, detail) })
}

// TestHeadsAreLogged: a checkpoint covers the trail of each tenant; its auditor gets the
// proofs, and sees nothing of the others.
func TestHeadsAreLogged(t *testing.T) {
	b := newAudited(t)
	connect(t, b, "writer").Close()
	r := published(t, b)
	if !r.OK || len(r.Chains) != 1 || r.Chains[0].Logged == nil || r.Chains[0].Logged.Seq < 2 {
		t.Fatalf("%+v", r)
	}
	if !strings.HasPrefix(r.Chains[0].Logged.Log, "signet/log/v1/test/SIGNET/HEADS/") {
		t.Errorf("the log is %s", r.Chains[0].Logged.Log)
	}
	boss := b.Client("boss")
	boss.Close()
	for principal, want := range map[string]string{"auditor": "shop", "boss": "mill"} {
		_, said := againstLog(t, b, principal, false)
		for _, line := range said.Logged {
			l := must(auditlog.ParseLogged([]byte(line)))(t)
			if !strings.HasPrefix(l.Subject, wire.PrefixHeads+want+".") {
				t.Errorf("%s sees a head on %s", principal, l.Subject)
			}
		}
	}
	// The broker's own trail may have got its first records after those heads.
	for end := time.Now().Add(patience); ; <-time.After(20 * time.Millisecond) {
		check(t, broker.PublishHeads(within(t), b.Broker))
		r, _ := againstLog(t, b, "auditor", true)
		if r.OK && r.Tenant == auditlog.SystemTenant && r.Chains[0].Logged != nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the broker's own trail: %+v", r)
		}
	}
	if _, err := admin.LoggedHeads(within(t), admin.New(b.Client("clerk")), true); err == nil {
		t.Error("the heads of the broker's own trail without the area cluster")
	}
	js := insideJS(t, b, wire.BrokerAccount)
	cfg := must(js.Stream(within(t), store.StreamHeads))(t).CachedInfo().Config
	if !cfg.DenyDelete || !cfg.DenyPurge || cfg.Discard != jetstream.DiscardNew || cfg.MaxAge != store.HeadsAge || cfg.MaxBytes <= 0 {
		t.Errorf("%+v", cfg)
	}
	before := must(js.Stream(within(t), store.StreamHeads))(t).CachedInfo().State.LastSeq
	check(t, broker.PublishHeads(within(t), b.Broker))
	info := must(must(js.Stream(within(t), store.StreamHeads))(t).Info(within(t)))(t)
	for seq := before + 1; seq <= info.State.LastSeq; seq++ { // only of what the reads above put on record
		m := must(must(js.Stream(within(t), store.StreamHeads))(t).GetMsg(within(t), seq))(t)
		at, _, ok := auditlog.HeadPosition(m.Data)
		if prior := must(must(js.Stream(within(t), store.StreamHeads))(t).GetMsg(within(t), seq-1))(t); !ok || string(prior.Data) == string(m.Data) {
			t.Errorf("sequence %d: %+v", seq, at)
		}
	}
}

// emptied takes what this node remembers of its chains.
func emptied(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	check(t, os.RemoveAll(filepath.Join(b.State.Dir, "store", "audit")))
}

func accept(streams ...string) func(*broker.Config) {
	return func(c *broker.Config) {
		for _, s := range streams {
			c.AcceptDamage = append(c.AcceptDamage, wire.BrokerAccount+"/"+s)
		}
	}
}

// TestForgottenTailIsFoundThroughTheLog: the last records are taken from the stream on the
// disk, and with them everything that the node remembers of them. The log has the head.
func TestForgottenTailIsFoundThroughTheLog(t *testing.T) {
	for name, tt := range map[string]struct {
		change func([]*nats.Msg) []*nats.Msg
		want   string
	}{
		"cut":        {func(all []*nats.Msg) []*nats.Msg { return all[:nth(all, 1)] }, auditlog.FaultTruncated},
		"everything": {func([]*nats.Msg) []*nats.Msg { return nil }, auditlog.FaultTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			b := newAudited(t)
			for range 3 {
				connect(t, b, "writer").Close()
				settled(t, b)
			}
			before := published(t, b)
			if !before.OK {
				t.Fatalf("%+v", before)
			}
			stop(t, b)
			emptied(t, b)
			withServer(t, b, func(js jetstream.JetStream) { rewrite(t, js, tt.change) })
			b = restartAudited(t, b, acceptDamage)
			settled(t, b)
			if r := audited(t, b, "auditor", false).report; !r.OK { // nobody else remembers
				t.Logf("without the log: %+v", r.Faults)
			}
			r, _ := againstLog(t, b, "auditor", false)
			if r.OK || !faultOf(r, tt.want, "and the log has it") {
				t.Fatalf("want %s: %+v", tt.want, r.Faults)
			}
			t.Logf("%s", r.Faults[0].String())
		})
	}
}

// TestHeadsAlteredOnDisk: the heads themselves are changed on the disk, so that the trail
// has nothing against it. The log of the heads has.
func TestHeadsAlteredOnDisk(t *testing.T) {
	for name, change := range map[string]func([]*nats.Msg) []*nats.Msg{
		"the last ones dropped": func(all []*nats.Msg) []*nats.Msg { return all[:1] },
		"one edited": func(all []*nats.Msg) []*nats.Msg {
			all[len(all)-1].Data = all[0].Data
			return all
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newAudited(t)
			for range 3 {
				connect(t, b, "writer").Close()
				published(t, b)
			}
			stop(t, b)
			withServer(t, b, func(js jetstream.JetStream) { rewriteStream(t, js, store.StreamHeads, change) })
			b = restartAudited(t, b, accept(store.StreamHeads))
			api := admin.New(b.Client("auditor"))
			var said *admin.AuditHeads
			eventually(t, "the log says so", func() bool {
				said = must(admin.LoggedHeads(within(t), api, false))(t)
				return said.Finding != ""
			})
			t.Logf("%s", said.Finding)
			if r, _ := againstLog(t, b, "auditor", false); r.OK || !faultOf(r, auditlog.FaultLog, "") {
				t.Errorf("%+v", r.Faults)
			}
			eventually(t, "health says so", func() bool {
				return slices.ContainsFunc(must(api.Status(within(t)))(t).Health, func(h admin.HealthPart) bool {
					return h.Part == "log" && !h.OK && strings.Contains(h.Detail, store.StreamHeads)
				})
			})
		})
	}
}

// TestPrunedTrailIsCoveredByTheLog: heads of records that the node has pruned since are in
// the log, and the trail verifies against them.
func TestPrunedTrailIsCoveredByTheLog(t *testing.T) {
	policy := strings.Replace(auditPolicy, "deadLetter: {maxBytes: 4MiB}\n", "deadLetter: {maxBytes: 4MiB}\naudit: {maxBytes: 1MiB}\n", 1)
	b := brokertest.New(t, brokertest.Options{Policy: policy, Change: quickDrain})
	connect(t, b, "writer").Close()
	early := published(t, b).Chains[0].Logged
	fillTrail(t, b, 3000)
	var r *auditlog.Report
	eventually(t, "the trail is pruned behind the first head", func() bool {
		r = audited(t, b, "auditor", false).report
		return len(r.Chains) == 1 && r.Chains[0].Pruned > early.Seq
	})
	if r, said := againstLog(t, b, "auditor", false); !r.OK || len(said.Logged) == 0 {
		t.Errorf("against heads of what was pruned: %+v, %+v", r.Faults, said)
	}
	if r = published(t, b); !r.OK || r.Chains[0].Logged.Seq <= r.Chains[0].Pruned {
		t.Errorf("%+v", r)
	}
}

// TestClusterHeads: every node publishes the heads of its own chains, and each of them
// hands out the proofs of all.
func TestClusterHeads(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: auditPolicy, Change: quickDrain})
	logins := func() {
		t.Helper()
		for _, n := range c.Nodes {
			connect(t, n, "writer").Close()
			settled(t, n)
			check(t, broker.PublishHeads(within(t), n.Broker))
		}
	}
	covered := func(what string) {
		t.Helper()
		for i, n := range c.Nodes {
			if r := published(t, n); !r.OK || len(r.Chains) != 3 || slices.ContainsFunc(r.Chains, func(c auditlog.ChainReport) bool { return c.Logged == nil }) {
				t.Fatalf("%s, asked at node %d: %+v", what, i+1, r)
			}
		}
	}
	logins()
	covered("at the start")
	info := must(must(insideJS(t, c.Nodes[0], wire.BrokerAccount).Stream(within(t), store.StreamHeads))(t).Info(within(t)))(t)
	if info.Config.Replicas != 3 {
		t.Errorf("%d copies of %s", info.Config.Replicas, store.StreamHeads)
	}
	leads := max(slices.Index([]string{"n1", "n2", "n3"}, info.Cluster.Leader), 0)
	c.Stop(leads) // the log goes on elsewhere
	left := slices.Delete(slices.Clone(c.Nodes), leads, leads+1)
	for _, n := range left {
		connect(t, n, "writer").Close()
		if r := published(t, n); !r.OK || len(r.Chains) != 3 {
			t.Fatalf("without node %d: %+v", leads+1, r)
		}
	}
	c.Start(leads)
	logins()
	covered("after a restart")
}

// TestHeadsPutBackOnDisk: an earlier copy of the stream of the heads is put back.
func TestHeadsPutBackOnDisk(t *testing.T) {
	b := newAudited(t)
	connect(t, b, "writer").Close()
	published(t, b)
	stop(t, b)
	dir := filepath.Join(b.State.Dir, "store", "jetstream", wire.BrokerAccount, "streams", store.StreamHeads)
	earlier := filepath.Join(t.TempDir(), "HEADS")
	check(t, os.CopyFS(earlier, os.DirFS(dir)))
	b = restartAudited(t, b)
	for range 3 {
		connect(t, b, "writer").Close()
		published(t, b)
	}
	stop(t, b)
	check(t, os.RemoveAll(dir))
	check(t, os.CopyFS(dir, os.DirFS(earlier)))
	b = restartAudited(t, b, accept(store.StreamHeads))
	eventually(t, "the log says so", func() bool {
		r, said := againstLog(t, b, "auditor", false)
		return said.Finding != "" && !r.OK && faultOf(r, auditlog.FaultLog, "")
	})
	_, said := againstLog(t, b, "auditor", false)
	t.Logf("%s", said.Finding)
	// Once the operator has looked, a new log begins, and the trail is covered again.
	api := admin.New(b.Client("auditor"))
	if err := api.Log().RestartHeads(within(t)); err == nil {
		t.Error("a new log without the area streams")
	}
	check(t, admin.New(b.Client("operator")).Log().RestartHeads(within(t)))
	connect(t, b, "writer").Close()
	if r := published(t, b); !r.OK || r.Chains[0].Logged == nil {
		t.Errorf("after a new log: %+v", r)
	}
}

// TestHeadsAfterKill: nodes are killed with SIGKILL, one after the other. Each publishes
// again when it is back, on the chain that it had, and the log goes on.
func TestHeadsAfterKill(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c, err := brokertest.NewProcesses(ctx, brokertest.ProcessOptions{Nodes: 3, Dir: t.TempDir(), Policy: auditPolicy})
	check(t, err)
	t.Cleanup(c.Close)
	check(t, c.StartAll(ctx))
	st := c.State(0)
	cl := must(client.Connect(ctx, c.URLs(), client.WithNkeySeedFile(st.Creds["auditor"]), client.WithTLSRoots(st.CA), client.WithRoot(st.Root)))(t)
	t.Cleanup(cl.Close)
	api := admin.New(cl)
	ring := must(keyring.Parse(must(api.KeyRing(ctx))(t).Document, st.Root, time.Now()))(t)
	// covered waits until the log covers the broker's own chain of each node beyond a
	// record; requests may fail while nodes come and go.
	covered := func(beyond map[string]uint64) map[string]uint64 {
		t.Helper()
		var last string
		for {
			now, err := coveredNow(ctx, api, ring)
			if err != nil {
				last = err.Error()
			} else if last = fmt.Sprint(now); len(now) == 3 && now["n1"] > beyond["n1"] && now["n2"] > beyond["n2"] && now["n3"] > beyond["n3"] {
				return now
			}
			select {
			case <-ctx.Done():
				t.Fatalf("want more than %v: %s", beyond, last)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	had := covered(nil)
	for i := range 3 { // whichever writes the log is among them
		c.Kill(i)
		check(t, c.StartNodes(ctx, i))
		want := map[string]uint64{fmt.Sprint("n", i+1): had[fmt.Sprint("n", i+1)]}
		had = covered(want)
	}
}

// coveredNow returns how far the log covers the newest chain of each node in the broker's
// own trail, which must be whole.
func coveredNow(ctx context.Context, api *admin.API, ring *keyring.Ring) (map[string]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	said, err := admin.LoggedHeads(ctx, api, true)
	if err != nil {
		return nil, err
	}
	if said.Finding != "" {
		return nil, errors.New(said.Finding)
	}
	v := auditlog.NewVerifier(said.Tenant, ring)
	for _, line := range said.Logged {
		if err := v.ExpectLogged([]byte(line)); err != nil {
			return nil, err
		}
	}
	for after := uint64(0); ; {
		page, err := api.AuditBatches(ctx, true, after)
		if err != nil {
			return nil, err
		}
		if len(page.Batches) == 0 {
			break
		}
		for _, m := range page.Batches {
			v.Batch(m.Seq, m.Data)
			after = m.Seq
		}
	}
	r := v.Finish()
	if err := r.Err(); err != nil {
		return nil, err
	}
	out := map[string]uint64{}
	for _, c := range r.Chains {
		if c.Logged != nil {
			out[c.Node] = c.Logged.Seq
		}
	}
	return out, nil
}
