package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
)

// clockEnv names the file with the offset of a node's clock: whole seconds in 8 bytes, in
// the order of the machine. The node has it mapped, so that a change is in force at once.
const clockEnv = "SIGNET_FAULTS_CLOCK"

// skews are the offsets that nodes run with under load, in turn. All nodes together
// stay within the least window in which a stream knows an event id again.
var skews = []time.Duration{30 * time.Second, -30 * time.Second, time.Minute, -time.Minute, 75 * time.Second, -75 * time.Second}

// farSkews must keep a node from starting.
var farSkews = []time.Duration{-10 * time.Minute, -2 * time.Hour, 10 * time.Minute, worstSkew, 400 * 24 * time.Hour}

const (
	maxSkew = 75 * time.Second
	// worstSkew is ahead by more than the stream keeps events (30 days), and by less than
	// certificates last: the store would take everything for too old.
	worstSkew  = 40 * 24 * time.Hour
	quickSkews = 2
	farWait    = 15 * time.Second // for a node that must not start
)

// What is replaced in the standard library. Everything in the binary, nats-server and
// TLS included, reads the wall clock there; the monotonic clock stays as it is.
const (
	nowBegins   = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	importBegin = "import (\n\t\"errors\"\n\t\"math/bits\"\n"
	clockSource = `
var noOffset int64

var clockOffset = func() *int64 {
	file, ok := syscall.Getenv("` + clockEnv + `")
	if !ok {
		return &noOffset
	}
	fd, err := syscall.Open(file, syscall.O_RDONLY, 0)
	if err != nil {
		panic("` + clockEnv + `: " + err.Error())
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("` + clockEnv + `: " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
}()
`
)

var errToolchain = errors.New("this toolchain's time.Now is not the one that is known here: look at nowBegins in bench/cmd/faults/clusterclock.go")

// skewedBinary builds a signet whose clock goes wrong by clockEnv.
func skewedBinary(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(out)), "src", "time", "time.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	source, err := skewSource(string(text))
	if err != nil {
		return "", fmt.Errorf("%w (%s)", err, original)
	}
	changed, overlay, binary := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "signet-skewed")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(changed, []byte(source), 0o600), os.WriteFile(overlay, list, 0o600)); err != nil {
		return "", err
	}
	return binary, brokertest.BuildSignet(ctx, binary, "-overlay", overlay)
}

// skewSource is time.go of the standard library with the offset in time.Now.
func skewSource(source string) (string, error) {
	if strings.Count(source, nowBegins) != 1 || strings.Count(source, importBegin) != 1 {
		return "", errToolchain
	}
	source = strings.Replace(source, nowBegins, nowBegins+"\tsec += *clockOffset\n", 1)
	return strings.Replace(source, importBegin, importBegin+"\t\"syscall\"\n\t\"unsafe\"\n", 1) + clockSource, nil
}

// clusterClocks sets the clocks of nodes wrong under load.
func clusterClocks(ctx context.Context, o options) (err error) {
	if o.binary, err = skewedBinary(ctx, o.dir); err != nil {
		return err
	}
	if err := clusterJumps(ctx, o); err != nil {
		return err
	}
	fmt.Printf("clocks of a cluster of %d, seed %d\n", clusterNodes, o.seed)
	r, err := newClusterRun(ctx, o, "clocks", ground{})
	if err != nil {
		return err
	}
	defer r.close()
	r.w.l.clocks = maxSkew
	n, far := o.skews, farSkews
	if o.quick {
		n, far = min(n, quickSkews), []time.Duration{worstSkew}
	}
	wide("fault", "node", "whole after", "nobody acked", "slowest", "acked", "total acked")
	if err = skewAll(ctx, r, n); err == nil {
		err = r.judge(ctx, "clocks")
	}
	if err == nil {
		err = farAll(ctx, r, far)
	}
	if err != nil {
		r.logs()
	}
	return err
}

// skewAll sets one clock after the other, every second time that of the leader, and
// after each kills the leader, so that nodes with other clocks lead.
func skewAll(ctx context.Context, r *clusterRun, n int) error {
	order := r.rnd.Perm(len(skews))
	led := 0
	for k := range n {
		i := r.any()
		if k%2 == 1 {
			var err error
			if i, err = r.leader(ctx); err != nil {
				return err
			}
		}
		if err := setClock(ctx, r, i, skews[order[k%len(order)]]); err != nil {
			return err
		}
		if err := r.killLeader(ctx); err != nil {
			return err
		}
		leads, err := r.leader(ctx)
		if err != nil {
			return err
		}
		if clock(r, leads) != 0 {
			led++
		}
	}
	fmt.Printf("clocks: %d changes, after %d of them the stream was led by a node whose clock is wrong\n", n, led)
	return nil
}

// setClock restarts a node with another clock. The node must say that the others have
// another one.
func setClock(ctx context.Context, r *clusterRun, i int, off time.Duration) error {
	return r.strike(ctx, "clock "+signed(off), r.c.Name(i), func(ctx context.Context) error {
		r.c.Kill(i)
		if err := setOffset(r, i, off); err != nil {
			return err
		}
		before := warned(r, i)
		if err := r.c.Start(ctx, i); err != nil {
			return err
		}
		if warned(r, i) == before {
			return fmt.Errorf("%w: %s has a clock that is %s off and does not say so", errBroken, r.c.Name(i), signed(off))
		}
		return nil
	})
}

// warned counts how often a node has said that clocks differ.
func warned(r *clusterRun, i int) int {
	return strings.Count(r.c.Log(i, math.MaxInt), "another node's clock differs")
}

// setOffset sets the clock of a node, whether it runs or not; before its first start.
func setOffset(r *clusterRun, i int, off time.Duration) error {
	file := filepath.Join(r.dir, r.c.Name(i)+".clock")
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600) // what a node has mapped stays the file
	if err != nil {
		return err
	}
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(off/time.Second))
	_, err = f.WriteAt(b[:], 0)
	r.launch[i].env, r.launch[i].off = []string{clockEnv + "=" + file}, off
	return errors.Join(err, f.Close())
}

func clock(r *clusterRun, i int) time.Duration { return r.launch[i].off }

func signed(d time.Duration) string {
	if d > 0 {
		return "+" + d.String()
	}
	return d.String()
}

// lastWords is what a node says that ended by itself, without its log.
func lastWords(r *clusterRun, i int) string {
	var out []string
	for line := range strings.Lines(r.c.Log(i, 4)) {
		line = strings.TrimSpace(strings.ReplaceAll(line, r.dir+string(filepath.Separator), ""))
		if !strings.HasPrefix(line, "{") && !slices.Contains(out, line) {
			out = append(out, line)
		}
	}
	return strings.Join(out, "; ")
}

// farAll proves that a node does not start whose clock is far off, that it comes back
// when its clock is right again, and that no copy has lost anything. There is no load any
// more: what is stored must stay.
func farAll(ctx context.Context, r *clusterRun, far []time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, r.readers)
	defer cancel()
	for i := range r.c.Len() {
		r.c.Kill(i)
		if err := setOffset(r, i, 0); err != nil {
			return err
		}
		if err := r.c.Start(ctx, i); err != nil {
			return err
		}
	}
	for _, off := range far {
		i := r.any()
		r.c.Kill(i)
		if err := errors.Join(setOffset(r, i, off), r.c.Launch(i)); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, farWait)
		err := r.c.AwaitReady(wait, i)
		cancel()
		if err == nil {
			return fmt.Errorf("%w: %s started with a clock that is %s off", errBroken, r.c.Name(i), signed(off))
		}
		fmt.Printf("a clock that is %s off: %s does not start: %s\n", signed(off), r.c.Name(i), lastWords(r, i))
		r.c.Kill(i)
		if err := errors.Join(setOffset(r, i, 0), r.c.Start(ctx, i)); err != nil {
			return fmt.Errorf("%s with the right time again: %w", r.c.Name(i), err)
		}
	}
	last, err := lastSequence(ctx, r.at)
	if err != nil {
		return err
	}
	return r.copies(ctx, "far clocks", last)
}
