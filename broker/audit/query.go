package audit

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/signetbus/signet/internal/wire"
)

// Filter selects entries; a zero member selects everything.
type Filter struct {
	Tenant    string
	Principal string // "tenant/name"
	Code      wire.Code
	Class     wire.Class // of the code
	Subject   string     // NATS filter
	Rule      string
}

// Match reports whether the filter selects e.
func (f *Filter) Match(e *Entry) bool {
	return (f.Tenant == "" || f.Tenant == e.Origin.Tenant) &&
		(f.Principal == "" || f.Principal == e.Principal) &&
		(f.Code == 0 || f.Code == e.Code) &&
		(f.Class == "" || f.Class == e.Code.Class()) &&
		(f.Subject == "" || wire.Match(f.Subject, e.Subject)) &&
		(f.Rule == "" || f.Rule == e.Rule)
}

// Lookup returns a copy of the entry that explains ref: the refusal itself, or the
// sample that it was counted on (another refusal of the same principal and rule).
// ok is false when the ring has moved on.
func (t *Trail) Lookup(ref string) (Entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	cursor, ok := t.byRef[ref]
	if !ok {
		base, _, cut := strings.Cut(ref, ".")
		if cursor, ok = t.byRef[base]; !ok || !cut {
			return Entry{}, false
		}
	}
	return *t.entryLocked(cursor), true
}

// List returns copies of up to limit entries after the cursor (0: from the oldest
// kept), oldest first, and the cursor to go on from. limit <= 0 is the whole ring.
func (t *Trail) List(after uint64, f Filter, limit int) (entries []Entry, cursor uint64) {
	entries, cursor, _ = t.list(after, f, limit)
	return entries, cursor
}

func (t *Trail) list(after uint64, f Filter, limit int) (entries []Entry, cursor uint64, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if limit <= 0 {
		limit = t.cfg.Ring
	}
	cursor = max(after, t.next-1-uint64(len(t.ring)))
	if cursor >= t.next { // a cursor of an earlier run
		cursor = t.next - 1 - uint64(len(t.ring))
	}
	for cursor+1 < t.next && len(entries) < limit {
		cursor++
		if e := t.entryLocked(cursor); f.Match(e) {
			entries = append(entries, *e)
		}
	}
	return entries, cursor, t.changed
}

// Tail is List that waits for at least one entry. When ctx ends first it returns
// no entry, the cursor to go on from, and no error: that is how a long poll ends.
func (t *Trail) Tail(ctx context.Context, after uint64, f Filter, limit int) (entries []Entry, cursor uint64) {
	for {
		entries, cursor, changed := t.list(after, f, limit)
		if len(entries) > 0 {
			return entries, cursor
		}
		after = cursor
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, cursor
		}
	}
}

// Cursor returns the cursor of the latest entry; Tail from it sees only new ones.
func (t *Trail) Cursor() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.next - 1
}

// Throttled returns who was refused because of a limit.
func (t *Trail) Throttled() *Throttles { return &t.throttled }

// Counts returns how many refusals of each code there were since New; codes
// without any are left out. Codes that the registry does not know count as
// CodeInternal.
func (t *Trail) Counts() map[wire.Code]uint64 { return t.counts.all() }

// CountsOf is Counts for one tenant: what its administrators may see.
func (t *Trail) CountsOf(tenant string) map[wire.Code]uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.tenants[tenant])
}

// counters has one slot for each registered code.
type counters struct {
	slots [64]atomic.Uint64 // a test holds the registry to this size
}

func (c *counters) add(code wire.Code) {
	i, ok := slot(code)
	if !ok {
		i, _ = slot(wire.CodeInternal)
	}
	c.slots[i].Add(1)
}

func (c *counters) all() map[wire.Code]uint64 {
	m := make(map[wire.Code]uint64)
	for i, e := range wire.Registry() {
		if n := c.slots[i].Load(); n > 0 {
			m[e.Code] = n
		}
	}
	return m
}

// slot finds a code in the registry, which is in code order.
func slot(code wire.Code) (int, bool) {
	return slices.BinarySearchFunc(wire.Registry(), code, func(e wire.Entry, c wire.Code) int { return int(e.Code - c) })
}
