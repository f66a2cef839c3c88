package broker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/ratelimit"
)

// How a rate limit holds over all nodes (docs/spec/limits.md): one node owns all buckets, for
// a second at a time by the votes of a majority, and gives the others leases of shares. The
// arithmetic and the rules are ratelimit.Peer and ratelimit.Ledger; here are the messages.

const (
	// Both as nodeSubject: asks for leases, and bids for votes.
	limitSubject = "SIGNET.LIMITS."
	bidSubject   = "SIGNET.LIMITBID."

	limitTick = 200 * time.Millisecond // between two reports of buckets that are asked for
	limitSoon = 50 * time.Millisecond  // before a report that another node waits for
	limitRest = 20 * time.Millisecond  // between two reports in any case
	limitWait = 300 * time.Millisecond // of one ask
	limitVote = 500 * time.Millisecond // of one bid
	// limitTries bounds the questions of one report: other nodes than the first are asked when
	// it does not answer, and one that is about to be the owner again and again.
	limitTries = 12
	limitRank  = 150 * time.Millisecond // between two nodes that try again to become the owner
	limitLog   = 10 * time.Second       // between two lines about messages that were refused
)

// limitSpread is this node's part in that.
type limitSpread struct {
	n     *nodes
	names []string // of all nodes, sorted
	began time.Time
	wake  chan struct{}
	ended sync.WaitGroup
	stats struct{ terms, alone, refused atomic.Uint64 }
	told  atomic.Int64 // unix nanoseconds of the last line about a refused message

	mu   sync.Mutex
	peer *ratelimit.Peer // guarded by mu

	// Of the goroutine alone.
	life   string
	owner  string // who gave the last leases
	number uint64
}

// startLimits spreads the buckets over the nodes. There are none yet.
func startLimits(b startup) error {
	id := make([]byte, 8)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	s := &limitSpread{n: b.nodes, names: b.cfg.nodeNames(), began: time.Now(), wake: make(chan struct{}, 1), life: hex.EncodeToString(id)}
	s.peer = ratelimit.NewPeer(b.cfg.Name, s.life, len(s.names), s.now())
	for subject, answer := range map[string]nats.MsgHandler{limitSubject: s.answerAsks, bidSubject: s.answerBid} {
		if _, err := s.n.nc.Subscribe(subject+b.cfg.Name, answer); err != nil {
			return fmt.Errorf("broker: %w", err)
		}
	}
	b.buckets.Spread(&ratelimit.Spread{Nodes: len(s.names), Clock: s.now, Wake: s.rouse})
	b.nodes.limits = s
	life, stop := context.WithCancel(context.Background())
	s.ended.Go(func() { s.run(life) })
	b.running("limits", func(context.Context) error {
		stop()
		s.ended.Wait()
		return nil
	})
	return nil
}

// now is the monotonic clock that leases and votes are measured by.
func (s *limitSpread) now() int64 { return int64(time.Since(s.began)) }

// rouse makes the goroutine look at once.
func (s *limitSpread) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run reports while buckets are asked for, and bids while this node is the owner or should be. Else
// it waits: idle buckets cost nothing.
func (s *limitSpread) run(life context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-life.Done():
			return
		case <-s.wake:
		case <-next.C:
		}
		if pause := s.round(life); pause > 0 {
			next.Reset(pause)
		}
		if !sleep(life, limitRest) {
			return
		}
	}
}

// sleep waits; false: life is over.
func sleep(life context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-life.Done():
		return false
	case <-t.C:
		return true
	}
}

// round bids and reports, and returns when the next one is due; 0: when it is roused.
func (s *limitSpread) round(life context.Context) (pause time.Duration) {
	s.bid(life)
	asks, again := s.n.b.buckets.Asks()
	for batch := range slices.Chunk(asks, ratelimit.MaxAsks) {
		if s.report(life, batch) {
			pause = limitSoon
		}
	}
	s.mu.Lock()
	busy := s.peer.Busy(s.now())
	s.mu.Unlock()
	if pause == 0 && (busy || again) {
		pause = limitTick
	}
	return pause
}

// report tells the owner what is asked for here, and puts its leases in force. It says whether a
// share became smaller.
func (s *limitSpread) report(life context.Context, batch []ratelimit.Asking) (less bool) {
	silent := map[string]bool{}
	target := s.owner
	for range limitTries {
		if target == "" || silent[target] {
			if target = s.notIn(silent); target == "" {
				break
			}
		}
		sent := s.now()
		reply, err := s.ask(life, target, batch)
		switch {
		case life.Err() != nil:
			return false
		case err != nil || reply.Fault != "":
			silent[target] = true
		case reply.Soon && target == s.n.b.cfg.Name:
			s.bid(life)
		case reply.Soon:
			if !sleep(life, limitRest) {
				return false
			}
		case reply.Owner != "":
			silent[target] = true // it has said all that it knows
			target = reply.Owner
		default:
			s.owner = target
			return s.apply(batch, reply.Leases, sent+int64(ratelimit.LeaseTime))
		}
	}
	s.owner = ""
	s.stats.alone.Add(1)
	return false
}

// notIn returns the first node that is not in the set.
func (s *limitSpread) notIn(silent map[string]bool) string {
	i := slices.IndexFunc(s.names, func(name string) bool { return !silent[name] })
	if i < 0 {
		return ""
	}
	return s.names[i]
}

// apply matches leases with the asks; the owner leaves out those that it has none for.
func (s *limitSpread) apply(batch []ratelimit.Asking, leases []ratelimit.Lease, until int64) (less bool) {
	for i := range batch {
		if len(leases) > 0 && leases[0].Key == batch[i].Key {
			less = batch[i].Apply(leases[0], until) || less
			leases = leases[1:]
		}
	}
	return less
}

// ask puts one question to the owner, which may be this node.
func (s *limitSpread) ask(life context.Context, target string, batch []ratelimit.Asking) (*ratelimit.Leases, error) {
	s.number++
	m := ratelimit.Asks{Node: s.n.b.cfg.Name, Life: s.life, Number: s.number, Asks: make([]ratelimit.Ask, len(batch))}
	for i := range batch {
		m.Asks[i] = batch[i].Ask
	}
	if target == m.Node {
		s.mu.Lock()
		defer s.mu.Unlock()
		reply := s.peer.Answer(&m, s.now())
		return &reply, nil
	}
	data, err := json.Marshal(&m)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(life, limitWait)
	defer cancel()
	msg, err := s.n.nc.RequestWithContext(ctx, limitSubject+target, data)
	if err != nil {
		return nil, err
	}
	reply, err := ratelimit.ParseLeases(msg.Data)
	if err == nil && (reply.Node != target || reply.Owner != "" && !slices.Contains(s.names, reply.Owner)) {
		err = ratelimit.ErrMessage
	}
	return reply, err
}

// answerAsks answers what another node tells the owner.
func (s *limitSpread) answerAsks(msg *nats.Msg) {
	reply := ratelimit.Leases{Node: s.n.b.cfg.Name}
	m, err := ratelimit.ParseAsks(msg.Data)
	if err == nil {
		err = s.known(m.Node)
	}
	if err != nil {
		s.refuse(err)
		reply.Fault = err.Error()
	} else {
		s.mu.Lock()
		reply = s.peer.Answer(m, s.now())
		s.mu.Unlock()
	}
	if reply.Soon {
		s.rouse()
	}
	s.respond(msg, &reply)
}

// answerBid answers another node that wants to be the owner, or to stay it.
func (s *limitSpread) answerBid(msg *nats.Msg) {
	bid, err := ratelimit.ParseBid(msg.Data)
	if err == nil {
		err = s.known(bid.Node)
	}
	if err != nil {
		s.refuse(err)
		return // no vote
	}
	s.mu.Lock()
	vote := s.peer.Vote(bid, s.now())
	s.mu.Unlock()
	if msg.Reply != "" {
		s.respond(msg, &vote)
	}
}

// known says whether a node that calls itself so may have a part in this.
func (s *limitSpread) known(node string) error {
	if node == s.n.b.cfg.Name || !slices.Contains(*s.n.trusted.Load(), node) {
		return fmt.Errorf("%w: %q is no other node of the cluster with a valid key", ratelimit.ErrMessage, node)
	}
	return nil
}

func (s *limitSpread) refuse(err error) {
	s.stats.refused.Add(1)
	if now, last := time.Now().UnixNano(), s.told.Load(); now-last > int64(limitLog) && s.told.CompareAndSwap(last, now) {
		s.n.b.log.Warn().Err(err).Msg("a message about rate limits is refused: run the same release on every node")
	}
}

func (s *limitSpread) respond(msg *nats.Msg, reply any) {
	data, err := json.Marshal(reply)
	if err == nil {
		err = msg.Respond(data)
	}
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		s.n.b.log.Warn().Err(err).Msg("another node's message about rate limits was not answered")
	}
}

// bid asks all nodes for their votes, where this node is the owner or should be. It returns as soon
// as there is a majority.
func (s *limitSpread) bid(life context.Context) {
	sent := s.now()
	round := ratelimit.NewRound(len(s.names), sent)
	s.mu.Lock()
	b, some := s.peer.NextBid(sent)
	ruled := s.peer.Rules(sent)
	if some {
		round.Add(s.peer.Vote(b, sent), sent)
	}
	s.mu.Unlock()
	if !some {
		return
	}
	data, err := json.Marshal(&b)
	if err != nil {
		return // cannot be: two names and a number
	}
	votes := make(chan ratelimit.Vote, len(s.names))
	others := s.n.others()
	for _, name := range others {
		if b.Done {
			_ = s.n.nc.Publish(bidSubject+name, data) // who does not hear of it waits longer
			continue
		}
		s.ended.Go(func() { votes <- s.vote(life, name, data) })
	}
	if b.Done {
		return
	}
	for range others {
		v := <-votes
		s.mu.Lock()
		s.peer.Refused(v)
		s.mu.Unlock()
		if round.Add(v, s.now()); round.Won() {
			break
		}
	}
	s.mu.Lock()
	won := s.peer.Counted(b, round, s.now(), time.Duration(slices.Index(s.names, b.Node))*limitRank)
	s.mu.Unlock()
	if won && !ruled {
		s.stats.terms.Add(1)
		s.n.b.log.Debug().Uint64("term", b.Term).Msg("this node shares out the rate limits")
	}
}

// vote asks one node; no answer is no vote.
func (s *limitSpread) vote(life context.Context, name string, bid []byte) ratelimit.Vote {
	ctx, cancel := context.WithTimeout(life, limitVote)
	defer cancel()
	msg, err := s.n.nc.RequestWithContext(ctx, bidSubject+name, bid)
	if err != nil {
		return ratelimit.Vote{}
	}
	v, err := ratelimit.ParseVote(msg.Data)
	if err != nil {
		return ratelimit.Vote{}
	}
	return v
}
