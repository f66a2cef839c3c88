package bench

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/client"
)

// readAhead is how many messages a reader asks for at a time: the default of
// nats.go, for the SDK too.
const readAhead = 500

// readOrdered reads n messages with an ordered consumer.
func readOrdered(ctx context.Context, nc *nats.Conn, n int) (*Figure, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	c, err := js.OrderedConsumer(ctx, streamRead, jetstream.OrderedConsumerConfig{FilterSubjects: []string{filterRead}})
	if err != nil {
		return nil, fmt.Errorf("%w: ordered consumer: %w", ErrLoad, err)
	}
	return consume(c, n, start, false)
}

// readPull reads n messages with a pull consumer and acknowledges each.
func readPull(ctx context.Context, nc *nats.Conn, n int) (*Figure, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	c, err := js.CreateConsumer(ctx, streamRead, jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: filterRead, MaxAckPending: 10_000, InactiveThreshold: time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: pull consumer: %w", ErrLoad, err)
	}
	return consume(c, n, start, true)
}

func consume(c jetstream.Consumer, n int, start time.Time, ack bool) (*Figure, error) {
	done := make(chan struct{})
	var fault atomic.Pointer[error]
	got := 0 // of the callback's goroutine until done is closed
	cc, err := c.Consume(func(m jetstream.Msg) {
		if ack {
			if err := m.Ack(); err != nil {
				fault.Store(&err)
			}
		}
		if got++; got == n {
			close(done)
		}
	}, jetstream.PullMaxMessages(readAhead))
	if err != nil {
		return nil, fmt.Errorf("%w: consume: %w", ErrLoad, err)
	}
	defer cc.Stop()
	select {
	case <-done:
	case <-time.After(doneWait):
		return nil, fmt.Errorf("%w: read only a part of %d messages", ErrLoad, n)
	}
	elapsed := time.Since(start)
	if e := fault.Load(); e != nil {
		return nil, fmt.Errorf("%w: ack: %w", ErrLoad, *e)
	}
	return &Figure{Events: n, Elapsed: elapsed}, nil
}

// readVerified reads n events with the SDK, which verifies each.
func readVerified(ctx context.Context, c *client.Client, n int, opts ...client.SubOption) (*Figure, error) {
	done := make(chan struct{})
	got := 0 // of the handler's goroutine until done is closed
	start := time.Now()
	sub, err := c.Subscribe(ctx, filterRead, func(context.Context, *client.Delivery) error {
		if got++; got == n {
			close(done)
		}
		return nil
	}, append(opts, client.SubMaxInFlight(readAhead))...)
	if err != nil {
		return nil, fmt.Errorf("%w: subscribe: %w", ErrLoad, err)
	}
	defer func() {
		sub.Stop()
		<-sub.Closed()
	}()
	select {
	case <-done:
	case <-time.After(doneWait):
		return nil, fmt.Errorf("%w: verified only a part of %d events: %+v", ErrLoad, n, sub.Stats())
	}
	elapsed := time.Since(start)
	if s := sub.Stats(); s.Invalid+s.Deferred+s.Failed > 0 {
		return nil, fmt.Errorf("%w: verify: %+v", ErrLoad, s)
	}
	return &Figure{Events: n, Elapsed: elapsed}, nil
}

// typical returns a stored message with size bytes of data whose headers are as
// long as those of most: they depend on how many events were signed together, so
// that the first of a burst are far shorter. It looks from sequence from on.
func typical(ctx context.Context, nc *nats.Conn, stream, filter string, size int, from uint64) (*nats.Msg, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	c, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{filter}, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(from, 1),
	})
	if err != nil {
		return nil, err
	}
	batch, err := c.Fetch(400, jetstream.FetchMaxWait(5*time.Second))
	if err != nil {
		return nil, err
	}
	var found []*nats.Msg
	for m := range batch.Messages() {
		if len(m.Data()) == size {
			found = append(found, &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()})
		}
	}
	if err := batch.Error(); err != nil || len(found) == 0 {
		return nil, fmt.Errorf("%w: no message of %d bytes to copy: %w", ErrLoad, size, err)
	}
	slices.SortFunc(found, func(a, b *nats.Msg) int { return a.Size() - b.Size() })
	return found[len(found)/2], nil
}

// streamState returns the messages and bytes of a stream.
func streamState(ctx context.Context, nc *nats.Conn, stream string) (msgs, bytes uint64, err error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, 0, err
	}
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return 0, 0, err
	}
	st := s.CachedInfo().State
	return st.Msgs, st.Bytes, nil
}
