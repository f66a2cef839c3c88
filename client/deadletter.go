package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// ErrNotAttested says that a dead letter was never let in, so the broker attested
// nothing: what it holds is the word of who sent it.
var ErrNotAttested = errors.New("client: it was refused before the broker attested it")

var errNoEvent = errors.New("client: the original is not an event: it has no id")

// letterPoll is how often new dead letters are asked for.
const letterPoll = 2 * time.Second

// A DeadLetter is an event that the broker refused, or that a consumer gave up, and why.
type DeadLetter struct {
	// Sequence in the stream of dead letters.
	Sequence uint64
	// Record says what happened, and has the original header block and payload, byte for
	// byte. What it says is the word of the broker; it is not signed.
	Record dlq.Record
	// Event is what the original bytes are, its payload as it was sent (encrypted, if it
	// was); nil if they are no event, of which EventFault says why.
	Event      *Event
	EventFault error
	// Attestation is verified, for Record.NATSSubject, if AttestationFault is nil. It says
	// who published the event, where Record.Principal is who failed on it. The fault
	// is ErrNotAttested for what was refused on its way in.
	Attestation      signing.Attestation
	AttestationFault error
}

// DeadLetterQuery selects dead letters. A zero field selects all.
type DeadLetterQuery struct {
	Reason      string    // as in docs/spec/dlq.md: schema, delivery, terminated, ...
	NATSSubject string    // filter on the original subject
	Principal   string    // name, without the tenant, of who sent it or failed on it
	Since       time.Time // refused or given up then or later
	After       uint64    // with a greater Sequence: to go on where an earlier call ended
	Follow      bool      // wait for new ones when there are no more, until the context ends
}

// DeadLetters reads the dead letters of the tenant, oldest first, whole: the principal of c
// needs the admin grant dlq. It reads only: signet dlq and package client/admin work them.
// After an error there is nothing more; with Follow, an error that is Retryable is given
// and asked again.
//
//	for letter, err := range client.DeadLetters(ctx, c, client.DeadLetterQuery{Reason: "terminated"}) {
//
// Errors: ErrDenied, ErrMalformed for a query that is none, ErrUnavailable; the error of
// ctx, but with Follow it just ends.
func DeadLetters(ctx context.Context, c *Client, q DeadLetterQuery) iter.Seq2[*DeadLetter, error] {
	return func(yield func(*DeadLetter, error) bool) {
		for {
			page, err := letterPage(ctx, c, q)
			if err == nil {
				for i := range page.Entries {
					letter, err := readLetter(ctx, c, &page.Entries[i])
					if errors.Is(err, ErrNotFound) {
						continue // it went meanwhile
					}
					if err != nil && ctx.Err() != nil && q.Follow || !yield(letter, err) {
						return
					}
					if err != nil {
						return
					}
					q.After = page.Entries[i].Seq
				}
				q.After = page.Cursor
			}
			switch {
			case q.Follow && ctx.Err() != nil:
				return
			case err != nil && (!yield(nil, err) || !q.Follow || !Retryable(err)):
				return
			case err == nil && page.More:
				continue
			case !q.Follow || !sleep(ctx, jittered(letterPoll)):
				return
			}
		}
	}
}

func letterPage(ctx context.Context, c *Client, q DeadLetterQuery) (*adminapi.DLQList, error) {
	request := struct {
		Reason    string    `json:"reason,omitempty"`
		Subject   string    `json:"subject,omitempty"`
		Principal string    `json:"principal,omitempty"`
		Since     time.Time `json:"since,omitzero"`
		Cursor    uint64    `json:"cursor,omitempty"`
	}{q.Reason, q.NATSSubject, q.Principal, q.Since, q.After}
	list := new(adminapi.DLQList)
	return list, c.request(ctx, adminapi.SubjectDLQLs, request, list)
}

// readLetter fetches the bytes of a dead letter, in parts, and reads what they are.
func readLetter(ctx context.Context, c *Client, e *adminapi.DeadLetter) (*DeadLetter, error) {
	letter := &DeadLetter{Sequence: e.Seq, Record: dlq.Record{
		Reason: dlq.Reason(e.Reason), Code: e.Code, Rule: e.Rule, Detail: e.Detail, Ref: e.Ref, Principal: e.Principal,
		NATSSubject: e.Subject, Time: e.Time, Stage: dlq.Stage(e.Stage), Attempts: int(min(e.Attempts, 1<<31-1)),
		Origin: dlq.Origin{Stream: e.Stream, Sequence: e.StreamSeq, Consumer: e.Consumer},
		By:     e.By, Stored: e.Stored, Redrives: e.Redrives, Policy: e.Policy, Schema: e.Schema, Violations: e.Violations,
	}}
	for _, at := range e.Deliveries {
		letter.Record.Deliveries = append(letter.Record.Deliveries, dlq.Delivery{Attempt: at.Attempt, At: at.At})
	}
	r := &letter.Record
	for first := true; first || len(r.Payload) < e.Bytes; first = false {
		var part adminapi.DLQShow
		err := c.request(ctx, adminapi.SubjectDLQShow, adminapi.DLQShowRequest{Seq: e.Seq, Offset: len(r.Payload)}, &part)
		if err != nil {
			return nil, err
		}
		if part.Seq != e.Seq || part.Offset != len(r.Payload) || part.Bytes != e.Bytes || len(part.Payload) == 0 && e.Bytes > 0 ||
			len(r.Payload)+len(part.Payload) > e.Bytes {
			return nil, &Error{Op: adminapi.SubjectDLQShow, Class: string(wire.ClassInternal), Title: fmt.Sprintf("the parts of dead letter %d do not fit together", e.Seq)}
		}
		if first {
			r.Header = part.Header
		}
		r.Payload = append(r.Payload, part.Payload...)
	}
	letter.verify(ctx, c)
	return letter, nil
}

// verify reads the original bytes as an event, and its attestation.
func (l *DeadLetter) verify(ctx context.Context, c *Client) {
	l.AttestationFault = ErrNotAttested
	header := nats.Header{}
	if len(l.Record.Header) > 0 {
		if header, l.EventFault = nats.DecodeHeadersMsg(l.Record.Header); l.EventFault != nil {
			return
		}
	}
	var dec decoder
	rec, err := dec.decode(&nats.Msg{Subject: l.Record.NATSSubject, Header: header, Data: l.Record.Payload})
	if err == nil && len(rec.ID) == 0 {
		err = errNoEvent
	}
	if err != nil {
		l.EventFault = err
		return
	}
	l.Event = new(Event)
	l.Event.fill(rec, false)
	if l.Record.Stage == dlq.StageIngress {
		return
	}
	l.Attestation, l.AttestationFault = attestation(ctx, c, rec, l.Record.NATSSubject, l.Record.Time)
	if l.AttestationFault == nil && !strings.HasPrefix(l.Attestation.Principal, c.tenant) {
		l.AttestationFault = errTenant
	}
	if l.AttestationFault != nil {
		l.Attestation = signing.Attestation{}
	}
}
