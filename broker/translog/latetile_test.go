package translog

import (
	"testing"
	"time"
)

// fill takes messages until the log has n leaves.
func fill(t *testing.T, w *writer, n int64) {
	t.Helper()
	var m message
	for w.edge.Size() < n {
		ok, err := w.in.next(time.Second, &m)
		if err == nil && ok {
			err = w.take(t.Context(), &m)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A writer that wakes up between the tiles and the checkpoint of another, which is ahead,
// leaves the longer tiles as they are.
func TestLateTileKeepsLongerOne(t *testing.T) {
	r := newRig(t)
	r.leads.Store(false) // the test writes
	s, _ := r.serve(nil)
	r.publish(0, 100)
	l, err := s.find("shop", "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	open := func() *writer {
		w, err := l.open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.close)
		return w
	}
	late := open()
	fill(t, late, 100)
	if err := late.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	ahead := open()
	r.publish(100, 400)
	fill(t, late, 200)
	fill(t, ahead, 400)
	if err := ahead.saveTiles(t.Context(), ahead.edge.Take()); err != nil {
		t.Fatal(err)
	}
	if err := late.saveTiles(t.Context(), late.edge.Take()); err != nil {
		t.Fatal(err)
	}
	if err := ahead.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	note, _, err := s.Last(t.Context(), "shop", "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Verify(t.Context(), "shop", "ORDERS", &note.Checkpoint, 1); err != nil || got.Finding != nil || got.Compared != 400 {
		t.Errorf("verify: %+v, %v", got, err)
	}
	if _, err := s.Prove(t.Context(), "shop", "ORDERS", 10, 10); err != nil {
		t.Errorf("prove: %v", err)
	}
}
