package broker_test

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// TestReloadGrants: a grant that is added or removed is in force on a connection
// that is open, for publish, subscribe, call and bucket, without a reconnect.
func TestReloadGrants(t *testing.T) {
	b := newBroker(t)
	narrow, writer := connect(t, b, "narrow"), connect(t, b, "writer")
	lost := false
	narrow.SetDisconnectErrHandler(func(*nats.Conn, error) { lost = true })
	narrow.denied(t, "orders.us.x", "x", wire.CodePublishDenied)

	live := must(narrow.SubscribeSync("telemetry.eu.>"))(t)
	check(t, narrow.Flush())
	wider := edit(t, shopPolicy, "publish: [orders.eu.>], subscribe: [orders.eu.>, telemetry.eu.>]", "publish: [orders.eu.>, orders.us.>], subscribe: [orders.eu.>, telemetry.>], call: [billing.charge]")
	reload(t, b, wider)
	narrow.publish(t, "orders.us.x", "granted")
	us := must(narrow.SubscribeSync("telemetry.us.>"))(t)
	check(t, narrow.Flush())
	service := connect(t, b, "service")
	must(service.Subscribe("rpc.billing.charge", func(m *nats.Msg) { _ = m.Respond([]byte("ok")) }))(t)
	check(t, service.Flush())
	if m := must(narrow.Request("rpc.billing.charge", nil, patience))(t); string(m.Data) != "ok" {
		t.Errorf("call: %s", m.Data)
	}
	check(t, writer.Publish("telemetry.us.a", []byte("1")))
	must(us.NextMsg(patience))(t)

	// And away again: a live subscription ends, a publish is refused.
	reload(t, b, edit(t, shopPolicy, "subscribe: [orders.eu.>, telemetry.eu.>]", "subscribe: [orders.eu.>]"))
	narrow.denied(t, "orders.us.x", "x", wire.CodePublishDenied)
	narrow.denied(t, "rpc.billing.charge", "x", wire.CodeCallDenied)
	narrow.refused(t, wire.CodeSubscribeDenied)
	for _, s := range []string{"telemetry.us.b", "telemetry.eu.b"} {
		check(t, writer.Publish(s, []byte("secret")))
	}
	check(t, writer.Flush())
	check(t, narrow.Flush())
	for _, sub := range []*nats.Subscription{live, us} {
		if n, _, err := sub.Pending(); err == nil && n > 0 {
			t.Errorf("%s goes on after its grant", sub.Subject)
		}
	}
	if lost || !narrow.IsConnected() {
		t.Error("the connection was cut")
	}
}

// TestReloadCutsThePrincipal: a disabled or removed principal loses its connections
// at the reload, and cannot come back; nobody else is cut.
func TestReloadCutsThePrincipal(t *testing.T) {
	b := newBroker(t)
	for _, how := range []struct{ from, to string }{
		{"name: wide,", "name: wide, disabled: true,"},
		{"  - {" + wideGrant + "}\n", ""},
	} {
		reload(t, b, shopPolicy)
		wide, narrow := connect(t, b, "wide"), connect(t, b, "narrow")
		closed := wide.StatusChanged(nats.CLOSED)
		sdk := b.Client("wide")
		byHand, _ := rawTLS(t, b, b.Cred("wide"))
		byHand.send("PING\r\n")
		if l := byHand.line(); l != "PONG" {
			t.Fatal(l)
		}
		reload(t, b, edit(t, shopPolicy, how.from, how.to))
		select {
		case <-closed:
		case <-within(t).Done():
			t.Fatal("the connection goes on")
		}
		if got := byHand.rest(); !strings.HasPrefix(got, "-ERR 'User Authentication Revoked") {
			t.Errorf("it was told %q", got)
		}
		seed := must(nats.NkeyOptionFromSeed(b.Cred("wide")))(t)
		if nc, err := nats.Connect(b.URL(), seed, nats.Secure(b.TLS()), nats.NoReconnect()); err == nil {
			nc.Close()
			t.Error("it came back")
		}
		select {
		case <-sdk.Closed():
		case <-within(t).Done():
			t.Fatal("the SDK tries for ever with a revoked key")
		}
		if !errors.Is(sdk.Err(), client.ErrUnauthenticated) {
			t.Errorf("the SDK ended with %v", sdk.Err())
		}
		if narrow.publish(t, "orders.eu.x", "still here"); !narrow.IsConnected() {
			t.Error("another was cut")
		}
	}
}

// TestReloadRefusesABadPolicy: a faulty file changes nothing and every fault is
// said, with its place.
func TestReloadRefusesABadPolicy(t *testing.T) {
	var log logBuffer
	b := newBroker(t, logTo(&log))
	before := b.Policy().Digest()
	writer := connect(t, b, "writer")
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"not YAML":     {"tenant: [", []string{"policy.yaml:1"}},
		"unknown keys": {edit(t, shopPolicy, "ephemeral: [telemetry.>]\nkv: [{bucket: settings, maxBytes: 1MiB, history", "ephemral: [telemetry.>]\nkv: [{buckt: settings, maxBytes: 1MiB, history"), []string{"ephemral", "buckt", "policy.yaml:5:", "policy.yaml:6:"}},
		"bad schema":   {edit(t, shopPolicy, `"required":["id"],"properties"`, `"required":7,"properties"`), []string{"schema order"}},
		"too large":    {edit(t, shopPolicy, "{name: PAYMENTS, subjects: [payments.>], maxBytes: 16MiB}", "{name: PAYMENTS, subjects: [payments.>], maxBytes: 900GiB}"), []string{"storage.maxBytes"}},
		"would lose": {
			edit(t, shopPolicy, "{bucket: settings, maxBytes: 1MiB, history: 5}, {bucket: secrets", "{bucket: settings, maxBytes: 1MiB, history: 5}, {bucket: other, maxBytes: 1MiB, history: 65}, {bucket: secrets"),
			[]string{"history"},
		},
		"empty": {"", []string{"policy"}},
	} {
		t.Run(name, func(t *testing.T) {
			replacePolicy(t, b, c.text)
			err := b.Reload(within(t))
			if err == nil {
				t.Fatal("no error")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("the error does not have %q: %v", w, err)
				}
			}
			if got := b.Policy().Digest(); got != before {
				t.Errorf("the policy is %s", got)
			}
			writer.publish(t, "orders.eu.x", "as before")
		})
	}
	if !strings.Contains(log.String(), "reload refused, nothing changed") {
		t.Error("the log does not say so")
	}
	// A missing file is a fault as well.
	check(t, os.Remove(b.State.Policy))
	if err := b.Reload(within(t)); err == nil || b.Policy().Digest() != before {
		t.Errorf("without a file: %v", err)
	}
}

// TestReloadOnFileChange: an edit is in force without anybody asking, and so is the
// next one.
func TestReloadOnFileChange(t *testing.T) {
	b := newBroker(t)
	narrow := connect(t, b, "narrow")
	for _, from := range []string{"publish: [orders.eu.>]", "publish: [orders.eu.>, orders.us.>]"} {
		digest := b.Policy().Digest()
		text := strings.Replace(shopPolicy, "publish: [orders.eu.>]", strings.Replace(from, "]", ", orders.x.>]", 1), 1)
		replacePolicy(t, b, text)
		eventually(t, "reload", func() bool { return b.Policy().Digest() != digest })
	}
	eventually(t, "grant", func() bool {
		p, _ := narrow.ask(t, "orders.x.y", "x")
		return p == nil
	})
}

// TestReloadCertificate: new connections get the new certificate, open ones stay.
func TestReloadCertificate(t *testing.T) {
	b := newBroker(t)
	writer := connect(t, b, "writer")
	serial := func() string {
		conn := must(tls.Dial("tcp", b.Addr().String(), b.TLS()))(t)
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	old := serial()
	authority := must(ca.Load(b.State.CADir))(t)
	check(t, authority.IssueServer(b.State.Cert, b.State.Key, nil, 0))
	check(t, b.Reload(within(t)))
	if serial() == old {
		t.Error("the old certificate is served")
	}
	writer.publish(t, "orders.eu.x", "still here")

	// A broken certificate changes nothing.
	good := serial()
	check(t, os.WriteFile(b.State.Cert, []byte("-----BEGIN CERTIFICATE-----\n"), 0o600))
	if err := b.Reload(within(t)); err == nil {
		t.Error("a broken certificate was taken")
	}
	if serial() != good {
		t.Error("another certificate is served")
	}
}

// signRing writes a keyring that holds the node's key and more.
func signRing(t *testing.T, b *brokertest.Broker, version uint64, keys ...keyring.Key) {
	t.Helper()
	node := must(nkeys.FromSeed(trimmed(t, b.State.NodeSeed)))(t)
	now := time.Now()
	keys = append(keys, keyring.Key{
		ID: must(node.PublicKey())(t), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "test", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	})
	ring := must(keyring.New(version, now.Add(-time.Minute), now.Add(time.Hour), keys))(t)
	doc := must(ring.Sign(trimmed(t, b.State.RootSeed)))(t)
	check(t, os.WriteFile(b.State.Keyring, doc, 0o600))
}

func trimmed(t testing.TB, file string) []byte {
	t.Helper()
	return []byte(strings.TrimSpace(string(must(os.ReadFile(file))(t))))
}

// TestReloadKeyring: a new keyring and node key are in force at a reload, readers
// get it; an older one is passed over, and one by another root is refused.
func TestReloadKeyring(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	writer, reader := b.Client("writer"), b.Client("wide")
	got := make(chan *client.Delivery, 4)
	must(reader.Subscribe(ctx, "orders.>", func(_ context.Context, d *client.Delivery) error { got <- d; return nil }, client.InStream("ORDERS")))(t)
	must(writer.Publish(ctx, "orders.eu.x", client.NewEvent("t", nil)))(t)
	first := (<-got).Attestation.KeyID

	// Rotation: the old node key stays in the ring for what it has signed.
	now := time.Now()
	old := must(nkeys.FromSeed(trimmed(t, b.State.NodeSeed)))(t)
	next := must(nkeys.CreateServer())(t)
	check(t, os.WriteFile(b.State.NodeSeed, must(next.Seed())(t), 0o600))
	retired := keyring.Key{
		ID: must(old.PublicKey())(t), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "test", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	version := uint64(now.Unix()) + 10
	signRing(t, b, version, retired)
	check(t, b.Reload(ctx))
	must(writer.Publish(ctx, "orders.eu.x", client.NewEvent("t", nil)))(t)
	if second := (<-got).Attestation.KeyID; second == first || second != must(next.PublicKey())(t) {
		t.Errorf("attested by %s after %s", second, first)
	}

	// Back to an older version: somebody brings a revoked key back.
	signRing(t, b, version-1, retired)
	if err := b.Reload(ctx); err != nil || broker.RingVersion(b.Broker) != version {
		t.Errorf("an older keyring: version %d (%v), want %d", broker.RingVersion(b.Broker), err, version)
	}
	// Another root, and a ring without the node key.
	good := b.State.RootSeed
	b.State.RootSeed = b.State.Dir + "/other.seed"
	check(t, os.WriteFile(b.State.RootSeed, must(must(nkeys.CreateOperator())(t).Seed())(t), 0o600))
	signRing(t, b, version+1, retired)
	if err := b.Reload(ctx); err == nil {
		t.Error("a keyring of another root was taken")
	}
	b.State.RootSeed = good
	signRing(t, b, version+1)
	check(t, os.WriteFile(b.State.NodeSeed, must(old.Seed())(t), 0o600))
	if err := b.Reload(ctx); err == nil || !strings.Contains(err.Error(), "not in the keyring") {
		t.Errorf("a node key outside of the keyring: %v", err)
	}
	must(writer.Publish(ctx, "orders.eu.x", client.NewEvent("t", nil)))(t)
	if (<-got).Attestation.KeyID != must(next.PublicKey())(t) {
		t.Error("a refused reload changed the key")
	}
}

// TestReloadNewTenant: a tenant that a reload adds works at once, and the open
// connections of the others stay open.
func TestReloadNewTenant(t *testing.T) {
	b := newBroker(t)
	writer := connect(t, b, "writer")
	reload(t, b, shopPolicy+`---
tenant: bakery
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
deadLetter: {maxBytes: 4MiB}
principals:
  - {name: baker, identities: [{nkey: '{{nkey "baker"}}'}], publish: [orders.>], subscribe: [orders.>], admin: [status]}
`)
	baker := connect(t, b, "baker")
	if seq := baker.publish(t, "orders.bread", "bread"); seq != 1 {
		t.Errorf("sequence %d", seq)
	}
	if p, _ := baker.ask(t, "$SIGNET.API.status.get", nil); p != nil {
		t.Errorf("status: %+v", p)
	}
	c := must(baker.js(t).CreateConsumer(within(t), "ORDERS", jetstream.ConsumerConfig{}))(t)
	if m := must(c.Next(jetstream.FetchMaxWait(patience)))(t); string(m.Data()) != "bread" {
		t.Errorf("%q", m.Data())
	}
	writer.publish(t, "orders.eu.x", "x")
	if writer.Reconnects != 0 {
		t.Error("the others were cut")
	}
	// It leaves again: its principals are cut, its data stays.
	closed := baker.StatusChanged(nats.CLOSED)
	reload(t, b, shopPolicy)
	select {
	case <-closed:
	case <-within(t).Done():
		t.Error("a principal of a removed tenant goes on")
	}
	writer.publish(t, "orders.eu.x", "x")
}
