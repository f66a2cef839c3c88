package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/freeport"
)

// TestDrainLosesNothing: everything that was acknowledged up to a shutdown under
// load is stored, in both clients' books, and clients come back by themselves to a
// broker that is started on the same state.
func TestDrainLosesNothing(t *testing.T) {
	policy := edit(t, shopPolicy, "{name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}\n  - {name: PAYMENTS", "{name: ORDERS, subjects: [orders.>], maxBytes: 256MiB}\n  - {name: PAYMENTS")
	b := newBroker(t, func(o *brokertest.Options) { o.Policy = policy })
	ctx := within(t)
	plain := connect(t, b, "writer", reconnects)
	sdk := b.Client("writer", client.WithReconnectWait(10*time.Millisecond))
	js := must(jetstream.New(plain.Conn, jetstream.WithPublishAsyncMaxPending(256), jetstream.WithPublishAsyncTimeout(3*time.Second)))(t)

	// Both publish until the connection goes; what is acknowledged is kept. The plain
	// one's goroutine alone writes the map until it is done.
	acked := map[string]bool{}
	var plainAcked, sdkAcked atomic.Int64
	var over atomic.Bool
	type receipt struct {
		id  string
		ack jetstream.PubAckFuture
	}
	var receipts []receipt
	plainDone, sdkDone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(plainDone)
		for i := 0; !over.Load(); i++ {
			id := fmt.Sprintf("plain-%d", i)
			f, err := js.PublishAsync("orders.eu.x", []byte(id))
			if err != nil {
				return
			}
			if i%64 < 63 {
				receipts = append(receipts, receipt{id, f})
				continue
			}
			select { // bounds how much there is to read back
			case <-f.Ok():
				acked[id] = true
				plainAcked.Add(64) // answers come in order: so were those before it
			case <-f.Err(): //nolint:errcheck // a channel: the connection went
			}
		}
	}()
	var sdkIDs []string
	go func() {
		defer close(sdkDone)
		for i := 0; !over.Load(); i++ {
			id := fmt.Sprintf("sdk-%d", i)
			if _, err := sdk.Publish(ctx, "orders.eu.x", &client.Event{ID: id, Type: "t", Data: []byte(id)}, client.WithoutRetry()); err != nil {
				return
			}
			sdkIDs = append(sdkIDs, id)
			sdkAcked.Add(1)
		}
	}()
	eventually(t, "load", func() bool { return plainAcked.Load() > 300 && sdkAcked.Load() > 20 })
	stop(t, b)
	over.Store(true)
	b = restart(t, b)
	eventually(t, "both clients back", func() bool { return plain.IsConnected() && sdk.Connected() })
	<-plainDone
	<-sdkDone // what was without an answer is sent again over the new connection
	for _, r := range receipts {
		select {
		case <-r.ack.Ok():
			acked[r.id] = true
		case <-r.ack.Err(): //nolint:errcheck // a channel: refused, so not acknowledged
		case <-ctx.Done():
			t.Fatalf("no answer for %s of %d (pending %d)", r.id, len(receipts), js.PublishAsyncPending())
		}
	}
	for _, id := range sdkIDs {
		acked[id] = true
	}

	last := must(plain.js(t).Publish(ctx, "orders.eu.last", nil))(t).Sequence
	must(sdk.Publish(ctx, "orders.eu.x", client.NewEvent("t", nil)))(t)
	stored := map[string]bool{}
	c := must(connect(t, b, "wide").js(t).OrderedConsumer(ctx, "ORDERS", jetstream.OrderedConsumerConfig{}))(t)
	for n := uint64(0); n < last; {
		batch := must(c.Fetch(int(min(500, last-n)), jetstream.FetchMaxWait(patience)))(t)
		for m := range batch.Messages() {
			stored[string(m.Data())] = true
			n++
		}
		check(t, batch.Error())
	}
	if len(acked) < 300 {
		t.Errorf("only %d were acknowledged", len(acked))
	}
	for id := range acked {
		if !stored[id] {
			t.Errorf("%s was acknowledged and is not stored", id)
		}
	}
}

// TestRestartKeepsSubscriptions: subscriptions of both clients go on over a restart
// of the broker: durable ones where they were, live ones from then on.
func TestRestartKeepsSubscriptions(t *testing.T) {
	b := newBroker(t)
	ctx := within(t)
	writer := b.Client("writer", client.WithReconnectWait(10*time.Millisecond))
	wide := b.Client("wide", client.WithReconnectWait(10*time.Millisecond))
	plain := connect(t, b, "wide", reconnects)
	stored, live := make(chan *client.Delivery, 64), make(chan *client.Delivery, 64)
	keep := func(ch chan *client.Delivery) client.Handler {
		return func(_ context.Context, d *client.Delivery) error { ch <- d; return nil }
	}
	must(wide.Subscribe(ctx, "orders.>", keep(stored), client.Durable("d")))(t)
	must(wide.SubscribeLive(ctx, "telemetry.>", keep(live)))(t)
	raw := must(plain.SubscribeSync("telemetry.>"))(t)
	check(t, plain.Flush())
	must(writer.Publish(ctx, "orders.eu.one", client.NewEvent("t", nil)))(t)
	if d := <-stored; d.NATSSubject != "orders.eu.one" {
		t.Fatal(d.NATSSubject)
	}
	// Settled for the broker too, before it goes.
	c := must(insideJS(t, b, "shop").Consumer(ctx, "ORDERS", "d"))(t)
	eventually(t, "ack", func() bool { return must(c.Info(ctx))(t).AckFloor.Stream == 1 })

	stop(t, b)
	b = restart(t, b)
	eventually(t, "clients back", func() bool { return writer.Connected() && wide.Connected() && plain.IsConnected() })
	check(t, plain.Flush())
	if ack := must(writer.Publish(ctx, "orders.eu.two", client.NewEvent("t", nil)))(t); ack.Sequence != 2 {
		t.Errorf("sequence %d after the restart", ack.Sequence)
	}
	select {
	case d := <-stored:
		if d.NATSSubject != "orders.eu.two" || d.Sequence != 2 {
			t.Errorf("the durable goes on with %s, %d", d.NATSSubject, d.Sequence)
		}
	case <-ctx.Done():
		t.Fatal("the durable does not go on")
	}
	// The SDK's live subscription may come back a moment after its connection.
	eventually(t, "live subscriptions", func() bool {
		check(t, writer.PublishLive(ctx, "telemetry.a", client.NewEvent("t", nil)))
		n, _, _ := raw.Pending()
		return len(live) > 0 && n > 0
	})
	_ = b
}

// TestNoGoroutineIsLeft: a broker with clients of all kinds leaves nothing behind,
// though its clients do not leave first.
func TestNoGoroutineIsLeft(t *testing.T) {
	before := goleak.IgnoreCurrent()
	b := newBroker(t)
	ctx := within(t)
	wide := connect(t, b, "wide")
	sdk := b.Client("wide")
	must(sdk.Subscribe(ctx, "orders.>", func(context.Context, *client.Delivery) error { return nil }))(t)
	must(wide.Subscribe("telemetry.>", func(*nats.Msg) {}))(t)
	half := dialRaw(t, b) // says nothing
	r, _ := rawTLS(t, b, b.Cred("writer"))
	r.send("PUB orders.eu.x 1000\r\nhalf of it")
	poll := make(chan error, 1)
	root := admin.New(b.Client("root"))
	asking, cancel := context.WithCancel(ctx)
	go func() {
		_, err := root.Refusals(asking, admin.RefusalsQuery{}, 15*time.Second)
		poll <- err
	}()
	wide.publish(t, "orders.eu.x", "x")
	stop(t, b)
	cancel()
	if err := <-poll; err == nil {
		t.Error("the long poll of an ended broker has an answer")
	}
	sdk.Close()
	wide.Close()
	_, _ = half.Close(), r.Close()
	if err := goleak.Find(before); err != nil {
		// The test's own clients and helpers end with it; only the product counts.
		if strings.Contains(err.Error(), "signet/broker/") || strings.Contains(err.Error(), "nats-server") {
			t.Error(err)
		}
	}
	if err := b.Shutdown(ctx); !errors.Is(err, broker.ErrNotReady) {
		t.Errorf("a second shutdown: %v", err)
	}
	if err := b.Start(ctx); !errors.Is(err, broker.ErrStarted) {
		t.Errorf("a second start: %v", err)
	}
}

// TestServerEndEndsTheBroker: a broker whose embedded server is gone is gone, so
// that a supervisor sees it.
func TestServerEndEndsTheBroker(t *testing.T) {
	b := newBroker(t)
	p := connect(t, b, "writer")
	closed := p.StatusChanged(nats.CLOSED)
	check(t, b.EndServer(within(t)))
	for what, ch := range map[string]<-chan struct{}{"broker": b.Done()} {
		select {
		case <-ch:
		case <-within(t).Done():
			t.Fatalf("the %s goes on", what)
		}
	}
	select {
	case <-closed:
	case <-within(t).Done():
		t.Fatal("the client was not cut")
	}
}

// newState is the files of a broker that was not started.
func newState(t *testing.T) (broker.Config, *broker.State) {
	t.Helper()
	st, err := broker.Setup{Dir: t.TempDir(), Name: "test", Listen: "127.0.0.1:0", Policy: shopPolicy, Encrypt: true}.Run()
	check(t, err)
	cfg := must(broker.LoadConfig(st.Config, nil))(t)
	cfg.Ops.Listen, cfg.Drain = "127.0.0.1:0", 5*time.Second
	return cfg, st
}

// TestRefusesToStart: a broker runs whole or not at all, says why, and leaves
// nothing behind: the same state then starts.
func TestRefusesToStart(t *testing.T) {
	busy := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer busy.Close()
	for name, c := range map[string]struct {
		spoil func(*testing.T, *broker.Config, *broker.State)
		want  string
		early bool // Check finds it too
	}{
		"no certificate":  {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Remove(st.Cert)) }, "server.pem", true},
		"no key":          {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Remove(st.Key)) }, "server.key", true},
		"open server key": {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Chmod(st.Key, 0o644)) }, "server.key", true},
		"another's key": {func(t *testing.T, _ *broker.Config, st *broker.State) {
			_, other := newState(t)
			check(t, os.WriteFile(st.Key, must(os.ReadFile(other.Key))(t), 0o600))
		}, "match", true},
		"no policy":          {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Remove(st.Policy)) }, "policy.yaml", true},
		"world-readable key": {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Chmod(st.NodeSeed, 0o644)) }, "mode 0644", true},
		"group-readable key": {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Chmod(st.NodeSeed, 0o640)) }, "mode 0640", true},
		"no node key":        {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Remove(st.NodeSeed)) }, "node key", true},
		"node key not in the keyring": {func(t *testing.T, _ *broker.Config, st *broker.State) {
			check(t, os.WriteFile(st.NodeSeed, must(must(nkeys.CreateServer())(t).Seed())(t), 0o600))
		}, "not in the keyring", true},
		"keyring of another root": {func(t *testing.T, cfg *broker.Config, _ *broker.State) {
			cfg.Keys.Root = must(must(nkeys.CreateOperator())(t).PublicKey())(t)
		}, "keyring", true},
		"no keyring":         {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Remove(st.Keyring)) }, "keyring", true},
		"more than there is": {func(_ *testing.T, cfg *broker.Config, _ *broker.State) { cfg.Storage.MaxBytes = 16 << 20 }, "storage.maxBytes", true},
		"client port in use": {func(_ *testing.T, cfg *broker.Config, _ *broker.State) { cfg.Listen = busy.Addr().String() }, "gate", false},
		"ops port in use":    {func(_ *testing.T, cfg *broker.Config, _ *broker.State) { cfg.Ops.Listen = busy.Addr().String() }, "operations port", false},
		"state is a file":    {func(t *testing.T, cfg *broker.Config, _ *broker.State) { check(t, os.WriteFile(cfg.State, nil, 0o600)) }, "guards", true},
		"no store key":       {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Remove(st.StoreKey)) }, "storage.encryption.keyFile", true},
		"open store key":     {func(t *testing.T, _ *broker.Config, st *broker.State) { check(t, os.Chmod(st.StoreKey, 0o604)) }, "mode 0604", true},
		"no random store key": {func(t *testing.T, _ *broker.Config, st *broker.State) {
			check(t, os.WriteFile(st.StoreKey, []byte("hunter2"), 0o600))
		}, "openssl rand", true},
		"state of another":    {lockState, "server", false},
		"expired certificate": {expire, "server.pem", true},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, st := newState(t)
			c.spoil(t, &cfg, st)
			b := must(broker.New(cfg, "test", zerolog.Nop()))(t)
			if err := b.Check(within(t)); (err != nil) != c.early {
				t.Errorf("check: %v", err)
			}
			err := b.Start(within(t))
			if err == nil {
				_ = b.Shutdown(within(t))
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error does not have %q: %v", c.want, err)
			}
			select {
			case <-b.Done():
			default:
				t.Error("it is not done")
			}
		})
	}
	cfg, _ := newState(t)
	for range 2 { // also after itself
		b := must(broker.New(cfg, "test", zerolog.Nop()))(t)
		check(t, b.Start(within(t)))
		check(t, b.Shutdown(within(t)))
	}
}

// lockState holds the state folder as another broker does.
func lockState(t *testing.T, cfg *broker.Config, _ *broker.State) {
	other := *cfg
	b := must(broker.New(other, "test", zerolog.Nop()))(t)
	check(t, b.Start(within(t)))
	t.Cleanup(func() { check(t, b.Shutdown(within(t))) })
}

// TestConfigWithoutTLSOrDevOutside: there is no configuration without TLS or
// identity, and dev is for loopback.
func TestConfigWithoutTLSOrDevOutside(t *testing.T) {
	cfg, _ := newState(t)
	for name, spoil := range map[string]func(*broker.Config){
		"tls.certificate": func(c *broker.Config) { c.TLS.Certificate = "" },
		"tls.key":         func(c *broker.Config) { c.TLS.Key = "" },
		"keys.root":       func(c *broker.Config) { c.Keys.Root = "" },
		"policy":          func(c *broker.Config) { c.Policy = nil },
		"loopback only":   func(c *broker.Config) { c.Dev, c.Listen = true, "0.0.0.0:4222" },
		"durability":      func(c *broker.Config) { c.Storage.Durability = "never" },
		"maxPayload":      func(c *broker.Config) { c.Gate.MaxPayload = 1 << 30 },
	} {
		bad := cfg
		spoil(&bad)
		if _, err := broker.New(bad, "test", zerolog.Nop()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOperationsPort: probes and metrics answer, and say when the broker drains.
func TestOperationsPort(t *testing.T) {
	b := newBroker(t)
	connect(t, b, "narrow").denied(t, "orders.us.x", "x", 40101)
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get("http://" + b.OpsAddr().String() + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		return resp.StatusCode, string(must(io.ReadAll(resp.Body))(t))
	}
	for _, p := range []string{"/livez", "/readyz", "/startupz"} {
		if code, body := get(p); code != http.StatusOK || body != "ok\n" {
			t.Errorf("%s: %d %s", p, code, body)
		}
	}
	code, body := get("/metrics")
	for _, want := range []string{
		"signet_gate_connections 1", `signet_refusals_total{code="40101",name="PublishDenied"} 1`, "signet_certificate_expiry_seconds",
		"signet_attestation_expiry_seconds", `signet_store_bytes{tenant="shop",what="limit"}`, "signet_barrier_syncs_total", "go_goroutines",
	} {
		if code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
	for _, p := range []string{"/", "/debug/pprof/", "/varz", "/connz", "/jsz"} {
		if code, _ := get(p); code != http.StatusNotFound {
			t.Errorf("%s: %d", p, code)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestScrapeDuringTheStart: probes and metrics may be asked from the first moment.
func TestScrapeDuringTheStart(t *testing.T) {
	cfg, _ := newState(t)
	cfg.Ops.Listen = must(freeport.Addr())(t)
	b := must(broker.New(cfg, "test", zerolog.Nop()))(t)
	started := make(chan error, 1)
	go func() { started <- b.Start(within(t)) }()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for done := false; !done; {
		select {
		case err := <-started:
			check(t, err)
			done = true
		default:
		}
		for _, p := range []string{"/metrics", "/readyz", "/startupz", "/livez"} {
			if resp, err := c.Get("http://" + cfg.Ops.Listen + p); err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		}
	}
	check(t, b.Shutdown(within(t)))
}

// TestDurabilityModes: each mode stores, and status says which one it is; the
// unsafe one also as a part that is not in order.
func TestDurabilityModes(t *testing.T) {
	for _, mode := range []broker.Durability{broker.DurabilityBarrier, broker.DurabilitySyncAlways, broker.DurabilityUnsafeLazy} {
		t.Run(string(mode), func(t *testing.T) {
			var log logBuffer
			b := newBroker(t, logTo(&log), func(o *brokertest.Options) { o.Durability = mode })
			if ack, err := b.Client("writer").Publish(within(t), "orders.eu.x", client.NewEvent("t", nil)); err != nil || ack.Sequence != 1 {
				t.Fatalf("%+v, %v", ack, err)
			}
			s := must(admin.New(b.Client("root")).Status(within(t)))(t)
			if s.Server.Durability != string(b.Durability()) {
				t.Errorf("status says %s", s.Server.Durability)
			}
			unsafe := false
			for _, h := range s.Health {
				unsafe = unsafe || h.Part == "durability" && !h.OK
			}
			if want := mode == broker.DurabilityUnsafeLazy; unsafe != want || strings.Contains(log.String(), "unsafe-lazy-sync is on") != want {
				t.Errorf("unsafe %v: %+v", unsafe, s.Health)
			}
		})
	}
}

// TestNothingIsReadableByOthers: secrets and events on disk are their owner's.
func TestNothingIsReadableByOthers(t *testing.T) {
	syscall.Umask(syscall.Umask(0o022))
	b := newBroker(t)
	connect(t, b, "writer").publish(t, "orders.eu.x", "x")
	cfg := must(broker.LoadConfig(b.State.Config, nil))(t)
	for _, dir := range []string{cfg.State, filepath.Dir(b.State.NodeSeed), filepath.Dir(b.Cred("writer")), b.State.CADir} {
		info := must(os.Stat(dir))(t)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %04o", dir, info.Mode().Perm())
		}
	}
	for _, file := range []string{b.State.NodeSeed, b.State.RootSeed, b.Cred("writer"), b.State.Key, filepath.Join(b.State.CADir, "ca.key")} {
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", file, info, err)
		}
	}
}

// expire puts a certificate in place that has run out.
func expire(t *testing.T, _ *broker.Config, st *broker.State) {
	t.Helper()
	cert, key := expiredPair(t)
	check(t, os.WriteFile(st.Cert, cert, 0o600))
	check(t, os.WriteFile(st.Key, key, 0o600))
}
