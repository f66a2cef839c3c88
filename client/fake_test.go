package client

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// fakeBroker speaks just enough of the NATS protocol, over TLS first, to answer
// one client at a time by a script.
type fakeBroker struct {
	t      *testing.T
	ln     net.Listener
	nonce  string
	script func(p published) // answers through reply and deliver
	roots  string            // PEM file
	root   string            // public root key
	seed   string            // client seed file
	signer *signing.Signer
	ring   []byte
	wg     sync.WaitGroup
	once   sync.Once  // starts the listener, so that a test can set the above first
	turn   sync.Mutex // held by script; see look

	mu   sync.Mutex
	conn net.Conn
	subs map[string]string // sid -> subject
	deny string            // a SUB of this is answered by -ERR
}

type published struct {
	subject, reply string
	header         string
	data           []byte
}

func testSeed(t *testing.T, prefix nkeys.PrefixByte) (seed []byte, public string) {
	t.Helper()
	kp, err := nkeys.CreatePair(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if seed, err = kp.Seed(); err != nil {
		t.Fatal(err)
	}
	if public, err = kp.PublicKey(); err != nil {
		t.Fatal(err)
	}
	return seed, public
}

func newFakeBroker(t *testing.T) *fakeBroker {
	t.Helper()
	f := &fakeBroker{t: t, nonce: "abcdefghijklmn_", subs: map[string]string{}, script: func(published) {}}
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	f.roots = filepath.Join(dir, "ca.pem")
	writeFile(t, f.roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if f.ln, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}); err != nil {
		t.Fatal(err)
	}
	user, _ := testSeed(t, nkeys.PrefixByteUser)
	f.seed = filepath.Join(dir, "user.nk")
	writeFile(t, f.seed, user)
	f.keys()
	t.Cleanup(func() {
		_ = f.ln.Close()
		f.drop()
		f.wg.Wait()
	})
	return f
}

// keys makes the root, the broker's attestation key and the keyring.
func (f *fakeBroker) keys() {
	f.t.Helper()
	rootSeed, root := testSeed(f.t, nkeys.PrefixByteOperator)
	node, public := testSeed(f.t, nkeys.PrefixByteServer)
	now := time.Now()
	ring, err := keyring.New(1, now.Add(-time.Minute), now.Add(time.Hour), []keyring.Key{{
		ID: public, Alg: "ed25519", Role: "broker", Principal: "node-1", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}})
	if err != nil {
		f.t.Fatal(err)
	}
	if f.ring, err = ring.Sign(rootSeed); err != nil {
		f.t.Fatal(err)
	}
	if f.signer, err = signing.NewSigner(node); err != nil {
		f.t.Fatal(err)
	}
	f.root = root
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeBroker) url() string {
	f.once.Do(func() { f.wg.Go(f.accept) })
	return "tls://" + f.ln.Addr().String()
}

// look runs fn while no script runs, to read what one wrote.
func (f *fakeBroker) look(fn func()) {
	f.turn.Lock()
	defer f.turn.Unlock()
	fn()
}

func (f *fakeBroker) options(more ...Option) []Option {
	return append([]Option{
		WithNkeySeedFile(f.seed), WithTLSRoots(f.roots), WithRoot(f.root),
		WithReconnectWait(time.Millisecond), WithTimeout(3 * time.Second),
	}, more...)
}

func (f *fakeBroker) connect(more ...Option) *Client {
	f.t.Helper()
	c, err := Connect(context.Background(), f.url(), f.options(more...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(c.Close)
	return c
}

func (f *fakeBroker) drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		_ = f.conn.Close()
	}
}

func (f *fakeBroker) accept() {
	for {
		conn, err := f.ln.Accept()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.conn, f.subs = conn, map[string]string{}
		f.mu.Unlock()
		f.wg.Go(func() { f.serve(conn); _ = conn.Close() })
	}
}

func (f *fakeBroker) serve(conn net.Conn) {
	info := fmt.Sprintf(`INFO {"server_id":"x","version":"2.15.2","headers":true,"max_payload":1048576,"nonce":%q,"auth_required":true,"tls_required":true}`+"\r\n", f.nonce)
	if _, err := io.WriteString(conn, info); err != nil {
		return
	}
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		w := strings.Fields(line)
		if len(w) == 0 {
			continue
		}
		switch w[0] {
		case "PING":
			f.write("PONG\r\n")
		case "SUB":
			f.mu.Lock()
			denied := w[1] == f.deny
			f.subs[w[len(w)-1]] = w[1]
			f.mu.Unlock()
			if denied {
				f.write(`-ERR 'Permissions Violation for Subscription to "` + w[1] + `" (40102 ref r7)'` + "\r\n")
			}
		case "UNSUB":
			f.mu.Lock()
			delete(f.subs, w[1])
			f.mu.Unlock()
		case "PUB", "HPUB":
			total, _ := strconv.Atoi(w[len(w)-1])
			body := make([]byte, total+2)
			if _, err := io.ReadFull(r, body); err != nil {
				return
			}
			f.publish(w, body[:total])
		}
	}
}

func (f *fakeBroker) publish(w []string, body []byte) {
	p := published{subject: w[1], data: body}
	sizes := 1
	if w[0] == "HPUB" {
		n, _ := strconv.Atoi(w[len(w)-2])
		p.header, p.data, sizes = string(body[:n]), body[n:], 2
	}
	if len(w) > 2+sizes {
		p.reply = w[2]
	}
	if p.subject == adminapi.SubjectKeysRing {
		b, _ := adminapi.EncodeResult(adminapi.KeyRing{Document: f.ring, Caller: "shop/reader"})
		f.deliver(p.reply, "", "", b)
		return
	}
	f.look(func() { f.script(p) })
}

func (f *fakeBroker) write(s string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, _ = io.WriteString(f.conn, s) // a client that has gone is part of the tests
}

func (f *fakeBroker) deliver(subject, reply, header string, data []byte) {
	f.deliverTo(subject, subject, reply, header, data)
}

// deliverTo sends to the subscription of inbox a message that is on subject.
func (f *fakeBroker) deliverTo(inbox, subject, reply, header string, data []byte) {
	f.mu.Lock()
	sid := ""
	for id, filter := range f.subs {
		if wire.Match(filter, inbox) {
			sid = id
		}
	}
	f.mu.Unlock()
	if header == "" {
		f.write(fmt.Sprintf("MSG %s %s %s %d\r\n%s\r\n", subject, sid, reply, len(data), data))
		return
	}
	f.write(fmt.Sprintf("HMSG %s %s %s %d %d\r\n%s%s\r\n", subject, sid, reply, len(header), len(header)+len(data), header, data))
}

// attested returns the header block of an event as a broker would store it.
func (f *fakeBroker) attested(id, natsSubject string, data []byte) string {
	e := &cloudevent.Event{
		ID: []byte(id), Source: []byte("/shop/checkout"), Type: []byte("com.example.order"),
		ContentType: []byte("application/json"), Time: []byte("2026-01-02T03:04:05Z"), Data: data,
	}
	e.SetExt([]byte("authid"), []byte("shop/checkout"))
	e.SetExt([]byte("authtype"), []byte(wire.DefaultAuthType))
	e.SetExt([]byte("recordedtime"), signing.AppendRecordedTime(nil, time.Now()))
	e.SetExt([]byte("region"), []byte("north sea"))
	var b signing.Batch
	i := b.Add(e, []byte(natsSubject))
	b.Sign(f.signer)
	e.SetExt([]byte("attestation"), b.AppendAttestation(nil, i))
	return wire.HeaderLine + string(cloudevent.AppendHeaders(nil, e)) + "\r\n"
}

// jetstream answers the API calls of one subscription to ORDERS, and each pull
// by deliver, which gets the inbox and how many were asked for.
func (f *fakeBroker) jetstream(p published, deliver func(inbox string, batch int)) bool {
	verb, ok := strings.CutPrefix(p.subject, wire.PrefixJSAPI)
	if !ok {
		return false
	}
	switch {
	case verb == "STREAM.NAMES":
		f.deliver(p.reply, "", "", []byte(`{"streams":["ORDERS"]}`))
	case strings.HasPrefix(verb, "CONSUMER.INFO."):
		f.deliver(p.reply, "", "", []byte(`{"error":{"code":404,"err_code":10014,"description":"consumer not found"}}`))
	case strings.HasPrefix(verb, "CONSUMER.CREATE."):
		var r createRequest
		if err := json.Unmarshal(p.data, &r); err != nil {
			f.t.Error(err)
		}
		b, _ := json.Marshal(map[string]any{"name": r.Config.Name, "config": r.Config})
		f.deliver(p.reply, "", "", b)
	case strings.HasPrefix(verb, "CONSUMER.DELETE."):
		f.deliver(p.reply, "", "", []byte(`{"success":true}`))
	case strings.HasPrefix(verb, "CONSUMER.MSG.NEXT."):
		var r struct {
			Batch int `json:"batch"`
		}
		if err := json.Unmarshal(p.data, &r); err != nil {
			f.t.Error(err)
		}
		deliver(p.reply, r.Batch)
	}
	return true
}
