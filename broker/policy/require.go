package policy

import (
	"slices"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Words of Binding.Require: what an event on the subject must bear.
const (
	RequireAttested = "attested" // the broker's attestation, which every event has
	RequireProducer = "producer" // a signature of its producer too
	RequireLogged   = "logged"   // attested, and its stream is in the log
)

// ReplayPast and ReplayFuture bound the recordedtime of a signed event at ingress,
// by the clock of the broker. Within them the deduplication of the stream, which by
// MinDuplicateWindow lasts longer, or the node's memory of ephemeral events, keeps
// a signed event from being taken in twice.
const (
	ReplayPast   = 2 * time.Minute
	ReplayFuture = time.Minute
	// replaySlack is for a clock that is set back, and for the time from the check of
	// recordedtime to the place in the stream.
	replaySlack = time.Minute
	// KeyTurn is how long two keys of a node must be good together for it to go over from
	// one to the other and refuse no signed event that is within those bounds; ten seconds
	// are for the steps in which it looks.
	KeyTurn = ReplayPast + ReplayFuture + 10*time.Second
)

// checkRequire refuses levels that nothing could reach on the subject. That the
// streams of signed events remember them for long enough is a rule for every
// stream: see MinDuplicateWindow.
func (m *merged) checkRequire(f *faults) {
	for _, b := range m.bindings {
		m.checkSilent(b, f)
		switch {
		case b.Require == "" || b.Require == RequireAttested:
		case isRPC(b.Match):
			f.add(b.At, "subject rule %s: require: %s is for events, requests are not events", b.Match, b.Require)
		case b.Require == RequireLogged:
			m.checkLogged(b, f)
		}
	}
}

// checkLogged refuses require: logged where something that is not in a log matches.
func (m *merged) checkLogged(b *bindingDecl, f *faults) {
	for _, s := range m.streams {
		if s.Log || !slices.ContainsFunc(s.Subjects, func(subject string) bool { return wire.Overlap(subject, b.Match) }) {
			continue
		}
		f.add(b.At, "subject rule %s: require: logged, and stream %s at %s has no log: true", b.Match, s.Name, s.At)
	}
	for _, w := range m.ephemeral {
		if wire.Overlap(w.text, b.Match) {
			f.add(b.At, "subject rule %s: require: logged, and ephemeral subject %s at %s is not stored", b.Match, w.text, w.at)
		}
	}
}

// checkSilent refuses a rule that takes a demand of a wider one back without a word:
// the most specific rule holds alone, so one that was written for a schema or a limit
// would let unsigned events in.
func (m *merged) checkSilent(b *bindingDecl, f *faults) {
	if b.Require != "" {
		return
	}
	for _, wider := range m.bindings {
		demands := wider.Require == RequireProducer || wider.Require == RequireLogged
		if !demands || wider.Match == b.Match || isRPC(wider.Match) != isRPC(b.Match) || !wire.Subset(b.Match, wider.Match) {
			continue
		}
		f.add(b.At, "subject rule %s: it holds in place of %s at %s, which has require: %s; say require: %s here too, or require: attested to do without",
			b.Match, wider.Match, wider.At, wider.Require, wider.Require)
		return
	}
}
