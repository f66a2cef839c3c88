package broker_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// appliedPolicy lets root apply policies for both tenants.
var appliedPolicy = strings.Replace(shopPolicy, "admin: [dlq, keys, policy, refusals, status]}\n  - {name: off", "admin: [audit, dlq, keys, policy, refusals, status, cluster]}\n  - {name: off", 1)

// policyKey makes a key of the role policy.
func policyKey(t testing.TB, principal string) (*signing.Signer, keyring.Key) {
	t.Helper()
	pair := must(nkeys.CreateAccount())(t)
	now := time.Now()
	return must(signing.NewSigner(must(pair.Seed())(t)))(t), keyring.Key{
		ID: must(pair.PublicKey())(t), Alg: keyring.AlgEd25519, Role: keyring.RolePolicy, Principal: principal,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
	}
}

// packed is a policy as it travels.
func packed(t testing.TB, text []byte) (digest string, files []byte) {
	t.Helper()
	list := []policy.File{{Name: "policy.yaml", Text: text}}
	return must(policy.ParseFiles(list))(t).Digest(), must(policy.Pack(list))(t)
}

// applier applies policies as shop/root.
type applier struct {
	admin.Policy
	api    *admin.API
	signer *signing.Signer
}

func newApplierOf(api *admin.API, signer *signing.Signer) *applier {
	return &applier{admin.PolicyOf(api), api, signer}
}

func newApplier(t testing.TB, b *brokertest.Broker) *applier {
	t.Helper()
	signer, key := policyKey(t, "shop/root")
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key { return append(keys, key) })
	c := b.Client("root")
	t.Cleanup(func() { c.Close() })
	return newApplierOf(admin.New(c), signer)
}

// next is the next version, with the policy, as of now.
func (a *applier) next(t testing.TB, text []byte, changes ...func(*signing.PolicyVersion)) signing.PolicyVersion {
	t.Helper()
	shown := must(a.Show(within(t)))(t)
	v := signing.PolicyVersion{
		Version: shown.Next, Broker: shown.Broker, Before: shown.Digest, By: "shop/root", Time: time.Now().UTC().Truncate(time.Second),
	}
	if text != nil {
		v.Digest, v.Files = packed(t, text)
	}
	for _, c := range changes {
		c(&v)
	}
	return v
}

func (a *applier) put(t testing.TB, v signing.PolicyVersion) (*admin.PolicyPut, error) {
	t.Helper()
	return a.Put(within(t), must(a.signer.SignPolicy(v))(t), false)
}

func (a *applier) apply(t testing.TB, text []byte) *admin.PolicyPut {
	t.Helper()
	return must(a.put(t, a.next(t, text)))(t)
}

// TestPolicyApply: an applied policy is in force at once and on open connections, takes
// the place of the files, also after a restart, is on record, and can be gone back from.
func TestPolicyApply(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = appliedPolicy })
	a := newApplier(t, b)
	narrow := connect(t, b, "narrow")
	narrow.denied(t, "orders.us.x", "x", wire.CodePublishDenied)
	files := b.Policy().Digest()

	wider := render(t, b, edit(t, appliedPolicy, "publish: [orders.eu.>]", "publish: [orders.eu.>, orders.us.>]"))
	put := a.apply(t, wider)
	if put.Version != 1 || !put.Kept || len(put.InForce) != 1 || len(put.Waiting) != 0 || put.Digest != b.Policy().Digest() {
		t.Fatalf("got %+v, in force %s", put, b.Policy().Digest())
	}
	narrow.publish(t, "orders.us.x", "granted")

	// The files count no longer, whatever happens to them.
	reload(t, b, edit(t, appliedPolicy, "name: narrow,", "name: narrow, disabled: true,"))
	narrow.publish(t, "orders.us.x", "still granted")
	check(t, os.WriteFile(b.State.Policy, []byte("no policy"), 0o600))
	check(t, b.Reload(within(t)))
	if s := must(a.Show(within(t)))(t); s.Files || s.Applied.Version != 1 || s.Applied.By != "shop/root" || len(s.Tenants) != 2 {
		t.Errorf("got %+v", s)
	}

	stop(t, b)
	b = brokertest.New(t, brokertest.Options{Policy: appliedPolicy, Dir: b.State.Dir, Change: func(c *broker.Config) { quickDrain(c); c.Listen = b.Addr().String() }})
	c := b.Client("root")
	defer c.Close()
	*a = *newApplierOf(admin.New(c), a.signer)
	if b.Policy().Digest() != put.Digest {
		t.Fatalf("after a restart %s is in force, want %s", b.Policy().Digest(), put.Digest)
	}
	narrow = connect(t, b, "narrow")
	narrow.publish(t, "orders.us.x", "granted after a restart")

	// Back to what was before: the history only grows.
	narrower := render(t, b, appliedPolicy)
	if put := a.apply(t, narrower); put.Version != 2 {
		t.Fatalf("got %+v", put)
	}
	narrow.denied(t, "orders.us.x", "x", wire.CodePublishDenied)
	list := must(a.History(within(t)))(t)
	if len(list) != 2 || list[0].Version != 2 || list[1].Digest != put.Digest || list[0].Before != put.Digest || list[1].Before != files {
		t.Fatalf("history %+v", list)
	}
	first := must(signing.PeekPolicy(must(a.Get(within(t), 1))(t)))(t)
	if put := must(a.put(t, a.next(t, nil, func(v *signing.PolicyVersion) { v.Digest, v.Files = first.Digest, first.Files })))(t); put.Version != 3 {
		t.Fatalf("got %+v", put)
	}
	narrow.publish(t, "orders.us.x", "granted by the version that was rolled back to")

	// And back to the files.
	check(t, os.WriteFile(b.State.Policy, render(t, b, appliedPolicy), 0o600))
	if put := must(a.put(t, a.next(t, nil)))(t); put.Version != 4 || put.Digest != "" {
		t.Fatalf("got %+v", put)
	}
	narrow.denied(t, "orders.us.x", "x", wire.CodePublishDenied)
	if s := must(a.Show(within(t)))(t); !s.Files || s.Applied.Version != 4 {
		t.Errorf("got %+v", s)
	}
	reload(t, b, edit(t, appliedPolicy, "publish: [orders.eu.>]", "publish: [orders.eu.>, orders.us.>]"))
	narrow.publish(t, "orders.us.x", "granted by the file")

	var applied []auditlog.Entry
	eventually(t, "the record of each version", func() bool {
		applied = applied[:0]
		page := must(a.api.Audit(within(t), admin.AuditQuery{Kind: string(auditlog.KindPolicy), Limit: admin.MaxListLimit}, 0))(t)
		for _, line := range page.Records {
			r := must(auditlog.Decode(line))(t)
			if r.Who == "shop/root" {
				applied = append(applied, r.Entry)
			}
		}
		return len(applied) >= 4
	})
	for i, e := range applied {
		want := "apply"
		if i == 3 {
			want = "release"
		}
		if e.Version != uint64(i+1) || e.Subject != want || e.Before == "" || (e.After == "") != (i == 3) {
			t.Errorf("record %d: %+v", i, e)
		}
	}
}

// TestPolicyApplyRefused: a version that is not exactly the next one, signed now by the
// caller's own key of the role policy for this broker, changes nothing.
func TestPolicyApplyRefused(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = appliedPolicy })
	a := newApplier(t, b)
	other, otherKey := policyKey(t, "mill/boss")
	late, lateKey := policyKey(t, "shop/root")
	lateKey.RevokedAt = time.Now().Add(-time.Minute)
	producer, producerKey := policyKey(t, "shop/root")
	producerKey.Role = keyring.RoleProducer
	b.ChangeKeyring(func(keys []keyring.Key) []keyring.Key { return append(keys, otherKey, lateKey, producerKey) })
	unknown, _ := policyKey(t, "shop/root")
	text := render(t, b, edit(t, appliedPolicy, "publish: [orders.eu.>]", "publish: [orders.eu.>, orders.us.>]"))
	before := b.Policy().Digest()
	tampered := func(doc []byte) []byte {
		return []byte(strings.Replace(string(doc), `"payload":"`, `"payload":"A`, 1))
	}
	for _, tt := range []struct {
		name   string
		signer *signing.Signer
		text   []byte
		change func(*signing.PolicyVersion)
		doc    func([]byte) []byte
		want   string
	}{
		{"another's key", other, text, func(v *signing.PolicyVersion) { v.By = "mill/boss" }, nil, "whoever signs applies"},
		{"another's name", a.signer, text, func(v *signing.PolicyVersion) { v.By = "mill/boss" }, nil, "is the key of shop/root"},
		{"an unknown key", unknown, text, nil, nil, "not in the keyring"},
		{"a revoked key", late, text, nil, nil, "may not sign"},
		{"a revoked key that claims to be earlier", late, text, func(v *signing.PolicyVersion) { v.Time = v.Time.Add(-5 * time.Minute) }, nil, "not valid now"},
		{"a producer's key", producer, text, nil, nil, "has the role producer"},
		{"another broker", a.signer, text, func(v *signing.PolicyVersion) { v.Broker = "elsewhere" }, nil, "another broker"},
		{"a version too high", a.signer, text, func(v *signing.PolicyVersion) { v.Version = 1 << 20 }, nil, "plan again"},
		{"made for another policy", a.signer, text, func(v *signing.PolicyVersion) { v.Before = strings.Repeat("0", 64) }, nil, "plan again"},
		{"signed long ago", a.signer, text, func(v *signing.PolicyVersion) { v.Time = v.Time.Add(-time.Hour) }, nil, "sign it anew"},
		{"signed tomorrow", a.signer, text, func(v *signing.PolicyVersion) { v.Time = v.Time.Add(23 * time.Hour) }, nil, "sign it anew"},
		{"another digest", a.signer, text, func(v *signing.PolicyVersion) { v.Digest = strings.Repeat("0", 64) }, nil, "says that it is"},
		{"not what was signed", a.signer, text, nil, tampered, ""},
		{"faults", a.signer, render(t, b, edit(t, appliedPolicy, "publish: [orders.eu.>]", "publish: [orders.eu.>]")), func(v *signing.PolicyVersion) {
			_, v.Files = v.Digest, must(policy.Pack([]policy.File{{Name: "p.yaml", Text: []byte("tenant: shop\nbogus: 1\n")}}))(t)
		}, nil, "bogus"},
		{"more than the store has", a.signer, render(t, b, strings.ReplaceAll(appliedPolicy, "maxBytes: 16MiB", "maxBytes: 9TiB")), nil, nil, "storage.maxBytes"},
		{"the caller locks itself out", a.signer, render(t, b, edit(t, appliedPolicy, "admin: [audit, dlq, keys, policy,", "admin: [audit, dlq, keys,")), nil, nil, "--lock-me-out"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := a.next(t, tt.text)
			if tt.change != nil {
				tt.change(&v)
			}
			doc := must(tt.signer.SignPolicy(v))(t)
			if tt.doc != nil {
				doc = tt.doc(doc)
			}
			_, err := a.Put(within(t), doc, false)
			if !errors.Is(err, client.ErrConflict) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a conflict with %q", err, tt.want)
			}
			if b.Policy().Digest() != before {
				t.Fatal("the policy is another one")
			}
		})
	}
	t.Run("without the grant", func(t *testing.T) {
		c := b.Client("boss")
		defer c.Close()
		doc := must(other.SignPolicy(a.next(t, text, func(v *signing.PolicyVersion) { v.By = "mill/boss" })))(t)
		if _, err := admin.PolicyOf(admin.New(c)).Put(within(t), doc, false); !errors.Is(err, client.ErrDenied) || !strings.Contains(err.Error(), "cluster") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("the same twice", func(t *testing.T) {
		doc := must(a.signer.SignPolicy(a.next(t, text)))(t)
		must(a.Put(within(t), doc, false))(t)
		if _, err := a.Put(within(t), doc, false); !errors.Is(err, client.ErrConflict) {
			t.Errorf("a replay is taken: %v", err)
		}
	})
}

// TestPolicyPlan: a plan tells who gains and loses what and which stored events the
// policy would have refused, of the caller's tenant unless it may see all, and changes
// nothing.
func TestPolicyPlan(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = appliedPolicy })
	a := newApplier(t, b)
	connect(t, b, "writer").publish(t, "orders.checked", `{"id":1}`)
	connect(t, b, "wide").publish(t, "orders.eu.a", `{"id":1}`)
	miller := connect(t, b, "miller")
	for range 3 {
		miller.publish(t, "flour.rye", "x")
	}
	before := b.Policy().Digest()
	text := appliedPolicy
	for _, e := range [][2]string{
		{"publish: [flour.>, ", "publish: ["},
		{"name: wide,", "name: wide, disabled: true,"},
		{`"required":["id"],"properties":{"id":{"type":"integer"}}}'}` + "\nsubjects:\n  - {match: orders.checked, schema: order}\nlimits", `"required":["id","total"]}'}` + "\nsubjects:\n  - {match: orders.checked, schema: order}\nlimits"},
	} {
		if e[0] == "publish: [flour.>, " {
			e = [2]string{"publish: [orders.>, flour.>, telemetry.>], subscribe: [orders.>, flour.>, telemetry.>]", "publish: [orders.>, telemetry.>], subscribe: [orders.>, telemetry.>]"}
		}
		text = edit(t, text, e[0], e[1])
	}
	_, files := packed(t, render(t, b, text))
	plan := must(a.Plan(within(t), admin.PolicyPlanRequest{Files: files, Hours: 1}))(t)
	if len(plan.Faults) > 0 || plan.InForce != before || plan.Digest == before || b.Policy().Digest() != before {
		t.Fatalf("got %+v", plan)
	}
	var texts []string
	for _, c := range plan.Changes {
		texts = append(texts, c.Text)
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{
		"mill/miller loses publish flour.> (principal miller/publish[1] policy.yaml:", "mill/miller loses subscribe flour.>",
		"shop/wide loses everything", "tenant shop changes schema order@1",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not in\n%s", want, all)
		}
	}
	r := plan.Replay
	if r == nil || r.Events != 5 || r.Refused != 5 || r.Cut != "" || len(r.Refusals) != 3 {
		t.Fatalf("replay %+v", r)
	}
	got := map[string]wire.Code{}
	for _, x := range r.Refusals {
		got[x.Principal+" "+x.Type] = x.Code
	}
	if first := r.Refusals[0]; first.Principal != "mill/miller" || first.Count != 3 || first.Subject != "flour.rye" || first.Stream != "FLOUR" || first.Sequence != 1 {
		t.Errorf("the most frequent first: %+v", first)
	}
	if got["mill/miller flour.rye"] != wire.CodePublishDenied || got["shop/wide orders.eu.a"] != wire.CodePrincipalRevoked || got["shop/writer orders.checked"] != wire.CodeSchemaViolation {
		t.Errorf("got %v", got)
	}
	// The policy in force refuses none of them.
	_, same := packed(t, render(t, b, appliedPolicy))
	if plan := must(a.Plan(within(t), admin.PolicyPlanRequest{Files: same, Hours: 1}))(t); len(plan.Changes) != 0 || plan.Replay.Refused != 0 || plan.Replay.Events != 5 {
		t.Errorf("got %+v %+v", plan, plan.Replay)
	}

	c := b.Client("boss")
	defer c.Close()
	boss := admin.PolicyOf(admin.New(c))
	plan = must(boss.Plan(within(t), admin.PolicyPlanRequest{Files: files, Hours: 1}))(t)
	if !plan.Partial || len(plan.Changes) != 2 || plan.Replay.Events != 3 {
		t.Errorf("the plan of another tenant shows: %+v %+v", plan, plan.Replay)
	}
	for _, x := range plan.Changes {
		if x.Tenant != "mill" {
			t.Errorf("boss sees %s", x.Text)
		}
	}
	if _, err := boss.History(within(t)); !errors.Is(err, client.ErrDenied) {
		t.Errorf("history of all tenants for one: %v", err)
	}
	if plan := must(a.Plan(within(t), admin.PolicyPlanRequest{Files: must(policy.Pack([]policy.File{{Name: "p.yaml", Text: []byte("tenant: shop\nbogus: 1\n")}}))(t)}))(t); len(plan.Faults) != 1 || plan.Faults[0].Line != 2 {
		t.Errorf("faults %+v", plan.Faults)
	}
}

// TestGrantsLapseLive: the time of a grant, a role and a principal ends on connections
// that are open, with files on the disk that could not be read.
func TestGrantsLapseLive(t *testing.T) {
	b := newBroker(t)
	narrow, wide := connect(t, b, "narrow"), connect(t, b, "wide")
	live := must(narrow.SubscribeSync("telemetry.eu.>"))(t)
	closed := wide.StatusChanged(nats.CLOSED)
	check(t, narrow.Flush())
	end := time.Now().Add(4 * time.Second).UTC().Truncate(time.Second)
	until := end.Format(time.RFC3339)
	text := edit(t, shopPolicy, "publish: [orders.eu.>], subscribe: [orders.eu.>, telemetry.eu.>]",
		"publish: [{grant: orders.eu.>, until: "+until+"}], subscribe: [orders.eu.>, {grant: telemetry.eu.>, until: "+until+"}]")
	reload(t, b, edit(t, text, "name: wide,", "name: wide, until: "+until+","))
	if time.Now().Before(end.Add(-time.Second)) {
		narrow.publish(t, "orders.eu.x", "still granted")
	}
	check(t, os.WriteFile(b.State.Policy, []byte("no policy"), 0o600))
	select {
	case <-closed:
	case <-within(t).Done():
		t.Fatal("the connection of the principal goes on")
	}
	late := time.Since(end)
	eventually(t, "the grant lapses", func() bool {
		p := b.Policy().Principal("shop", "narrow")
		return p.Grants.Publish.Covers("orders.eu.x") == nil
	})
	// The policy is swapped before the connections hear of it: the end of the subscription
	// says that this one has.
	narrow.refused(t, wire.CodeSubscribeDenied)
	narrow.denied(t, "orders.eu.x", "x", wire.CodePublishDenied)
	writer := connect(t, b, "writer")
	check(t, writer.Publish("telemetry.eu.b", []byte("secret")))
	check(t, writer.Flush())
	check(t, narrow.Flush())
	if n, _, err := live.Pending(); err == nil && n > 0 {
		t.Errorf("the subscription goes on after its grant")
	}
	if late < 0 || late > patience/2 {
		t.Errorf("the connection was cut %s after the end", late)
	}
	t.Logf("cut %s after the end", late.Round(time.Millisecond))
}

// TestPolicyCache: a node whose copy of the applied policy was changed on its disk, or
// can be by others, does not start.
func TestPolicyCache(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = appliedPolicy })
	a := newApplier(t, b)
	a.apply(t, render(t, b, edit(t, appliedPolicy, "publish: [orders.eu.>]", "publish: [orders.eu.>, orders.us.>]")))
	stop(t, b)
	cfg := must(broker.LoadConfig(b.State.Config, nil))(t)
	file := filepath.Join(cfg.State, "policy.json")
	good := must(os.ReadFile(file))(t)
	for _, tt := range []struct {
		name string
		data []byte
		mode os.FileMode
		want string
	}{
		{"changed", []byte(strings.Replace(string(good), `"payload":"`, `"payload":"A`, 1)), 0o600, "policy.json"},
		{"cut", good[:len(good)/2], 0o600, "policy.json"},
		{"of others", good, 0o620, "chmod go-w"},
	} {
		check(t, os.WriteFile(file, tt.data, 0o600))
		check(t, os.Chmod(file, tt.mode))
		n := must(broker.New(cfg, "test", zerolog.Nop()))(t)
		if err := n.Check(within(t)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	check(t, os.Chmod(file, 0o600))
	check(t, os.WriteFile(file, good, 0o600))
	check(t, must(broker.New(cfg, "test", zerolog.Nop()))(t).Check(within(t)))
}

// TestModeAuditLive: a principal in audit publishes and reads what nobody has granted,
// through both locks, and is counted; back in enforce it may nothing, on the same
// connection.
func TestModeAuditLive(t *testing.T) {
	audit := edit(t, shopPolicy, "  - {name: off, disabled", "  - {name: shadow, mode: audit, identities: [{nkey: '{{nkey \"shadow\"}}'}]}\n  - {name: off, disabled")
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = audit })
	p := connect(t, b, "shadow")
	seq := p.publish(t, "orders.eu.x", "spared")
	sub := must(p.SubscribeSync("telemetry.>"))(t)
	check(t, p.Flush())
	check(t, connect(t, b, "writer").Publish("telemetry.a", []byte("1")))
	must(sub.NextMsg(patience))(t)
	consumer := must(p.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{FilterSubject: "orders.>"}))(t)
	if m := must(consumer.Next(jetstream.FetchMaxWait(patience)))(t); m.Subject() != "orders.eu.x" {
		t.Errorf("got %s", m.Subject())
	}
	p.denied(t, "rpc.billing.charge", "x", wire.CodeCallDenied)
	p.denied(t, "undeclared.x", "x", wire.CodePublishDenied, wire.CodeSubjectUnknown)
	p.denied(t, "$KV.settings.x", "x", wire.CodeBucketDenied)

	c := b.Client("root")
	defer c.Close()
	u := must(admin.PolicyOf(admin.New(c)).Usage(within(t)))(t)
	if len(u.Modes) != 1 || u.Modes[0].Rule != "principal shadow" || u.Modes[0].Mode != "audit" || u.Modes[0].Count < 3 {
		t.Errorf("modes %+v, want at least a publish, a subscription and a consumer", u.Modes)
	}
	if _, page := probe(t, b, "/metrics"); !strings.Contains(page, `signet_policy_spared{tenant="shop"}`) || !strings.Contains(page, "signet_policy_version 0") {
		t.Errorf("metrics: %s", page)
	}
	used := map[string]uint64{}
	for _, g := range u.Grants {
		used[g.Rule] += g.Count
	}
	if used["principal writer/publish[2]"] != 1 || used["principal payer/subscribe[0]"] != 0 || used["principal root/admin[2]"] == 0 {
		t.Errorf("used %v", used)
	}

	reload(t, b, edit(t, audit, "mode: audit, ", ""))
	p.denied(t, "orders.eu.x", "x", wire.CodePublishDenied)
	p.refused(t, wire.CodeSubscribeDenied)
	if _, err := p.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{FilterSubject: "orders.>"}); err == nil {
		t.Error("a consumer is made after the mode")
	}
	if seq != 1 || !p.IsConnected() {
		t.Errorf("sequence %d, connected %v", seq, p.IsConnected())
	}
}

// TestPolicyHistoryIsBounded: the last versions are kept, and no more.
func TestPolicyHistoryIsBounded(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = appliedPolicy })
	a := newApplier(t, b)
	const applied = store.PolicyHistory + 3
	for i := range applied {
		a.apply(t, render(t, b, fmt.Sprintf("%s# %d\n", appliedPolicy, i)))
	}
	list := must(a.History(within(t)))(t)
	if len(list) != store.PolicyHistory || list[0].Version != applied || list[len(list)-1].Version != applied-store.PolicyHistory+1 {
		t.Errorf("%d versions from %d to %d", len(list), list[0].Version, list[len(list)-1].Version)
	}
	if _, err := a.Get(within(t), 1); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("a version that has gone: %v", err)
	}
}

// TestExplainNamesTheGrant: the explanation of a refusal names rule, place, nearest grant
// and fix also where the refusal is about a header, a source or a type.
func TestExplainNamesTheGrant(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) {
		o.Policy = edit(t, shopPolicy, "publish: [orders.eu.>], subscribe", "publish: [orders.eu.>], sources: [/shop/front*], types: [com.shop.order], headers: [Nats-Expected-Stream], subscribe")
	})
	c := b.Client("root")
	defer c.Close()
	api := admin.New(c)
	narrow := connect(t, b, "narrow")
	for _, tt := range []struct {
		name, subject  string
		header         []string
		nearest, fixes string
	}{
		{"publish", "orders.us.x", nil, "orders.eu.>", `add "orders.us.x" to publish`},
		{"header", "orders.eu.x", []string{"Nats-Expected-Last-Sequence", "1"}, "Nats-Expected-Stream", `add "Nats-Expected-Last-Sequence" to headers`},
		{"source", "orders.eu.x", []string{"ce-specversion", "1.0", "ce-id", "1", "ce-source", "/shop/fron", "ce-type", "com.shop.order"}, "/shop/front*", `add "/shop/fron" to sources`},
		{"type", "orders.eu.x", []string{"ce-specversion", "1.0", "ce-id", "1", "ce-source", "/shop/front1", "ce-type", "com.shop.refund"}, "com.shop.order", `add "com.shop.refund" to types`},
	} {
		m := nats.NewMsg(tt.subject)
		for i := 0; i < len(tt.header); i += 2 {
			m.Header[tt.header[i]] = []string{tt.header[i+1]}
		}
		var answer struct {
			Problem wire.Problem `json:"problem"`
		}
		check(t, json.Unmarshal(must(narrow.RequestMsg(m, patience))(t).Data, &answer))
		r := must(api.Explain(within(t), answer.Problem.Ref))(t)
		if x := r.Explain; x == nil || !strings.HasSuffix(x.File, "policy.yaml") || x.Line == 0 || x.Nearest != tt.nearest || !strings.Contains(x.Fix, tt.fixes) {
			t.Errorf("%s: %+v of %+v", tt.name, r.Explain, r)
		}
	}
}

// TestExplainNamesTheRule: what is refused by a rule for the subject, a limit or the read
// guard is explained with its place, too, and a reader is told which subject to ask for.
func TestExplainNamesTheRule(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) {
		o.Policy = givenPolicy + `  - {name: narrow, identities: [{nkey: '{{nkey "narrow"}}'}], publish: [orders.>], subscribe: [orders.eu.>], limit: slow}
limits: {slow: {messages: 2/m, burst: 1m}}
schemas: [{name: order, version: 1, text: '{"type":"object"}'}]
subjects:
  - {match: orders.checked, schema: order}
  - {match: orders.small, maxPayload: 1KiB}
  - {match: orders.signed, require: producer}
`
	})
	c := b.Client("root")
	defer c.Close()
	api, narrow, writer := admin.New(c), connect(t, b, "narrow"), connect(t, b, "writer")
	line := func(part string) int {
		for i, l := range strings.Split(string(must(os.ReadFile(b.State.Policy))(t)), "\n") {
			if strings.Contains(l, part) {
				return i + 1
			}
		}
		t.Fatalf("the policy has no line with %s", part)
		return 0
	}
	explained := func(what, ref string, want int, fix string) {
		t.Helper()
		r := must(api.Explain(within(t), ref))(t)
		if x := r.Explain; x == nil || !strings.HasSuffix(x.File, "policy.yaml") || x.Line != want || r.Rule == "" || r.Fix == "" || !strings.Contains(x.Fix, fix) {
			t.Errorf("%s: %+v of %+v, want line %d", what, x, r, want)
		}
	}
	problem := func(p *peer, subject, data string) string {
		t.Helper()
		var answer struct {
			Problem wire.Problem `json:"problem"`
		}
		check(t, json.Unmarshal(must(p.Request(subject, []byte(data), patience))(t).Data, &answer))
		return answer.Problem.Ref
	}
	explained("schema", problem(writer, "orders.checked", "[]"), line("match: orders.checked"), "")
	explained("size", problem(writer, "orders.small", strings.Repeat("x", 2048)), line("match: orders.small"), "")
	explained("signature", problem(writer, "orders.signed", "x"), line("match: orders.signed"), "")
	narrow.publish(t, "orders.eu.x", "1")
	narrow.publish(t, "orders.eu.x", "2")
	explained("limit", problem(narrow, "orders.eu.x", "3"), line("limits: {slow"), "")
	for what, ask := range map[string][2]string{
		"names":    {"$JS.API.STREAM.NAMES", `{"subject":"payroll.x"}`},
		"consumer": {"$JS.API.CONSUMER.CREATE.ORDERS.c.orders.us.>", `{"stream_name":"ORDERS","config":{"name":"c","filter_subject":"orders.us.>","ack_policy":"explicit"}}`},
		"get":      {"$JS.API.DIRECT.GET.ORDERS.orders.us.a", ``},
		"sequence": {"$JS.API.DIRECT.GET.ORDERS", `{"seq":1}`},
	} {
		m := must(narrow.Request(ask[0], []byte(ask[1]), patience))(t)
		ref := regexp.MustCompile(`[a-z0-9]{8}-[0-9]+`).FindString(string(m.Data) + fmt.Sprint(m.Header))
		if strings.Contains(string(m.Data)+fmt.Sprint(m.Header), "policy.yaml") {
			t.Errorf("%s: the answer shows the policy: %s %v", what, m.Data, m.Header)
		}
		explained(what, ref, line("name: narrow"), map[string]string{"names": `add "payroll.x" to subscribe`, "consumer": `add "orders.us.>" to subscribe`, "get": `add "orders.us.a" to subscribe`, "sequence": `add "orders.>" to subscribe`}[what])
	}
}

// TestPolicyThatCannotBe: a version that the store refuses is in force nowhere, and the
// next one takes its place.
func TestPolicyThatCannotBe(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = appliedPolicy })
	a := newApplier(t, b)
	before := b.Policy().Digest()
	bad := strings.Replace(appliedPolicy, "subjects: [orders.>], maxBytes: 16MiB}", "subjects: [orders.>], maxBytes: 16MiB, unsafeRollup: true}", 1)
	put, err := a.put(t, a.next(t, render(t, b, bad)))
	if err != nil || len(put.InForce) != 0 || !put.Kept || !strings.Contains(put.Waiting["test"], "deny_purge") {
		t.Fatalf("got %+v, %v", put, err)
	}
	if b.Policy().Digest() != before {
		t.Fatal("it is in force")
	}
	good := render(t, b, edit(t, appliedPolicy, "publish: [orders.eu.>]", "publish: [orders.eu.>, orders.us.>]"))
	if put := a.apply(t, good); put.Version != 2 || len(put.InForce) != 1 {
		t.Fatalf("the next one: %+v", put)
	}
	connect(t, b, "narrow").publish(t, "orders.us.x", "granted")
}
