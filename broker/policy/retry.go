package policy

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/signetbus/signet/internal/wire"
)

// Defaults and bounds of retry.
const (
	DefaultMaxDeliveries = 5
	MaxMaxDeliveries     = 1000
	DefaultRetryMin      = time.Second
	DefaultRetryMax      = time.Minute
	DefaultRetryFactor   = 2.0

	leastRetry  = time.Millisecond
	mostRetry   = 24 * time.Hour
	mostFactor  = 100.0
	maxPatterns = 1000 // of consumers, in one tenant
)

// Retry is how often an event is delivered to one consumer, and how long it waits after
// it was given back. In a declaration zero is "not said"; what StreamRetry.For returns has
// every member.
type Retry struct {
	MaxDeliveries int           // the first one included; one more makes a dead letter
	Min           time.Duration // wait before the second delivery
	Max           time.Duration // the longest wait
	Factor        float64       // of each wait to the one before
}

// Delay is how long an event waits that was given back (-NAK without a delay) after its
// delivery number delivered, from 1. random in [0, 1) spreads the waits over the upper
// half, so that events that failed together do not come back together.
func (r Retry) Delay(delivered uint64, random float64) time.Duration {
	d := float64(r.Min)
	if delivered > 1 {
		d *= math.Pow(r.Factor, float64(min(delivered-1, MaxMaxDeliveries)))
	}
	d = min(d, float64(r.Max))
	return time.Duration(d/2 + d/2*random)
}

// over returns r where it says something, else base.
func (r Retry) over(base Retry) Retry {
	if r.MaxDeliveries != 0 {
		base.MaxDeliveries = r.MaxDeliveries
	}
	if r.Min != 0 {
		base.Min = r.Min
	}
	if r.Max != 0 {
		base.Max = r.Max
	}
	if r.Factor != 0 {
		base.Factor = r.Factor
	}
	return base
}

// String writes what is said, as the policy words it.
func (r Retry) String() string {
	var words []string
	if r.MaxDeliveries != 0 {
		words = append(words, "maxDeliveries "+strconv.Itoa(r.MaxDeliveries))
	}
	if r.Min != 0 {
		words = append(words, "min "+r.Min.String())
	}
	if r.Max != 0 {
		words = append(words, "max "+r.Max.String())
	}
	if r.Factor != 0 {
		words = append(words, "factor "+strconv.FormatFloat(r.Factor, 'g', -1, 64))
	}
	return "(" + strings.Join(words, " ") + ")"
}

// StreamRetry is what the policy says of the consumers of one stream: of the tenant, of
// the stream and of consumers by name, the latter counting more.
type StreamRetry struct {
	rule      Retry // of the stream, or else of the tenant
	consumers []consumerRetry
	said      string // all of it, in words
}

type consumerRetry struct {
	stream, consumer string // names, which may end with *
	retry            Retry
	at               Position
}

// DefaultRetry holds where the policy says nothing.
func DefaultRetry() Retry {
	return Retry{MaxDeliveries: DefaultMaxDeliveries, Min: DefaultRetryMin, Max: DefaultRetryMax, Factor: DefaultRetryFactor}
}

// Retry returns what holds for a consumer of a stream, with every member set. Of the
// patterns of consumers the first that matches counts. A retry queue has what its consumer
// has; other streams that the policy does not declare have the defaults.
func (t *Tenant) Retry(stream, consumer string) Retry {
	if stream == wire.StreamRetry {
		if of, name, ok := wire.RetryOrigin(consumer); ok {
			stream, consumer = of, name
		}
	}
	s := t.Stream(stream)
	if s == nil {
		return DefaultRetry()
	}
	r := s.Retry.rule
	for i := range s.Retry.consumers {
		if c := &s.Retry.consumers[i]; nameMatches(c.consumer, consumer) {
			r = c.retry.over(r)
			break
		}
	}
	r = r.over(DefaultRetry())
	r.Max = max(r.Max, r.Min)
	return r
}

// String is what the stream's declarations say, empty for nothing.
func (s StreamRetry) String() string { return s.said }

// nameMatches reports whether name is pattern, or begins with what stands before its *.
func nameMatches(pattern, name string) bool {
	if before, wild := strings.CutSuffix(pattern, "*"); wild {
		return strings.HasPrefix(name, before)
	}
	return pattern == name
}

// retryDecl is one retry: of a document.
type retryDecl struct {
	rule      Retry
	consumers []consumerRetry
	at        Position
}

func readRetry(r *docReader, n ast.Node) {
	d := &retryDecl{at: r.at(n)}
	fs := retryFields(r, "retry", &d.rule)
	fs["consumers"] = func(n ast.Node) {
		r.list(n, "retry.consumers", func(_ int, n ast.Node) {
			c := consumerRetry{at: r.at(n)}
			fs := retryFields(r, "retry.consumers", &c.retry)
			fs["match"] = func(n ast.Node) {
				pair := parsed(&r.reader, n, "match", checkConsumerPattern)
				c.stream, c.consumer, _ = strings.Cut(pair, ".")
			}
			seen := r.object(n, "retry of a consumer", fs)
			r.need(n, "retry of a consumer", seen, "match")
			checkRetry(r, n, &c.retry)
			if d.consumers = append(d.consumers, c); len(d.consumers) == maxPatterns+1 {
				r.fault(n, "retry.consumers: more than %d", maxPatterns)
			}
		})
	}
	r.object(n, "retry", fs)
	checkRetry(r, n, &d.rule)
	r.doc.retry = d
}

// retryFields are the keys that every level has.
func retryFields(r *docReader, what string, to *Retry) fields {
	return fields{
		"maxDeliveries": func(n ast.Node) { to.MaxDeliveries = r.number(n, what+".maxDeliveries", MaxMaxDeliveries) },
		"backoff": func(n ast.Node) {
			r.object(n, what+".backoff", fields{
				"min":    r.duration("min", &to.Min, leastRetry),
				"max":    r.duration("max", &to.Max, leastRetry),
				"factor": func(n ast.Node) { to.Factor = readFactor(r, n) },
			})
		},
	}
}

// readStreamRetry reads retry: of one stream; consumers are named under that of the tenant.
func readStreamRetry(r *docReader, n ast.Node) (rule Retry) {
	r.object(n, "retry", retryFields(r, "retry", &rule))
	checkRetry(r, n, &rule)
	return rule
}

func readFactor(r *docReader, n ast.Node) float64 {
	text := ""
	switch n := n.(type) {
	case *ast.IntegerNode:
		text = n.Token.Value
	case *ast.FloatNode:
		text = n.Token.Value
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || !(v >= 1 && v <= mostFactor) {
		r.fault(n, "factor: a number from 1 to %g is wanted", mostFactor)
		return 1
	}
	return v
}

func checkRetry(r *docReader, n ast.Node, rule *Retry) {
	if rule.Min > 0 && rule.Max > 0 && rule.Min > rule.Max {
		r.fault(n, "backoff: min %s is more than max %s", rule.Min, rule.Max)
	}
	if max(rule.Min, rule.Max) > mostRetry {
		r.fault(n, "backoff: at most %s", mostRetry)
	}
}

var consumerPattern = regexp.MustCompile(`^([A-Z0-9_-]{1,64}\*?|\*)\.([A-Za-z0-9_-]{1,128}\*?|\*)$`)

// checkConsumerPattern accepts STREAM.CONSUMER, each of which may end with *.
func checkConsumerPattern(s string) (string, error) {
	if !consumerPattern.MatchString(s) {
		return "", fmt.Errorf("%q is not STREAM.CONSUMER; each name may end with *", s)
	}
	return s, nil
}

// addRetry takes over what a tenant has once.
func (m *merged) addRetry(d *document, f *faults) {
	switch {
	case d.retry == nil:
	case m.retry != nil:
		f.add(d.retry.at, "retry is declared twice, first at %s", m.retry.at)
	default:
		m.retry = d.retry
	}
}

// checkRetry faults patterns that no declared stream has.
func (m *merged) checkRetry(f *faults) {
	if m.retry == nil {
		return
	}
	var streams []string
	for _, s := range m.streams {
		streams = append(streams, s.Name)
	}
	for i := range m.retry.consumers {
		c := &m.retry.consumers[i]
		found := c.stream == ""
		for _, s := range streams {
			found = found || nameMatches(c.stream, s)
		}
		if !found {
			f.add(c.at, "retry.consumers: unknown stream %q%s", c.stream, suggest(c.stream, streams, "streams"))
		}
	}
}

// compileRetry gives each stream what holds for its consumers.
func compileRetry(t *Tenant, m *merged) {
	for i := range t.Streams {
		s := &t.Streams[i]
		own := s.Retry.rule
		out := StreamRetry{rule: own}
		if m.retry != nil {
			out.rule = own.over(m.retry.rule)
			for _, c := range m.retry.consumers {
				if nameMatches(c.stream, s.Name) {
					out.consumers = append(out.consumers, c)
				}
			}
		}
		out.said = out.text()
		s.Retry = out
	}
}

func (s *StreamRetry) text() string {
	var words []string
	if s.rule != (Retry{}) {
		words = append(words, s.rule.String())
	}
	for _, c := range s.consumers {
		words = append(words, c.consumer+" "+c.retry.String())
	}
	return strings.Join(words, ", ")
}
