package jwks

import (
	"context"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/signetbus/signet/broker/identity"
)

// Defaults and limits of Config.
const (
	DefaultInterval = 5 * time.Minute
	DefaultMaxAge   = 24 * time.Hour
	// FetchTimeout bounds one fetch, the discovery before it included.
	FetchTimeout = 10 * time.Second
	// DefaultGap is the least time between a fetch and the next that a token asks for.
	DefaultGap = 10 * time.Second
	// retryGap is how soon a fetch that failed is tried again; it doubles up to the interval.
	retryGap = 5 * time.Second
)

// Errors of a Source.
var (
	// ErrFetch: the keys could not be fetched. What is known stays until it is too old.
	ErrFetch = errors.New("jwks: the keys of the issuer could not be fetched")
	// ErrCache: the file with the keys could not be read or written.
	ErrCache = errors.New("jwks: the cache of the keys")
)

// Config says where the keys of one issuer are.
type Config struct {
	// Issuer is the iss of its tokens. Required.
	Issuer string
	// URL of the key set, https. Empty: it is looked up at Issuer +
	// "/.well-known/openid-configuration".
	URL string
	// Roots verify the server that has the keys; nil: those of the machine.
	Roots *x509.CertPool
	// BearerFile holds a token that is shown to the host of URL or Issuer, read at each
	// fetch; empty: none.
	BearerFile string
	// Cache is the file that keeps the keys. Required.
	Cache string
	// Interval between fetches; default DefaultInterval.
	Interval time.Duration
	// MaxAge is how long keys are used that could not be fetched again; default DefaultMaxAge.
	MaxAge time.Duration
	// Gap is the least time between a fetch and the next that a token asks for; it doubles,
	// up to Interval, while these bring nothing new. Default DefaultGap.
	Gap time.Duration
	// Changed is told, from the goroutine of the source, that keys came into force. lost:
	// some of before are not among them. It may block.
	Changed func(lost bool)
	// Failed is told of errors, which wrap ErrFetch or ErrCache: the first of a row, and
	// nil when it is over.
	Failed func(error)
}

// Source has the keys of one issuer.
type Source struct {
	cfg  Config
	web  *fetcher
	life context.Context
	stop context.CancelFunc
	done chan struct{}
	ask  chan struct{} // one token: a login wants a fetch

	mu      sync.Mutex
	keys    *identity.KeySet
	fetched time.Time     // when keys were confirmed last
	turn    chan struct{} // closed when the fetch that is awaited is over
	next    time.Time     // before which no token may ask for a fetch
	gap     time.Duration
	fails   uint64
	started bool
}

// New returns a Source that has read its cache and fetches nothing before Start. A
// cache that cannot be used counts as none and is told to Failed.
func New(cfg Config) *Source {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	if cfg.Gap == 0 {
		cfg.Gap = DefaultGap
	}
	if cfg.Changed == nil {
		cfg.Changed = func(bool) {}
	}
	if cfg.Failed == nil {
		cfg.Failed = func(error) {}
	}
	s := &Source{cfg: cfg, web: newFetcher(&cfg), done: make(chan struct{}), ask: make(chan struct{}, 1), turn: make(chan struct{}), gap: cfg.Gap}
	s.life, s.stop = context.WithCancel(context.Background())
	keys, at, err := readCache(cfg.Cache, cfg.Issuer)
	if err != nil {
		cfg.Failed(err)
	}
	s.keys, s.fetched = keys, at
	return s
}

// Start begins to fetch; it does not wait for the keys.
func (s *Source) Start() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.started = true
		go s.run()
	}
}

// Close ends the goroutine and waits for it.
func (s *Source) Close() {
	s.stop()
	s.mu.Lock()
	started := s.started
	s.mu.Unlock()
	if started {
		<-s.done
	}
	s.web.close()
}

// Keys implements identity.KeySource: nil where there are none that are young enough.
func (s *Source) Keys() *identity.KeySet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.fetched.Round(0)) > s.cfg.MaxAge {
		return nil
	}
	return s.keys
}

// Refresh implements identity.KeySource.
func (s *Source) Refresh(ctx context.Context) *identity.KeySet {
	s.mu.Lock()
	turn, wanted := s.turn, s.started && !time.Now().Before(s.next)
	s.mu.Unlock()
	if wanted && ctx.Err() == nil {
		select {
		case s.ask <- struct{}{}:
		default: // somebody has asked already
		}
		select {
		case <-turn:
		case <-ctx.Done():
		case <-s.life.Done():
		}
	}
	return s.Keys()
}

// Status is how a source is.
type Status struct {
	Issuer   string
	Keys     int
	Fetched  time.Time // when the keys were confirmed last; zero: never
	Failures uint64    // fetches that failed since the start
}

// Status returns how s is.
func (s *Source) Status() Status {
	keys := s.Keys()
	s.mu.Lock()
	defer s.mu.Unlock()
	return Status{Issuer: s.cfg.Issuer, Keys: keys.Len(), Fetched: s.fetched, Failures: s.fails}
}

func (s *Source) run() {
	defer close(s.done)
	retry, failing := retryGap, false
	for asked := false; ; {
		err := s.fetch(asked)
		switch {
		case s.life.Err() != nil:
			return
		case err != nil && !failing:
			s.cfg.Failed(err)
		case err == nil && failing:
			s.cfg.Failed(nil)
		}
		wait := s.cfg.Interval - rand.N(s.cfg.Interval/10+1) //nolint:gosec // only so that nodes do not ask at once
		if failing = err != nil; failing {
			wait, retry = min(retry, wait), min(2*retry, s.cfg.Interval)
		} else {
			retry = retryGap
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
			asked = false
		case <-s.ask:
			asked = true
		case <-s.life.Done():
		}
		t.Stop()
		if s.life.Err() != nil {
			return
		}
	}
}

// fetch gets the keys and puts them in force. asked: a token wanted it.
func (s *Source) fetch(asked bool) error {
	doc, err := s.web.fetch(s.life)
	var keys *identity.KeySet
	if err == nil {
		keys, err = identity.ParseKeySet(doc)
	}
	now := time.Now()
	s.mu.Lock()
	var fresh, lost bool // there are keys that were not there; some are gone
	if err == nil {
		fresh, lost = s.keys.Lacks(keys), keys.Lacks(s.keys)
		s.keys, s.fetched = keys, now
	} else {
		s.fails++
	}
	if asked && !fresh {
		s.gap = min(2*s.gap, max(s.cfg.Interval, s.cfg.Gap))
	} else {
		s.gap = s.cfg.Gap
	}
	s.next = now.Add(s.gap)
	turn := s.turn
	s.turn = make(chan struct{})
	select {
	case <-s.ask: // whoever asked while this fetch was under way has its answer
	default:
	}
	s.mu.Unlock()
	close(turn)
	if err != nil {
		return err
	}
	if fresh || lost {
		s.cfg.Changed(lost)
	}
	return writeCache(s.cfg.Cache, s.cfg.Issuer, doc, now)
}
