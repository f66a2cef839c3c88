package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/doctor"
)

// Values of -o that only doctor has.
const (
	outputPrometheus = "prometheus"
	outputNagios     = "nagios"
)

// examination is what doctor is asked to look at.
type examination struct {
	config     string
	ops        string
	ignore     []string
	sample     time.Duration
	thresholds doctor.Thresholds
}

// result is what an examination found, with what it read on the way.
type result struct {
	report  *doctor.Report
	folder  *doctor.Folder
	metrics string
}

func doctorCommand(a *app) *cobra.Command {
	x := examination{thresholds: doctor.DefaultThresholds()}
	cmd := &cobra.Command{
		Use: "doctor [--context NAME] [--config FILE] [flags]", Short: "find what to repair",
		Args: cobra.NoArgs, DisableFlagsInUseLine: true, Annotations: map[string]string{outputsKey: outputPrometheus + "," + outputNagios},
		Long: `Examines a broker: with --config the folder (configuration, policy, keys, modes,
certificates, clock, volume, limits) and the operations port that it names; with a
context the running broker, or each node that the context lists (reach, TLS, health,
durability, streams, consumers, dead letters, refusals). A context that is selected
is used by itself unless --config is given alone. It changes nothing. Grants: admin
status and refusals.

Exit codes are those of Nagios, not those of the other commands:
0 ok, 1 warning, 2 critical, 3 unknown. -o prometheus ends with 0 whatever it found.
-o nagios prints one line with performance data. Thresholds are WARNING,CRITICAL;
0 means never.`,
		Example: "  signet doctor --config /etc/signet/signet.yaml\n  signet doctor --context dev-operator --ops http://127.0.0.1:8222\n  signet doctor --context prod -o nagios --stuck 5m,30m --ignore DLQ_003",
		RunE:    a.verb(func(ctx context.Context, _ []string) error { return runDoctor(ctx, a, &x) }),
	}
	f := cmd.Flags()
	f.StringVar(&x.config, "config", "", "configuration file of the broker, on this machine")
	f.StringVar(&x.ops, "ops", "", "operations port, http://host:port (default: that of --config; off: none)")
	f.StringSliceVar(&x.ignore, "ignore", nil, "leave these checks out, such as KEYS_004,DISK_005")
	f.DurationVar(&x.sample, "sample", 0, "look at the consumers twice, this far apart (default: once)")
	t := &x.thresholds
	f.Var(&pairFlag{p: &t.DiskFree}, "disk-free", "percent of the volume that is free")
	f.Var(&pairFlag{p: &t.Expiry, time: true}, "expiry", "time until certificates, keyring and keys expire")
	f.Var(&pairFlag{p: &t.Full}, "full", "percent of a stream or tenant that is full")
	f.Var(&pairFlag{p: &t.Unread}, "unread", "percent of its age limit that an unread event has")
	f.Var(&pairFlag{p: &t.Stuck, time: true}, "stuck", "time in which a consumer with events to do finished none")
	f.Var(&pairFlag{p: &t.Redelivered}, "redelivered", "events of one consumer that were delivered more than once")
	f.Var(&pairFlag{p: &t.DeadLetters}, "dead-letters", "dead letters of the tenant")
	f.Var(&pairFlag{p: &t.Refusals}, "refusals", "refusals of one code in the window")
	f.DurationVar(&t.RefusalWindow, "refusal-window", t.RefusalWindow, "how far back refusals count")
	f.Var(&pairFlag{p: &t.RoundTrip, time: true}, "round-trip", "time of one admin request")
	f.Var(&pairFlag{p: &t.Clock, time: true}, "clock", "time between the clocks here and of the broker")
	f.Var(&pairFlag{p: &t.OpenFiles}, "open-files", "percent of the broker's file descriptors")
	f.Var(&pairFlag{p: &t.LogBehind, time: true}, "log-behind", "time that something stored waits for a checkpoint")
	return cmd
}

func runDoctor(ctx context.Context, a *app, x *examination) error {
	for _, id := range x.ignore {
		if !slices.ContainsFunc(doctor.Checks(), func(c doctor.Check) bool { return c.ID == id }) {
			return plugin(&usageError{msg: fmt.Sprintf("--ignore %s: there is no such check", id), fix: "docs/operations.md lists them"})
		}
	}
	r, err := examine(ctx, a, x)
	if err != nil {
		return plugin(err)
	}
	switch a.output {
	case outputJSON:
		err = a.printJSON(r.report)
	case outputPrometheus:
		return r.report.WritePrometheus(a.stdout)
	case outputNagios:
		err = r.report.WriteNagios(a.stdout)
	default:
		printReport(a, r.report)
	}
	if err == nil && r.report.Severity != doctor.OK {
		err = &exitError{code: int(r.report.Severity)}
	}
	return err
}

// plugin makes err end with the code for unknown: to Nagios the usual 2 and 1 are
// states of the broker.
func plugin(err error) error { return &exitError{code: int(doctor.Unknown), err: err} }

// examine looks at all that x names.
func examine(ctx context.Context, a *app, x *examination) (*result, error) {
	saved, err := a.loadContext()
	if err != nil {
		// Without a context only the folder and the operations port are left, which is
		// fine unless one was asked for.
		if a.contextName != "" || a.getenv(envContext) != "" || x.config == "" && x.ops == "" {
			return nil, err
		}
		saved = nil
	}
	if x.config != "" && a.contextName == "" && a.getenv(envContext) == "" {
		saved = nil // the selected context may be that of another broker
	}
	var (
		found []doctor.Finding
		r     result
	)
	if x.config != "" {
		if _, err := os.Stat(x.config); errors.Is(err, fs.ErrNotExist) {
			return nil, &usageError{msg: fmt.Sprintf("there is no configuration %s", x.config), fix: "signet init DIR writes one"}
		}
		part, folder := doctor.Offline(ctx, x.config, a.getenv, time.Now(), x.thresholds)
		found, r.folder = append(found, part...), &folder
	}
	if base := opsURL(x.ops, r.folder); base != "" {
		part, metrics := doctor.Scrape(ctx, base, a.timeout, x.thresholds, time.Now())
		found, r.metrics = append(found, part...), metrics
	}
	if saved != nil {
		target, err := a.target(saved, r.folder, x.sample)
		if err != nil {
			return nil, err
		}
		found = append(found, doctor.Online(ctx, *target, x.thresholds, time.Now)...)
	}
	r.report = doctor.NewReport(time.Now(), found, x.ignore)
	return &r, nil
}

// opsURL is the operations port: as asked for, else as the configuration says.
func opsURL(asked string, folder *doctor.Folder) string {
	switch {
	case asked == "off":
		return ""
	case asked != "" && !strings.Contains(asked, "://"):
		return "http://" + asked
	case asked != "":
		return asked
	case folder == nil || folder.Config.Ops.Listen == "off":
		return ""
	}
	host, port, err := net.SplitHostPort(folder.Config.Ops.Listen)
	if err != nil || port == "0" {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// target is every address of a context, each to be asked by itself.
func (a *app) target(saved *client.Context, folder *doctor.Folder, sample time.Duration) (*doctor.Target, error) {
	conf, err := contextTLS(saved)
	if err != nil {
		return nil, err
	}
	t := &doctor.Target{Folder: folder, Sample: sample, Timeout: a.timeout}
	for address := range strings.SplitSeq(saved.URL, ",") {
		address = strings.TrimSpace(address)
		t.Nodes = append(t.Nodes, doctor.Node{Address: address, TLS: conf, Connect: func(ctx context.Context) (*client.Client, error) {
			return client.Connect(ctx, address, client.WithContext(saved.Name), client.WithName("signet-doctor"), client.WithTimeout(a.timeout))
		}})
	}
	return t, nil
}

func printReport(a *app, r *doctor.Report) {
	g := newGrid(a.stdout, "STATE", "CHECK", "OBJECT", "FOUND")
	for i := range r.Findings {
		f := &r.Findings[i]
		state := f.Severity.String()
		if f.Severity != doctor.OK {
			state = strings.ToUpper(state)
		}
		g.row(state, f.ID, f.Object, f.What)
		if f.Fix != "" {
			g.row(" ", " ", " ", "fix: "+f.Fix)
		}
	}
	g.flush()
	fmt.Fprintf(a.stdout, "\n%s: %d critical, %d warning, %d unknown, %d ok\n", strings.ToUpper(r.Severity.String()),
		r.Count(doctor.Critical), r.Count(doctor.Warning), r.Count(doctor.Unknown), r.Count(doctor.OK))
}

// pairFlag reads WARNING,CRITICAL: numbers, or spans of time such as 30d or 15m.
type pairFlag struct {
	p    *doctor.Pair
	time bool
}

func (f *pairFlag) String() string {
	if f.p == nil {
		return ""
	}
	return f.text(f.p.Warning) + "," + f.text(f.p.Critical)
}

func (f *pairFlag) text(v float64) string {
	if !f.time {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	if days := v / (24 * 3600); days >= 1 && days == float64(int(days)) {
		return strconv.Itoa(int(days)) + "d"
	}
	return time.Duration(v * float64(time.Second)).String()
}

func (f *pairFlag) Type() string { return "warning,critical" }

func (f *pairFlag) Set(s string) error {
	w, c, ok := strings.Cut(s, ",")
	warning, err1 := f.parse(w)
	critical, err2 := f.parse(c)
	if err := cmp.Or(err1, err2); !ok || err != nil || warning < 0 || critical < 0 {
		if f.time {
			return errors.New("want WARNING,CRITICAL such as 15m,1h or 30d,7d")
		}
		return errors.New("want WARNING,CRITICAL such as 80,95")
	}
	f.p.Warning, f.p.Critical = warning, critical
	return nil
}

func (f *pairFlag) parse(s string) (float64, error) {
	s = strings.TrimSpace(s)
	if !f.time {
		return strconv.ParseFloat(s, 64)
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		return n * 24 * 3600, err
	}
	if s == "0" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	return d.Seconds(), err
}
