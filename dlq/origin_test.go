package dlq

import (
	"bytes"
	"testing"
)

func TestSplitRedrive(t *testing.T) {
	original := "NATS/1.0\r\nce-id: 1\r\nattestation: x\r\n\r\n"
	for _, tt := range []struct {
		name, block, rest string
		want              Redriven
	}{
		{"none", original, original, Redriven{}},
		{"no header", "", "", Redriven{}},
		{
			"of the retry queue", "NATS/1.0\r\nce-id: 1\r\nSignet-Redrive-Count: 2\r\nattestation: x\r\nSignet-Redrive-Stream: ORDERS\r\nSignet-Redrive-Consumer: billing\r\nSignet-Redrive-Sequence: 7\r\nSignet-Redrive-Subject: orders.1\r\nSignet-Redrive-Letter: 3\r\n\r\n",
			original,
			Redriven{2, Origin{"ORDERS", 7, "billing"}, "orders.1"},
		},
		{"published anew", "NATS/1.0\r\nce-id: 1\r\nattestation: x\r\nSignet-Redrive-Count: 1\r\n\r\n", original, Redriven{Count: 1}},
		{"bad numbers", "NATS/1.0\r\nSignet-Redrive-Count: -1\r\nSignet-Redrive-Sequence: x\r\n\r\n", "NATS/1.0\r\n\r\n", Redriven{}},
		{"in a value", "NATS/1.0\r\nce-id: Signet-Redrive-Count: 1\r\n\r\n", "NATS/1.0\r\nce-id: Signet-Redrive-Count: 1\r\n\r\n", Redriven{}},
		{"cut short", "NATS/1.0\r\nSignet-Redrive-Count: 4", "NATS/1.0\r\n", Redriven{Count: 4}},
	} {
		got, rest := SplitRedrive([]byte(tt.block))
		if got != tt.want || string(rest) != tt.rest {
			t.Errorf("%s: got %+v and %q, want %+v and %q", tt.name, got, rest, tt.want, tt.rest)
		}
	}
}

// FuzzSplitRedrive: what is left has no header of a redrive, and nothing else is lost.
func FuzzSplitRedrive(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nSignet-Redrive-Count: 2\r\na: b\r\n\r\n"))
	f.Add([]byte("Signet-Redrive-:\r\n\r\nSignet-Redrive-"))
	f.Fuzz(func(t *testing.T, block []byte) {
		r, rest := SplitRedrive(bytes.Clone(block))
		if r.Count < 0 || len(rest) > len(block) {
			t.Fatalf("count %d, %d of %d bytes", r.Count, len(rest), len(block))
		}
		again, same := SplitRedrive(rest)
		if again != (Redriven{}) || !bytes.Equal(same, rest) {
			t.Fatalf("a second look finds %+v and leaves %q of %q", again, same, rest)
		}
	})
}
