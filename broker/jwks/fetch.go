package jwks

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/signetbus/signet/broker/identity"
)

// maxBearerBytes bounds the token of Config.BearerFile.
const maxBearerBytes = 16 << 10

// fetcher asks one issuer for its keys.
type fetcher struct {
	cfg  *Config
	http *http.Client
}

func newFetcher(cfg *Config) *fetcher {
	return &fetcher{cfg: cfg, http: &http.Client{
		Timeout: FetchTimeout,
		Transport: &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots},
			// A fetch every few minutes has no use for an open connection.
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		},
		// Keys come from where the operator and the issuer say, not from where an answer
		// points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (f *fetcher) close() { f.http.CloseIdleConnections() }

// fetch returns the document with the keys.
func (f *fetcher) fetch(ctx context.Context) ([]byte, error) {
	at := f.cfg.URL
	if at == "" {
		var err error
		if at, err = f.discover(ctx); err != nil {
			return nil, err
		}
	}
	return f.get(ctx, at)
}

// discover asks the issuer where its keys are.
func (f *fetcher) discover(ctx context.Context) (string, error) {
	doc, err := f.get(ctx, strings.TrimSuffix(f.cfg.Issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	var said struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(doc, &said); err != nil {
		return "", fmt.Errorf("%w: the discovery document is not JSON", ErrFetch)
	}
	u, err := url.Parse(said.Keys)
	switch {
	case said.Issuer != f.cfg.Issuer:
		return "", fmt.Errorf("%w: the discovery document is of the issuer %.200q, not of %q", ErrFetch, said.Issuer, f.cfg.Issuer)
	case err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil:
		return "", fmt.Errorf("%w: jwks_uri %.200q of the discovery document is no https URL", ErrFetch, said.Keys)
	}
	return said.Keys, nil
}

func (f *fetcher) get(ctx context.Context, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFetch, err)
	}
	req.Header.Set("Accept", "application/json")
	if err := f.authorise(req); err != nil {
		return nil, err
	}
	res, err := f.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFetch, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s answered %s", ErrFetch, at, res.Status)
	}
	doc, err := io.ReadAll(io.LimitReader(res.Body, identity.MaxKeySetBytes+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrFetch, err)
	case len(doc) > identity.MaxKeySetBytes:
		return nil, fmt.Errorf("%w: %s answered with over %d bytes", ErrFetch, at, identity.MaxKeySetBytes)
	}
	return doc, nil
}

// authorise shows the bearer token, to the host that the configuration names only: a
// discovery document may point anywhere.
func (f *fetcher) authorise(req *http.Request) error {
	if f.cfg.BearerFile == "" {
		return nil
	}
	home := f.cfg.URL
	if home == "" {
		home = f.cfg.Issuer
	}
	if u, err := url.Parse(home); err != nil || u.Host != req.URL.Host {
		return nil
	}
	file, err := os.Open(f.cfg.BearerFile)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	defer file.Close()
	token, err := io.ReadAll(io.LimitReader(file, maxBearerBytes))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	return nil
}
