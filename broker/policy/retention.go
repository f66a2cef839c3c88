package policy

import "github.com/goccy/go-yaml/ast"

// Retention says when an event leaves its stream. It cannot change while the stream is
// there.
type Retention uint8

const (
	// RetentionLimits keeps events for maxAge, whoever has read them. The default.
	RetentionLimits Retention = iota
	// RetentionInterest drops an event when every consumer of the stream has acknowledged
	// it. An event that no consumer wants is accepted and not kept.
	RetentionInterest
	// RetentionWorkQueue drops an event when it is acknowledged. Consumers must not
	// overlap in what they take.
	RetentionWorkQueue
)

var retentions = []string{"limits", "interest", "workqueue"}

// String returns the word of the policy.
func (r Retention) String() string { return retentions[r] }

// Forgets says whether an event can leave the stream before its duplicateWindow is over,
// but for an administrator who purges: a server that starts anew knows only the ids of
// what is still stored.
func (s *Stream) Forgets() bool {
	return s.Retention != RetentionLimits || s.MessageTTL || s.UnsafeRollup || s.UnsafeSchedules
}

func readRetention(r *docReader, n ast.Node) Retention {
	v, ok := r.text(n, "retention")
	for i, word := range retentions {
		if v == word {
			return Retention(i)
		}
	}
	if ok {
		r.fault(n, "retention: limits, interest or workqueue is wanted, not %q", v)
	}
	return RetentionLimits
}
