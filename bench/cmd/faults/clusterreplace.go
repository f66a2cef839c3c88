package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// newMachine is how long nobody is there in place of a node that is lost.
const newMachine = 3 * time.Second

// replaceNode loses a node with all it has stored, and brings it back by the sequence of
// docs/operations.md: signet cluster replace says what to do and when it is done. Then
// another node is killed, so that nothing is acknowledged without the new copy.
func replaceNode(ctx context.Context, r *clusterRun) error {
	i := r.any()
	other := (i + 1 + r.rnd.IntN(r.c.Len()-1)) % r.c.Len()
	if err := awaitStatus(ctx, r, "every stream is whole", allWhole); err != nil {
		return err
	}
	if err := r.strike(ctx, "replaced node", r.c.Name(i), func(ctx context.Context) error {
		r.c.Kill(i)
		if err := r.c.Wipe(i); err != nil {
			return err
		}
		return runReplace(ctx, r, r.c.Name(i), func() error {
			if err := linger(ctx, newMachine); err != nil {
				return err
			}
			return r.c.Start(ctx, i)
		})
	}); err != nil {
		return err
	}
	return r.strike(ctx, "down after that", r.c.Name(other), func(ctx context.Context) error {
		r.c.Kill(other)
		if err := r.w.beats.allBeat(ctx, r.w.fault); err != nil {
			return fmt.Errorf("with %s, which was replaced: %w", r.c.Name(i), r.w.stuck(err))
		}
		return r.c.Start(ctx, other)
	})
}

// runReplace runs the command to its end, and does start when it says so.
func runReplace(ctx context.Context, r *clusterRun, name string, start func() error) (err error) {
	cmd, err := command(ctx, r, "cluster", "replace", name, "--wait", backWait.String(), "-o", "json")
	if err != nil {
		return err
	}
	var said strings.Builder
	cmd.Stderr = &said
	lines, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return err
	}
	var steps []string
	for s := bufio.NewScanner(lines); s.Scan(); {
		var line struct{ Step, Text string }
		if err = json.Unmarshal(s.Bytes(), &line); err != nil {
			err = fmt.Errorf("%s: %w", s.Text(), err)
			break
		}
		steps = append(steps, line.Step)
		if line.Step == "start" {
			if err = start(); err != nil {
				break
			}
		}
	}
	if err != nil {
		_ = cmd.Process.Kill() // it may have ended
	}
	err = errors.Join(err, cmd.Wait())
	if got := strings.Join(steps, " "); err == nil && got != "prepare start wait done" {
		err = fmt.Errorf("%w: its steps are %s", errBroken, got)
	}
	if err != nil {
		return fmt.Errorf("signet cluster replace %s: %w (%s; %s)", name, err, strings.Join(steps, " "), strings.TrimSpace(said.String()))
	}
	return nil
}

// command is signet as the overseer, with all nodes in its context.
func command(ctx context.Context, r *clusterRun, args ...string) (*exec.Cmd, error) {
	home := filepath.Join(r.dir, "home")
	env := append(os.Environ(), "SIGNET_HOME="+home)
	if _, err := os.Stat(home); errors.Is(err, os.ErrNotExist) {
		add := exec.CommandContext(ctx, r.binary, "context", "add", "overseer", "--server", r.at.URL,
			"--nkey", r.at.Creds["overseer"], "--ca", r.at.CA, "--root", r.at.Root, "--select")
		add.Env = env
		if out, err := add.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("signet context add: %w: %s", err, out)
		}
	}
	cmd := exec.CommandContext(ctx, r.binary, args...)
	cmd.Env = env
	return cmd, nil
}
