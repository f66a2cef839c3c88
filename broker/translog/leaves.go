package translog

import (
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/signing/tlog"
)

// leaves makes the leaves of one log while this node writes it. It belongs to the
// goroutine of the writer.
type leaves struct {
	hasher   tlog.Hasher
	attested *AttestedStream // what the gates of this node know of the stream; nil: nothing
	done     func()          // with attested
	log      zerolog.Logger
	taken    uint64 // digests that were taken from attested
	told     uint64 // how many of them State.Attested has
}

func (l *leaves) begin(a *Attested, src *Source, log zerolog.Logger) {
	if a == nil {
		return
	}
	l.log = log.With().Str("tenant", src.Tenant).Str("stream", src.Stream).Logger()
	l.attested = a.Stream(src.Account, src.Stream)
	l.done = l.attested.write()
}

func (l *leaves) end() {
	if l.done != nil {
		l.done()
	}
}

// news is how many digests were taken since it was asked last.
func (l *leaves) news() uint64 {
	n := l.taken - l.told
	l.told = l.taken
	return n
}

// hash returns the leaf hash of a message; whole if nothing may be taken from a gate.
func (l *leaves) hash(m *message, whole bool) tlog.Hash {
	if !whole && l.attested != nil {
		if content, ok := l.attested.digest(m.subject, m.block, m.data); ok {
			leaf := l.hasher.StoredAs(m.seq, m.stored, m.subject, m.block, m.data, content)
			if l.taken++; l.taken%proveEvery == 1 {
				leaf = l.prove(m, leaf)
			}
			return leaf.Hash()
		}
	}
	leaf := l.hasher.Stored(m.seq, m.stored, m.subject, m.block, m.data)
	return leaf.Hash()
}

// prove computes the leaf of a message whole, and gives up on Attested where that is not
// the leaf that it led to.
func (l *leaves) prove(m *message, leaf tlog.Leaf) tlog.Leaf {
	whole := l.hasher.Stored(m.seq, m.stored, m.subject, m.block, m.data)
	if whole != leaf {
		l.attested.all.wrong.Store(true)
		l.log.Error().Uint64("sequence", m.seq).Str("subject", m.subject).
			Msg("a gate has hashed another event than it has written; the logs of this node compute everything themselves from here on: report this, and run signet log verify")
	}
	return whole
}
