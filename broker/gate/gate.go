package gate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/ratelimit"
)

// Errors of the gate.
var (
	ErrStarted = errors.New("gate: already started")
	ErrStopped = errors.New("gate: not running")
)

// Gate is the listener and its connections. Its methods are safe for concurrent
// use.
type Gate struct {
	cfg    Config
	deps   Deps
	sink   Sink
	policy atomic.Pointer[inForce]
	owners ownerCache
	rates  ratelimit.Table // API requests, by principal
	door   *doorman
	counters
	nextID atomic.Uint64

	mu       sync.Mutex
	listener net.Listener
	addr     net.Addr
	conns    map[*conn]struct{}
	shares   map[string]*usage // by principal, "tenant/name", and by tenant
	draining bool              // nobody new comes in
	stopping bool              // Shutdown waits: nothing new is started

	wg   sync.WaitGroup  // the accept loop and every goroutine of every connection
	hard context.Context // ends when Shutdown's patience does
	kill context.CancelFunc
	gone chan struct{} // one token when a connection has gone while draining
}

// New checks the configuration and returns a gate that does nothing yet. The error
// joins every fault.
func New(cfg Config, deps Deps) (*Gate, error) {
	if err := errors.Join(cfg.Validate(), deps.validate()); err != nil {
		return nil, err
	}
	g := &Gate{cfg: cfg.withDefaults(), deps: deps, sink: deps.Sink, conns: make(map[*conn]struct{}), shares: make(map[string]*usage), gone: make(chan struct{}, 1)}
	if g.sink == nil {
		g.sink = nobody{}
	}
	g.policy.Store(&inForce{deps.Policy})
	g.owners.source, g.owners.timeout, g.owners.ttl = deps.Owners, g.cfg.Timeouts.Owner, g.cfg.Timeouts.OwnerTTL
	g.door = newDoorman(g.cfg.Limits.PerIPRate, g.cfg.Limits.PerIPBurst)
	g.door.tries = newAttempts(g.cfg.Limits.FailedLogins)
	g.hard, g.kill = context.WithCancel(context.Background())
	return g, nil
}

// Start listens and accepts. It returns when the gate is listening.
//
// Errors: ErrStarted; the listener's.
func (g *Gate) Start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		return ErrStarted
	}
	// Liveness is the server's PINGs, which the relay passes on; TCP keep-alives
	// would only add packets.
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: false}}
	l, err := lc.Listen(ctx, "tcp", g.cfg.Listen)
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	g.listener, g.addr = l, l.Addr()
	g.wg.Add(1)
	go g.accept(l)
	return nil
}

// Addr returns the address that the gate listens on, nil before Start.
func (g *Gate) Addr() net.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.addr
}

// accept takes connections until the listener is closed.
func (g *Gate) accept(l net.Listener) {
	defer g.wg.Done()
	pause := acceptPause
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			pause = acceptPause
			g.welcome(raw)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// Out of descriptors, mostly: let connections end.
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-g.hard.Done():
			}
			t.Stop()
			pause = min(2*pause, time.Second)
		}
	}
}

const acceptPause = 5 * time.Millisecond

// welcome starts a connection, unless there are too many.
func (g *Gate) welcome(raw net.Conn) {
	if !g.proxied(raw.RemoteAddr()) {
		if why, ok := g.admits(raw.RemoteAddr()); !ok {
			g.counters.turnedAway[why].Add(1)
			_ = raw.Close() // no answer: it would cost what the limit saves
			return
		}
	}
	c := newConn(g, raw)
	g.mu.Lock()
	full := len(g.conns) >= g.cfg.Limits.Connections
	if full || g.draining {
		g.mu.Unlock()
		why := awayDrain
		if full {
			why = awayFull
		}
		g.counters.turnedAway[why].Add(1)
		c.life.end()
		if full && g.cfg.TLS == nil {
			_ = c.session.down.write(appendErr(nil, errConnections.Error()))
		}
		_ = raw.Close()
		return
	}
	g.conns[c] = struct{}{}
	g.wg.Add(1)
	g.mu.Unlock()
	g.counters.connections.Add(1)
	go c.serve()
}

// forget drops a connection that has ended.
func (g *Gate) forget(c *conn) {
	g.mu.Lock()
	delete(g.conns, c)
	if c.quota != "" {
		tenant, _, _ := strings.Cut(c.quota, "/")
		for _, of := range [...]string{c.quota, tenant} {
			if u := g.shares[of]; u != nil {
				if u.connections--; u.connections <= 0 {
					g.dropLocked(of, u)
				}
			}
		}
	}
	g.mu.Unlock()
	g.counters.connections.Add(-1)
	select {
	case g.gone <- struct{}{}:
	default:
	}
}

// spawn runs f, a task of c, in a goroutine that Shutdown waits for, unless it is
// waiting already.
func (g *Gate) spawn(c *conn, f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		return
	}
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		defer c.life.survive()
		f()
	}()
}

func (g *Gate) snapshot() []*conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]*conn, 0, len(g.conns))
	for c := range g.conns {
		list = append(list, c)
	}
	return list
}
