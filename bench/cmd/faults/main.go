// Command faults takes the broker's promise by its word: an event that was
// acknowledged is there, once, in order and attested, after kill -9, after a
// power cut under load, after changes of the key of an encrypted store, and after a
// full disk, from which the broker comes back by itself. Exit codes: 0 all held, 1
// something was lost or failed, 2
// wrong flags.
//
// The broker runs as a child process with real TLS and its default durability.
// A full disk is a small ext4 volume that another writer fills: in turn up to just below
// the hard watermark, so that the load itself reaches it, and to the last block at
// once, so that the store may fail. Every publisher must be told; then the writer goes,
// and the time until the first acknowledgement is printed. Where the broker asks to
// be started anew (exit code 75) the command does what a service manager would.
//
// Power cuts are Linux only and need root: the store lies on an ext4 image behind
// a loop device that commits every 300 s; after SIGKILL the image file is copied,
// which has what reached the device and nothing that was still in memory, and the
// broker goes on with the copy. A control run without the durability barrier must
// lose events by the same method, else the method proves nothing and the command
// fails.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/signetbus/signet/bench"
)

func main() {
	bench.ServeIfAsked()
	os.Exit(run())
}

// options are what both kinds of fault share.
type options struct {
	dir     string
	keyFile string        // of encryption at rest; empty: none
	load    time.Duration // under load before a fault, plus up to as much again
	readers time.Duration // bound of reading everything back
}

func run() int {
	kills := flag.Int("kills", 20, "kill -9 cycles; 0 for none")
	cuts := flag.Int("cuts", 5, "power cuts; 0 for none (they need root on Linux)")
	changes := flag.Int("keychange", 0, "cycles of key changes, kills, restarts and wrong keys with an encrypted store; 0 for none")
	encrypted := flag.Bool("encrypted", false, "encrypt the store in the kill -9 cycles and the power cuts")
	disk := flag.Int("disk", 0, "times that the disk is filled under load, at most 20 (needs root on Linux)")
	dir := flag.String("dir", "", "folder for state and disk images (default: the system's for temporary files)")
	load := flag.Duration("load", 400*time.Millisecond, "load before a fault, plus a random time up to as much again")
	limit := flag.Duration("limit", 15*time.Minute, "bound of the whole run")
	flag.Parse()
	if flag.NArg() > 0 || *kills < 0 || *cuts < 0 || *changes < 0 || *disk < 0 || *disk > 20 {
		flag.Usage()
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := faults(ctx, times{*kills, *cuts, *disk, *changes}, *encrypted, options{dir: *dir, load: *load, readers: 2 * time.Minute}); err != nil {
		fmt.Fprintln(os.Stderr, "faults: FAILED:", err)
		return 1
	}
	if insideNamespace() {
		return 0 // the parent says it
	}
	fmt.Println("faults: nothing that was acknowledged was lost")
	return 0
}

// times is how often each fault happens.
type times struct{ kills, cuts, disk, changes int }

func faults(ctx context.Context, n times, encrypted bool, o options) (err error) {
	volumes := n.cuts > 0 || n.disk > 0
	if volumes && !insideNamespace() {
		// Before the long part: somebody who asked for it wants to know.
		if err := canCut(); err != nil {
			return fmt.Errorf("POWER CUTS AND FULL DISKS ARE NOT POSSIBLE HERE, nothing was tested; -cuts 0 -disk 0 leaves them out: %w", err)
		}
	}
	if o.dir, err = os.MkdirTemp(o.dir, "signet-faults-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	if encrypted {
		if o.keyFile, err = newKeyFile(o.dir, "faults.key"); err != nil {
			return err
		}
		fmt.Println("the store is encrypted")
	}
	if n.kills > 0 {
		if err := killCycles(ctx, n.kills, o); err != nil {
			return fmt.Errorf("kill -9: %w", err)
		}
	}
	if n.changes > 0 {
		if err := keyChanges(ctx, n.changes, o); err != nil {
			return fmt.Errorf("key changes: %w", err)
		}
	}
	if n.cuts == 0 && !insideNamespace() {
		fmt.Println("power cuts: not asked for (-cuts 0)")
	}
	if volumes && !insideNamespace() {
		return inNamespace(ctx, o, "-kills", "0", "-cuts", strconv.Itoa(n.cuts), "-disk", strconv.Itoa(n.disk))
	}
	if n.cuts > 0 {
		if err := powerCuts(ctx, n.cuts, o); err != nil {
			return err
		}
	}
	if n.disk > 0 {
		return fullDisks(ctx, n.disk, o)
	}
	return nil
}

// killCycles kills the broker under load again and again and then reads all back.
func killCycles(ctx context.Context, n int, o options) (err error) {
	cfg := bench.ServerConfig{Kind: bench.Signet, Sync: bench.Durable, Dir: filepath.Join(o.dir, "kill"), Policy: policy, KeyFile: o.keyFile}
	l := newLedger()
	begin := time.Now()
	b := &subject{cfg: cfg}
	defer func() { b.kill() }()
	if err := b.start(ctx); err != nil {
		return err
	}
	keep, err := newKeeper(ctx, b.Address, l)
	if err != nil {
		return err
	}
	defer keep.close()
	row("cycle", "under load", "acked", "total acked", "back after")
	for i := range n {
		before := l.acked()
		took, err := b.cycle(ctx, l, keep, o.load)
		if err != nil {
			return fmt.Errorf("cycle %d: %w", i+1, err)
		}
		if err := b.start(ctx); err != nil {
			return fmt.Errorf("restart after cycle %d: %w", i+1, err)
		}
		row(fmt.Sprint(i+1), took, l.acked()-before, l.acked(), b.startedIn)
	}
	if err := keep.finish(ctx); err != nil {
		return err
	}
	v, err := readBack(ctx, b.Address, l, begin, o.readers)
	if err != nil {
		return err
	}
	v.print("kill -9", n)
	return errors.Join(v.err(), unreadable(&b.cfg))
}

func row(cells ...any) {
	for i, c := range cells {
		if d, ok := c.(time.Duration); ok {
			c = d.Round(time.Millisecond)
		}
		width := 14
		if i == 0 {
			width = 8
		}
		fmt.Printf("%-*v", width, c)
	}
	fmt.Println()
}
