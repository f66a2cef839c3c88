package gate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/ratelimit"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = 30 * time.Second

// testPolicy is a template: {name} stands for the principal's public nkey.
const testPolicy = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 800MiB}
  - {name: PAYMENTS, subjects: [payments.>], maxBytes: 16MiB}
ephemeral: [telemetry.>]
kv: [{bucket: CONFIG, maxBytes: 4MiB, history: 5}]
objects: [{bucket: FILES, maxBytes: 16MiB}]
limits:
  slow: {messages: 1/s, burst: 1s, exceed: reject, match: orders.*.slow}
  held: {messages: 20/s, burst: 50ms, exceed: wait, match: orders.*.held}
principals:
  - name: writer
    identities: [{nkey: {writer}}]
    publish: [orders.>, telemetry.>]
    limit: slow
  - name: waiter
    identities: [{nkey: {waiter}}]
    publish: [orders.>]
    limit: held
  - name: reader
    identities: [{nkey: {reader}}]
    subscribe: [orders.>, telemetry.>]
  - name: narrow
    identities: [{nkey: {narrow}}]
    publish: [orders.eu.created]
    subscribe: [orders.eu.created]
  - name: server
    identities: [{nkey: {server}}]
    serve: [billing.*]
  - name: caller
    identities: [{nkey: {caller}}]
    call: [billing.charge]
    discover: true
  - name: buckets
    identities: [{nkey: {buckets}}]
    headers: [KV-Operation, Nats-Rollup, Nats-Expected-Last-Subject-Sequence]
    kv: {read: [CONFIG], write: [CONFIG]}
    objects: {read: [FILES], write: [FILES]}
`

var principalNames = []string{"writer", "waiter", "reader", "narrow", "server", "caller", "buckets"}

// world is one tenant behind a gate.
type world struct {
	t     testing.TB
	keys  map[string]nkeys.KeyPair
	text  string
	set   *policy.Set
	embed *embed.Server
	gate  *Gate
	sink  *recorder
	js    jetstream.JetStream // internal, full permissions
	nc    *nats.Conn
	roots *x509.CertPool
}

type worldOption func(*Config, *Deps)

func newWorld(t testing.TB, options ...worldOption) *world {
	t.Helper()
	return newWorldOf(t, testPolicy, options...)
}

// newWorldOf is a world of another policy, with the same principals.
func newWorldOf(t testing.TB, text string, options ...worldOption) *world {
	t.Helper()
	w := &world{t: t, keys: map[string]nkeys.KeyPair{}, sink: &recorder{}, text: text}
	for _, name := range principalNames {
		k, err := nkeys.CreateUser()
		check(t, err)
		public, err := k.PublicKey()
		check(t, err)
		w.keys[name] = k
		w.text = strings.ReplaceAll(w.text, "{"+name+"}", public)
	}
	w.set = w.compile(w.text)
	ctx := w.ctx()
	var err error
	w.embed, err = embed.Start(ctx, embed.Config{
		StoreDir: t.TempDir(), ServerName: "test", Tenants: []embed.TenantAccount{{Name: "shop", MaxBytes: 1 << 30}},
	})
	check(t, err)
	t.Cleanup(func() { check(t, w.embed.Shutdown(w.ctx())) })
	token, revoke := w.embed.InternalTicket("shop")
	w.nc, err = nats.Connect("nats://internal", nats.InProcessServer(w.embed), nats.Token(token), nats.NoReconnect())
	check(t, err)
	t.Cleanup(func() { w.nc.Close(); revoke() })
	w.js, err = jetstream.New(w.nc)
	check(t, err)
	w.streams()
	w.start(options...)
	return w
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	w.t.Cleanup(cancel)
	return ctx
}

func (w *world) compile(text string) *policy.Set {
	w.t.Helper()
	b, err := policy.Parse("test.yaml", []byte(text))
	check(w.t, err)
	check(w.t, b.Validate())
	set, err := policy.Compile(b)
	check(w.t, err)
	return set
}

func (w *world) streams() {
	ctx := w.ctx()
	for _, s := range w.set.Tenant("shop").Streams {
		_, err := w.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: s.Name, Subjects: s.Subjects, MaxBytes: int64(s.MaxBytes), Discard: jetstream.DiscardNew,
			AllowDirect: true, DenyDelete: true, DenyPurge: true, Duplicates: s.DuplicateWindow,
		})
		check(w.t, err)
	}
	_, err := w.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "CONFIG", History: 5, MaxBytes: 4 << 20})
	check(w.t, err)
	_, err = w.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "FILES", MaxBytes: 16 << 20})
	check(w.t, err)
}

func (w *world) start(options ...worldOption) {
	t := w.t
	pair, err := nkeys.CreateServer()
	check(t, err)
	seed, err := pair.Seed()
	check(t, err)
	signer, err := signing.NewSigner(seed)
	check(t, err)
	chain, err := admission.NewChain(admission.Config{
		Node: "test", Signer: signer, Buckets: new(ratelimit.Table),
		Validator: func(*policy.SchemaDoc) schema.Validator { return nil },
		Keyring:   func() *keyring.Ring { return nil }, Seen: new(admission.Seen),
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour),
	})
	check(t, err)
	cfg := Config{
		Listen: "127.0.0.1:0", InsecurePlain: true, ServerID: "TEST", ServerName: "test", Version: embed.Version,
		Limits: Limits{PerIPRate: -1, FailedLogins: -1}, Timeouts: Timeouts{Drain: 5 * time.Second},
	}
	deps := Deps{
		Upstream: w.embed, Owners: owners{w.js}, Authenticate: identity.Nkey, Admission: chain.Session,
		Guard: jsapi.New(jsapi.Config{}), Policy: w.set, Sink: w.sink,
	}
	for _, o := range options {
		o(&cfg, &deps)
	}
	w.gate, err = New(cfg, deps)
	check(t, err)
	check(t, w.gate.Start(w.ctx()))
	t.Cleanup(func() { check(t, w.gate.Shutdown(w.ctx())) })
}

// tlsOption serves TLS by a CA of its own, whose roots it stores.
func tlsOption(t testing.TB, mode Handshake, roots **x509.CertPool) worldOption {
	if roots == nil {
		roots = new(*x509.CertPool)
	}
	dir := t.TempDir()
	authority, err := ca.Create(dir, "test")
	check(t, err)
	cert, key := filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	check(t, authority.IssueServer(cert, key, []string{"localhost", "127.0.0.1"}, time.Hour))
	reloader, err := ca.ServerTLS(cert, key)
	check(t, err)
	*roots = x509.NewCertPool()
	(*roots).AppendCertsFromPEM(authority.CertPEM())
	return func(cfg *Config, _ *Deps) {
		cfg.TLS, cfg.InsecurePlain, cfg.Handshake = reloader.Config(), false, mode
	}
}

// connect is an unmodified nats.go client of the principal.
func (w *world) connect(name string, options ...nats.Option) *nats.Conn {
	w.t.Helper()
	nc, err := w.tryConnect(name, options...)
	check(w.t, err)
	w.t.Cleanup(nc.Close)
	return nc
}

func (w *world) tryConnect(name string, options ...nats.Option) (*nats.Conn, error) {
	k := w.keys[name]
	public, err := k.PublicKey()
	check(w.t, err)
	all := []nats.Option{
		nats.Nkey(public, func(nonce []byte) ([]byte, error) { return k.Sign(nonce) }),
		nats.NoReconnect(), nats.Timeout(testTimeout), nats.Name(name),
	}
	if w.roots != nil {
		all = append(all, nats.Secure(&tls.Config{RootCAs: w.roots, MinVersion: tls.VersionTLS13}))
	}
	return nats.Connect("nats://"+w.gate.Addr().String(), append(all, options...)...)
}

func (w *world) jetstream(name string, options ...nats.Option) jetstream.JetStream {
	w.t.Helper()
	js, err := jetstream.New(w.connect(name, options...))
	check(w.t, err)
	return js
}

// owners looks owners up as the store does.
type owners struct{ js jetstream.JetStream }

func (o owners) ConsumerOwner(ctx context.Context, _, stream, consumer string) (string, bool, error) {
	c, err := o.js.Consumer(ctx, stream, consumer)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound), errors.Is(err, jetstream.ErrStreamNotFound),
		errors.Is(err, jetstream.ErrConsumerDoesNotExist):
		return "", false, nil
	case errors.Is(err, jetstream.ErrNotPullConsumer):
		p, err := o.js.PushConsumer(ctx, stream, consumer)
		if err != nil {
			return "", false, err
		}
		return p.CachedInfo().Config.Metadata[wire.MetaOwner], true, nil
	case err != nil:
		return "", false, err
	}
	return c.CachedInfo().Config.Metadata[wire.MetaOwner], true, nil
}

// recorder is a Sink that remembers.
type recorder struct {
	mu      sync.Mutex
	refused []string // code and verb
	whole   []*wire.Refusal
	gone    []string
	panics  []string // what and stack
	told    []string // of requests and deliveries
}

func (r *recorder) Refused(f *wire.Refusal, j *Rejected) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.Ref = fmt.Sprintf("r%d", len(r.refused))
	r.refused = append(r.refused, f.Code.String()+" "+j.Verb)
	r.whole = append(r.whole, f)
}

// last is the latest refusal with that code, nil if there is none.
func (r *recorder) last(code wire.Code) *wire.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(r.whole) - 1; i >= 0; i-- {
		if r.whole[i].Code == code {
			return r.whole[i]
		}
	}
	return nil
}

func (r *recorder) Panicked(_ *Connection, what string, stack []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.panics = append(r.panics, what+"\n"+string(stack))
}
func (r *recorder) Connected(*Connection) {}

func (r *recorder) Requested(_ *Connection, access jsapi.Access, v *jsapi.Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprint("requested ", access, " ", v.Subject, " ", v.Stream, " ", v.Consumer))
}

func (r *recorder) Delivered(c *Connection, d *Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprintf("delivered %s %+v", c.Principal, *d))
}

func (r *recorder) Tallied(c *Connection, ranges []Range) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, fmt.Sprintf("tallied %s %+v", c.Principal, ranges))
}

func (r *recorder) Disconnected(_ *Connection, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = append(r.gone, reason)
}

func creds() *identity.Credentials { return &identity.Credentials{RemoteAddr: "192.0.2.1:1"} }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// raw is a client that writes and reads bytes.
type raw struct {
	t  testing.TB
	nc net.Conn
	in []byte
}

// dial opens a connection and reads INFO.
func (w *world) dial() (*raw, serverInfo) {
	w.t.Helper()
	nc, err := net.Dial("tcp", w.gate.Addr().String())
	check(w.t, err)
	r := &raw{t: w.t, nc: nc}
	w.t.Cleanup(func() { nc.Close() })
	return r, parseInfo(w.t, r.line())
}

// login opens a raw connection of the principal. connect is the JSON of CONNECT
// after nkey and sig, such as `"verbose":false`.
func (w *world) login(name, connect string) *raw {
	w.t.Helper()
	r, info := w.dial()
	public, _ := w.keys[name].PublicKey()
	sig, err := w.keys[name].Sign([]byte(info.Nonce))
	check(w.t, err)
	r.send(fmt.Sprintf("CONNECT {\"nkey\":%q,\"sig\":%q,%s}\r\n", public, encodeSig(sig), connect))
	return r
}

func (r *raw) send(s string) {
	r.t.Helper()
	_, err := r.nc.Write([]byte(s))
	check(r.t, err)
}

// line reads one line, without its CRLF. "EOF" is the end of the connection.
func (r *raw) line() string {
	r.t.Helper()
	check(r.t, r.nc.SetReadDeadline(time.Now().Add(testTimeout)))
	for {
		if i := strings.Index(string(r.in), "\r\n"); i >= 0 {
			s := string(r.in[:i])
			r.in = r.in[i+2:]
			return s
		}
		var b [4096]byte
		n, err := r.nc.Read(b[:])
		r.in = append(r.in, b[:n]...)
		if err != nil && n == 0 {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				r.t.Fatalf("no line; have %q", r.in)
			}
			return "EOF"
		}
	}
}

// want reads lines until one starts with prefix, and returns it; PINGs and INFOs of
// the server are skipped, anything else is an error.
func (r *raw) want(prefix string) string {
	r.t.Helper()
	for {
		l := r.line()
		if strings.HasPrefix(l, prefix) {
			return l
		}
		if !strings.HasPrefix(l, "INFO ") && l != "PING" {
			r.t.Fatalf("got %q, want %q", l, prefix)
		}
	}
}
