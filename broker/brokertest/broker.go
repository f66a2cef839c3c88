package brokertest

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/freeport"
)

// patience bounds what must happen, on a machine that is busy with other things.
const patience = time.Minute

// Options of New. The zero value is a broker with the policy of `signet dev`.
type Options struct {
	// Policy is a policy text in which {{nkey "name"}} stands for the public key of
	// a credential that New makes. Empty means the policy of `signet dev`.
	Policy string
	// Files are written beside the policy, for schemas that it names.
	Files map[string][]byte
	// Durability defaults to the broker's default.
	Durability broker.Durability
	// Dev makes refusals explain themselves to callers.
	Dev bool
	// Change edits the configuration before the start.
	Change func(*broker.Config)
	// Log gets the broker's log; default is none.
	Log io.Writer
	// Encrypt turns encryption at rest on.
	Encrypt bool
	// Name is the name of the broker; default is "test".
	Name string
	// Dir is the state folder; default is a temporary one of the test.
	Dir string
}

// Broker is a running broker.
type Broker struct {
	*broker.Broker
	State *broker.State
	tb    testing.TB
}

// New starts a broker and stops it at the end of the test. It fails the test when
// the broker does not start or does not stop cleanly.
func New(tb testing.TB, o Options) *Broker {
	tb.Helper()
	if o.Dir == "" {
		o.Dir = tb.TempDir()
	}
	for name, data := range o.Files {
		if err := os.WriteFile(filepath.Join(o.Dir, name), data, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	addr, err := freeport.Addr() // not of the system's choice: tests start brokers again where they were
	if err != nil {
		tb.Fatal(err)
	}
	st, err := broker.Setup{Dir: o.Dir, Encrypt: o.Encrypt, Name: cmp.Or(o.Name, "test"), Listen: addr, Dev: true, Policy: o.Policy}.Run()
	if err != nil {
		tb.Fatal(err)
	}
	cfg, err := broker.LoadConfig(st.Config, nil)
	if err != nil {
		tb.Fatal(err)
	}
	o.settle(&cfg)
	log := zerolog.Nop()
	if o.Log != nil {
		log = zerolog.New(o.Log)
	}
	b, err := broker.New(cfg, "test", log)
	if err != nil {
		tb.Fatal(err)
	}
	if err := b.Start(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	t := &Broker{Broker: b, State: st, tb: tb}
	tb.Cleanup(func() {
		select {
		case <-b.Done():
			return // the test stopped it
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			tb.Errorf("shut down: %v", err)
		}
	})
	return t
}

// settle makes of a configuration one for tests.
func (o *Options) settle(cfg *broker.Config) {
	cfg.Ops.Listen = "127.0.0.1:0"
	cfg.Drain = 5 * time.Second
	cfg.Dev = o.Dev
	// Tests come and go fast from one address.
	cfg.Gate.ConnectionRate = 100000
	cfg.Gate.FailedLogins = 100000
	// How full the disk of a developer is, is not what tests are about.
	cfg.Storage.SoftWatermark, cfg.Storage.HardWatermark = 97, 98
	if o.Durability != "" {
		cfg.Storage.Durability = o.Durability
	}
	if o.Change != nil {
		o.Change(cfg)
	}
}

// URL returns the address for clients.
func (b *Broker) URL() string { return "tls://" + b.Addr().String() }

// Cred returns the seed file of a principal of the policy.
func (b *Broker) Cred(principal string) string {
	b.tb.Helper()
	f, ok := b.State.Creds[principal]
	if !ok {
		b.tb.Fatalf("the policy has no {{nkey %q}}", principal)
	}
	return f
}

// TLS returns a client configuration that trusts the broker.
func (b *Broker) TLS() *tls.Config {
	b.tb.Helper()
	pem, err := os.ReadFile(b.State.CA)
	if err != nil {
		b.tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		b.tb.Fatal("no certificate in " + b.State.CA)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// Client connects with the SDK as principal and closes the client with the test.
func (b *Broker) Client(principal string, opts ...client.Option) *client.Client {
	b.tb.Helper()
	return b.connect(b.URL(), principal, opts...)
}

func (b *Broker) connect(urls, principal string, opts ...client.Option) *client.Client {
	b.tb.Helper()
	base := []client.Option{
		client.WithNkeySeedFile(b.Cred(principal)), client.WithTLSRoots(b.State.CA), client.WithRoot(b.State.Root),
	}
	ctx, cancel := context.WithTimeout(b.tb.Context(), patience)
	defer cancel()
	c, err := client.Connect(ctx, urls, append(base, opts...)...)
	if err != nil {
		b.tb.Fatalf("connect as %s: %v", principal, err)
	}
	b.tb.Cleanup(c.Close)
	return c
}

// NATS connects with plain, unmodified nats.go as principal.
func (b *Broker) NATS(principal string, opts ...nats.Option) *nats.Conn {
	b.tb.Helper()
	return b.dial(b.URL(), principal, opts...)
}

func (b *Broker) dial(urls, principal string, opts ...nats.Option) *nats.Conn {
	b.tb.Helper()
	auth, err := nats.NkeyOptionFromSeed(b.Cred(principal))
	if err != nil {
		b.tb.Fatal(err)
	}
	nc, err := nats.Connect(urls, append([]nats.Option{auth, nats.Secure(b.TLS()), nats.Name(fmt.Sprintf("test %s", principal)), nats.Timeout(patience)}, opts...)...)
	if err != nil {
		b.tb.Fatalf("connect as %s: %v", principal, err)
	}
	b.tb.Cleanup(nc.Close)
	return nc
}
