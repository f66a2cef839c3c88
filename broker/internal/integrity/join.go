package integrity

import (
	"fmt"
	"path"
	"time"
)

// join puts the blocks of one replica together: what each of them cannot know is
// whether the one before it is there.
type join struct {
	*check
	r      *Replica
	m      *meta
	msgs   string
	known  map[uint32]knownBlock
	sealed bool
	raft   bool

	last   uint64 // highest sequence that has a record
	lastTS int64  // time of the newest message
	tomb   uint64 // highest tombstone
}

func (j *join) run(blocks []examined, x *index) {
	for i := range blocks {
		e := &blocks[i]
		j.r.Blocks++
		j.r.Bytes += e.file.size
		j.r.Messages += e.Messages
		j.block(e, i > 0 && e.file.index != blocks[i-1].file.index+1)
	}
	j.r.LastSeq = max(j.last, j.tomb)
	if j.sealed {
		j.vanished(blocks)
	}
	if j.live {
		return
	}
	if x != nil && x.LastSeq > j.r.LastSeq {
		j.tail(x)
	}
	j.head(x)
}

func (j *join) file(e *examined) string { return path.Join(j.msgs, e.file.name) }

// block enters one block. skipped: there is no block with the number before it.
func (j *join) block(e *examined, skipped bool) {
	covered := false
	for i, d := range e.faults {
		d.File = j.file(e)
		if d.From == 1 && e.First != 1 && i == 0 && j.last > 0 {
			d.From, covered = j.last+1, true
			d.To = max(d.To, d.From)
		}
		j.r.damage(d)
	}
	if e.torn > 0 {
		j.r.note("%s: %d bytes at its end are the rest of an append that was cut off, nothing of it was acknowledged", j.file(e), e.torn)
	}
	defer func() { j.tomb = max(j.tomb, e.MaxTomb) }()
	if e.First == 0 {
		return
	}
	if j.r.FirstSeq == 0 {
		j.r.FirstSeq = e.First
	}
	if j.last > 0 && !covered {
		j.seam(e, skipped)
	}
	if j.r.AppendOnly {
		for _, g := range e.Gaps {
			j.hole(Damage{Kind: KindMissing, File: j.file(e), Offset: g.Offset, From: g.From, To: g.To}, g.Closed || j.tomb >= g.To)
		}
	}
	j.last, j.lastTS = max(j.last, e.Last), max(j.lastTS, e.LastTS)
}

// seam judges what is between one block and the one before it.
func (j *join) seam(e *examined, skipped bool) {
	if e.First <= j.last {
		j.r.damage(Damage{Kind: KindOrder, File: j.file(e), From: e.First, To: e.First, Detail: fmt.Sprintf("the block before it ends with sequence %d", j.last)})
		return
	}
	if e.First == j.last+1 || !j.r.AppendOnly {
		return
	}
	// The block before may have said already that its end is missing.
	if n := len(j.r.Damage); n > 0 && j.r.Damage[n-1].To == 0 && j.r.Damage[n-1].From > 0 {
		j.r.Damage[n-1].To = e.First - 1
		return
	}
	d := Damage{Kind: KindMissing, File: j.file(e), From: j.last + 1, To: e.First - 1, Detail: "the block before it ends too early"}
	if skipped {
		d.Detail = "a block before it is not there"
	}
	j.hole(d, max(j.tomb, e.LeadTomb) >= e.First-1)
}

// hole reports a hole in a replica that may have none. One that a tombstone closes was
// made by the server itself, where it moved on from a tail that was never acknowledged.
func (j *join) hole(d Damage, closed bool) {
	if closed {
		j.r.Holes += d.To - d.From + 1
		j.r.note("sequences %d to %d are empty: the server has moved on over them after an abrupt end", d.From, d.To)
		return
	}
	j.r.damage(d)
}

// tail: the index knows of more than the blocks hold.
func (j *join) tail(x *index) {
	if n := len(j.r.Damage); n > 0 && j.r.Damage[n-1].To == 0 && j.r.Damage[n-1].From > 0 {
		j.r.Damage[n-1].To = x.LastSeq
		return
	}
	if j.gaveUp(x) {
		j.r.note("the first %d sequences could not be written, and the server has given them up; nothing of them was acknowledged", x.LastSeq)
		return
	}
	young := j.lastTS > 0 && time.Duration(x.lastTS-j.lastTS) < tornWindow
	if j.LazySync && j.powerCut && !j.sealed && j.m.Replicas <= 1 && young {
		j.r.note("sequences %d to %d were written and not yet acknowledged when the power was cut", j.r.LastSeq+1, x.LastSeq)
		return
	}
	j.r.damage(Damage{Kind: KindTail, File: j.msgs, From: j.r.LastSeq + 1, To: x.LastSeq, Detail: "index.db has seen them"})
}

// gaveUp says whether the first messages of the stream are those that the server could not
// write on a full disk. It has none of them then and goes on behind them, where it would
// remember sequences that were on the disk before: in a block, by a tombstone, or in the
// ledger. A seal of a stream that had none says the same.
func (j *join) gaveUp(x *index) bool {
	for _, b := range j.known {
		if b.Messages > 0 || b.Last > 0 {
			return false
		}
	}
	return j.LazySync && j.r.LastSeq == 0 && j.r.Messages == 0 &&
		x.Messages == 0 && x.FirstSeq == x.LastSeq+1 && x.firstTS > 0 && time.Duration(x.lastTS-x.firstTS) < tornWindow
}

// head: messages may leave at the head by age or limits. Whether these have is only
// known where an index or the ledger remembers them.
func (j *join) head(x *index) {
	if !j.r.AppendOnly || j.raft || j.m.trims() {
		return
	}
	first := j.r.FirstSeq
	if first == 0 {
		first = max(j.r.LastSeq, j.tomb) + 1
	}
	was, newest := j.remembered(first, x)
	switch {
	case was == 0 && j.m.MaxAge == 0 && x == nil && len(j.known) == 0 && j.r.Blocks > 0 && j.tomb == 0:
		was = max(j.m.FirstSeq, 1)
	case was == 0:
		return
	case j.m.MaxAge > 0 && !time.Unix(0, newest).Add(j.m.MaxAge).After(j.Now()):
		return // they have aged out
	}
	if was < first {
		j.r.damage(Damage{Kind: KindHead, File: j.msgs, From: was, To: first - 1, Detail: "no limit of the stream has taken them"})
	}
}

// remembered returns the first sequence that index or ledger know to be gone, and the
// time of the newest message in those blocks; 0 if nothing is gone.
func (j *join) remembered(first uint64, x *index) (was uint64, newest int64) {
	lower := func(seq uint64, ts int64) {
		if was == 0 || seq < was {
			was = seq
		}
		newest = max(newest, ts)
	}
	for _, k := range j.known {
		// What the server itself has counted as gone, it has taken out by a limit, maybe
		// one that the stream no longer has.
		if k.Messages > 0 && k.Last < first && (x == nil || k.Last >= x.FirstSeq) {
			lower(k.First, k.LastTS)
		}
	}
	if x == nil {
		return was, newest
	}
	for _, b := range x.blocks {
		if b.last < first && b.first <= b.last && b.last-b.first+1 > b.deleted {
			lower(b.first, b.lastTS)
		}
	}
	if j.m.MaxAge == 0 && x.Messages > 0 && x.FirstSeq < first {
		lower(x.FirstSeq, 0)
	}
	return was, newest
}

// vanished compares with what was there at an orderly stop, after which nobody wrote.
func (j *join) vanished(blocks []examined) {
	there := make(map[uint32]*examined, len(blocks))
	for i := range blocks {
		there[blocks[i].file.index] = &blocks[i]
	}
	for index, k := range j.known {
		name := path.Join(j.msgs, blockName(index))
		e := there[index]
		switch {
		case e == nil && k.Size > 0:
			j.r.damage(Damage{Kind: KindMissing, File: name, From: k.First, To: k.Last, Detail: "it was there when the server stopped"})
		case e != nil && e.file.size != k.Size && len(e.faults) == 0:
			j.r.damage(Damage{Kind: KindChanged, File: name, From: min(e.Last, k.Last) + 1, Detail: fmt.Sprintf("%d bytes, %d when the server stopped", e.file.size, k.Size)})
		}
	}
}

func blockName(index uint32) string { return fmt.Sprintf("%d.blk", index) }
