package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// Consumer is one consumer as far as a policy is concerned.
type Consumer struct {
	Stream  string
	Name    string
	Owner   string        // "tenant/name" as the read guard wrote it; empty if it names none
	Filters []string      // none: the whole stream
	Push    bool          // it delivers without being asked
	AckWait time.Duration // of ConsumerFor only, as is Durable
	Durable bool
	Reads   []string // of the durable of a retry queue: what the consumer reads that it is for
}

// Wants reports whether the consumer reads a subject of its stream.
func (c *Consumer) Wants(subject string) bool {
	return len(c.Filters) == 0 || slices.ContainsFunc(c.Filters, func(f string) bool { return wire.Match(f, subject) })
}

// consumerPage is the part of the answer to CONSUMER.LIST that is read here.
type consumerPage struct {
	Total     int `json:"total"`
	Consumers []struct {
		Name   string `json:"name"`
		Config struct {
			Filter         string            `json:"filter_subject"`
			Filters        []string          `json:"filter_subjects"`
			DeliverSubject string            `json:"deliver_subject"`
			Metadata       map[string]string `json:"metadata"`
		} `json:"config"`
	} `json:"consumers"`
}

// Consumers returns all consumers of a stream, sorted by name. One that is made
// while it runs may be missing; one that is there all the time is not.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's. A stream that
// does not exist has no consumers.
func (s *Store) Consumers(ctx context.Context, tenant, stream string) ([]Consumer, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	if !plainName(stream) {
		return nil, nil
	}
	var out []Consumer
	for offset := 0; ; {
		var page consumerPage
		err := a.request(ctx, "CONSUMER.LIST."+stream, map[string]int{"offset": offset}, &page)
		if missing(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("tenant %s: %w", tenant, err)
		}
		// Pages are cut by position in the order of names, and consumers go while we
		// read: a page that begins after the last known name may have lost some
		// between, so it is read again from further back.
		if len(out) > 0 && offset > 0 && (len(page.Consumers) == 0 || page.Consumers[0].Name > out[len(out)-1].Name) {
			offset = max(0, min(offset, page.Total)-pageOverlap)
			continue
		}
		before := len(out)
		for i := range page.Consumers {
			c := &page.Consumers[i]
			if len(out) > 0 && c.Name <= out[len(out)-1].Name {
				continue
			}
			filters := c.Config.Filters
			if c.Config.Filter != "" {
				filters = []string{c.Config.Filter}
			}
			out = append(out, Consumer{
				Stream: stream, Name: c.Name, Owner: c.Config.Metadata[wire.MetaOwner],
				Filters: filters, Push: c.Config.DeliverSubject != "",
				Reads: readsOf(c.Config.Metadata),
			})
		}
		end := offset + len(page.Consumers)
		if end >= page.Total || len(out) == before {
			return out, nil
		}
		offset = end - 1 // one that is known, so that a hole shows
	}
}

// pageOverlap is how far back a page is read again after a hole.
const pageOverlap = 128

// DeleteConsumer deletes a consumer. It is no error if there is none.
//
// Errors: ErrNoAccount, ErrServer, ErrClosed, or the connection's.
func (s *Store) DeleteConsumer(ctx context.Context, tenant, stream, consumer string) error {
	a, err := s.account(tenant)
	if err != nil {
		return err
	}
	if !plainName(stream) || !plainName(consumer) {
		return nil
	}
	var answer struct{}
	err = a.request(ctx, "CONSUMER.DELETE."+stream+"."+consumer, nil, &answer)
	if err != nil && !missing(err) {
		return fmt.Errorf("tenant %s: %w", tenant, err)
	}
	return nil
}
