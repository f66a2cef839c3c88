package audit

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

const (
	// ThrottledMinutes is how far back the counts of a Throttle go, in whole minutes.
	ThrottledMinutes = 10
	// maxThrottles bounds the rows of Throttles, and so the series of the metric. What has
	// no row counts in one that names neither rule nor principal.
	maxThrottles = 512
	// Others is the rule of that row.
	Others = "(others)"
)

// Throttle is what one rule has refused one principal because of a limit.
type Throttle struct {
	Tenant, Principal, Rule string // Principal is tenant/name
	Code                    wire.Code
	Total                   uint64 // since the row began
	Recent                  uint64 // within the last ThrottledMinutes
	Last                    time.Time
	RetryAfter              time.Duration // of the latest
}

// Throttles are the principals that are refused because of a limit, by rule, for people
// and metrics. It is safe for concurrent use; its size is bounded.
type Throttles struct {
	mu   sync.Mutex
	rows map[throttleKey]*throttleRow
}

type throttleKey struct {
	tenant, principal, rule string
	code                    wire.Code
}

type throttleRow struct {
	total      uint64
	minutes    [ThrottledMinutes]uint64 // by minute, modulo
	minute     int64                    // of the latest
	last       time.Time
	retryAfter time.Duration
}

// throttles reports whether a refusal with this code is one of a limit.
func throttles(code wire.Code) bool {
	return code.Entry().Class == wire.ClassRateLimited || code == wire.CodeSubscriptionLimited || code == wire.CodePriorityShed
}

// add counts one refusal of somebody who was authenticated.
func (t *Throttles) add(r *wire.Refusal, tenant string, now time.Time) {
	if tenant == "" || !throttles(r.Code) {
		return
	}
	key := throttleKey{tenant, r.Principal, r.Rule, r.Code}
	t.mu.Lock()
	defer t.mu.Unlock()
	row := t.rows[key]
	if row == nil {
		row = t.rowLocked(key, now)
	}
	row.advance(now)
	row.total++
	row.minutes[row.minute%ThrottledMinutes]++
	row.last, row.retryAfter = now, r.RetryAfter
}

// rowLocked makes a row, in place of one that is old where there are many.
func (t *Throttles) rowLocked(key throttleKey, now time.Time) *throttleRow {
	if t.rows == nil {
		t.rows = make(map[throttleKey]*throttleRow)
	}
	if len(t.rows) >= maxThrottles {
		for k, row := range t.rows {
			if now.Sub(row.last) >= ThrottledMinutes*time.Minute {
				delete(t.rows, k)
			}
		}
	}
	if len(t.rows) >= maxThrottles {
		// Tenants are the policy's, so there are few: these rows are not bounded.
		key = throttleKey{tenant: key.tenant, rule: Others}
		if row := t.rows[key]; row != nil {
			return row
		}
	}
	row := &throttleRow{minute: now.Unix() / 60}
	t.rows[throttleKey{strings.Clone(key.tenant), strings.Clone(key.principal), strings.Clone(key.rule), key.code}] = row
	return row
}

// advance empties the minutes between the latest and now.
func (r *throttleRow) advance(now time.Time) {
	minute := now.Unix() / 60
	if minute <= r.minute {
		return // also a clock that was set back
	}
	for m := max(r.minute+1, minute-ThrottledMinutes+1); m <= minute; m++ {
		r.minutes[m%ThrottledMinutes] = 0
	}
	r.minute = minute
}

// List returns the rows, those with the most refusals in the last minutes first.
func (t *Throttles) List(now time.Time) []Throttle {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]Throttle, 0, len(t.rows))
	for k, row := range t.rows {
		row.advance(now)
		one := Throttle{Tenant: k.tenant, Principal: k.principal, Rule: k.rule, Code: k.code, Total: row.total, Last: row.last, RetryAfter: row.retryAfter}
		for _, n := range row.minutes {
			one.Recent += n
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Throttle) int {
		return cmp.Or(cmp.Compare(b.Recent, a.Recent), cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Code, b.Code))
	})
	return out
}
