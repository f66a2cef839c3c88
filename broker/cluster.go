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
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
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
)

// errNewTenant: a tenant of the cluster was not known here before.
var errNewTenant = errors.New("broker: the cluster has a tenant that this node did not know")

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
}

// nodes is this node among the others: it answers what they ask, and asks them. nil
// on a broker by itself.
type nodes struct {
	b       *Broker
	nc      *nats.Conn
	serving atomic.Pointer[admin.Service] // answers the others' requests; nil until it is up
}

// clusterOptions returns what makes the embedded server a node; nil without a cluster.
func (b *Broker) clusterOptions() (*embed.ClusterConfig, error) {
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
	tls, err := cert.RouteConfig(c.TLS.CA, c.Name, b.cfg.Name)
	if err != nil {
		return nil, err
	}
	return &embed.ClusterConfig{
		Name: c.Name, Listen: c.Listen, Nodes: c.Nodes, TLS: tls, Admit: b.admitNode,
		Token: func() string { return signing.NodeToken(b.material.Load().signer, c.Name, b.cfg.Name) },
	}, nil
}

// admitNode judges a node that wants a route to this one.
func (b *Broker) admitNode(node, token string, cert *x509.Certificate) error {
	c := b.cfg.Cluster
	name, err := ca.NodeOf(cert, c.Name)
	switch {
	case err != nil:
		return err
	case name != node:
		return fmt.Errorf("broker: it says that it is node %q with the certificate of %q", node, name)
	case c.Nodes[node] == "":
		return fmt.Errorf("broker: %q is not one of cluster.nodes", node)
	}
	return signing.VerifyNodeToken(token, c.Name, node, b.material.Load().ring, time.Now())
}

// systemDoor lets connections into the system account, and into no other.
type systemDoor struct{ *embed.Server }

func (systemDoor) HasAccount(account string) bool { return account == wire.SystemAccount }

// joinNodes opens this node's connection to the others.
func (b *Broker) joinNodes() error {
	if b.cfg.Cluster == nil {
		return nil
	}
	nc, err := store.Internal(systemDoor{b.server})(wire.SystemAccount)
	if err != nil {
		return err
	}
	n := &nodes{b: b, nc: nc}
	for subject, answer := range map[string]nats.MsgHandler{
		nodeSubject: n.answer, viewSubject: n.answerView, forwardSubject: n.answerForward,
	} {
		if _, err := nc.Subscribe(subject+b.cfg.Name, answer); err != nil {
			nc.Close()
			return fmt.Errorf("broker: %w", err)
		}
	}
	b.nodes = n
	b.running("nodes", func(context.Context) error { nc.Close(); return nil })
	return nil
}

func (n *nodes) info() nodeInfo {
	mat := n.b.material.Load()
	return nodeInfo{
		Node: n.b.cfg.Name, Version: n.b.version, Phase: phaseNames[n.b.phase.Load()], Started: n.b.started,
		Policy: mat.policy.Digest(), Keyring: mat.ring.Version(), Listen: n.b.cfg.Advertise, Tenants: n.b.server.Accounts(),
	}
}

func (n *nodes) answer(m *nats.Msg) {
	data, err := json.Marshal(n.info())
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		n.b.log.Warn().Err(err).Msg("another node's question was not answered")
	}
}

// ask asks all other nodes at once. Nodes that do not answer are left out.
func (n *nodes) ask(ctx context.Context) []nodeInfo {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	answers := make(chan *nodeInfo)
	asked := 0
	for name := range n.b.cfg.Cluster.Nodes {
		if name == n.b.cfg.Name {
			continue
		}
		asked++
		go func() {
			var info nodeInfo
			m, err := n.nc.RequestWithContext(ctx, nodeSubject+name, nil)
			if err != nil || json.Unmarshal(m.Data, &info) != nil || info.Node != name {
				answers <- nil
				return
			}
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
			return b.nodes.learn(ctx)
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

// learn compares the tenants of the other nodes with those of this one. The replica
// of a stream whose account was missing when the server started stays dead until the
// server starts with that account (measured on nats-server 2.15), so what is new is
// written down and the start ends: the next one knows it.
func (n *nodes) learn(ctx context.Context) error {
	all := n.b.server.Accounts()
	var fresh []string
	for _, info := range n.ask(ctx) {
		for _, t := range info.Tenants {
			if !hasAccount(all, t.Name) {
				all = append(all, t)
				fresh = append(fresh, t.Name)
			}
		}
		n.compare(&info)
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := n.b.rememberTenants(all); err != nil {
		return err
	}
	return fmt.Errorf("%w: %v; it is written down, start again, and give this node the policy of the others", errNewTenant, fresh)
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
	ctx, cancel := context.WithTimeout(ctx, peerWait)
	defer cancel()
	poll := time.NewTicker(4 * quorumPoll)
	defer poll.Stop()
	for {
		missing := lacking(n.ask(ctx), want)
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

// rememberTenants writes down every account that there is, so that none is missing at
// the next start, whatever the policy here says then.
func (b *Broker) rememberTenants(all []embed.TenantAccount) error {
	data, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return write(filepath.Join(b.cfg.State, tenantsFile), data, 0o600)
}

// withRemembered adds the accounts that were written down.
func (b *Broker) withRemembered(accounts []embed.TenantAccount) ([]embed.TenantAccount, error) {
	file := filepath.Join(b.cfg.State, tenantsFile)
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
