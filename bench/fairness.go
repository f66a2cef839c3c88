package bench

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

// Flooder is the principal that publishes as fast as it can, beside the victim, which is Cred.
const Flooder = "flooder"

// fairAlone is the victim by itself; the others are named after what floods.
const fairAlone = "fairness: sync 256 B schema, 1 publisher, alone"

// fairMost is how much a flood may move the victim's p99.
const fairMost = 2.0

const (
	// leastFlood is how many answers make a flood, in one run.
	leastFlood  = 1000
	floodWindow = 1024 // publishes without an answer
)

// floods are what the flooder publishes, and what becomes of it.
var floods = []struct {
	name    string // of the workload
	subject string
	payload []byte
}{
	{"fairness: the same beside a flood at its limit of 1000/s", "plain.limited", order(256)},
	{"fairness: the same beside a flood without a grant", "read.denied", order(256)},
	{"fairness: the same beside a flood of oversize payloads", "plain.small", order(2048)},
	{"fairness: the same beside a flood against a schema", subjectChecked, []byte(`{"id":"` + strings.Repeat("x", 240) + `"}`)},
}

// fairness measures a publisher that waits for each acknowledgement, beside floods of
// another principal. Each run beside a flood has one alone right before it, so that both
// have the same weather.
func (p *pair) fairness(ctx context.Context) error {
	for _, f := range floods {
		if !strings.Contains(f.name, p.Only) {
			continue
		}
		if err := p.victim(ctx, aloneFor(f.name)); err != nil {
			return err
		}
		if err := p.beside(ctx, f.name, f.subject, f.payload); err != nil {
			return err
		}
	}
	return nil
}

// aloneFor names the run alone that belongs to a flood.
func aloneFor(flood string) string {
	_, what, _ := strings.Cut(flood, "the same beside a flood ")
	return fairAlone + ", before " + what
}

func (p *pair) victim(ctx context.Context, name string) error {
	return p.measure(ctx, name, Signet, streamChecked, func() (*Figure, error) {
		return publishSync(ctx, []*nats.Conn{p.conn[Signet]}, subjectChecked, order(256), 1, p.Window)
	})
}

// beside measures the victim while the flood runs.
func (p *pair) beside(ctx context.Context, name, subject string, payload []byte) error {
	nc, err := p.server[Signet].Connect(Flooder)
	if err != nil {
		return err
	}
	defer nc.Close()
	stop := make(chan struct{})
	ended := make(chan error, 1)
	var answers, stored atomic.Int64
	begun := time.Now()
	go func() { ended <- flood(nc, subject, payload, &answers, &stored, stop) }()
	time.Sleep(p.Warm) // until the flood is at its height
	err = p.victim(ctx, name)
	close(stop)
	if ferr := <-ended; err == nil && ferr != nil {
		err = fmt.Errorf("%w: flood %s: %w", ErrLoad, subject, ferr)
	}
	n := answers.Load()
	if err == nil && n < leastFlood {
		err = fmt.Errorf("%w: flood %s: %d answers, which is none", ErrLoad, subject, n)
	}
	took := time.Since(begun).Seconds()
	fmt.Fprintf(p.Log, "%-62s flood  %8.0f/s, of which %.0f/s stored\n", name, float64(n)/took, float64(stored.Load())/took)
	return err
}

// flood publishes until stop, with a reply subject for the answers, and as fast as it may with
// floodWindow of them unanswered: a client that is stopped in a write reads no answers.
func flood(nc *nats.Conn, subject string, payload []byte, answers, stored *atomic.Int64, stop <-chan struct{}) error {
	inbox := nc.NewInbox()
	room := make(chan struct{}, floodWindow)
	sub, err := nc.Subscribe(inbox, func(m *nats.Msg) {
		answers.Add(1)
		if bytes.HasPrefix(m.Data, []byte(`{"stream":`)) {
			stored.Add(1)
		}
		<-room
	})
	if err != nil {
		return err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	for {
		select {
		case <-stop:
			return nil
		case room <- struct{}{}:
		}
		if err := nc.PublishRequest(subject, inbox, payload); err != nil {
			return err
		}
	}
}

// fairnessChecks compares the victim's p99 beside each flood with the one alone, round by round.
func (r *Results) fairnessChecks() []Check {
	var out []Check
	for _, f := range floods {
		with, alone := r.of(f.name, Signet, p99), r.of(aloneFor(f.name), Signet, p99)
		var ratios []float64
		for i := range min(len(with), len(alone)) {
			ratios = append(ratios, with[i]/alone[i])
		}
		if s := spread(ratios); len(ratios) > 0 {
			out = append(out, Check{
				Name: f.name + ", p99", Want: fmt.Sprintf("<= %.1fx alone", fairMost), Got: s.text("%.2f"), OK: s.Median <= fairMost,
			})
		}
	}
	return out
}

func p99(f *Figure) float64 { return float64(f.P99.Nanoseconds()) / 1e3 }
