package clustertest_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the command, which TestMain builds.
var binary string

// command is signet as the principal root, with all nodes in its context.
func (r *rig) command(args ...string) *exec.Cmd {
	r.Helper()
	home := filepath.Join(filepath.Dir(r.Nodes[0].State.Creds["root"]), "home")
	env := append(os.Environ(), "SIGNET_HOME="+home)
	if _, err := os.Stat(home); err != nil {
		st := r.Nodes[0].State
		add := exec.CommandContext(r.ctx, binary, "context", "add", "ops", "--server", r.URLs(), "--nkey", st.Creds["root"], "--ca", st.CA, "--root", st.Root, "--select")
		add.Env = env
		if out, err := add.CombinedOutput(); err != nil {
			r.Fatalf("context: %v\n%s", err, out)
		}
	}
	cmd := exec.CommandContext(r.ctx, binary, args...)
	cmd.Env = env
	return cmd
}

// signet runs the command and returns what it wrote.
func (r *rig) signet(args ...string) (string, error) {
	r.Helper()
	var out bytes.Buffer
	cmd := r.command(args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// exit is the exit code of a run.
func exit(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	e, ok := err.(*exec.ExitError) //nolint:errorlint // as Run returns it
	if !ok {
		t.Fatal(err)
	}
	return e.ExitCode()
}
