package broker_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/internal/guardmatrix"
	"github.com/signetbus/signet/internal/wire"
)

// matrixShare is how many cells of the matrix of the read guard a whole broker is asked.
var matrixShare = flag.Int("guard.matrix", 40, "ask a real broker one in that many of the refused cells of the read guard's matrix, and four times as many of the allowed; 1: all")

// matrixBroker has the policy of the matrix, its stored events, and its consumers.
type matrixBroker struct {
	*brokertest.Broker
	t       *testing.T
	secrets *secrets
	spies   map[*guardmatrix.Role]*spy
	conns   map[string]*nats.Conn
	made    map[string]bool
	got     int // events that came to roles
	asked   int
}

// TestMatrixAgainstServer asks a whole broker with its server about cells of the matrix
// (broker/jsapi.TestMatrix has them all): what the words refuse is refused, what they allow
// is forwarded, and no stored byte reaches a role that has no grant for its subject.
func TestMatrixAgainstServer(t *testing.T) {
	src := must(guardmatrix.ReadSource())(t)
	m := newMatrixBroker(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, one cell in %d", seed, *matrixShare)
	r := rand.New(rand.NewPCG(seed, 5))
	asked, wrong := map[bool]int{}, 0
	src.Walk(accountHash, func(c *guardmatrix.Cell) {
		one := *matrixShare
		if c.Allowed {
			one = (one + 3) / 4
		}
		// What changes a consumer is waited for, so it needs an answer.
		if wrong > 10 || c.Allowed && c.ReplyTo == "" && changes(c) || r.IntN(one) > 0 {
			return
		}
		asked[c.Allowed]++
		if why := m.ask(c); why != "" {
			wrong++
			t.Errorf("%s\n\t%s", c, why)
		}
	})
	for role, p := range m.spies {
		p.pub("$JS.API.INFO", "_INBOX.a.b", "", nil)
		p.settle()
		m.leaks(role)
	}
	t.Logf("%d cells asked: %d forwarded, %d refused; %d stored events came back, in %d roles", asked[true]+asked[false], asked[true], asked[false], m.got, len(m.spies))
	if m.got == 0 {
		t.Error("no event came back: what is allowed does not read anything")
	}
}

func newMatrixBroker(t *testing.T) *matrixBroker {
	b := newBroker(t, func(o *brokertest.Options) {
		o.Policy = guardmatrix.Policy(func(tenant, name string) string { return fmt.Sprintf("{nkey: '{{nkey %q}}'}", tenant+"-"+name) })
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Gate.APIRate, c.Gate.APIReadRate = 1_000_000, 1_000_000
		}
	})
	m := &matrixBroker{Broker: b, t: t, secrets: &secrets{map[string]string{}}, spies: map[*guardmatrix.Role]*spy{}, conns: map[string]*nats.Conn{}, made: map[string]bool{}}
	for i := range guardmatrix.Roles {
		role := &guardmatrix.Roles[i]
		p := newSpy(t, b, role.Tenant+"-"+role.Name, m.secrets)
		p.send("SUB _INBOX.a.> 1\r\nSUB _INBOX.push 2\r\n")
		p.settle()
		m.spies[role] = p
	}
	for _, tenant := range []string{"shop", "mill"} {
		m.conns[tenant] = inside(t, b, tenant)
		subjects := []string{"orders.1.paid", "orders.1.secret", "orders.2.paid", "$KV.cfg.k", "$KV.cfg.a.b"}
		if tenant == "shop" {
			subjects = append(subjects, "side.1", "$KV.secret.k", "$O.files.M.bmFtZQ==", "$O.files.C.abc", "$O.vault.M.x", "$O.vault.C.abc")
		}
		for _, s := range subjects {
			mark := m.secrets.marker(tenant + " " + s)
			msg := &nats.Msg{Subject: s, Header: nats.Header{"X-Secret": {mark}}, Data: []byte(mark)}
			must(m.conns[tenant].RequestMsg(msg, patience))(t)
		}
	}
	return m
}

// ask sends a cell as its role would, and says what is wrong with the outcome.
func (m *matrixBroker) ask(c *guardmatrix.Cell) string {
	m.consumer(c)
	p := m.spies[c.Role]
	header := map[guardmatrix.Header]string{guardmatrix.HeaderLevel: "Nats-Required-Api-Level: 2\r\n", guardmatrix.HeaderLever: "Nats-Trace-Dest: orders.1.paid\r\n"}[c.Header]
	before, reply := p.settle(), c.ReplyTo
	if c.Reply == guardmatrix.ReplyInbox {
		m.asked++
		reply = fmt.Sprintf("_INBOX.a.%d", m.asked)
	}
	p.pub(c.Subject, reply, header, []byte(c.Body.Text))
	refused := p.settle() > before
	if c.Allowed && !refused && changes(c) {
		p.await(c.String(), func() bool { return p.answers[reply] > 0 })
		delete(m.made, c.Role.Tenant+c.Stream.Name+c.Name) // it may be another now, or gone
		if c.Consumer == guardmatrix.Gone {
			m.request(c.Role.Tenant, "CONSUMER.DELETE."+c.Stream.Name+"."+c.Name, nil)
		}
	}
	m.leaks(c.Role)
	switch {
	case c.Allowed && refused:
		return fmt.Sprintf("refused: %s", p.said)
	case !c.Allowed && !refused:
		return "not refused"
	}
	return ""
}

// changes: a forwarded request may make, change or take away a consumer. The server does
// not answer a reset of one that is not there.
func changes(c *guardmatrix.Cell) bool {
	switch c.Control.Rule {
	case guardmatrix.CreateConsumer:
		return true
	case guardmatrix.ChangeConsumer, guardmatrix.AdminConsumers:
		return c.Consumer != guardmatrix.Gone && slices.Contains(c.Stream.Tenants, c.Role.Tenant)
	}
	return false
}

func (m *matrixBroker) request(tenant, api string, body any) {
	var raw []byte
	if body != nil {
		raw = must(json.Marshal(body))(m.t)
	}
	must(m.conns[tenant].Request("$JS.API."+api, raw, patience))(m.t)
}

// consumer makes the consumer of a cell with the owner that the cell says. Those without
// an owner and the broker's read everything.
func (m *matrixBroker) consumer(c *guardmatrix.Cell) {
	key := c.Role.Tenant + c.Stream.Name + c.Name
	owner := map[guardmatrix.Consumer]string{
		guardmatrix.Mine: c.Role.FullName(), guardmatrix.Theirs: c.Role.Tenant + "/" + guardmatrix.Holder, guardmatrix.Brokers: wire.BrokerAccount,
	}[c.Consumer]
	switch {
	case c.Consumer == guardmatrix.NoConsumer, c.Consumer == guardmatrix.Gone, m.made[key], !slices.Contains(c.Stream.Tenants, c.Role.Tenant):
		return
	}
	config := map[string]any{"durable_name": c.Name, "ack_policy": "explicit", "ack_wait": int64(time.Millisecond), "mem_storage": true, "metadata": map[string]string{wire.MetaOwner: owner}}
	if c.Stream.Name == "ORDERS" && (c.Consumer == guardmatrix.Theirs || c.Consumer == guardmatrix.Mine && !c.Role.MayGet("orders.1.secret")) {
		config["filter_subject"] = guardmatrix.SharedFilter
	}
	m.request(c.Role.Tenant, "CONSUMER.DELETE."+c.Stream.Name+"."+c.Name, nil)
	m.request(c.Role.Tenant, "CONSUMER.CREATE."+c.Stream.Name+"."+c.Name, map[string]any{"stream_name": c.Stream.Name, "config": config})
	m.made[key] = true
}

// leaks counts the events that came to a role, and fails for each that may not.
func (m *matrixBroker) leaks(role *guardmatrix.Role) {
	found, where := m.spies[role].forget()
	for _, secret := range slices.Sorted(maps.Keys(m.secrets.of)) {
		mark := m.secrets.of[secret]
		if found[mark] == 0 {
			continue
		}
		m.got += found[mark]
		if subject, ok := cutTenant(secret, role.Tenant); !ok || !role.MayGet(subject) {
			m.t.Errorf("%s got %s, which it may not read: %s", role.FullName(), secret, where[mark])
		}
	}
}

// cutTenant returns the subject of a secret of the tenant.
func cutTenant(secret, tenant string) (subject string, ok bool) {
	prefix := tenant + " "
	if len(secret) <= len(prefix) || secret[:len(prefix)] != prefix {
		return "", false
	}
	return secret[len(prefix):], true
}
