package clustertest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
)

const limitsPolicy = `
tenant: shop
ephemeral: [pulse.>]
quota: {messages: 100/s, burst: 1s}
principals:
  - {name: sensor, identities: [{nkey: {{nkey "sensor"}}}], publish: [pulse.>], subscribe: [pulse.>]}
`

// limitOwner returns the running node that shares out the limits; -1: none says so.
func limitOwner(ctx context.Context, t *testing.T, ops []string) int {
	t.Helper()
	for i, addr := range ops {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		req, err := http.NewRequestWithContext(call, http.MethodGet, "http://"+addr+"/metrics", nil)
		ok(t, err)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			cancel()
			continue
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		cancel()
		if err == nil && strings.Contains(string(text), "\nsignet_limit_owner 1\n") {
			return i
		}
	}
	return -1
}

// TestClusterLimitsKillAndPartition: three nodes as processes under three times the rate of their tenant's
// quota. The node that shares out the limits is killed, another is cut off from the rest while its clients go on: no window
// of ten seconds or more has more than the burst and 1.05 of the rate, and those that are left
// use the rate.
func TestClusterLimitsKillAndPartition(t *testing.T) {
	const rate, burst = 100, 100
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var ops []string
	c, err := brokertest.NewProcesses(ctx, brokertest.ProcessOptions{Nodes: 3, Dir: t.TempDir(), Binary: binary, Policy: limitsPolicy})
	ok(t, err)
	defer c.Close()
	ok(t, c.StartAll(ctx))
	var conns []*nats.Conn
	for i := range c.Len() {
		ops = append(ops, brokertest.OpsAddr(c, i))
		nc := flooder(t, c.URL(i), c.State(i))
		defer nc.Close()
		conns = append(conns, nc)
	}
	f := brokertest.NewFlood(t, "pulse.x", conns...)
	defer f.Stop()
	for i := range conns {
		f.Pace(i, rate)
	}
	used := func(what string) {
		t.Helper()
		const span = 3 * time.Second
		tick, began, from := time.NewTicker(span), time.Now(), f.Total()
		defer tick.Stop()
		for range 20 {
			at := time.Now()
			<-tick.C
			now := f.Total()
			got := float64(now-from) / time.Since(at).Seconds()
			t.Logf("%s: %.0f a second, %s after", what, got, time.Since(began).Round(100*time.Millisecond))
			if from = now; got >= 0.9*rate {
				return
			}
		}
		t.Errorf("%s: never 0.9 of %d a second", what, rate)
	}
	used("all nodes")

	killed := -1
	for tries := 0; killed < 0; tries++ {
		if killed = limitOwner(ctx, t, ops); killed < 0 && tries == 100 {
			t.Fatal("no node says that it shares out the limits")
		}
	}
	c.Kill(killed)
	used("without the owner")
	used("without the owner")
	ok(t, c.Start(ctx, killed))
	used("with the owner of before")

	apart := (killed + 1) % 3
	before := f.Total()
	c.Isolate(apart, brokertest.Link{Cut: true})
	used("two nodes of three")
	used("two nodes of three")
	for i := range conns { // at the node that is cut off alone, to see what it lets in
		if i != apart {
			f.Pace(i, 0)
		}
	}
	used2 := f.Total()
	end := time.NewTimer(3 * time.Second)
	<-end.C
	t.Logf("cut off: %d in all while apart, %d in 3 s at the node that is cut off", f.Total()-before, f.Total()-used2)
	c.Mend()
	for i := range conns {
		f.Pace(i, rate)
	}
	used("together again")
	f.Stop()

	// The node that was killed began anew with its part of the burst.
	const most = burst + burst/6
	beyond, window := f.Over(10, 1.05*rate)
	t.Logf("%d in all; at most %.0f beyond 1.05 of the rate: %s", f.Total(), beyond, window)
	if window == "" || beyond > most {
		t.Errorf("%.0f beyond 1.05 of the rate in %q, at most %d", beyond, window, most)
	}
}

// flooder connects to one node, and again when that is back.
func flooder(t *testing.T, url string, st *broker.State) *nats.Conn {
	t.Helper()
	pem, err := os.ReadFile(st.CA)
	ok(t, err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal(errors.New("no authority"))
	}
	auth, err := nats.NkeyOptionFromSeed(st.Creds["sensor"])
	ok(t, err)
	nc, err := nats.Connect(url, auth, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}), nats.DontRandomize(),
		nats.IgnoreDiscoveredServers(), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond), nats.ReconnectBufSize(-1), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	ok(t, err)
	return nc
}
