package broker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
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
	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

// issuer is a real issuer of tokens over HTTPS, of the kind that a Kubernetes API server
// is.
type issuer struct {
	*httptest.Server
	ca      string // file
	fetches atomic.Int64

	mu   sync.Mutex
	keys map[string]*ecdsa.PrivateKey
}

func newIssuer(t *testing.T, kids ...string) *issuer {
	t.Helper()
	i := &issuer{keys: map[string]*ecdsa.PrivateKey{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/openid/v1/jwks"})
	})
	mux.HandleFunc("/openid/v1/jwks", func(w http.ResponseWriter, _ *http.Request) {
		i.fetches.Add(1)
		i.mu.Lock()
		defer i.mu.Unlock()
		var set jose.JSONWebKeySet
		for kid, k := range i.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.Public(), KeyID: kid, Use: "sig", Algorithm: "ES256"})
		}
		_ = json.NewEncoder(w).Encode(set)
	})
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	i.ca = filepath.Join(t.TempDir(), "ca.pem")
	check(t, os.WriteFile(i.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw}), 0o600))
	for _, kid := range kids {
		i.add(t, kid)
	}
	return i
}

func (i *issuer) add(t testing.TB, kid string) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[kid] = key
}

func (i *issuer) withdraw(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.keys, kid)
}

// token is good for life, for the subject, by a key that may be unknown to the broker.
func (i *issuer) token(t testing.TB, kid, subject string, life time.Duration, more ...string) string {
	t.Helper()
	i.mu.Lock()
	key := i.keys[kid]
	i.mu.Unlock()
	if key == nil {
		key = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	}
	s := must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", kid)))(t)
	c := map[string]any{"iss": i.URL, "sub": subject, "aud": []string{"signet"}, "iat": time.Now().Unix(), "exp": time.Now().Add(life).Unix()}
	for n := 0; n+1 < len(more); n += 2 {
		c[more[n]] = more[n+1]
	}
	jws := must(s.Sign(must(json.Marshal(c))(t)))(t)
	return must(jws.CompactSerialize())(t)
}

const account = "system:serviceaccount:shop:checkout"

// newPod is a broker that takes the tokens of i for tenant shop.
func newPod(t *testing.T, i *issuer, change ...func(*brokertest.Options)) *brokertest.Broker {
	t.Helper()
	return newBroker(t, append([]func(*brokertest.Options){func(o *brokertest.Options) {
		o.Policy = strings.ReplaceAll(`tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
principals:
  - {name: checkout, identities: [{serviceAccount: shop/checkout}], publish: [orders.>], subscribe: [orders.>]}
  - {name: deployer, identities: [{oidc: {issuer: ISSUER, subject: deployer, claims: {env: production}}}], publish: [orders.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [status]}
`, "ISSUER", i.URL)
		o.Change = func(c *broker.Config) {
			quickDrain(c)
			c.Authentication.Issuers = []broker.IssuerConfig{{
				Issuer: i.URL, Audiences: []string{"signet"}, Kubernetes: true, Skew: time.Second,
				Tenants: []broker.IssuerTenant{{Name: "shop", Subjects: []string{"system:serviceaccount:shop:*", "deployer"}}},
				Keys:    broker.IssuerKeys{CA: i.ca},
			}}
		}
	}}, change...)...)
}

func tryToken(b *brokertest.Broker, token string, opts ...nats.Option) (*nats.Conn, error) {
	return nats.Connect(b.URL(), append([]nats.Option{nats.Secure(b.TLS()), nats.Token(token), nats.NoReconnect(), nats.Timeout(patience)}, opts...)...)
}

// withToken connects when the broker has the keys, which it fetches by itself.
func withToken(t testing.TB, b *brokertest.Broker, token string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	var nc *nats.Conn
	eventually(t, "a connection with a token", func() bool {
		var err error
		nc, err = tryToken(b, token, opts...)
		return err == nil
	})
	t.Cleanup(nc.Close)
	return nc
}

// TestToken: a workload comes in with its token alone, in auth_token or jwt, as the
// principal of the subject; the SDK reads it from a file.
func TestToken(t *testing.T) {
	i := newIssuer(t, "a")
	b := newPod(t, i)
	good := i.token(t, "a", account, time.Hour)
	nc := withToken(t, b, good)
	if m := must(nc.Request("orders.a", []byte("x"), patience))(t); !strings.Contains(string(m.Data), `"seq":1`) {
		t.Errorf("%s", m.Data)
	}
	jwt := must(nats.Connect(b.URL(), nats.Secure(b.TLS()), nats.NoReconnect(),
		nats.UserJWT(func() (string, error) { return good, nil }, func([]byte) ([]byte, error) { return nil, nil })))(t)
	t.Cleanup(jwt.Close)
	withToken(t, b, i.token(t, "a", "deployer", time.Hour, "env", "production"))
	file := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(file, []byte(good+"\n"), 0o644))
	c := must(client.Connect(within(t), b.URL(), client.WithTokenFile(file), client.WithTLSRoots(b.State.CA), client.WithRoot(b.State.Root)))(t)
	t.Cleanup(c.Close)
	if _, err := c.Publish(within(t), "orders.b", client.NewEvent("order", []byte("1"))); err != nil {
		t.Error(err)
	}
	for name, token := range map[string]string{
		"another subject":        i.token(t, "a", "system:serviceaccount:shop:other", time.Hour),
		"another audience":       i.token(t, "a", account, time.Hour, "aud", "kafka"),
		"expired":                i.token(t, "a", account, -time.Minute),
		"a claim is missing":     i.token(t, "a", "deployer", time.Hour),
		"unknown key":            i.token(t, "z", account, time.Hour),
		"key under another's id": newIssuer(t, "a").token(t, "a", account, time.Hour, "iss", i.URL),
		"another issuer":         newIssuer(t, "a").token(t, "a", account, time.Hour),
	} {
		if nc, err := tryToken(b, token); !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("%s: %v", name, err)
			nc.Close()
		}
	}
	seed := must(nats.NkeyOptionFromSeed(b.Cred("root")))(t)
	if nc, err := tryToken(b, "x", seed); err == nil {
		t.Error("a bad token beside a good nkey was passed over")
		nc.Close()
	}
}

// TestTokenEndsTheSession: a connection ends with its token, and a library whose token
// was renewed is back by itself.
func TestTokenEndsTheSession(t *testing.T) {
	i := newIssuer(t, "a")
	b := newPod(t, i)
	withToken(t, b, i.token(t, "a", account, time.Hour)).Close()
	file := filepath.Join(t.TempDir(), "token")
	check(t, os.WriteFile(file, []byte(i.token(t, "a", account, 4*time.Second)), 0o600))
	lost, back := make(chan struct{}, 8), make(chan struct{}, 8)
	c := must(client.Connect(within(t), b.URL(), client.WithTokenFile(file), client.WithTLSRoots(b.State.CA), client.WithRoot(b.State.Root),
		client.WithReconnectWait(20*time.Millisecond), client.WithStateHandler(func(on bool, _ error) {
			if on {
				back <- struct{}{}
			} else {
				lost <- struct{}{}
			}
		})))(t)
	t.Cleanup(c.Close)
	check(t, os.WriteFile(file, []byte(i.token(t, "a", account, time.Hour)), 0o600))
	for what, ch := range map[string]chan struct{}{"the end": lost, "back": back} {
		select {
		case <-ch:
		case <-within(t).Done():
			t.Fatal("not in time: ", what)
		}
	}
	if _, err := c.Publish(within(t), "orders.b", client.NewEvent("order", []byte("1"))); err != nil {
		t.Error(err)
	}
}

// TestIssuerTurnsItsKeys: a token of a new key is good at once, and with a key that is
// withdrawn go the connections that it vouched for.
func TestIssuerTurnsItsKeys(t *testing.T) {
	i := newIssuer(t, "a")
	b := newPod(t, i, func(o *brokertest.Options) {
		change := o.Change
		o.Change = func(c *broker.Config) {
			change(c)
			broker.SetFetchGap(&c.Authentication.Issuers[0], time.Nanosecond)
		}
	})
	cut := make(chan struct{})
	withToken(t, b, i.token(t, "a", account, time.Hour), nats.ClosedHandler(func(*nats.Conn) { close(cut) }))
	i.add(t, "b")
	fresh := withToken(t, b, i.token(t, "b", account, time.Hour))
	i.withdraw("a")
	if nc, err := tryToken(b, i.token(t, "c", account, time.Hour)); err == nil { // has the keys fetched
		nc.Close()
		t.Error("an unknown key was taken")
	}
	select {
	case <-cut:
	case <-within(t).Done():
		t.Fatal("the connection outlives the key of its token")
	}
	check(t, fresh.FlushTimeout(patience))
}

// TestStormOfTokens: tokens with unknown keys do not become requests to the issuer.
func TestStormOfTokens(t *testing.T) {
	i := newIssuer(t, "a")
	b := newPod(t, i)
	withToken(t, b, i.token(t, "a", account, time.Hour)).Close()
	before := i.fetches.Load()
	for range 50 {
		if nc, err := tryToken(b, i.token(t, rand.Text(), account, time.Hour)); err == nil {
			nc.Close()
			t.Fatal("an unknown key was taken")
		}
	}
	if n := i.fetches.Load() - before; n > 6 { // one each 10 s, then 20 s, ... while the test runs
		t.Errorf("50 tokens caused %d fetches", n)
	}
}

// TestStartWithoutTheIssuer: the keys of before are good while the issuer is away, and
// those who need no issuer come in without keys, too.
func TestStartWithoutTheIssuer(t *testing.T) {
	i := newIssuer(t, "a")
	b := newPod(t, i)
	good := i.token(t, "a", account, time.Hour)
	withToken(t, b, good).Close()
	eventually(t, "the keys are kept", func() bool {
		files, err := filepath.Glob(filepath.Join(b.State.Dir, "store", "issuers", "*.json"))
		return err == nil && len(files) == 1
	})
	stop(t, b)
	i.Close()
	again := newPod(t, i, func(o *brokertest.Options) { o.Dir = b.State.Dir })
	nc := must(tryToken(again, good))(t)
	t.Cleanup(nc.Close)
	stranger := newPod(t, i)
	check(t, stranger.NATS("root").FlushTimeout(patience))
	if nc, err := tryToken(stranger, good); err == nil {
		nc.Close()
		t.Error("a token was taken without keys")
	}
}

// TestRevokedTokenSubject: who comes in by a token is cut when the policy takes its subject
// away, whatever the token says; others by tokens of the same key stay.
func TestRevokedTokenSubject(t *testing.T) {
	i := newIssuer(t, "a")
	b := newPod(t, i)
	cut := make(chan struct{})
	withToken(t, b, i.token(t, "a", account, time.Hour), nats.ClosedHandler(func(*nats.Conn) { close(cut) }))
	other := withToken(t, b, i.token(t, "a", "deployer", time.Hour, "env", "production"))
	text := must(os.ReadFile(b.State.Policy))(t)
	began := time.Now()
	reload(t, b, edit(t, string(text), "serviceAccount: shop/checkout", "serviceAccount: shop/another"))
	select {
	case <-cut:
		t.Logf("cut after %s", time.Since(began).Round(time.Millisecond))
	case <-within(t).Done():
		t.Fatal("the connection outlives its subject in the policy")
	}
	check(t, other.FlushTimeout(patience))
	if nc, err := tryToken(b, i.token(t, "a", account, time.Hour)); err == nil {
		nc.Close()
		t.Error("the subject still comes in")
	}
}
