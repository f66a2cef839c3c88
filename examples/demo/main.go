// Command demo shows the main job of Signet on real events: a broker, a producer,
// a subscriber, a worker that crashes and an intruder as processes of their own, over
// real TLS. It counts what happens and exits non-zero when a count is wrong. Run it with `make demo`.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/signetbus/signet/examples/githubwebhooks"
)

// What the data says. broken is the number of deliveries that are older than
// their schema and break it; schema/jsonschema's TestGitHubDeliveries lists them.
const (
	deliveries = 329
	broken     = 53
	flood      = 300
	limitBurst = 50 // flood: 50/s with a burst of one second
)

var principals = []string{"webhooks", "auditor", "intern", "operator", "worker"}

func main() {
	bin := flag.String("signet", "bin/signet", "the signet binary")
	role := flag.String("role", "", "which process of the demo to be; empty starts them all")
	dir := flag.String("dir", "", "of role worker: the folder of the demo")
	server := flag.String("server", "", "of role worker: the broker")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 150*time.Second)
	defer cancel()
	do := func() error { return run(ctx, *bin, *role) }
	if *role == "worker" {
		do = func() error { return work(ctx, *dir, *server) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, role string) error {
	var r report
	var err error
	switch role {
	case "":
		return all(ctx, bin)
	case "webhooks":
		r, err = webhooks(ctx, role)
	case "auditor":
		r, err = auditor(ctx, role, deliveries-broken)
	case "intern":
		r, err = intern(ctx, role, flood)
	default:
		return fmt.Errorf("no role %q", role)
	}
	return errors.Join(err, json.NewEncoder(os.Stdout).Encode(r))
}

// demo is one run of everything.
type demo struct {
	ctx  context.Context
	bin  string
	dir  string
	self string
	url  string // of the broker
	rows []row
}

// row is one line of the closing table.
type row struct {
	what      string
	got, want string
}

func (d *demo) check(what string, got, want any) {
	d.rows = append(d.rows, row{what, fmt.Sprint(got), fmt.Sprint(want)})
}

func all(ctx context.Context, bin string) (err error) {
	d := &demo{ctx: ctx}
	if d.bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if d.self, err = os.Executable(); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "signet-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	started := time.Now()
	if err := d.prepare(); err != nil {
		return fmt.Errorf("prepare: %w", err)
	}
	stop, err := d.broker()
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"publish and read 329 webhooks", d.publishAndRead},
		{"dead letters", d.deadLetters},
		{"one is mended and redriven", d.redrive},
		{"a consumer crashes on one event, the others flow", d.crash},
		{"an intruder and a flood", d.intruder},
		{"one changed byte", d.oneByte},
	} {
		fmt.Printf("-- %s\n", step.name)
		if err := step.do(); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", step.name, err), stop())
		}
	}
	if err := stop(); err != nil {
		return fmt.Errorf("stop the broker: %w", err)
	}
	return d.table(time.Since(started))
}

func (d *demo) path(p ...string) string { return filepath.Join(append([]string{d.dir}, p...)...) }

// prepare makes credentials, the policy and the schema file.
func (d *demo) prepare() error {
	nkeys := map[string]string{}
	for _, p := range principals {
		out, err := d.signet("keys", "new", "--out", d.path(p+".nk"))
		if err != nil {
			return err
		}
		nkeys[p] = lastWord(out)
	}
	text, err := policy(nkeys)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(d.path("policy.yaml"), text, 0o600),
		os.WriteFile(d.path("schema.json"), githubwebhooks.Schema(), 0o600),
	)
}

func lastWord(b []byte) string {
	f := strings.Fields(string(b))
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1]
}

// broker starts `signet dev` on a free port and adds a context for each principal.
func (d *demo) broker() (stop func() error, err error) {
	cmd := exec.Command(d.bin, "dev", "--state", d.path("state"), "--listen", "127.0.0.1:0", "--ops", "off", "--policy", d.path("policy.yaml"))
	cmd.Env, cmd.Stderr = d.env(), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	}
	lines := bufio.NewScanner(out)
	for d.url == "" && lines.Scan() {
		for _, w := range strings.Fields(lines.Text()) {
			if strings.Contains(lines.Text(), "ready on") && strings.HasPrefix(w, "tls://") {
				d.url = w
			}
		}
	}
	if d.url == "" {
		return nil, errors.Join(errors.New("it did not become ready"), stop())
	}
	go func() { // the pipe must not fill
		for lines.Scan() {
		}
	}()
	root, err := os.ReadFile(d.path("state", "keys", "root.pub"))
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	for _, p := range principals {
		_, err := d.signet("context", "add", p, "--server", d.url, "--nkey", d.path(p+".nk"),
			"--ca", d.path("state", "ca", "ca.pem"), "--root", strings.TrimSpace(string(root)))
		if err != nil {
			return nil, errors.Join(err, stop())
		}
	}
	fmt.Printf("-- broker ready on %s (TLS 1.3, signed events, default deny)\n", d.url)
	return stop, nil
}

func (d *demo) env() []string {
	return append(os.Environ(), "SIGNET_HOME="+d.path("home"))
}

// signet runs the CLI and returns what it printed.
func (d *demo) signet(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(d.ctx, d.bin, args...)
	var stderr bytes.Buffer
	cmd.Env, cmd.Stderr = d.env(), &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("signet %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// start runs a process of the demo; wait returns its report.
func (d *demo) start(role string) (wait func() (report, error), err error) {
	cmd := exec.CommandContext(d.ctx, d.self, "-role", role)
	var stdout bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = d.env(), &stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() (r report, err error) {
		if err := cmd.Wait(); err != nil {
			return r, fmt.Errorf("%s: %w", role, err)
		}
		return r, json.Unmarshal(stdout.Bytes(), &r)
	}, nil
}

func (d *demo) publishAndRead() error {
	reading, err := d.start("auditor")
	if err != nil {
		return err
	}
	publishing, err := d.start("webhooks")
	if err != nil {
		return err
	}
	p, err := publishing()
	if err != nil {
		return err
	}
	d.check("webhook deliveries published", p.Accepted+p.Refused, deliveries)
	d.check("  stored as signed events", p.Accepted, deliveries-broken)
	d.check("  refused: they break their own schema", p.Refused, broken)
	d.check("  refusals that point into the payload", p.Violations, broken)
	r, err := reading()
	if err != nil {
		return err
	}
	d.check("events read and verified", r.Verified, deliveries-broken)
	d.check("  attested as published by demo/webhooks", r.ByPerson["demo/webhooks"], deliveries-broken)
	d.check("  events that did not verify", r.Invalid, 0)
	return nil
}
