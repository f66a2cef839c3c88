// Command bench measures Signet against raw JetStream in one run and writes the
// table. Exit codes: 0 measured, 1 something failed, 2 wrong flags, 3 -strict and
// a target was missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/signetbus/signet/bench"
)

func main() {
	bench.ServeIfAsked()
	os.Exit(run())
}

func run() int {
	out := flag.String("out", "-", "file for the report; - for standard output")
	quick := flag.Bool("quick", false, "about a minute instead of about four")
	strict := flag.Bool("strict", false, "exit 3 when a target is missed")
	profile := flag.String("profile", "", "folder for CPU profiles of Signet's server in the last round")
	rounds := flag.Int("rounds", 0, "rounds, instead of the plan's")
	only := flag.String("only", "", "measure only workloads whose name contains this")
	atRest := flag.Bool("at-rest", false, "measure instead what encryption at rest costs, with either cipher; about a minute and a half, quick half of it")
	window := flag.Duration("window", 0, "length of one publishing run, instead of the plan's")
	curve := flag.Bool("curve", false, "measure clusters of three instead: throughput against the number of streams; about four minutes, with -quick about one")
	dir := flag.String("dir", "", "folder for the stores, on the volume to measure (default: the system's for temporary files)")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: no arguments, please")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if *curve {
		if err := measureCurve(ctx, *quick, *dir, *out); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			return 1
		}
		return 0
	}
	plan := bench.FullPlan()
	if *quick {
		plan = bench.QuickPlan()
	}
	if *rounds > 0 {
		plan.Rounds = *rounds
	}
	if *window > 0 {
		plan.Window = *window
	}
	plan.Only = *only
	plan.Log, plan.ProfileDir = os.Stderr, *profile
	ok, err := true, error(nil)
	if *atRest {
		err = measureAtRest(ctx, plan, *dir, *out)
	} else {
		ok, err = measure(ctx, plan, *dir, *out)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	case *strict && !ok:
		return 3
	}
	return 0
}

func measureAtRest(ctx context.Context, plan bench.Plan, dir, out string) (err error) {
	if plan.Dir, err = os.MkdirTemp(dir, "signet-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(plan.Dir)) }()
	var text strings.Builder
	e := environment(plan)
	fmt.Fprintf(&text, "# What encryption at rest costs\n\nWritten by `%s`.\n\n- Date: %s\n- Machine: %s\n- Versions: %s\n- Store volume: %s\n\n",
		e.Command, e.Date.UTC().Format("2006-01-02 15:04 MST"), e.Machine, e.Versions, e.Volume)
	if err := bench.AtRest(ctx, plan, &text); err != nil {
		return err
	}
	if out == "-" {
		_, err = os.Stdout.WriteString(text.String())
		return err
	}
	return os.WriteFile(out, []byte(text.String()), 0o644)
}

func measure(ctx context.Context, plan bench.Plan, dir, out string) (ok bool, err error) {
	if plan.Dir, err = os.MkdirTemp(dir, "signet-bench-"); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(plan.Dir)) }()
	if plan.ProfileDir != "" {
		if err := os.MkdirAll(plan.ProfileDir, 0o755); err != nil {
			return false, err
		}
	}
	env := environment(plan)
	r, err := bench.Run(ctx, plan)
	if err != nil {
		return false, err
	}
	checks := r.Checks()
	for _, c := range checks {
		mark := "pass"
		switch {
		case !c.OK && c.Strict:
			mark = "MISS"
		case !c.OK:
			mark = "over"
		}
		fmt.Fprintf(os.Stderr, "%s  %-78s %-12s %s\n", mark, c.Name, c.Want, c.Got)
	}
	var w io.Writer = os.Stdout
	if out != "-" {
		f, err := os.Create(out)
		if err != nil {
			return false, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		w = f
	}
	return !bench.Missed(checks), r.Write(w, env)
}

func environment(plan bench.Plan) *bench.Environment {
	e := &bench.Environment{Date: time.Now(), Plan: plan, Command: "go run ./bench/cmd/bench " + strings.Join(os.Args[1:], " ")}
	e.Machine = fmt.Sprintf("%d cores, %s, %s/%s", runtime.NumCPU(), cpuModel(), runtime.GOOS, runtime.GOARCH)
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		e.Machine += " " + strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		e.Machine += ", load at the start " + strings.Fields(string(b))[0]
	}
	e.Versions = runtime.Version()
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if strings.HasPrefix(m.Path, "github.com/nats-io/nats") {
				e.Versions += ", " + strings.TrimPrefix(m.Path, "github.com/nats-io/") + " " + m.Version
			}
		}
	}
	e.Volume = volume(plan.Dir)
	return e
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// volume names the file system that holds dir, from the longest mount point over it.
func volume(dir string) string {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown"
	}
	best, kind := "", "unknown"
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) {
			continue
		}
		if dir == f[1] || strings.HasPrefix(dir, strings.TrimSuffix(f[1], "/")+"/") {
			best, kind = f[1], f[2]
		}
	}
	return kind
}
