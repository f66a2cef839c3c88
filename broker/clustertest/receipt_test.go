package clustertest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// TestReceiptsOfAKilledLeader: the leader of a stream is killed while signed
// acknowledgements are on their way. Whatever was signed is stored at the nodes that are
// left, the same bytes at the same sequence; and acknowledging goes on.
func TestReceiptsOfAKilledLeader(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c, err := brokertest.NewProcesses(ctx, brokertest.ProcessOptions{Nodes: 3, Dir: t.TempDir(), Binary: binary, Policy: policy})
	ok(t, err)
	defer c.Close()
	ok(t, c.StartAll(ctx))
	st := c.State(0)
	doc, err := os.ReadFile(st.Keyring)
	ok(t, err)
	ring, err := keyring.Parse(doc, st.Root, time.Now())
	ok(t, err)
	writer, err := client.Connect(ctx, c.URLs(), client.WithNkeySeedFile(st.Creds["writer"]), client.WithTLSRoots(st.CA), client.WithRoot(st.Root))
	ok(t, err)
	defer writer.Close()
	js := plain(t, c.URLs(), st, "reader")

	var receipts []*signing.Receipt
	lost := 0
	// publish sends n events with many in flight, and keeps what was signed.
	publish := func(n int, meanwhile func()) {
		t.Helper()
		var futures []*client.Future
		for i := range n {
			f, err := writer.PublishAsync(ctx, "orders.a", &client.Event{Type: "t", Data: fmt.Append(nil, "event ", i)}, client.WithSignedAck())
			if err != nil {
				lost++
				continue
			}
			futures = append(futures, f)
			if i == n/2 {
				// Some are answered when it happens, most are on their way.
				if _, err := futures[n/8].Wait(ctx); err != nil {
					t.Errorf("before the fault: %v", err)
				}
				meanwhile()
			}
		}
		for _, f := range futures {
			ack, err := f.Wait(ctx)
			if err != nil {
				lost++ // no answer or an error: nothing is signed
				continue
			}
			r, _, err := signing.VerifyReceipt(ack.Receipt, ring)
			ok(t, err)
			receipts = append(receipts, r)
		}
	}
	publish(100, func() {})
	if lost > 0 || len(receipts) != 100 {
		t.Fatalf("before the fault: %d receipts, %d lost", len(receipts), lost)
	}
	info, err := stream(ctx, js)
	ok(t, err)
	leader := slices.IndexFunc([]int{0, 1, 2}, func(i int) bool { return c.Name(i) == info.CachedInfo().Cluster.Leader })
	if leader < 0 {
		t.Fatalf("no leader in %+v", info.CachedInfo().Cluster)
	}
	publish(600, func() { c.Kill(leader) })
	if len(receipts) == 100 {
		t.Error("nothing was signed in the fault")
	}
	for range 50 {
		r := again(ctx, t, writer, ring)
		receipts = append(receipts, r)
	}
	fresh := 0
	for _, r := range receipts {
		e := read(ctx, t, js, r.Sequence)
		if string(e.ID) != r.ID || string(e.Source) != r.Source {
			t.Fatalf("sequence %d has the event %s, the receipt is of %s", r.Sequence, e.ID, r.ID)
		}
		if r.Duplicate {
			continue // sent again after the connection was lost: it vouches for the id
		}
		fresh++
		if err := r.Covers(e); err != nil {
			t.Fatalf("sequence %d: %v", r.Sequence, err)
		}
	}
	t.Logf("%d receipts, %d of them of a first try, all of what is stored; %d publishes had none in the fault", len(receipts), fresh, lost)
}

// again publishes one event until it is signed.
func again(ctx context.Context, t *testing.T, c *client.Client, ring *keyring.Ring) *signing.Receipt {
	t.Helper()
	ev := client.NewEvent("t", []byte("after the fault"))
	for {
		ack, err := c.Publish(ctx, "orders.a", ev, client.WithSignedAck())
		if err != nil {
			if ctx.Err() != nil {
				t.Fatalf("after the fault: %v", err)
			}
			continue // it has tried for a while, with pauses
		}
		r, _, err := signing.VerifyReceipt(ack.Receipt, ring)
		ok(t, err)
		return r
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// plain connects with unmodified nats.go.
func plain(t *testing.T, urls string, st *broker.State, principal string) jetstream.JetStream {
	t.Helper()
	pem, err := os.ReadFile(st.CA)
	ok(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	auth, err := nats.NkeyOptionFromSeed(st.Creds[principal])
	ok(t, err)
	nc, err := nats.Connect(urls, auth, nats.Secure(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	ok(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	ok(t, err)
	return js
}

// stream asks until somebody answers: the node that was asked may be gone.
func stream(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	for {
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		s, err := js.Stream(call, "ORDERS")
		cancel()
		if err == nil || ctx.Err() != nil {
			return s, err
		}
	}
}

// read returns the event at seq.
func read(ctx context.Context, t *testing.T, js jetstream.JetStream, seq uint64) *cloudevent.Event {
	t.Helper()
	for {
		s, err := stream(ctx, js)
		ok(t, err)
		call, cancel := context.WithTimeout(ctx, 2*time.Second)
		m, err := s.GetMsg(call, seq)
		cancel()
		if err != nil {
			if ctx.Err() != nil {
				t.Fatalf("sequence %d: %v", seq, err)
			}
			continue // a copy that lags, or a node that went
		}
		var e cloudevent.Event
		ok(t, e.FromHeaderMap(m.Header, m.Data))
		signing.Restore(&e)
		return &e
	}
}
