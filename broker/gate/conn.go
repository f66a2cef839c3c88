package gate

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/broker/identity"
)

const (
	// linger is how long a client that was cut may take to read why.
	linger = time.Second
	// serverGrace is how long the server may take to finish with what a client sent
	// before it left.
	serverGrace = 5 * time.Second
)

// conn is one client connection: it makes the parts, starts them and ends them. The
// goroutine of serve runs the handshake and then the reader; it starts the relay.
type conn struct {
	gate     *Gate
	greeting greeting
	life     lifetime
	access   access
	session  session
	reader   reader
	relay    relay
	hold     holder
	expiry   expiry
	ready    atomic.Bool // the handshake is done: session.opts may be read by others
	faulted  atomic.Bool // the sink was told of a panic
	addr     netip.Addr  // whose failed logins are counted
	quota    string      // whose share of the connections this one counts to; Gate.mu
}

func newConn(g *Gate, raw net.Conn) *conn {
	cfg, remote := &g.cfg, raw.RemoteAddr().String()
	c := &conn{gate: g, addr: addressKey(raw.RemoteAddr())}
	c.life.init(raw, c.fault)
	creds := &identity.Credentials{Nonce: identity.NewNonce(), RemoteAddr: remote}
	c.greeting = greeting{gate: g, id: g.nextID.Add(1), ip: hostOf(raw.RemoteAddr()), nonce: creds.Nonce}
	s := &c.session
	s.down.nc, s.down.deadline, s.down.bytes = raw, cfg.Timeouts.Write, &g.counters.bytesOut
	s.up.deadline, s.up.bytes = cfg.Timeouts.Write, &g.counters.bytesUp
	s.box = newInbox()
	s.handed = newHanded(cfg.Limits.Handed, cfg.Timeouts.HandedTTL)
	s.subs.open = &g.counters.subscriptions
	s.acks = signedAcks{
		box: &s.box, sign: g.deps.Receipt, why: g.deps.NoReceipt, all: &g.counters.receipts,
		most: askedLimits{conn: cfg.Limits.SignedAcks, node: cfg.Limits.NodeSignedAcks, ttl: cfg.Timeouts.SignedAck},
		late: func(late []*askedAck) { g.spawn(c, func() { c.unacknowledged(late) }) },
	}
	s.audit = witness{sink: g.sink, counters: &g.counters, remote: remote}
	c.access.deps, c.access.policy, c.access.box, c.access.creds = &g.deps, &g.policy, &s.box, creds
	c.reader.init(c)
	c.relay.init(c)
	c.hold.init(c)
	return c
}

func hostOf(a net.Addr) string {
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// serve is the first goroutine of the connection: its whole life.
func (c *conn) serve() {
	g := c.gate
	defer g.wg.Done()
	defer g.forget(c)
	defer c.reader.in.release()
	defer c.session.acks.close()
	defer c.clear()
	defer c.life.survive()
	shake := handshake{c: c, cfg: &g.cfg, limit: g.cfg.Timeouts.Auth}
	if err := c.contain(shake.run); err != nil {
		shake.count(err)
		c.turnAway(err)
		return
	}
	c.ready.Store(true)
	g.counters.accepted.Add(1)
	who := c.describe()
	g.sink.Connected(who)
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		defer c.life.survive()
		c.relay.run()
	}()
	c.expiry.arm(c)
	reason := c.finish(c.contain(c.reader.run))
	c.expiry.stop()
	g.door.tries.left(c.addr, time.Now())
	c.tallied()
	g.sink.Disconnected(who, reason)
}

// describe says who is connected, as far as it is known.
func (c *conn) describe() *Connection {
	who := &Connection{ID: c.greeting.id, Remote: c.access.creds.RemoteAddr}
	if p := c.access.principal.Load(); p != nil { // stored after CONNECT was read
		o := &c.session.opts
		who.Tenant, who.Principal = p.Tenant.Name, p.Name
		who.Name, who.Lang, who.Version = o.Name, o.Lang, o.Version
		if login := c.access.login.Load(); login != nil {
			who.Method, who.Identity = login.Method, login.Name
		}
	}
	return who
}

// turnAway ends a connection that did not get through the handshake.
func (c *conn) turnAway(err error) {
	var f *fatal
	if errors.As(err, &f) {
		c.session.audit.refused(c.access.principal.Load(), f.refusal, Rejected{Verb: verbNameConnect})
		c.session.down.readWithin(linger)
		c.sayBye(f.err)
	}
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
		c.session.audit.refused(c.access.principal.Load(), f.refusal, Rejected{Verb: verbNameProtocol})
	case err == nil:
		reason = "closed by the broker"
		if why := c.life.reason(); why != nil {
			reason, f = why.Error(), &fatal{err: why}
		}
	case !errors.Is(err, io.EOF):
		reason = "connection lost"
	}
	if err != nil && f == nil { // nobody is there to read
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.life.reset()
		}
		c.life.abort()
		c.hold.stop()
	}
	up := &c.session.up
	up.closeWrite()
	up.readWithin(serverGrace)
	stop := context.AfterFunc(c.gate.hard, func() { _ = up.nc.SetReadDeadline(time.Unix(1, 0)) })
	<-c.relay.done
	stop()
	_ = up.nc.Close()
	if f != nil {
		c.sayBye(f.err)
	}
	return reason
}

// sayBye writes -ERR and waits a moment for the client to read it: closing with
// unread bytes in the socket would reset the connection and lose the text.
func (c *conn) sayBye(why error) {
	down, raw := &c.session.down, c.life.raw
	if down.write(appendErr(nil, why.Error())) != nil {
		return
	}
	down.closeWrite()
	_ = raw.SetReadDeadline(time.Now().Add(linger))
	stop := context.AfterFunc(c.gate.hard, func() { _ = raw.Close() })
	defer stop()
	_, _ = io.CopyN(io.Discard, raw, 1<<20)
}
