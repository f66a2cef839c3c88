package client

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// call is one request that waits for its answer. done is called exactly once,
// without a lock of the mux, and must not block.
type call struct {
	id       uint64
	msg      *nats.Msg
	deadline time.Time
	done     func(reply, error)
	claimed  bool // its answer is being handed over; guarded by mux.mu
	resent   bool // sent again after a reconnect; guarded by mux.mu
}

// reply is what came. With resent an earlier sending may have had another answer.
type reply struct {
	*nats.Msg
	resent bool
}

// mux sends requests and hands out their answers, which all come to one inbox
// subscription. Requests without an answer are sent again after a reconnect, in
// their order and before new ones, so everything sent through a mux must be safe
// to repeat: publishes are, by their event id.
type mux struct {
	nc     *nats.Conn
	prefix string // inbox with a trailing dot

	// sendMu orders sends: a resend is not interleaved with new requests. It is
	// taken before mu.
	sendMu sync.Mutex
	held   bool // disconnected: requests wait for the resend

	mu      sync.Mutex
	pending map[uint64]*call
	last    uint64
	waiters []chan struct{} // of settled; closed when a call has ended
	closed  error
}

func newMux(nc *nats.Conn) *mux {
	return &mux{nc: nc, prefix: nats.NewInbox() + ".", pending: map[uint64]*call{}}
}

func (m *mux) start() error {
	_, err := m.nc.Subscribe(m.prefix+"*", m.onAnswer)
	return err
}

// send registers and sends msg, whose Reply it sets. done gets the answer, or an
// error after deadline. An error of send itself means that done is not called.
func (m *mux) send(msg *nats.Msg, deadline time.Time, done func(reply, error)) (uint64, error) {
	m.sendMu.Lock()
	defer m.sendMu.Unlock()
	m.mu.Lock()
	if m.closed != nil {
		m.mu.Unlock()
		return 0, m.closed
	}
	m.last++
	c := &call{id: m.last, msg: msg, deadline: deadline, done: done}
	msg.Reply = m.prefix + strconv.FormatUint(c.id, 36)
	m.pending[c.id] = c
	m.mu.Unlock()
	if m.held {
		return c.id, nil
	}
	err := m.nc.PublishMsg(msg)
	if err != nil && !errors.Is(err, nats.ErrReconnectBufExceeded) && m.claim(c.id) != nil {
		m.forget(c)
		return 0, err
	}
	return c.id, nil
}

// claim makes the caller the one that ends the call; nil if it ended already.
func (m *mux) claim(id uint64) *call {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.pending[id]
	if c == nil || c.claimed {
		return nil
	}
	c.claimed = true
	return c
}

// end hands the answer over and forgets the call, which the caller has claimed.
func (m *mux) end(c *call, msg *nats.Msg, err error) {
	m.mu.Lock()
	resent := c.resent
	m.mu.Unlock()
	c.done(reply{msg, resent}, err)
	m.forget(c)
}

func (m *mux) forget(c *call) {
	m.mu.Lock()
	delete(m.pending, c.id)
	waiters := m.waiters
	m.waiters = nil
	m.mu.Unlock()
	for _, w := range waiters {
		close(w)
	}
}

func (m *mux) onAnswer(msg *nats.Msg) {
	id, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, m.prefix), 36, 64)
	if err != nil {
		return
	}
	c := m.claim(id)
	if c == nil {
		return // timed out, or the second answer to a request that was sent twice
	}
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		m.end(c, nil, nats.ErrNoResponders)
		return
	}
	m.end(c, msg, nil)
}

// hold stops sends until resume; both are called by the connection's callbacks,
// in that order.
func (m *mux) hold() {
	m.sendMu.Lock()
	m.held = true
	m.sendMu.Unlock()
}

func (m *mux) resume() {
	m.sendMu.Lock()
	defer m.sendMu.Unlock()
	m.held = false
	for _, c := range m.waiting() {
		m.mu.Lock()
		c.resent = true
		m.mu.Unlock()
		if err := m.nc.PublishMsg(c.msg); err != nil {
			if errors.Is(err, nats.ErrReconnectBufExceeded) {
				m.held = true // gone again: the next resume sends the rest
				return
			}
			if m.claim(c.id) != nil {
				m.end(c, nil, err)
			}
		}
	}
}

// waiting returns the calls without an answer, in order.
func (m *mux) waiting() []*call {
	m.mu.Lock()
	defer m.mu.Unlock()
	calls := make([]*call, 0, len(m.pending))
	for _, c := range m.pending {
		if !c.claimed {
			calls = append(calls, c)
		}
	}
	slices.SortFunc(calls, func(a, b *call) int { return cmp.Compare(a.id, b.id) })
	return calls
}

// expire fails the calls whose deadline is over.
func (m *mux) expire(now time.Time) {
	var late []*call
	m.mu.Lock()
	for _, c := range m.pending {
		if !c.claimed && now.After(c.deadline) {
			c.claimed = true
			late = append(late, c)
		}
	}
	m.mu.Unlock()
	for _, c := range late {
		m.end(c, nil, context.DeadlineExceeded)
	}
}

// run expires calls until ctx ends.
func (m *mux) run(ctx context.Context, every time.Duration) {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			m.expire(now)
		}
	}
}

// close fails every call that waits, and all later ones, with err.
func (m *mux) close(err error) {
	m.mu.Lock()
	if m.closed == nil {
		m.closed = err
	}
	m.mu.Unlock()
	for _, c := range m.waiting() {
		if m.claim(c.id) != nil {
			m.end(c, nil, err)
		}
	}
}

// settled waits until the calls of this moment have been answered.
func (m *mux) settled(ctx context.Context) error {
	m.mu.Lock()
	upto := m.last
	m.mu.Unlock()
	for {
		changed := make(chan struct{})
		m.mu.Lock()
		open := false
		for id := range m.pending {
			if id <= upto {
				open = true
				break
			}
		}
		if open {
			m.waiters = append(m.waiters, changed)
		}
		m.mu.Unlock()
		if !open {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// request sends one message and waits for its answer.
func (m *mux) request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	r, err := m.ask(ctx, msg)
	return r.Msg, err
}

// ask is request that says whether the message was sent again.
func (m *mux) ask(ctx context.Context, msg *nats.Msg) (reply, error) {
	type result struct {
		reply
		err error
	}
	ch := make(chan result, 1)
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(DefaultTimeout)
	}
	id, err := m.send(msg, deadline, func(a reply, err error) { ch <- result{a, err} })
	if err != nil {
		return reply{}, err
	}
	select {
	case r := <-ch:
		return r.reply, r.err
	case <-ctx.Done():
		if c := m.claim(id); c != nil {
			m.forget(c)
			return reply{}, ctx.Err()
		}
		r := <-ch // the answer is being handed over
		return r.reply, r.err
	}
}
