package adminapi

import (
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// ThrottleList is the result of status.throttled: who of the caller's tenant was refused
// because of a limit, most refusals first.
type ThrottleList struct {
	Minutes   int        `json:"minutes"` // that Refused is about
	Throttled []Throttle `json:"throttled"`
	More      int        `json:"more,omitempty"` // rows that are left out
	// Without are the nodes that gave no answer, and why.
	Without map[string]string `json:"without,omitempty"`
}

// Throttle is what one rule has refused one principal at one node.
type Throttle struct {
	Principal    string    `json:"principal,omitempty"` // tenant/name; empty for the sum of what has no row
	Rule         string    `json:"rule"`
	Code         wire.Code `json:"code,omitempty"`
	Name         string    `json:"name,omitempty"`
	Node         string    `json:"node"`
	Refused      uint64    `json:"refused"`
	Last         time.Time `json:"last"`
	RetryAfterMs int64     `json:"retryAfterMs,omitempty"` // of the latest
}
