package client

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// Client is a connection to a broker as one principal. Make it with Connect; it
// may be used by many goroutines.
type Client struct {
	cfg      *config
	nc       *nats.Conn
	mux      *mux
	ring     *ringKeeper
	verifier *signing.Verifier
	producer *signing.ProducerVerifier
	signer   *eventSigner  // nil: events are not signed here
	crypt    *encrypter    // nil: payloads are not encrypted here
	tenant   string        // prefix of the principals whose events are ours, "shop/"
	caller   string        // who this is, "shop/checkout"
	slots    chan struct{} // one token per PublishAsync without an answer
	asked    chan struct{} // one token per PublishAsync that waits for a signed acknowledgement

	rejoined chan struct{} // capacity 1: the connection is back, and requests may be lost

	stop    context.CancelFunc // of the workers
	workers sync.WaitGroup

	subs   subSet
	mu     sync.Mutex // guards mux and stop until Connect has returned
	closed chan struct{}
	once   sync.Once
	cause  error // why the connection ended; written before closed is closed
}

// subscription is what a client tells its subscriptions.
type subscription interface {
	Stop()
	Drain()
	Closed() <-chan struct{}
	reconnected()
	denied(natsSubject string, err error)
}

// Connect connects to url ("tls://host:port", several with commas, or "" with
// WithContext), authenticates, and loads the keyring. TLS 1.3 is always on and
// its handshake comes first, so nothing is ever sent in the clear. A context
// without a deadline gets the one of WithTimeout.
//
// Errors: ErrInvalidOption and ErrNoRoot before anything is sent;
// ErrUnauthenticated, ErrUnavailable, ErrKeyring, ErrNonce.
func Connect(ctx context.Context, url string, opts ...Option) (*Client, error) {
	cfg := defaultConfig(url)
	for _, o := range opts {
		if o == nil {
			continue
		}
		if err := o(cfg); err != nil {
			cfg.setIdentity(nil)
			return nil, err
		}
	}
	servers, err := cfg.validate()
	if err != nil {
		cfg.setIdentity(nil)
		return nil, err
	}
	ctx, cancel := cfg.deadline(ctx)
	defer cancel()
	c := &Client{
		cfg: cfg, slots: make(chan struct{}, cfg.maxInFlight), asked: make(chan struct{}, maxAsked),
		closed: make(chan struct{}), rejoined: make(chan struct{}, 1),
	}
	if err := c.dial(ctx, servers); err != nil {
		if cfg.id != nil && cfg.id.refused.Load() {
			err = errors.Join(ErrNonce, err)
		}
		cfg.setIdentity(nil)
		return nil, fromTransport("connect", "", err)
	}
	if err := begin(ctx, c); err != nil {
		c.Close()
		return nil, fromTransport("connect", "", err)
	}
	return c, nil
}

// begin starts the workers and loads the first keyring.
func begin(ctx context.Context, c *Client) error {
	life, stop := context.WithCancel(context.Background())
	c.mu.Lock()
	c.stop = stop
	c.mu.Unlock()
	if err := c.mux.start(); err != nil {
		return err
	}
	c.workers.Go(func() { c.mux.run(life, c.cfg.timeout/8) })
	source := brokerSource(c)
	if c.cfg.keyringFile != "" {
		source = fileSource(c.cfg.keyringFile)
	}
	c.ring = newRingKeeper(c.cfg.root, source, c.cfg.onError)
	c.ring.memory = c.cfg.keyringMemory
	if c.cfg.keyringFile != "" {
		c.ring.maxAge = maxKeyringFileAge
	}
	c.verifier, c.producer = signing.NewVerifier(c.ring.current), signing.NewProducerVerifier(c.ring.current)
	if err := c.ring.refresh(ctx); err != nil {
		return &Error{Op: "connect", Class: string(wire.ClassUnavailable), Title: "no keyring, so no event could be verified", Err: err}
	}
	c.workers.Go(func() { c.ring.run(life, c.cfg.timeout) })
	if len(c.cfg.creds.names) > 0 {
		c.workers.Go(func() { enrol(life, c) })
	}
	if c.cfg.keyringFile == "" {
		f, err := newRingFollower(c)
		if err != nil {
			return err
		}
		c.workers.Go(func() { f.run(life) })
	}
	// All tenants' events are attested with the same keys: an event of another
	// tenant, copied into our store, verifies too. So we must know which is ours.
	var who adminapi.KeyRing
	if err := c.request(ctx, adminapi.SubjectKeysRing, nil, &who); err != nil {
		return err
	}
	tenant, _, ok := strings.Cut(who.Caller, "/")
	if !ok {
		return &Error{Op: "connect", Class: string(wire.ClassUnavailable), Title: "the broker did not say which tenant this is"}
	}
	c.tenant, c.caller = tenant+"/", who.Caller
	var err error
	if c.crypt, err = newEncrypter(c, who.Caller); err != nil {
		return err
	}
	if c.cfg.producer != nil {
		c.signer = newEventSigner(c.cfg.producer, "/"+who.Caller, func(msg *nats.Msg, id string, f *Future) error {
			return dispatch(c, msg, id, f)
		})
	}
	return nil
}

// dial opens the connection. nats.go has no context for this: its own time-out
// is cut to the deadline, and a connection that comes too late is closed.
func (c *Client) dial(ctx context.Context, servers []string) error {
	o := nats.GetDefaultOptions()
	o.Servers, o.Name = servers, c.cfg.name
	o.Secure, o.TLSHandshakeFirst, o.TLSConfig = true, true, c.cfg.tls
	c.cfg.creds.show(&o, c.cfg.id)
	o.MaxReconnect = -1
	o.ReconnectWait, o.ReconnectJitter, o.ReconnectJitterTLS = c.cfg.reconnect, c.cfg.reconnect, c.cfg.reconnect
	// Not the buffer of nats.go: it would send while our resend decides the order.
	o.ReconnectBufSize = -1
	o.PingInterval = 20 * time.Second
	o.SubChanLen = liveBuffer
	o.PermissionErrOnSubscribe = true
	o.AsyncErrorCB = c.onAsyncError
	o.DisconnectedErrCB = c.onDisconnect
	o.ReconnectedCB = c.onReconnect
	o.ClosedCB = c.onClosed
	if d, ok := ctx.Deadline(); ok {
		o.Timeout = max(time.Until(d), time.Millisecond)
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	// The callbacks of nats.go may come before Connect returns; they wait here.
	c.mu.Lock()
	defer c.mu.Unlock()
	ch := make(chan result, 1)
	go func() {
		nc, err := o.Connect()
		// A gate that serves both kinds of client waits only so long for the first
		// byte; on a busy machine ours may come after its INFO.
		for tries := 0; tries < 3 && errors.As(err, new(tls.RecordHeaderError)); tries++ {
			nc, err = o.Connect()
		}
		ch <- result{nc, err}
	}()
	select {
	case r := <-ch:
		if r.err != nil {
			return r.err
		}
		c.nc, c.mux = r.nc, newMux(r.nc)
		return nil
	case <-ctx.Done():
		go func() {
			if r := <-ch; r.nc != nil {
				r.nc.Close()
			}
		}()
		return ctx.Err()
	}
}

func (c *config) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// The callbacks of nats.go run one after the other on a goroutine of the
// connection.

func (c *Client) onDisconnect(_ *nats.Conn, err error) {
	c.mu.Lock()
	m := c.mux
	c.mu.Unlock()
	if m == nil {
		return
	}
	m.hold()
	c.cfg.onState(false, err)
}

func (c *Client) onReconnect(*nats.Conn) {
	c.mu.Lock()
	m := c.mux
	c.mu.Unlock()
	if m == nil {
		return
	}
	m.resume()
	rejoin(c)
	for _, s := range c.subs.all() {
		s.reconnected()
	}
	c.cfg.onState(true, nil)
}

// rejoin has the keyring asked for again.
func rejoin(c *Client) {
	select {
	case c.rejoined <- struct{}{}:
	default: // it is told already
	}
}

func (c *Client) onClosed(nc *nats.Conn) {
	c.mu.Lock()
	m, stop := c.mux, c.stop
	c.mu.Unlock()
	if m == nil {
		return
	}
	last := nc.LastError()
	if last == nil || !errors.Is(fromTransport("", "", last), ErrUnauthenticated) {
		last = errors.Join(nats.ErrConnectionClosed, last)
	}
	end(c, m, stop, fromTransport("connection", "", last))
}

// end is run once, by whoever ends the client first.
func end(c *Client, m *mux, stop context.CancelFunc, cause error) {
	c.once.Do(func() {
		c.cause = cause
		m.close(cause)
		if stop != nil {
			stop()
		}
		close(c.closed)
	})
}

// onAsyncError gets the -ERR lines that belong to no call.
func (c *Client) onAsyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrPermissionViolation) {
		e := fromPermission("", "", err)
		if strings.Contains(err.Error(), "ubscription") {
			for _, s := range c.subs.all() {
				s.denied(e.Subject, e)
			}
		}
		c.cfg.onError(e)
		return
	}
	subject := ""
	if sub != nil {
		subject = sub.Subject
	}
	c.cfg.onError(fromTransport("connection", subject, err))
}

// js returns the JetStream API over this connection.
func (c *Client) js() jsAPI { return jsAPI{c.mux} }

// subSet is the subscriptions of a client. The zero value is empty.
type subSet struct {
	mu  sync.Mutex
	set map[subscription]struct{}
}

func (s *subSet) all() []subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.set))
}

func (s *subSet) add(sub subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		s.set = map[subscription]struct{}{}
	}
	s.set[sub] = struct{}{}
}

func (s *subSet) drop(sub subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.set, sub)
}

// API asks one verb of the admin API: request as JSON on $SIGNET.API.<area>.<verb>,
// and the result into result, a pointer or nil. Package client/admin has the typed
// calls.
//
// Errors: ErrDenied without the grant of the area, and those of the verb.
func (c *Client) API(ctx context.Context, area, verb string, request, result any) error {
	return c.request(ctx, wire.PrefixAdmin+area+"."+verb, request, result)
}

func (c *Client) request(ctx context.Context, subject string, request, result any) error {
	body, err := adminapi.EncodeRequest(request)
	if err != nil {
		return malformed(subject, subject, "", err)
	}
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	answer, err := c.mux.request(ctx, &nats.Msg{Subject: subject, Data: body})
	if err != nil {
		return fromTransport(subject, subject, err)
	}
	err = adminapi.DecodeAnswer(answer.Data, result)
	var refusal *wire.Refusal
	switch {
	case errors.As(err, &refusal):
		return fromRefusal(subject, refusal)
	case err != nil:
		return &Error{Op: subject, Class: string(wire.ClassInternal), Title: "the answer cannot be read", Subject: subject, Err: err}
	}
	return nil
}

// Connected reports whether the connection is up at this moment.
func (c *Client) Connected() bool { return c.nc.IsConnected() }

// Closed is closed when the client has ended: by Close, by Drain, or because the
// broker refuses the credential.
func (c *Client) Closed() <-chan struct{} { return c.closed }

// Err returns why the client ended, nil while it has not.
func (c *Client) Err() error {
	select {
	case <-c.closed:
		return c.cause
	default:
		return nil
	}
}

// Close stops everything at once: publishes without an answer fail with
// ErrClosed, buffered deliveries are discarded and will be delivered again. It
// does not wait for handlers, so a handler may call it; a hook must not.
func (c *Client) Close() {
	for _, s := range c.subs.all() {
		s.Stop()
	}
	c.signer.flush() // what was published goes out like what needs no signature
	c.nc.Close()
	c.mu.Lock()
	m, stop := c.mux, c.stop
	c.mu.Unlock()
	end(c, m, stop, &Error{Op: "connection", Class: string(wire.ClassUnavailable), Title: "closed by this client", Err: ErrClosed})
	c.signer.flush() // what was published meanwhile ends with the same error
	c.workers.Wait()
	if id := c.cfg.id; id != nil {
		id.wipe()
	}
}

// Drain finishes everything and then closes: subscriptions handle what is
// buffered, publishes get their answers. After ctx it closes regardless and
// returns the error of ctx. It must not be called by a handler.
func (c *Client) Drain(ctx context.Context) error {
	ctx, cancel := c.cfg.deadline(ctx)
	defer cancel()
	subs := c.subs.all()
	for _, s := range subs {
		s.Drain()
	}
	var late error
	for _, s := range subs {
		select {
		case <-s.Closed():
		case <-ctx.Done():
			late = ctx.Err()
		}
	}
	if err := c.Flush(ctx); late == nil {
		late = err
	}
	// Acknowledgements have no answer: this sees them off.
	if err := c.nc.FlushWithContext(ctx); late == nil && c.nc.IsConnected() {
		late = err
	}
	c.Close()
	return late
}
