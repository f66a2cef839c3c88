package dlq

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Filter selects records. A zero member selects everything; all members must hold.
type Filter struct {
	Reasons   []Reason
	Stage     Stage
	Code      wire.Code
	Principal string // "tenant/name", or the name alone
	Subject   string // NATS filter on the original subject; wildcards allowed
	Ref       string
	Stream    string // of the origin
	Consumer  string // of the origin
	Type      string // CloudEvents type; a trailing * matches any rest
	Where     []Where
	Since     time.Time
	Until     time.Time // exclusive
}

// MaxWhere is how many conditions on the payload a filter may have.
const MaxWhere = 8

// Validate returns an error wrapping ErrRecord for an unknown reason or stage, a
// malformed subject filter, too many conditions, or an empty time range.
func (f *Filter) Validate() error {
	for _, r := range f.Reasons {
		if !r.Valid() {
			return fmt.Errorf("%w: unknown reason %.32q", ErrRecord, r)
		}
	}
	switch {
	case f.Stage != "" && !f.Stage.Valid():
		return fmt.Errorf("%w: unknown stage %.32q", ErrRecord, f.Stage)
	case f.Subject != "" && wire.CheckRawSubject(f.Subject, true) != nil:
		return fmt.Errorf("%w: malformed subject filter", ErrRecord)
	case len(f.Where) > MaxWhere:
		return fmt.Errorf("%w: more than %d conditions on the payload", ErrRecord, MaxWhere)
	case !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until):
		return fmt.Errorf("%w: since is not before until", ErrRecord)
	}
	return nil
}

// Match reports whether the filter selects r.
func (f *Filter) Match(r *Record) bool {
	switch {
	case len(f.Reasons) > 0 && !slices.Contains(f.Reasons, r.Reason),
		f.Stage != "" && f.Stage != r.Stage,
		f.Code != 0 && f.Code != r.Code,
		f.Principal != "" && !samePrincipal(f.Principal, r.Principal),
		f.Subject != "" && !wire.Match(f.Subject, r.NATSSubject),
		f.Ref != "" && f.Ref != r.Ref,
		f.Stream != "" && f.Stream != r.Origin.Stream,
		f.Consumer != "" && f.Consumer != r.Origin.Consumer,
		!f.Since.IsZero() && r.Time.Before(f.Since),
		!f.Until.IsZero() && !r.Time.Before(f.Until):
		return false
	}
	if f.Type != "" && !matchType(f.Type, EventType(r)) {
		return false
	}
	return len(f.Where) == 0 || whereAll(f.Where, r.Payload)
}

func matchType(want, have string) bool {
	if start, ok := strings.CutSuffix(want, "*"); ok {
		return strings.HasPrefix(have, start)
	}
	return want == have
}

// Subjects returns the narrowest subject filters on the DLQ stream that keep every
// record the filter selects; Match still decides.
func (f *Filter) Subjects() []string {
	principal := "*"
	if f.Principal != "" {
		principal = token(f.Principal)
	}
	if len(f.Reasons) == 0 {
		return []string{wire.PrefixDLQ + "*." + principal}
	}
	var subjects []string
	for _, r := range f.Reasons {
		if s := wire.PrefixDLQ + string(r) + "." + principal; !slices.Contains(subjects, s) {
			subjects = append(subjects, s)
		}
	}
	return subjects
}

func samePrincipal(want, have string) bool {
	if strings.Contains(want, "/") {
		return want == have
	}
	_, name, ok := strings.Cut(have, "/")
	return ok && name == want || have == want
}
