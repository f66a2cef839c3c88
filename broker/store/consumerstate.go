package store

import (
	"context"
	"fmt"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// ConsumerState is how far one consumer is at one moment.
type ConsumerState struct {
	Stream       string
	Name         string
	Owner        string // "tenant/name"; empty if it names none
	Durable      bool
	Created      time.Time
	Pending      uint64 // not yet delivered
	AckPending   int    // delivered, not yet acknowledged
	Redelivered  int    // of those, delivered more than once
	AckFloor     uint64 // all up to this sequence of the stream is done
	LastAck      time.Time
	LastDelivery time.Time
}

// consumerStates is the part of the answer to CONSUMER.LIST that is read here.
type consumerStates struct {
	Total     int `json:"total"`
	Consumers []struct {
		Name    string    `json:"name"`
		Created time.Time `json:"created"`
		Config  struct {
			Durable  string            `json:"durable_name"`
			Metadata map[string]string `json:"metadata"`
		} `json:"config"`
		Delivered struct {
			Last time.Time `json:"last_active"`
		} `json:"delivered"`
		AckFloor struct {
			Stream uint64    `json:"stream_seq"`
			Last   time.Time `json:"last_active"`
		} `json:"ack_floor"`
		AckPending  int    `json:"num_ack_pending"`
		Redelivered int    `json:"num_redelivered"`
		Pending     uint64 `json:"num_pending"`
	} `json:"consumers"`
}

// ConsumerStates returns the state of the consumers of all streams of a tenant, in no
// order. It is for people: one that is made or deleted meanwhile may be missing or
// stand there twice.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func (s *Store) ConsumerStates(ctx context.Context, tenant string) ([]ConsumerState, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	l, err := a.list(ctx)
	if err != nil {
		return nil, err
	}
	var out []ConsumerState
	for name, info := range l.infos {
		for offset, more := 0, info.State.Consumers > 0; more; {
			var page consumerStates
			err := a.request(ctx, "CONSUMER.LIST."+name, map[string]int{"offset": offset}, &page)
			if missing(err) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("tenant %s: %w", tenant, err)
			}
			for i := range page.Consumers {
				c := &page.Consumers[i]
				out = append(out, ConsumerState{
					Stream: name, Name: c.Name, Owner: c.Config.Metadata[wire.MetaOwner], Durable: c.Config.Durable != "", Created: c.Created,
					Pending: c.Pending, AckPending: c.AckPending, Redelivered: c.Redelivered,
					AckFloor: c.AckFloor.Stream, LastAck: c.AckFloor.Last, LastDelivery: c.Delivered.Last,
				})
			}
			offset += len(page.Consumers)
			more = len(page.Consumers) > 0 && offset < page.Total
		}
	}
	return out, nil
}
