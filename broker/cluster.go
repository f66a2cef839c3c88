package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/admin"
	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

const (
	quorumPoll  = 50 * time.Millisecond
	quorumTell  = 5 * time.Second // between two log lines while there is no quorum
	peerTimeout = 2 * time.Second // of one question to another node
	// answerTime is how long the look at the streams and the questions to third nodes may
	// take together, so that whoever asked still hears the answer.
	answerTime = 3 * peerTimeout / 4
	// maxAnswers is how many questions are answered at the same time; more are dropped,
	// and asked again.
	maxAnswers = 16
	// nodeSubject, with the name of a node after it, is what that node answers in the
	// system account, which no client can enter.
	nodeSubject = "SIGNET.NODE."
)

// nodeInfo is what nodes tell each other.
type nodeInfo struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Phase   string    `json:"phase"`
	Started time.Time `json:"started"`
	Policy  string    `json:"policy"`  // digest
	Keyring uint64    `json:"keyring"` // version
	Ring    string    `json:"ring"`    // digest of the keyring
	// Keys are the public keys of the seeds that the node has; it attests with one of them.
	Keys    []string              `json:"keys"`
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
	// Document answers question.Ring.
	Document []byte `json:"document,omitempty"`
	// Now is the node's clock when it answered; ahead is what that says to who asked.
	Now time.Time `json:"now,omitzero"`
	// Durability is its storage.durability; empty from a release that does not tell.
	Durability Durability `json:"durability,omitempty"`
	ahead      time.Duration
}

// question is what one node asks another, beside who it is.
type question struct {
	Without string `json:"without,omitempty"` // node: could it be done without?
	Fill    string `json:"fill,omitempty"`    // node: may it start its store, which has to be filled?
	Ring    uint64 `json:"ring,omitempty"`    // version of the keyring of who asks, which wants a newer one
	// Node asks, and Durability is its storage.durability: before it serves it has said so.
	Node       string     `json:"node,omitempty"`
	Durability Durability `json:"durability,omitempty"`
}

// nodes is this node among the others: it answers what they ask, and asks them. nil
// on a broker by itself.
type nodes struct {
	b       *Broker
	nc      *nats.Conn
	server  *embed.Server
	serving atomic.Pointer[admin.Service]            // answers the others' requests; nil until it is up
	trusted atomic.Pointer[[]string]                 // nodes, when the routes were judged last; written under inForce.swap
	clocks  atomic.Pointer[map[string]time.Duration] // by node: how far its clock is ahead of this one's
	// heard are the accounts that a node which waits starts its store with; nil: those of
	// the server. They are written down before they are told.
	heard   atomic.Pointer[[]embed.TenantAccount]
	storage durabilities
	limits  *limitSpread
	slots   chan struct{} // full: maxAnswers questions are being answered
	life    context.Context
	endLife context.CancelFunc
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
	n := &nodes{b: b, nc: nc, server: server, slots: make(chan struct{}, maxAnswers)}
	n.life, n.endLife = context.WithCancel(context.Background())
	for subject, answer := range map[string]nats.MsgHandler{
		nodeSubject: n.answer, viewSubject: n.answerView, forwardSubject: n.answerForward, ringSubject: func(m *nats.Msg) { answerRing(n, m) },
		policySubject: func(m *nats.Msg) { go answerPolicy(n, m) },
		wordSubject:   func(m *nats.Msg) { answerWord(n, m) },
		renewSubject:  func(m *nats.Msg) { answerRenewal(n, m) },
	} {
		if _, err := nc.Subscribe(subject+b.cfg.Name, answer); err != nil {
			n.close()
			return nil, fmt.Errorf("broker: %w", err)
		}
	}
	return n, nil
}

// close leaves the others, and waits for the answers that are being made. It keeps the
// slots: an answer that a subscription begins late is dropped.
func (n *nodes) close() {
	n.endLife()
	n.nc.Close()
	for range maxAnswers {
		n.slots <- struct{}{}
	}
}

func (n *nodes) info() nodeInfo {
	mat := n.b.material.Load()
	tenants := embed.Accounts(n.server)
	if heard := n.heard.Load(); heard != nil {
		tenants = *heard
	}
	return nodeInfo{
		Node: n.b.cfg.Name, Version: n.b.version, Phase: phaseOf(n.b, n.server), Started: n.b.started,
		Policy: mat.policy.Digest(), Keyring: mat.ring.Version(), Ring: ringDigest(mat.ringDoc), Keys: keysOf(mat.signers), Listen: n.b.cfg.Advertise, Tenants: tenants,
		Store: n.b.held.get(), Current: n.server.Cluster().Quorum() == nil, Durability: n.b.Durability(),
	}
}

// answer answers a question, each in a goroutine of its own: one that is about a node which
// hangs must not keep the others waiting.
func (n *nodes) answer(m *nats.Msg) {
	var q question
	if err := json.Unmarshal(m.Data, &q); err != nil {
		return // not of a node of this release
	}
	select {
	case n.slots <- struct{}{}:
		go func() {
			defer func() { <-n.slots }()
			n.answerTo(m, q)
		}()
	default:
		n.b.log.Warn().Int("questions", maxAnswers).Msg("another node's question was dropped: too many are being answered")
	}
}

func (n *nodes) answerTo(m *nats.Msg, q question) {
	ctx, cancel := context.WithTimeout(n.life, answerTime)
	defer cancel()
	n.storage.heard(q.Node, q.Durability)
	info := n.info()
	if q.Without != "" && phase(n.b.phase.Load()) == phaseReady {
		ctx, cancel := context.WithTimeout(ctx, peerTimeout/2)
		loses, err := n.losesQuorum(ctx, q.Without)
		cancel()
		info.Keeps = err == nil && len(loses) == 0
	}
	if m := n.b.material.Load(); q.Ring != 0 && m.ring.Version() > q.Ring {
		info.Document = m.ringDoc
	}
	if q.Fill != "" {
		info.LetsIn = n.letsIn(ctx, q.Fill)
	}
	info.Now = time.Now() // the look at the streams took a while
	data, err := json.Marshal(&info)
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil && n.life.Err() == nil {
		n.b.log.Warn().Err(err).Msg("another node's question was not answered")
	}
}

// ask asks all other nodes at once. Nodes that do not answer are left out.
func (n *nodes) ask(ctx context.Context, q question) []nodeInfo {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	q.Node, q.Durability = n.b.cfg.Name, n.b.Durability()
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
			n.storage.heard(info.Node, info.Durability)
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

// compare warns of what should be the same on every node.
func (n *nodes) compare(other *nodeInfo) {
	m := n.b.material.Load()
	if other.Policy != m.policy.Digest() || !hasRing(other, m) {
		n.b.log.Warn().Str("node", other.Node).Str("its policy", other.Policy).Str("policy", m.policy.Digest()).
			Uint64("its keyring", other.Keyring).Uint64("keyring", m.ring.Version()).Msg("another node has another policy or keyring")
	}
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
