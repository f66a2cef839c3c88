package client

import (
	"fmt"
	"time"
)

// Defaults and limits of a subscription.
const (
	DefaultSubMaxInFlight = 256
	MaxSubMaxInFlight     = 10_000
	DefaultAckWait        = 30 * time.Second
	MaxConcurrency        = 1024
	maxConsumerName       = 64
)

// A SubOption configures one subscription.
type SubOption func(*subConfig) error

type subConfig struct {
	durable     string
	stream      string
	policy      string // all, new, by_start_sequence, by_start_time
	startSeq    uint64
	startTime   time.Time
	maxInFlight int
	concurrency int
	ackWait     time.Duration
	ordered     bool
	started     bool // a From option was given
	acked       bool // an option about acknowledgement was given
	bounded     bool // SubMaxInFlight was given
	queue       string
	signed      bool     // only events with a producer signature
	producers   []string // by one of these; empty: by any
	encrypted   bool     // only events whose payload was encrypted
}

func defaultSubConfig() *subConfig {
	return &subConfig{
		policy: "all", maxInFlight: DefaultSubMaxInFlight, concurrency: 1,
		ackWait: DefaultAckWait,
	}
}

// Durable names the consumer, so that its position outlives this process and is
// shared by all subscriptions of that name: 1 to 64 of A-Z a-z 0-9 _ -. Default:
// a consumer of this subscription alone, gone with it. Of an existing consumer
// the start, ack wait and bounds stay as they were made. The handler also gets what was
// redriven to this consumer (signet dlq redrive), with Delivery.Redrives above 0.
func Durable(name string) SubOption {
	return func(c *subConfig) error {
		if err := checkConsumerName(name); err != nil {
			return err
		}
		c.durable = name
		return nil
	}
}

// InStream names the stream, for a filter that more than one stream holds.
func InStream(stream string) SubOption {
	return func(c *subConfig) error {
		if err := checkConsumerName(stream); err != nil {
			return err
		}
		c.stream = stream
		return nil
	}
}

// FromStart begins with the oldest event that is stored. It is the default.
func FromStart() SubOption {
	return func(c *subConfig) error { return c.start("all", 0, time.Time{}) }
}

// FromNew begins with the next event.
func FromNew() SubOption {
	return func(c *subConfig) error { return c.start("new", 0, time.Time{}) }
}

// FromSequence begins with the event of this stream sequence, or the next after it.
func FromSequence(seq uint64) SubOption {
	return func(c *subConfig) error {
		if seq == 0 {
			return fmt.Errorf("%w: FromSequence: sequences start at 1", ErrInvalidOption)
		}
		return c.start("by_start_sequence", seq, time.Time{})
	}
}

// FromTime begins with the first event stored at or after t.
func FromTime(t time.Time) SubOption {
	return func(c *subConfig) error {
		if t.IsZero() {
			return fmt.Errorf("%w: FromTime: zero time", ErrInvalidOption)
		}
		return c.start("by_start_time", 0, t.UTC())
	}
}

func (c *subConfig) start(policy string, seq uint64, t time.Time) error {
	if c.started {
		return fmt.Errorf("%w: more than one of FromStart, FromNew, FromSequence, FromTime", ErrInvalidOption)
	}
	c.started, c.policy, c.startSeq, c.startTime = true, policy, seq, t
	return nil
}

// SubMaxInFlight bounds the events that are delivered and not settled. Default
// DefaultSubMaxInFlight, at most MaxSubMaxInFlight.
func SubMaxInFlight(n int) SubOption {
	return func(c *subConfig) error {
		if n < 1 || n > MaxSubMaxInFlight {
			return fmt.Errorf("%w: SubMaxInFlight: %d is not in 1 to %d", ErrInvalidOption, n, MaxSubMaxInFlight)
		}
		c.maxInFlight, c.bounded = n, true
		return nil
	}
}

// Concurrency is how many handlers run at a time. Default 1, which keeps the
// order of the stream; at most MaxConcurrency.
func Concurrency(n int) SubOption {
	return func(c *subConfig) error {
		if n < 1 || n > MaxConcurrency {
			return fmt.Errorf("%w: Concurrency: %d is not in 1 to %d", ErrInvalidOption, n, MaxConcurrency)
		}
		c.concurrency = n
		return nil
	}
}

// AckWait is how long the broker waits for a settlement before it delivers again.
// Default DefaultAckWait, 1 s to 1 h.
func AckWait(d time.Duration) SubOption {
	return func(c *subConfig) error {
		if d < time.Second || d > time.Hour {
			return fmt.Errorf("%w: AckWait: %v is not in 1s to 1h", ErrInvalidOption, d)
		}
		c.ackWait, c.acked = d, true
		return nil
	}
}

// Ordered reads without acknowledgement: every event once, in order, picking up
// after the last one by itself when the connection or the server is lost. It is
// the fast way to replay or to follow a stream. What a handler returns changes
// nothing, and there is no Durable.
func Ordered() SubOption {
	return func(c *subConfig) error { c.ordered = true; return nil }
}

// Queue makes SubscribeLive share its events: each goes to one subscription of
// the same queue name. Stored events are shared by Durable.
func Queue(name string) SubOption {
	return func(c *subConfig) error {
		if err := checkConsumerName(name); err != nil {
			return err
		}
		c.queue = name
		return nil
	}
}

// validateLive refuses what only stored events have.
func (c *subConfig) validateLive() error {
	if c.durable != "" || c.stream != "" || c.started || c.acked || c.bounded || c.ordered {
		return fmt.Errorf("%w: SubscribeLive takes Queue and Concurrency only: ephemeral events are not stored", ErrInvalidOption)
	}
	return nil
}

func (c *subConfig) validate() error {
	if c.queue != "" {
		return fmt.Errorf("%w: Queue is of SubscribeLive; share stored events with Durable", ErrInvalidOption)
	}
	if !c.ordered {
		return nil
	}
	switch {
	case c.durable != "":
		return fmt.Errorf("%w: Ordered with Durable", ErrInvalidOption)
	case c.concurrency != 1:
		return fmt.Errorf("%w: Ordered with Concurrency", ErrInvalidOption)
	case c.acked:
		return fmt.Errorf("%w: Ordered with AckWait", ErrInvalidOption)
	}
	return nil
}

func checkConsumerName(name string) error {
	if name == "" || len(name) > maxConsumerName {
		return fmt.Errorf("%w: name %q: 1 to %d characters", ErrInvalidOption, name, maxConsumerName)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
		default:
			return fmt.Errorf("%w: name %q has a character outside A-Z a-z 0-9 - _", ErrInvalidOption, name)
		}
	}
	return nil
}
