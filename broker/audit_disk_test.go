package broker_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

// withServer runs a plain nats-server on the folder of a broker that has stopped: what
// somebody with the disk can do.
func withServer(t *testing.T, b *brokertest.Broker, do func(js jetstream.JetStream)) {
	t.Helper()
	accounts := []embed.TenantAccount{}
	for _, name := range []string{"shop", "mill", wire.BrokerAccount} {
		accounts = append(accounts, embed.TenantAccount{Name: name, MaxBytes: 1 << 30})
	}
	server := must(embed.Start(within(t), embed.Config{StoreDir: filepath.Join(b.State.Dir, "store"), ServerName: "test", Tenants: accounts}))(t)
	nc := must(store.Internal(server)(wire.BrokerAccount))(t)
	do(must(jetstream.New(nc))(t))
	nc.Close()
	check(t, server.Shutdown(within(t)))
}

// rewrite makes the stream of the records anew with other messages.
func rewrite(t *testing.T, js jetstream.JetStream, change func([]*nats.Msg) []*nats.Msg) {
	t.Helper()
	rewriteStream(t, js, store.StreamAudit, change)
}

func rewriteStream(t *testing.T, js jetstream.JetStream, name string, change func([]*nats.Msg) []*nats.Msg) {
	t.Helper()
	s := must(js.Stream(within(t), name))(t)
	cfg := s.CachedInfo().Config
	var all []*nats.Msg
	for seq := s.CachedInfo().State.FirstSeq; seq <= s.CachedInfo().State.LastSeq; seq++ {
		m := must(s.GetMsg(within(t), seq))(t)
		all = append(all, &nats.Msg{Subject: m.Subject, Data: m.Data})
	}
	check(t, js.DeleteStream(within(t), name))
	must(js.CreateStream(within(t), cfg))(t)
	for _, m := range change(all) {
		must(js.PublishMsg(within(t), m))(t)
	}
}

// nth is the index of the nth batch of shop, from the front, or from the end if it is
// negative.
func nth(all []*nats.Msg, n int) int {
	var of []int
	for i, m := range all {
		if strings.HasPrefix(m.Subject, "audit.record.shop.") {
			of = append(of, i)
		}
	}
	if n < 0 {
		n += len(of)
	}
	return of[n]
}

// TestTamperedOnDisk stops a broker, changes the stream of its audit trail on the disk,
// and starts it again: the trail says which record is not what was written.
func TestTamperedOnDisk(t *testing.T) {
	tests := []struct {
		name   string
		change func([]*nats.Msg) []*nats.Msg
		want   string
	}{
		{"edited", func(all []*nats.Msg) []*nats.Msg {
			m := all[nth(all, 1)]
			changed := bytes.Replace(m.Data, []byte(`"who":"shop/`), []byte(`"who":"mill/`), 1)
			if bytes.Equal(changed, m.Data) {
				t.Fatal("nothing was edited")
			}
			m.Data = changed
			return all
		}, auditlog.FaultEdited},
		{"deleted", func(all []*nats.Msg) []*nats.Msg { i := nth(all, 1); return slices.Delete(all, i, i+1) }, auditlog.FaultDeleted},
		{"inserted", func(all []*nats.Msg) []*nats.Msg { i := nth(all, 1); return slices.Insert(all, i, all[i]) }, auditlog.FaultInserted},
		{"reordered", func(all []*nats.Msg) []*nats.Msg {
			i, j := nth(all, 1), nth(all, 2)
			all[i], all[j] = all[j], all[i]
			return all
		}, auditlog.FaultReordered},
		{"truncated", func(all []*nats.Msg) []*nats.Msg { return all[:nth(all, 1)] }, auditlog.FaultTruncated},
		{"everything gone", func([]*nats.Msg) []*nats.Msg { return nil }, auditlog.FaultTruncated},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newAudited(t)
			for range 3 {
				connect(t, b, "writer").Close() // a batch each, at least
				settled(t, b)
			}
			before := audited(t, b, "auditor", false)
			if !before.report.OK {
				t.Fatalf("%+v", before.report)
			}
			stop(t, b)
			forget(t, b, before)
			withServer(t, b, func(js jetstream.JetStream) { rewrite(t, js, tt.change) })
			refusedStart(t, b) // the store itself shows that its files are not those that it had
			b = restartAudited(t, b, acceptDamage)
			settled(t, b)
			after := audited(t, b, "auditor", false)
			if after.report.OK {
				t.Fatalf("nobody saw it: %+v", after.report)
			}
			if !slices.ContainsFunc(after.report.Faults, func(f auditlog.Fault) bool {
				return f.What == tt.want || tt.want == auditlog.FaultTruncated && f.What == auditlog.FaultDeleted
			}) {
				t.Fatalf("want %s, got %+v", tt.want, after.report.Faults)
			}
			t.Logf("%s", after.report.Faults[0].String())
		})
	}
}

// forget leaves of the spool what is there when its segments were full and the stream had
// them: how far the chain was.
func forget(t *testing.T, b *brokertest.Broker, shop *tailOf) {
	t.Helper()
	dir := filepath.Join(b.State.Dir, "store", "audit")
	for _, f := range must(filepath.Glob(filepath.Join(dir, "*.spool")))(t) {
		check(t, os.Remove(f))
	}
	kept := map[string]any{"v": 1, "node": "test", "chains": map[string]auditlog.Position{"shop": shop.report.Chains[0].Position}}
	check(t, os.WriteFile(filepath.Join(dir, "chains.json"), must(json.Marshal(kept))(t), 0o600))
}

func settledNow(b *brokertest.Broker) bool { return broker.AuditPending(b.Broker) == 0 }

func settled(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	eventually(t, "the records are stored", func() bool { return settledNow(b) })
}

// refusedStart checks that a start says that the stream was changed on the disk.
func refusedStart(t *testing.T, b *brokertest.Broker) {
	t.Helper()
	cfg := must(broker.LoadConfig(b.State.Config, nil))(t)
	quickDrain(&cfg)
	cfg.Ops.Listen = "off"
	refused := must(broker.New(cfg, "test", zerolog.Nop()))(t)
	if err := refused.Start(within(t)); err == nil {
		check(t, refused.Shutdown(within(t)))
		t.Fatal("a store whose files were changed is served")
	} else if !strings.Contains(err.Error(), store.StreamAudit) {
		t.Errorf("the error does not name the stream: %v", err)
	}
}

func acceptDamage(c *broker.Config) {
	c.AcceptDamage = []string{wire.BrokerAccount + "/" + store.StreamAudit}
}

// TestTruncatedFile cuts bytes from the end of the block of the stream: the start says
// so, and where the operator accepts the loss, so does the trail.
func TestTruncatedFile(t *testing.T) {
	b := newAudited(t)
	for range 3 {
		connect(t, b, "writer").Close()
		settled(t, b)
	}
	before := audited(t, b, "auditor", false)
	stop(t, b)
	forget(t, b, before)
	blocks := must(filepath.Glob(filepath.Join(b.State.Dir, "store", "jetstream", wire.BrokerAccount, "streams", store.StreamAudit, "msgs", "*.blk")))(t)
	if len(blocks) == 0 {
		t.Fatal("the stream has no block")
	}
	last := blocks[len(blocks)-1]
	size := must(os.Stat(last))(t).Size()
	check(t, os.Truncate(last, size*2/3))
	refusedStart(t, b)
	b = restartAudited(t, b, acceptDamage)
	settled(t, b)
	if r := audited(t, b, "auditor", false).report; r.OK {
		t.Errorf("the trail is whole: %+v", r)
	} else {
		t.Logf("%s", r.Faults[0].String())
	}
}

// TestSpoolFullRefuses: without a stream the records wait in the spool, with an alarm;
// when it is full, logins and changes are refused, and events go on.
func TestSpoolFullRefuses(t *testing.T) {
	for _, unsafe := range []bool{false, true} {
		t.Run(map[bool]string{false: "refused", true: "unsafeContinueUnaudited"}[unsafe], func(t *testing.T) {
			b := newAudited(t, func(c *broker.Config) {
				c.Audit.Spool, c.Audit.UnsafeContinueUnaudited = 4<<20, unsafe
			})
			writer := connect(t, b, "writer")
			settled(t, b)
			api := admin.New(b.Client("auditor"))
			js := insideJS(t, b, wire.BrokerAccount)
			check(t, js.DeleteStream(within(t), store.StreamAudit))
			if err := broker.FillSpool(b.Broker); err == nil {
				t.Fatal("the spool is not full")
			}
			nkey, err := nats.NkeyOptionFromSeed(b.Cred("reader"))
			check(t, err)
			nc, err := nats.Connect(b.URL(), nkey, nats.Secure(b.TLS()), nats.NoReconnect())
			if err == nil {
				nc.Close()
			}
			if (err == nil) != unsafe {
				t.Errorf("a login: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), "audit") {
				t.Errorf("the client is not told why: %v", err)
			}
			writer.publish(t, "orders.a", "goes on")
			var refusal *client.Error
			if _, err := api.ClusterRebalance(within(t)); !errors.As(err, &refusal) {
				t.Errorf("a change: %v", err)
			} else if inTime := refusal.Code == int(wire.CodeUnavailable) && refusal.Rule == "audit"; inTime == unsafe {
				t.Errorf("a change: %+v", refusal)
			}
			st := must(api.Status(within(t)))(t)
			if !slices.ContainsFunc(st.Health, func(h admin.HealthPart) bool { return h.Part == "audit" && !h.OK }) {
				t.Errorf("health says nothing: %+v", st.Health)
			}
		})
	}
}

// TestClusterAudit: each node writes its own chain, every node answers for the whole
// trail, and a node that was away goes on with its chain. One that lost its volume
// begins a new one.
func TestClusterAudit(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: auditPolicy})
	logins := func() {
		t.Helper()
		for _, n := range c.Nodes {
			connect(t, n, "writer").Close()
			settled(t, n)
		}
	}
	whole := func(what string, chains int) {
		t.Helper()
		for i, n := range c.Nodes {
			tr := audited(t, n, "auditor", false)
			if !tr.report.OK || len(tr.report.Chains) != chains || tr.report.Heads < 3 {
				t.Fatalf("%s, asked at node %d: %+v", what, i+1, tr.report)
			}
		}
	}
	logins()
	whole("at the start", 3)
	c.Stop(1)
	for _, n := range []int{0, 2} {
		connect(t, c.Nodes[n], "writer").Close()
		settled(t, c.Nodes[n])
	}
	c.Start(1)
	logins()
	whole("after a restart", 3)
	c.Stop(2)
	check(t, os.RemoveAll(filepath.Join(c.Nodes[2].State.Dir, "store", "audit")))
	c.Start(2)
	logins()
	whole("after a node lost its state", 4)
}
