package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/signetbus/signet/bench"
)

// What is done to an encrypted broker between two loads, in turn.
const (
	actKill      = "kill"       // and start with the same key
	actChange    = "change"     // start with a new key and the previous one
	actStop      = "stop"       // an orderly stop and start before the load
	actCutChange = "cut change" // kill -9 within the start that changes the key
	actWrongKey  = "wrong key"  // a start that must be refused
)

var acts = []string{actChange, actKill, actCutChange, actWrongKey, actStop}

const (
	// syncPause is over the interval after which nats-server by itself compacts blocks
	// half of which were deleted: upstream had faults there with encryption on.
	syncPause = 33 * time.Second
	// longCycle is which cycle of each round of acts lasts that long.
	longCycle = 2
	// startCut is within which the start that changes a key is killed.
	startCut = 120 * time.Millisecond
)

// encrypted is a broker with an encrypted store, and the load on it.
type encrypted struct {
	*subject
	o       options
	l       *ledger
	keep    *keeper
	churn   *churn
	keys    int // made so far
	wrong   string
	changes int
}

// keyChanges runs publishers and a bucket that is rewritten and one that ages out
// against an encrypted store, kills and restarts it, changes its key, also in the
// middle of a kill, tries a wrong key, and reads everything back.
func keyChanges(ctx context.Context, n int, o options) (err error) {
	e := &encrypted{o: o, l: newLedger(), churn: newChurn()}
	e.subject = &subject{cfg: bench.ServerConfig{Kind: bench.Signet, Sync: bench.Durable, Dir: filepath.Join(o.dir, "keychange"), Policy: policy}}
	defer func() { e.kill() }()
	if e.cfg.KeyFile, err = newKeyFile(o.dir, "change-0.key"); err != nil {
		return err
	}
	if e.wrong, err = newKeyFile(o.dir, "wrong.key"); err != nil {
		return err
	}
	begin := time.Now()
	if err := e.start(ctx); err != nil {
		return err
	}
	if e.keep, err = newKeeper(ctx, e.Address, e.l); err != nil {
		return err
	}
	defer e.keep.close()
	row("cycle", "under load", "acked", "total acked", "then", "back after", "values", "checked")
	for i := range n {
		if err := e.step(ctx, i); err != nil {
			return fmt.Errorf("cycle %d: %w", i+1, err)
		}
	}
	if err := e.keep.finish(ctx); err != nil {
		return err
	}
	v, err := readBack(ctx, e.Address, e.l, begin, o.readers)
	if err != nil {
		return err
	}
	v.print("encrypted store", n)
	fmt.Printf("encrypted store: %d key changes, %d values of buckets written, %d read back after starts, %d aged out\n",
		e.changes, e.churn.written(), e.churn.checked, e.churn.gone)
	return errors.Join(v.err(), unreadable(&e.cfg))
}

// step loads the broker, ends it, does the act of the cycle, and checks the buckets.
func (e *encrypted) step(ctx context.Context, i int) error {
	before, act := e.l.acked(), acts[i%len(acts)]
	if act == actStop {
		if err := e.Stop(); err != nil {
			return fmt.Errorf("orderly stop: %w", err)
		}
		if err := e.start(ctx); err != nil {
			return err
		}
	}
	stopChurn, err := e.churn.run(e.Address)
	if err != nil {
		return err
	}
	defer stopChurn()
	if i%len(acts) == longCycle {
		select {
		case <-time.After(syncPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	took, err := e.cycle(ctx, e.l, e.keep, e.o.load)
	if err != nil {
		return err
	}
	stopChurn()
	if err := e.act(ctx, act); err != nil {
		return fmt.Errorf("%s: %w", act, err)
	}
	checked, err := e.churn.check(ctx, e.Address)
	if err != nil {
		return err
	}
	row(fmt.Sprint(i+1), took, e.l.acked()-before, e.l.acked(), act, e.startedIn, e.churn.written(), checked)
	return nil
}

// act starts the killed broker again, in the way of the act.
func (e *encrypted) act(ctx context.Context, act string) error {
	switch act {
	case actWrongKey:
		if err := e.tryWrongKey(ctx); err != nil {
			return err
		}
	case actChange, actCutChange:
		e.changes++
		e.keys++
		next, err := newKeyFile(e.o.dir, fmt.Sprintf("change-%d.key", e.keys))
		if err != nil {
			return err
		}
		e.cfg.KeyFile, e.cfg.PreviousKeyFile = next, e.cfg.KeyFile
	}
	if act == actCutChange {
		for range 3 {
			cut, cancel := context.WithTimeout(ctx, mathrand.N(startCut))
			s, err := bench.Start(cut, e.cfg)
			cancel()
			if err == nil {
				s.Kill()
			}
		}
	}
	if err := e.start(ctx); err != nil {
		return err
	}
	e.cfg.PreviousKeyFile = "" // one start is enough
	return nil
}

func (e *encrypted) tryWrongKey(ctx context.Context) error {
	cfg := e.cfg
	cfg.KeyFile = e.wrong
	s, err := bench.Start(ctx, cfg)
	if err == nil {
		s.Kill()
		return fmt.Errorf("%w: the broker started with a wrong key", errBroken)
	}
	if !strings.Contains(err.Error(), "wrong key") {
		return fmt.Errorf("the start with a wrong key failed for another reason: %w", err)
	}
	return nil
}

func newKeyFile(dir, name string) (string, error) {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	file := filepath.Join(dir, name)
	return file, os.WriteFile(file, []byte(hex.EncodeToString(key)), 0o600)
}

// unreadable looks for payloads in the files of an encrypted store.
func unreadable(cfg *bench.ServerConfig) error {
	if cfg.KeyFile == "" {
		return nil
	}
	dir := filepath.Join(cfg.Dir, "store")
	if cfg.Store != "" {
		dir = cfg.Store
	}
	n := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the broker is at work
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case bytes.Contains(data, []byte(pad)) || bytes.Contains(data, []byte(churnPad)):
			return fmt.Errorf("%w: a payload can be read in %s", errBroken, path)
		}
		n++
		return err
	})
	if err == nil && n == 0 {
		err = fmt.Errorf("%w: there are no files in %s", errBroken, dir)
	}
	fmt.Printf("encrypted store: no payload in %d files\n", n)
	return err
}
