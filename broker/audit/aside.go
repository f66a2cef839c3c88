package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/signetbus/signet/internal/auditlog"
)

// asideSuffix ends the names of files with batches that were in the spool and are not what
// this node was about to store: a segment of another time or node that was put there.
const asideSuffix = ".aside"

// takeSpooled takes the batches that an earlier run has left, each chain where it goes on.
// What goes on from nowhere is set aside: it was stored long ago, or is not of this node.
//
// Errors: ErrSpool.
func takeSpooled(j *Journal, frames []frame) error {
	var foreign []frame
	for _, f := range frames {
		key := f.tenant
		if f.to.Node != j.cfg.Node { // the node has another name now; its old frames still go to their stream
			key += "\x00" + f.to.Node
		}
		l := j.lines[key]
		switch {
		case l != nil && f.to.ChainID == l.stored.ChainID && f.to.Seq <= l.stored.Seq:
			f.seg.pending.Add(-1) // killed before its segment was removed: the stream has it
			continue
		case l == nil:
			l = lineOf(j, key, f.tenant)
		case !goesOn(l, &f):
			last := len(l.pending) - 1
			if l.stored.Seq > 0 || f.after.ChainID == f.to.ChainID || f.made.Before(l.pending[last].made) {
				foreign = append(foreign, f)
				continue
			}
			// Nothing says where the chain of this node was: the later one is of its last run.
			foreign, l.pending = append(foreign, l.pending...), nil
		}
		l.pending = append(l.pending, f)
		l.writer = auditlog.ResumeWriter(f.tenant, f.to)
	}
	return setAside(j, foreign, "they do not go on from where the chain of this node was")
}

// goesOn says whether a batch may follow what a chain has: it holds the hash of its end,
// or begins a chain that follows on this one, which the stream knew longer.
func goesOn(l *chain, f *frame) bool {
	at := l.writer.Position()
	if at.Seq == 0 || f.after == at {
		return true
	}
	return f.to.ChainID != at.ChainID && f.after.ChainID == at.ChainID
}

// foreign says whether what is pending of a chain cannot follow what the stream has, and
// is not of the chain that the stream has either. What stands under another node's name
// must follow in any case: it is not this node's to write again.
func (j publisher) foreign(l *chain, at auditlog.Position) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if l.stored.Seq > 0 || len(l.pending) == 0 || at.Seq == 0 {
		return false
	}
	return at.ChainID != l.pending[0].to.ChainID || at.Node != j.cfg.Node
}

// disown sets the batches of a chain aside that an earlier run has left, and the chain
// ends: what comes next, and what this run has added, goes to a new one after what the
// stream has.
func (j publisher) disown(key string, l *chain, at auditlog.Position) error {
	j.mu.Lock()
	frames := l.pending
	l.dead, l.pending = true, nil
	delete(j.lines, key)
	j.moving++
	j.mu.Unlock()
	defer j.moved()
	own := slices.IndexFunc(frames, func(f frame) bool { return f.proved })
	if own < 0 {
		own = len(frames)
	}
	again, err := j.entriesOf(frames[own:])
	if err != nil {
		return err
	}
	j.mu.Lock()
	j.queue = append(again, j.queue...)
	j.mu.Unlock()
	for i := range frames[own:] {
		frames[own+i].seg.pending.Add(-1)
	}
	return setAside(j.Journal, frames[:own], "the stream has gone on without them, up to "+auditlog.RefOf(at))
}

// setAside writes batches to files beside the spool, lets go of them, and puts that on
// record.
func setAside(j *Journal, frames []frame, why string) error {
	if len(frames) == 0 {
		return nil
	}
	names, err := j.spool.setAside(frames)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d batches in the spool are not this node's to store (%s): set aside in %s", len(frames), why, strings.Join(names, ", "))
	j.cfg.Log.Error().Str("dir", j.cfg.Dir).Msg(what)
	j.Note(auditlog.Entry{Kind: auditlog.KindNotice, Outcome: auditlog.OutcomeFailed, Subject: "spool", Detail: what})
	return nil
}

// setAside writes the batches of frames to one file for each segment, synced, and removes
// segments of which nothing else is left.
//
// Errors: ErrSpool.
func (s *spool) setAside(frames []frame) (names []string, err error) {
	for len(frames) > 0 {
		seg := frames[0].seg
		var out bytes.Buffer
		n := int64(0)
		rest := slices.DeleteFunc(slices.Clone(frames), func(f frame) bool {
			if f.seg != seg || err != nil {
				return false
			}
			var b []byte
			if b, err = s.read(&f); err != nil {
				return false
			}
			out.Write(b)
			n++
			return true
		})
		if err == nil {
			err = replaceFile(seg.name+asideSuffix, out.Bytes())
		}
		if err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrSpool, s.dir, err)
		}
		names, frames = append(names, filepath.Base(seg.name)+asideSuffix), rest
		seg.pending.Add(-n)
		if err := s.discard(seg, n); err != nil {
			return nil, fmt.Errorf("%w %s: %w", ErrSpool, s.dir, err)
		}
	}
	return names, nil
}

// discard removes a segment that never had more than n batches.
func (s *spool) discard(seg *segment, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n != seg.frames {
		return nil
	}
	s.segments = slices.DeleteFunc(s.segments, func(o *segment) bool { return o == seg })
	s.bytes.Add(-seg.size)
	return errors.Join(seg.file.Close(), os.Remove(seg.name), syncFolder(s.dir))
}

// asideHealth says that there are files which somebody must look at.
func (s *spool) asideHealth() error {
	files, _ := filepath.Glob(filepath.Join(s.dir, "*"+asideSuffix)) // fails only for a malformed pattern
	if len(files) == 0 {
		return nil
	}
	return fmt.Errorf("batches that were in the spool and are not this node's to store were set aside: somebody has put a file there. Look at %s, and move it away", strings.Join(files, ", "))
}
