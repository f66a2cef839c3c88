package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/client/admin"
)

// TestLetterOfAConsumer: what is known of a failure is shown: who had it, when it was
// stored, and each delivery.
func TestLetterOfAConsumer(t *testing.T) {
	at := time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC)
	var l admin.StoredLetter
	l.Seq, l.Stream, l.StreamSeq, l.Consumer = 3, "ORDERS", 7, "billing"
	l.Attempts, l.By, l.Stored = 2, "shop/pa\x1byer", at
	l.Deliveries = []admin.DLQDelivery{{Attempt: 1, At: at.Add(time.Second)}, {Attempt: 2, At: at.Add(time.Minute)}}
	var out bytes.Buffer
	printLetter(&app{stdout: &out}, &l)
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"origin ORDERS seq 7 consumer billing", "stored 2026-11-22T09:00:00Z", `by shop/pa\x1byer`, "attempts 2",
		"deliveries 1 at 2026-11-22T09:00:01Z, 2 at 2026-11-22T09:01:00Z",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
}
