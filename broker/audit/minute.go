package audit

import (
	"net"
	"sync"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
)

const (
	// maxMinute bounds what one minute tells apart; what is beyond is counted by tenant,
	// principal and kind.
	maxMinute = 4096
	// MaxEach is how many records of a kind Each makes for a principal at an address in a
	// minute, before equal ones are counted: a client that logs in in a loop must not fill
	// the trail.
	MaxEach = 60
)

// Minute gathers what would be too much one by one: deliveries, and reads of the admin
// API. The broker flushes it once a minute. Safe for concurrent use; Count does no I/O.
type Minute struct {
	journal *Journal

	mu      sync.Mutex
	entries map[minuteKey]*auditlog.Entry
	order   []*auditlog.Entry
	each    map[eachKey]int
}

type eachKey struct {
	kind              auditlog.Kind
	tenant, who, host string
}

// hostOf is an address without the port, which each connection has another of.
func hostOf(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}

type minuteKey struct {
	kind                                   auditlog.Kind
	outcome                                auditlog.Outcome
	tenant, who, subject, stream, consumer string
	host, detail                           string
	code                                   wire.Code
}

// NewMinute returns an empty Minute that flushes to j.
func NewMinute(j *Journal) *Minute {
	return &Minute{journal: j, entries: map[minuteKey]*auditlog.Entry{}, each: map[eachKey]int{}}
}

// Count adds e, which stands for e.Count (0: one), to what is equal in all but time,
// port of the address and numbers. The first one gives the time; First and Last are the
// lowest and the highest.
func (m *Minute) Count(e auditlog.Entry) {
	e.Count = max(e.Count, 1)
	if e.Time.IsZero() {
		e.Time = m.journal.cfg.Now()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	key := minuteKey{e.Kind, e.Outcome, e.Tenant, e.Who, e.Subject, e.Stream, e.Consumer, hostOf(e.Remote), e.Detail, e.Code}
	have := m.entries[key]
	if have == nil && len(m.entries) >= maxMinute {
		key.subject, key.stream, key.consumer, e.Stream, e.Consumer, e.First, e.Last = "", "", "", "", "", 0, 0
		key.host, key.detail, e.Remote = "", "", ""
		e.Subject, e.Detail = "", "several: there was too much to tell apart"
		have = m.entries[key]
	}
	if have == nil {
		m.entries[key] = &e
		m.order = append(m.order, &e)
		return
	}
	have.Count += e.Count
	have.Last = max(have.Last, e.Last)
	if e.First > 0 {
		have.First = min(have.First, e.First)
	}
}

// Each puts e on record by itself, up to MaxEach of its kind, principal and address in a
// minute; of those beyond, equal ones are one record with their number. It is not for
// what takes something away: nothing may be hidden among repeats.
func (m *Minute) Each(e auditlog.Entry) {
	key := eachKey{e.Kind, e.Tenant, e.Who, hostOf(e.Remote)}
	m.mu.Lock()
	by := m.each[key] < MaxEach && len(m.each) < maxMinute
	if by {
		m.each[key]++
	}
	m.mu.Unlock()
	if by {
		m.journal.Note(e)
		return
	}
	m.Count(e)
}

// Flush puts what was gathered on record. floor returns the ack floor of a consumer, 0
// if it is not known; nil: none is.
func (m *Minute) Flush(floor func(tenant, stream, consumer string) uint64) {
	m.mu.Lock()
	list := m.order
	m.order = nil
	clear(m.entries)
	clear(m.each)
	m.mu.Unlock()
	for _, e := range list {
		if e.Kind == auditlog.KindDelivered && floor != nil && e.Consumer != "" {
			e.Floor = floor(e.Tenant, e.Stream, e.Consumer)
		}
		if e.Count == 1 && e.Kind != auditlog.KindDelivered {
			e.Count = 0
		}
		m.journal.Note(*e)
	}
}

// Tenants returns the tenants of which deliveries were gathered.
func (m *Minute) Tenants() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	seen := map[string]bool{}
	var out []string
	for _, e := range m.order {
		if e.Kind == auditlog.KindDelivered && !seen[e.Tenant] {
			seen[e.Tenant] = true
			out = append(out, e.Tenant)
		}
	}
	return out
}
