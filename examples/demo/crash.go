package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/signetbus/signet/examples/githubwebhooks"
)

// The consumer that crashes, and what the policy of the demo says of it.
const (
	consumer    = "authors"
	maxAttempts = 3
)

// commitStatus is what the worker reads of a status event. GitHub names no author where the
// commit is of nobody that has an account there, and its schema allows that.
type commitStatus struct {
	Commit struct {
		Author *struct {
			Login string `json:"login"`
		} `json:"author"`
	} `json:"commit"`
}

// poison is the one webhook that the worker cannot bear.
func poison() (githubwebhooks.Delivery, error) {
	for d := range githubwebhooks.Deliveries() {
		var s commitStatus
		if err := json.Unmarshal(d.Payload, &s); d.Event == "status" && err == nil && s.Commit.Author == nil {
			return d, nil
		}
	}
	return githubwebhooks.Delivery{}, errors.New("no status event is without an author")
}

// crash lets a worker die of one event, again and again, and looks where that event and all
// the others end.
func (d *demo) crash() error {
	ctx, stop := context.WithCancel(d.ctx)
	w := &ward{d: d, handled: map[uint64]bool{}, ended: make(chan error, 1)}
	go func() { w.ended <- w.keepRunning(ctx) }()
	want := deliveries - broken // and the one that was mended, but the poison
	letters, err := w.await(want)
	stop()
	if err = errors.Join(err, <-w.ended); err != nil {
		return err
	}
	fmt.Printf("   events that it handled: %d, of them after its first crash: %d\n", w.count(), w.count()-w.before)
	d.check("crashes of a consumer on one event", w.crashes, maxAttempts)
	d.check("  other events that it handled", w.count(), want)
	d.check("  its dead letters", letters, 1)
	return d.autopsy()
}

// await returns the number of the dead letters of the worker, when there is one and the
// worker has handled so many events, or after a time in which that should be.
func (w *ward) await(events int) (letters int, err error) {
	for deadline := time.Now().Add(time.Minute); ; {
		out, err := w.d.signet("--context", "operator", "dlq", "stats", "--consumer", "GITHUB."+consumer, "-o", "json")
		if err != nil {
			return 0, err
		}
		var is struct {
			Matched int `json:"matched"`
		}
		if err := json.Unmarshal(out, &is); err != nil {
			return 0, fmt.Errorf("dlq stats: %w", err)
		}
		if is.Matched > 0 && w.count() >= events || time.Now().After(deadline) {
			return is.Matched, nil
		}
		select {
		case err := <-w.ended:
			w.ended <- nil // for who waits for the end
			return 0, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// autopsy reads the dead letter of the worker, and verifies what is in it.
func (d *demo) autopsy() error {
	if _, err := d.signet("--context", "operator", "dlq", "export", "--consumer", "GITHUB."+consumer, "--dir", d.path("case")); err != nil {
		return err
	}
	text, err := os.ReadFile(d.path("case", "letters.ndjson"))
	if err != nil {
		return err
	}
	var letter struct {
		Seq      uint64 `json:"seq"`
		Subject  string `json:"subject"`
		Reason   string `json:"reason"`
		Rule     string `json:"rule"`
		Attempts int    `json:"attempts"`
		Payload  []byte `json:"payload"`
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&letter); err != nil {
		return fmt.Errorf("dlq export: %w", err)
	}
	was, err := poison()
	if err != nil {
		return err
	}
	fmt.Printf("   dead letter %d: %s: %s after %d attempts (%s)\n", letter.Seq, letter.Subject, letter.Reason, letter.Attempts, letter.Rule)
	d.check("  for which reason", letter.Reason, "delivery")
	d.check("  after how many attempts", letter.Attempts, maxAttempts)
	d.check("  it has the exact bytes", bytes.Equal(letter.Payload, was.Payload), true)
	code, err := d.verify("case/events.ndjson")
	if err != nil {
		return err
	}
	d.check("  its signature verifies offline: exit code", code, 0)
	return nil
}
