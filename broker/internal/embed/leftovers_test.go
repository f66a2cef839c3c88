package embed

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

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

func internalJS(t *testing.T, s *Server) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(internal(t, s, "shop"))
	if err != nil {
		t.Fatal(err)
	}
	return js
}
