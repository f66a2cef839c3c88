package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// How an applied policy comes to all nodes: as a keyring does (keyspread.go). Whoever has
// a newer version brings it to the others, and every node asks for one that is newer than
// its own. The stream POLICY keeps the last versions and decides between two that are
// applied at the same time; a node that has lost the others still takes what is brought to
// it. No node believes another: each verifies the signature against its own keyring.

const (
	// policySubject is as nodeSubject. A version of the policy is taken; a number asks for a
	// version that is higher, and is answered with it or with nothing.
	policySubject = "SIGNET.POLICY."
	policyTick    = time.Second     // between two looks
	policyPoll    = 5 * time.Second // between two questions to the other nodes
	policyKeep    = time.Minute     // between two looks at what is kept
	policyStoring = 5 * time.Second // bound of one of them
	// policyDeciding is how long whoever applies waits for the stream to decide between two:
	// a revocation is to be in force within two seconds also where it cannot.
	policyDeciding = 1500 * time.Millisecond
	policyKept     = "policy.version"
	// policyTaking bounds how long a node may be at putting a version in force. Where there
	// is a new tenant it waits for the others; where not, it takes milliseconds.
	policyTaking = peerWait + 10*time.Second
)

// policyTold is what a node answers to a version that it was brought.
type policyTold struct {
	Version uint64 `json:"version"` // in force
	Policy  string `json:"policy"`  // its digest
	Fault   string `json:"fault,omitempty"`
}

// answerPolicy runs in a goroutine of its own, which ends before n is closed.
func answerPolicy(n *nodes, msg *nats.Msg) {
	select {
	case n.slots <- struct{}{}:
		defer func() { <-n.slots }()
	case <-n.life.Done():
		return
	}
	var answer []byte
	if have, err := strconv.ParseUint(string(msg.Data), 10, 64); err == nil {
		if a := n.b.material.Load().applied; a.version() > have {
			answer = a.doc
		}
	} else {
		ctx, cancel := context.WithTimeout(n.life, policyTaking)
		defer cancel()
		told := policyTold{}
		if err := takePolicy(ctx, n.b, msg.Data); err != nil {
			told.Fault = err.Error()
			n.b.log.Warn().Err(err).Msg("the policy that another node brings is refused")
		}
		m := n.b.material.Load()
		told.Version, told.Policy = m.applied.version(), m.policy.Digest()
		if answer, err = json.Marshal(&told); err != nil {
			return
		}
	}
	if err := msg.Respond(answer); err != nil && n.life.Err() == nil {
		n.b.log.Warn().Err(err).Msg("another node's policy was not answered")
	}
}

// spreadPolicy brings a version to the other nodes, all at once, and says why each that
// does not have it in force has not. here puts it in force on this node, self, meanwhile: where
// there is a new tenant, no node can be done before the others have begun.
func spreadPolicy(ctx context.Context, n *nodes, self string, a *appliedPolicy, here func() error) (inForce []string, faults map[string]string) {
	faults = map[string]string{}
	type answer struct{ node, fault string }
	answers := make(chan answer)
	var others []string
	if n != nil {
		others = n.others()
	}
	for _, name := range others {
		go func() {
			var told policyTold
			m, err := n.nc.RequestWithContext(ctx, policySubject+name, a.doc)
			if err == nil {
				err = json.Unmarshal(m.Data, &told)
			}
			switch {
			case err != nil:
				told.Fault = err.Error()
			case told.Fault == "" && told.Version != a.Version:
				told.Fault = fmt.Sprintf("it has version %d", told.Version)
			}
			answers <- answer{name, told.Fault}
		}()
	}
	got := answer{node: self}
	if err := here(); err != nil {
		got.fault = err.Error()
	}
	for i := 0; ; i++ {
		if got.fault == "" {
			inForce = append(inForce, got.node)
		} else {
			faults[got.node] = got.fault
		}
		if i == len(others) {
			return inForce, faults
		}
		got = <-answers
	}
}

// fetchPolicy takes the newest version that another node has, if it is newer.
func fetchPolicy(ctx context.Context, b *Broker, reload func(*Broker, context.Context) error) {
	if b.nodes == nil {
		return
	}
	have := b.material.Load().applied.version()
	ask, cancel := context.WithTimeout(ctx, peerTimeout)
	defer cancel()
	others := b.nodes.others()
	answers := make(chan []byte)
	for _, name := range others {
		go func() {
			m, err := b.nodes.nc.RequestWithContext(ask, policySubject+name, strconv.AppendUint(nil, have, 10))
			if err != nil {
				answers <- nil
				return
			}
			answers <- m.Data
		}()
	}
	var newest *appliedPolicy
	for range others {
		doc := <-answers
		if len(doc) == 0 {
			continue
		}
		a, err := openPolicy(&b.cfg, doc, b.material.Load().ring)
		if err != nil {
			b.log.Warn().Err(err).Msg("the policy of another node is refused")
		} else if a.Version > newest.version() {
			newest = a
		}
	}
	if newest.version() > have {
		b.follow(ctx, b, newest, "another node", reload)
	}
}

// errPolicyTaken: somebody applied another policy at the same time.
var errPolicyTaken = errors.New("broker: another policy was applied")

// keptPolicy is the last version that the stream has.
type keptPolicy struct {
	*appliedPolicy        // nil: none that verifies
	at             uint64 // its sequence, 0 for none at all
}

func policyStream(ctx context.Context, b *Broker) (jetstream.JetStream, jetstream.Stream, error) {
	conn, err := b.store.Conn(wire.BrokerAccount)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, nil, err
	}
	s, err := js.Stream(ctx, store.StreamPolicy)
	return js, s, err
}

func lastPolicy(ctx context.Context, b *Broker) (js jetstream.JetStream, kept keptPolicy, err error) {
	js, s, err := policyStream(ctx, b)
	if err != nil {
		return nil, kept, err
	}
	m, err := s.GetLastMsgForSubject(ctx, policyKept)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return js, kept, nil
	}
	if err != nil {
		return nil, kept, err
	}
	kept.at = m.Sequence
	if kept.appliedPolicy, err = openPolicy(&b.cfg, m.Data, b.material.Load().ring); err != nil {
		b.log.Error().Err(err).Msg("the last policy in the stream POLICY does not verify, and is passed over")
		kept.appliedPolicy = nil
	}
	return js, kept, nil
}

// keepPolicy puts a version into the stream behind the last one, by compare and swap: of
// two that are applied at two nodes one wins. What is there already is no fault.
//
// Errors: errPolicyTaken; anything else says that the store does not answer now.
func keepPolicy(ctx context.Context, b *Broker, a *appliedPolicy) error {
	if b.nodes != nil {
		if err := b.server.Cluster().Quorum(); err != nil {
			return err // at once: a revocation does not wait for what cannot come
		}
	}
	ctx, cancel := context.WithTimeout(ctx, policyStoring)
	defer cancel()
	js, kept, err := lastPolicy(ctx, b)
	if err != nil {
		return err
	}
	if kept.version() >= a.Version {
		if bytes.Equal(kept.document(), a.doc) {
			return nil
		}
		return fmt.Errorf("%w: version %d is there already", errPolicyTaken, kept.version())
	}
	_, err = js.Publish(ctx, policyKept, a.doc, jetstream.WithExpectLastSequencePerSubject(kept.at), jetstream.WithExpectStream(store.StreamPolicy))
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return fmt.Errorf("%w at the same time", errPolicyTaken)
	}
	return err
}

// syncPolicy takes the version of the stream if it is newer than the one in force, and
// offers the one in force if that is newer.
func syncPolicy(ctx context.Context, b *Broker, reload func(*Broker, context.Context) error) {
	call, cancel := context.WithTimeout(ctx, policyStoring)
	defer cancel()
	_, kept, err := lastPolicy(call, b)
	if err != nil {
		return // no leader now; the other nodes tell of newer ones, too
	}
	a := b.material.Load().applied
	switch {
	case kept.version() > a.version():
		b.follow(ctx, b, kept.appliedPolicy, "the stream POLICY", reload)
	case kept.version() < a.version():
		if err := keepPolicy(ctx, b, a); err != nil && !errors.Is(err, errPolicyTaken) && ctx.Err() == nil {
			b.log.Warn().Err(err).Msg("the policy in force is not kept in the stream POLICY")
		}
	}
}

// policyHistory returns the versions that the stream keeps, oldest first. What does not
// verify by the keyring in force is left out.
func policyHistory(ctx context.Context, b *Broker) ([]*appliedPolicy, error) {
	ctx, cancel := context.WithTimeout(ctx, policyStoring)
	defer cancel()
	_, s, err := policyStream(ctx, b)
	if err != nil {
		return nil, err
	}
	info, err := s.Info(ctx)
	if err != nil {
		return nil, err
	}
	var list []*appliedPolicy
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && info.State.Msgs > 0; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		v, err := signing.PeekPolicy(m.Data) // it was verified when it came
		if err == nil {
			list = append(list, &appliedPolicy{PolicyVersion: *v, doc: m.Data})
		}
	}
	return list, nil
}

// startPolicy takes over what the cluster has applied while this node was down, before
// anybody can connect, and follows from then on: versions that are applied, and grants
// whose time ends.
func startPolicy(ctx context.Context, b startup) error {
	fetchPolicy(ctx, b.Broker, reloadStarting)
	if b.own.done() {
		syncPolicy(ctx, b.Broker, reloadStarting)
	}
	lapse(ctx, b.Broker, time.Now()) // the start may have waited for other nodes for hours
	warnModes(b.Broker, b.Policy())
	warnUngiven(b.Broker, b.material.Load())
	if a := b.material.Load().applied; a.holds() {
		b.log.Info().Uint64("version", a.Version).Str("by", a.By).Msg("the policy is the applied one: the policy files are not read (signet policy release gives it back to them)")
	}
	life, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTimer(0)
		defer t.Stop()
		var asked, kept time.Time
		for {
			select {
			case <-life.Done():
				return
			case now := <-t.C:
				if phase(b.phase.Load()) == phaseReady { // until then the start itself is at work
					lapse(life, b.Broker, now)
				}
				if now.Sub(asked) >= policyPoll && phase(b.phase.Load()) == phaseReady {
					asked = now
					fetchPolicy(life, b.Broker, (*Broker).Reload)
				}
				if now.Sub(kept) >= policyKeep && b.own.done() && phase(b.phase.Load()) == phaseReady {
					kept = now
					syncPolicy(life, b.Broker, (*Broker).Reload)
					warnApplied(b.Broker)
				}
				t.Reset(nextLook(b.Policy().NextLapse(), time.Now()))
			}
		}
	}()
	b.running("policy", func(context.Context) error {
		stop()
		<-done
		return nil
	})
	return nil
}

// nextLook is a tick, or less where something lapses sooner. Ticks are short enough for a
// clock that is set.
func nextLook(lapses, now time.Time) time.Duration {
	if left := lapses.Sub(now); !lapses.IsZero() && left > 0 {
		return min(policyTick, left)
	}
	return policyTick
}
