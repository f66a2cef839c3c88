package wire

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

//go:generate go run generate.go

// Code is the number of one refusal, 40000 to 40999, carried as err_code in a
// JetStream API error. Codes are wire format.
type Code int

// Class groups codes by what a caller can do about them.
type Class string

// The classes.
const (
	ClassUnauthenticated  Class = "unauthenticated"
	ClassPermissionDenied Class = "permission-denied"
	ClassMalformed        Class = "malformed"
	ClassBadSignature     Class = "bad-signature"
	ClassSchemaViolation  Class = "schema-violation"
	ClassRateLimited      Class = "rate-limited"
	ClassTooLarge         Class = "too-large"
	ClassNotFound         Class = "not-found"
	ClassConflict         Class = "conflict"
	ClassUnavailable      Class = "unavailable"
	ClassInternal         Class = "internal"
)

// Entry is one row of the registry (errors.json).
type Entry struct {
	Code   Code
	Name   string
	Class  Class
	Status int    // the HTTP status with the same meaning
	Title  string // one line, no values in it
	Fix    string // what the caller can do
}

var byCode = func() map[Code]*Entry {
	m := make(map[Code]*Entry, len(registry))
	for i := range registry {
		m[registry[i].Code] = &registry[i]
	}
	return m
}()

// Registry returns the registered errors in code order. Callers must not modify it.
func Registry() []Entry { return registry }

// Entry returns the row of c; an unknown code has the row of CodeInternal.
func (c Code) Entry() *Entry {
	if e, ok := byCode[c]; ok {
		return e
	}
	return byCode[CodeInternal]
}

// Class returns the class of c.
func (c Code) Class() Class { return c.Entry().Class }

// String returns the number and the registered name, as in "40101 PublishDenied".
func (c Code) String() string { return strconv.Itoa(int(c)) + " " + c.Entry().Name }

// Violation is one way in which a payload breaks its schema. It never holds a
// value of the payload: Got gives type and size only, property names are cut at
// 64 bytes and escaped.
type Violation struct {
	At       string `json:"at"`                 // JSON pointer into the payload
	Rule     string `json:"rule"`               // schema keyword
	SchemaAt string `json:"schemaAt,omitempty"` // JSON pointer into the schema
	Want     string `json:"want,omitempty"`
	Got      string `json:"got,omitempty"`
	Offset   int    `json:"offset,omitempty"` // byte offset in the payload, when known
	Message  string `json:"message"`
}

// Refusal is why something was not let in. It is an error. The zero value of a
// field means "does not apply".
type Refusal struct {
	Code       Code
	Rule       string        // name of the policy rule or built-in check that decided
	Subject    string        // NATS subject as the client wrote it, escaped when printed
	Principal  string        // tenant/name, empty before authentication
	Detail     string        // one line for the caller; no payload bytes, no policy internals
	Ref        string        // identifier under which the audit record is found
	RetryAfter time.Duration // for ClassRateLimited: when the same request would pass; for ClassUnavailable: when it is worth to try; for CodeOutsideReplayWindow: when the event passes at the latest, signed anew
	Remaining  int64         // for CodeRateLimited and CodeByteRateLimited: what the rule would let through now, messages or bytes
	Violations []Violation
	Truncated  bool // more violations exist than are listed

	// Explain is policy-internal: where the rule stands, the nearest grant, the
	// fix. It goes to the audit record and, in dev only, to the caller.
	Explain *Explanation
}

// Explanation is the part of a refusal that only policy administrators see.
type Explanation struct {
	File    string `json:"file,omitempty"` // policy file
	Line    int    `json:"line,omitempty"`
	Nearest string `json:"nearest,omitempty"` // the closest grant that does not reach
	Fix     string `json:"fix,omitempty"`
}

// Error implements error: code, rule, subject, principal, detail and ref in one line.
func (r *Refusal) Error() string {
	s := fmt.Sprintf("signet: %s: %s", r.Code, r.Code.Entry().Title)
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	if r.Rule != "" {
		s += fmt.Sprintf(" (rule %s)", r.Rule)
	}
	if r.Subject != "" {
		s += fmt.Sprintf(" subject=%q", r.Subject)
	}
	if r.Principal != "" {
		s += " principal=" + r.Principal
	}
	if r.RetryAfter > 0 {
		s += " retry-after=" + r.RetryAfter.String()
	}
	if r.Ref != "" {
		s += " ref=" + r.Ref
	}
	return s
}

// Refuse makes a refusal.
func Refuse(code Code, rule, detail string) *Refusal {
	return &Refusal{Code: code, Rule: rule, Detail: detail}
}

// AsRefusal returns the refusal in err's chain, or one of CodeInternal that hides
// err's text from the caller: an unknown error in admission means deny.
func AsRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: CodeInternal, Rule: "internal"}
}
