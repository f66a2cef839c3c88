package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// progress is a line that the worker writes before it handles an event, and after that.
type progress struct {
	Seq     uint64 `json:"seq"`
	Attempt uint64 `json:"attempt,omitempty"`
	Handled bool   `json:"handled,omitempty"`
}

// work reads github.> with a client that knows nothing of Signet, until it is ended or an
// event is too much for it. It fetches one event at a time, so that none dies with another.
func work(ctx context.Context, dir, server string) error {
	seed, err := nats.NkeyOptionFromSeed(dir + "/worker.nk")
	if err != nil {
		return err
	}
	nc, err := nats.Connect(server, seed, nats.RootCAs(dir+"/state/ca/ca.pem"), nats.Name("worker"), nats.Timeout(time.Minute))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	cons, err := js.CreateOrUpdateConsumer(ctx, "GITHUB", jetstream.ConsumerConfig{
		Durable: consumer, FilterSubject: "github.>", AckPolicy: jetstream.AckExplicitPolicy,
		BackOff: []time.Duration{time.Second, 3 * time.Second / 2, 2 * time.Second}, // of who dies, and says nothing
	})
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for ctx.Err() == nil {
		batch, err := cons.Fetch(1)
		if err != nil {
			return err
		}
		for msg := range batch.Messages() {
			is, err := msg.Metadata()
			if err != nil {
				return err
			}
			if err := out.Encode(progress{Seq: is.Sequence.Stream, Attempt: is.NumDelivered}); err != nil {
				return err
			}
			if strings.HasPrefix(msg.Subject(), "github.status") {
				var s commitStatus
				if err := json.Unmarshal(msg.Data(), &s); err != nil {
					return err
				}
				fmt.Fprintln(os.Stderr, "the author is", s.Commit.Author.Login) // the mistake
			}
			if err := errors.Join(msg.DoubleAck(ctx), out.Encode(progress{Seq: is.Sequence.Stream, Handled: true})); err != nil {
				return err
			}
		}
		if err := batch.Error(); err != nil && !errors.Is(err, jetstream.ErrNoHeartbeat) { // of a slow machine
			return err
		}
	}
	return nil
}

// ward starts the worker anew whenever it has crashed.
type ward struct {
	d     *demo
	ended chan error // one result of keepRunning

	mu      sync.Mutex
	handled map[uint64]bool // sequences
	crashes int
	before  int       // events handled before the first crash
	crashed time.Time // the last time
}

func (w *ward) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.handled)
}

func (w *ward) keepRunning(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := w.run(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// run is one life of the worker. An error is an end that is no crash.
func (w *ward) run(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, w.d.self, "-role", "worker", "-dir", w.d.dir, "-server", w.d.url)
	var said bytes.Buffer
	cmd.Stderr = &said
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var last progress
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		var p progress
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			continue // the line in which it died
		}
		if last = p; p.Handled {
			w.mu.Lock()
			w.handled[p.Seq] = true
			w.mu.Unlock()
		}
	}
	err = cmd.Wait()
	_, panicked, crashed := strings.Cut(said.String(), "panic: ")
	if !crashed {
		return fmt.Errorf("worker: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	pause := ""
	if w.crashes++; w.crashes == 1 {
		w.before = len(w.handled)
	} else {
		pause = fmt.Sprintf(" after %.1fs", time.Since(w.crashed).Seconds())
	}
	w.crashed = time.Now()
	fmt.Printf("   event %d, attempt %d%s: the worker dies: %s\n", last.Seq, last.Attempt, pause, firstLine([]byte(panicked)))
	if w.crashes > 2*maxAttempts {
		return errors.New("the worker crashes without an end")
	}
	return nil
}
