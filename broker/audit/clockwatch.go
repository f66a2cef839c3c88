package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
)

const (
	// clockFile is beside the spool: the time up to which the clock was believed.
	clockFile = "clock.json"
	// clockStep is by how much the clock may be ahead of what is known of the time for
	// records to go: a node may have been off for so long. For records that are kept for less
	// than clockStep*clockPart it is that part of their time.
	clockStep = 7 * 24 * time.Hour
	clockPart = 4
	// clockFault is by how much it may be ahead for the node to believe it in the end.
	clockFault = 30 * 24 * time.Hour
	// clockEvery is how often the time is written down, and the other nodes' are read.
	clockEvery = 10 * time.Minute
	// clockSettle is how long a node must have run with a clock that is somewhat ahead.
	clockSettle = 24 * time.Hour
)

// clockWatch says whether this node's clock may decide that records are too old. A clock
// that is a year ahead would have everything pruned. What is known of the time is what this
// node last believed and how long it has run since, by a clock that nobody sets, and what
// other nodes have signed of late. Safe for concurrent use.
type clockWatch struct {
	began time.Time // of this process, for the clock that nobody sets

	mu      sync.Mutex
	loaded  bool
	known   time.Time     // the time was this at least,
	at      time.Duration // when the process had run for so long; known is zero: nothing is known
	others  time.Time     // the latest head of another node in the stream
	nextAt  time.Duration // when the file is written and the stream is read again
	fault   error         // the clock must not be believed
	unread  error         // what is known could not be read
	ahead   time.Duration // of what is known
	offAt   time.Duration // since when it is ahead or behind; below 0: it is not
	checked bool
}

// clockState is clock.json.
type clockState struct {
	V    int       `json:"v"`
	Time time.Time `json:"time"`
}

// look compares now with what is known.
func (c *clockWatch) look(ctx context.Context, p *Pruner, now time.Time) error {
	run := time.Since(c.began)
	c.mu.Lock()
	due := !c.checked || run >= c.nextAt
	c.mu.Unlock()
	var others time.Time
	file := filepath.Join(p.cfg.Journal.cfg.Dir, clockFile)
	if due {
		var err error
		if others, err = newestOfOthers(ctx, p); err != nil {
			return err
		}
		c.load(file)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if due {
		c.checked, c.nextAt = true, run+clockEvery
		if others.After(c.others) {
			c.others = others
		}
	}
	was := c.fault
	c.judgeLocked(p, file, now, run)
	if c.fault != nil && was == nil {
		p.cfg.Log.Error().Err(c.fault).Msg("the audit trail is not pruned by age")
	}
	if c.carryLocked(now, run); c.fault != nil || !due {
		return nil
	}
	b, err := json.Marshal(clockState{V: 1, Time: c.known.Add(run - c.at).UTC().Truncate(time.Second)})
	if err == nil {
		err = replaceFile(file, b)
	}
	if err != nil { // what is pruned for its size makes room, and must go on
		p.cfg.Log.Warn().Err(err).Msg("the time that the audit trail is pruned by was not written down")
	}
	return nil
}

// carryLocked takes now for what is known from here on, unless it is ahead or behind. A
// clock that is ahead by what is not implausible is believed after a day: until then
// somebody, or a time service, may set it.
func (c *clockWatch) carryLocked(now time.Time, run time.Duration) {
	if c.ahead.Abs() <= clockEvery {
		c.offAt = -1
	} else if c.offAt < 0 {
		c.offAt = run
	}
	if c.fault == nil && (c.known.IsZero() || c.offAt < 0 || c.ahead > 0 && run-c.offAt >= clockSettle) {
		c.known, c.at = now, run
	}
}

// judgeLocked sets fault and ahead.
func (c *clockWatch) judgeLocked(p *Pruner, file string, now time.Time, run time.Duration) {
	if c.fault, c.ahead = c.unread, 0; c.fault != nil {
		return
	}
	if err := p.cfg.Clock(); err != nil {
		c.fault = fmt.Errorf("records are not pruned for their age: %w", err)
		return
	}
	expected := c.others
	if !c.known.IsZero() {
		if at := c.known.Add(run - c.at); at.After(expected) {
			expected = at
		}
	}
	if expected.IsZero() {
		return // a new node by itself: there is nothing to compare with
	}
	if c.ahead = now.Sub(expected); c.ahead > clockFault {
		c.fault = fmt.Errorf("records are not pruned for their age: this node's clock says %s, and by what it knew and what other nodes signed it is about %s; set the clock. If it is right, and all nodes were off for so long, remove %s and start the node again",
			now.UTC().Format(time.RFC3339), expected.UTC().Format(time.RFC3339), file)
	}
}

// allows says whether what is older than an age may go.
func (c *clockWatch) allows(age time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checked && c.fault == nil && c.ahead <= min(clockStep, age/clockPart)
}

func (c *clockWatch) believed() bool { return c.health() == nil }

func (c *clockWatch) health() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fault
}

// load reads clock.json, once.
func (c *clockWatch) load(file string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded {
		return
	}
	data, err := os.ReadFile(file)
	var s clockState
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err == nil && json.Unmarshal(data, &s) == nil && s.V == 1 && !s.Time.IsZero():
	default:
		c.unread = fmt.Errorf("records are not pruned for their age: %s is not readable (%w); remove it if this node's clock is right, and start the node again", file, errors.Join(err, errors.New("or not of this version")))
	}
	c.loaded, c.known = true, s.Time
}

// newestOfOthers is the latest time at which another node signed a batch that the stream
// has; zero: there is none.
func newestOfOthers(ctx context.Context, p *Pruner) (newest time.Time, err error) {
	subjects, err := p.stream.Subjects(ctx, PrefixRecord+">")
	if err != nil {
		return newest, err
	}
	for _, subject := range subjects {
		m, err := p.stream.Last(ctx, subject)
		if err != nil {
			return newest, err
		}
		if m == nil {
			continue
		}
		b, err := auditlog.ParseBatch(m.Data)
		if err != nil || b.ID().Node == p.cfg.Journal.cfg.Node || p.cfg.Verify(b, b.Records[0].Tenant) != nil {
			continue
		}
		if t := b.Records[len(b.Records)-1].Time; t.After(newest) {
			newest = t
		}
	}
	return newest, nil
}

// Health says why records are not pruned for their age, or nil.
func (p *Pruner) Health() error { return p.clock.health() }
