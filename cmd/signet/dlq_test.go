package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/adminapi"
)

// TestDeadLetterOfAConsumerIsTold: which consumer it was, who had the event, and when.
func TestDeadLetterOfAConsumerIsTold(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := adminapi.DeadLetter{
		Seq: 7, Time: at, Reason: "delivery", Stage: "consumer", Subject: "orders.paid", Principal: "shop/billing", Stream: "ORDERS", StreamSeq: 9, Consumer: "billing",

		DLQHistory: adminapi.DLQHistory{
			Attempts: 2, By: "shop/hel\x1bper", Stored: at.Add(-time.Hour), Deliveries: []adminapi.DLQDelivery{{Attempt: 1, At: at.Add(-time.Minute)}, {Attempt: 2, At: at.Add(-time.Second)}},
		},
	}
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &bytes.Buffer{}}
	printLetter(a, &admin.StoredLetter{DeadLetter: l, Payload: []byte("x")})
	got := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"origin ORDERS seq 9 consumer billing", "stored 2026-01-02T02:04:05Z", "attempts 2", `by shop/hel\x1bper`,
		"attempt 1 2026-01-02T03:03:05Z", "attempt 2 2026-01-02T03:04:04Z",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("show does not say %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := printLetters(a, &admin.DLQList{Entries: []adminapi.DeadLetter{l}}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(got, "orders.paid shop/billing ORDERS.billing") {
		t.Errorf("ls does not say which consumer:\n%s", out.String())
	}
}
