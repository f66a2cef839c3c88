package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// MaxBatch is how many events a batch may have: the limit of the server.
const MaxBatch = 1000

const (
	headerBatchID       = "Nats-Batch-Id"
	headerBatchSequence = "Nats-Batch-Sequence"
	headerBatchCommit   = "Nats-Batch-Commit"
)

// ErrBatch is wrapped by the error of a batch of which nothing is stored.
var ErrBatch = errors.New("client: nothing of the batch is stored")

// BatchEvent is one event of PublishBatch.
type BatchEvent struct {
	NATSSubject string
	Event       *Event
}

// BatchAck says where a batch is stored: at Count sequences of which Last is the last one.
type BatchAck struct {
	Stream   string
	Last     uint64
	Count    int
	EventIDs []string // in the order of the batch
}

// PublishBatch stores all of the events, or none: 1 to MaxBatch, in their order, all in
// one stream, which must say atomicBatches in the policy. The principal needs grants for the
// headers Nats-Batch-Id, Nats-Batch-Sequence and Nats-Batch-Commit, beside those for the
// subjects. The broker judges each event as a publish of its own.
//
// One bad event fails the batch: the error is an *Error with the EventID and subject of the
// event that was refused, its place in the batch in Detail, and is ErrBatch. So is
// ErrConflict where an event with one of the ids is stored already, which is what the same
// batch gives when it is published again: it is not stored a second time.
//
// It does not try again by itself. Where no answer came to the last event the outcome is
// unknown: the error is ErrOutcomeUnknown, and publishing the same ids again finds out. Options: WithHeader and
// WithExpiry, for each event.
//
// Errors: those of Publish; ErrInvalidOption for the number of events and for WithSignedAck.
func (c *Client) PublishBatch(ctx context.Context, events []BatchEvent, opts ...PubOpt) (*BatchAck, error) {
	if len(events) == 0 || len(events) > MaxBatch {
		return nil, fmt.Errorf("%w: PublishBatch: %d events, 1 to %d are possible", ErrInvalidOption, len(events), MaxBatch)
	}
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	b := &batch{c: c, name: NewID()}
	for i, e := range events {
		if err := b.add(ctx, e, opts); err != nil {
			return nil, batchFault(err, i, len(events))
		}
	}
	c.signer.flush() // what PublishAsync was given before goes out before
	if i, err := b.stage(ctx); err != nil {
		return nil, batchFault(err, i, len(events))
	}
	return b.commit(ctx)
}

// batch is one PublishBatch.
type batch struct {
	c    *Client
	name string
	msgs []*nats.Msg
	ids  []string
}

func (b *batch) add(ctx context.Context, e BatchEvent, opts []PubOpt) error {
	ev, err := b.c.crypt.encrypt(ctx, e.NATSSubject, e.Event)
	if err != nil {
		return err
	}
	msg, id, _, err := prepare(b.c, e.NATSSubject, ev, opts)
	if err != nil {
		return err
	}
	if asksReceipt(msg) {
		return fmt.Errorf("%w: WithSignedAck: a batch has no signed acknowledgement", ErrInvalidOption)
	}
	msg.Header[headerBatchID] = []string{b.name}
	msg.Header[headerBatchSequence] = []string{strconv.Itoa(len(b.msgs) + 1)}
	b.msgs, b.ids = append(b.msgs, msg), append(b.ids, id)
	return nil
}

// stage sends all but the last event and waits for their answers: without the last one the
// server forgets them. It returns the first in the batch that was refused.
func (b *batch) stage(ctx context.Context) (int, error) {
	var wg sync.WaitGroup
	errs := make([]error, len(b.msgs))
	for i, msg := range b.msgs[:len(b.msgs)-1] {
		if err := slot(ctx, b.c, false); err != nil {
			errs[i] = notSent(msg.Subject, b.ids[i], err)
			break
		}
		wg.Add(1)
		until, _ := ctx.Deadline()
		_, err := b.c.mux.send(msg, until, func(answer reply, err error) {
			errs[i] = staged(msg.Subject, b.ids[i], answer, err)
			free(b.c, false)
			wg.Done()
		})
		if err != nil {
			errs[i] = withEvent(fromTransport("publish", msg.Subject, err), b.ids[i])
			free(b.c, false)
			wg.Done()
			break
		}
	}
	wg.Wait() // each ends with its deadline
	for i, err := range errs {
		if err != nil {
			return i, err
		}
	}
	return 0, nil
}

// staged reads the answer to an event that is not the last: nothing, or a refusal.
func staged(natsSubject, id string, answer reply, err error) error {
	if err != nil {
		return withEvent(fromTransport("publish", natsSubject, err), id)
	}
	if len(answer.Data) == 0 {
		return nil
	}
	_, err = readAck(natsSubject, id, answer, nil)
	if err == nil {
		// It would be an event on its own.
		err = &Error{Op: "publish", Class: string(wire.ClassInternal), Title: "the broker does not know batches", Subject: natsSubject, EventID: id}
	}
	return err
}

// commit sends the last event, with which all are stored.
func (b *batch) commit(ctx context.Context) (*BatchAck, error) {
	last := len(b.msgs) - 1
	msg, id := b.msgs[last], b.ids[last]
	msg.Header[headerBatchCommit] = []string{"1"}
	answer, err := b.c.mux.ask(ctx, msg)
	ack, err := readAck(msg.Subject, id, answer, err)
	var e *Error
	switch {
	case err == nil:
		var count struct {
			Count int `json:"count"`
		}
		if err := json.Unmarshal(answer.Data, &count); err != nil || count.Count != len(b.msgs) {
			return nil, b.unknown(fmt.Errorf("the acknowledgement is of %d events", count.Count))
		}
		return &BatchAck{Stream: ack.Stream, Last: ack.Sequence, Count: count.Count, EventIDs: b.ids}, nil
	case answer.resent, errors.As(err, &e) && e.Code == 0:
		// No answer, or one to the second sending: the first may have done it.
		return nil, b.unknown(err)
	}
	return nil, batchFault(err, last, len(b.msgs))
}

func (b *batch) unknown(err error) error {
	last := len(b.msgs) - 1
	return &Error{
		Op: "publish", Class: string(wire.ClassInternal), Title: "the outcome of the batch is unknown",
		Subject: b.msgs[last].Subject, EventID: b.ids[last], Fix: "publish the same events with the same ids again: a conflict says that they are stored",
		Err: errors.Join(ErrOutcomeUnknown, err),
	}
}

// batchFault says which event failed the batch, the i-th from 0.
func batchFault(err error, i, n int) error {
	var e *Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%w: event %d of %d: %w", ErrBatch, i+1, n, err)
	}
	out := *e
	place := fmt.Sprintf("event %d of %d", i+1, n)
	out.Detail = strings.TrimSuffix(place+": "+out.Detail, ": ")
	out.Err = errors.Join(ErrBatch, out.Err)
	return &out
}
