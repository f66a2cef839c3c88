package broker

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/admin"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

const (
	quorumPoll  = 50 * time.Millisecond
	quorumTell  = 5 * time.Second  // between two log lines while there is no quorum
	peerTimeout = 2 * time.Second  // of one question to another node
	peerWait    = 90 * time.Second // for the other nodes to learn of a new tenant
	// nodeSubject, with the name of a node after it, is what that node answers in the
	// system account, which no client can enter.
	nodeSubject = "SIGNET.NODE."
	tenantsFile = "tenants.json"
	// hearLimit is how long a node that knows the tenants from before listens for new
	// ones. One that does not listens until it has heard enough.
	hearLimit = 2 * time.Second
)

// nodeInfo is what nodes tell each other.
type nodeInfo struct {
	Node    string                `json:"node"`
	Version string                `json:"version"`
	Phase   string                `json:"phase"`
	Started time.Time             `json:"started"`
	Policy  string                `json:"policy"`  // digest
	Keyring uint64                `json:"keyring"` // version
	Listen  []string              `json:"listen,omitempty"`
	Tenants []embed.TenantAccount `json:"tenants"`
	// Keeps answers question.Without: every stream has a quorum of other copies that
	// have everything.
	Keeps bool `json:"keeps,omitempty"`
	// Store is what the node holds; empty from a release that does not tell.
	Store holding `json:"store"`
	// Current: it knows the leader of the cluster, and has what that has decided.
	Current bool `json:"current,omitempty"`
	// LetsIn answers question.Fill: the node whose store may be started.
	LetsIn string `json:"letsIn,omitempty"`
	// Now is the node's clock when it answered; ahead is what that says to who asked.
	Now   time.Time `json:"now,omitzero"`
	ahead time.Duration
}

// question is what one node asks another, beside who it is.
type question struct {
	Without string `json:"without,omitempty"` // node: could it be done without?
	Fill    string `json:"fill,omitempty"`    // node: may it start its store, which has to be filled?
}

// nodes is this node among the others: it answers what they ask, and asks them. nil
// on a broker by itself.
type nodes struct {
	b       *Broker
	nc      *nats.Conn
	server  *embed.Server
	serving atomic.Pointer[admin.Service]            // answers the others' requests; nil until it is up
	clocks  atomic.Pointer[map[string]time.Duration] // by node: how far its clock is ahead of this one's
}

// clusterOptions returns what makes the embedded server a node; nil without a cluster.
func clusterOptions(b startup) (*embed.ClusterConfig, error) {
	c := b.cfg.Cluster
	if c == nil {
		return nil, nil //nolint:nilnil // a broker by itself is no fault
	}
	cert, err := ca.ServerTLS(c.TLS.Certificate, c.TLS.Key)
	if err != nil {
		return nil, err
	}
	cert.OnError(func(err error) {
		b.log.Error().Err(err).Msg("certificate of the routes not reloaded, the old one stays")
	})
	trust := func(node string) error { return trustNode(b.Broker, node) }
	tls, err := cert.RouteConfig(c.TLS.CA, c.Name, b.cfg.Name, trust)
	if err != nil {
		return nil, err
	}
	return &embed.ClusterConfig{
		Name: c.Name, Listen: c.Listen, Nodes: c.Nodes, TLS: tls, Trust: trust,
		Admit: func(node, token string, cert *x509.Certificate) error { return admitNode(b.Broker, node, token, cert) },
		Token: func() string { return signing.NodeToken(b.material.Load().signer, c.Name, b.cfg.Name) },
	}, nil
}

// trustNode says whether the keyring has a key of the node that is valid now. Both ends
// of a route ask, and the list of the nodes to dial: nats-server asks for tokens only
// where it is dialled.
func trustNode(b *Broker, node string) error {
	if b.cfg.Cluster.Nodes[node] == "" {
		return fmt.Errorf("broker: %q is not one of cluster.nodes", node)
	}
	now := time.Now()
	for _, k := range b.material.Load().ring.Keys() {
		if k.Role == keyring.RoleBroker && k.Principal == node && k.ValidAt(now) {
			return nil
		}
	}
	return fmt.Errorf("broker: the keyring here has no valid key of node %q", node)
}

// admitNode judges a node that wants a route to this one, which TLS has let through.
func admitNode(b *Broker, node, token string, cert *x509.Certificate) error {
	c := b.cfg.Cluster
	name, err := ca.NodeOf(cert, c.Name)
	switch {
	case err != nil:
		return err
	case name != node:
		return fmt.Errorf("broker: it says that it is node %q with the certificate of %q", node, name)
	}
	return signing.VerifyNodeToken(token, c.Name, node, b.material.Load().ring, time.Now())
}

// ownerTTL is how long the gate remembers whose a consumer is. Another node may have
// deleted it and made one of the same name for somebody else meanwhile.
func (c *Config) ownerTTL() time.Duration {
	if c.Cluster == nil {
		return gate.DefaultOwnerTTL
	}
	return time.Second
}

// systemDoor lets connections into the system account, and into no other.
type systemDoor struct{ *embed.Server }

func (systemDoor) HasAccount(account string) bool { return account == wire.SystemAccount }

// joinNodes opens this node's connection to the others, over the given server.
func (b *Broker) joinNodes(server *embed.Server) (*nodes, error) {
	nc, err := store.Internal(systemDoor{server})(wire.SystemAccount)
	if err != nil {
		return nil, err
	}
	n := &nodes{b: b, nc: nc, server: server}
	for subject, answer := range map[string]nats.MsgHandler{
		nodeSubject: n.answer, viewSubject: n.answerView, forwardSubject: n.answerForward,
	} {
		if _, err := nc.Subscribe(subject+b.cfg.Name, answer); err != nil {
			nc.Close()
			return nil, fmt.Errorf("broker: %w", err)
		}
	}
	return n, nil
}

func (n *nodes) info() nodeInfo {
	mat := n.b.material.Load()
	return nodeInfo{
		Node: n.b.cfg.Name, Version: n.b.version, Phase: phaseOf(n.b, n.server), Started: n.b.started,
		Policy: mat.policy.Digest(), Keyring: mat.ring.Version(), Listen: n.b.cfg.Advertise, Tenants: embed.Accounts(n.server),
		Store: n.b.held.get(), Current: n.server.Cluster().Quorum() == nil,
	}
}

func (n *nodes) answer(m *nats.Msg) {
	var q question
	if err := json.Unmarshal(m.Data, &q); err != nil {
		return // not of a node of this release
	}
	info := n.info()
	if q.Without != "" && phase(n.b.phase.Load()) == phaseReady {
		ctx, cancel := context.WithTimeout(context.Background(), peerTimeout/2)
		loses, err := n.losesQuorum(ctx, q.Without)
		cancel()
		info.Keeps = err == nil && len(loses) == 0
	}
	if q.Fill != "" {
		info.LetsIn = n.letsIn(q.Fill)
	}
	info.Now = time.Now() // the look at the streams took a while
	data, err := json.Marshal(&info)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		n.b.log.Warn().Err(err).Msg("another node's question was not answered")
	}
}

// ask asks all other nodes at once. Nodes that do not answer are left out.
func (n *nodes) ask(ctx context.Context, q question) []nodeInfo {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	body, err := json.Marshal(&q)
	if err != nil {
		return nil // cannot be: it is two words
	}
	answers := make(chan *nodeInfo)
	asked := 0
	for name := range n.b.cfg.Cluster.Nodes {
		if name == n.b.cfg.Name {
			continue
		}
		asked++
		go func() {
			var info nodeInfo
			sent := time.Now()
			m, err := n.nc.RequestWithContext(ctx, nodeSubject+name, body)
			got := time.Now()
			if err != nil || json.Unmarshal(m.Data, &info) != nil || info.Node != name {
				answers <- nil
				return
			}
			info.ahead = ahead(info.Now, sent, got)
			answers <- &info
		}()
	}
	var out []nodeInfo
	for range asked {
		if info := <-answers; info != nil {
			out = append(out, *info)
		}
	}
	slices.SortFunc(out, func(a, b nodeInfo) int { return cmpText(a.Node, b.Node) })
	return out
}

// awaitQuorum blocks until the cluster can decide, as long as it takes: nodes come up
// one after the other, and hours may lie between them. Meanwhile the operations port
// says what is missing.
func (b startup) awaitQuorum(ctx context.Context, _ *material) error {
	if b.nodes == nil {
		return nil
	}
	poll := time.NewTicker(quorumPoll)
	defer poll.Stop()
	told, looked := time.Now(), time.Now()
	for {
		err := b.server.Cluster().Quorum()
		if err == nil {
			return nil
		}
		if time.Since(looked) > rescueLook {
			b.nodes.takeOrder(ctx)
			looked = time.Now()
		}
		if time.Since(told) > quorumTell {
			told = time.Now()
			b.log.Warn().Err(err).Msg("waiting for the other nodes")
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-b.server.Done():
			return errors.Join(ErrServerEnded, b.server.Err())
		case <-poll.C:
		}
	}
}

// hearTenants returns the accounts of cfg and those that the other nodes have beside
// them. A server that starts without the account of a stream which has a copy on it
// leaves that copy dead, and makes the cluster delete the stream if it is younger than
// five seconds (nats-server 2.15.2; seen with a node whose volume was new and whose
// policy was old). So the accounts must be known before the store starts. It listens with a server that has no store. Whoever has made a stream of a
// tenant was in touch with a majority that knew the tenant; so hearing half of the
// nodes besides this one is enough. What was heard is written down.
func hearTenants(ctx context.Context, b startup, cfg embed.Config) (_ []embed.TenantAccount, err error) {
	all := cfg.Tenants
	own, err := readHolding(b.cfg.State)
	if err != nil {
		return nil, err
	}
	b.held.now.Store(&own)
	_, statErr := os.Stat(filepath.Join(b.cfg.State, tenantsFile))
	cfg.NoStore, cfg.Inspect, cfg.Stopped = true, nil, nil
	server, err := embed.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Shutdown(context.WithoutCancel(ctx))) }()
	n, err := b.joinNodes(server)
	if err != nil {
		return nil, err
	}
	defer n.nc.Close()
	port := &waitingPort{b: b.Broker}
	defer func() { err = errors.Join(err, port.close(context.WithoutCancel(ctx))) }()
	q := question{Without: b.cfg.Name}
	if !b.held.get().remembers() {
		q.Fill = b.cfg.Name
	}
	poll := time.NewTicker(quorumPoll)
	defer poll.Stop()
	began := time.Now()
	for told := began; ; {
		infos := n.ask(ctx, q)
		for _, info := range infos {
			for _, t := range info.Tenants {
				if !hasAccount(all, t.Name) {
					b.log.Warn().Str("tenant", t.Name).Str("node", info.Node).Msg("another node has a tenant that the policy here does not have")
					all = append(all, t)
				}
			}
			n.compare(&info)
			warnClock(b.Broker, &info)
		}
		if err := wrongClock(infos); err != nil {
			return nil, err
		}
		// A damaged copy may be thrown away only where the others have it all: who is
		// ready has looked, and one no outweighs.
		ready := slices.DeleteFunc(slices.Clone(infos), func(i nodeInfo) bool { return i.Phase != phaseNames[phaseReady] })
		keeps := len(ready) > 0 && !slices.ContainsFunc(ready, func(i nodeInfo) bool { return !i.Keeps })
		b.damage.peers = func() bool { return keeps }
		waits := error(nil)
		if len(infos) >= b.cfg.size()/2 || statErr == nil && time.Since(began) > hearLimit {
			if waits = mayStartStore(b, infos, port); !errors.Is(waits, ErrStoreWaits) {
				return all, errors.Join(waits, rememberTenants(b.cfg.State, all))
			}
		}
		if time.Since(told) > quorumTell {
			told = time.Now()
			b.log.Warn().Err(waits).Int("heard of", len(infos)).Msg("waiting for the other nodes: this one has to hear of their tenants, and its store must not take theirs from them")
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-server.Done():
			return nil, errors.Join(ErrServerEnded, server.Err())
		case <-poll.C:
		}
	}
}

func hasAccount(list []embed.TenantAccount, name string) bool {
	return slices.ContainsFunc(list, func(t embed.TenantAccount) bool { return t.Name == name })
}

// compare warns of what should be the same on every node.
func (n *nodes) compare(other *nodeInfo) {
	m := n.b.material.Load()
	if other.Policy != m.policy.Digest() || other.Keyring != m.ring.Version() {
		n.b.log.Warn().Str("node", other.Node).Str("its policy", other.Policy).Str("policy", m.policy.Digest()).
			Uint64("its keyring", other.Keyring).Uint64("keyring", m.ring.Version()).Msg("another node has another policy or keyring")
	}
}

// awaitTenants waits until every node that is in touch has the accounts of set: a
// stream that is made before is refused by the node that lacks its account, and lost.
func (n *nodes) awaitTenants(ctx context.Context, want []embed.TenantAccount) error {
	if n == nil {
		return nil
	}
	// That a node has an account means, to the others, that it has it for good.
	if err := rememberTenants(n.b.cfg.State, embed.Accounts(n.server)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, peerWait)
	defer cancel()
	poll := time.NewTicker(4 * quorumPoll)
	defer poll.Stop()
	for {
		missing := lacking(n.ask(ctx, question{}), want)
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("broker: no stream of a new tenant before every node knows it: %v; give all nodes the same policy, then reload", missing)
		case <-poll.C:
		}
	}
}

// lacking lists which node lacks which tenant, as "node: tenant".
func lacking(infos []nodeInfo, want []embed.TenantAccount) []string {
	var out []string
	for _, info := range infos {
		for _, t := range want {
			if !hasAccount(info.Tenants, t.Name) {
				out = append(out, info.Node+": "+t.Name)
			}
		}
	}
	return out
}

// handOver waits until every stream keeps its quorum without this node, at most for
// half of the time to drain: a node that stops while another one is still catching up
// would stop the streams of both. It still serves meanwhile.
func (n *nodes) handOver(ctx context.Context) {
	if n == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, n.b.cfg.Drain/2)
	defer cancel()
	poll := time.NewTicker(4 * quorumPoll)
	defer poll.Stop()
	for {
		loses, err := n.losesQuorum(ctx, n.b.cfg.Name)
		if err == nil && len(loses) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			n.b.log.Warn().Strs("streams", loses).AnErr("error", err).Msg("stopping although streams lose their quorum")
			return
		case <-poll.C:
		}
	}
}

func (n *nodes) losesQuorum(ctx context.Context, node string) ([]string, error) {
	var out []string
	// Not those of the policy: a tenant that was dropped keeps its data.
	for _, t := range embed.Accounts(n.server) {
		more, err := store.LosesQuorum(ctx, n.b.store, t.Name, node)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// rememberTenants writes down every account that there is, so that none is missing at
// the next start, whatever the policy here says then.
func rememberTenants(dir string, all []embed.TenantAccount) error {
	data, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return write(filepath.Join(dir, tenantsFile), data, 0o600)
}

// withRemembered adds the accounts that were written down.
func withRemembered(dir string, accounts []embed.TenantAccount) ([]embed.TenantAccount, error) {
	file := filepath.Join(dir, tenantsFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return accounts, nil
	}
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	var known []embed.TenantAccount
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("broker: %s: %w", file, err)
	}
	for _, t := range known {
		if !hasAccount(accounts, t.Name) {
			accounts = append(accounts, t)
		}
	}
	return accounts, nil
}
