package auditlog

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/signing/keyring"
)

// Why records are pruned, Entry.Rule of KindPruned.
const (
	PrunedAge  = "age"  // older than they are to be kept
	PrunedSize = "size" // their share of the stream was full
)

// Pruning is what a node says before it takes the oldest records of one of its chains
// away.
type Pruning struct {
	Node        string    // whose chain it is; "": of the node whose record this is
	Chain       string    // of the node whose record this is: the same chain, or an earlier one
	First, Last uint64    // records that go
	Hash        string    // of record Last
	From, Until time.Time // of records First and Last
	Why         string    // PrunedAge or PrunedSize
	// Broken says what was wrong with the records when they went: they were not a whole
	// part of the chain. A trail with such a record never verifies. Empty: they were.
	Broken string
}

// Entry returns the entry that says so. Its reference names the last record that goes,
// before is the hash of it, the subject is the time from the first to the last.
func (p *Pruning) Entry(now time.Time, tenant string) Entry {
	e := Entry{
		Time: now, Tenant: tenant, Kind: KindPruned, Outcome: OutcomeOK, First: p.First, Last: p.Last, Count: p.Last - p.First + 1,
		Rule: p.Why, Ref: fmt.Sprintf("%s/%d", p.Chain, p.Last), Subject: spanOf(p.From, p.Until), Before: p.Hash, Who: p.Node,
	}
	if p.Broken != "" {
		e.Outcome, e.Detail = OutcomeFailed, p.Broken
	}
	return e
}

// spanOf is a time interval as ISO 8601 writes it, to the microsecond.
func spanOf(from, until time.Time) string {
	text := func(t time.Time) string { return t.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano) }
	return text(from) + "/" + text(until)
}

// PrunedSpan returns the times of the first and the last record that go, of a record
// of kind pruned.
func (r *Record) PrunedSpan() (from, until time.Time, ok bool) {
	a, b, _ := strings.Cut(r.Subject, "/")
	from, err := time.Parse(time.RFC3339Nano, a)
	if err != nil {
		return from, until, false
	}
	until, err = time.Parse(time.RFC3339Nano, b)
	return from, until, err == nil && r.Kind == KindPruned && spanOf(from, until) == r.Subject
}

// checkPruned says whether r is as Pruning.Entry makes it, if it is of that kind.
func (r *Record) checkPruned() error {
	bad := func(what string) error { return fmt.Errorf("%w: pruned: %s", ErrRecord, what) }
	if r.Kind != KindPruned {
		return nil
	}
	chain, number, _ := strings.Cut(r.Ref, "/")
	switch {
	case !chainOK(chain) || number != strconv.FormatUint(r.Last, 10):
		return bad("ref does not name the last record")
	case r.First == 0 || r.Last < r.First || r.Count != r.Last-r.First+1:
		return bad("first, last and count do not fit")
	case r.Who == "" && chain == r.Chain && r.Last >= r.Seq:
		return bad("it names itself or what comes after it")
	case r.Who == r.Node:
		return bad("who is the node itself, which is left out")
	case !hashOK(r.Before):
		return bad("before is not a SHA-256")
	case r.Rule != PrunedAge && r.Rule != PrunedSize:
		return bad("rule is neither age nor size")
	case r.Outcome != OutcomeOK && r.Outcome != OutcomeFailed:
		return bad("outcome is neither ok nor failed")
	}
	if _, _, ok := r.PrunedSpan(); !ok {
		return bad("subject is not the times from the first to the last that go")
	}
	return nil
}

// PrunedEnd returns the position that a record of kind pruned names: the last record
// that goes. The zero Position for other kinds.
func (r *Record) PrunedEnd() Position {
	if r.Kind != KindPruned {
		return Position{}
	}
	chain, _, _ := strings.Cut(r.Ref, "/")
	node := r.Node
	if r.Who != "" { // of a node that is gone
		node = r.Who
	}
	return Position{ChainID{node, chain}, r.Last, r.Before}
}

// Verify checks that a batch of a tenant's trail ends with a head of its own, signed by
// its node. Whether it goes on from the one before it is not looked at.
//
// Errors: ErrBatch; also ErrKeyTime if all that is wrong is that the key of the node was
// not valid when the head was signed. A later batch may cover it.
func (b *Batch) Verify(tenant string, ring *keyring.Ring) error {
	if b.Records[0].Tenant != tenant {
		return fmt.Errorf("%w: it is of another tenant", ErrBatch)
	}
	v, last := NewVerifier(tenant, ring), b.Last()
	c := v.chain(b.ID())
	c.Position = last
	v.head(c, b, 0)
	switch {
	case len(v.out.Faults) > 0:
		return fmt.Errorf("%w: %s", ErrBatch, v.out.Faults[0].String())
	case c.doubt != nil:
		return fmt.Errorf("%w: %w at %s", ErrBatch, ErrKeyTime, c.doubt.Signed.Format(time.RFC3339))
	}
	return nil
}

// pruned is what records of kind pruned have said.
type pruned struct {
	ends  map[ChainID]map[uint64]string    // hash of the last record that went
	other map[ChainID]map[uint64]time.Time // of ends, those that only another node says, and when
	until map[string]time.Time             // by node, the latest time of a record that went
}

func newPruned() pruned {
	return pruned{map[ChainID]map[uint64]string{}, map[ChainID]map[uint64]time.Time{}, map[string]time.Time{}}
}

// prune notes what a record of kind pruned says. Whether it is the node's own word is
// what the head of its batch says, as of any other record.
func (v *Verifier) prune(r *Record, at uint64) {
	end := r.PrunedEnd()
	if v.pruned.ends[end.ChainID] == nil {
		v.pruned.ends[end.ChainID] = map[uint64]string{}
	}
	f := Fault{Node: end.Node, Chain: end.Chain, Seq: r.First, Last: end.Seq, At: at}
	v.pruned.tell(end, r)
	if have, ok := v.pruned.ends[end.ChainID][end.Seq]; ok && have != end.Hash {
		f.What, f.Detail = FaultForged, "two pruned records differ about the last record that went"
		v.fault(f)
	}
	if r.Outcome != OutcomeOK {
		f.What, f.Detail = FaultDeleted, "the node found these records not whole when it pruned them: "+r.Detail
		v.fault(f)
	}
	v.pruned.ends[end.ChainID][end.Seq] = end.Hash
	if _, until, ok := r.PrunedSpan(); ok && r.Who == "" && until.After(v.pruned.until[r.Node]) {
		v.pruned.until[r.Node] = until
	}
}

// gap says what became of records that are not there. The node may have pruned them:
// then a record names the last of them, and the first one that is left holds its hash.
func (v *Verifier) gap(c *walked, g gap) {
	f := Fault{What: FaultDeleted, Node: c.Node, Chain: c.Chain, Seq: g.first, Last: g.last, At: g.at, Detail: "missing before this message"}
	hash, ok := v.pruned.ends[c.ChainID][g.last]
	said, other := v.pruned.other[c.ChainID][g.last]
	switch {
	case ok && other && !gone(g.made, said):
		f.Detail = wasThere(said)
	case ok && hash == g.next:
		c.Pruned = max(c.Pruned, g.last)
		return
	case ok:
		f.Detail = fmt.Sprintf("a pruned record says that they went, but record %d holds another hash of the last of them", g.last+1)
	default:
		for end := range v.pruned.ends[c.ChainID] {
			if end >= f.Seq && end < g.last {
				f.Seq, f.Detail = end+1, fmt.Sprintf("missing before this message; a pruned record says that the node took away what is before them, up to record %d", end)
			}
		}
	}
	v.fault(f)
}

// covers reports whether what an outside head says of the end of a chain went with what
// was pruned. The record that said so of a whole chain may have gone itself since: then
// later ones say that everything of the node up to a time went.
func (v *Verifier) coversOutside(c *walked) bool {
	p := &v.pruned
	for end := range p.ends[c.ChainID] {
		said, other := p.other[c.ChainID][end]
		left := v.chains[v.latest[c.Node]]
		if end >= c.most && (!other || left != nil && gone(left.First, said)) {
			return true
		}
	}
	return !c.seen && !c.made.After(p.until[c.Node])
}

// followed compares what a chain says of the one before it with that one.
func (v *Verifier) followed(f *follow) {
	if f.from.Chain != "" && f.ref == RefOf(f.end) && f.hash == f.end.Hash {
		return
	}
	chain, number, _ := strings.Cut(f.ref, "/")
	seq, _ := strconv.ParseUint(number, 10, 64)
	before := ChainID{f.to.Node, chain}
	said, other := v.pruned.other[before][seq]
	if hash, ok := v.pruned.ends[before][seq]; ok && hash == f.hash && (!other || gone(v.chains[f.to].First, said)) {
		return
	}
	if f.from.Chain == "" {
		v.fault(Fault{
			What: FaultDeleted, Node: f.to.Node, Chain: chain, Seq: 1, Last: seq, At: f.at,
			Detail: fmt.Sprintf("chain %s goes on from this chain, and nothing of it is there", f.to.Chain),
		})
		return
	}
	v.fault(Fault{
		What: FaultEdited, Node: f.from.Node, Chain: f.from.Chain, Seq: f.end.Seq, At: f.at,
		Detail: fmt.Sprintf("the next chain of the node, %s, goes on from %s, and this one ends with record %d", f.to.Chain, f.ref, f.end.Seq),
	})
}

// GoneFor is how long a node must have written nothing before another one prunes its
// chains.
const GoneFor = 7 * 24 * time.Hour

// gone reports whether the first record that is left of a node is so old that another one
// could say at a time that the node was gone. The newest batch of a node always stays: so
// what is left of one that still wrote is younger.
func gone(left, said time.Time) bool { return left.Before(said.Add(-GoneFor)) }

func wasThere(said time.Time) string {
	return "another node says, at " + said.Format(time.RFC3339) + ", that it pruned them since this one was gone, and it had written not long before"
}

// tell notes who says that records went: the node's own word is above another's.
func (p *pruned) tell(end Position, r *Record) {
	_, had := p.ends[end.ChainID][end.Seq]
	switch {
	case r.Who == "":
		delete(p.other[end.ChainID], end.Seq)
	case !had || !p.other[end.ChainID][end.Seq].IsZero():
		if p.other[end.ChainID] == nil {
			p.other[end.ChainID] = map[uint64]time.Time{}
		}
		p.other[end.ChainID][end.Seq] = r.Time
	}
}

// allGone are faults of nodes of which nothing is left, and only another one says why: the
// newest batch always stays.
func (v *Verifier) allGone() {
	for id, ends := range v.pruned.other {
		if _, left := v.latest[id.Node]; left {
			continue
		}
		for end := range ends {
			v.fault(Fault{What: FaultDeleted, Node: id.Node, Chain: id.Chain, Seq: 1, Last: end, Detail: "another node says that it pruned them, and nothing of this one is left"})
		}
	}
}
