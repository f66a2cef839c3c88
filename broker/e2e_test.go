package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/template"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"go.uber.org/goleak"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds everything that must happen.
const patience = time.Minute

// shopPolicy has two tenants with the same stream and bucket names, so that
// anything that crosses between them shows.
const shopPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
  - {name: PAYMENTS, subjects: [payments.>], maxBytes: 16MiB}
ephemeral: [telemetry.>]
kv: [{bucket: settings, maxBytes: 1MiB, history: 5}, {bucket: secrets, maxBytes: 1MiB}]
objects: [{bucket: files, maxBytes: 1MiB}]
schemas:
  - {name: order, version: 1, text: '{"type":"object","required":["id"],"properties":{"id":{"type":"integer"}}}'}
subjects:
  - {match: orders.checked, schema: order}
limits:
  slow: {messages: 2/s, burst: 1s, exceed: reject}
deadLetter: {maxBytes: 4MiB}
principals:
  - {name: writer, identities: [{nkey: '{{nkey "writer"}}'}], publish: [orders.>, payments.>, telemetry.>], kv: {write: [settings, secrets]}}
  - {name: narrow, identities: [{nkey: '{{nkey "narrow"}}'}], publish: [orders.eu.>], subscribe: [orders.eu.>, telemetry.eu.>], kv: {read: [settings]}}
  - {name: payer, identities: [{nkey: '{{nkey "payer"}}'}], subscribe: [payments.>, orders.eu.>]}
  - {name: wide, identities: [{nkey: '{{nkey "wide"}}'}], publish: [orders.>], subscribe: [orders.>, payments.>, telemetry.>]}
  - {name: throttled, identities: [{nkey: '{{nkey "throttled"}}'}], publish: [orders.>], limit: slow}
  - {name: service, identities: [{nkey: '{{nkey "service"}}'}], serve: [billing.*]}
  - {name: caller, identities: [{nkey: '{{nkey "caller"}}'}], call: [billing.*]}
  - {name: keeper, identities: [{nkey: '{{nkey "keeper"}}'}], kv: {read: [secrets], write: [secrets]}}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [dlq, keys, policy, refusals, status]}
  - {name: off, disabled: true, identities: [{nkey: '{{nkey "off"}}'}], publish: [orders.>]}
---
tenant: mill
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
  - {name: FLOUR, subjects: [flour.>], maxBytes: 16MiB}
ephemeral: [telemetry.>]
kv: [{bucket: settings, maxBytes: 1MiB}]
schemas:
  - {name: order, version: 1, text: '{"type":"object","required":["id"]}'}
subjects:
  - {match: orders.checked, schema: order}
deadLetter: {maxBytes: 4MiB}
principals:
  - {name: miller, identities: [{nkey: '{{nkey "miller"}}'}], publish: [orders.>, flour.>, telemetry.>], subscribe: [orders.>, flour.>, telemetry.>], kv: {read: [settings], write: [settings]}}
  - {name: boss, identities: [{nkey: '{{nkey "boss"}}'}], admin: [dlq, keys, policy, refusals, status, streams, consumers]}
`

func newBroker(t *testing.T, change ...func(*brokertest.Options)) *brokertest.Broker {
	t.Helper()
	o := brokertest.Options{Policy: shopPolicy, Change: quickDrain}
	for _, c := range change {
		c(&o)
	}
	return brokertest.New(t, o)
}

// quickDrain does not wait long for clients that do not leave when told.
func quickDrain(c *broker.Config) { c.Drain = time.Second }

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually asks until ok, for what happens in another goroutine.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

// inside is the broker's own, all-seeing connection to a tenant's account.
func inside(t testing.TB, b *brokertest.Broker, tenant string) *nats.Conn {
	t.Helper()
	return must(b.Inside(tenant))(t)
}

func insideJS(t testing.TB, b *brokertest.Broker, tenant string) jetstream.JetStream {
	t.Helper()
	return must(jetstream.New(inside(t, b, tenant)))(t)
}

// tap records every message of a tenant's account on a filter.
type tap struct {
	nc  *nats.Conn
	sub *nats.Subscription
}

func newTap(t *testing.T, b *brokertest.Broker, tenant, filter string) *tap {
	t.Helper()
	nc := inside(t, b, tenant)
	sub := must(nc.SubscribeSync(filter))(t)
	check(t, nc.Flush())
	t.Cleanup(func() { _ = sub.Unsubscribe() })
	return &tap{nc, sub}
}

// seen returns what the tap has recorded. Whatever the server had processed before
// the call is in it.
func (p *tap) seen(t *testing.T) (out []*nats.Msg) {
	t.Helper()
	check(t, p.nc.Flush())
	for {
		n, _, err := p.sub.Pending()
		check(t, err)
		if n == 0 {
			return out
		}
		out = append(out, must(p.sub.NextMsg(patience))(t))
	}
}

// nothing fails the test if the tap saw anything.
func (p *tap) nothing(t *testing.T, what string) {
	t.Helper()
	for _, m := range p.seen(t) {
		t.Errorf("%s: %s got through: %.80q", what, m.Subject, m.Data)
	}
}

// peer is an unmodified nats.go connection that keeps its asynchronous errors.
type peer struct {
	*nats.Conn
	mu   sync.Mutex
	errs []error
}

func connect(t *testing.T, b *brokertest.Broker, principal string, opts ...nats.Option) *peer {
	t.Helper()
	p := &peer{}
	opts = append([]nats.Option{
		nats.MaxReconnects(-1), nats.ReconnectWait(20 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.NoReconnect(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			p.mu.Lock()
			p.errs = append(p.errs, err)
			p.mu.Unlock()
		}),
	}, opts...)
	p.Conn = b.NATS(principal, opts...)
	return p
}

// reconnects undoes the NoReconnect of connect.
func reconnects(o *nats.Options) error { o.AllowReconnect = true; return nil }

func (p *peer) js(t testing.TB) jetstream.JetStream {
	t.Helper()
	return must(jetstream.New(p.Conn))(t)
}

// failures returns the asynchronous errors so far, after a round trip.
func (p *peer) failures(t testing.TB) []error {
	t.Helper()
	check(t, p.FlushTimeout(patience))
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]error(nil), p.errs...)
}

// refused waits until an asynchronous error names the code.
func (p *peer) refused(t testing.TB, code wire.Code) {
	t.Helper()
	eventually(t, fmt.Sprintf("refusal %d", code), func() bool {
		for _, err := range p.failures(t) {
			if strings.Contains(err.Error(), code.String()) {
				return true
			}
		}
		return false
	})
}

// ask makes a request and returns the problem in the answer, nil if there is none.
func (p *peer) ask(t testing.TB, subject string, body any) (*wire.Problem, *nats.Msg) {
	t.Helper()
	var raw []byte
	switch v := body.(type) {
	case nil:
	case string:
		raw = []byte(v)
	case []byte:
		raw = v
	default:
		raw = must(json.Marshal(v))(t)
	}
	m, err := p.Request(subject, raw, patience)
	if err != nil {
		t.Fatalf("request on %s: %v", subject, err)
	}
	var a wire.ErrorAnswer
	if json.Unmarshal(m.Data, &a) != nil {
		return nil, m
	}
	return a.Problem, m
}

// denied asks and expects one of the codes.
func (p *peer) denied(t testing.TB, subject string, body any, codes ...wire.Code) *wire.Problem {
	t.Helper()
	problem, m := p.ask(t, subject, body)
	if problem == nil {
		t.Errorf("%s was not refused: %.200q", subject, m.Data)
		return &wire.Problem{}
	}
	for _, c := range codes {
		if problem.Code == c {
			return problem
		}
	}
	t.Errorf("%s was refused with %d (%s), want %v", subject, problem.Code, problem.Detail, codes)
	return problem
}

// publish stores an event and returns its sequence.
func (p *peer) publish(t testing.TB, subject, data string) uint64 {
	t.Helper()
	ack, err := p.js(t).Publish(within(t), subject, []byte(data))
	if err != nil {
		t.Fatalf("publish on %s: %v", subject, err)
	}
	return ack.Sequence
}

// raw is a connection that speaks the protocol by hand.
type raw struct {
	net.Conn
	r         *bufio.Reader
	t         testing.TB
	connected bool // CONNECT was sent
}

func dialRaw(t testing.TB, b *brokertest.Broker) *raw {
	t.Helper()
	nc := must(net.DialTimeout("tcp", b.Addr().String(), patience))(t)
	t.Cleanup(func() { _ = nc.Close() })
	check(t, nc.SetDeadline(time.Now().Add(patience)))
	return &raw{Conn: nc, r: newReader(nc), t: t}
}

// rawTLS does the handshake up to and with CONNECT for a principal; more are
// further members of CONNECT, as JSON text.
func rawTLS(t testing.TB, b *brokertest.Broker, seedFile string, more ...string) (*raw, string) {
	t.Helper()
	r := dialRaw(t, b)
	cfg := b.TLS()
	cfg.ServerName = "127.0.0.1"
	conn := tls.Client(r.Conn, cfg)
	r.Conn, r.r = conn, newReader(conn)
	info := r.line()
	var parsed struct {
		Nonce string `json:"nonce"`
	}
	check(t, json.Unmarshal([]byte(strings.TrimPrefix(info, "INFO ")), &parsed))
	kp := must(nkeys.FromSeed(bytes.TrimSpace(must(os.ReadFile(seedFile))(t))))(t)
	sig := must(kp.Sign([]byte(parsed.Nonce)))(t)
	line := fmt.Sprintf(`CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"nkey":%q,"sig":%q%s}`,
		must(kp.PublicKey())(t), base64.RawURLEncoding.EncodeToString(sig), strings.Join(append([]string{""}, more...), ","))
	r.send(line + "\r\n")
	r.connected = true
	return r, line
}

func newReader(nc net.Conn) *bufio.Reader { return bufio.NewReaderSize(nc, 64<<10) }

func (r *raw) send(s string) {
	r.t.Helper()
	if _, err := r.Write([]byte(s)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) line() string {
	r.t.Helper()
	for {
		s, err := r.r.ReadString('\n')
		if err != nil {
			r.t.Fatalf("read: %v after %q", err, s)
		}
		// The server tells who one is when the connection is up.
		if !r.connected || !strings.HasPrefix(s, "INFO ") {
			return strings.TrimRight(s, "\r\n")
		}
	}
}

// rest reads until the other side closes.
func (r *raw) rest() string {
	r.t.Helper()
	var out strings.Builder
	_, err := r.r.WriteTo(&out)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		r.t.Fatalf("the connection stays open after %q", out.String())
	}
	if at := strings.Index(out.String(), "-ERR"); r.connected && at > 0 {
		return out.String()[at:]
	}
	return out.String()
}

// render fills in the public keys of credentials, made where there are none.
func render(t testing.TB, b *brokertest.Broker, text string) []byte {
	t.Helper()
	public := func(name string) (string, error) {
		file := filepath.Join(b.State.Dir, "creds", name+".nk")
		seed, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			kp := must(nkeys.CreateUser())(t)
			seed = must(kp.Seed())(t)
			err = os.WriteFile(file, seed, 0o600)
		}
		if err != nil {
			return "", err
		}
		b.State.Creds[name] = file
		return must(nkeys.FromSeed(bytes.TrimSpace(seed)))(t).PublicKey()
	}
	var out bytes.Buffer
	check(t, must(template.New("").Funcs(template.FuncMap{"nkey": public}).Parse(text))(t).Execute(&out, nil))
	return out.Bytes()
}

// replacePolicy writes the policy file as editors do, in one step.
func replacePolicy(t testing.TB, b *brokertest.Broker, text string) {
	t.Helper()
	tmp := b.State.Policy + ".tmp"
	check(t, os.WriteFile(tmp, render(t, b, text), 0o600))
	check(t, os.Rename(tmp, b.State.Policy))
}

// reload puts another policy in force.
func reload(t testing.TB, b *brokertest.Broker, text string) {
	t.Helper()
	replacePolicy(t, b, text)
	check(t, b.Reload(within(t)))
}

// edit is shopPolicy with one replacement, which must happen.
func edit(t testing.TB, text, from, to string) string {
	t.Helper()
	if strings.Count(text, from) != 1 {
		t.Fatalf("%q stands %d times in the policy", from, strings.Count(text, from))
	}
	return strings.Replace(text, from, to, 1)
}

// restart starts a broker on the state and at the address of one that was stopped.
func restart(t *testing.T, old *brokertest.Broker) *brokertest.Broker {
	t.Helper()
	addr := old.Addr().String()
	return brokertest.New(t, brokertest.Options{Policy: shopPolicy, Dir: old.State.Dir, Change: func(c *broker.Config) {
		quickDrain(c)
		c.Listen = addr
	}})
}

func stop(t testing.TB, b *brokertest.Broker) {
	t.Helper()
	check(t, b.Shutdown(within(t)))
}

// accountHash is how the server writes an account's name into ack subjects.
func accountHash(name string) string {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := sha256.Sum256([]byte(name))
	var b [8]byte
	for i := range b {
		b[i] = digits[int(sum[i])%len(digits)]
	}
	return string(b[:])
}

// asError reports whether err is a refusal, and keeps it.
func asError(err error, into **client.Error) bool { return err != nil && errors.As(err, into) }

// expiredPair is a self-signed certificate of yesterday, and its key, as PEM.
func expiredPair(t testing.TB) (cert, key []byte) {
	t.Helper()
	priv := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
	}
	der := must(x509.CreateCertificate(rand.Reader, tpl, tpl, &priv.PublicKey, priv))(t)
	keyDER := must(x509.MarshalPKCS8PrivateKey(priv))(t)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}
