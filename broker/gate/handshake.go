package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"time"

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

// handshake brings a connection to the point where the client is authenticated and
// the server behind is ready. It runs in the first goroutine of the connection,
// which alone touches the connection until then, but for Reload (see access) and
// for who ends it (see lifetime).
type handshake struct {
	c     *conn
	cfg   *Config
	limit time.Duration // for TLS, and again for the rest
	heard bool          // the client has sent more than nothing
}

// run does the whole of it. A *fatal error is for the client too.
func (h *handshake) run() error {
	c := h.c
	if err := h.unproxy(); err != nil {
		return err
	}
	if err := h.secure(); err != nil {
		return err
	}
	h.heard = true
	c.session.down.readWithin(h.limit)
	var cmd command
	if err := h.readConnect(&cmd); err != nil {
		return err
	}
	if err := parseConnect(cmd.arg, &c.session.opts, c.access.creds); err != nil {
		return &fatal{err: err, refusal: wire.Refuse(wire.CodeProtocolViolation, "connect", err.Error())}
	}
	ctx, cancel := context.WithTimeout(c.life.ctx, h.limit)
	defer cancel()
	if refusal := h.login(ctx); refusal != nil {
		return &fatal{err: errAuthorization, refusal: refusal}
	}
	if err := h.enroll(); err != nil {
		return err
	}
	c.greeting.account = c.access.principal.Load().Tenant.Name
	if err := h.openUpstream(ctx); err != nil {
		return &fatal{err: errUnavailable, refusal: wire.Refuse(wire.CodeUnavailable, "upstream", "")}
	}
	c.reader.parse.headers = c.session.opts.Headers
	c.reader.in.settle()
	if c.session.opts.Verbose {
		if err := c.session.down.write(okFrame); err != nil {
			return err
		}
	}
	c.session.down.readWithin(0)
	return nil
}

// login authenticates the client, unless what it says it is has failed here too often.
func (h *handshake) login(ctx context.Context) *wire.Refusal {
	c, tries := h.c, h.c.gate.door.tries
	name, named := statedName(c.access.creds)
	if named {
		if wait := tries.barred(c.addr, name, time.Now()); wait > 0 {
			r := wire.Refuse(wire.CodeLoginBarred, "failed-logins", "")
			r.RetryAfter = wait
			return r
		}
	}
	refusal := c.access.authenticate(ctx)
	if refusal == nil {
		tries.succeeded(c.addr, name, time.Now())
	}
	return refusal
}

// enroll lets the client in as one of its principal's connections, if there is memory
// for one more. It comes after the authentication: who may not enter is told nothing.
func (h *handshake) enroll() error {
	c, g := h.c, h.c.gate
	if short := g.deps.Memory; short != nil {
		if err := short(); err != nil {
			g.counters.turnedAway[awayMemory].Add(1)
			return &fatal{err: errMemory, refusal: wire.Refuse(wire.CodeUnavailable, awayNames[awayMemory], err.Error())}
		}
	}
	if recordable := g.deps.Recordable; recordable != nil {
		if err := recordable(); err != nil {
			g.counters.turnedAway[awayAudit].Add(1)
			return &fatal{err: errAudit, refusal: wire.Refuse(wire.CodeUnavailable, awayNames[awayAudit], err.Error())}
		}
	}
	if r := g.enroll(c, c.access.principal.Load()); r != nil {
		g.counters.turnedAway[awayShare].Add(1)
		return &fatal{err: errConnections, refusal: r}
	}
	return nil
}

// secure sends INFO and makes the connection a TLS connection, in the order that
// the mode and the client ask for. Nothing is read from the client before the TLS
// server owns the socket, but the one byte that it is given back; so no byte that
// came in the clear can ever be taken for a byte of the session.
func (h *handshake) secure() error {
	down, hello := &h.c.session.down, h.c.greeting.info(infoFirst)
	down.readWithin(h.limit)
	if h.cfg.TLS == nil {
		return down.write(hello)
	}
	first, raw := h.cfg.Handshake == HandshakeFirst, h.c.life.raw
	if h.cfg.Handshake == HandshakeAuto {
		b, got, err := h.sniff()
		if err != nil {
			return err
		}
		down.readWithin(h.limit)
		if got {
			if b != tlsRecordHandshake {
				return &fatal{err: errAuthorization, refusal: wire.Refuse(wire.CodeProtocolViolation, "tls", "bytes before the TLS handshake")}
			}
			first, raw = true, &pushedBack{Conn: raw, first: [1]byte{b}, left: 1}
		}
	}
	if !first {
		if err := down.write(hello); err != nil {
			return err
		}
	}
	h.c.reader.tap = &tap{Conn: raw}
	t := tls.Server(h.c.reader.tap, h.cfg.TLS)
	ctx, cancel := context.WithTimeout(h.c.life.ctx, h.limit)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		h.heard = !errors.Is(err, io.EOF)
		return err
	}
	down.nc = t
	if certs := t.ConnectionState().PeerCertificates; len(certs) > 0 {
		// Not the state itself, which keeps the secrets of the handshake.
		h.c.access.creds.TLS = &tls.ConnectionState{PeerCertificates: certs}
	}
	if first {
		return down.write(hello)
	}
	return nil
}

// sniff waits for the client's first byte.
func (h *handshake) sniff() (b byte, got bool, err error) {
	raw := h.c.life.raw
	if err := raw.SetReadDeadline(time.Now().Add(h.cfg.Timeouts.Sniff)); err != nil {
		return 0, false, err
	}
	var one [1]byte
	n, err := raw.Read(one[:])
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
func (h *handshake) readConnect(cmd *command) error {
	from := &h.c.reader.intake
	for {
		if b := from.in.unread(); len(b) > 0 && b[0] != 'C' && b[0] != 'c' {
			return &fatal{err: errAuthorization, refusal: wire.Refuse(wire.CodeAuthRequired, "connect", "the first operation must be CONNECT")}
		}
		got, err := from.next(cmd)
		if err != nil {
			return &fatal{err: err, refusal: wire.Refuse(wire.CodeProtocolViolation, "connect", err.Error())}
		}
		if got {
			return nil
		}
		switch err := from.fill(); {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return &fatal{err: errAuthTimeout, refusal: wire.Refuse(wire.CodeAuthRequired, "auth-timeout", "")}
		default:
			return err
		}
	}
}

// openUpstream opens this client's connection to the server and waits until it is
// ready.
func (h *handshake) openUpstream(ctx context.Context) error {
	c := h.c
	// A reload waits for this at most until the deadline: nothing below waits for the
	// client.
	done := c.gate.deps.Upstream.Connecting()
	defer done()
	nc, err := c.gate.deps.Upstream.Dial(ctx)
	if err != nil {
		return err
	}
	c.session.up.nc = nc
	hello, err := c.session.opts.upstream(c.access.open(nc.LocalAddr()))
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = nc.SetReadDeadline(deadline)
	}
	if err := c.session.up.write(hello); err != nil {
		return err
	}
	if err := c.relay.awaitPong(); err != nil {
		return err
	}
	return nc.SetReadDeadline(time.Time{})
}

// count enters a handshake that did not get through as a failed login. It is none where
// the broker is what is short, or where nothing was heard of the client: load balancers
// look whether a port is open.
func (h *handshake) count(err error) {
	c := h.c
	if c.access.principal.Load() != nil || !h.heard {
		return
	}
	var f *fatal
	if errors.As(err, &f) && (f.refusal == nil || f.refusal.Code.Entry().Class != wire.ClassUnauthenticated && f.refusal.Code.Entry().Class != wire.ClassMalformed) {
		return
	}
	if f != nil && f.refusal.Code == wire.CodeLoginBarred {
		c.gate.door.tries.knocked(c.addr, time.Now())
		return
	}
	name, named := statedName(c.access.creds)
	c.gate.door.tries.failed(c.addr, name, named, time.Now())
}
