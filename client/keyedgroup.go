package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// readyQueue has the events that workers may take. more.L must be mu.
type readyQueue struct {
	mu     sync.Mutex
	more   sync.Cond
	list   []*entry
	closed bool
}

func (q *readyQueue) push(entries ...*entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, e := range entries {
		if e != nil {
			q.list = append(q.list, e)
			q.more.Signal()
		}
	}
}

// pop waits for an event; nil when the queue is closed.
func (q *readyQueue) pop() *entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.list) == 0 && !q.closed {
		q.more.Wait()
	}
	if q.closed {
		return nil
	}
	e := q.list[0]
	q.list[0] = nil
	q.list = q.list[1:]
	return e
}

func (q *readyQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.more.Broadcast()
}

func (g *KeyedSubscription) work() {
	for e := g.ready.pop(); e != nil; e = g.ready.pop() {
		e.part.run(e)
	}
}

// leased says whether the lease holds.
func (g *KeyedSubscription) leased() bool { return time.Now().Before(*g.until.Load()) }

// wake has run look after the group now.
func (g *KeyedSubscription) wake() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// run keeps the lease and the partitions until the group is left.
func (g *KeyedSubscription) run() {
	defer g.end()
	leaving := g.life.leaving
	for {
		next := time.NewTimer(jittered(g.cfg.Lease / 4))
		lapse := time.NewTimer(time.Until(*g.until.Load()))
		select {
		case <-next.C:
		case <-lapse.C:
		case <-g.kick:
		case <-leaving:
			leaving = nil
			g.closeAll(false)
		case <-g.client.closed:
			g.fail(g.client.Err())
			g.closeAll(true)
			return
		}
		next.Stop()
		lapse.Stop()
		g.reap()
		if !g.leased() {
			g.closeAll(true)
		}
		if leaving == nil && g.Partitions() == 0 {
			g.resign()
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), g.cfg.Lease/2)
		err := g.attend(ctx)
		cancel()
		switch {
		case errors.Is(err, ErrDenied), errors.Is(err, ErrNotFound), errors.Is(err, errOtherGroup):
			g.fail(err)
		case err != nil:
			g.client.cfg.onError(err)
			pauseFor(g.client.closed, jittered(firstBackoff))
		}
	}
}

// pauseFor waits for d, or for closed.
func pauseFor(closed <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-closed:
	case <-t.C:
	}
}

var errOtherGroup = errors.New("client: the group is there with another filter, stream or number of partitions: use another name")

// attend gives a sign of life, which renews the lease, and brings the partitions here to
// what the roll says then.
func (g *KeyedSubscription) attend(ctx context.Context) error {
	for try := 0; ; try++ {
		r, revision, err := g.read(ctx)
		if err != nil {
			return err
		}
		dead := g.watch.look(r, g.me, time.Now())
		g.mu.Lock()
		left := slices.Clone(g.left)
		g.mu.Unlock()
		g.beat++
		r.Leases[g.me] = g.cfg.Lease
		surplus := r.attend(g.me, g.beat, dead, left, g.leaving())
		sent := time.Now()
		fence, err := writeRoll(ctx, g.kv, g.cfg.Group, r, revision)
		if errors.Is(err, ErrConflict) && try < 10 {
			pauseFor(ctx.Done(), jittered(time.Duration(try+1)*5*time.Millisecond))
			continue
		}
		if err != nil {
			return err
		}
		if !g.leased() {
			g.closeAll(true) // it ran out meanwhile, and somebody may have seen that
		}
		until := sent.Add(g.cfg.Lease)
		g.until.Store(&until)
		g.mu.Lock()
		g.left = slices.DeleteFunc(g.left, func(p int) bool { return slices.Contains(left, p) })
		g.mu.Unlock()
		return g.reconcile(ctx, r, fence, surplus)
	}
}

func (g *KeyedSubscription) read(ctx context.Context) (*roll, uint64, error) {
	v, err := g.kv.get(ctx, g.cfg.Group)
	if err != nil {
		return nil, 0, err
	}
	if v.data == nil {
		return newRoll(g.filter, g.stream, g.cfg.Partitions), v.revision, nil
	}
	r, err := parseRoll(v.data)
	if err == nil && !r.shares(g.filter, g.stream, g.cfg.Partitions) {
		err = errOtherGroup
	}
	if err != nil {
		return nil, 0, &Error{
			Op: "subscribe", Class: string(wire.ClassConflict), Subject: g.filter,
			Title: "key " + g.cfg.Group + " of bucket " + g.cfg.Bucket + " is not a roll of this group", Err: err,
		}
	}
	return r, v.revision, nil
}

func writeRoll(ctx context.Context, kv bucket, key string, r *roll, revision uint64) (uint64, error) {
	text, err := marshalRoll(r)
	if err != nil { // names and numbers always encode
		return 0, err
	}
	return kv.put(ctx, key, text, revision)
}

// reconcile starts the partitions that r gives to this instance, drops those that it does
// not, and lets go of surplus ones.
func (g *KeyedSubscription) reconcile(ctx context.Context, r *roll, fence uint64, surplus int) error {
	leaving := g.leaving()
	var take []int
	g.mu.Lock()
	for index, owner := range r.Owners {
		p := g.parts[index]
		switch {
		case owner == g.me && p == nil && leaving:
			g.left = append(g.left, index) // the roll gave it while we were going
		case owner == g.me && p == nil && !slices.Contains(g.left, index):
			take = append(take, index)
		case owner != g.me && p != nil:
			p.close(true)
		case owner == g.me && p != nil && surplus > 0:
			p.close(false)
			surplus--
		}
	}
	g.mu.Unlock()
	var faults []error
	for _, index := range take {
		p, err := g.take(ctx, index, fence)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		g.stats.taken.Add(1)
		g.mu.Lock()
		g.parts[index] = p
		g.mu.Unlock()
	}
	return errors.Join(faults...)
}

// reap forgets the partitions that have ended; those that were let go of go off the roll.
func (g *KeyedSubscription) reap() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for index, p := range g.parts {
		select {
		case <-p.gone:
		default:
			continue
		}
		delete(g.parts, index)
		if p.wasLost() {
			g.stats.lost.Add(1)
		} else {
			g.left = append(g.left, index)
		}
	}
}

func (g *KeyedSubscription) closeAll(lost bool) {
	g.mu.Lock()
	parts := make([]*partition, 0, len(g.parts))
	for _, p := range g.parts {
		parts = append(parts, p)
	}
	g.mu.Unlock()
	for _, p := range parts {
		p.close(lost)
	}
}

// partitionEnded is told of a partition whose subscription ended by itself.
func partitionEnded(g *KeyedSubscription, err error) {
	if errors.Is(err, ErrConsumerGone) || errors.Is(err, ErrDenied) {
		g.fail(err)
	}
}

// fail ends the subscription because of err.
func (g *KeyedSubscription) fail(err error) {
	g.mu.Lock()
	if g.err == nil && !g.leaving() {
		g.err = err
	}
	g.mu.Unlock()
	g.Stop()
}

func (g *KeyedSubscription) leaving() bool {
	select {
	case <-g.life.leaving:
		return true
	default:
		return false
	}
}

// resign takes this instance off the roll, so that others need not wait for its lease.
func (g *KeyedSubscription) resign() {
	ctx, cancel := context.WithTimeout(context.Background(), g.client.cfg.timeout)
	defer cancel()
	for range 10 {
		r, revision, err := g.read(ctx)
		if err != nil || r.Members[g.me] == 0 {
			return // others find out
		}
		r.remove(g.me)
		if _, err = writeRoll(ctx, g.kv, g.cfg.Group, r, revision); !errors.Is(err, ErrConflict) {
			return
		}
	}
}

// abandon undoes a setUp that failed.
func (g *KeyedSubscription) abandon() {
	g.life.stop()
	g.closeAll(false)
	g.life.tenders.Wait()
	g.resign()
}

// end waits for what is left of handlers.
func (g *KeyedSubscription) end() {
	g.life.tenders.Wait()
	g.ready.close()
	g.life.workers.Wait()
	g.life.stop()
	g.client.subs.drop(g)
	close(g.life.closed)
}
