package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// consumerConfig is the part of JetStream's consumer configuration that is used.
type consumerConfig struct {
	Durable           string        `json:"durable_name,omitempty"`
	Name              string        `json:"name,omitempty"`
	DeliverPolicy     string        `json:"deliver_policy"`
	OptStartSeq       uint64        `json:"opt_start_seq,omitempty"`
	OptStartTime      *time.Time    `json:"opt_start_time,omitempty"`
	AckPolicy         string        `json:"ack_policy"`
	AckWait           time.Duration `json:"ack_wait,omitempty"`
	MaxDeliver        int           `json:"max_deliver,omitempty"`
	FilterSubject     string        `json:"filter_subject,omitempty"`
	ReplayPolicy      string        `json:"replay_policy"`
	MaxAckPending     int           `json:"max_ack_pending,omitempty"`
	InactiveThreshold time.Duration `json:"inactive_threshold,omitempty"`
	Replicas          int           `json:"num_replicas"`
	MemoryStorage     bool          `json:"mem_storage,omitempty"`
}

type createRequest struct {
	Stream string         `json:"stream_name"`
	Config consumerConfig `json:"config"`
	Action string         `json:"action"`
}

// apiAnswer has the error members of every JetStream API answer.
type apiAnswer struct {
	Error   *wire.APIError `json:"error"`
	Problem *wire.Problem  `json:"problem"`
}

func (a *apiAnswer) failure() (*wire.APIError, *wire.Problem) { return a.Error, a.Problem }

type failer interface {
	failure() (*wire.APIError, *wire.Problem)
}

// jsAPI asks the JetStream API for consumers. It is stateless but for its mux.
type jsAPI struct{ mux *mux }

// request asks the JetStream API. It is not nats.go's own client, which drops
// the problem member of our answers.
func (c jsAPI) request(ctx context.Context, op, verb string, request any, answer failer) error {
	body, err := json.Marshal(request)
	if err != nil {
		return malformed(op, "", "", err)
	}
	msg, err := c.mux.request(ctx, &nats.Msg{Subject: wire.PrefixJSAPI + verb, Data: body})
	if err != nil {
		return fromTransport(op, "", err)
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return &Error{Op: op, Class: string(wire.ClassInternal), Title: "the answer cannot be read", Err: err}
	}
	if apiErr, problem := answer.failure(); apiErr != nil {
		return fromAPI(op, *apiErr, problem)
	}
	return nil
}

// streamFor finds the one stream that holds filter.
func (c jsAPI) streamFor(ctx context.Context, filter string) (string, error) {
	var answer struct {
		apiAnswer
		Streams []string `json:"streams"`
	}
	request := struct {
		Subject string `json:"subject"`
	}{filter}
	if err := c.request(ctx, "subscribe", "STREAM.NAMES", request, &answer); err != nil {
		return "", atSubject(err, filter)
	}
	switch len(answer.Streams) {
	case 1:
		return answer.Streams[0], nil
	case 0:
		return "", &Error{
			Op: "subscribe", Class: string(wire.ClassNotFound), Subject: filter,
			Title: "no stream holds this subject", Fix: "use SubscribeLive for an ephemeral subject",
		}
	}
	return "", &Error{
		Op: "subscribe", Class: string(wire.ClassConflict), Subject: filter,
		Title:  "more than one stream holds this subject",
		Detail: strings.Join(answer.Streams, ", "), Fix: "name one with InStream, or narrow the filter",
	}
}

type consumerInfo struct {
	apiAnswer
	Name   string         `json:"name"`
	Config consumerConfig `json:"config"`
	// Delivered.StreamSeq of a new consumer is the sequence before its first event.
	Delivered struct {
		ConsumerSeq uint64 `json:"consumer_seq"`
		StreamSeq   uint64 `json:"stream_seq"`
	} `json:"delivered"`
	AckFloor struct {
		StreamSeq uint64 `json:"stream_seq"`
	} `json:"ack_floor"`
	NumAckPending int `json:"num_ack_pending"`
}

func (c jsAPI) consumerInfo(ctx context.Context, stream, consumer string) (*consumerInfo, error) {
	var info consumerInfo
	if err := c.request(ctx, "subscribe", "CONSUMER.INFO."+stream+"."+consumer, struct{}{}, &info); err != nil {
		return nil, err
	}
	return &info, nil
}

// ensureDurable uses the consumer that is there or makes it, and says which. Many
// processes may do so at once.
func (c jsAPI) ensureDurable(ctx context.Context, stream, filter string, cfg *subConfig) (info *consumerInfo, made bool, err error) {
	for try := 0; ; try++ {
		info, err = c.consumerInfo(ctx, stream, cfg.durable)
		if err == nil {
			return info, false, sameConsumer(info, filter)
		}
		if !errors.Is(err, ErrNotFound) {
			return nil, false, err
		}
		info, err = c.createConsumer(ctx, stream, cfg.durable, filter, cfg.consumer(filter))
		if !errors.Is(err, ErrConflict) || try > 0 {
			return info, err == nil, err
		}
	}
}

func sameConsumer(info *consumerInfo, filter string) error {
	if info.Config.FilterSubject == filter && info.Config.AckPolicy == "explicit" {
		return nil
	}
	return &Error{
		Op: "subscribe", Class: string(wire.ClassConflict), Subject: filter,
		Title: "the durable consumer exists with another filter or acknowledgement policy",
		Detail: fmt.Sprintf("consumer %s has filter %q and policy %s",
			info.Name, info.Config.FilterSubject, info.Config.AckPolicy),
		Fix: "use another durable name",
	}
}

func (c jsAPI) createConsumer(ctx context.Context, stream, name, filter string, cfg consumerConfig) (*consumerInfo, error) {
	cfg.Name = name
	var info consumerInfo
	err := c.request(ctx, "subscribe", "CONSUMER.CREATE."+stream+"."+name+"."+filter,
		createRequest{Stream: stream, Config: cfg, Action: "create"}, &info)
	return &info, atSubject(err, filter)
}

func (c jsAPI) deleteConsumer(ctx context.Context, stream, name string) error {
	var answer apiAnswer
	return c.request(ctx, "unsubscribe", "CONSUMER.DELETE."+stream+"."+name, struct{}{}, &answer)
}

// inactive is how long the server keeps a consumer that nobody pulls from: long
// enough for a reconnect, short enough not to pile up.
const inactive = 5 * time.Minute

// consumer is the configuration of the consumer to make.
func (c *subConfig) consumer(filter string) consumerConfig {
	cfg := consumerConfig{
		DeliverPolicy: c.policy, OptStartSeq: c.startSeq, FilterSubject: filter, ReplayPolicy: "instant",
		AckPolicy: "explicit", AckWait: c.ackWait, MaxAckPending: c.maxInFlight,
	}
	if c.policy == "by_start_time" {
		t := c.startTime
		cfg.OptStartTime = &t
	}
	if c.ordered {
		cfg.AckPolicy, cfg.AckWait, cfg.MaxDeliver, cfg.MaxAckPending = "none", 0, 1, 0
	}
	if c.durable != "" {
		cfg.Durable = c.durable
	} else {
		// Its state is the client's to rebuild, so it costs no disk.
		cfg.InactiveThreshold, cfg.MemoryStorage, cfg.Replicas = inactive, true, 1
	}
	return cfg
}

// consumerName returns a fresh name for a consumer of one subscription.
func consumerName() string { return "c" + strings.ToLower(rand.Text())[:20] }

func atSubject(err error, subject string) error {
	var e *Error
	if errors.As(err, &e) && e.Subject == "" {
		e.Subject = subject
	}
	return err
}
