package client

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

const (
	// retryLook is between two looks whether the broker has made a retry queue: it does
	// when something is redriven first, and the queue stays. The first ones come sooner.
	retryLook      = 10 * time.Second
	retryFirstLook = 500 * time.Millisecond
	// retryLookRarely is the same after a refusal: a broker of an earlier release has none.
	retryLookRarely = 5 * time.Minute
	retryBatch      = 16
)

// retryQueue reads what was redriven to a durable consumer, beside that consumer, and hands
// it to the same workers. One goroutine, between begin and done.
type retryQueue struct {
	s        *Subscription
	stream   string // of the consumer that it is for
	consumer string // its name in wire.StreamRetry; empty: it has no queue
	inbox    string
	dec      decoder
	waiting  holding

	ended sync.Once
	done  chan struct{}
}

// newRetryQueue returns nil for a subscription without a durable.
func newRetryQueue(s *Subscription, stream string) *retryQueue {
	if s.cfg.durable == "" {
		return nil
	}
	return &retryQueue{
		s: s, stream: stream, consumer: wire.RetryConsumer(stream, s.cfg.durable), inbox: nats.NewInbox(), done: make(chan struct{}),
	}
}

func (q *retryQueue) begin() {
	if q == nil {
		return
	}
	if q.consumer == "" {
		q.abandon()
		return
	}
	go q.run()
}

// abandon says that nothing will be pushed any more.
func (q *retryQueue) abandon() {
	if q != nil {
		q.ended.Do(func() { close(q.done) })
	}
}

// run looks for the queue, and reads it while it is there.
func (q *retryQueue) run() {
	defer q.abandon()
	ctx, cancel := context.WithCancel(q.s.life.ctx)
	defer cancel()
	go func() {
		select {
		case <-q.s.life.leaving:
			cancel()
		case <-ctx.Done():
		}
	}()
	sub, err := q.s.client.nc.SubscribeSync(q.inbox)
	if err != nil {
		return // the connection has ended, and with it the subscription
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is gone
	for again := retryFirstLook; ; again = min(2*again, retryLook) {
		wait := again
		switch err := q.look(ctx); {
		case err == nil:
			if err := q.read(ctx, sub); err == nil {
				wait = 0
			}
		case errors.Is(err, ErrDenied):
			wait = retryLookRarely
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look reports whether the queue is there.
func (q *retryQueue) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, q.s.client.cfg.timeout)
	defer cancel()
	_, err := q.s.client.js().consumerInfo(ctx, wire.StreamRetry, q.consumer)
	return err
}

// errPull: a pull ended in another way than by its time or its batch.
var errPull = errors.New("client: the pull of a retry queue ended")

// read pulls until something is in the way.
func (q *retryQueue) read(ctx context.Context, sub *nats.Subscription) error {
	batch := min(q.s.cfg.maxInFlight, retryBatch)
	body, err := json.Marshal(struct {
		Batch     int           `json:"batch"`
		Expires   time.Duration `json:"expires"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{batch, pullExpires, pullHeartbeat})
	if err != nil { // three numbers always encode
		return err
	}
	for {
		if err := q.s.client.nc.PublishRequest(wire.PrefixJSAPI+"CONSUMER.MSG.NEXT."+wire.StreamRetry+"."+q.consumer, q.inbox, body); err != nil {
			return err
		}
		for got, over := 0, false; got < batch && !over; {
			wait, cancel := context.WithTimeout(ctx, silence)
			msg, err := sub.NextMsgWithContext(wait)
			cancel()
			for _, w := range q.waiting.due(q.s) {
				if !q.deliver(w.msg, true) {
					return context.Canceled
				}
			}
			switch {
			case err != nil:
				return err
			case msg.Subject != q.inbox:
				got++
				if !q.deliver(msg, false) {
					return context.Canceled
				}
			case msg.Header.Get("Status") == "100": // a heartbeat
			case msg.Header.Get("Status") == "408": // its time is over
				over = true
			default:
				return errPull
			}
		}
	}
}

// deliver hands one message to the workers; false when the subscription stops. again: it
// was held back before.
func (q *retryQueue) deliver(msg *nats.Msg, again bool) bool {
	s := q.s
	info, ok := parseAck(msg.Reply)
	if !ok {
		return true
	}
	seq, _ := strconv.ParseUint(msg.Header.Get(wire.HeaderRedriveSequence), 10, 64) // 0: the broker says nothing
	// The event is what it was: its signatures are for the subject that it was published on.
	was := &nats.Msg{Subject: msg.Header.Get(wire.HeaderRedriveSubject), Reply: msg.Reply, Header: msg.Header, Data: msg.Data}
	d, later, err := s.verifyWith(&q.dec, was, info.stored)
	if err != nil {
		held := later && q.waiting.keep(s, msg, &info, err)
		if held && again {
			return true
		}
		s.refuse(InvalidEvent{NATSSubject: was.Subject, Stream: q.stream, Sequence: seq, Err: err, Retried: later})
		if held {
			return true
		}
		body := refusedBody(err)
		if later {
			body = nakBody(laterDelay)
		}
		if err := s.client.nc.Publish(msg.Reply, []byte(body)); err != nil {
			s.client.cfg.onError(fromTransport("ack", was.Subject, err))
		}
		return true
	}
	d.Stream, d.Consumer, d.Sequence, d.NumDelivered = q.stream, s.cfg.durable, seq, info.delivered
	d.Pending, d.Stored = info.queue, info.stored
	d.sub = s
	return s.push(d)
}

// redrives reads what only the broker writes: it lets no header Signet- of a client in.
func redrives(header nats.Header) int {
	values := header[wire.HeaderRedriveCount]
	if len(values) == 0 {
		return 0
	}
	n, _ := strconv.ParseUint(values[0], 10, 31) // 0: as if it were not there
	return int(n)
}
