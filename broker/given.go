package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
)

// Names that a policy uses and that a node gives to nobody who could vouch for them. In
// policy files they are a fault: the node does not start. An applied policy is of all
// nodes, and the configurations of the nodes may differ, so three rules hold:
//
//   - A version that brings such a name, at any node that answers, is not applied.
//   - A name that the version in force has already does not stand in the way of the next
//     one: it may revoke somebody.
//   - A version that is in force elsewhere is taken, also at a start, whatever a node gives:
//     one that stayed with the version before would let in who was revoked since. At the door
//     such names are worth nothing; the log, status and doctor say so.

// wordSubject is as nodeSubject: a node tells which names it gives to whom.
const wordSubject = "SIGNET.GIVEN."

// wordWait bounds the question. A revocation waits for it, and it is answered from memory.
const wordWait = 500 * time.Millisecond

const maxUngiven = 20 // names that one message lists

const ungivenFix = "give them under authentication in its signet.yaml and restart it, or take them out: signet policy show --out DIR, then signet policy apply DIR/policy.yaml --key SEED"

// answerWord tells another node what this one gives. It blocks for nothing.
func answerWord(n *nodes, m *nats.Msg) {
	word, err := json.Marshal(n.b.material.Load().trust.given.Word())
	if err == nil {
		err = m.Respond(word)
	}
	if err != nil && n.life.Err() == nil {
		n.b.log.Warn().Err(err).Msg("another node was not told which names this one gives")
	}
}

// otherWords asks the other nodes; those that do not answer are in silent.
func otherWords(ctx context.Context, n *nodes) (words map[string]*identity.Word, silent []string) {
	words = map[string]*identity.Word{}
	if n == nil {
		return words, nil
	}
	ctx, cancel := context.WithTimeout(ctx, wordWait)
	defer cancel()
	others := n.others()
	answers := make([]chan *identity.Word, len(others))
	for i, name := range others {
		answers[i] = make(chan *identity.Word, 1)
		go func() {
			var word *identity.Word
			if m, err := n.nc.RequestWithContext(ctx, wordSubject+name, nil); err != nil || json.Unmarshal(m.Data, &word) != nil {
				word = nil
			}
			answers[i] <- word
		}()
	}
	for i, name := range others {
		if word := <-answers[i]; word != nil {
			words[name] = word
		} else {
			silent = append(silent, name)
		}
	}
	return words, silent
}

// bringsNames reports whether next has names that somebody must vouch for and that now does
// not have: whom nobody is given at all, it would be a fault for each name.
func bringsNames(next, now *policy.Set) bool {
	nobody := identity.Word{}
	known := map[string]bool{}
	if now != nil {
		for _, f := range policy.Faults(nobody.Check(now)) {
			known[f.Msg] = true
		}
	}
	return slices.ContainsFunc(policy.Faults(nobody.Check(next)), func(f *policy.Fault) bool { return !known[f.Msg] })
}

// ungivenAnywhere returns the names in next that a node does not give: those that now, the
// policy in force, does not have among its own such names, and the others. now may be nil.
// What another node tells can keep names from being added, and nothing else.
func ungivenAnywhere(ctx context.Context, b *Broker, next, now *policy.Set) (fresh, standing []adminapi.PolicyFault, silent []string) {
	sort := func(node string, check func(*policy.Set) error) {
		known := map[string]bool{}
		if now != nil {
			for _, f := range policy.Faults(check(now)) {
				known[f.Msg] = true
			}
		}
		for _, f := range policy.Faults(check(next)) {
			fault := faultOf(f)
			if node != "" {
				fault.Message = "node " + node + ": " + fault.Message
			}
			list := &fresh
			if known[f.Msg] {
				list = &standing
			}
			if len(*list) < maxUngiven {
				*list = append(*list, fault)
			}
		}
	}
	sort("", b.material.Load().trust.check)
	words, silent := otherWords(ctx, b.nodes)
	if b.nodes != nil {
		for _, name := range b.nodes.others() {
			if word := words[name]; word != nil {
				sort(name, word.Check)
			}
		}
	}
	return fresh, standing, silent
}

func faultOf(f *policy.Fault) adminapi.PolicyFault {
	return adminapi.PolicyFault{File: f.At.File, Line: f.At.Line, Column: f.At.Column, Message: f.Msg}
}

// errUngiven says which names keep a version from being applied.
func errUngiven(list []adminapi.PolicyFault) error {
	var lines []string
	for _, f := range list {
		at := policy.Position{File: f.File, Line: f.Line, Column: f.Column}
		lines = append(lines, at.String()+": "+f.Message)
	}
	return fmt.Errorf("it has names that a node gives to nobody: %s", strings.Join(lines, "; "))
}

// listUngiven is the first names of m that its node does not give, for people.
func listUngiven(m *material) string {
	var lines []string
	for _, f := range m.ungiven[:min(len(m.ungiven), maxUngiven)] {
		at := f.At
		at.File = filepath.Base(at.File)
		lines = append(lines, at.String()+": "+f.Msg)
	}
	return strings.Join(lines, "; ")
}

// warnUngiven tells of names of the applied policy that m's node does not give.
func warnUngiven(b *Broker, m *material) {
	if n := len(m.ungiven); n > 0 {
		b.log.Error().Int("names", n).Uint64("version", m.applied.version()).Str("first", listUngiven(m)).
			Msg("the applied policy has names that the configuration of this node gives to nobody, and nobody comes in by them here: " + ungivenFix)
	}
}

// givenHealth is for status.get, of any tenant: it tells no names. The node is ready all the
// same: everybody else comes in.
func givenHealth(b *Broker) adminapi.HealthPart {
	m := b.material.Load()
	h := adminapi.HealthPart{Part: "identities", OK: len(m.ungiven) == 0}
	if !h.OK {
		h.Detail = fmt.Sprintf("nobody comes in here by %d names of the applied policy, which the configuration gives to nobody; the log of the node lists them", len(m.ungiven))
	}
	return h
}
