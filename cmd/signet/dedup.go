package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/policy"
)

// dedupEntry is what one remembered event id costs in memory, in bytes.
const dedupEntry = 131

// dedupMemory says what the deduplication of a tenant can cost at most: the rates
// that its limits allow times the longest window of its streams.
func dedupMemory(t *policy.Tenant) string {
	var window time.Duration
	for i := range t.Streams {
		window = max(window, t.Streams[i].DuplicateWindow)
	}
	if window == 0 {
		return "no streams"
	}
	var rate float64
	var unbounded []string
	for _, p := range t.Principals() {
		if p.Disabled || len(p.Grants.Publish.All()) == 0 {
			continue
		}
		if r, ok := messageRate(p); ok {
			rate += r
		} else {
			unbounded = append(unbounded, p.Name)
		}
	}
	if rate == 0 && len(unbounded) == 0 {
		return "nobody may publish yet"
	}
	text := fmt.Sprintf("deduplication takes at most %s of memory (%.0f events/s x %s x %d B)",
		size(int64(rate*window.Seconds()*dedupEntry)), rate, window, dedupEntry)
	if len(unbounded) > 0 {
		text += "; beside it, without a message limit: " + strings.Join(unbounded, ", ")
	}
	return text
}

// messageRate is the lowest limit that counts every publish of p.
func messageRate(p *policy.Principal) (rate float64, ok bool) {
	for i := range p.Limits {
		if l := &p.Limits[i]; l.Match == "" && l.Types == nil && l.Per == policy.PerPrincipal && l.Messages > 0 && (!ok || l.Messages < rate) {
			rate, ok = l.Messages, true
		}
	}
	return rate, ok
}
