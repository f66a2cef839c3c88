package gate

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const (
	// linger is how long a client that was cut may take to read why.
	linger = time.Second
	// serverGrace is how long the server may take to finish with what a client sent
	// before it left.
	serverGrace = 5 * time.Second
)

// conn is one client connection. The reader's goroutine owns every field that has
// no lock or atomic of its own; opts, box and identity do not change after the
// handshake.
type conn struct {
	gate *Gate
	id   uint64
	ip   string
	raw  net.Conn

	life context.Context // ends when the connection is cut; bounds every wait
	end  context.CancelFunc

	creds     *identity.Credentials
	opts      connectOptions
	principal atomic.Pointer[policy.Principal]
	ready     atomic.Bool           // the handshake is done: opts may be read by others
	closing   atomic.Pointer[error] // why the reader should stop; a nil error: without -ERR

	down link // to the client
	up   link // to the server
	in   window
	reader

	relay     relay
	relayDone chan struct{}
	hold      holder
	maxDown   int // largest payload of a frame from the server
	ticket
	session
}

// ticket is the connection's permission at the server. Its lock orders the
// handshake against Reload.
type ticket struct {
	ticketMu sync.Mutex
	token    string // empty until the handshake has asked for it
	revoke   func()
}

// session is what lasts as long as the connection.
type session struct {
	box    inbox
	handed *handed
	subs   subscriptions
	batch  batch
	// pongSent is the relay's: the first PONG was relayed.
	pongSent bool
}

// reader is the state of reading from the client.
type reader struct {
	parse     parser
	armed     time.Time // when the read deadline was set; zero: none is
	armedNeed int       // parse.need at that time
}

func newConn(g *Gate, raw net.Conn) *conn {
	cfg := &g.cfg
	c := &conn{gate: g, id: g.nextID.Add(1), ip: hostOf(raw.RemoteAddr()), raw: raw, relayDone: make(chan struct{})}
	c.life, c.end = context.WithCancel(context.Background())
	c.creds = &identity.Credentials{Nonce: identity.NewNonce(), RemoteAddr: raw.RemoteAddr().String()}
	c.down = link{nc: raw, deadline: cfg.Timeouts.Write, bytes: &g.counters.bytesOut}
	c.up = link{deadline: cfg.Timeouts.Write, bytes: &g.counters.bytesUp}
	c.parse = parser{
		maxLine: cfg.Limits.ControlLine, maxConnect: cfg.Limits.Connect,
		maxPayload: cfg.Limits.Payload,
	}
	// Answers of the direct get API carry some headers more than what was stored.
	c.maxDown = cfg.Limits.Payload + cfg.Limits.HeaderBudget + largeBuffer
	c.box = newInbox()
	c.handed = newHanded(cfg.Limits.Handed, cfg.Timeouts.HandedTTL)
	c.relay.c = c
	c.hold.init(c, g.deps.Barrier, cfg.Limits.HeldBytes)
	return c
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// serve is the reader's goroutine: the whole life of the connection.
func (c *conn) serve() {
	defer c.gate.wg.Done()
	defer c.gate.forget(c)
	defer c.in.release()
	err := c.handshake()
	if err != nil {
		c.turnAway(err)
		return
	}
	g := c.gate
	c.ready.Store(true)
	g.counters.accepted.Add(1)
	who := c.describe()
	g.sink.Connected(who)
	g.wg.Add(1)
	go c.relay.run()
	err = c.read()
	reason := c.finish(err)
	g.sink.Disconnected(who, reason)
}

func (c *conn) describe() *Connection {
	p := c.principal.Load()
	return &Connection{
		ID: c.id, Tenant: p.Tenant.Name, Principal: p.Name, Remote: c.creds.RemoteAddr,
		Name: c.opts.Name, Lang: c.opts.Lang, Version: c.opts.Version,
	}
}

// turnAway ends a connection that did not get through the handshake.
func (c *conn) turnAway(err error) {
	var f *fatal
	if errors.As(err, &f) {
		c.note(f.refusal, verbNameConnect, nil)
		c.deadline(linger)
		c.sayBye(f.err)
	}
	c.abort()
	if c.up.nc != nil {
		_ = c.up.nc.Close()
	}
	if c.revoke != nil {
		c.revoke()
	}
}

// read handles batches until the connection ends. It returns nil when the gate or
// the server ended it, io.EOF when the client did, and a *fatal for -ERR.
func (c *conn) read() error {
	c.batch.start(c)
	for {
		// What the handshake read too much is the first batch.
		if err := c.batch.process(); err != nil {
			return err
		}
		room := c.in.room(c.parse.need)
		if err := c.arm(); err != nil {
			return err
		}
		if c.closing.Load() != nil {
			return nil
		}
		n, err := c.down.nc.Read(room)
		c.in.filled(n)
		c.gate.counters.bytesIn.Add(uint64(n))
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if c.closing.Load() != nil {
				return nil
			}
			return &fatal{err: errStale, refusal: wire.Refuse(wire.CodeProtocolViolation, "message-deadline", "a message took too long to arrive")}
		case err != nil:
			return err
		}
	}
}

// arm sets the read deadline while a message is incomplete, and takes it away when
// none is. A stream of messages that happen to straddle reads does not pay for a
// new deadline each time: one that is still at least half away is kept, since the
// message before it was completed.
func (c *conn) arm() error {
	limit := c.gate.cfg.Timeouts.Message
	if c.in.r == c.in.w {
		if c.armed.IsZero() {
			return nil
		}
		c.armed = time.Time{}
		return c.down.nc.SetReadDeadline(time.Time{})
	}
	same := c.batch.taken == 0 && !c.armed.IsZero()
	if same && c.parse.need == c.armedNeed {
		return nil
	}
	now := time.Now()
	switch {
	case same: // its size is known now
	case !c.armed.IsZero() && now.Sub(c.armed) < limit/2 && c.parse.need <= largeBuffer:
		return nil
	default:
		c.armed = now
	}
	c.armedNeed = c.parse.need
	return c.down.nc.SetReadDeadline(c.armed.Add(limit + time.Duration(c.parse.need>>16)*time.Second))
}

// deadline bounds the reads of the next d, 0 for no bound.
func (c *conn) deadline(d time.Duration) {
	t := time.Time{}
	if d > 0 {
		t = time.Now().Add(d)
	}
	_ = c.down.nc.SetReadDeadline(t)
}

// wake ends the reader at its next read; why, if not nil, is said to the client.
// Any goroutine may call it.
func (c *conn) wake(why error) {
	if c.closing.CompareAndSwap(nil, &why) {
		_ = c.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// abort ends every wait and every read and write with the client. What was written
// upstream is still processed. Any goroutine may call it, more than once.
func (c *conn) abort() {
	c.end()
	_ = c.raw.Close()
}

// reset is abort for a client that does not read: what the kernel still holds for
// it is dropped, not kept until it does.
func (c *conn) reset() {
	if t, ok := c.raw.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.abort()
}

// finish ends the connection after the reader has stopped, and returns why for the
// audit. The server is told first and given time to finish, so that nothing that
// was forwarded is lost to a reset, and an orderly end still delivers its answers.
func (c *conn) finish(err error) string {
	reason := "closed by the client"
	var f *fatal
	switch {
	case errors.As(err, &f):
		reason = f.Error()
		c.note(f.refusal, verbNameProtocol, nil)
	case err == nil:
		reason = "closed by the broker"
		if why := *c.closing.Load(); why != nil {
			reason, f = why.Error(), &fatal{err: why}
		}
	case !errors.Is(err, io.EOF):
		reason = "connection lost"
	}
	if err != nil && f == nil { // nobody is there to read
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.reset()
		}
		c.abort()
		c.hold.stop()
	}
	c.up.closeWrite()
	_ = c.up.nc.SetReadDeadline(time.Now().Add(serverGrace))
	stop := context.AfterFunc(c.gate.hard, func() { _ = c.up.nc.SetReadDeadline(time.Unix(1, 0)) })
	<-c.relayDone
	stop()
	_ = c.up.nc.Close()
	c.revoke()
	if f != nil {
		c.sayBye(f.err)
	}
	c.abort()
	c.hold.stop()
	return reason
}

// sayBye writes -ERR and waits a moment for the client to read it: closing with
// unread bytes in the socket would reset the connection and lose the text.
func (c *conn) sayBye(why error) {
	if c.down.write(appendErr(nil, why.Error())) != nil {
		return
	}
	c.down.closeWrite()
	_ = c.raw.SetReadDeadline(time.Now().Add(linger))
	stop := context.AfterFunc(c.gate.hard, func() { _ = c.raw.Close() })
	defer stop()
	_, _ = io.CopyN(io.Discard, c.raw, 1<<20)
}
