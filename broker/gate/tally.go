package gate

import (
	"bytes"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const (
	// maxRanges bounds the consumers that one connection is counted for; a client that
	// reads more of them in a minute is told of sooner.
	maxRanges = 64
	// maxJudged bounds the subjects that a connection remembers the rule of.
	maxJudged = 1024
)

// tally counts what a connection gets of consumers, and finds the events whose every
// delivery is put on record. The relay calls begin, message and end; take may be called
// from anywhere. Counting allocates for the first event of a consumer only.
type tally struct {
	c *conn

	mu     sync.Mutex // held by the relay for one chunk, so that it costs nothing per event
	counts []count
	last   int // index of the consumer that was counted last
	firsts firsts

	// The relay's alone.
	principal *policy.Principal // that the rest belongs to
	audits    bool              // some rule of its tenant has audit: full
	full      map[string]bool   // by subject
}

// count is a Range under construction.
type count struct {
	prefix []byte // of the ack subjects of the consumer, up to its name and the dot
	tag    uint64 // consumerTag of it
	Range
}

func (t *tally) begin() {
	if p := t.c.access.principal.Load(); p != t.principal {
		t.principal, t.audits, t.full = p, p.Tenant.AuditsFully(), nil
	}
	t.mu.Lock()
}

// end lets go of what begin took, and tells of ranges when there are too many.
func (t *tally) end() {
	var out []Range
	if len(t.counts) > maxRanges {
		out = t.takeLocked()
	}
	t.mu.Unlock()
	if len(out) > 0 {
		t.c.gate.sink.Tallied(t.c.describe(), out)
	}
}

// take returns what was counted and starts anew.
func (t *tally) take() []Range {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.takeLocked()
}

func (t *tally) takeLocked() []Range {
	if len(t.counts) == 0 {
		return nil
	}
	out := make([]Range, 0, len(t.counts))
	for i := range t.counts {
		if t.counts[i].Count > 0 {
			out = append(out, t.counts[i].Range)
		}
	}
	t.counts, t.last = t.counts[:0], 0
	return out
}

// delivered is what an ack subject says of a delivery.
type delivered struct {
	count             *count // of its consumer; nil: it does not come from one
	attempt, sequence uint64
	bad               bool // the subject cannot be read
}

// look reads one message that is not for an inbox of the client's own, or has an ack
// subject.
func (t *tally) look(f *frame) delivered {
	d := delivered{attempt: 1}
	if !hasPrefix(f.reply, wire.PrefixJSAck) {
		return d
	}
	if d.count = t.find(f.reply); d.count != nil {
		var ok bool
		d.attempt, d.sequence, ok = ackNumbers(f.reply[len(d.count.prefix):])
		d.bad = !ok
	}
	return d
}

// message counts what goes to the client.
func (t *tally) message(f *frame, d *delivered, now time.Time) {
	if d.bad {
		return
	}
	if c := d.count; c != nil {
		if c.Count == 0 || d.sequence < c.First {
			c.First = d.sequence
		}
		c.Last = max(c.Last, d.sequence)
		c.Count++
		if d.attempt == 1 {
			t.firsts.note(c, d.sequence, now)
		}
	}
	if !t.audits || !t.isFull(f.subject) {
		return
	}
	one := Delivery{Subject: string(f.subject), Sequence: d.sequence, Attempt: d.attempt}
	if c := d.count; c != nil {
		one.Stream, one.Consumer = c.Stream, c.Consumer
	}
	t.c.gate.sink.Delivered(t.c.describe(), &one)
}

func (t *tally) isFull(subject []byte) bool {
	full, known := t.full[string(subject)] // no allocation
	if known {
		return full
	}
	if t.full == nil || len(t.full) >= maxJudged {
		t.full = make(map[string]bool)
	}
	s := string(subject)
	b := t.principal.Tenant.Binding(s)
	full = b != nil && b.AuditFull
	t.full[s] = full
	return full
}

// find returns the count of the consumer that an ack subject is of, nil if it is none.
func (t *tally) find(ack []byte) *count {
	if t.last < len(t.counts) && bytes.HasPrefix(ack, t.counts[t.last].prefix) {
		return &t.counts[t.last]
	}
	for i := range t.counts {
		if bytes.HasPrefix(ack, t.counts[i].prefix) {
			t.last = i
			return &t.counts[i]
		}
	}
	at := consumerEnd(ack)
	if at < 0 {
		return nil
	}
	rest, consumer := cutLast(ack[:at-1])
	_, stream := cutLast(rest)
	t.last = len(t.counts)
	prefix := bytes.Clone(ack[:at])
	t.counts = append(t.counts, count{
		prefix: prefix, tag: consumerTag(prefix), Range: Range{Stream: string(stream), Consumer: string(consumer)},
	})
	return &t.counts[t.last]
}

// consumerEnd returns where an ack subject goes on after its consumer and the dot, below 0
// if it is none. $JS.ACK.<stream>.<consumer>.… has 9 tokens, the form with domain and
// account 11 or more (jsapi.Ack).
func consumerEnd(ack []byte) int {
	names := 0
	switch dots := bytes.Count(ack, []byte{'.'}); {
	case dots == 8:
		names = 2
	case dots >= 10:
		names = 4
	default:
		return -1
	}
	at := len(wire.PrefixJSAck)
	for range names {
		at += bytes.IndexByte(ack[at:], '.') + 1 // there are as many
	}
	return at
}

// cutLast cuts off the last token.
func cutLast(s []byte) (rest, last []byte) {
	i := bytes.LastIndexByte(s, '.')
	return s[:max(i, 0)], s[i+1:]
}

// ackNumbers reads the number of the delivery and the sequence in the stream from what
// follows the consumer in an ack subject.
func ackNumbers(rest []byte) (attempt, sequence uint64, ok bool) {
	for i := range 2 {
		n, digits := uint64(0), 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			n = n*10 + uint64(rest[digits]-'0')
			digits++
		}
		if digits == 0 || digits > 19 || digits == len(rest) || rest[digits] != '.' {
			return 0, 0, false
		}
		if rest = rest[digits+1:]; i == 0 {
			attempt = n
		} else {
			sequence = n
		}
	}
	return attempt, sequence, true
}

// Tally tells the sink what every connection got of consumers since the last time. The
// broker calls it once a minute.
func (g *Gate) Tally() {
	for _, c := range g.snapshot() {
		if c.ready.Load() {
			c.tallied()
		}
	}
}

func (c *conn) tallied() {
	if ranges := c.relay.tally.take(); len(ranges) > 0 {
		c.gate.sink.Tallied(c.describe(), ranges)
	}
}
