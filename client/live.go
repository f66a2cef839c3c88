package client

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
)

// liveBuffer is how many ephemeral events may wait for the reader; more are
// dropped and reported to WithErrorHandler.
const liveBuffer = 8192

// SubscribeLive delivers ephemeral events as they are published. They are
// verified like stored ones; there is no acknowledgement, no redelivery and no
// past. ctx bounds the setting up only. Options: Queue and Concurrency.
//
// Errors: ErrInvalidOption, ErrMalformed, ErrDenied, ErrUnavailable.
func (c *Client) SubscribeLive(ctx context.Context, filter string, handler Handler, opts ...SubOption) (*Subscription, error) {
	s, err := c.newSubscription(filter, handler, opts)
	if err == nil {
		err = s.cfg.validateLive()
	}
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	// Synchronous, because only that form of nats.go tells a refused subscription.
	if s.cfg.queue != "" {
		s.nsub, err = c.nc.QueueSubscribeSync(filter, s.cfg.queue)
	} else {
		s.nsub, err = c.nc.SubscribeSync(filter)
	}
	if err != nil {
		return nil, fromTransport("subscribe", filter, err)
	}
	// The refusal comes before the PONG.
	err = c.nc.FlushWithContext(ctx)
	var first *nats.Msg
	if err == nil {
		first, err = s.nsub.NextMsg(time.Nanosecond)
		if errors.Is(err, nats.ErrTimeout) {
			err = nil
		}
	}
	if err != nil {
		_ = s.nsub.Unsubscribe() // the first error is the one to return
		return nil, fromTransport("subscribe", filter, err)
	}
	s.begin()
	c.subs.add(s)
	go s.readLive(first)
	return s, nil
}

// readLive reads, verifies and pushes, in order, until the subscription ends.
func (s *Subscription) readLive(msg *nats.Msg) {
	defer s.finish()
	for {
		if msg != nil {
			d, _, err := s.verify(msg, time.Time{})
			if err != nil {
				s.refuse(InvalidEvent{NATSSubject: msg.Subject, Err: err})
			} else if !s.push(d) {
				return
			}
		}
		var err error
		msg, err = s.nsub.NextMsgWithContext(s.life.ctx)
		if errors.Is(err, nats.ErrSlowConsumer) {
			msg = nil
			continue // reported by the connection
		}
		if err != nil {
			if errors.Is(err, nats.ErrPermissionViolation) {
				s.fail(fromTransport("subscribe", s.filter, err))
			}
			return
		}
	}
}
