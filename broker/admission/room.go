package admission

import (
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Shortage is what the store does not take, and what the sender is told.
type Shortage struct {
	Code wire.Code // of the refusal; 0 is CodeUnavailable
	// Rule and Detail are those of the refusal.
	Rule, Detail string
	// RetryAfter is when it is worth to try again.
	RetryAfter time.Duration
	// Most is the largest payload, in bytes, that is taken nevertheless; NoPayload for
	// none at all.
	Most int
}

// NoPayload as Shortage.Most refuses empty payloads too.
const NoPayload = -1

// Refusal is nil for a payload that is taken; s may be nil, for no shortage.
func (s *Shortage) Refusal(payload int) *wire.Refusal {
	if s == nil || payload <= s.Most {
		return nil
	}
	code := s.Code
	if code == 0 {
		code = wire.CodeUnavailable
	}
	r := wire.Refuse(code, s.Rule, s.Detail)
	r.RetryAfter = s.RetryAfter
	return r
}

// Room is what a store, or a stream of it, does not take now, by the priority of whoever
// publishes. The zero value takes everything. It is safe for concurrent use.
type Room struct {
	short [len(policy.Priorities)]atomic.Pointer[Shortage]
}

// Set replaces what is not taken of p; nil: everything is. An equal value changes nothing,
// so that it may be set again and again. s must not change afterwards.
func (r *Room) Set(p policy.Priority, s *Shortage) {
	at := &r.short[p.Index()]
	if was := at.Load(); was != nil && s != nil && *was == *s {
		return
	}
	at.Store(s)
}

// Short returns what is not taken of p, nil for nothing. It does not block and does not
// allocate. A nil Room takes everything.
func (r *Room) Short(p policy.Priority) *Shortage {
	if r == nil {
		return nil
	}
	return r.short[p.Index()].Load()
}
