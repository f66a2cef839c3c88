package auditlog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Cover is a part of a chain whose own heads prove nothing, since the key of its node
// was not valid when they say that they were signed: the clock was wrong, or the key was
// turned late. A later head under a valid key covers it: its hash holds all records
// before it. The times of such records are not vouched for.
type Cover struct {
	Node   string    `json:"node"`
	Chain  string    `json:"chain"`
	Seq    uint64    `json:"seq"`    // first record of the part
	Last   uint64    `json:"last"`   // last one
	At     uint64    `json:"at"`     // as Fault.At, of the first head
	Signed time.Time `json:"signed"` // when the first of the heads says that it was signed
	By     uint64    `json:"by"`     // record at which the chain is under a valid head again
	Valid  time.Time `json:"valid"`  // when that one was signed
}

// String names the records.
func (c *Cover) String() string {
	return fmt.Sprintf("records %d to %d of chain %s of node %s stand under a head that was signed at %s, when the key was not valid; the head at record %d, of %s, covers them: that they are whole is proved, their times are not",
		c.Seq, c.Last, c.Chain, c.Node, c.Signed.Format(time.RFC3339), c.By, c.Valid.Format(time.RFC3339))
}

// Open is something that nothing which was verified speaks of.
type Open struct {
	Node  string `json:"node,omitempty"`
	Chain string `json:"chain,omitempty"`
	Why   string `json:"why"`
}

// String says it for people.
func (o *Open) String() string {
	s := "not covered: "
	if o.Node != "" {
		s += "node " + o.Node + ": "
	}
	return s + o.Why
}

// Proved reports whether the trail is whole and nothing was left open: every node that
// has written has said, in a head from outside, how far its chain is.
func (r *Report) Proved() bool { return r.OK && len(r.Open) == 0 }

// Accept takes the end of a node's chain as the trail has it, on the word of the caller
// that the node is out of the cluster for good and cannot be asked. It does nothing for a
// node that is a member and silent.
func (r *Report) Accept(node string) {
	r.Open = slices.DeleteFunc(r.Open, func(o Open) bool {
		if o.Node != node || o.Chain == "" {
			return false
		}
		r.Accepted = append(r.Accepted, o)
		return true
	})
}

// Open notes something that the caller wanted to verify against and does not have, such
// as the word of a node that is silent. The trail is not proved then. node may be "".
func (v *Verifier) Open(node, why string) { v.open = append(v.open, Open{Node: node, Why: why}) }

// Kept are signed heads that were kept elsewhere, such as the lines of a file.
type Kept struct {
	Name string // for messages
	Docs [][]byte
}

// ExpectKept is Expect for heads that were kept elsewhere. A head of another tenant, or
// of a time at which its key was not valid, proves nothing and is passed over; if that
// is all there is, the trail is not proved: who gives heads wants to verify against them.
//
// Errors: those of OpenHead.
func (v *Verifier) ExpectKept(kept []Kept) error {
	for _, k := range kept {
		had := v.heads
		for i, doc := range k.Docs {
			if err := expectKept(v, doc); err != nil && !errors.Is(err, ErrKeyTime) {
				return fmt.Errorf("head %d of %s: %w", i+1, k.Name, err)
			}
		}
		if v.heads == had {
			v.Open("", fmt.Sprintf("%s: none of its %d heads is of the tenant %s and of a time at which the key was valid: it proves nothing about this trail", k.Name, len(k.Docs), v.tenant))
		}
	}
	return nil
}

// vouch notes that a head from outside is a node's own word about its chain, and, if it was
// asked for it, about the end of it.
func (c *walked) vouch(seq uint64, made time.Time, asked bool) {
	if c.own == nil {
		c.own = map[uint64]time.Time{}
	}
	c.own[seq] = made
	if asked {
		c.Vouched = max(c.Vouched, seq)
	}
}

// doubted opens a part of a chain that needs a later head, or makes it longer.
func (v *Verifier) doubted(c *walked, h *Head, b *Batch, at uint64) {
	last := b.Last()
	if c.doubt == nil {
		c.doubt = &Cover{Node: c.Node, Chain: c.Chain, Seq: b.Records[0].Seq, At: at, Signed: h.Time}
	}
	c.doubt.Last = last.Seq
	if made, ok := c.own[last.Seq]; ok && c.expect[last.Seq] == last.Hash {
		v.covered(c, last.Seq, made)
	}
}

// covered ends the part that is in doubt: all of it leads to a record that a valid head
// of the node names.
func (v *Verifier) covered(c *walked, by uint64, made time.Time) {
	if c.doubt == nil || by < c.doubt.Last {
		return
	}
	d := *c.doubt
	c.doubt = nil
	d.By, d.Valid = by, made
	if len(v.out.Covered) >= maxFaults {
		v.out.MoreCovered++
		return
	}
	v.out.Covered = append(v.out.Covered, d)
}

// unlinked is a fault of the part that is in doubt, if there is one: what comes now does
// not hold it.
func (v *Verifier) unlinked(c *walked) {
	if c.doubt == nil {
		return
	}
	d := c.doubt
	c.doubt = nil
	v.fault(Fault{
		What: FaultForged, Node: c.Node, Chain: c.Chain, Seq: d.Seq, Last: d.Last, At: d.At,
		Detail: fmt.Sprintf("the head of this batch: the key was not valid at %s, and no later head of the node under a valid key covers it", d.Signed.Format(time.RFC3339)),
	})
}

// openEnds adds the nodes that have written and whose word of it is not there.
func (v *Verifier) openEnds() {
	out := v.open
	silent := func(node string) bool {
		return slices.ContainsFunc(out, func(o Open) bool { return o.Node == node })
	}
	for node, id := range v.latest {
		if v.chains[id].Vouched == 0 && !silent(node) {
			out = append(out, Open{node, id.Chain, "it was not asked, and no head that it signed was given: what was cut off at the end of its chain cannot be seen"})
		}
	}
	slices.SortFunc(out, func(a, b Open) int { return strings.Compare(a.Node, b.Node) })
	v.out.Open = out
}
