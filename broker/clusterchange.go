package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/admin"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

const (
	// minNodes is the size below which nothing makes a cluster: three copies need three
	// nodes.
	minNodes    = 3
	changeWait  = 10 * time.Second // for nats-server to answer a change
	rescueWait  = 30 * time.Second // for a leader after the quorum was lowered
	changeRetry = 250 * time.Millisecond
	// forwardSubject is as nodeSubject, for requests of the admin API.
	forwardSubject = "SIGNET.ADMIN."
	// maxMoves bounds one rebalance; another call goes on.
	maxMoves = 100
)

// clusterAdmin is what the admin API asks of a cluster.
type clusterAdmin struct{ *nodes }

var _ admin.Nodes = clusterAdmin{}

// adminNodes is the cluster for the admin API; nil without one.
func (b *Broker) adminNodes() admin.Nodes {
	if b.nodes == nil {
		return nil
	}
	return clusterAdmin{b.nodes}
}

// serve lets s answer what the other nodes forward.
func (n *nodes) serve(s *admin.Service) {
	if n != nil {
		n.serving.Store(s)
	}
}

// Self implements admin.Nodes.
func (c clusterAdmin) Self() string { return c.b.cfg.Name }

// Others implements admin.Nodes.
func (c clusterAdmin) Others() []string { return c.others() }

// Leader implements admin.Nodes.
func (c clusterAdmin) Leader() string { return c.b.server.Cluster().Leader }

// Forward implements admin.Nodes.
func (c clusterAdmin) Forward(ctx context.Context, node string, request []byte) ([]byte, error) {
	m, err := c.nc.RequestWithContext(ctx, forwardSubject+node, request)
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

func (n *nodes) answerForward(m *nats.Msg) {
	s := n.serving.Load()
	if s == nil { // it is starting: the others take it for silent
		return
	}
	s.Forwarded(m.Data, func(answer []byte) {
		if err := m.Respond(answer); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			n.b.log.Warn().Err(err).Msg("another node's request was not answered")
		}
	})
}

// Status implements admin.Nodes.
func (c clusterAdmin) Status(ctx context.Context, tenant string) adminapi.ClusterStatus {
	return c.gather(ctx).status(tenant)
}

func conflict(format string, args ...any) error {
	return wire.Refuse(wire.CodeConflict, "cluster", fmt.Sprintf(format, args...))
}

func noQuorum() error {
	return wire.Refuse(wire.CodeUnavailable, "cluster", "the cluster has no quorum, so it can change nothing: start the nodes that do not answer, see signet cluster status")
}

// Evacuate implements admin.Nodes.
func (c clusterAdmin) Evacuate(ctx context.Context, node string) error {
	if err := c.gather(ctx).mayEvacuate(node); err != nil {
		return err
	}
	return c.change(ctx, "$JS.API.SERVER.EVACUATE", node)
}

func (c *clusterView) mayEvacuate(node string) error {
	if c.state.Leader == "" {
		return noQuorum()
	}
	if _, ok := c.member(node); !ok {
		return wire.Refuse(wire.CodeNotFound, "cluster", fmt.Sprintf("%q is no member; the members are %v", node, c.members()))
	}
	rest := c.online(node)
	if len(rest) < minNodes {
		return conflict("without %s there are %d nodes that are in touch: three copies need %d", node, len(rest), minNodes)
	}
	for i := range c.groups {
		g := &c.groups[i]
		if g.wanted > len(rest) {
			return conflict("a stream has %d copies, and without %s there are %d nodes", g.wanted, node, len(rest))
		}
		// A group that already moves away from this very node is what the call is for.
		if !g.has(node) && !g.whole() {
			return conflict("%s: wait until it is whole, see signet cluster status", g.name())
		}
	}
	return nil
}

// name tells administrators of every tenant no other tenant's names.
func (s *streamGroup) name() string { return "a stream lacks a copy, or is being moved" }

// online are the members in touch and current, but node.
func (c *clusterView) online(node string) []string {
	return slices.DeleteFunc(c.members(), func(name string) bool {
		p, _ := c.member(name)
		return name == node || !p.Online || !p.Current || c.views[name] == nil
	})
}

// Remove implements admin.Nodes.
func (c clusterAdmin) Remove(ctx context.Context, node string) error {
	if err := c.gather(ctx).mayRemove(node); err != nil {
		return err
	}
	return c.change(ctx, "$JS.API.SERVER.REMOVE", node)
}

func (c *clusterView) mayRemove(node string) error {
	if c.state.Leader == "" {
		return noQuorum()
	}
	if _, ok := c.member(node); !ok {
		return wire.Refuse(wire.CodeNotFound, "cluster", fmt.Sprintf("%q is no member; the members are %v", node, c.members()))
	}
	if c.views[node] != nil {
		return conflict("%s still runs: stop it first", node)
	}
	if c.state.Size-1 < minNodes {
		return conflict("the cluster has %d members and cannot do with fewer than %d; a node that is lost is replaced: signet cluster replace %s", c.state.Size, minNodes, node)
	}
	if n := len(c.online(node)); n <= c.state.Size/2 {
		return conflict("of %d members only %d are in touch: that is no majority to lose another one from", c.state.Size, n)
	}
	if streams, consumers, _ := c.copies(node); streams+consumers > 0 {
		return conflict("%s still has %d streams and %d consumers: evacuate it first", node, streams, consumers)
	}
	return nil
}

// change asks nats-server for one change of the cluster and waits for the answer. It
// asks again while the leader moves or another change is on its way.
func (n *nodes) change(ctx context.Context, subject, node string) error {
	ctx, cancel := context.WithTimeout(ctx, changeWait)
	defer cancel()
	body, err := json.Marshal(map[string]string{"peer": node, "peer_id": embed.PeerID(node)})
	if err != nil {
		return err
	}
	for {
		err := n.ask1(ctx, n.nc, subject, body)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return wire.Refuse(wire.CodeUnavailable, "cluster", fmt.Sprintf("%s: %v; see signet cluster status, and ask again", subject, err))
		case <-time.After(changeRetry):
		}
	}
}

// ask1 makes one JetStream API request that answers success or an error.
func (n *nodes) ask1(ctx context.Context, nc *nats.Conn, subject string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	m, err := nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return err
	}
	var answer struct {
		Success bool      `json:"success"`
		Error   *apiError `json:"error"`
	}
	switch err := json.Unmarshal(m.Data, &answer); {
	case err != nil:
		return err
	case answer.Error != nil:
		return answer.Error
	case !answer.Success:
		return errors.New("no success")
	}
	return nil
}

type apiError struct {
	Code        int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return e.Description }

// Rescue implements admin.Nodes.
func (c clusterAdmin) Rescue(ctx context.Context, lost []string) (*adminapi.ClusterRescue, error) {
	view := c.gather(ctx)
	if err := view.mayRescue(lost); err != nil {
		return nil, err
	}
	out := &adminapi.ClusterRescue{Quorum: len(view.members()) - len(view.silent()) - len(view.waiting()), Removed: []string{}}
	c.b.held.rescuing.Store(true)
	defer c.b.held.rescuing.Store(false)
	if err := c.lower(ctx, out.Quorum); err != nil {
		return nil, err
	}
	if err := c.awaitLeader(ctx); err != nil {
		return nil, err
	}
	if c.b.held.get() == holdsFormed { // it waits for nodes that are lost
		if err := c.b.held.become(c.b.cfg.State, holdsAll); err != nil {
			return nil, err
		}
	}
	for _, node := range lost {
		// Once it is out of the log, streams that have lost their majority go on without it.
		if err := c.change(ctx, "$JS.API.SERVER.REMOVE", node); err != nil {
			return nil, err
		}
		out.Removed = append(out.Removed, node)
	}
	out.Leader = c.Leader()
	return out, nil
}

func (c *clusterView) mayRescue(lost []string) error {
	for _, v := range c.views {
		// A rescue that was cut short leaves a leader, and is gone on with.
		if v.Cluster.Leader != "" && !v.Cluster.Rescue {
			return conflict("%s knows a leader, %s: there is a quorum, or there is about to be one", v.Node, v.Cluster.Leader)
		}
	}
	for _, node := range lost {
		if !slices.Contains(c.names, node) {
			return wire.Refuse(wire.CodeNotFound, "cluster", fmt.Sprintf("no node is called %q; there are %v", node, c.names))
		}
		if c.views[node] != nil && !slices.Contains(c.waiting(), node) {
			return conflict("%s is not lost: it answers", node)
		}
	}
	for _, node := range c.silent() {
		if !slices.Contains(lost, node) {
			return conflict("%s does not answer either: start it, or name it as lost too", node)
		}
	}
	if own := c.views[c.self]; len(c.views) == 1 && own.Phase != phaseNames[phaseReady] {
		// Its log does not begin to run before the first route is there.
		return conflict("%s was started alone and decides nothing before it is in touch with another node: start one of the lost nodes under its name with an empty volume, which waits beside it, and name the others as lost", c.self)
	}
	if c.views[c.self].Store == holdsForming {
		return conflict("the first start of this cluster has not ended, so nothing was ever acknowledged: empty the state folders of all nodes and start them again")
	}
	waits := slices.DeleteFunc(c.waiting(), func(name string) bool { return slices.Contains(lost, name) })
	if most := mayLack(len(c.names)); len(waits) > most {
		// Streams of which most copies are gone get no leader from one node at a time.
		return conflict("%v wait without a store: name all but %d of them as lost too; they are taken in again afterwards", waits, most)
	}
	if len(lost) == 0 {
		return conflict("no node is lost: wait for a leader")
	}
	return nil
}

// lower lets all nodes that are left decide by quorum of them. Those that are not
// part of it refuse for themselves; one that takes it is enough.
func (n *nodes) lower(ctx context.Context, quorum int) error {
	ctx, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	body, err := json.Marshal(map[string]int{"quorum_needed": quorum})
	if err != nil {
		return err
	}
	inbox := nats.NewInbox()
	sub, err := n.nc.SubscribeSync(inbox)
	if err == nil {
		defer func() { _ = sub.Unsubscribe() }() // fails only without a connection
		err = n.nc.PublishRequest("$JS.API.META.RESCUE", inbox, body)
	}
	if err != nil {
		return err
	}
	took := 0
	var refused error
	for range quorum {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			break
		}
		var answer struct {
			Server string    `json:"server"`
			Error  *apiError `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &answer); err != nil {
			return err
		}
		if answer.Error != nil {
			refused = errors.Join(refused, fmt.Errorf("%s: %w", answer.Server, answer.Error))
			continue
		}
		took++
	}
	if took == 0 {
		return conflict("no node lowered its quorum: %v", refused)
	}
	return nil
}

func (n *nodes) awaitLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, rescueWait)
	defer cancel()
	poll := time.NewTicker(quorumPoll)
	defer poll.Stop()
	for n.server.Cluster().Quorum() != nil {
		select {
		case <-ctx.Done():
			return wire.Refuse(wire.CodeUnavailable, "cluster", "the quorum is lowered for five minutes, and no node leads yet: ask again")
		case <-poll.C:
		}
	}
	return nil
}

// StepDown implements admin.Nodes.
func (c clusterAdmin) StepDown(ctx context.Context, to string) error {
	view := c.gather(ctx)
	if view.state.Leader == "" {
		return noQuorum()
	}
	var body []byte
	if to != "" {
		if p, ok := view.member(to); !ok || !p.Online || !p.Current {
			return conflict("%s cannot lead: it is no member, or has not caught up", to)
		}
		if to == view.state.Leader {
			return nil
		}
		body = preferred(to)
	}
	if err := c.ask1(ctx, c.nc, "$JS.API.META.LEADER.STEPDOWN", body); err != nil {
		return wire.Refuse(wire.CodeUnavailable, "cluster", err.Error())
	}
	return nil
}

func preferred(node string) []byte {
	// A name of a node needs no escape.
	return fmt.Appendf(nil, `{"placement":{"preferred":%q}}`, node)
}

// Rebalance implements admin.Nodes.
func (c clusterAdmin) Rebalance(ctx context.Context, tenant string) (*adminapi.ClusterRebalance, error) {
	view := c.gather(ctx)
	if view.state.Leader == "" {
		return nil, noQuorum()
	}
	for i := range view.groups {
		if !view.groups[i].whole() {
			return nil, conflict("%s: leaders move only while every stream is whole, see signet cluster status", view.groups[i].name())
		}
	}
	moves, leads := view.balance()
	out := &adminapi.ClusterRebalance{Moves: []adminapi.ClusterMove{}, Leads: leads}
	for _, m := range moves[:min(len(moves), maxMoves)] {
		nc, err := c.b.store.Conn(m.account)
		if err == nil {
			err = c.ask1(ctx, nc, "$JS.API.STREAM.LEADER.STEPDOWN."+m.Stream, preferred(m.To))
		}
		switch {
		case err != nil:
			leads[m.From]++
			leads[m.To]--
			if m.account == tenant {
				out.Failed = append(out.Failed, fmt.Sprintf("%s: %v", m.Stream, err))
			}
		case m.account == tenant:
			out.Moves = append(out.Moves, m.ClusterMove)
		default:
			out.Others++
		}
	}
	return out, nil
}

type leaderMove struct {
	account string
	adminapi.ClusterMove
}

// balance plans the fewest moves after which no node leads two streams more than
// another that could lead them.
func (c *clusterView) balance() ([]leaderMove, map[string]int) {
	leads := map[string]int{}
	for _, name := range c.online("") {
		_, _, leads[name] = c.copies(name)
	}
	at := make([]string, len(c.groups))
	for i := range c.groups {
		at[i] = c.groups[i].leader
	}
	var moves []leaderMove
	for moved := true; moved; {
		moved = false
		for i := range c.groups {
			best := at[i]
			for _, node := range c.groups[i].live() {
				if _, ok := leads[node]; ok && leads[node] < leads[best] {
					best = node
				}
			}
			if leads[at[i]]-leads[best] < 2 {
				continue
			}
			moves = append(moves, leaderMove{c.groups[i].account, adminapi.ClusterMove{Stream: c.groups[i].stream, From: at[i], To: best}})
			leads[at[i]]--
			leads[best]++
			at[i], moved = best, true
		}
	}
	return moves, leads
}
