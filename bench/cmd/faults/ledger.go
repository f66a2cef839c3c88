package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// policy lets one principal publish everything, another read it, and a third compare it
// with its log.
const policy = `tenant: faults
streams:
  - {name: FAULTS, subjects: [faults.>], maxBytes: 3GiB, log: true}
kv:
  - {bucket: churn, maxBytes: 256MiB}
  - {bucket: aged, maxBytes: 256MiB, ttl: 5s}
deadLetter: {maxBytes: 1MiB}
schemas:
  - {name: entry, version: 1, text: '{"type": "object", "required": ["publisher", "number", "pad"]}'}
subjects:
  - {match: faults.>, schema: entry}
principals:
  - name: publisher
    identities: [{nkey: {{nkey "publisher"}}}]
    publish: [faults.>]
    kv: {read: [churn, aged], write: [churn, aged]}
  - name: reader
    identities: [{nkey: {{nkey "reader"}}}]
    subscribe: [faults.>]
  - name: auditor
    identities: [{nkey: {{nkey "auditor"}}}]
    admin: [log]
`

// policyWith is policy for a smaller volume: at most 80 % of one may be reserved.
func policyWith(maxBytes string) string {
	// The buckets are for the key changes, which do not come here.
	return strings.NewReplacer("3GiB", maxBytes, "256MiB", "8MiB").Replace(policy)
}

const (
	stream    = "FAULTS"
	principal = "faults/publisher"
)

// entry is the payload of one event: who sent it, and as which of his.
type entry struct {
	Publisher int    `json:"publisher"`
	Number    int    `json:"number"`
	Pad       string `json:"pad"`
}

func subjectOf(publisher int) string { return "faults.p" + strconv.Itoa(publisher) }

var pad = string(bytes.Repeat([]byte{'x'}, 200))

// encode is one payload; reading back compares it byte for byte.
func encode(publisher, number int) []byte {
	b, err := json.Marshal(entry{publisher, number, pad})
	if err != nil {
		panic(err) // a struct of numbers and a string
	}
	return b
}

// ledger holds what was sent and what was acknowledged. Numbers of a publisher
// start at 1 and are sent in order. Safe for concurrent use.
type ledger struct {
	mu    sync.Mutex
	lines []line // by publisher
	total int

	clocks time.Duration // how far the brokers' clocks are off at most; set before judge
	far    bool          // by more than is promised: what was tried again may be there twice
}

// line is one publisher: the stream sequence of each acknowledged number, 0 where
// no acknowledgement came. Its length is what was sent.
type line struct {
	sequence []uint64
}

func newLedger() *ledger { return &ledger{} }

// publisher opens a new line.
func (l *ledger) publisher() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line{})
	return len(l.lines) - 1
}

// send records that the next number is about to be sent.
func (l *ledger) send(publisher int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.lines[publisher]
	p.sequence = append(p.sequence, 0)
	return len(p.sequence)
}

// count is how many were sent.
func (l *ledger) count(publisher int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines[publisher].sequence)
}

// ack records an acknowledgement.
func (l *ledger) ack(publisher, number int, sequence uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.lines[publisher].sequence[number-1]
	if *p == 0 {
		l.total++
	}
	*p = sequence
}

func (l *ledger) acked() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// verdict compares what is stored with the ledger. Feed it the stream in order.
// Publishers may go on meanwhile: only what was acknowledged before judge can be
// missing.
type verdict struct {
	l      *ledger
	before [][]uint64 // the sequences at the time of judge
	last   []int      // by publisher: number of its latest stored event
	seen   [][]bool   // by publisher and number, as far as stored
	stored int

	Acked      int
	Lost       int // acknowledged and not there
	Twice      int // there more than once
	Disorder   int // a publisher's later event stored before an earlier one
	Moved      int // stored under another sequence than acknowledged
	Foreign    int // never sent, or not as it was sent
	Unattested int // refused by the verifier, or attested for somebody else
	recorded   timeline
	kept       timeline
	example    error
}

func (l *ledger) judge() *verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := &verdict{l: l, last: make([]int, len(l.lines)), seen: make([][]bool, len(l.lines)), Acked: l.total}
	for i := range l.lines {
		v.before = append(v.before, slices.Clone(l.lines[i].sequence))
	}
	return v
}

// sent returns whether the number was sent, and the sequence of its acknowledgement.
func (l *ledger) sent(publisher, number int) (sequence uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if publisher < 0 || publisher >= len(l.lines) || number < 1 || number > len(l.lines[publisher].sequence) {
		return 0, false
	}
	return l.lines[publisher].sequence[number-1], true
}

func (v *verdict) fault(count *int, format string, args ...any) {
	*count++
	if v.example == nil {
		v.example = fmt.Errorf(format, args...)
	}
}

// event takes one stored event.
func (v *verdict) event(natsSubject string, data []byte, sequence uint64) {
	v.stored++
	var e entry
	if err := json.Unmarshal(data, &e); err != nil {
		v.fault(&v.Foreign, "sequence %d: %w", sequence, err)
		return
	}
	want, ok := v.l.sent(e.Publisher, e.Number)
	if !ok || e.Publisher >= len(v.seen) || natsSubject != subjectOf(e.Publisher) || !bytes.Equal(data, encode(e.Publisher, e.Number)) {
		v.fault(&v.Foreign, "sequence %d on %s: publisher %d never sent this as number %d", sequence, natsSubject, e.Publisher, e.Number)
		return
	}
	for len(v.seen[e.Publisher]) < e.Number {
		v.seen[e.Publisher] = append(v.seen[e.Publisher], false)
	}
	seen := &v.seen[e.Publisher][e.Number-1]
	if *seen {
		v.fault(&v.Twice, "sequence %d: number %d of publisher %d again", sequence, e.Number, e.Publisher)
		return
	}
	*seen = true
	if e.Number < v.last[e.Publisher] {
		v.fault(&v.Disorder, "sequence %d: number %d of publisher %d after %d", sequence, e.Number, e.Publisher, v.last[e.Publisher])
	}
	v.last[e.Publisher] = e.Number
	if want != 0 && want != sequence {
		v.fault(&v.Moved, "number %d of publisher %d is at sequence %d, acknowledged at %d", e.Number, e.Publisher, sequence, want)
	}
}

// close counts what is missing, after the last event.
func (v *verdict) close() {
	for p, sequences := range v.before {
		for n, seq := range sequences {
			if seq != 0 && (n >= len(v.seen[p]) || !v.seen[p][n]) {
				v.fault(&v.Lost, "number %d of publisher %d, acknowledged at sequence %d, is not there", n+1, p, seq)
			}
		}
	}
}

func (v *verdict) print(what string, faults int) {
	fmt.Printf("%s: %d faults, %d acked, %d stored: LOST %d, twice %d, out of order %d, moved %d, foreign %d, not attested %d\n",
		what, faults, v.Acked, v.stored, v.Lost, v.Twice, v.Disorder, v.Moved, v.Foreign, v.Unattested)
}

var errBroken = errors.New("a promise was broken")

func (v *verdict) err() error {
	switch {
	case v.Lost+v.Disorder+v.Foreign+v.Unattested > 0, v.Twice+v.Moved > 0 && !v.l.far:
		return fmt.Errorf("%w: first: %w", errBroken, v.example)
	case v.Acked == 0:
		return fmt.Errorf("%w: not one event was acknowledged", errBroken)
	}
	return nil
}
