package auditlog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/signing/keyring"
)

// What a fault says has happened to a record.
const (
	FaultEdited    = "edited"
	FaultDeleted   = "deleted"
	FaultInserted  = "inserted"
	FaultReordered = "reordered"
	FaultTruncated = "truncated"
	FaultForged    = "forged"    // no valid signature of the node
	FaultMalformed = "malformed" // unreadable
	FaultLog       = "log"       // the log of the heads is not as it was stored
)

// maxFaults bounds Report.Faults; the rest is counted.
const maxFaults = 100

// Fault is one place where the trail is not what its writer wrote.
type Fault struct {
	What   string `json:"what"`
	Node   string `json:"node,omitempty"`
	Chain  string `json:"chain,omitempty"`
	Seq    uint64 `json:"seq,omitempty"`  // first record that is concerned
	Last   uint64 `json:"last,omitempty"` // last one, where there are several
	At     uint64 `json:"at,omitempty"`   // sequence of the message in the stream, or number of the batch in a file
	Detail string `json:"detail,omitempty"`
}

// String names the record.
func (f *Fault) String() string {
	var b strings.Builder
	b.WriteString(f.What + ": ")
	switch {
	case f.Seq > 0 && f.Last > f.Seq:
		fmt.Fprintf(&b, "records %d to %d of chain %s of node %s", f.Seq, f.Last, f.Chain, f.Node)
	case f.Seq > 0:
		fmt.Fprintf(&b, "record %d of chain %s of node %s", f.Seq, f.Chain, f.Node)
	case f.Node != "":
		fmt.Fprintf(&b, "chain %s of node %s", f.Chain, f.Node)
	case f.What == FaultLog:
		b.WriteString("the log of the heads")
	default:
		b.WriteString("a batch")
	}
	if f.At > 0 {
		fmt.Fprintf(&b, " (message %d)", f.At)
	}
	if f.Detail != "" {
		b.WriteString(": " + f.Detail)
	}
	return b.String()
}

// ChainReport is what is known of one chain.
type ChainReport struct {
	Position
	First time.Time `json:"first"` // time of its first record
	Last  time.Time `json:"last"`
	After string    `json:"after,omitempty"` // the chain of the node that it says it goes on from, and its last record
	// Pruned is the number of the last record that its node has taken away, with a record
	// of it; 0: the chain is here from its beginning.
	Pruned uint64 `json:"pruned,omitempty"`
	// Vouched is the highest record that a head from outside names which the node itself
	// signed; 0: there is none.
	Vouched uint64 `json:"vouched,omitempty"`
	// Logged is how far a log covers the chain; nil: no log does.
	Logged *LoggedUpTo `json:"logged,omitempty"`
}

// Report is the result of a verification.
type Report struct {
	Tenant  string        `json:"tenant"`
	OK      bool          `json:"ok"`
	Records uint64        `json:"records"`
	Batches uint64        `json:"batches"`
	Heads   int           `json:"heads"` // from outside, that were checked
	Chains  []ChainReport `json:"chains"`
	Faults  []Fault       `json:"faults"` // in the order in which they were met
	More    int           `json:"more,omitempty"`
	// Covered are the parts whose own heads prove nothing, and later ones do.
	Covered     []Cover `json:"covered,omitempty"`
	MoreCovered int     `json:"moreCovered,omitempty"`
	// Gone are chains of which nothing is left, and which heads from outside name: their
	// node says that it pruned them.
	Gone []Gone `json:"gone,omitempty"`
	// Open is what nothing that was verified speaks of: see Proved.
	Open     []Open `json:"open,omitempty"`
	Accepted []Open `json:"accepted,omitempty"` // of Open, what the caller takes as it is: see Accept
}

// Verifier walks the trail of one tenant in the order of the stream. It is not safe
// for concurrent use.
type Verifier struct {
	tenant string
	ring   *keyring.Ring
	chains map[ChainID]*walked
	latest map[string]ChainID // by node, the chain that it last began
	pruned pruned
	follow []follow
	heads  int
	closed time.Time // when the export was closed that is verified; zero: it is the trail itself
	log    string    // the checkpoint of the log of the heads that was held against those from outside; empty: none was
	open   []Open
	out    Report
}

// walked is the state of one chain.
type walked struct {
	ChainReport
	gaps   []gap                // what has not come, so far
	expect map[uint64]string    // from outside heads: sequence to hash
	most   uint64               // highest in expect
	kept   map[uint64]time.Time // of expect, what only heads that were kept elsewhere say, and when the first was made
	made   time.Time            // of the head that says most
	own    map[uint64]time.Time // of expect, what the node itself signed, and when
	doubt  *Cover               // what waits for a head under a valid key; nil: nothing
	seen   bool
}

// gap is what is missing between two records.
type gap struct {
	first, last, at uint64
	next            string    // what the record behind it holds as the hash of last
	made            time.Time // of that record
}

// follow is what the first record of a chain says of the chain before it.
type follow struct {
	to   ChainID // that says so
	from ChainID // the chain that the trail has before it; zero: none
	end  Position
	ref  string // what it says: chain and number, and hash
	hash string
	at   uint64
}

// NewVerifier returns a verifier of the trail of a tenant whose nodes' keys are in
// ring. The expiry of the ring is not looked at.
func NewVerifier(tenant string, ring *keyring.Ring) *Verifier {
	return &Verifier{tenant: tenant, ring: ring, chains: map[ChainID]*walked{}, latest: map[string]ChainID{}, pruned: newPruned(), out: Report{Tenant: tenant}}
}

// Expect adds a signed head that was kept elsewhere, or that a node has just made: the
// trail must have every chain of it, at least so far, with these hashes. Heads come
// before the batches. A head of another tenant is no error and says nothing.
//
// Errors: those of OpenHead. A head of a key that was not valid proves nothing.
func (v *Verifier) Expect(doc []byte) error {
	h, err := OpenHead(doc, v.ring)
	if err != nil || h.Tenant != v.tenant {
		return err
	}
	expect(v, h, true)
	return nil
}

// expectKept is Expect for a head that was kept elsewhere: it may have been made after the
// export that is verified.
func expectKept(v *Verifier, doc []byte) error {
	h, err := OpenHead(doc, v.ring)
	if err != nil || h.Tenant != v.tenant {
		return err
	}
	first := map[Position]time.Time{} // when it was first said, of what nobody else has said
	for _, p := range h.Chains {
		c := v.chain(p.ChainID)
		was, kept := c.kept[p.Seq]
		if _, said := c.expect[p.Seq]; said && !kept {
			continue
		}
		if first[p] = h.Time; kept && was.Before(h.Time) {
			first[p] = was
		}
	}
	expect(v, h, true)
	for p, made := range first {
		c := v.chains[p.ChainID]
		if c.kept == nil {
			c.kept = map[uint64]time.Time{}
		}
		c.kept[p.Seq] = made
	}
	return nil
}

// expect takes what a head says that was verified; asked: the node was asked for it, so
// it speaks for the end of the node's chain.
func expect(v *Verifier, h *Head, asked bool) {
	v.heads++
	for _, p := range h.Chains {
		c := v.chain(p.ChainID)
		delete(c.kept, p.Seq)
		if c.expect == nil {
			c.expect = map[uint64]string{}
		}
		if have, ok := c.expect[p.Seq]; ok && have != p.Hash {
			v.fault(Fault{What: FaultForged, Node: p.Node, Chain: p.Chain, Seq: p.Seq, Detail: "two signed heads differ about this record: the node has written two histories"})
			continue
		}
		if c.expect[p.Seq] = p.Hash; p.Seq > c.most {
			c.most, c.made = p.Seq, h.Time
		}
		if h.Node == p.Node {
			c.vouch(p.Seq, h.Time, asked)
		}
	}
}

func (v *Verifier) chain(id ChainID) *walked {
	c := v.chains[id]
	if c == nil {
		c = &walked{ChainReport: ChainReport{Position: Position{ChainID: id, Hash: NoHash}}}
		v.chains[id] = c
	}
	return c
}

// Batch takes the next message of the trail; at is its sequence in the stream or its
// number in the file.
func (v *Verifier) Batch(at uint64, data []byte) {
	b, err := ParseBatch(data)
	if err != nil {
		v.fault(Fault{What: FaultMalformed, At: at, Detail: strings.TrimPrefix(err.Error(), "auditlog: ")})
		return
	}
	v.take(at, b)
}

func (v *Verifier) take(at uint64, b *Batch) {
	v.out.Batches++
	id := b.ID()
	if b.Records[0].Tenant != v.tenant {
		v.fault(Fault{What: FaultInserted, Node: id.Node, Chain: id.Chain, Seq: b.Records[0].Seq, At: at, Detail: "it belongs to the trail of another tenant"})
		return
	}
	c := v.chain(id)
	for i := range b.Records {
		v.record(c, &b.Records[i], b.Hashes[i], at)
	}
	v.head(c, b, at)
}

// record checks one record against the chain so far.
func (v *Verifier) record(c *walked, r *Record, hash string, at uint64) {
	v.out.Records++
	if !c.seen {
		c.seen, c.First = true, r.Time
		v.begun(c, r, at)
	}
	if r.Kind == KindPruned {
		v.prune(r, at)
	}
	switch {
	case r.Seq == c.Seq+1:
		if r.Prev != c.Hash {
			v.unlinked(c)
			v.fault(Fault{What: FaultEdited, Node: r.Node, Chain: r.Chain, Seq: max(c.Seq, 1), At: at, Detail: fmt.Sprintf("record %d holds another hash of the record before it", r.Seq)})
		}
	case r.Seq > c.Seq+1:
		v.unlinked(c)
		c.gaps = append(c.gaps, gap{c.Seq + 1, r.Seq - 1, at, r.Prev, r.Time})
	default:
		v.late(c, r, at)
		return
	}
	c.Position.Seq, c.Position.Hash, c.Last = r.Seq, hash, r.Time
	v.outside(c, r.Seq, hash, at)
}

// begun looks at what the first record of a chain says of the chain before it.
func (v *Verifier) begun(c *walked, r *Record, at uint64) {
	before, was := v.latest[r.Node]
	v.latest[r.Node] = c.ChainID
	if r.Kind != KindChain {
		return // the gap before it is a fault of its own
	}
	c.After = r.Ref
	if r.Ref == "" {
		return
	}
	f := follow{to: c.ChainID, ref: r.Ref, hash: r.Before, at: at}
	if was {
		f.from, f.end = before, v.chains[before].Position
	}
	v.follow = append(v.follow, f)
}

// RefOf is how the first record of a chain names the end of the one before it.
func RefOf(p Position) string { return fmt.Sprintf("%s/%d", p.Chain, p.Seq) }

// late handles a record that does not come after the last one.
func (v *Verifier) late(c *walked, r *Record, at uint64) {
	for i, g := range c.gaps {
		if r.Seq < g.first || r.Seq > g.last {
			continue
		}
		var rest []gap
		if r.Seq > g.first {
			rest = append(rest, gap{g.first, r.Seq - 1, g.at, r.Prev, r.Time})
		}
		if r.Seq < g.last {
			rest = append(rest, gap{r.Seq + 1, g.last, g.at, g.next, g.made})
		}
		c.gaps = slices.Replace(c.gaps, i, i+1, rest...)
		v.fault(Fault{What: FaultReordered, Node: r.Node, Chain: r.Chain, Seq: r.Seq, At: at, Detail: fmt.Sprintf("it stands behind record %d", c.Seq)})
		return
	}
	v.fault(Fault{What: FaultInserted, Node: r.Node, Chain: r.Chain, Seq: r.Seq, At: at, Detail: fmt.Sprintf("a record with this number was there before; the chain is at %d", c.Seq)})
}

// outside compares a record with what an outside head says of it.
func (v *Verifier) outside(c *walked, seq uint64, hash string, at uint64) {
	want, ok := c.expect[seq]
	if made, own := c.own[seq]; own && want == hash {
		v.covered(c, seq, made)
	}
	if ok && want != hash {
		v.fault(Fault{What: FaultEdited, Node: c.Node, Chain: c.Chain, Seq: seq, At: at, Detail: "a signed head that was kept elsewhere has another hash: this record or one before it is not the one that was written" + inLogToo(c, seq)})
	}
}

// head checks the signature at the end of a batch.
func (v *Verifier) head(c *walked, b *Batch, at uint64) {
	h, key, err := readHead(b.Head, v.ring)
	first, last := b.Records[0].Seq, b.Last()
	f := Fault{What: FaultForged, Node: last.Node, Chain: last.Chain, Seq: first, Last: last.Seq, At: at}
	switch {
	case err != nil:
		f.Detail = "the head of this batch: " + strings.TrimPrefix(err.Error(), "auditlog: ")
	case h.Seal || h.Tenant != v.tenant || h.Node != last.Node || len(h.Chains) != 1 || h.Chains[0].ChainID != last.ChainID:
		f.Detail = "the head of this batch is one of another chain"
	case h.Chains[0].Seq != last.Seq:
		f.What, f.Detail = FaultDeleted, fmt.Sprintf("the signed head of this batch is at record %d, the batch ends with %d", h.Chains[0].Seq, last.Seq)
	case h.Chains[0].Hash != last.Hash:
		f.What, f.Detail = FaultEdited, "the signed head of this batch has another hash: one of its records is not the one that was written"
	case last != c.Position:
		return // the records say what is wrong: the head cannot speak for the chain
	case !key.ValidAt(h.Time):
		v.doubted(c, h, b, at)
		return
	default:
		v.covered(c, last.Seq, h.Time)
		return
	}
	v.fault(f)
}

func (v *Verifier) fault(f Fault) {
	if len(v.out.Faults) >= maxFaults {
		v.out.More++
		return
	}
	v.out.Faults = append(v.out.Faults, f)
}

// Finish says what was found. The verifier is of no use afterwards.
func (v *Verifier) Finish() *Report {
	out := &v.out
	ids := make([]ChainID, 0, len(v.chains))
	for id := range v.chains {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ChainID) int {
		return cmp.Or(v.chains[a].First.Compare(v.chains[b].First), strings.Compare(a.Node, b.Node), strings.Compare(a.Chain, b.Chain))
	})
	throughLater(v, ids)
	for _, id := range ids {
		c := v.chains[id]
		for _, g := range c.gaps {
			v.gap(c, g)
		}
		v.unlinked(c)
		claimed(v, c)
		endOutside(v, c)
		if c.seen {
			out.Chains = append(out.Chains, c.ChainReport)
		}
	}
	for i := range v.follow {
		v.followed(&v.follow[i])
	}
	v.allGone()
	v.openEnds()
	out.Heads = v.heads
	out.OK = len(out.Faults) == 0
	return out
}

// Err is nil if the trail is whole, else the first fault as an error.
func (r *Report) Err() error {
	if r.OK {
		return nil
	}
	return errors.New(r.Faults[0].String())
}
