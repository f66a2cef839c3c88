package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

// Limits of ReadDLQ.
const (
	DefaultReadLimit = 100
	MaxReadLimit     = 1000
	// maxReadBytes ends a page early: one dead letter may be as large as an event.
	maxReadBytes = 8 << 20
)

// ErrSubject: not a subject, or not a filter, of dead letters.
var ErrSubject = errors.New("store: not a subject of dead letters")

// errorCodeStoreFailed is the server's error code for a full stream (among others).
const errorCodeStoreFailed jetstream.ErrorCode = 10077

// DeadLetter is one message of a DLQ stream.
type DeadLetter struct {
	Sequence uint64
	Time     time.Time // when it was stored
	Subject  string
	Header   nats.Header
	Data     []byte
}

// PublishDLQ stores a dead letter of a tenant and returns its sequence once it is
// on stable storage. A header Nats-Msg-Id makes a repetition harmless: it returns
// the first one's sequence.
//
// Errors: ErrSubject, ErrFull, ErrServer, ErrNoAccount, ErrSyncFailed, ErrClosed, or
// the connection's and ctx's, after which it may be stored or not.
func (s *Store) PublishDLQ(ctx context.Context, tenant, subject string, header nats.Header, data []byte) (seq uint64, err error) {
	ack, err := publishLetter(ctx, s, tenant, &nats.Msg{Subject: subject, Header: header, Data: data})
	if err != nil {
		return 0, err
	}
	return ack.Sequence, nil
}

// publishLetter is PublishDLQ that returns all that the server answered.
func publishLetter(ctx context.Context, s *Store, tenant string, m *nats.Msg) (*jetstream.PubAck, error) {
	if !strings.HasPrefix(m.Subject, wire.PrefixDLQ) || wire.CheckRawSubject(m.Subject, false) != nil {
		return nil, fmt.Errorf("%w: %q", ErrSubject, m.Subject)
	}
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	ack, err := a.js.PublishMsg(ctx, m)
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode == errorCodeStoreFailed && strings.Contains(api.Description, "maximum"):
		return nil, fmt.Errorf("%w: dead letters of %s: %w", ErrFull, tenant, err)
	case errors.As(err, &api):
		return nil, fmt.Errorf("%w: dead letter of %s: %w", ErrServer, tenant, err)
	case err != nil:
		return nil, fmt.Errorf("store: dead letter of %s: %w", tenant, err)
	case ack.Stream != wire.StreamDLQ: // an Expected-Stream header would stay in the dead letter
		return nil, fmt.Errorf("%w: stream %s of %s took a dead letter", ErrServer, ack.Stream, tenant)
	}
	if err := s.durable(ctx); err != nil {
		return nil, err
	}
	return ack, nil
}

// ReadDLQ returns dead letters of a tenant in order of their sequence, oldest
// first: at most limit (0 means DefaultReadLimit, at most MaxReadLimit) after the
// sequence after whose subject matches one of the filters (none: all). A page may
// be shorter than limit when it is large. next is the cursor for the next page: the
// value for after; it is the old one when there is nothing.
//
// Errors: ErrSubject, ErrNotFound where the tenant has no DLQ, ErrNoAccount,
// ErrServer, ErrClosed, or the connection's.
func (s *Store) ReadDLQ(ctx context.Context, tenant string, after uint64, filters []string, limit int) (page []DeadLetter, next uint64, err error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, after, err
	}
	if len(filters) == 0 {
		filters = []string{wire.PrefixDLQ + ">"}
	}
	// heads holds the next message of each filter; nil: that filter has no more.
	heads := make([]*DeadLetter, len(filters))
	for i, f := range filters {
		if !strings.HasPrefix(f, wire.PrefixDLQ) || wire.CheckRawSubject(f, true) != nil {
			return nil, after, fmt.Errorf("%w: %q", ErrSubject, f)
		}
		if heads[i], err = a.deadLetter(ctx, messageRequest{Sequence: after + 1, Next: f}); err != nil {
			return nil, after, err
		}
	}
	if limit <= 0 {
		limit = DefaultReadLimit
	}
	next = after
	for bytes := 0; len(page) < min(limit, MaxReadLimit) && bytes < maxReadBytes; {
		var first *DeadLetter
		for _, h := range heads {
			if h != nil && (first == nil || h.Sequence < first.Sequence) {
				first = h
			}
		}
		if first == nil {
			break
		}
		page, next, bytes = append(page, *first), first.Sequence, bytes+len(first.Data)
		for i, h := range heads {
			if h == nil || h.Sequence > next {
				continue
			}
			if heads[i], err = a.deadLetter(ctx, messageRequest{Sequence: next + 1, Next: filters[i]}); err != nil {
				return nil, after, err
			}
		}
	}
	return page, next, nil
}

// GetDLQ returns the dead letter of a tenant with that sequence.
//
// Errors: ErrNotFound, ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func (s *Store) GetDLQ(ctx context.Context, tenant string, seq uint64) (*DeadLetter, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	var d *DeadLetter
	if seq > 0 {
		if d, err = a.deadLetter(ctx, messageRequest{Sequence: seq}); err != nil {
			return nil, err
		}
	}
	if d == nil {
		return nil, fmt.Errorf("%w: dead letter %d of %s", ErrNotFound, seq, tenant)
	}
	return d, nil
}

// messageRequest is the body of STREAM.MSG.GET.
type messageRequest struct {
	Sequence uint64 `json:"seq"`
	Next     string `json:"next_by_subj,omitempty"`
}

// deadLetter reads one message of the dead letters; nil if there is none.
func (a *account) deadLetter(ctx context.Context, req messageRequest) (*DeadLetter, error) {
	return a.message(ctx, wire.StreamDLQ, req)
}

// message reads one message; nil if there is none.
func (a *account) message(ctx context.Context, stream string, req messageRequest) (*DeadLetter, error) {
	var answer struct {
		Message struct {
			Subject  string    `json:"subject"`
			Sequence uint64    `json:"seq"`
			Header   []byte    `json:"hdrs"`
			Data     []byte    `json:"data"`
			Time     time.Time `json:"time"`
		} `json:"message"`
	}
	err := a.request(ctx, "STREAM.MSG.GET."+stream, req, &answer)
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	case missing(err):
		return nil, fmt.Errorf("%w: stream %s of %s", ErrNotFound, stream, a.tenant)
	case err != nil:
		return nil, fmt.Errorf("tenant %s: %w", a.tenant, err)
	}
	d := &DeadLetter{
		Sequence: answer.Message.Sequence, Time: answer.Message.Time,
		Subject: answer.Message.Subject, Data: answer.Message.Data,
	}
	if len(answer.Message.Header) > 0 {
		if d.Header, err = nats.DecodeHeadersMsg(answer.Message.Header); err != nil {
			return nil, fmt.Errorf("store: headers of message %d of %s: %w", d.Sequence, stream, err)
		}
	}
	return d, nil
}
