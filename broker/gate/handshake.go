package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/internal/wire"
)

// tlsRecordHandshake is the first byte of a TLS ClientHello.
const tlsRecordHandshake = 0x16

// fatal ends a connection with an -ERR of this text. The refusal, if any, is what
// audit is told.
type fatal struct {
	err     error // its text goes to the client
	refusal *wire.Refusal
}

func (f *fatal) Error() string { return f.err.Error() }
func (f *fatal) Unwrap() error { return f.err }

// handshake brings the connection to the point where the client is authenticated
// and the server behind is ready. It runs in the reader's goroutine.
func (c *conn) handshake() error {
	limit := c.gate.cfg.Timeouts.Auth
	if err := c.secure(limit); err != nil {
		return err
	}
	c.deadline(limit)
	var cmd command
	if err := c.readConnect(&cmd); err != nil {
		return err
	}
	if err := parseConnect(cmd.arg, &c.opts, c.creds); err != nil {
		return &fatal{err: err, refusal: wire.Refuse(wire.CodeProtocolViolation, "connect", err.Error())}
	}
	ctx, cancel := context.WithTimeout(c.life, limit)
	defer cancel()
	if refusal := c.authenticate(ctx); refusal != nil {
		return &fatal{err: errAuthorization, refusal: refusal}
	}
	if err := c.openUpstream(ctx); err != nil {
		return &fatal{err: errUnavailable, refusal: wire.Refuse(wire.CodeUnavailable, "upstream", "")}
	}
	c.parse.headers = c.opts.Headers
	if c.opts.Verbose {
		if err := c.down.write(okFrame); err != nil {
			return err
		}
	}
	c.deadline(0)
	return nil
}

// secure sends INFO and makes the connection a TLS connection, in the order that
// the mode and the client ask for. Nothing is read from the client before the TLS
// server owns the socket, but the one byte that it is given back; so no byte that
// came in the clear can ever be taken for a byte of the session.
func (c *conn) secure(limit time.Duration) error {
	cfg := &c.gate.cfg
	c.deadline(limit)
	if cfg.TLS == nil {
		return c.down.write(c.info(infoFirst))
	}
	first := cfg.Handshake == HandshakeFirst
	var raw net.Conn = c.raw
	if cfg.Handshake == HandshakeAuto {
		b, got, err := c.sniff(cfg.Timeouts.Sniff)
		if err != nil {
			return err
		}
		c.deadline(limit)
		if got {
			if b != tlsRecordHandshake {
				return &fatal{err: errAuthorization, refusal: wire.Refuse(wire.CodeProtocolViolation, "tls", "bytes before the TLS handshake")}
			}
			first, raw = true, &pushedBack{Conn: c.raw, first: [1]byte{b}, left: 1}
		}
	}
	if !first {
		if err := c.down.write(c.info(infoFirst)); err != nil {
			return err
		}
	}
	t := tls.Server(raw, cfg.TLS)
	ctx, cancel := context.WithTimeout(c.life, limit)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	c.down.nc = t
	state := t.ConnectionState()
	if len(state.PeerCertificates) > 0 {
		c.creds.TLS = &state
	}
	if first {
		return c.down.write(c.info(infoFirst))
	}
	return nil
}

// sniff waits for the client's first byte.
func (c *conn) sniff(wait time.Duration) (b byte, got bool, err error) {
	if err := c.raw.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, false, err
	}
	var one [1]byte
	n, err := c.raw.Read(one[:])
	switch {
	case n == 1:
		return one[0], true, nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, false, nil
	case err == nil:
		err = io.ErrNoProgress
	}
	return 0, false, err
}

// pushedBack is a connection whose first byte was read already. After the
// handshake it costs one comparison per read.
type pushedBack struct {
	net.Conn
	first [1]byte
	left  int
}

// Read returns the byte that was pushed back, then what the connection has.
func (p *pushedBack) Read(b []byte) (int, error) {
	if p.left > 0 && len(b) > 0 {
		p.left = 0
		b[0] = p.first[0]
		return 1, nil
	}
	return p.Conn.Read(b)
}

// CloseWrite half-closes the TCP connection.
func (p *pushedBack) CloseWrite() error {
	if c, ok := p.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// readConnect reads until CONNECT is there; it must be the first operation.
func (c *conn) readConnect(cmd *command) error {
	for {
		if b := c.in.unread(); len(b) > 0 {
			if b[0] != 'C' && b[0] != 'c' {
				return &fatal{err: errAuthorization, refusal: wire.Refuse(wire.CodeAuthRequired, "connect", "the first operation must be CONNECT")}
			}
			n, err := c.parse.next(b, cmd)
			if err != nil {
				return &fatal{err: err, refusal: wire.Refuse(wire.CodeProtocolViolation, "connect", err.Error())}
			}
			if n > 0 {
				c.in.r += n
				return nil
			}
		}
		n, err := c.down.nc.Read(c.in.room(0))
		c.in.filled(n)
		c.gate.counters.bytesIn.Add(uint64(n))
		switch {
		case n > 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &fatal{err: errAuthTimeout, refusal: wire.Refuse(wire.CodeAuthRequired, "auth-timeout", "")}
		case err != nil:
			return err
		}
	}
}

// authenticate stores the principal of the credentials, by the policy that is in
// force when it returns: a Reload either finds the principal or is seen here.
func (c *conn) authenticate(ctx context.Context) *wire.Refusal {
	for {
		set := c.gate.policy.Load()
		p, refusal := c.gate.deps.Authenticate(ctx, set, c.creds)
		if refusal == nil && p == nil {
			refusal = wire.Refuse(wire.CodeInternal, "authenticate", "")
		}
		if refusal != nil {
			return refusal
		}
		c.principal.Store(p)
		if c.gate.policy.Load() == set {
			return nil
		}
	}
}

// openUpstream opens this client's connection to the server and waits until it is
// ready.
func (c *conn) openUpstream(ctx context.Context) error {
	g := c.gate
	nc, err := g.deps.Upstream.Dial(ctx)
	if err != nil {
		return err
	}
	c.up.nc = nc
	c.ticketMu.Lock()
	p := c.principal.Load()
	publish, subscribe := acl.Permissions(p, c.box.token)
	c.token, c.revoke = g.deps.Upstream.Ticket(p.Tenant.Name, publish, subscribe, nc.LocalAddr())
	c.ticketMu.Unlock()
	hello, err := c.opts.upstream(c.token)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetReadDeadline(deadline)
	}
	if err := c.up.write(hello); err != nil {
		return err
	}
	if err := c.relay.awaitPong(); err != nil {
		return err
	}
	c.relay.in.settle()
	c.in.settle()
	return nc.SetReadDeadline(time.Time{})
}

// awaitPong reads INFO and the PONG of the gate's own PING. What follows stays in
// the window. It runs before the relay does.
func (r *relay) awaitPong() error {
	var f frame
	for {
		n, _, err := nextFrame(r.in.unread(), r.c.maxDown, &f)
		if err != nil {
			return err
		}
		if n > 0 {
			r.in.r += n
			switch f.kind {
			case framePong:
				return nil
			case frameInfo, framePing:
				continue
			default:
				return errFrame // -ERR: the ticket was not taken
			}
		}
		n, err = r.c.up.nc.Read(r.in.room(0))
		r.in.filled(n)
		if n == 0 && err != nil {
			return err
		}
	}
}
