package embed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Errors of the server.
var (
	// ErrServer wraps what nats-server itself reported as fatal.
	ErrServer = errors.New("embed: nats-server failed")
	// ErrNotReady: the server did not come up within StartTimeout, or not as it should.
	ErrNotReady = errors.New("embed: nats-server did not become ready")
	// ErrReload: a reload was refused, or left an account other than asked.
	ErrReload = errors.New("embed: reload failed")
)

// Version is nats-server's version.
const Version = server.VERSION

const startGrace = 10 * time.Second

// Server is one running nats-server. Make it with Start.
type Server struct {
	cfg     Config
	ns      *server.Server
	log     *logger
	tickets *tickets
	routes  *routeGate // nil without a cluster
	lock    *dirLock
	addr    *net.TCPAddr // written before Start returns

	connecting sync.RWMutex // read: a connection logs in; write: ReloadOptions runs

	mu       sync.Mutex // orders reloads; held across ReloadOptions
	accounts map[string]TenantAccount
	limits   storeLimits

	stop     chan struct{} // closed by the first Shutdown
	stopOnce sync.Once
	done     chan struct{}
	err      error // why it ended by itself; written before done is closed
}

// Start runs a server and returns when it serves connections. ctx bounds the
// start only. On error nothing is left running; only where recovery is so slow that
// it cannot be stopped within ten seconds does it end behind the caller's back,
// still holding the lock of the directory.
//
// Errors: ErrConfig, ErrLocked, ErrServer, ErrNotReady, those of CheckEncryption, Inspect's,
// or ctx's.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embed: start: %w", err)
	}
	if err := os.MkdirAll(cfg.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("embed: store directory: %w", err)
	}
	lock, err := lockDir(cfg.StoreDir)
	if err != nil {
		return nil, err
	}
	if cfg.atRest, err = unlock(cfg.StoreDir, cfg.Encryption); err != nil {
		return nil, errors.Join(err, lock.release())
	}
	cfg.Encryption = nil
	if cfg.Inspect != nil {
		if err := cfg.Inspect(ctx, cfg.atRest.opened()); err != nil {
			return nil, errors.Join(err, lock.release())
		}
	}
	if err := clearDeleted(cfg.StoreDir); err != nil {
		return nil, errors.Join(err, lock.release())
	}
	s := &Server{
		cfg: cfg, lock: lock, log: newLogger(cfg.Log, cfg.Debug), tickets: newTickets(),
		accounts: make(map[string]TenantAccount, len(cfg.Tenants)),
		stop:     make(chan struct{}), done: make(chan struct{}),
	}
	for _, t := range cfg.Tenants {
		s.accounts[t.Name] = t
	}
	s.limits = storeLimits{}.grow(cfg.Tenants)
	if c := cfg.Cluster; c != nil {
		s.routes = &routeGate{self: cfg.ServerName, admit: c.Admit, log: s.log}
	}
	opts, err := cfg.options(cfg.Tenants, s.limits, s.tickets, s.routes)
	if err == nil {
		s.ns, err = server.NewServer(opts)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embed: new server: %w", err), lock.release())
	}
	s.tickets.lookup = s.ns.LookupAccount
	s.ns.SetLoggerV2(s.log, cfg.Debug, false, false)
	if err := s.serve(ctx); err != nil {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), startGrace)
		defer cancel()
		if serr := s.Shutdown(grace); serr != nil && !errors.Is(err, serr) {
			err = errors.Join(err, serr)
		}
		return nil, err
	}
	return s, nil
}

// serve starts the server and the goroutines that watch it, and checks that it
// came up as configured.
func (s *Server) serve(ctx context.Context) error {
	started := make(chan struct{})
	go s.run(started)
	ctx, cancel := context.WithTimeout(ctx, s.cfg.startTimeout())
	defer cancel()
	select {
	case <-started:
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotReady, ctx.Err())
	}
	addr, ok := s.ns.Addr().(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() {
		return fmt.Errorf("%w: it listens on %v", ErrNotReady, s.ns.Addr())
	}
	s.addr = addr
	if s.cfg.NoStore {
		return nil
	}
	if !s.ns.JetStreamEnabled() {
		return fmt.Errorf("%w: JetStream is off", ErrNotReady)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.checkLimits(s.accounts)
}

// routesWithin bounds how long a Shutdown waits for the listener that it must close.
const routesWithin = 5 * time.Second

// run owns the server's life: it starts it, waits for Shutdown or a fatal error,
// stops it, and closes done when all of it is gone.
func (s *Server) run(started chan<- struct{}) {
	starting := make(chan struct{})
	go func() {
		defer close(starting)
		s.ns.Start() // returns when it listens, or after Fatalf
		if s.ns.Addr() != nil {
			close(started)
		}
	}()
	var fatal error
	select {
	case <-s.stop:
	case fatal = <-s.log.fatal:
	}
	<-starting // nats-server does not expect a Shutdown inside Start
	if s.cfg.Cluster != nil && fatal == nil {
		// It listens for routes some moments after Start has returned. A Shutdown between the
		// two would leave that listener open for as long as the process is there.
		s.ns.ReadyForConnections(routesWithin)
	}
	if s.cfg.Cluster != nil && !s.cfg.NoStore && fatal == nil {
		s.ns.LameDuckShutdown() // hands leaders over first; the caller has drained the clients
	}
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
	if s.cfg.Stopped != nil {
		s.cfg.Stopped()
	}
	s.err = errors.Join(fatal, s.lock.release())
	close(s.done)
}

// Shutdown stops the server and waits until all of it is gone, or ctx ends; the
// shutdown then goes on behind the caller's back. Connections are cut, not
// drained: drain the gate first. It may be called more than once.
//
// Errors: ctx's, wrapped; ErrServer if the server had failed before.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stopOnce.Do(func() { close(s.stop) })
	select {
	case <-s.done:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("embed: shutdown: %w", ctx.Err())
	}
}

// Done is closed when the server is gone, by Shutdown or by itself.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err says why the server ended by itself; nil while it runs and after a plain Shutdown.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Addr is the address that Dial dials, on 127.0.0.1.
func (s *Server) Addr() net.Addr { return s.addr }

// Dial opens an upstream connection over loopback TCP, at which the server has
// sent or will send INFO. It reads nothing. One source address has about 28,000
// ports to one destination, which bounds the number of live connections.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp4", s.addr.String())
	if err != nil {
		return nil, fmt.Errorf("embed: dial: %w", err)
	}
	return c, nil
}

// Connecting keeps reloads away until done is called: nats-server reads its accounts
// and users for a CONNECT while ReloadOptions writes them. Hold it from Dial until
// the PONG to a PING after CONNECT, with a deadline, since reloads wait for it. It
// waits for a reload that runs or waits already, some milliseconds.
func (s *Server) Connecting() (done func()) {
	s.connecting.RLock()
	return s.connecting.RUnlock
}

// InProcessConn opens a connection through a pipe; nats.go takes a Server as its
// nats.InProcessServer. It is slower than Dial for bulk reading.
func (s *Server) InProcessConn() (net.Conn, error) {
	c, err := s.ns.InProcessConn()
	if err != nil {
		return nil, fmt.Errorf("embed: pipe: %w", err)
	}
	return c, nil
}

// Ticket makes a token that one connection may give as auth_token in its CONNECT:
// the one whose local address is local (of a conn made by Dial). It then is a
// client of account with these allow lists; an empty list allows nothing. The
// connection keeps the ticket until revoke, which the owner of the connection
// must call when the connection is gone. revoke by itself cuts nothing: close the
// connection, or Reload. An address that is not loopback TCP gives a token that
// nobody can redeem.
func (s *Server) Ticket(account string, publish, subscribe []string, local net.Addr) (token string, revoke func()) {
	from, ok := source(local)
	if !ok || !from.IsValid() || !from.Addr().IsLoopback() {
		return "", func() {}
	}
	token = s.tickets.issue(account, from, permissions(publish, subscribe))
	return token, func() { s.tickets.revoke(token) }
}

// HasAccount reports whether the server has the account of a tenant.
func (s *Server) HasAccount(account string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.accounts[account]
	return ok
}

// InternalTicket makes a token for one InProcessConn of account, without limits on
// subjects. Network connections cannot redeem it.
func (s *Server) InternalTicket(account string) (token string, revoke func()) {
	token = s.tickets.issue(account, noAddress, nil)
	return token, func() { s.tickets.revoke(token) }
}

// UpdateTicket sets the allow lists of a ticket. A connection that has redeemed it
// gets them at the next Reload or ReloadAccounts: subscriptions outside of them
// then end. A token that is unknown or revoked changes nothing.
func (s *Server) UpdateTicket(token string, publish, subscribe []string) {
	s.tickets.update(token, permissions(publish, subscribe))
}
