package wire

import (
	"encoding/json"
	"fmt"
	"time"
)

// Problem is a refusal as JSON (RFC 9457 members type, title, status, detail and
// our own). It stands beside the JetStream error in an answer; docs/spec/errors.md.
type Problem struct {
	Type         string       `json:"type"` // urn:signet:problem:<Name>
	Title        string       `json:"title"`
	Status       int          `json:"status"`
	Code         Code         `json:"code"`
	Class        Class        `json:"class"`
	Rule         string       `json:"rule,omitempty"`
	Subject      string       `json:"subject,omitempty"`
	Principal    string       `json:"principal,omitempty"`
	Detail       string       `json:"detail,omitempty"`
	Ref          string       `json:"ref,omitempty"`
	RetryAfterMs int64        `json:"retryAfterMs,omitempty"`
	Remaining    *int64       `json:"remaining,omitempty"` // of a rate limit, 0 included
	Violations   []Violation  `json:"violations,omitempty"`
	Truncated    bool         `json:"truncated,omitempty"`
	Fix          string       `json:"fix,omitempty"`
	Explain      *Explanation `json:"explain,omitempty"`
}

// Problem converts r; explain says whether the caller may see policy internals.
func (r *Refusal) Problem(explain bool) Problem {
	e := r.Code.Entry()
	p := Problem{
		Type: "urn:signet:problem:" + e.Name, Title: e.Title, Status: e.Status,
		Code: r.Code, Class: e.Class, Rule: r.Rule, Subject: r.Subject,
		Principal: r.Principal, Detail: r.Detail, Ref: r.Ref,
		Violations: r.Violations, Truncated: r.Truncated, Fix: e.Fix,
	}
	if r.RetryAfter > 0 {
		// Round up: a caller that waits exactly this long must pass.
		p.RetryAfterMs = int64((r.RetryAfter + time.Millisecond - 1) / time.Millisecond)
	}
	if r.Code == CodeRateLimited || r.Code == CodeByteRateLimited {
		p.Remaining = &r.Remaining
	}
	if explain {
		p.Explain = r.Explain
	}
	return p
}

// Refusal converts p back, for clients.
func (p *Problem) Refusal() *Refusal {
	r := &Refusal{
		Code: p.Code, Rule: p.Rule, Subject: p.Subject, Principal: p.Principal,
		Detail: p.Detail, Ref: p.Ref, RetryAfter: time.Duration(p.RetryAfterMs) * time.Millisecond,
		Violations: p.Violations, Truncated: p.Truncated, Explain: p.Explain,
	}
	if p.Remaining != nil {
		r.Remaining = *p.Remaining
	}
	return r
}

// APIError is the error object of a JetStream API answer.
type APIError struct {
	Code        int    `json:"code"`
	ErrCode     Code   `json:"err_code"`
	Description string `json:"description"`
}

// ErrorAnswer is the answer to a refused request: every JetStream client reads
// error, Signet clients read problem.
type ErrorAnswer struct {
	Type    string   `json:"type,omitempty"` // io.nats.jetstream.api.v1.…, empty for a publish
	Error   APIError `json:"error"`
	Problem *Problem `json:"problem"`
}

// Answer encodes r as an ErrorAnswer. apiType is the JetStream answer type, empty
// for a publish.
func (r *Refusal) Answer(apiType string, explain bool) []byte {
	p := r.Problem(explain)
	desc := p.Title
	if r.Detail != "" {
		desc += ": " + r.Detail
	}
	if r.Rule != "" {
		desc += fmt.Sprintf(" (rule %s)", r.Rule)
	}
	if r.Ref != "" {
		desc += " ref " + r.Ref
	}
	b, err := json.Marshal(ErrorAnswer{
		Type: apiType, Problem: &p,
		Error: APIError{Code: p.Status, ErrCode: r.Code, Description: desc},
	})
	if err != nil { // no field of Problem can fail to encode
		return []byte(`{"error":{"code":500,"err_code":40990,"description":"internal error"}}`)
	}
	return b
}
