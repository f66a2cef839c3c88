package doctor

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Severity is a state of Nagios; its number is the exit code.
type Severity int

// The severities.
const (
	OK       Severity = 0
	Warning  Severity = 1
	Critical Severity = 2
	Unknown  Severity = 3 // it could not be found out
)

var severityNames = [...]string{"ok", "warning", "critical", "unknown"}

func (s Severity) String() string {
	if s < OK || s > Unknown {
		return severityNames[Unknown]
	}
	return severityNames[s]
}

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// rank orders severities: what is known to be broken comes before what is not known.
func (s Severity) rank() int { return [...]int{OK: 0, Unknown: 1, Warning: 2, Critical: 3}[s] }

// Worse returns the worse of two: critical, warning, unknown, ok.
func Worse(x, y Severity) Severity {
	if x.rank() >= y.rank() {
		return x
	}
	return y
}

// Finding is the result of one check on one object.
type Finding struct {
	ID       string   `json:"id"`               // stable: one of Checks
	Object   string   `json:"object,omitempty"` // what was looked at: file, stream, consumer, node
	Severity Severity `json:"severity"`
	What     string   `json:"what"`
	Measure  *Measure `json:"measure,omitempty"`
	Fix      string   `json:"fix,omitempty"` // a command, or what to do; only where not ok
}

// Measure is the figure behind a finding. A threshold that is nil does not apply.
type Measure struct {
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"` // s, B, % or empty for a count
	Warning  *float64 `json:"warning,omitempty"`
	Critical *float64 `json:"critical,omitempty"`
	Below    bool     `json:"below,omitempty"` // it is worse below a threshold, not above
}

// Report is the result of an examination.
type Report struct {
	Time     time.Time `json:"time"`
	Severity Severity  `json:"severity"` // the worst of all
	Findings []Finding `json:"findings"` // the worst first
}

// NewReport sorts findings, leaves those out whose ID is in ignore, and finds the
// worst. Without findings the severity is unknown: nothing was examined.
func NewReport(now time.Time, findings []Finding, ignore []string) *Report {
	r := &Report{Time: now.UTC().Truncate(time.Second), Findings: []Finding{}}
	for i := range findings {
		f := &findings[i]
		if slices.Contains(ignore, f.ID) {
			continue
		}
		if f.Severity == OK {
			f.Fix = ""
		}
		r.Findings = append(r.Findings, *f)
		r.Severity = Worse(r.Severity, f.Severity)
	}
	if len(r.Findings) == 0 {
		r.Severity = Unknown
	}
	slices.SortStableFunc(r.Findings, func(x, y Finding) int {
		return cmp.Or(y.Severity.rank()-x.Severity.rank(), cmp.Compare(x.ID, y.ID), cmp.Compare(x.Object, y.Object))
	})
	return r
}

// Count returns how many findings have severity s.
func (r *Report) Count(s Severity) int {
	n := 0
	for i := range r.Findings {
		if r.Findings[i].Severity == s {
			n++
		}
	}
	return n
}

// findings collects.
type findings []Finding

func (f *findings) add(id, object string, s Severity, fix, format string, args ...any) *Finding {
	*f = append(*f, Finding{ID: id, Object: object, Severity: s, Fix: fix, What: fmt.Sprintf(format, args...)})
	return &(*f)[len(*f)-1]
}

// above adds a finding that gets worse as value rises.
func (f *findings) above(id, object string, value float64, unit string, p Pair, fix, format string, args ...any) {
	s := OK
	switch {
	case p.Critical > 0 && value >= p.Critical:
		s = Critical
	case p.Warning > 0 && value >= p.Warning:
		s = Warning
	}
	f.add(id, object, s, fix, format, args...).measure(value, unit, p)
}

// below adds a finding that gets worse as value falls.
func (f *findings) below(id, object string, value float64, unit string, p Pair, fix, format string, args ...any) {
	s := OK
	switch {
	case value < p.Critical:
		s = Critical
	case value < p.Warning:
		s = Warning
	}
	fd := f.add(id, object, s, fix, format, args...)
	fd.measure(value, unit, p)
	fd.Measure.Below = true
}

func (f *Finding) measure(value float64, unit string, p Pair) {
	f.Measure = &Measure{Value: math.Round(value*1000) / 1000, Unit: unit}
	if p.Warning > 0 {
		f.Measure.Warning = &p.Warning
	}
	if p.Critical > 0 {
		f.Measure.Critical = &p.Critical
	}
}

// expiry judges the time that is left until end.
func (f *findings) expiry(id, object string, end, now time.Time, t Thresholds, renew, what string) {
	left := end.Sub(now)
	if left <= 0 {
		f.add(id, object, Critical, renew, "%s expired %s", what, date(end)).measure(left.Seconds(), "s", t.Expiry)
		(*f)[len(*f)-1].Measure.Below = true
		return
	}
	f.below(id, object, left.Seconds(), "s", t.Expiry, renew, "%s expires %s", what, date(end))
}
