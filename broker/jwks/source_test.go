package jwks

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// issuer is an HTTPS server with keys.
type issuer struct {
	*httptest.Server
	fetches atomic.Int64

	mu   sync.Mutex
	keys jose.JSONWebKeySet
	fail int    // status of the answer, 0: as it should be
	says string // issuer of the discovery document; empty: as it should be
	at   string // jwks_uri
	auth string // Authorization of the last fetch of keys
}

func newIssuer(t *testing.T, kids ...string) *issuer {
	t.Helper()
	i := &issuer{}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.says, "jwks_uri": i.at})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		i.auth = r.Header.Get("Authorization")
		if i.fail != 0 {
			http.Error(w, "no", i.fail)
			return
		}
		_ = json.NewEncoder(w).Encode(i.keys)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/keys", http.StatusFound) })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) })
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	i.says, i.at = i.URL, i.URL+"/keys"
	i.set(t, kids...)
	return i
}

func (i *issuer) set(t *testing.T, kids ...string) {
	t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	old := i.keys
	i.keys = jose.JSONWebKeySet{}
	for _, kid := range kids {
		if k := old.Key(kid); len(k) > 0 {
			i.keys.Keys = append(i.keys.Keys, k...)
			continue
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		i.keys.Keys = append(i.keys.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: kid, Use: "sig"})
	}
}

func (i *issuer) change(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

func (i *issuer) roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(i.Certificate())
	return p
}

// source starts one that is told of changes and errors.
func (i *issuer) source(t *testing.T, change func(*Config)) (s *Source, changed chan bool, failed chan error) {
	t.Helper()
	changed, failed = make(chan bool, 100), make(chan error, 100)
	cfg := Config{
		Issuer: i.URL, Roots: i.roots(), Cache: filepath.Join(t.TempDir(), "issuers", "x.json"), Interval: time.Hour,
		Changed: func(lost bool) { changed <- lost }, Failed: func(err error) { failed <- err },
	}
	if change != nil {
		change(&cfg)
	}
	s = New(cfg)
	t.Cleanup(s.Close)
	return s, changed, failed
}

func next[T any](t *testing.T, what string, c chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("not in %s: %s", patience, what)
		panic("")
	}
}

// Keys are fetched by discovery, kept on disk, and there again after a start without the
// issuer.
func TestKeysAreKept(t *testing.T) {
	i := newIssuer(t, "a", "b")
	s, changed, _ := i.source(t, nil)
	if s.Keys() != nil {
		t.Fatal("keys before any were fetched")
	}
	s.Start()
	if lost := next(t, "the first keys", changed); lost || s.Keys().Len() != 2 {
		t.Fatalf("lost %v, %d keys", lost, s.Keys().Len())
	}
	s.Close()
	info, err := os.Stat(s.cfg.Cache)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("cache: %v, %v", info, err)
	}
	i.Close()
	again, _, failed := i.source(t, func(c *Config) { c.Cache = s.cfg.Cache })
	if again.Keys().Len() != 2 {
		t.Fatal("no keys out of the cache")
	}
	again.Start()
	if err := next(t, "the error of the fetch", failed); !errors.Is(err, ErrFetch) {
		t.Errorf("got %v", err)
	}
	if st := again.Status(); st.Keys != 2 || st.Failures == 0 || st.Fetched.IsZero() {
		t.Errorf("status %+v", st)
	}
	if err := os.Chmod(s.cfg.Cache, 0o602); err != nil {
		t.Fatal(err)
	}
	theirs, _, failed := i.source(t, func(c *Config) { c.Cache = s.cfg.Cache })
	if err := next(t, "a cache that others may write", failed); !errors.Is(err, ErrCache) || theirs.Keys() != nil {
		t.Errorf("a cache that others may write: %v, %d keys", err, theirs.Keys().Len())
	}
	if err := os.Chmod(s.cfg.Cache, 0o600); err != nil {
		t.Fatal(err)
	}
	old, _, _ := i.source(t, func(c *Config) { c.Cache, c.MaxAge = s.cfg.Cache, time.Nanosecond })
	if old.Keys() != nil {
		t.Error("keys that nobody has confirmed for too long are used")
	}
	for name, text := range map[string]string{
		"not JSON": "x", "another issuer": `{"version":1,"issuer":"https://x","fetched":"2026-01-01T00:00:00Z","jwks":{}}`,
		"another version": `{"version":2,"issuer":"` + i.URL + `","fetched":"2026-01-01T00:00:00Z","jwks":{}}`, "no keys": `{"version":1,"issuer":"` + i.URL + `"}`,
	} {
		file := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		bad, _, failed := i.source(t, func(c *Config) { c.Cache = file })
		if err := next(t, name, failed); !errors.Is(err, ErrCache) || bad.Keys() != nil {
			t.Errorf("%s: %v, %d keys", name, err, bad.Keys().Len())
		}
	}
}

// A login whose token names a new key has it at once; one that is withdrawn is told.
func TestRefresh(t *testing.T) {
	i := newIssuer(t, "a")
	s, changed, _ := i.source(t, nil)
	s.Start()
	next(t, "the first keys", changed)
	s.allow()
	i.set(t, "a", "b")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if s.Refresh(ctx).Len() != 2 || next(t, "the new key", changed) {
		t.Errorf("%d keys", s.Keys().Len())
	}
	s.allow()
	i.set(t, "b")
	if s.Refresh(ctx).Len() != 1 || !next(t, "the withdrawn key", changed) {
		t.Errorf("%d keys", s.Keys().Len())
	}
	// What cannot be fetched leaves what is known.
	s.allow()
	i.change(func() { i.fail = http.StatusInternalServerError })
	if s.Refresh(ctx).Len() != 1 {
		t.Error("a failed fetch took the keys away")
	}
}

// allow ends the gap before the next fetch that a token may ask for.
func (s *Source) allow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = time.Time{}
}

// A storm of tokens with unknown keys causes next to no fetches, each storm fewer, and
// nobody waits for longer than one.
func TestStormOfUnknownKeys(t *testing.T) {
	i := newIssuer(t, "a")
	s, changed, _ := i.source(t, nil)
	s.Start()
	next(t, "the first keys", changed)
	before := i.fetches.Load()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	storm := func() {
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 200 {
					s.Refresh(ctx)
				}
			})
		}
		wg.Wait()
	}
	storm()
	if n := i.fetches.Load() - before; n != 0 {
		t.Errorf("%d fetches within the gap after the last one", n)
	}
	for round, gap := range []time.Duration{2 * DefaultGap, 4 * DefaultGap, 8 * DefaultGap} {
		before = i.fetches.Load()
		s.allow()
		storm()
		if n := i.fetches.Load() - before; n != 1 {
			t.Errorf("round %d: 10,000 tokens caused %d fetches, want 1", round, n)
		}
		if s.gap != gap {
			t.Errorf("round %d: the gap is %s, want %s", round, s.gap, gap)
		}
	}
	if ctx.Err() != nil {
		t.Error("they waited for ever")
	}
}

// Keys come only from where the operator and the issuer say, and the bearer token goes
// nowhere else.
func TestFetchRefuses(t *testing.T) {
	other := newIssuer(t, "x")
	bearer := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(bearer, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		issuer func(*issuer)
		config func(*Config)
		want   string
	}{
		"discovery of another issuer": {func(i *issuer) { i.says = "https://evil.example" }, nil, "discovery document is of the issuer"},
		"keys in the clear":           {func(i *issuer) { i.at = "http://127.0.0.1/keys" }, nil, "no https URL"},
		"no address of keys":          {func(i *issuer) { i.at = "" }, nil, "no https URL"},
		"redirect":                    {func(i *issuer) { i.at = i.URL + "/moved" }, nil, "302"},
		"large":                       {func(i *issuer) { i.at = i.URL + "/large" }, nil, "over"},
		"server error":                {func(i *issuer) { i.fail = 500 }, nil, "500"},
		"unknown authority":           {nil, func(c *Config) { c.Roots = x509.NewCertPool() }, "unknown authority"},
		"no keys":                     {func(i *issuer) { i.keys.Keys = nil }, nil, "none of its 0 keys"},
		"no bearer file":              {nil, func(c *Config) { c.BearerFile = bearer + "x" }, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			i := newIssuer(t, "a")
			if c.issuer != nil {
				i.change(func() { c.issuer(i) })
			}
			s, _, failed := i.source(t, c.config)
			s.Start()
			if err := next(t, "the error", failed); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if s.Keys() != nil {
				t.Error("there are keys")
			}
		})
	}
	i := newIssuer(t, "a")
	s, changed, _ := i.source(t, func(c *Config) { c.BearerFile, c.URL = bearer, i.URL+"/keys" })
	s.Start()
	next(t, "the keys", changed)
	if i.auth != "Bearer secret" {
		t.Errorf("shown to the issuer: %q", i.auth)
	}
	roots := i.roots()
	roots.AddCert(other.Certificate())
	i.change(func() { i.at = other.URL + "/keys" })
	away, changed, _ := i.source(t, func(c *Config) { c.BearerFile, c.Roots = bearer, roots })
	away.Start()
	next(t, "the keys", changed)
	if other.auth != "" {
		t.Errorf("shown to another host: %q", other.auth)
	}
}
