// Command faults takes the broker's promise by its word: an event that was
// acknowledged is there, once, in order and attested, after kill -9, after a
// power cut under load, after changes of the key of an encrypted store, and after a
// full disk, from which the broker comes back by itself. The stream has a log, which must
// go on by itself and agree with it, but on the small volumes and where clocks are wrong.
// Exit codes: 0 all held, 1 something was lost or failed, 2 wrong flags.
//
// The broker runs as a child process with real TLS and its default durability.
// A full disk is a small ext4 volume that another writer fills: in turn up to just below
// the hard watermark, so that the load itself reaches it, and to the last block at
// once, so that the store may fail. Every publisher must be told; then the writer goes,
// and the time until the first acknowledgement is printed. Where the broker asks to
// be started anew (exit code 75) the command does what a service manager would.
//
// With -cluster three nodes run as processes, and more happens to them: pauses,
// partitions, half-open and lossy links, damage on disk, wiped volumes, nodes replaced, rolling
// restarts, policies that change in the middle of it, clocks that are wrong or are set while a node
// runs (a binary whose time.Now is replaced), a full disk of one node, an upgrade from an
// earlier build and the way back. What is refused meanwhile must be, and its dead letters exact.
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

// options are what the flags say.
type options struct {
	kills     int
	cuts      int
	changes   int
	disk      int
	cluster   bool
	quick     bool
	dir       string
	encrypted bool
	keyFile   string         // of encryption at rest; empty: none
	load      time.Duration  // under load before a fault, plus up to as much again
	readers   time.Duration  // bound of reading everything back
	seed      uint64         // of all choices in a cluster
	binary    string         // of signet, for a cluster
	skews     int            // changes of a clock in a cluster
	upgrade   string         // revision, noUpgrade, or empty: the last release
	plan      map[string]int // of the faults of a cluster; nil: the usual
}

func run() int {
	var o options
	flag.IntVar(&o.kills, "kills", 20, "kill -9 cycles; 0 for none")
	flag.IntVar(&o.cuts, "cuts", 5, "power cuts; 0 for none (they need root on Linux)")
	flag.IntVar(&o.changes, "keychange", 0, "cycles of key changes, kills, restarts and wrong keys with an encrypted store; 0 for none")
	flag.IntVar(&o.disk, "disk", 0, "times that the disk is filled under load, at most 20 (needs root on Linux)")
	flag.BoolVar(&o.encrypted, "encrypted", false, "encrypt the store in the kill -9 cycles and the power cuts of one broker")
	flag.BoolVar(&o.cluster, "cluster", false, "hurt a cluster of three nodes, in more ways, instead of a broker by itself")
	flag.BoolVar(&o.quick, "quick", false, "with -cluster: each fault once or a few times, instead of -kills")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "with -cluster: of which node is hurt when; printed")
	flag.IntVar(&o.skews, "skews", 6, "with -cluster: changes of a node's clock under load, at most 2 with -quick; 0 for none")
	flag.StringVar(&o.upgrade, "upgrade-from", "", "with -cluster: git revision from which nodes are upgraded under load; none leaves it out (default: the newest tag before HEAD)")
	flag.Func("plan", "with -cluster: only these faults, as in kill=2,half-open=4, instead of -kills and -quick", func(text string) (err error) {
		o.plan, err = chosen(text)
		return err
	})
	flag.StringVar(&o.binary, "signet", "", "with -cluster: the signet binary (default: built with the go command)")
	flag.StringVar(&o.dir, "dir", "", "folder for state and disk images (default: the system's for temporary files)")
	flag.DurationVar(&o.load, "load", 400*time.Millisecond, "load before a fault, plus a random time up to as much again")
	limit := flag.Duration("limit", 15*time.Minute, "bound of the whole run")
	flag.Parse()
	if flag.NArg() > 0 || o.kills < 0 || o.skews < 0 || o.cuts < 0 || o.changes < 0 || o.disk < 0 || o.disk > 20 || o.load <= 0 {
		flag.Usage()
		return 2
	}
	o.readers = 2 * time.Minute
	if o.cluster {
		o.readers = 5 * time.Minute // at every node, and every copy
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, *limit)
	defer cancel()
	if err := faults(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "faults: FAILED:", err)
		return 1
	}
	if insideNamespace() {
		return 0 // the parent says it
	}
	fmt.Println("faults: nothing that was acknowledged was lost")
	return 0
}

func faults(ctx context.Context, o options) (err error) {
	volumes := o.cuts > 0 || o.disk > 0
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
	if o.encrypted {
		if o.keyFile, err = newKeyFile(o.dir, "faults.key"); err != nil {
			return err
		}
		fmt.Println("the store is encrypted")
	}
	if o.kills > 0 {
		do, what := killCycles, "kill -9"
		if o.cluster {
			do, what = clusterChaos, "cluster"
		}
		if err := do(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if o.cluster {
		if err := clusterWorlds(ctx, o); err != nil {
			return err
		}
	}
	if o.changes > 0 {
		if err := keyChanges(ctx, o.changes, o); err != nil {
			return fmt.Errorf("key changes: %w", err)
		}
	}
	return volumeFaults(ctx, o)
}

// clusterWorlds are the faults that each need another build of signet.
func clusterWorlds(ctx context.Context, o options) error {
	if o.skews > 0 {
		if err := clusterClocks(ctx, o); err != nil {
			return fmt.Errorf("clocks: %w", err)
		}
	}
	if o.upgrade == noUpgrade {
		return nil
	}
	if err := clusterUpgrade(ctx, o); err != nil {
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

// volumeFaults are those that need volumes of their own.
func volumeFaults(ctx context.Context, o options) error {
	if o.cuts == 0 && !insideNamespace() {
		fmt.Println("power cuts: not asked for (-cuts 0)")
	}
	if (o.cuts > 0 || o.disk > 0) && !insideNamespace() {
		return inNamespace(ctx, o, "-kills", "0", "-skews", "0", "-upgrade-from", noUpgrade, "-cuts", strconv.Itoa(o.cuts), "-disk", strconv.Itoa(o.disk))
	}
	if o.cuts > 0 {
		do := powerCuts
		if o.cluster {
			do = clusterCuts
		}
		if err := do(ctx, o); err != nil {
			return err
		}
	}
	if o.disk == 0 {
		return nil
	}
	if o.cluster {
		return clusterDisks(ctx, o.disk, o)
	}
	return fullDisks(ctx, o.disk, o)
}

// killCycles kills the broker under load again and again and then reads all back.
func killCycles(ctx context.Context, o options) (err error) {
	n := o.kills
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
	return errors.Join(v.err(), judgeLog(ctx, b.Address, "kill -9", o.readers), unreadable(&b.cfg))
}

func row(cells ...any) { columns(8, 14, cells) }

// columns prints a line of a table: the first cell and the rest have a width each.
func columns(first, rest int, cells []any) {
	for i, c := range cells {
		if d, ok := c.(time.Duration); ok {
			c = d.Round(time.Millisecond)
		}
		width := rest
		if i == 0 {
			width = first
		}
		fmt.Printf("%-*v", width, c)
	}
	fmt.Println()
}
