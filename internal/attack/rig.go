package attack

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
)

// The throw-away principals.
const (
	victim   = "victim"   // its events and consumers are what attackers are after
	attacker = "attacker" // may publish, read and call a little
	clerk    = "clerk"    // types are limited
	slow     = "slow"     // its rate is limited
	flooder  = "flooder"  // for the rate of the JetStream API
	lapsed   = "lapsed"   // its time is over
	disabled = "disabled"
	stranger = "stranger" // of the other tenant
)

// names of all of them, and their tenant.
var principals = map[string]string{
	victim: Tenant, attacker: Tenant, clerk: Tenant, slow: Tenant, flooder: Tenant, lapsed: Tenant, disabled: Tenant, stranger: OtherTenant,
}

// infoWait is how long INFO in the clear is waited for, before TLS is begun without it.
const infoWait = 3 * time.Second

// Rig is what attacks run against. Open, OpenPlain make one; Close lets go of it.
type Rig struct {
	addrs []string // host:port; the first that answers is attacked
	tls   *tls.Config
	creds map[string]nkeys.KeyPair
	plain bool // nobody needs a credential

	tlsFirst bool // nothing comes in the clear
	server   string
	close    func()
}

// Server is the name of the node that was attacked.
func (r *Rig) Server() string { return r.server }

// Close lets go of what the rig holds. The throw-away principals are Stage's.
func (r *Rig) Close() {
	if r.close != nil {
		r.close()
	}
}

// opening is how a connection is opened, where it is not with a good credential.
type opening struct {
	who     string        // whose credential; empty: none
	key     nkeys.KeyPair // signs in place of who's; without who it is stated, too
	members string        // more of CONNECT, as JSON with a comma in front
	cert    *tls.Certificate
	bare    bool // stop before CONNECT
}

// errRefused: the broker turned a connection away, and said so.
type errRefused struct{ said string }

func (e *errRefused) Error() string { return "the broker said " + e.said }

// as opens a connection of a throw-away principal.
func (r *Rig) as(ctx context.Context, who string) (*conn, error) {
	c, err := r.open(ctx, opening{who: who})
	if err != nil {
		return nil, fmt.Errorf("connect as %s: %w", who, err)
	}
	return c, nil
}

// open opens a connection. An *errRefused is the broker's word; every other error is
// none. The connection is the caller's to close.
func (r *Rig) open(ctx context.Context, o opening) (*conn, error) {
	c, err := r.dial(ctx)
	if err != nil {
		return nil, err
	}
	ok := false
	defer func() {
		if !ok {
			_ = c.Close()
		}
	}()
	if c, err = r.secure(ctx, c, o.cert); err != nil {
		return nil, err
	}
	if o.bare {
		ok = true
		return c, nil
	}
	line, err := r.connectLine(c, &o)
	if err != nil {
		return nil, err
	}
	if err := c.send(line); err != nil {
		return nil, turned(c, err)
	}
	errs, err := c.sync(ctx)
	if len(errs) > 0 {
		return nil, &errRefused{said: errs[len(errs)-1]}
	}
	if err != nil {
		return nil, turned(c, err)
	}
	ok = true
	return c, nil
}

// turned makes an *errRefused of an alert of TLS, which is how a certificate may be
// turned away.
func turned(_ *conn, err error) error {
	var alert tls.AlertError
	var op *net.OpError
	if errors.As(err, &alert) || errors.As(err, &op) && op.Op == "remote error" {
		return &errRefused{said: err.Error()}
	}
	return err
}

// dial opens a socket to the first address that answers, and from then on to that one.
func (r *Rig) dial(ctx context.Context) (*conn, error) {
	var faults []error
	for i, addr := range r.addrs {
		nc, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", addr)
		if err == nil {
			if i > 0 {
				r.addrs = r.addrs[i:]
			}
			return newConn(nc), nil
		}
		faults = append(faults, err)
	}
	return nil, errors.Join(faults...)
}

// secure reads INFO and does the TLS handshake, in the order that the broker wants.
func (r *Rig) secure(ctx context.Context, c *conn, cert *tls.Certificate) (*conn, error) {
	if !r.tlsFirst {
		if err := c.greet(ctx, infoWait); err != nil {
			return c, err
		}
	}
	if r.tls == nil {
		return c, nil
	}
	cfg := r.tls.Clone()
	if cfg.ServerName == "" {
		host, _, err := net.SplitHostPort(c.RemoteAddr().String())
		if err != nil {
			return c, err
		}
		cfg.ServerName = host
		if named, _, err := net.SplitHostPort(r.addrs[0]); err == nil {
			cfg.ServerName = named
		}
	}
	asked := false
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		asked = true
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}
	t := tls.Client(c.Conn, cfg)
	c.until(ctx, 0)
	if err := t.HandshakeContext(ctx); err != nil {
		return c, turned(c, err)
	}
	secured := newConn(t)
	secured.info, secured.asks = c.info, asked
	if r.tlsFirst {
		if err := secured.greet(ctx, 0); err != nil {
			return secured, err
		}
	}
	return secured, nil
}

// greet reads INFO.
func (c *conn) greet(ctx context.Context, d time.Duration) error {
	c.until(ctx, d)
	f, err := c.read()
	switch {
	case err != nil:
		return fmt.Errorf("no INFO: %w", err)
	case f.verb != "INFO":
		return &errRefused{said: f.verb + " " + f.text}
	}
	return json.Unmarshal([]byte(f.text), &c.info)
}

func (r *Rig) connectLine(c *conn, o *opening) (string, error) {
	line := `CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"name":"signet-attack"`
	states, key := o.key, o.key
	if o.who != "" {
		states = r.creds[o.who]
		if states == nil && !r.plain {
			return "", fmt.Errorf("attack: there is no throw-away principal %s", o.who)
		}
		if key == nil {
			key = states
		}
	}
	if states != nil && !r.plain {
		public, err := states.PublicKey()
		if err != nil {
			return "", err
		}
		sig, err := key.Sign([]byte(c.info.Nonce))
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(`,"nkey":%q,"sig":%q`, public, base64.RawURLEncoding.EncodeToString(sig))
	}
	return line + o.members + "}\r\n", nil
}

// ready finds out how the broker speaks, and whether the throw-away principals can do
// what they may: an attack by somebody who can do nothing proves nothing.
func (r *Rig) ready(ctx context.Context) error {
	if err := r.sniff(ctx); err != nil {
		return err
	}
	for who, tenant := range principals {
		if (who == lapsed || who == disabled) && !r.plain {
			continue
		}
		if err := r.soonPublishes(ctx, who); err != nil {
			return fmt.Errorf("attack: the throw-away principal %s/%s cannot do what it may: %w", tenant, who, err)
		}
	}
	return nil
}

func (r *Rig) sniff(ctx context.Context) error {
	c, err := r.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.greet(ctx, infoWait)
	if errors.Is(err, os.ErrDeadlineExceeded) && r.tls != nil {
		r.tlsFirst = true
		return nil
	}
	return err
}

// soonPublishes tries until it works: a stream that was just made may be without a leader
// for a moment.
func (r *Rig) soonPublishes(ctx context.Context, who string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(200 * time.Millisecond)
	defer poll.Stop()
	for {
		err := r.mayPublish(ctx, who)
		if _, turned := isRefusal(err); err == nil || turned {
			return err
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return err
		}
	}
}

func (r *Rig) mayPublish(ctx context.Context, who string) error {
	c, err := r.as(ctx, who)
	if err != nil {
		return err
	}
	defer c.Close()
	r.server = c.info.ServerName
	subject := "attack." + who + ".ready"
	if who == flooder {
		subject = "attack.shared.ready"
	}
	a, err := c.request(ctx, subject, nil, "ready")
	switch {
	case err != nil:
		return err
	case !a.acked():
		return fmt.Errorf("a publish on %s was answered by %d %s", subject, max(a.code, a.api), a.reason)
	}
	return nil
}

// isRefusal returns what the broker said, where err is its word.
func isRefusal(err error) (string, bool) {
	var e *errRefused
	if errors.As(err, &e) {
		return e.said, true
	}
	return "", false
}

// closeAll closes connections.
func closeAll(all ...*conn) {
	for _, c := range all {
		if c != nil {
			_ = c.Close()
		}
	}
}

// short cuts what the broker said to one line of a report.
func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 160 {
		s = s[:160]
	}
	return s
}
