package client

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// The classes of a refusal, for errors.Is.
var (
	ErrUnauthenticated = errors.New("client: unauthenticated")
	ErrDenied          = errors.New("client: permission denied")
	ErrMalformed       = errors.New("client: malformed")
	ErrBadSignature    = errors.New("client: bad signature")
	ErrSchemaViolation = errors.New("client: schema violation")
	ErrRateLimited     = errors.New("client: rate limited")
	ErrTooLarge        = errors.New("client: too large")
	ErrNotFound        = errors.New("client: not found")
	ErrConflict        = errors.New("client: conflict")
	ErrUnavailable     = errors.New("client: unavailable")
	ErrInternal        = errors.New("client: internal error of the broker")
)

// Errors of the SDK itself.
var (
	// ErrInvalidOption is wrapped by every error of an option, a URL or an argument.
	ErrInvalidOption = errors.New("client: invalid option")
	// ErrNoRoot says that no root key is pinned, so no event could be verified.
	ErrNoRoot = errors.New("client: no root key: events cannot be verified; use WithRoot or a context that has one")
	// ErrKeyring says that the keyring is not usable: not signed by the pinned root, expired, or older than the one held.
	ErrKeyring = errors.New("client: keyring not usable")
	// ErrNonce says that a server asked for a signature over something that is not a nonce.
	ErrNonce = errors.New("client: refused to sign: the server's nonce is not 15 base64url characters")
	// ErrClosed says that the client or subscription is closed.
	ErrClosed = errors.New("client: closed")
	// ErrTooManyInFlight says that PublishAsync found the in-flight bound reached for the whole time-out.
	ErrTooManyInFlight = errors.New("client: too many publishes in flight")
	// ErrOutcomeUnknown says that an event was sent again after a reconnect and had grown
	// too old for its signature by then: the first sending may be stored, or not. Look for
	// the EventID of the error before you publish the event again: the broker may have
	// forgotten that it has it.
	ErrOutcomeUnknown = errors.New("client: the outcome of the publish is unknown")
	// ErrSettled says that a delivery was already acked, nak'd or terminated.
	ErrSettled = errors.New("client: the delivery is already settled")
	// ErrFenced says that the partition of a delivery of SubscribeKeyed is another
	// instance's by now, which gets the event again: this one must not settle it.
	ErrFenced = errors.New("client: the partition of the delivery is another instance's")
	// ErrConsumerGone says that the durable consumer was deleted under a subscription.
	ErrConsumerGone = errors.New("client: the consumer was deleted")
)

var classErrors = map[wire.Class]error{
	wire.ClassUnauthenticated:  ErrUnauthenticated,
	wire.ClassPermissionDenied: ErrDenied,
	wire.ClassMalformed:        ErrMalformed,
	wire.ClassBadSignature:     ErrBadSignature,
	wire.ClassSchemaViolation:  ErrSchemaViolation,
	wire.ClassRateLimited:      ErrRateLimited,
	wire.ClassTooLarge:         ErrTooLarge,
	wire.ClassNotFound:         ErrNotFound,
	wire.ClassConflict:         ErrConflict,
	wire.ClassUnavailable:      ErrUnavailable,
	wire.ClassInternal:         ErrInternal,
}

// Violation is one way in which a payload breaks its schema. It names places and
// types, never values of the payload.
type Violation struct {
	At       string // JSON pointer into the payload
	Rule     string // schema keyword
	SchemaAt string // JSON pointer into the schema
	Want     string
	Got      string // type and size
	Offset   int    // byte offset in the payload, when known
	Message  string
}

// Explanation is the policy-internal side of a refusal. Only a broker in
// development mode sends it.
type Explanation struct {
	File    string // policy file
	Line    int
	Nearest string // the closest grant that does not reach
	Fix     string
}

// Error is a refusal by the broker, or a failure to get its answer. A zero field
// does not apply.
type Error struct {
	Op         string        // publish, subscribe, connect, or an admin subject
	Code       int           // 40000-40999 by the broker (docs/spec/errors.md), 10000-10999 by JetStream, 0 by the SDK
	Name       string        // registered name of the code
	Class      string        // permission-denied, rate-limited, ...
	Title      string        // one line on the code
	Detail     string        // one line on this case
	Rule       string        // policy rule or built-in check that decided
	Subject    string        // NATS subject
	Principal  string        // the caller, tenant/name
	EventID    string        // id of the event that was published: publish it again with this id
	Ref        string        // for: signet explain REF
	Fix        string        // what the caller can do
	RetryAfter time.Duration // when the same request would pass; of code 40308: at the latest, signed anew
	Remaining  int64         // of a rate limit: what it would let through now, messages or bytes
	Violations []Violation   // first ten
	Truncated  bool          // there are more violations
	Explain    *Explanation
	Err        error // cause in the SDK or the transport
}

// Error implements error, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("client: ")
	if e.Op != "" {
		b.WriteString(e.Op + ": ")
	}
	if e.Code != 0 {
		b.WriteString(strconv.Itoa(e.Code) + " ")
	}
	if e.Name != "" {
		b.WriteString(e.Name + ": ")
	}
	if e.Title != "" {
		b.WriteString(e.Title)
	} else {
		b.WriteString(e.Class)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	if e.Rule != "" {
		b.WriteString(" (rule " + e.Rule + ")")
	}
	if e.Subject != "" {
		b.WriteString(" subject=" + strconv.Quote(e.Subject))
	}
	if e.Principal != "" {
		b.WriteString(" principal=" + e.Principal)
	}
	if e.RetryAfter > 0 {
		b.WriteString(" retry-after=" + e.RetryAfter.String())
	}
	if e.Ref != "" {
		b.WriteString(" ref=" + e.Ref)
	}
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	return b.String()
}

// Is reports whether target is the sentinel of e's class.
func (e *Error) Is(target error) bool {
	s, ok := classErrors[wire.Class(e.Class)]
	return ok && s == target
}

// Unwrap returns the cause, which may be nil.
func (e *Error) Unwrap() error { return e.Err }

// Retryable reports whether the same call can pass later: the rate limit was
// spent, the broker was not available, or no answer came. It is the only test
// for a retry; a publish is retried with the EventID of its Error. A cancelled
// context is not retryable.
func Retryable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, ErrClosed) {
		return false
	}
	return errors.Is(err, ErrRateLimited) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrTooManyInFlight)
}

// fromRefusal converts a refusal of the broker.
func fromRefusal(op string, r *wire.Refusal) *Error {
	entry := r.Code.Entry()
	e := &Error{
		Op: op, Code: int(r.Code), Name: entry.Name, Class: string(entry.Class), Title: entry.Title,
		Detail: r.Detail, Rule: r.Rule, Subject: r.Subject, Principal: r.Principal, Ref: r.Ref,
		Fix: entry.Fix, RetryAfter: r.RetryAfter, Remaining: r.Remaining, Truncated: r.Truncated,
	}
	for _, v := range r.Violations {
		e.Violations = append(e.Violations, Violation(v))
	}
	if r.Explain != nil {
		x := Explanation(*r.Explain)
		e.Explain = &x
	}
	return e
}

// fromAPI converts the error object of an answer; problem may be nil. The class
// of an error of JetStream itself follows from its HTTP-like status.
func fromAPI(op string, a wire.APIError, p *wire.Problem) *Error {
	switch {
	case p != nil:
		e := fromRefusal(op, p.Refusal())
		if _, known := classErrors[p.Class]; known && int(p.Code) != int(p.Code.Entry().Code) {
			// A newer broker: its class and words are better than our guess.
			e.Name, e.Class, e.Title, e.Fix = strings.TrimPrefix(p.Type, problemType), string(p.Class), p.Title, p.Fix
		}
		return e
	case a.ErrCode >= 40000 && a.ErrCode <= 40999:
		return fromRefusal(op, wire.Refuse(a.ErrCode, "", a.Description))
	}
	return &Error{
		Op: op, Code: int(a.ErrCode), Class: string(statusClass(a)), Name: "JetStream",
		Title: a.Description,
	}
}

const problemType = "urn:signet:problem:"

// Codes of JetStream whose status alone says too little.
const (
	jsStreamNotFound      = 10059
	jsConsumerNotFound    = 10014
	jsConsumerExists      = 10148
	jsConsumerNameExist   = 10013
	jsWrongLastSeq        = 10071
	jsWrongLastMsgID      = 10070
	jsMessageExceedsMax   = 10054
	jsConsumerMaxRequests = 10024
	// jsDuplicateInProcess: an earlier try of this event is on its way through the
	// cluster, and nobody knows yet whether it arrives.
	jsDuplicateInProcess = 10158
	jsBatchDuplicate     = 10201
	jsClusterNotLeader   = 10009
)

func statusClass(a wire.APIError) wire.Class {
	switch a.ErrCode {
	case jsStreamNotFound, jsConsumerNotFound:
		return wire.ClassNotFound
	case jsConsumerExists, jsConsumerNameExist, jsWrongLastSeq, jsWrongLastMsgID, jsBatchDuplicate:
		return wire.ClassConflict
	case jsMessageExceedsMax:
		return wire.ClassTooLarge
	case jsConsumerMaxRequests, jsDuplicateInProcess, jsClusterNotLeader:
		return wire.ClassUnavailable
	}
	switch a.Code {
	case 400:
		return wire.ClassMalformed
	case 401:
		return wire.ClassUnauthenticated
	case 403:
		return wire.ClassPermissionDenied
	case 404:
		return wire.ClassNotFound
	case 409:
		return wire.ClassConflict
	case 413:
		return wire.ClassTooLarge
	case 429:
		return wire.ClassRateLimited
	case 408, 503, 504:
		return wire.ClassUnavailable
	}
	return wire.ClassInternal
}

// fromTransport converts an error of nats.go or of a context.
func fromTransport(op, subject string, err error) error {
	e := &Error{Op: op, Subject: subject, Err: err}
	var known *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		copied := *known // the original may be shared: callers add the event id
		return &copied
	case errors.Is(err, ErrInvalidOption):
		return err
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrConnectionDraining):
		e.Class, e.Title, e.Err = string(wire.ClassUnavailable), "the connection is closed", errors.Join(ErrClosed, err)
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrNkeysNotSupported):
		e.Class, e.Title = string(wire.ClassUnauthenticated), "the broker did not accept the credential"
	case errors.Is(err, nats.ErrPermissionViolation):
		return fromPermission(op, subject, err)
	case errors.Is(err, nats.ErrMaxPayload):
		e.Class, e.Title = string(wire.ClassTooLarge), "event is larger than the broker allows"
	case errors.Is(err, nats.ErrBadSubject):
		e.Class, e.Title = string(wire.ClassMalformed), "bad subject"
	case errors.Is(err, context.Canceled):
		e.Class, e.Title = string(wire.ClassUnavailable), "cancelled"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		e.Class, e.Title = string(wire.ClassUnavailable), "no answer in time, the outcome is unknown"
	case errors.Is(err, nats.ErrNoResponders):
		e.Class, e.Title = string(wire.ClassUnavailable), "nobody answers on this subject"
	default:
		e.Class, e.Title = string(wire.ClassUnavailable), "the connection failed"
	}
	return e
}

// fromPermission reads what a -ERR line can carry: the subject in quotes, and
// the code and the ref where the broker put them into the text.
func fromPermission(op, subject string, err error) *Error {
	code, text := wire.CodePublishDenied, err.Error()
	if strings.Contains(text, "Subscription") {
		code = wire.CodeSubscribeDenied
	}
	if i := strings.IndexByte(text, '"'); i >= 0 && subject == "" {
		subject, _, _ = strings.Cut(text[i+1:], `"`)
	}
	ref := ""
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ()[]',:;=", r) })
	found := false
	for i, w := range words {
		if n, nerr := strconv.Atoi(w); nerr == nil && n >= 40000 && n <= 40999 && !found {
			code, found = wire.Code(n), true
		}
		if w == "ref" && i+1 < len(words) {
			ref = words[i+1]
		}
	}
	e := fromRefusal(op, wire.Refuse(code, "", ""))
	e.Subject, e.Ref, e.Err = subject, ref, err
	return e
}
