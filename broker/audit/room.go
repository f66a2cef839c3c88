package audit

import (
	"errors"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
)

// heldFor is how long batches wait for room before somebody must look.
const heldFor = time.Minute

// room is how much of its share of the stream a chain has filled. Journal.mu guards it.
type room struct {
	share int64     // bytes; 0: not measured yet, and not held to
	used  int64     // up to the message upTo
	upTo  uint64    // the pruner has measured so far
	later []weight  // stored since
	since time.Time // from when on a batch has waited for room; zero: none does
}

// weight is a stored message.
type weight struct {
	seq   uint64
	bytes int64
}

func (r *room) total() int64 {
	n := r.used
	for _, w := range r.later {
		n += w.bytes
	}
	return n
}

func (r *room) add(seq uint64, data int) {
	if seq > r.upTo {
		r.later = append(r.later, weight{seq, int64(data) + overhead})
	}
}

// fits says whether a batch may go to the stream without taking more than the share of
// its tenant: what one tenant causes must not keep the others' records out. Else the
// pruner is called.
func fits(j *Journal, l *chain, data int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l.room.share == 0 || l.room.total()+int64(data)+overhead <= l.room.share {
		l.room.since = time.Time{}
		return true
	}
	if l.room.since.IsZero() {
		l.room.since = j.cfg.Now()
	}
	signal(j.prune)
	return false
}

// measured is told by the pruner what a chain has in the stream, and how much it may have.
func measured(j *Journal, tenant string, used int64, upTo uint64, share int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.lines[tenant]
	if l == nil {
		return
	}
	l.room.used, l.room.upTo, l.room.share = used, upTo, share
	rest := l.room.later[:0]
	for _, w := range l.room.later {
		if w.seq > upTo {
			rest = append(rest, w)
		}
	}
	l.room.later = rest
}

// heldUp says whether batches of a tenant wait for room: in its share, or in the stream.
func heldUp(j *Journal, tenant string) bool {
	full := streamFull(j)
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.lines[tenant]
	return l != nil && len(l.pending) > 0 && (full || !l.room.since.IsZero())
}

// streamFull says whether the stream as a whole took nothing when it was last asked.
func streamFull(j *Journal) bool {
	t := j.trouble.Load()
	return t != nil && errors.Is(*t, ErrNoRoom)
}

// saidInSpool returns what pruned records of a tenant that are in the spool and not in the
// stream name, in order. Of those that an earlier run wrote, verify must approve.
//
// Errors: ErrSpool.
func saidInSpool(j *Journal, tenant string, verify func(*auditlog.Batch) error) ([]auditlog.Position, error) {
	j.mu.Lock()
	var frames []frame
	if l := j.lines[tenant]; l != nil {
		for i := range l.pending {
			if len(l.pending[i].gone) > 0 {
				frames = append(frames, l.pending[i])
			}
		}
	}
	j.mu.Unlock()
	var out []auditlog.Position
	for i := range frames {
		f := &frames[i]
		if !f.proved {
			data, err := j.spool.read(f)
			if err != nil {
				return nil, err
			}
			b, err := auditlog.ParseBatch(data)
			if err != nil || verify(b) != nil {
				continue
			}
		}
		out = append(out, f.gone...)
	}
	return out, nil
}

// signal wakes who waits on c, which has a buffer of one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
