package broker

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/jwks"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
)

// Defaults and limits of IssuerConfig.
const (
	DefaultTokenSkew     = 30 * time.Second
	MaxTokenSkew         = 2 * time.Minute
	DefaultTokenLifetime = 24 * time.Hour
	MaxTokenLifetime     = 30 * 24 * time.Hour
	maxIssuers           = 16
)

// defaultAlgorithms are what nearly every issuer signs with.
var defaultAlgorithms = []string{"RS256", "ES256"}

// IssuerConfig is one issuer of tokens, and what it may say in which tenant.
type IssuerConfig struct {
	// Issuer is the iss of the tokens, byte for byte: an https URL. Required.
	Issuer string `yaml:"issuer"`
	// Audiences, of which a token must name one. Required: a token that is meant for
	// another service is not taken.
	Audiences []string `yaml:"audiences"`
	// Algorithms that are taken; default RS256, ES256. Never none, never a shared secret.
	Algorithms []string `yaml:"algorithms"`
	// Kubernetes: its subjects are service accounts, which policies write as
	// serviceAccount: namespace/name.
	Kubernetes bool `yaml:"kubernetes"`
	// Tenants that it speaks for. Required.
	Tenants []IssuerTenant `yaml:"tenants"`
	// Skew is how far the clocks may be apart; default DefaultTokenSkew, at most MaxTokenSkew.
	Skew time.Duration `yaml:"skew"`
	// MaxLifetime is how long a token may live; default DefaultTokenLifetime, at most
	// MaxTokenLifetime.
	MaxLifetime time.Duration `yaml:"maxLifetime"`
	// Keys says where its keys are. Default: at the address that its discovery document names.
	Keys IssuerKeys `yaml:"keys"`
}

// IssuerTenant is what an issuer may say in one tenant.
type IssuerTenant struct {
	Name     string   `yaml:"name"`
	Subjects []string `yaml:"subjects"` // subjects, or the start of them with a * at the end. Required
}

// IssuerKeys says where the keys of an issuer are.
type IssuerKeys struct {
	File       string        `yaml:"file"`       // JWKS document; then nothing is fetched. Read again when it changes
	URL        string        `yaml:"url"`        // of the JWKS document, https; default: by discovery
	CA         string        `yaml:"ca"`         // PEM, authorities of the server that has them; default: the machine's
	BearerFile string        `yaml:"bearerFile"` // token to show there, as Kubernetes wants it
	Interval   time.Duration `yaml:"interval"`   // between fetches; default jwks.DefaultInterval, 1m to 24h

	testOnlyGap time.Duration // 0: jwks.DefaultGap

	MaxAge time.Duration `yaml:"maxAge"` // of keys that cannot be fetched again; default jwks.DefaultMaxAge, at most 30 days
}

func validateIssuers(list []IssuerConfig, fail func(string, ...any)) {
	if len(list) > maxIssuers {
		fail("authentication.issuers: at most %d, got %d", maxIssuers, len(list))
	}
	seen := map[string]bool{}
	for i := range list {
		c := &list[i]
		if seen[c.Issuer] {
			fail("authentication.issuers: %s is repeated", c.Issuer)
		}
		seen[c.Issuer] = true
		c.validate(func(format string, args ...any) {
			fail("authentication.issuers[%d]."+format, append([]any{i}, args...)...)
		})
	}
}

func (c *IssuerConfig) validate(fail func(string, ...any)) {
	if err := policy.CheckIssuer(c.Issuer); err != nil {
		fail("issuer: %w", err)
	}
	if len(c.Audiences) == 0 || slices.Contains(c.Audiences, "") {
		fail("audiences is required: a token for another service must not be good here")
	}
	for _, alg := range c.Algorithms {
		if !slices.Contains(identity.Algorithms, alg) {
			fail("algorithms: want some of %v, got %q", identity.Algorithms, alg)
		}
	}
	if len(c.Tenants) == 0 {
		fail("tenants is required: an issuer speaks only for the subjects that are given to it")
	}
	for _, t := range c.Tenants {
		if t.Name == "" || len(t.Subjects) == 0 {
			fail("tenants: name and subjects are required")
		}
		for _, s := range t.Subjects {
			if err := identity.CheckSubjectPattern(s); err != nil {
				fail("tenants: %s: %w", t.Name, err)
			}
		}
	}
	within := func(key string, v, low, high time.Duration) {
		if v != 0 && (v < low || v > high) {
			fail("%s: want %s to %s, got %s", key, low, high, v)
		}
	}
	within("skew", c.Skew, time.Second, MaxTokenSkew)
	within("maxLifetime", c.MaxLifetime, time.Minute, MaxTokenLifetime)
	within("keys.interval", c.Keys.Interval, time.Minute, 24*time.Hour)
	within("keys.maxAge", c.Keys.MaxAge, time.Minute, 30*24*time.Hour)
	if c.Keys.File != "" && (c.Keys.URL != "" || c.Keys.CA != "" || c.Keys.BearerFile != "") {
		fail("keys: file and the keys for fetching exclude each other")
	}
	if u, err := url.Parse(c.Keys.URL); c.Keys.URL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		fail("keys.url: want an https URL, got %q", c.Keys.URL)
	}
}

// load returns the issuer as the authenticator wants it, and the text behind it.
func (c *IssuerConfig) load(sources issuerKeys) (identity.Issuer, []byte, error) {
	out := identity.Issuer{
		URL: c.Issuer, Audiences: c.Audiences, Algorithms: c.Algorithms, Kubernetes: c.Kubernetes,
		Skew: c.Skew, MaxLifetime: c.MaxLifetime,
	}
	if s := sources[c.Issuer]; s != nil {
		out.Keys = s
	}
	if len(out.Algorithms) == 0 {
		out.Algorithms = defaultAlgorithms
	}
	if out.Skew == 0 {
		out.Skew = DefaultTokenSkew
	}
	if out.MaxLifetime == 0 {
		out.MaxLifetime = DefaultTokenLifetime
	}
	for _, t := range c.Tenants {
		out.Tenants = append(out.Tenants, identity.GivenSubjects{Tenant: t.Name, Subjects: t.Subjects})
	}
	if c.Keys.File == "" {
		return out, nil, nil
	}
	text, err := readTrusted(c.Keys.File)
	if err != nil {
		return out, nil, fmt.Errorf("broker: authentication.issuers: keys of %s: %w", c.Issuer, err)
	}
	set, err := identity.ParseKeySet(text)
	if err != nil {
		return out, nil, fmt.Errorf("broker: authentication.issuers: keys of %s in %s: %w", c.Issuer, c.Keys.File, err)
	}
	out.Keys = identity.StaticKeys{Set: set}
	return out, text, nil
}

// issuerKeys are the sources of the issuers whose keys are fetched, by issuer.
type issuerKeys map[string]*jwks.Source

// newIssuerKeys makes the sources, which fetch nothing yet.
func newIssuerKeys(b *Broker) (issuerKeys, error) {
	out := issuerKeys{}
	var faults []error
	for i := range b.cfg.Authentication.Issuers {
		c := &b.cfg.Authentication.Issuers[i]
		if c.Keys.File != "" {
			continue
		}
		var roots *x509.CertPool
		if c.Keys.CA != "" {
			r, err := ca.LoadRoots(c.Keys.CA)
			if err != nil {
				faults = append(faults, fmt.Errorf("broker: authentication.issuers: keys of %s: %w", c.Issuer, err))
				continue
			}
			roots = r.Pool
		}
		name := sha256.Sum256([]byte(c.Issuer))
		out[c.Issuer] = jwks.New(jwks.Config{
			Issuer: c.Issuer, URL: c.Keys.URL, Roots: roots, BearerFile: c.Keys.BearerFile,
			Cache:    filepath.Join(b.cfg.State, "issuers", hex.EncodeToString(name[:8])+".json"),
			Interval: c.Keys.Interval, MaxAge: c.Keys.MaxAge, Gap: c.Keys.testOnlyGap,
			Changed: func(lost bool) { keysChanged(b, c.Issuer, lost) },
			Failed: func(err error) {
				log := b.component("issuers")
				if err == nil {
					log.Info().Str("issuer", c.Issuer).Msg("the keys of the issuer are fetched again")
					return
				}
				log.Error().Err(err).Str("issuer", c.Issuer).Dur("used_for_at_most", c.Keys.maxAge()).Msg("the keys of the issuer could not be fetched or kept: those that are known stay in use")
			},
		})
	}
	return out, errors.Join(faults...)
}

func (k *IssuerKeys) maxAge() time.Duration {
	if k.MaxAge == 0 {
		return jwks.DefaultMaxAge
	}
	return k.MaxAge
}

// startIssuers lets the sources fetch. The start does not wait for them: an issuer that
// is away must not keep out those who need it not.
func startIssuers(b *Broker) {
	for _, s := range b.issuers {
		s.Start()
	}
	b.running("issuers", func(context.Context) error {
		for _, s := range b.issuers {
			s.Close()
		}
		return nil
	})
}

// keysChanged authenticates live connections again where a key is gone: a token that
// it signed proves nothing any more.
func keysChanged(b *Broker, issuer string, lost bool) {
	b.log.Info().Str("issuer", issuer).Bool("withdrawn", lost).Msg("the issuer has other keys")
	if !lost {
		return
	}
	b.swap.Lock() // the policy that is in force stays so meanwhile
	defer b.swap.Unlock()
	if phase(b.phase.Load()) == phaseReady {
		b.gate.Reload(b.Policy())
	}
}

// trustMetrics are about those whose word the broker takes.
func trustMetrics(b *Broker) []ops.Source {
	keys := func(name, help string, kind ops.Kind, read func(jwks.Status) float64) ops.Source {
		return ops.Source{Name: name, Help: help, Kind: kind, Labels: []string{"issuer"}, Read: func(emit func(float64, ...string)) {
			for _, s := range b.issuers {
				st := s.Status()
				emit(read(st), st.Issuer)
			}
		}}
	}
	return []ops.Source{
		keys("signet_issuer_keys", "Keys of an issuer of tokens that are in use.", ops.Gauge, func(s jwks.Status) float64 { return float64(s.Keys) }),
		keys("signet_issuer_keys_fetched_seconds", "Unix time at which the keys of an issuer were fetched last.", ops.Gauge, func(s jwks.Status) float64 {
			if s.Fetched.IsZero() {
				return 0
			}
			return float64(s.Fetched.Unix())
		}),
		keys("signet_issuer_fetch_failures_total", "Fetches of the keys of an issuer that failed.", ops.Counter, func(s jwks.Status) float64 { return float64(s.Failures) }),
		{Name: "signet_client_ca_expiry_seconds", Help: "Unix time at which the last authority of a file of authentication.certificates expires.", Kind: ops.Gauge, Labels: []string{"file"}, Read: func(emit func(float64, ...string)) {
			for file, end := range b.material.Load().trust.rootsEnd {
				emit(float64(end.Unix()), file)
			}
		}},
	}
}
