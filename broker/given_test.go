package broker_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

// identityOf adds a principal that comes in by a token of the issuer.
func identityOf(i *issuer, name string) string {
	return "  - {name: " + name + ", identities: [{oidc: {issuer: " + i.URL + ", subject: " + name + "}}], publish: [orders.>]}\n"
}

// trustsIssuer takes the tokens of i for two subjects of the tenant shop.
func trustsIssuer(c *broker.Config, i *issuer) {
	c.Authentication.Issuers = []broker.IssuerConfig{{
		Issuer: i.URL, Audiences: []string{"signet"}, Keys: broker.IssuerKeys{CA: i.ca},
		Tenants: []broker.IssuerTenant{{Name: "shop", Subjects: []string{"deployer", "builder"}}},
	}}
}

// identitiesHealth is what status.get says of names that are not given.
func identitiesHealth(t testing.TB, api *admin.API) admin.HealthPart {
	t.Helper()
	s := must(api.Status(within(t)))(t)
	at := slices.IndexFunc(s.Health, func(h admin.HealthPart) bool { return h.Part == "identities" })
	if at < 0 {
		t.Fatalf("status has no part identities: %+v", s.Health)
	}
	return s.Health[at]
}

const givenPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
principals:
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [status, policy, keys]}
  - {name: writer, identities: [{nkey: '{{nkey "writer"}}'}], publish: [orders.>]}
`

// TestPolicyNamesNotGiven: a policy that names what the configuration gives to nobody is
// shown by plan and refused by apply. Where the operator took an issuer away after the
// policy was applied, the broker starts and says so; by those names nobody comes in, all
// others do, and what is lacking already does not stand in the way of a revocation.
func TestPolicyNamesNotGiven(t *testing.T) {
	i := newIssuer(t, "a")
	b := newBroker(t, func(o *brokertest.Options) {
		o.Policy = givenPolicy
		o.Change = func(c *broker.Config) { quickDrain(c); trustsIssuer(c, i) }
	})
	a := newApplier(t, b)
	withStranger := render(t, b, givenPolicy+"  - {name: stranger, identities: [{spiffe: spiffe://shop.example/x}], publish: [orders.>]}\n")
	if _, err := a.put(t, a.next(t, withStranger)); err == nil || !strings.Contains(err.Error(), "spiffe://shop.example/x: no authority under authentication.certificates speaks for it in tenant shop") {
		t.Errorf("a name that nobody was given: %v", err)
	}
	_, files := packed(t, withStranger)
	plan := must(a.Plan(within(t), admin.PolicyPlanRequest{Files: files}))(t)
	if len(plan.Faults) != 1 || plan.Faults[0].Line == 0 || !strings.Contains(plan.Faults[0].Message, "spiffe://shop.example/x") {
		t.Errorf("plan has the faults %+v", plan.Faults)
	}

	a.apply(t, render(t, b, givenPolicy+identityOf(i, "deployer")))
	deployer := i.token(t, "a", "deployer", time.Hour)
	withToken(t, b, deployer).Close()
	if h := identitiesHealth(t, a.api); !h.OK {
		t.Errorf("got %+v", h)
	}

	// The operator takes the issuer away.
	addr, signer := b.Addr().String(), a.signer
	check(t, b.Shutdown(within(t)))
	var log logBuffer
	b = brokertest.New(t, brokertest.Options{Policy: givenPolicy, Dir: b.State.Dir, Log: &log, Change: func(c *broker.Config) {
		quickDrain(c)
		c.Listen = addr
	}})
	said := false
	for line := range strings.Lines(log.String()) {
		var entry struct{ Level, Message, First string }
		check(t, json.Unmarshal([]byte(line), &entry))
		said = said || entry.Level == "error" && strings.Contains(entry.Message, "signet policy apply DIR/policy.yaml --key SEED") && strings.Contains(entry.First, i.URL)
	}
	if !said {
		t.Errorf("the start did not say which names are not given, and what to do:\n%s", log.String())
	}
	if _, err := tryToken(b, deployer); err == nil {
		t.Error("a token of an issuer that was taken away is let in")
	}
	connect(t, b, "writer").publish(t, "orders.a", "others come in")
	c := b.Client("root")
	t.Cleanup(func() { c.Close() })
	a = newApplierOf(admin.New(c), signer)
	if h := identitiesHealth(t, a.api); h.OK || !strings.Contains(h.Detail, "1 names") || strings.Contains(h.Detail, i.URL) {
		t.Errorf("got %+v", h)
	}
	for principal, want := range map[string]bool{"deployer": false, "writer": true} {
		if can := must(a.api.CanI(within(t), admin.CanIRequest{Verb: "connect", Principal: principal}))(t); can.Allowed != want || !want && (can.Rule != "authentication" || can.Line == 0 || can.Fix == "") {
			t.Errorf("can %s connect: %+v", principal, can)
		}
	}
	check(t, b.Reload(within(t))) // keys and certificates are read all the same

	revoked := strings.Replace(givenPolicy, "name: writer,", "name: writer, disabled: true,", 1)
	if _, err := a.put(t, a.next(t, render(t, b, revoked+identityOf(i, "deployer")+identityOf(i, "builder")))); err == nil || !strings.Contains(err.Error(), "builder") || strings.Contains(err.Error(), "deployer") {
		t.Errorf("another name that nobody was given: %v", err)
	}
	_, files = packed(t, render(t, b, revoked+identityOf(i, "deployer")))
	if plan := must(a.Plan(within(t), admin.PolicyPlanRequest{Files: files}))(t); len(plan.Faults) != 0 || len(plan.Ungiven) != 1 || len(plan.Changes) == 0 {
		t.Errorf("got %+v", plan)
	}
	put := a.apply(t, render(t, b, revoked+identityOf(i, "deployer")))
	if p := b.Policy().Principal("shop", "writer"); !p.Disabled || b.Policy().Digest() != put.Digest {
		t.Error("a revocation is not in force")
	}
	a.apply(t, render(t, b, givenPolicy))
	if h := identitiesHealth(t, a.api); !h.OK {
		t.Errorf("got %+v", h)
	}
}

// TestPolicyFilesNamesNotGiven: in policy files such a name keeps the broker from
// starting, and a release to files that have one is refused.
func TestPolicyFilesNamesNotGiven(t *testing.T) {
	i := newIssuer(t, "a")
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = givenPolicy })
	a := newApplier(t, b)
	a.apply(t, render(t, b, strings.Replace(givenPolicy, "name: writer,", "name: writer, disabled: true,", 1)))
	check(t, os.WriteFile(b.State.Policy, render(t, b, givenPolicy+identityOf(i, "deployer")), 0o600))
	if _, err := a.put(t, a.next(t, nil)); err == nil || !strings.Contains(err.Error(), i.URL) {
		t.Errorf("a release to such files: %v", err)
	}
	check(t, b.Shutdown(within(t)))
	cfg := must(broker.LoadConfig(b.State.Config, nil))(t)
	check(t, os.Remove(filepath.Join(cfg.State, "policy.json")))
	cfg.Ops.Listen = "off"
	again := must(broker.New(cfg, "test", zerolog.Nop()))(t)
	if err := again.Start(within(t)); err == nil || !strings.Contains(err.Error(), "deployer of "+i.URL) {
		t.Errorf("started with policy files that name what nobody was given: %v", err)
	}
}

// TestClusterPolicyNamesNotGiven: where one node of three lacks an issuer, no node applies
// a policy that names it, and plan says which node. If that node was down when it was
// applied, it takes the version all the same, with what that revokes, and nobody comes in by the
// name there.
func TestClusterPolicyNamesNotGiven(t *testing.T) {
	i := newIssuer(t, "a")
	c := brokertest.NewCluster(t, 3, brokertest.Options{Policy: clusterPolicyApplied, Change: func(c *broker.Config) {
		if c.Name != "n3" {
			trustsIssuer(c, i)
		}
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	keys := newClusterKeys(t, c)
	signer, key := policyKey(t, "shop/root")
	keys.keys = append(keys.keys, key)
	keys.give(ctx, t, 0, 1, 2)
	root := func(i int) *applier { return newApplierOf(admin.New(c.Nodes[i].Client("root")), signer) }
	text := renderMade(t, c.Nodes[0], clusterPolicyApplied+identityOf(i, "deployer"))
	for n := range c.Nodes {
		a := root(n)
		_, err := a.put(t, a.next(t, text))
		if err == nil || !strings.Contains(err.Error(), i.URL) || strings.Contains(err.Error(), "node n3") != (n != 2) {
			t.Errorf("applied at %s: %v", nodeName(n), err)
		}
		_, files := packed(t, text)
		if plan := must(a.Plan(within(t), admin.PolicyPlanRequest{Files: files}))(t); len(plan.Faults) != 1 || strings.HasPrefix(plan.Faults[0].Message, "node n3: ") != (n != 2) {
			t.Errorf("planned at %s: %+v", nodeName(n), plan)
		}
	}
	c.Stop(2)
	a := root(0)
	revoked := renderMade(t, c.Nodes[0], edit(t, clusterPolicyApplied, "name: writer,", "name: writer, disabled: true,")+identityOf(i, "deployer"))
	_, files := packed(t, revoked)
	if plan := must(a.Plan(within(t), admin.PolicyPlanRequest{Files: files}))(t); len(plan.Faults) != 0 || !slices.Equal(plan.Unasked, []string{"n3"}) {
		t.Errorf("planned without n3: %+v", plan)
	}
	put := a.apply(t, revoked)
	c.Start(2)
	if p := c.Nodes[2].Policy().Principal("shop", "writer"); !p.Disabled || c.Nodes[2].Policy().Digest() != put.Digest {
		t.Errorf("n3 has %s when it is ready, want %s", c.Nodes[2].Policy().Digest(), put.Digest)
	}
	token := i.token(t, "a", "deployer", time.Hour)
	withToken(t, c.Nodes[0], token)
	if _, err := tryToken(c.Nodes[2], token, nats.IgnoreDiscoveredServers()); err == nil {
		t.Error("n3 lets in by a name that its configuration gives to nobody")
	}
	if n := broker.Ungiven(c.Nodes[2].Broker); n != 1 {
		t.Errorf("n3 counts %d names that are not given", n)
	}
	// What n3 lacks already does not stand in the way, at any node.
	last := root(2)
	if put := last.apply(t, text); len(put.InForce) != 3 {
		t.Errorf("got %+v", put)
	}
	// A token's subject is revoked at all nodes that let it in.
	var closed []<-chan nats.Status
	for _, n := range c.Nodes[:2] {
		closed = append(closed, withToken(t, n, token, nats.IgnoreDiscoveredServers()).StatusChanged(nats.CLOSED))
	}
	began := time.Now()
	last.apply(t, renderMade(t, c.Nodes[0], clusterPolicyApplied))
	for n, ch := range closed {
		select {
		case <-ch:
		case <-within(t).Done():
			t.Fatalf("%s: the subject of a token is revoked, and its connection goes on", nodeName(n))
		}
	}
	took := time.Since(began)
	t.Logf("the subject of a token: cut at all nodes after %s", took.Round(time.Millisecond))
	if took > revokedWithin {
		t.Errorf("took %s", took)
	}
}

// TestFilesThatOthersMayWrite: whoever can write the configuration, the keys of an issuer or
// an authority's file is whoever he likes. Such files are refused, at the start and at a reload.
func TestFilesThatOthersMayWrite(t *testing.T) {
	i := newIssuer(t, "a")
	keys := filepath.Join(t.TempDir(), "jwks.json")
	i.mu.Lock()
	doc := must(json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.keys["a"].Public(), KeyID: "a", Use: "sig"}}}))(t)
	i.mu.Unlock()
	check(t, os.WriteFile(keys, doc, 0o600))
	b := newBroker(t, func(o *brokertest.Options) {
		o.Policy = givenPolicy + identityOf(i, "deployer")
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			trustsIssuer(c, i)
			c.Authentication.Issuers[0].Keys = broker.IssuerKeys{File: keys}
		}
	})
	withToken(t, b, i.token(t, "a", "deployer", time.Hour))
	for _, mode := range []os.FileMode{0o620, 0o602} {
		check(t, os.Chmod(keys, mode))
		if err := b.Reload(within(t)); err == nil || !strings.Contains(err.Error(), keys+": the group or others may write it") {
			t.Errorf("keys of mode %o: %v", mode, err)
		}
		check(t, os.Chmod(b.State.Config, mode))
		if _, err := broker.LoadConfig(b.State.Config, nil); err == nil || !strings.Contains(err.Error(), "signet.yaml: the group or others may write it") {
			t.Errorf("configuration of mode %o: %v", mode, err)
		}
	}
	check(t, errors.Join(os.Chmod(keys, 0o644), os.Chmod(b.State.Config, 0o644)))
	check(t, b.Reload(within(t)))
	must(broker.LoadConfig(b.State.Config, nil))(t)
}

// TestPlanReplaysControlHeaders: a stored event whose header needed a right is one that a
// policy without the right would refuse, and so is a schedule whose target is not granted.
func TestPlanReplaysControlHeaders(t *testing.T) {
	text := strings.NewReplacer("maxBytes: 16MiB}", "maxBytes: 16MiB, messageTTL: true, unsafeSchedules: true}",
		"publish: [orders.>]}", "publish: [orders.plan, orders.due, orders.ttl], headers: [Nats-TTL, Nats-Schedule, Nats-Schedule-Target]}").Replace(givenPolicy)
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = text })
	a := newApplier(t, b)
	w := connect(t, b, "writer")
	if got := w.send(t, "orders.ttl", "x", "Nats-TTL", "1h"); got.code() != 0 {
		t.Fatalf("%+v", got.Error)
	}
	if got := w.send(t, "orders.plan", "x", "Nats-Schedule", "@at 2100-01-01T00:00:00Z", "Nats-Schedule-Target", "orders.due"); got.code() != 0 {
		t.Fatalf("%+v", got.Error)
	}
	replay := func(from, to string) []admin.PolicyRefusals {
		t.Helper()
		_, files := packed(t, render(t, b, edit(t, text, from, to)))
		plan := must(a.Plan(within(t), admin.PolicyPlanRequest{Files: files, Hours: 1}))(t)
		if len(plan.Faults) > 0 || plan.Replay.Events != 2 {
			t.Fatalf("got %+v %+v", plan, plan.Replay)
		}
		return plan.Replay.Refusals
	}
	if r := replay("name: writer,", "name: writer, discover: true,"); len(r) != 0 {
		t.Errorf("a policy with the rights refuses %+v", r)
	}
	if r := replay("headers: [Nats-TTL, ", "headers: ["); len(r) != 1 || r[0].Code != wire.CodeHeaderDenied || r[0].Subject != "orders.ttl" {
		t.Errorf("without the right to a TTL: %+v", r)
	}
	if r := replay("orders.plan, orders.due,", "orders.plan,"); len(r) != 1 || r[0].Code != wire.CodePublishDenied || r[0].Subject != "orders.plan" {
		t.Errorf("without a grant for the target: %+v", r)
	}
}

// TestPolicyComesIntoForceWithoutOtherFiles: an authority's file, a certificate or a key that
// cannot be used does not keep in who was revoked by an applied policy. What they were stays in
// force, and health says so until they are repaired.
func TestPolicyComesIntoForceWithoutOtherFiles(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) {
		o.Policy = givenPolicy
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Authentication.Certificates = []broker.AuthorityConfig{{
				CA: filepath.Join(filepath.Dir(c.Policy[0]), "ca", "ca.pem"), Tenants: []broker.AuthorityTenant{{Name: "shop", SPIFFE: []string{"spiffe://shop/*"}}},
			}}
		}
	})
	a := newApplier(t, b)
	a.apply(t, render(t, b, givenPolicy+"  - {name: other, identities: [{spiffe: spiffe://shop/other}]}\n"))
	writer := connect(t, b, "writer")
	closed := writer.StatusChanged(nats.CLOSED)
	reloadHealth := func() admin.HealthPart {
		s := must(a.api.Status(within(t)))(t)
		return s.Health[slices.IndexFunc(s.Health, func(h admin.HealthPart) bool { return h.Part == "reload" })]
	}
	certificate := must(os.ReadFile(b.State.Cert))(t)
	check(t, errors.Join(os.Chmod(b.State.CA, 0o666), os.WriteFile(b.State.Cert, []byte("half"), 0o600), os.Chmod(b.State.NodeSeed, 0o644)))
	if err := b.Reload(within(t)); err == nil {
		t.Fatal("the files are good")
	}
	a.apply(t, render(t, b, strings.Replace(givenPolicy, "name: writer,", "name: writer, disabled: true,", 1)))
	select {
	case <-closed:
	case <-within(t).Done():
		t.Fatal("a principal that was revoked stays in, because other files cannot be used")
	}
	if h := reloadHealth(); h.OK || !strings.Contains(h.Detail, "passed over") || !strings.Contains(h.Detail, "ca.pem") || !strings.Contains(h.Detail, "node.seed") || !strings.Contains(h.Detail, "server.pem") {
		t.Errorf("got %+v", h)
	}
	check(t, errors.Join(os.Chmod(b.State.CA, 0o644), os.WriteFile(b.State.Cert, certificate, 0o600), os.Chmod(b.State.NodeSeed, 0o600)))
	check(t, b.Reload(within(t)))
	if h := reloadHealth(); !h.OK {
		t.Errorf("after the repair: %+v", h)
	}
}
