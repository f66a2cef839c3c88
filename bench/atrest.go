package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// The ways to store that AtRest compares.
var atRestCiphers = []string{"", "aes-256", "chacha20"}

// costAtRest are the figures of one way to store, one of each round.
type costAtRest struct {
	lazy, lazyCPU, durable, read, readCPU, start, startCPU []float64
	stored                                                 uint64 // bytes in the stream that is read
}

// AtRest measures Signet against itself with what is stored in the clear and encrypted
// with either cipher, and writes a table: publishing where the disk does not matter and
// where it does, a start over what is stored, which verifies it, and reading after it.
func AtRest(ctx context.Context, p Plan, out io.Writer) error {
	costs := map[string]*costAtRest{}
	for round := range p.Rounds {
		for i := range atRestCiphers { // who goes first changes every round
			name := atRestCiphers[(i+round)%len(atRestCiphers)]
			if costs[name] == nil {
				costs[name] = &costAtRest{}
			}
			if err := costs[name].measure(ctx, &p, name); err != nil {
				return fmt.Errorf("at rest %q: %w", name, err)
			}
			fmt.Fprintf(p.Log, "round %d of %d, %s: done\n", round+1, p.Rounds, label(name))
		}
	}
	plain := costs[""]
	fmt.Fprintf(out, "Median (least-greatest) of %d rounds of %v; the ratio is to the store in the clear, by round.\n\n", p.Rounds, p.Window)
	fmt.Fprintln(out, "| what | at rest | figure | ratio |\n|---|---|---|---|")
	for _, row := range []struct {
		name, format string
		of           func(*costAtRest) []float64
	}{
		{"async 2048 B, lazy, events/s", "%.0f", func(c *costAtRest) []float64 { return c.lazy }},
		{"the same, server CPU us per event", "%.1f", func(c *costAtRest) []float64 { return c.lazyCPU }},
		{fmt.Sprintf("async 256 B, %d in flight, fsync, events/s", p.FsyncWindow), "%.0f", func(c *costAtRest) []float64 { return c.durable }},
		{"start that verifies what is stored, s", "%.2f", func(c *costAtRest) []float64 { return c.start }},
		{"the same, server CPU s", "%.2f", func(c *costAtRest) []float64 { return c.startCPU }},
		{"read after it, ordered consumer, events/s", "%.0f", func(c *costAtRest) []float64 { return c.read }},
		{"the same, server CPU us per event", "%.1f", func(c *costAtRest) []float64 { return c.readCPU }},
	} {
		for _, name := range atRestCiphers {
			got := row.of(costs[name])
			ratio := make([]float64, len(got))
			for i := range got {
				ratio[i] = got[i] / row.of(plain)[i]
			}
			if _, err := fmt.Fprintf(out, "| %s | %s | %s | %s |\n", row.name, label(name), spread(got).text(row.format), spread(ratio).text("%.2f")); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(out, "\nStored when it starts: %.1f MB in the stream that is read, and what was published before.\n", float64(plain.stored)/1e6)
	return err
}

func label(cipher string) string {
	if cipher == "" {
		return "clear"
	}
	return cipher
}

// measure adds one round.
func (c *costAtRest) measure(ctx context.Context, p *Plan, cipher string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp(p.Dir, "atrest-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg := ServerConfig{Kind: Signet, Policy: Policy, Cipher: cipher}
	if cipher != "" {
		cfg.KeyFile = filepath.Join(dir, "store.key")
		if err := os.WriteFile(cfg.KeyFile, []byte(strings.Repeat("0123456789abcdef", 4)+"\n"), 0o600); err != nil {
			return err
		}
	}
	cfg.Sync, cfg.Dir = Durable, filepath.Join(dir, "durable")
	err = withServer(ctx, cfg, func(_ *Server, nc *nats.Conn) error {
		f, err := p.published(nc, 256, p.FsyncWindow)
		if err != nil {
			return err
		}
		c.durable = append(c.durable, f.Rate())
		return nil
	})
	if err != nil {
		return err
	}
	cfg.Sync, cfg.Dir = Lazy, filepath.Join(dir, "lazy")
	err = withServer(ctx, cfg, func(s *Server, nc *nats.Conn) error {
		f, err := used(s, func() (*Figure, error) { return p.published(nc, 2048, p.LazyWindow) })
		if err != nil {
			return err
		}
		c.lazy, c.lazyCPU = append(c.lazy, f.Rate()), append(c.lazyCPU, f.CPU())
		return fill(nc, &nats.Msg{Subject: subjectRead, Data: order(256)}, p.ReadEvents)
	})
	if err != nil {
		return err
	}
	began := time.Now()
	return withServer(ctx, cfg, func(s *Server, nc *nats.Conn) error {
		c.start = append(c.start, time.Since(began).Seconds())
		now, err := s.Stats(false)
		if err != nil {
			return err
		}
		c.startCPU = append(c.startCPU, now.CPU.Seconds())
		if _, c.stored, err = streamState(ctx, nc, streamRead); err != nil {
			return err
		}
		f, err := used(s, func() (*Figure, error) { return readOrdered(ctx, nc, p.ReadEvents) })
		if err != nil {
			return err
		}
		c.read, c.readCPU = append(c.read, f.Rate()), append(c.readCPU, f.CPU())
		return nil
	})
}

func withServer(ctx context.Context, cfg ServerConfig, do func(*Server, *nats.Conn) error) error {
	s, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	nc, err := s.Connect(Cred)
	if err != nil {
		return errors.Join(err, s.Stop())
	}
	err = do(s, nc)
	nc.Close()
	return errors.Join(err, s.Stop())
}

// published warms up and publishes for a window.
func (p *Plan) published(nc *nats.Conn, size, window int) (*Figure, error) {
	m := &nats.Msg{Subject: subjectPlain, Data: order(size)}
	if _, err := publishAsync(nc, m, window, p.Warm); err != nil {
		return nil, err
	}
	return publishAsync(nc, m, window, p.Window)
}

// used adds what the server has used meanwhile.
func used(s *Server, run func() (*Figure, error)) (*Figure, error) {
	before, err := s.Stats(false)
	if err != nil {
		return nil, err
	}
	f, err := run()
	if err != nil {
		return nil, err
	}
	after, err := s.Stats(false)
	f.Server = after.Sub(before)
	return f, err
}
