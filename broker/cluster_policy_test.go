package broker_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

var clusterPolicyApplied = strings.Replace(clusterPolicy, "admin: [status, streams, consumers, refusals, dlq]", "admin: [policy, keys]", 1) + `  - {name: other, identities: [{nkey: {{nkey "other"}}}], subscribe: [orders.eu.>]}
`

// renderMade is render with the credentials that the cluster was made with.
func renderMade(t testing.TB, b *brokertest.Broker, text string) []byte {
	t.Helper()
	public := func(name string) (string, error) {
		return must(nkeys.FromSeed(trimmed(t, b.Cred(name))))(t).PublicKey()
	}
	var out bytes.Buffer
	check(t, must(template.New("").Funcs(template.FuncMap{"nkey": public}).Parse(text))(t).Execute(&out, nil))
	return out.Bytes()
}

// revokedWithin is how long a connection may go on after it was revoked, at any node: 2 s
// is the promise, and this machine may be busy.
const revokedWithin = 10 * time.Second

// TestClusterPolicyRevokes: whatever is taken away by an applied policy is taken away at
// all nodes within seconds, and what is given is there without a reconnect; a node that
// was down knows before it lets anybody in, and one that has lost the others still obeys.
func TestClusterPolicyRevokes(t *testing.T) {
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicyApplied})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	keys := newClusterKeys(t, c)
	signer, key := policyKey(t, "shop/root")
	keys.keys = append(keys.keys, key)
	keys.give(ctx, t, 0, 1, 2)
	root := func(i int) *applier { return newApplierOf(admin.New(c.Nodes[i].Client("root")), signer) }
	text := func(from, to string) []byte {
		return renderMade(t, c.Nodes[0], edit(t, clusterPolicyApplied, from, to))
	}
	// at opens a connection to every node, and says when each is closed.
	at := func(principal string) (conns []*peer, closed []<-chan nats.Status) {
		for _, n := range c.Nodes {
			if p := n.Policy().Principal("shop", principal); p == nil || p.Disabled {
				t.Fatalf("%s cannot connect", principal)
			}
			p := connect(t, n, principal)
			conns, closed = append(conns, p), append(closed, p.StatusChanged(nats.CLOSED))
		}
		return conns, closed
	}
	cut := func(what string, began time.Time, closed []<-chan nats.Status) {
		t.Helper()
		for i, ch := range closed {
			select {
			case <-ch:
			case <-within(t).Done():
				t.Fatalf("%s: the connection to %s goes on", what, nodeName(i))
			}
		}
		took := time.Since(began)
		t.Logf("%s: cut at all nodes after %s", what, took.Round(time.Millisecond))
		if took > revokedWithin {
			t.Errorf("%s: took %s", what, took)
		}
	}

	others, _ := at("other")
	_, gone := at("reader")
	began := time.Now()
	put := root(0).apply(t, text("name: reader,", "name: reader, disabled: true,"))
	if len(put.InForce) != 3 || len(put.Waiting) != 0 || !put.Kept {
		t.Fatalf("got %+v", put)
	}
	cut("a principal that is disabled", began, gone)

	_, gone = at("writer")
	pair := must(nkeys.CreateUser())(t)
	began = time.Now()
	root(1).apply(t, text(`identities: [{nkey: {{nkey "writer"}}}]`, `identities: [{nkey: `+must(pair.PublicKey())(t)+`}]`))
	cut("a key that is replaced", began, gone)

	// Widened, and narrowed again, on connections that stay.
	root(2).apply(t, text("subscribe: [orders.eu.>]", "subscribe: [orders.>]"))
	writer := c.Client("writer")
	defer writer.Close()
	var subs []*nats.Subscription
	for _, p := range others {
		subs = append(subs, must(p.SubscribeSync("orders.us.x"))(t))
		check(t, p.Flush())
	}
	connect(t, c.Nodes[0], "writer").publish(t, "orders.us.x", "1")
	for i, s := range subs {
		if _, err := s.NextMsg(patience); err != nil {
			t.Fatalf("%s: the wider grant: %v", nodeName(i), err)
		}
	}
	// What was used is counted where it was used, and added up over the nodes.
	usage := must(root(1).Usage(within(t)))(t)
	if len(usage.Without) > 0 {
		t.Errorf("without %v", usage.Without)
	}
	for _, g := range usage.Grants {
		want := map[string]uint64{"principal other/subscribe[0]": 3, "principal writer/publish[0]": 1, "principal reader/subscribe[0]": 0}
		if n, ok := want[g.Rule]; ok && g.Count != n {
			t.Errorf("%s %s: %d uses, want %d", g.Rule, g.Pattern, g.Count, n)
		}
	}

	root(0).apply(t, renderMade(t, c.Nodes[0], clusterPolicyApplied))
	for i, p := range others {
		p.refused(t, wire.CodeSubscribeDenied)
		if !p.IsConnected() {
			t.Errorf("%s: the connection was cut", nodeName(i))
		}
	}

	// A node that was down has the newest version before it lets anybody in.
	c.Stop(2)
	put = root(0).apply(t, text("name: other,", "name: other, disabled: true,"))
	if len(put.InForce) != 2 || put.Waiting["n3"] == "" {
		t.Fatalf("got %+v", put)
	}
	c.Start(2)
	if p := c.Nodes[2].Policy().Principal("shop", "other"); !p.Disabled || c.Nodes[2].Policy().Digest() != put.Digest {
		t.Errorf("n3 has %s when it is ready, want %s", c.Nodes[2].Policy().Digest(), put.Digest)
	}

	// A node that has lost the others puts in force what it is brought, and they take it
	// when they are back.
	last := connect(t, c.Nodes[0], "writer")
	closed := last.StatusChanged(nats.CLOSED)
	a := root(0)
	shown := must(a.Show(within(t)))(t)
	c.Stop(1)
	c.Stop(2)
	began = time.Now()
	put, err := a.put(t, a.next(t, text("name: writer,", "name: writer, disabled: true,")))
	if err != nil || put.Kept || len(put.InForce) != 1 || put.Version != shown.Applied.Version+1 {
		t.Fatalf("without a quorum: %+v, %v", put, err)
	}
	select {
	case <-closed:
	case <-within(t).Done():
		t.Fatal("without a quorum the connection goes on")
	}
	t.Logf("without a quorum: cut after %s", time.Since(began).Round(time.Millisecond))
	started := make(chan error, 2)
	for _, i := range []int{1, 2} {
		go func() { started <- c.TryStart(i) }()
	}
	check(t, <-started)
	check(t, <-started)
	for i, n := range c.Nodes {
		eventually(t, nodeName(i)+" has what was applied without it", func() bool { return n.Policy().Digest() == put.Digest })
	}
	second := root(1)
	eventually(t, "the stream keeps it", func() bool {
		list, err := second.History(within(t))
		return err == nil && len(list) > 0 && list[0].Version == put.Version
	})
}
