package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/internal/wire"
)

// Errors of the store, beside those of the barrier.
var (
	// ErrConfig: Config misses something.
	ErrConfig = errors.New("store: configuration")
	// ErrNoAccount: the server has no account for the tenant.
	ErrNoAccount = errors.New("store: the tenant has no account in the server")
	// ErrNotFound: no such stream or message.
	ErrNotFound = errors.New("store: not found")
	// ErrFull: a stream has no room; nothing was stored.
	ErrFull = errors.New("store: the stream is full")
	// ErrServer wraps an error that the server answered.
	ErrServer = errors.New("store: the server refused")
)

// requestTimeout bounds a request whose context has no deadline.
const requestTimeout = 10 * time.Second

// After askFirst a request in a cluster is taken for lost, then after twice that, and
// so on to askLast: a node that has just joined loses some, and a list takes
// nats-server four seconds where a stream has no leader.
const (
	askFirst = 500 * time.Millisecond
	askLast  = 5 * time.Second
)

// InProcess is the embedded server as the store sees it.
type InProcess interface {
	HasAccount(account string) bool
	InProcessConn() (net.Conn, error)
	InternalTicket(account string) (token string, revoke func())
}

// Internal returns what Config.Internal wants: connections inside the process, each
// with a fresh ticket per attempt, which reconnect until they are closed.
func Internal(server InProcess) func(account string) (*nats.Conn, error) {
	return func(account string) (*nats.Conn, error) {
		if !server.HasAccount(account) {
			return nil, fmt.Errorf("%w: %s", ErrNoAccount, account)
		}
		var (
			mu     sync.Mutex
			revoke = func() {}
		)
		nc, err := nats.Connect("",
			nats.Name("signet-internal"),
			nats.InProcessServer(server),
			nats.TokenHandler(func() string {
				mu.Lock()
				defer mu.Unlock()
				revoke() // the connection that redeemed it is gone
				var token string
				token, revoke = server.InternalTicket(account)
				return token
			}),
			nats.MaxReconnects(-1),
			nats.ReconnectWait(100*time.Millisecond),
			nats.ClosedHandler(func(*nats.Conn) { mu.Lock(); defer mu.Unlock(); revoke() }),
		)
		if err != nil {
			revoke()
			return nil, fmt.Errorf("store: connection of account %s: %w", account, err)
		}
		return nc, nil
	}
}

// Config is what Open needs.
type Config struct {
	// Internal makes the broker's own connection to a tenant's account, with all
	// permissions; see the function Internal. Required.
	Internal func(account string) (*nats.Conn, error)
	// Barrier is waited for after the store's own writes. nil where the server
	// syncs by itself (SyncAlways). The store does not close it.
	Barrier *Barrier
	// Nodes is the size of the cluster; 0 and 1 are no cluster.
	Nodes int
	// Deleted waits until the server has removed what an earlier deletion of the stream
	// left; a deletion before that would not be one. nil: no wait.
	Deleted func(ctx context.Context, account, stream string) error
	// Node is the name of this broker. It tells its own unfinished restores from those
	// of other brokers.
	Node string
}

// Store is the streams and buckets of all tenants.
type Store struct {
	cfg Config

	apply sync.Mutex // orders ApplyPolicy; taken before mu

	mu       sync.Mutex
	accounts map[string]*account // nil once closed
}

// account is the broker's own connection to one tenant's account.
type account struct {
	tenant string
	nc     *nats.Conn
	js     jetstream.JetStream

	clustered bool
	deleted   func(ctx context.Context, account, stream string) error // of Config
}

// Open makes a Store. It connects to nothing yet.
//
// Errors: ErrConfig.
func Open(_ context.Context, cfg Config) (*Store, error) {
	if cfg.Internal == nil {
		return nil, fmt.Errorf("%w: Internal is nil", ErrConfig)
	}
	cfg.Nodes = max(cfg.Nodes, 1)
	return &Store{cfg: cfg, accounts: make(map[string]*account)}, nil
}

// Close closes all connections. Calls under way fail. It may be called more than once.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.accounts {
		a.nc.Close()
	}
	s.accounts = nil
	return nil
}

// Conn returns the broker's own connection to a tenant's account, which may
// publish and subscribe everything there. The store owns it.
//
// Errors: ErrNoAccount, ErrClosed.
func (s *Store) Conn(tenant string) (*nats.Conn, error) {
	a, err := s.account(tenant)
	if err != nil {
		return nil, err
	}
	return a.nc, nil
}

func (s *Store) account(tenant string) (*account, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accounts == nil {
		return nil, ErrClosed
	}
	if a, ok := s.accounts[tenant]; ok {
		return a, nil
	}
	nc, err := s.cfg.Internal(tenant)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("store: %w", err)
	}
	a := &account{tenant: tenant, nc: nc, js: js, clustered: s.cfg.Nodes > 1, deleted: s.cfg.Deleted}
	s.accounts[tenant] = a
	return a, nil
}

// request makes a JetStream API request and decodes the answer into out.
//
// Errors: ErrServer with the *jetstream.APIError that the server answered, or the
// connection's.
func (a *account) request(ctx context.Context, api string, in, out any) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	m, err := a.ask(ctx, api, body)
	if err != nil {
		return fmt.Errorf("store: %s: %w", api, err)
	}
	var failed struct {
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &failed); err != nil {
		return fmt.Errorf("store: answer to %s: %w", api, err)
	}
	if failed.Error != nil {
		return fmt.Errorf("%w: %s: %w", ErrServer, api, failed.Error)
	}
	if err := json.Unmarshal(m.Data, out); err != nil {
		return fmt.Errorf("store: answer to %s: %w", api, err)
	}
	return nil
}

// ask sends one request to the JetStream API.
func (a *account) ask(ctx context.Context, api string, body []byte) (*nats.Msg, error) {
	m := nats.NewMsg(wire.PrefixJSAPI + api)
	m.Data = body
	return a.askAgain(ctx, m, askFirst)
}

// askAgain sends a request. In a cluster requests get lost where a leader changes, a
// node joins, or another node does not know yet who listens, so it asks again until ctx
// ends: after first, then after longer, if no answer comes. What may not be asked twice
// is given a first as long as ctx: it is asked again only where nobody has got it.
func (a *account) askAgain(ctx context.Context, q *nats.Msg, first time.Duration) (*nats.Msg, error) {
	if !a.clustered {
		return a.nc.RequestMsgWithContext(ctx, q)
	}
	for wait := first; ; wait = min(2*wait, max(first, askLast)) {
		once, cancel := context.WithTimeout(ctx, wait)
		m, err := a.nc.RequestMsgWithContext(once, q)
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
			return m, err
		case errors.Is(err, nats.ErrNoResponders):
			select {
			case <-ctx.Done():
				return nil, err
			case <-time.After(peersRetry):
			}
		case !errors.Is(err, context.DeadlineExceeded):
			return nil, err
		}
	}
}

// insist is request for what must be done: in a cluster it waits, until ctx ends, for a
// leader and for the nodes that should hold a copy.
func (a *account) insist(ctx context.Context, api string, in, out any) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	for {
		err := a.request(ctx, api, in, out)
		var answer *jetstream.APIError
		if !a.clustered || !errors.As(err, &answer) || !Transient(answer) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(peersRetry):
		}
	}
}

// Transient tells what a cluster answers while it has no leader, or too few nodes for a
// copy, from refusals: other answers with 503, such as too little storage, are such.
func Transient(answer *jetstream.APIError) bool {
	return answer.ErrorCode == noPeers || answer.ErrorCode == notAvailable
}

func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, requestTimeout)
}

// durable waits for the barrier, if there is one.
func (s *Store) durable(ctx context.Context) error {
	if s.cfg.Barrier == nil {
		return nil
	}
	return s.cfg.Barrier.Wait(ctx)
}

// missing reports whether the server answered that a thing does not exist.
func missing(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == 404
}
