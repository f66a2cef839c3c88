package deadletter

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/ratelimit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a Store. fail is asked before each write; a nil error stores.
type memory struct {
	mu   sync.Mutex
	got  []*dlq.Record
	subj []string
	fail func(ctx context.Context) error
}

func (m *memory) PublishDLQ(ctx context.Context, _, subject string, header nats.Header, data []byte) (uint64, error) {
	if m.fail != nil {
		if err := m.fail(ctx); err != nil {
			return 0, err
		}
	}
	r, err := dlq.Decode(header, data)
	if err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got, m.subj = append(m.got, r), append(m.subj, subject)
	return uint64(len(m.got)), nil
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got)
}

func record(payload []byte) *dlq.Record {
	r := &wire.Refusal{Code: wire.CodeSchemaViolation, Rule: "subject orders.*", Subject: "orders.1", Principal: "shop/checkout", Ref: "r-1"}
	return dlq.FromRefusal(r, time.Unix(1, 0), []byte("NATS/1.0\r\na: b\r\n\r\n"), payload)
}

var unlimited = ratelimit.Limit{Name: "none", Messages: 1e9, Burst: time.Second}

func start(t *testing.T, cfg Config) *Writer {
	t.Helper()
	w := New(cfg)
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestExactBytes(t *testing.T) {
	m := &memory{}
	w := start(t, Config{Store: m})
	payload := []byte("{\"qty\":\x00\xff}")
	want := bytes.Clone(payload)
	if !w.Offer("shop", record(payload)) {
		t.Fatal("not taken")
	}
	clear(payload) // the reader's buffer moves on
	if err := w.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.count() != 1 || m.subj[0] != "$SIGNET.DLQ.schema.checkout" || !bytes.Equal(m.got[0].Payload, want) ||
		string(m.got[0].Header) != "NATS/1.0\r\na: b\r\n\r\n" {
		t.Errorf("stored %+v on %v", m.got, m.subj)
	}
	if w.Offer("shop", record(nil)) {
		t.Error("taken after Shutdown")
	}
	if s := w.Stats(); s.Written != 1 || s.Dropped[CauseShutdown] != 1 || s.QueuedBytes != 0 {
		t.Errorf("stats %+v", s)
	}
	if err := w.Start(t.Context()); !errors.Is(err, ErrStarted) {
		t.Errorf("Start after Shutdown: %v", err)
	}
	if err := New(Config{}).Start(t.Context()); !errors.Is(err, ErrStore) {
		t.Errorf("Start without a store: %v", err)
	}
}

func TestRateIsPerTenant(t *testing.T) {
	now := time.Unix(1000, 0)
	w := New(Config{
		Store: &memory{}, Now: func() time.Time { return now },
		Rate: ratelimit.Limit{Name: "x", Messages: 10, Burst: time.Second},
	})
	taken := func(tenant string) (n int) {
		for range 100 {
			if w.Offer(tenant, record(nil)) {
				n++
			}
		}
		return n
	}
	a, b := taken("a"), taken("b")
	if a < 10 || a > 11 || b != a {
		t.Errorf("took %d and %d of 100 in an instant, want 10 each", a, b)
	}
	now = now.Add(500 * time.Millisecond)
	if n := taken("a"); n < 4 || n > 6 {
		t.Errorf("took %d after half a second, want 5", n)
	}
}

func TestQueueIsBounded(t *testing.T) {
	w := New(Config{Store: &memory{}, Queue: 4, Rate: unlimited})
	for range 10 {
		w.Offer("shop", record(nil))
	}
	if s := w.Stats(); s.Queued != 4 || s.Dropped[CauseQueue] != 6 {
		t.Errorf("entries: %+v", s)
	}
	w = New(Config{Store: &memory{}, QueueBytes: 4096, Rate: unlimited})
	for range 10 {
		w.Offer("shop", record(make([]byte, 1000)))
	}
	if s := w.Stats(); s.Queued != 2 || s.Dropped[CauseQueue] != 8 || s.QueuedBytes > 4096 {
		t.Errorf("bytes: %+v", s)
	}
	bad := record(nil)
	bad.Reason = "mood"
	if w.Offer("shop", bad) || w.Stats().Dropped[CauseMalformed] != 1 {
		t.Errorf("malformed: %+v", w.Stats())
	}
}

func TestRetryAndReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 2
		var reported []uint64
		m := &memory{}
		m.fail = func(context.Context) error {
			if failures--; failures >= 0 {
				return errors.New("down")
			}
			return nil
		}
		w := start(t, Config{Store: m, Rate: unlimited, Dropped: func(tenant string, cause Cause, n uint64) {
			if tenant != "shop" || cause != CauseStore {
				t.Errorf("reported %s %s", tenant, cause)
			}
			reported = append(reported, n)
		}})
		w.Offer("shop", record(nil))
		<-time.After(time.Second)
		synctest.Wait()
		if m.count() != 1 || w.Stats().Written != 1 {
			t.Fatalf("stored %d after two failures, want 1", m.count())
		}
		failures = 1 << 30
		for range 5 {
			w.Offer("shop", record(nil))
		}
		if err := w.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-w.Done()
		var sum uint64
		for _, n := range reported {
			sum += n
		}
		if sum != 5 || w.Stats().Dropped[CauseStore] != 5 || len(reported) > 4 {
			t.Errorf("reported %v, stats %+v; want 5 in few reports", reported, w.Stats())
		}
	})
}

func TestShutdownWithinContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{fail: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
		w := start(t, Config{Store: m, Rate: unlimited, WriteTimeout: time.Hour})
		for range 3 {
			w.Offer("shop", record(nil))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := w.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown = %v", err)
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("Shutdown took %v", d)
		}
		if s := w.Stats(); s.Dropped[CauseShutdown] != 3 || s.QueuedBytes != 0 {
			t.Errorf("stats %+v, want 3 dropped", s)
		}
	})
}

func TestConcurrentOffer(t *testing.T) {
	m := &memory{}
	w := start(t, Config{Store: m, Rate: unlimited, Queue: 64})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				w.Offer("shop", record([]byte("x")))
			}
		})
	}
	wg.Wait()
	if err := w.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := w.Stats()
	if s.Written+s.Dropped[CauseQueue] != 1600 || uint64(m.count()) != s.Written {
		t.Errorf("stats %+v, stored %d; want 1600 in all", s, m.count())
	}
}
