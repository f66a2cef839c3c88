package broker_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

// TestForgedAcksAreNeverBelieved: whoever may read a stream sees each event as it is
// published, and must not be able to answer its publisher in the stream's name: not
// with an acknowledgement, with or without headers, and not with an error.
func TestForgedAcksAreNeverBelieved(t *testing.T) {
	b := newBroker(t)
	const n = 100
	const forged = 999999
	var seen, handed atomic.Int64
	for i, text := range []string{
		fmt.Sprintf(`{"stream":"ORDERS","seq":%d}`, forged),
		`{"error":{"code":400,"err_code":10077,"description":"maximum bytes exceeded"}}`,
	} {
		evil := connect(t, b, []string{"wide", "narrow"}[i])
		_, err := evil.Subscribe("orders.eu.>", func(m *nats.Msg) {
			seen.Add(1)
			if m.Reply != "" {
				handed.Add(1)
			}
			for _, to := range []string{m.Reply, m.Header.Get("Nats-Reply")} {
				_ = evil.Publish(to, []byte(text))
				_ = evil.PublishMsg(&nats.Msg{Subject: to, Header: nats.Header{"x": {"1"}}, Data: []byte(text)})
			}
		})
		check(t, err)
		check(t, evil.Flush())
	}
	sdk, plain := b.Client("writer"), connect(t, b, "writer").js(t)
	for i := range n {
		a, err := sdk.Publish(within(t), "orders.eu.x", &client.Event{Data: []byte("hi")})
		if err != nil || a.Sequence != uint64(2*i+1) {
			t.Fatalf("by SDK, event %d: %+v, %v", i, a, err)
		}
		p, err := plain.Publish(within(t), "orders.eu.x", []byte("hi"))
		if err != nil || p.Sequence != uint64(2*i+2) {
			t.Fatalf("by nats.go, event %d: %+v, %v", i, p, err)
		}
	}
	eventually(t, "both readers see all events", func() bool { return seen.Load() == 4*n })
	if h := handed.Load(); h != 0 {
		t.Errorf("%d of %d events came with the publisher's inbox", h, 4*n)
	}
}

// TestRequestsStillHaveReplies: who is asked may answer, more than once.
func TestRequestsStillHaveReplies(t *testing.T) {
	b := newBroker(t)
	server, caller := connect(t, b, "service"), connect(t, b, "caller")
	_, err := server.Subscribe("rpc.billing.pay", func(m *nats.Msg) {
		for i := range 2000 { // a stream of answers
			_ = m.Respond(fmt.Append(nil, i))
		}
	})
	check(t, err)
	check(t, server.Flush())
	inbox := caller.NewInbox()
	sub := must(caller.SubscribeSync(inbox))(t)
	check(t, caller.PublishRequest("rpc.billing.pay", inbox, nil))
	for i := range 2000 {
		m, err := sub.NextMsgWithContext(within(t))
		if err != nil || string(m.Data) != fmt.Sprint(i) {
			t.Fatalf("answer %d: %v %v", i, m, err)
		}
	}
}

// TestClientsThatVanishInABatch: clients that are gone while their batch is flushed
// (for an owner look-up, or for a limit that says wait) leave the broker as it was.
func TestClientsThatVanishInABatch(t *testing.T) {
	log := &lockedLog{}
	b := newBroker(t, func(o *brokertest.Options) {
		o.Log = log
		o.Policy = edit(t, shopPolicy, "slow: {messages: 2/s, burst: 1s, exceed: reject}", "slow: {messages: 20/s, burst: 1s, exceed: wait}")
	})
	for name, send := range map[string]string{
		"narrow":    strings.Repeat("PUB forbidden.x 0\r\n\r\nPUB $JS.API.CONSUMER.MSG.NEXT.ORDERS.nobody _INBOX.a.b 0\r\n\r\n", 3),
		"throttled": strings.Repeat("PUB forbidden.x 0\r\n\r\nPUB orders.x _INBOX.a.b 0\r\n\r\n", 30),
	} {
		for range 60 {
			r, _ := rawTLS(t, b, b.Cred(name))
			r.send(send)
			tcp := r.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
			check(t, tcp.SetLinger(0)) // a reset
			check(t, tcp.Close())
		}
	}
	connect(t, b, "narrow").publish(t, "orders.eu.x", "still here")
	if s := log.String(); strings.Contains(s, "fault of the broker") {
		t.Errorf("a connection ended by a panic: %.2000s", s)
	}
}

type lockedLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestAPIFloodStaysWithItsPrincipal: one principal that floods the JetStream API is
// refused, and the requests of another tenant are answered.
func TestAPIFloodStaysWithItsPrincipal(t *testing.T) {
	b := newBroker(t)
	boss := connect(t, b, "miller").js(t)
	ctx := within(t)
	cons := must(boss.CreateConsumer(ctx, "FLOUR", jetstream.ConsumerConfig{Durable: "d", FilterSubject: "flour.>"}))(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var sent, refused atomic.Int64
	for range 3 {
		a := connect(t, b, "narrow")
		_, err := a.Subscribe("_INBOX.q.1", func(m *nats.Msg) {
			if strings.Contains(string(m.Data), `"rule":"gate.apiRate"`) && strings.Contains(string(m.Data), `"retryAfterMs":`) {
				refused.Add(1)
			}
		})
		check(t, err)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for range 500 {
					_ = a.PublishRequest("$JS.API.STREAM.NAMES", "_INBOX.q.1", []byte(`{"subject":"orders.eu.x"}`))
				}
				sent.Add(500)
				_ = a.FlushTimeout(patience)
			}
		})
	}
	for i := 0; i < 50 || refused.Load() == 0 && ctx.Err() == nil; i++ {
		if _, err := cons.Info(ctx); err != nil {
			t.Errorf("request %d of the other tenant: %v", i, err)
		}
	}
	close(stop)
	wg.Wait()
	if refused.Load() == 0 {
		t.Errorf("none of %d requests was over the rate", sent.Load())
	}
}

// TestOnePrincipalLeavesConnections: all connections of one principal leave half of
// them to the others.
func TestOnePrincipalLeavesConnections(t *testing.T) {
	b := newBroker(t, func(o *brokertest.Options) {
		change := o.Change
		o.Change = func(c *broker.Config) { change(c); c.Gate.MaxConnections, c.Gate.MaxConnectionsPerPrincipal = 10, 0 }
	})
	for range 5 {
		connect(t, b, "narrow")
	}
	auth := must(nats.NkeyOptionFromSeed(b.Cred("narrow")))(t)
	_, err := nats.Connect(b.URL(), auth, nats.Secure(b.TLS()), nats.NoReconnect(), nats.Timeout(patience))
	if err == nil || !strings.Contains(err.Error(), "maximum connections exceeded") {
		t.Errorf("the sixth: %v", err)
	}
	check(t, connect(t, b, "miller").Flush())
}

// TestGateLimitsAreChecked: a setting that would switch a bound off is a fault.
func TestGateLimitsAreChecked(t *testing.T) {
	for setting, change := range map[string]func(*broker.GateConfig){
		"gate.maxConnectionsPerPrincipal": func(g *broker.GateConfig) { g.MaxConnectionsPerPrincipal = g.MaxConnections + 1 },
		"gate.apiRate":                    func(g *broker.GateConfig) { g.APIRate = 0 },
		"gate.apiReadRate":                func(g *broker.GateConfig) { g.APIReadRate = -1 },
	} {
		cfg := broker.DefaultConfig()
		if err := cfg.Validate(); err == nil || strings.Contains(err.Error(), setting) {
			t.Errorf("%s by default: %v", setting, err)
		}
		change(&cfg.Gate)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), setting+": want ") {
			t.Errorf("%s: %v", setting, err)
		}
	}
}
