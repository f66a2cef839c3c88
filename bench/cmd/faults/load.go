package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/bench"
	"github.com/signetbus/signet/client"
)

// The load: some publishers keep many events in flight, some wait for each
// acknowledgement, and two use the SDK, which survives the faults.
const (
	windowPublishers = 4
	syncPublishers   = 4
	sdkPublishers    = 2
	window           = 128
	bootWait         = 90 * time.Second // bounds what must happen, also on a slow disk
)

// subject is the broker that gets hurt.
type subject struct {
	cfg bench.ServerConfig
	*bench.Server
	startedIn time.Duration
}

// start starts the broker, on the port that it had before.
func (b *subject) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootWait)
	defer cancel()
	begin := time.Now()
	s, err := bench.Start(ctx, b.cfg)
	if err != nil {
		return err
	}
	b.Server, b.startedIn = s, time.Since(begin)
	b.cfg.Listen = s.URL[len("tls://"):]
	return nil
}

func (b *subject) kill() {
	if b.Server != nil {
		b.Kill()
		b.Server = nil
	}
}

// cycle runs the load for a random time and kills the broker in the middle of it.
// It returns when the publishers of the cycle are gone.
func (b *subject) cycle(ctx context.Context, l *ledger, keep *keeper, load time.Duration) (time.Duration, error) {
	begin := time.Now()
	before := l.acked()
	var wg sync.WaitGroup
	faults := make(chan error, windowPublishers+syncPublishers)
	for i := range windowPublishers + syncPublishers {
		inFlight := window
		if i >= windowPublishers {
			inFlight = 1
		}
		p, err := newPublisher(b.Address, l, inFlight)
		if err != nil {
			return 0, err
		}
		wg.Go(func() {
			if err := p.run(); err != nil {
				faults <- err
			}
		})
	}
	select {
	case <-time.After(load + rand.N(load)):
	case <-ctx.Done():
		return 0, ctx.Err()
	case err := <-faults:
		return 0, err
	case err := <-keep.fault:
		return 0, err
	}
	b.kill()
	took := time.Since(begin)
	wg.Wait()
	if l.acked() == before {
		return took, errors.New("nothing was acknowledged under load")
	}
	return took, nil
}

// publisher is one connection of plain nats.go that ends with the broker. What has
// no acknowledgement then is unknown and is never sent again.
type publisher struct {
	l     *ledger
	id    int
	nc    *nats.Conn
	inbox string
	slots chan struct{}
	gone  chan struct{}
	fault error // a refusal; of the callback until run has ended
}

func newPublisher(a bench.Address, l *ledger, inFlight int) (*publisher, error) {
	p := &publisher{l: l, id: l.publisher(), slots: make(chan struct{}, inFlight), gone: make(chan struct{})}
	var err error
	p.nc, err = a.Connect("publisher", nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(p.gone) }))
	if err != nil {
		return nil, err
	}
	p.inbox = p.nc.NewInbox()
	if _, err := p.nc.Subscribe(p.inbox+".*", p.answer); err != nil {
		p.nc.Close()
		return nil, err
	}
	return p, nil
}

func (p *publisher) answer(m *nats.Msg) {
	var a struct {
		Sequence uint64          `json:"seq"`
		Error    json.RawMessage `json:"error"`
	}
	number, err := strconv.Atoi(m.Subject[len(p.inbox)+1:])
	if err == nil {
		err = json.Unmarshal(m.Data, &a)
	}
	if err != nil || a.Sequence == 0 {
		p.fault = fmt.Errorf("answer %q: %w", m.Data, errors.Join(err, errBroken))
		p.nc.Close()
		return
	}
	p.l.ack(p.id, number, a.Sequence)
	<-p.slots
}

func (p *publisher) run() error {
	for {
		select {
		case p.slots <- struct{}{}:
		case <-p.gone:
			return p.fault
		}
		number := p.l.send(p.id)
		m := &nats.Msg{Subject: subjectOf(p.id), Reply: p.inbox + "." + strconv.Itoa(number), Data: encode(p.id, number)}
		if err := p.nc.PublishMsg(m); err != nil {
			<-p.gone
			return p.fault
		}
	}
}

// keeper is the publishers that use the SDK and live through all faults: what has
// no answer they publish again under the same event id, as the documentation
// says, until it is acknowledged. Each event must then be there exactly once.
type keeper struct {
	clients []*client.Client
	stop    chan struct{}
	fault   chan error
	wg      sync.WaitGroup
}

func newKeeper(ctx context.Context, a bench.Address, l *ledger) (*keeper, error) {
	k := &keeper{stop: make(chan struct{}), fault: make(chan error, sdkPublishers)}
	for range sdkPublishers {
		c, err := a.SDK(ctx, "publisher", client.WithReconnectWait(50*time.Millisecond))
		if err != nil {
			k.close()
			return nil, err
		}
		k.clients = append(k.clients, c)
		id := l.publisher()
		k.wg.Go(func() {
			if err := k.run(c, l, id); err != nil {
				k.fault <- err
			}
		})
	}
	return k, nil
}

func (k *keeper) run(c *client.Client, l *ledger, id int) error {
	for {
		select {
		case <-k.stop:
			return nil
		default:
		}
		number := l.send(id)
		ev := client.NewEvent("faults.entry", encode(id, number))
		ev.ID, ev.DataContentType = fmt.Sprintf("%d-%d", id, number), client.ContentTypeJSON
		for begin := time.Now(); ; {
			// Its own time-out, not that of the run: a fault lies in between.
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			ack, err := c.Publish(ctx, subjectOf(id), ev)
			cancel()
			if err == nil {
				l.ack(id, number, ack.Sequence)
				break
			}
			if time.Since(begin) > 2*bootWait || errors.Is(err, client.ErrClosed) {
				return fmt.Errorf("SDK publisher: %w", err)
			}
			if !client.Retryable(err) && !errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("SDK publisher: %w", err)
			}
		}
	}
}

// finish lets the publishers finish what they have begun.
func (k *keeper) finish(ctx context.Context) error {
	close(k.stop)
	done := make(chan struct{})
	go func() {
		k.wg.Wait()
		close(done)
	}()
	select {
	case err := <-k.fault:
		return err
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-k.fault:
		return err
	default:
		return nil
	}
}

func (k *keeper) close() {
	for _, c := range k.clients {
		c.Close()
	}
	k.wg.Wait()
}
