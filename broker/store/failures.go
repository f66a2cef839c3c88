package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// What it takes to turn a delivery that failed into a dead letter. Plain functions: a
// Store has as many methods as it may.

// StoredEvent is one message of a stream, byte for byte.
type StoredEvent struct {
	Subject string
	Time    time.Time // when it was stored
	Header  []byte    // the whole block, nil for none
	Payload []byte
}

// EventAt reads the message of a tenant's stream with that sequence.
//
// Errors: ErrNotFound if it is not there, or the stream is not; ErrNoAccount, ErrServer,
// ErrClosed, or the connection's.
func EventAt(ctx context.Context, s *Store, tenant, stream string, seq uint64) (*StoredEvent, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	if !plainName(stream) || seq == 0 {
		return nil, fmt.Errorf("%w: sequence %d of stream %q", ErrNotFound, seq, stream)
	}
	var answer struct {
		Message struct {
			Subject string    `json:"subject"`
			Header  []byte    `json:"hdrs"`
			Data    []byte    `json:"data"`
			Time    time.Time `json:"time"`
		} `json:"message"`
	}
	switch err := a.request(ctx, "STREAM.MSG.GET."+stream, messageRequest{Sequence: seq}, &answer); {
	case missing(err):
		return nil, fmt.Errorf("%w: sequence %d of stream %s", ErrNotFound, seq, stream)
	case err != nil:
		return nil, fmt.Errorf("tenant %s: %w", tenant, err)
	}
	m := &answer.Message
	return &StoredEvent{Subject: m.Subject, Time: m.Time, Header: m.Header, Payload: m.Data}, nil
}

// PublishOnce is PublishDLQ of a record that has a Nats-Msg-Id, and says whether it is a
// new one: the DLQ knows the ids for as long as it keeps dead letters. Where it knows the
// id and the dead letter is gone (somebody took it out), it is stored again.
//
// Errors: those of PublishDLQ.
func PublishOnce(ctx context.Context, s *Store, tenant, subject string, header nats.Header, data []byte) (first bool, err error) {
	for {
		ack, err := publishLetter(ctx, s, tenant, &nats.Msg{Subject: subject, Header: header, Data: data})
		if err != nil || !ack.Duplicate {
			return err == nil, err
		}
		_, err = s.GetDLQ(ctx, tenant, ack.Sequence)
		if !errors.Is(err, ErrNotFound) {
			return false, err
		}
		header = maps.Clone(header)
		header.Set(wire.HeaderMsgID, header.Get(wire.HeaderMsgID)+":after:"+strconv.FormatUint(ack.Sequence, 10))
	}
}

// ConsumerFacts is what a consumer was made as, and how far it is.
type ConsumerFacts struct {
	Owner     string // "tenant/name" as the read guard wrote it; empty if it names none
	Ack       string // "explicit", "all" or "none"
	Asked     int    // most deliveries that the client asked for; 0: it did not
	Filters   []string
	Delivered uint64 // highest sequence of the stream that it has delivered
	AckFloor  uint64 // everything up to it is settled
	// Limited: the server counts deliveries itself and drops an event without a word; see
	// Unlimit.
	Limited bool
}

// consumerFacts is the part of a consumer's info that is read here.
type consumerFacts struct {
	Name   string `json:"name"`
	Config struct {
		Ack        string            `json:"ack_policy"`
		MaxDeliver int               `json:"max_deliver"`
		Filter     string            `json:"filter_subject"`
		Filters    []string          `json:"filter_subjects"`
		Metadata   map[string]string `json:"metadata"`
	} `json:"config"`
	Delivered struct {
		Stream uint64 `json:"stream_seq"`
	} `json:"delivered"`
	AckFloor struct {
		Stream uint64 `json:"stream_seq"`
	} `json:"ack_floor"`
	AckPending  int  `json:"num_ack_pending"`
	Redelivered int  `json:"num_redelivered"`
	Waiting     int  `json:"num_waiting"`
	Bound       bool `json:"push_bound"`
}

func (c *consumerFacts) facts() ConsumerFacts {
	f := ConsumerFacts{
		Owner: c.Config.Metadata[wire.MetaOwner], Ack: c.Config.Ack, Filters: c.Config.Filters,
		Delivered: c.Delivered.Stream, AckFloor: c.AckFloor.Stream, Limited: c.Config.MaxDeliver > 0,
	}
	if c.Config.Filter != "" {
		f.Filters = []string{c.Config.Filter}
	}
	if n, err := strconv.Atoi(c.Config.Metadata[wire.MetaDeliveries]); err == nil && n > 0 {
		f.Asked = n
	}
	if f.Limited && (f.Asked == 0 || c.Config.MaxDeliver < f.Asked) {
		f.Asked = c.Config.MaxDeliver
	}
	return f
}

// FactsOf looks at one consumer.
//
// Errors: ErrNotFound, ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func FactsOf(ctx context.Context, s *Store, tenant, stream, consumer string) (ConsumerFacts, error) {
	a, err := s.account(tenant)
	if err != nil {
		return ConsumerFacts{}, err
	}
	if !plainName(stream) || !plainName(consumer) {
		return ConsumerFacts{}, fmt.Errorf("%w: consumer %q of %q", ErrNotFound, consumer, stream)
	}
	var info consumerFacts
	switch err := a.request(ctx, "CONSUMER.INFO."+stream+"."+consumer, nil, &info); {
	case missing(err):
		return ConsumerFacts{}, fmt.Errorf("%w: consumer %s of %s", ErrNotFound, consumer, stream)
	case err != nil:
		return ConsumerFacts{}, fmt.Errorf("tenant %s: %w", tenant, err)
	}
	return info.facts(), nil
}

// Unlimit takes the server's own limit of deliveries from a consumer that was made before
// the gate counted, or behind its back, and writes what it was where the gate looks
// (wire.MetaDeliveries). The server does not say that it gives an event up, and leaves it
// where nobody finds it.
//
// Errors: ErrNotFound, ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func Unlimit(ctx context.Context, s *Store, tenant, stream, consumer string) error {
	a, err := s.account(tenant)
	if err != nil {
		return err
	}
	var info struct {
		Config map[string]json.RawMessage `json:"config"` // whole: what is not known here must not get lost
	}
	switch err := a.request(ctx, "CONSUMER.INFO."+stream+"."+consumer, nil, &info); {
	case missing(err):
		return fmt.Errorf("%w: consumer %s of %s", ErrNotFound, consumer, stream)
	case err != nil:
		return fmt.Errorf("tenant %s: %w", tenant, err)
	}
	var most int
	var filter string
	metadata := map[string]string{}
	for name, to := range map[string]any{"max_deliver": &most, "filter_subject": &filter, "metadata": &metadata} {
		if raw := info.Config[name]; raw != nil && json.Unmarshal(raw, to) != nil {
			return fmt.Errorf("%w: consumer %s of %s: %s is not what it should be", ErrServer, consumer, stream, name)
		}
	}
	if most <= 0 {
		return nil
	}
	metadata[wire.MetaDeliveries] = strconv.Itoa(most)
	info.Config["max_deliver"] = json.RawMessage("-1")
	if info.Config["metadata"], err = json.Marshal(metadata); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	api := "CONSUMER.CREATE." + stream + "." + consumer
	if filter != "" {
		api += "." + filter
	}
	var answer struct{}
	req := map[string]any{"stream_name": stream, "config": info.Config, "action": "update"}
	if err := a.request(ctx, api, req, &answer); err != nil {
		return fmt.Errorf("tenant %s: consumer %s of %s: %w", tenant, consumer, stream, err)
	}
	return nil
}

// SweptConsumer is a consumer that somebody should look after.
type SweptConsumer struct {
	Name    string
	Limited bool // see Unlimit
	// Stuck is how many of its events were delivered more than once, are not settled, and
	// come to nobody: no request waits for them.
	Stuck int
}

// SweepConsumers returns the consumers of a stream that settle events one by one and are
// limited by the server, or have events that are stuck. One that is made or deleted
// meanwhile may be missing.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func SweepConsumers(ctx context.Context, s *Store, tenant, stream string) ([]SweptConsumer, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	var out []SweptConsumer
	for offset, more := 0, true; more; {
		var page struct {
			Total     int             `json:"total"`
			Consumers []consumerFacts `json:"consumers"`
		}
		err := a.request(ctx, "CONSUMER.LIST."+stream, map[string]int{"offset": offset}, &page)
		if missing(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("tenant %s: %w", tenant, err)
		}
		for i := range page.Consumers {
			c := &page.Consumers[i]
			one := SweptConsumer{Name: c.Name, Limited: c.Config.MaxDeliver > 0}
			if c.Waiting == 0 && !c.Bound {
				one.Stuck = min(c.Redelivered, c.AckPending)
			}
			if c.Config.Ack == AckExplicit && (one.Limited || one.Stuck > 0) {
				out = append(out, one)
			}
		}
		offset += len(page.Consumers)
		more = len(page.Consumers) > 0 && offset < page.Total
	}
	return out, nil
}

// AckExplicit is ConsumerFacts.Ack of a consumer whose events are settled one by one.
const AckExplicit = "explicit"

// Settle publishes what settles a delivery, on its ack subject. With a reply subject the
// server answers there and Settle does not wait; else Settle waits for the answer.
//
// Errors: ErrNoAccount, ErrClosed, or the connection's and ctx's, after which it may be
// settled or not.
func Settle(ctx context.Context, s *Store, tenant, ack, reply, body string) error {
	a, err := s.account(tenant)
	if err != nil {
		return err
	}
	if reply != "" {
		return a.nc.PublishRequest(ack, reply, []byte(body))
	}
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	_, err = a.nc.RequestWithContext(ctx, ack, []byte(body))
	return err
}

// Progress starts the ack wait of a delivery anew, without waiting for it.
//
// Errors: ErrNoAccount, ErrClosed, or the connection's.
func Progress(s *Store, tenant, ack string) error {
	a, err := s.account(tenant)
	if err != nil {
		return err
	}
	return a.nc.Publish(ack, []byte("+WPI"))
}
