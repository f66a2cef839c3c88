package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"github.com/signetbus/signet/bench"
	"github.com/signetbus/signet/broker/diskguard"
)

const (
	diskImage = 576 << 20 // bytes
	diskMax   = 416 << 20 // storage.maxBytes on it: the policies, and 85 MiB and 36.5 MiB a tenant of the broker itself
	// diskLeft is what the other writer leaves below the hard watermark for the load.
	diskLeft       = 6 << 20
	diskPublishers = 16
	// diskHold is how long the disk stays full: long enough for a broker that gives up
	// too early to show it.
	diskHold = 2 * time.Second
	// diskAnswer is how long a publisher waits: a slow machine is no silent broker.
	diskAnswer = 15 * time.Second
)

// fullDisks fills the disk of a broker under load n times, in turn slowly and at once.
func fullDisks(ctx context.Context, n int, o options) error {
	v, err := diskRun(ctx, n, o)
	if err != nil {
		return fmt.Errorf("full disk: %w", err)
	}
	v.print("full disk", n)
	if err := v.err(); err != nil {
		return fmt.Errorf("full disk: %w", err)
	}
	return nil
}

func diskRun(ctx context.Context, n int, o options) (v *verdict, err error) {
	vol, err := newVolume(filepath.Join(o.dir, "disk"), diskImage)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, vol.close()) }()
	b := &subject{cfg: bench.ServerConfig{
		Kind: bench.Signet, Sync: bench.Durable, Dir: filepath.Join(o.dir, "disk", "etc"), Store: vol.mount,
		Policy: unlogged(policyWith("270MiB")), MaxBytes: diskMax,
	}}
	begin := time.Now()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	address := b.Address
	super := supervise(ctx, b)
	defer super.close()
	l := newLedger()
	keep, err := newKeeper(ctx, address, l)
	if err != nil {
		return nil, err
	}
	defer keep.close()
	crowd, err := newCrowd(address, l)
	if err != nil {
		return nil, err
	}
	defer crowd.close()
	row("disk", "filled", "all told", "refused", "no answer", "resumed", "started anew", "total acked")
	for i := range n {
		if err := diskCycle(ctx, i, vol, crowd, super, keep, o.load); err != nil {
			return nil, fmt.Errorf("disk %d: %w", i+1, err)
		}
	}
	crowd.close()
	if err := keep.finish(ctx); err != nil {
		return nil, err
	}
	return readBack(ctx, address, l, begin, o.readers)
}

// diskCycle fills the disk, sees that every publisher is told, frees it, and sees
// that publishing comes back without a hand.
func diskCycle(ctx context.Context, i int, vol *volume, crowd *crowd, super *supervisor, keep *keeper, load time.Duration) error {
	watch := func(what string, ok func() bool) error {
		for end := time.Now().Add(bootWait); !ok(); {
			select {
			case err := <-super.fault:
				return err
			case err := <-keep.fault:
				return err
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
			if err := crowd.failed(); err != nil {
				return err
			}
			if time.Now().After(end) {
				return fmt.Errorf("%w: not within %s: %s", errBroken, bootWait, what)
			}
		}
		return nil
	}
	pause := func(d time.Duration) error {
		end := time.Now().Add(d)
		return watch("time passes", func() bool { return time.Now().After(end) })
	}
	if err := pause(load); err != nil {
		return err
	}
	atOnce := i%2 == 1
	how, ballast := "slowly", filepath.Join(vol.mount, "ballast")
	crowd.next()
	starts, filled := super.starts.Load(), time.Now()
	if err := fill(vol.mount, ballast, atOnce); err != nil {
		return err
	}
	if atOnce {
		how = "at once"
	}
	if err := watch("every publisher is told", crowd.allTold); err != nil {
		return err
	}
	told := time.Since(filled)
	if err := pause(diskHold); err != nil {
		return err
	}
	switch silent := crowd.silent.Load(); {
	case !atOnce && silent > 0:
		return fmt.Errorf("%w: %d publishes had no answer, though the guard was there first", errBroken, silent)
	case super.starts.Load() != starts:
		return fmt.Errorf("%w: the broker ended while there was no space", errBroken)
	}
	refused := crowd.refused.Load()
	freed := time.Now()
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if err := watch("every publisher is served again", crowd.allServedSince(freed)); err != nil {
		return err
	}
	row(fmt.Sprint(i+1), how, told, refused, crowd.silent.Load(), crowd.firstServed().Sub(freed), super.starts.Load()-starts, crowd.l.acked())
	return nil
}

// fill makes a file that takes the volume: all of it, or up to diskLeft bytes below the
// hard watermark.
func fill(dir, file string, all bool) error {
	v, err := diskguard.Statfs(dir)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	bytes := int64(v.Free)
	if !all {
		bytes -= int64(v.Size)/100*(100-diskguard.DefaultHard) + diskLeft
		if bytes <= 0 {
			return errors.New("there is nothing left to fill")
		}
		return unix.Fallocate(int(f.Fd()), 0, 0, bytes)
	}
	// What is taken meanwhile makes a step fail; smaller ones take the rest.
	for at, step := int64(0), bytes; step >= 4096; {
		switch err := unix.Fallocate(int(f.Fd()), 0, at, step); {
		case err == nil:
			at += step
		case errors.Is(err, unix.ENOSPC):
			step /= 2
		default:
			return err
		}
	}
	return nil
}

// supervisor is the service manager: it starts a broker again that asks for it.
type supervisor struct {
	b      *subject
	starts atomic.Int64
	fault  chan error
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

func supervise(ctx context.Context, b *subject) *supervisor {
	ctx, stop := context.WithCancel(ctx)
	s := &supervisor{b: b, fault: make(chan error, 1), stop: stop}
	s.wg.Go(func() {
		for {
			server := b.Server
			cut := context.AfterFunc(ctx, server.Kill)
			code := server.End()
			if !cut() {
				return
			}
			if code != bench.ExitAgain {
				s.fault <- fmt.Errorf("%w: the broker ended with exit code %d", errBroken, code)
				return
			}
			if err := b.start(ctx); err != nil {
				s.fault <- fmt.Errorf("start anew: %w", err)
				return
			}
			s.starts.Add(1)
		}
	})
	return s
}

func (s *supervisor) close() {
	s.stop()
	s.wg.Wait()
}

// crowd is publishers of plain nats.go that wait for each answer and go on whatever it
// is. What has no acknowledgement is unknown and is never sent again.
type crowd struct {
	l               *ledger
	conns           []*nats.Conn
	stop            chan struct{}
	once            sync.Once
	wg              sync.WaitGroup
	refused, silent atomic.Int64 // since next

	mu     sync.Mutex
	told   map[int]bool // publishers that were refused since next
	served map[int]time.Time
	first  time.Time // the first acknowledgement since the latest refusal of all
	fault  error
}

func newCrowd(a bench.Address, l *ledger) (*crowd, error) {
	c := &crowd{l: l, stop: make(chan struct{}), told: map[int]bool{}, served: map[int]time.Time{}}
	for range 4 {
		nc, err := a.Connect("publisher", nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
		if err != nil {
			c.close()
			return nil, err
		}
		c.conns = append(c.conns, nc)
	}
	for i := range diskPublishers {
		id := l.publisher()
		c.wg.Go(func() { c.run(c.conns[i%len(c.conns)], id) })
	}
	return c, nil
}

func (c *crowd) run(nc *nats.Conn, id int) {
	for {
		number := c.l.send(id)
		m, err := nc.Request(subjectOf(id), encode(id, number), diskAnswer)
		if err != nil {
			c.silent.Add(1)
		} else if err := c.answer(m, id, number); err != nil {
			c.mu.Lock()
			c.fault = errors.Join(c.fault, err)
			c.mu.Unlock()
			return
		}
		select {
		case <-c.stop:
			return
		default:
		}
	}
}

func (c *crowd) answer(m *nats.Msg, id, number int) error {
	var a struct {
		Sequence uint64 `json:"seq"`
		Problem  *struct {
			Code int    `json:"code"`
			Rule string `json:"rule"`
		} `json:"problem"`
	}
	err := json.Unmarshal(m.Data, &a)
	switch {
	case err == nil && a.Sequence > 0:
		c.l.ack(id, number, a.Sequence)
		c.mu.Lock()
		defer c.mu.Unlock()
		now := time.Now()
		c.served[id] = now
		if c.first.IsZero() {
			c.first = now
		}
		return nil
	case err == nil && a.Problem != nil && a.Problem.Code == 40900 && strings.HasPrefix(a.Problem.Rule, "storage"):
		c.refused.Add(1)
		c.mu.Lock()
		c.told[id], c.first = true, time.Time{}
		c.mu.Unlock()
		select { // it says so in retryAfterMs; asking more often shows the moment better
		case <-c.stop:
		case <-time.After(20 * time.Millisecond):
		}
		return nil
	case err == nil && a.Problem == nil && strings.Contains(string(m.Data), "no space left"):
		c.silent.Add(1) // the store's own words, from the moment when it failed
		return nil
	}
	return fmt.Errorf("%w: answer %q: %w", errBroken, m.Data, err)
}

// next begins a new count.
func (c *crowd) next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.told)
	c.refused.Store(0)
	c.silent.Store(0)
}

func (c *crowd) allTold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.told) == diskPublishers
}

func (c *crowd) allServedSince(t time.Time) func() bool {
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, at := range c.served {
			if at.Before(t) {
				return false
			}
		}
		return len(c.served) == diskPublishers
	}
}

// firstServed is when the first publisher was served after the refusals.
func (c *crowd) firstServed() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first
}

func (c *crowd) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fault
}

func (c *crowd) close() {
	c.once.Do(func() { close(c.stop) })
	c.wg.Wait()
	for _, nc := range c.conns {
		nc.Close()
	}
}
