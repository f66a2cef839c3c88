package broker

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
)

// sweepTimeout bounds one round over the consumers.
const sweepTimeout = 30 * time.Second

// firstSweep bounds the one that a start waits for.
const firstSweep = 5 * time.Second

// advisories are what the server says of deliveries. They come late or never, so nothing
// rests on them: they are counted, to be held against what the keeper counts.
var advisories = [...]struct{ name, subject string }{
	{"max-deliveries", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>"}, // it has dropped an event: none should come
	{"terminated", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"},
}

// consumerSweep looks after consumers that were made before the gate counted deliveries, or
// behind its back (one that the server limits itself loses events without a word), counts
// what is stuck at consumers that nobody pulls, and takes away what redrives left behind
// that ended midway. One goroutine runs it.
type consumerSweep struct {
	heard [len(advisories)]atomic.Uint64

	subs   map[string]*nats.Conn // connections that are listened to, by tenant
	failed bool                  // the last round

	mu    sync.Mutex
	stuck map[string]int // events, by tenant, as of the last round
}

// startConsumerSweep looks at the consumers before the gate opens, so that a program finds
// its durable as the gate would make it, and then once a minute. A cluster may be slow to
// answer: then the first look is cut short.
func startConsumerSweep(ctx context.Context, b startup) {
	first, cancel := context.WithTimeout(ctx, firstSweep)
	b.sweep.run(first, b.Broker)
	cancel()
	life, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(time.Minute)
		defer t.Stop()
		for {
			select {
			case <-life.Done():
				return
			case <-t.C:
				b.sweep.run(life, b.Broker)
			}
		}
	}()
	b.running("consumer sweep", func(context.Context) error {
		stop()
		<-ended
		return nil
	})
}

// run is one round. A stream that cannot be asked now is for the next.
func (s *consumerSweep) run(ctx context.Context, b *Broker) {
	ctx, cancel := context.WithTimeout(ctx, sweepTimeout)
	defer cancel()
	var faults []error
	stuck := make(map[string]int)
	for _, t := range b.Policy().Tenants() {
		if err := s.listen(b, t.Name); err != nil {
			faults = append(faults, err)
		}
		if _, err := store.SweepMarks(ctx, b.store, t.Name, time.Now()); err != nil {
			faults = append(faults, err)
		}
		streams := []string{wire.StreamRetry}
		for i := range t.Streams {
			streams = append(streams, t.Streams[i].Name)
		}
		slices.Sort(streams)
		stuck[t.Name] = 0
		for _, stream := range slices.Compact(streams) {
			n, err := sweepStream(ctx, b, t.Name, stream)
			faults = append(faults, err)
			stuck[t.Name] += n
		}
	}
	s.mu.Lock()
	s.stuck = stuck
	s.mu.Unlock()
	err := errors.Join(faults...)
	if err != nil && !s.failed && ctx.Err() == nil {
		b.log.Warn().Err(err).Msg("the consumers could not be looked after; tried again each minute")
	}
	s.failed = err != nil
}

// sweepStream takes the server's limit from the consumers of a stream and returns how many
// events are stuck at them.
func sweepStream(ctx context.Context, b *Broker, tenant, stream string) (stuck int, err error) {
	list, err := store.SweepConsumers(ctx, b.store, tenant, stream)
	for _, c := range list {
		stuck += c.Stuck
		if !c.Limited {
			continue
		}
		if e := store.Unlimit(ctx, b.store, tenant, stream, c.Name); e != nil && !errors.Is(e, store.ErrNotFound) {
			err = errors.Join(err, e)
			continue
		}
		b.log.Info().Str("tenant", tenant).Str("stream", stream).Str("consumer", c.Name).
			Msg("the gate counts the deliveries of this consumer from now on, not the server")
	}
	return stuck, err
}

// listen hears the advisories of a tenant, on the store's connection, until that ends.
func (s *consumerSweep) listen(b *Broker, tenant string) error {
	nc, err := b.store.Conn(tenant)
	if err != nil || s.subs[tenant] == nc {
		return err
	}
	if s.subs == nil {
		s.subs = make(map[string]*nats.Conn)
	}
	for kind := range advisories {
		_, err := nc.Subscribe(advisories[kind].subject, func(m *nats.Msg) {
			s.heard[kind].Add(1)
			if kind == 0 {
				logDropped(b, tenant, m.Data)
			}
		})
		if err != nil {
			return err
		}
	}
	s.subs[tenant] = nc
	return nil
}

// logDropped tells of an event that the server has given up by itself.
func logDropped(b *Broker, tenant string, advisory []byte) {
	var what struct {
		Stream   string `json:"stream"`
		Consumer string `json:"consumer"`
		Sequence uint64 `json:"stream_seq"`
	}
	if json.Unmarshal(advisory, &what) != nil {
		return
	}
	b.log.Error().Str("tenant", tenant).Str("stream", visible(what.Stream)).Str("consumer", visible(what.Consumer)).Uint64("sequence", what.Sequence).
		Msg("the server has dropped an event of a consumer that it limits itself: there is no dead letter of it; read it from its stream by its sequence")
}

func (s *consumerSweep) stuckOf() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.stuck)
}
