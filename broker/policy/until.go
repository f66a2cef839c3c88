package policy

import (
	"errors"
	"fmt"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// parseTime reads a moment as RFC 3339 with a zone, cut to seconds.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.Year() < 2000 || t.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%q is not a time: write it as 2027-01-31T18:00:00Z", s)
	}
	return t.UTC().Truncate(time.Second), nil
}

// limited reads one entry of a list: a plain word, or a mapping of key and until.
func (r *docReader) limited(n ast.Node, key, what string, check func(string) (string, error)) (word string, until time.Time) {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		return parsed(&r.reader, n, what, check), until
	}
	seen := r.object(n, what, fields{
		key:     func(n ast.Node) { word = parsed(&r.reader, n, what, check) },
		"until": func(n ast.Node) { until = parsed(&r.reader, n, what+".until", parseTime) },
	})
	r.need(n, what, seen, key, "until")
	return word, until
}

// earlier returns the first of two moments, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// clock sorts out what has lapsed at one moment, and finds the next one.
type clock struct {
	now  time.Time
	next time.Time // zero: nothing lapses later
	past int       // grants and principals that have lapsed
}

// over reports whether until has come.
func (c *clock) over(until time.Time) bool {
	switch {
	case until.IsZero():
		return false
	case !until.After(c.now):
		c.past++
		return true
	}
	c.next = earlier(c.next, until)
	return false
}

// NextLapse returns when the next grant, role or principal of the policy lapses: from
// then on the policy must be compiled anew. Zero: never.
func (s *Set) NextLapse() time.Time { return s.clock.next }

// Lapsed returns how many grants and principals of the policy had lapsed when it was
// compiled. Two sets of one digest and one count decide alike.
func (s *Set) Lapsed() int { return s.clock.past }

// errLapse is for a clock that is not set.
var errLapse = errors.New("policy: compile it as of a time after the year 2000")
