package embed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestDeletedStreamStaysDeleted: what a kill left of a deleted stream is gone when the
// server starts. Else the next deletion of a stream of that name only seems to happen:
// one that is made after it would have the messages of the old one.
func TestDeletedStreamStaysDeleted(t *testing.T) {
	ctx, dir := testContext(t), t.TempDir()
	at := func(c *Config) { c.StoreDir = dir }
	cfg := jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}, MaxBytes: 1 << 20}
	s := start(t, at)
	js := internalJS(t, s)
	if _, err := js.CreateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "orders", []byte("old")); err != nil {
		t.Fatal(err)
	}
	another(ctx, t, js)
	stop(t, s)
	// As after a kill in the middle of the removal of an earlier ORDERS with many blocks.
	left := filepath.Join(dir, "jetstream", "shop", "streams", ".ORDERS")
	if err := os.MkdirAll(filepath.Join(left, "msgs"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 1500 {
		if err := os.WriteFile(filepath.Join(left, "msgs", fmt.Sprintf("%d.blk", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// As after a kill while the server tried whether it may write.
	if err := os.WriteFile(filepath.Join(dir, "jetstream", "_test_1"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	js = internalJS(t, start(t, at))
	if err := js.DeleteStream(ctx, "ORDERS"); err != nil {
		t.Fatal(err)
	}
	made, err := js.CreateStream(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if st := made.CachedInfo().State; st.LastSeq != 0 {
		t.Errorf("the new stream has %d messages up to %d", st.Msgs, st.LastSeq)
	}
}

// TestAwaitDeleted: a stream that is deleted twice in a row is empty each time.
func TestAwaitDeleted(t *testing.T) {
	ctx := testContext(t)
	s := start(t, nil)
	js := internalJS(t, s)
	left := filepath.Join(s.cfg.StoreDir, "jetstream", "shop", "streams", ".ORDERS", "msgs")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	another(ctx, t, js)
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if err := AwaitDeleted(short, s, "shop", "ORDERS"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while something is left: %v", err)
	}
	if err := os.RemoveAll(filepath.Dir(left)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		st, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}, MaxBytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if n := st.CachedInfo().State.LastSeq; n != 0 {
			t.Fatalf("a new stream has had %d messages", n)
		}
		if _, err := js.Publish(ctx, "orders", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := AwaitDeleted(ctx, s, "shop", "ORDERS"); err != nil {
			t.Fatal(err)
		}
		if err := js.DeleteStream(ctx, "ORDERS"); err != nil {
			t.Fatal(err)
		}
	}
}

// another makes a second stream: of an account without streams the server removes the
// folders at its leisure, too, also when one is being made there.
func another(ctx context.Context, t *testing.T, js jetstream.JetStream) {
	t.Helper()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}, MaxBytes: 1 << 20}); err != nil {
		t.Fatal(err)
	}
}

func internalJS(t *testing.T, s *Server) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(internal(t, s, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	return js
}
