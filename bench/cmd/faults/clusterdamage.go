package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// stateOf is the folder of a node's state, as brokertest.Processes makes it of
// ProcessOptions.Stores.
func stateOf(store string) string { return filepath.Join(store, "signet") }

// damage kills a node, damages its copy of the stream on the disk and starts it: the
// node must find that, set the copy aside and fetch it again, before it serves anything.
func damage(ctx context.Context, r *clusterRun, kind string, do func(file string) error) error {
	i := r.any()
	return r.strike(ctx, kind, r.c.Name(i), func(ctx context.Context) error {
		if err := awaitWhole(ctx, r); err != nil {
			return err
		}
		r.c.Kill(i)
		state := stateOf(r.stores[i])
		file, sealed, err := block(r, state)
		if err != nil {
			return err
		}
		before, err := quarantined(state)
		if err != nil {
			return err
		}
		if err := do(file); err != nil {
			return err
		}
		if err := startAgain(ctx, r, i); err != nil {
			return err
		}
		after, err := quarantined(state)
		switch {
		case err != nil:
			return err
		case after > before:
			r.aside++
		case sealed || kind == flippedBit:
			return fmt.Errorf("%w: %s started with a damaged %s and has set nothing aside", errBroken, r.c.Name(i), filepath.Base(file))
		default:
			// The end of the newest block is missing: that is what a crash leaves too,
			// and what the log of the group brings back.
			r.ends++
		}
		return nil
	})
}

// awaitWhole waits until every copy of the stream has everything. A node is ready before
// that, and only where the others have it all a copy may be thrown away.
func awaitWhole(ctx context.Context, r *clusterRun) error {
	nc, err := r.at.Connect("reader")
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	for {
		s, err := js.Stream(ctx, stream)
		if err == nil {
			c := s.CachedInfo().Cluster
			if c != nil && c.Leader != "" && len(c.Replicas) == r.c.Len()-1 &&
				!slices.ContainsFunc(c.Replicas, func(p *jetstream.PeerInfo) bool { return p.Offline || !p.Current }) {
				return nil
			}
		}
		if linger(ctx, 50*time.Millisecond) != nil {
			return fmt.Errorf("%s does not get all of its copies: %w", stream, errors.Join(err, ctx.Err()))
		}
	}
}

// startAgain starts a node as a supervisor does, as long as it says that the others cannot
// do without its damaged copy now: they may be catching up.
func startAgain(ctx context.Context, r *clusterRun, i int) error {
	for {
		err := r.c.Start(ctx, i)
		if err == nil || ctx.Err() != nil || !strings.Contains(r.c.Log(i, 4), "not in touch or not whole now") {
			return err
		}
	}
}

// flippedBit is damage that no crash leaves.
const flippedBit = "flipped bit"

func flipBit(ctx context.Context, r *clusterRun) error {
	return damage(ctx, r, flippedBit, func(file string) error {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		raw[len(raw)/2] ^= 1 << r.rnd.IntN(8)
		return os.WriteFile(file, raw, 0o600)
	})
}

func truncate(ctx context.Context, r *clusterRun) error {
	return damage(ctx, r, "truncated block", func(file string) error {
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		return os.Truncate(file, info.Size()/2)
	})
}

// block chooses a block of the stream's copy, and says whether newer ones come after it.
func block(r *clusterRun, state string) (file string, sealed bool, err error) {
	files, err := filepath.Glob(filepath.Join(state, "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	if err != nil {
		return "", false, err
	}
	files = slices.DeleteFunc(files, func(f string) bool {
		info, err := os.Stat(f)
		return err != nil || info.Size() < 1024
	})
	if len(files) == 0 {
		return "", false, fmt.Errorf("%w: no block of %s in %s", errBroken, stream, state)
	}
	number := func(f string) int {
		n, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(f), ".blk"))
		if err != nil {
			return -1
		}
		return n
	}
	slices.SortFunc(files, func(a, b string) int { return number(a) - number(b) })
	k := r.rnd.IntN(len(files))
	return files[k], k < len(files)-1, nil
}

// quarantined counts what a node has set aside.
func quarantined(state string) (int, error) {
	list, err := os.ReadDir(filepath.Join(state, "quarantine"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	return len(list), err
}

// tellDamage prints what became of the damaged copies.
func tellDamage(r *clusterRun, what string) {
	if r.aside+r.ends > 0 {
		fmt.Printf("%s: %d damaged copies were set aside and fetched again, %d had lost the end of the newest block and got it again\n", what, r.aside, r.ends)
	}
}
