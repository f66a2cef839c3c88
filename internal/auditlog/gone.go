package auditlog

import (
	"fmt"
	"time"
)

// Gone is a chain that a head from outside names and of which nothing is left, as its node
// has pruned it: that is the word of the node, which a head cannot contradict.
type Gone struct {
	Position           // that the latest of the heads names
	Made     time.Time `json:"made"` // when that was made
}

// String says it for people.
func (g *Gone) String() string {
	return fmt.Sprintf("chain %s of node %s is gone, which a signed head of %s names up to record %d: the node says that it pruned it", g.Chain, g.Node, g.Made.Format(time.RFC3339), g.Seq)
}

// claimed compares what pruned records say of the last record that went with what heads from
// outside say of it: nobody may prune another history than the one that was written.
func claimed(v *Verifier, c *walked) {
	for end, hash := range v.pruned.ends[c.ChainID] {
		if want, ok := c.expect[end]; ok && want != hash {
			v.fault(Fault{
				What: FaultForged, Node: c.Node, Chain: c.Chain, Seq: end,
				Detail: "a pruned record holds another hash of this record than a signed head that was kept elsewhere" + inLogToo(c, end),
			})
		}
	}
}

// madeLater says whether all that heads name beyond the end of the chain is of heads that were
// kept elsewhere and made after the export was closed: they say that it is old, not that
// something was cut off. Who backdates the closing of an export gets no other verdict.
func madeLater(v *Verifier, c *walked) bool {
	for seq := range c.expect {
		if made, kept := c.kept[seq]; seq > c.Seq && (!kept || v.closed.IsZero() || !made.After(v.closed)) {
			return false
		}
	}
	return true
}

// endOutside judges what heads from outside name and the trail does not have. Who prunes
// begins with the oldest: where what is before is there, it went during this walk, or it
// is not true.
func endOutside(v *Verifier, c *walked) {
	switch {
	case c.most <= c.Seq:
	case !v.coversOutside(c) && madeLater(v, c):
		v.Open("", fmt.Sprintf("the export was closed at %s with chain %s of node %s at record %d, and a signed head of %s names record %d: the export is older than the head, so take one that is made now", v.closed.Format(time.RFC3339), c.Chain, c.Node, c.Seq, c.made.Format(time.RFC3339), c.most))
	case !v.coversOutside(c):
		v.fault(Fault{What: FaultTruncated, Node: c.Node, Chain: c.Chain, Seq: c.Seq + 1, Last: c.most, Detail: fmt.Sprintf("a signed head says that the chain went on to record %d%s", c.most, inLogToo(c, c.most))})
	case c.seen:
		v.Open("", fmt.Sprintf("node %s says that it pruned records %d to %d of chain %s, which a signed head names, and what is before them is there: it went while the trail was read, and the next walk is without it, or the node says what is not so", c.Node, c.Seq+1, c.most, c.Chain))
	case len(v.out.Gone) < maxFaults:
		v.out.Gone = append(v.out.Gone, Gone{Position{c.ChainID, c.most, c.expect[c.most]}, c.made})
	}
}
