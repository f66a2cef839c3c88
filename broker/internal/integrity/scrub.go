package integrity

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Defaults and bounds of ScrubConfig.
const (
	DefaultScrubInterval = 24 * time.Hour
	DefaultScrubRate     = 32 << 20 // bytes per second
	minScrubRate         = 64 << 10
	// settle is how long a store may take to finish what looked like damage: a block
	// that is being replaced, a configuration between its two files.
	settle = 2 * time.Second
)

// ScrubConfig is what NewScrubber needs.
type ScrubConfig struct {
	// Dir and SystemAccount as in Options.
	Dir, SystemAccount string
	// Key as in Options.
	Key *StoreKey
	// Ledger gets what was verified and is saved after each pass. Required.
	Ledger *Ledger
	// Interval is the time from the start of one pass to the start of the next. Default
	// DefaultScrubInterval.
	Interval time.Duration
	// Rate is the most that is read per second, in bytes. A pass reads slower than that
	// if it can: it takes the half of Interval. Default DefaultScrubRate.
	Rate int64
	// Found is called, from the scrubber's goroutine, after each pass with the replicas
	// that are damaged, all of them each time. Required.
	Found func(damaged []*Replica, report *Report)
	// Failed is called when a pass could not be completed. Required.
	Failed func(error)
}

// Scrubber verifies the sealed blocks of a store in use, over and over and slowly. It
// only reads. Make it with NewScrubber.
type Scrubber struct {
	cfg    ScrubConfig
	passes atomic.Uint64
	bytes  atomic.Int64

	stop context.CancelFunc
	done chan struct{}
	once sync.Once
}

// NewScrubber returns a scrubber that has started nothing.
func NewScrubber(cfg ScrubConfig) *Scrubber {
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultScrubInterval
	}
	if cfg.Rate <= 0 {
		cfg.Rate = DefaultScrubRate
	}
	return &Scrubber{cfg: cfg, done: make(chan struct{})}
}

// Start begins the first pass after one Interval: what is there was verified at the
// start of the server.
func (s *Scrubber) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	go func() {
		defer close(s.done)
		t := time.NewTicker(s.cfg.Interval)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			if err := s.Pass(ctx); err != nil && ctx.Err() == nil {
				s.cfg.Failed(err)
			}
		}
	}()
}

// Shutdown ends the pass that runs and waits for it, or until ctx ends.
func (s *Scrubber) Shutdown(ctx context.Context) error {
	s.once.Do(s.stop)
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stats returns how many passes were completed and how many bytes were read.
func (s *Scrubber) Stats() (passes uint64, bytes int64) { return s.passes.Load(), s.bytes.Load() }

// Pass verifies everything once. What looks damaged is looked at a second time, since
// the server compacts and removes blocks meanwhile.
func (s *Scrubber) Pass(ctx context.Context) error {
	total, err := StoreBytes(s.cfg.Dir, s.cfg.SystemAccount)
	if err != nil {
		return err
	}
	rate := max(min(int64(float64(total)/(s.cfg.Interval.Seconds()/2)), s.cfg.Rate), min(minScrubRate, s.cfg.Rate))
	c := newCheck(Options{
		Dir: s.cfg.Dir, SystemAccount: s.cfg.SystemAccount, Key: s.cfg.Key, Ledger: s.cfg.Ledger, Full: true, Workers: 1,
		live: true, pace: s.pace(rate),
	})
	found, err := c.find()
	if err != nil {
		return err
	}
	folders := make(map[string]bool, len(found))
	for _, f := range found {
		folders[f.rel] = true
		r, err := c.twice(ctx, f)
		if err != nil {
			return err
		}
		c.report.Replicas = append(c.report.Replicas, *r)
	}
	if err := c.finish(); err != nil {
		return err
	}
	s.cfg.Ledger.keep(folders)
	c.report.Read = c.read.Load()
	s.passes.Add(1)
	s.cfg.Found(c.report.Damaged(), &c.report)
	return s.cfg.Ledger.Save()
}

// pace returns a function that waits until bytes more may be read.
func (s *Scrubber) pace(rate int64) func(context.Context, int64) error {
	free := time.Now()
	return func(ctx context.Context, bytes int64) error {
		wait := time.Until(free)
		if wait < 0 {
			free, wait = time.Now(), 0
		}
		free = free.Add(time.Duration(float64(bytes) / float64(rate) * float64(time.Second)))
		s.bytes.Add(bytes)
		return pause(ctx, wait)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// twice checks a folder of a store in use and, where it seems damaged, once more: only
// what is there both times is damage.
func (c *check) twice(ctx context.Context, f folder) (*Replica, error) {
	first, err := c.folder(ctx, f)
	if errors.Is(err, ErrStore) && ctx.Err() == nil {
		err = pause(ctx, settle) // a folder may go while it is read
		if err == nil {
			first, err = c.folder(ctx, f)
		}
	}
	if err != nil || !first.Damaged() {
		return first, err
	}
	if err := pause(ctx, settle); err != nil {
		return nil, err
	}
	again, err := c.folder(ctx, f)
	if err != nil {
		return nil, err
	}
	again.Damage = slices.DeleteFunc(again.Damage, func(d Damage) bool {
		return !slices.ContainsFunc(first.Damage, func(o Damage) bool { return o.Kind == d.Kind && o.File == d.File && o.From == d.From })
	})
	return again, nil
}
