package gate

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/store"
)

// direct dials the embedded server without the gate.
type direct struct {
	w     *world
	mu    sync.Mutex
	token string
}

func (d *direct) Dial(string, string) (net.Conn, error) {
	nc, err := d.w.embed.Dial(context.Background())
	if err == nil {
		d.mu.Lock()
		d.token, _ = d.w.embed.Ticket("shop", []string{">"}, []string{">"}, nc.LocalAddr())
		d.mu.Unlock()
	}
	return nc, err
}

func (w *world) direct() *nats.Conn {
	d := &direct{w: w}
	nc, err := nats.Connect("nats://direct:4222", nats.SetCustomDialer(d), nats.NoReconnect(), nats.TokenHandler(func() string {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.token
	}))
	check(w.t, err)
	w.t.Cleanup(nc.Close)
	return nc
}

// barrierOption holds acknowledgements by the real barrier, on the volume of the
// test's directories.
func barrierOption(t testing.TB, hold bool) worldOption {
	return func(_ *Config, d *Deps) {
		if !hold {
			return
		}
		barrier, err := store.NewBarrier(t.TempDir())
		check(t, err)
		t.Cleanup(func() { check(t, barrier.Close()) })
		d.Barrier = barrier
	}
}

// BenchmarkPublishAsync compares the gate, with admission and attestation, with the
// bare server: 256 bytes, lazy sync, one connection. The client shares the CPUs.
func BenchmarkPublishAsync(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 256)
	for _, way := range []string{"raw", "gate", "gate+barrier"} {
		b.Run(way, func(b *testing.B) {
			w := newWorld(b, barrierOption(b, way == "gate+barrier"))
			nc := w.direct()
			if way != "raw" {
				nc = w.connect("writer")
			}
			js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(4096), jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { b.Error(err) }))
			check(b, err)
			b.ReportAllocs()
			for b.Loop() {
				_, err := js.PublishAsync("orders.eu.created", payload)
				check(b, err)
			}
			<-js.PublishAsyncComplete()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// BenchmarkPublishSync is one publish after the other.
func BenchmarkPublishSync(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 256)
	for _, way := range []string{"raw", "gate"} {
		b.Run(way, func(b *testing.B) {
			w := newWorld(b)
			nc := w.direct()
			if way == "gate" {
				nc = w.connect("writer")
			}
			js, err := jetstream.New(nc)
			check(b, err)
			for b.Loop() {
				_, err := js.Publish(b.Context(), "orders.eu.created", payload)
				check(b, err)
			}
		})
	}
}

// BenchmarkOrdered reads a stream of 50,000 events.
func BenchmarkOrdered(b *testing.B) {
	const n = 50000
	w := newWorld(b)
	js := w.jetstream("writer")
	for range n {
		_, err := js.PublishAsync("orders.eu.created", bytes.Repeat([]byte("x"), 256))
		check(b, err)
	}
	<-js.PublishAsyncComplete()
	for _, way := range []string{"raw", "gate"} {
		b.Run(way, func(b *testing.B) {
			nc := w.direct()
			if way == "gate" {
				nc = w.connect("reader")
			}
			js, err := jetstream.New(nc)
			check(b, err)
			for b.Loop() {
				c, err := js.OrderedConsumer(b.Context(), "ORDERS", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"orders.>"}})
				check(b, err)
				got, done := 0, make(chan struct{})
				cc, err := c.Consume(func(jetstream.Msg) {
					if got++; got == n {
						close(done)
					}
				})
				check(b, err)
				<-done
				cc.Stop()
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// TestIdleConnectionIsSmall holds the budget of an idle connection: four goroutines
// with the server's two, and little memory.
func TestIdleConnectionIsSmall(t *testing.T) {
	w := newWorld(t)
	const n = 200
	measure := func() (goroutines int, heap uint64) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapInuse + m.StackInuse
	}
	g0, h0 := measure()
	for range n {
		r := w.login("writer", quiet)
		r.pong()
	}
	g1, h1 := measure()
	if per := float64(g1-g0) / n; per > 4.05 {
		t.Errorf("%.2f goroutines per connection", per)
	}
	publish, subscribe := acl.Permissions(w.set.Principal("shop", "writer"), "token")
	for range n {
		nc, err := w.embed.Dial(t.Context())
		check(t, err)
		t.Cleanup(func() { nc.Close() })
		r := &raw{t: t, nc: nc}
		r.line()
		token, _ := w.embed.Ticket("shop", publish, subscribe, nc.LocalAddr())
		r.send(fmt.Sprintf("CONNECT {\"auth_token\":%q,%s}\r\n", token, quiet))
		r.pong()
	}
	_, h2 := measure()
	through, bare := (int64(h1)-int64(h0))/n, (int64(h2)-int64(h1))/n
	t.Logf("bytes per connection, with the test's share: %d, bare server with the same permissions: %d", through, bare)
	if through > 3*bare { // the aim is twice; heap figures of a busy test are rough
		t.Errorf("%d bytes per connection, %d without the gate", through, bare)
	}
}
