package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const readmeFile = "../../README.md"

// quickstart returns the code block of the README that follows the marker.
func quickstart(t *testing.T, name string) string {
	t.Helper()
	return block(t, readmeFile, "quickstart: "+name)
}

// block returns the code block of a document that follows the marker.
func block(t *testing.T, file, marker string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "<!-- "+marker+" -->\n```")
	_, rest, ok2 := strings.Cut(rest, "\n")
	block, _, ok3 := strings.Cut(rest, "\n```")
	if !ok || !ok2 || !ok3 {
		t.Fatalf("%s has no block %q", file, marker)
	}
	return block
}

// newcomer is somebody with a fresh clone and a built binary in bin.
type newcomer struct {
	dir string
	env []string
}

func newNewcomer(t *testing.T) *newcomer {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, "bin", "signet"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	env := append(os.Environ(), "SIGNET_HOME="+filepath.Join(dir, "home"), "SIGNET_CONTEXT=")
	return &newcomer{dir: dir, env: env}
}

func (n *newcomer) command(ctx context.Context, script string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", script)
	cmd.Dir, cmd.Env = n.dir, n.env
	return cmd
}

// dev runs the lines of the first terminal and returns when the broker is ready.
// Only the ports differ from what the README says.
func (n *newcomer) dev(t *testing.T, lines string) {
	t.Helper()
	script := strings.Replace(lines, "\nsignet dev", "\nexec signet dev --listen 127.0.0.1:0 --ops off", 1)
	if script == lines {
		t.Fatalf("the first terminal does not start with signet dev: %q", lines)
	}
	n.broker(t, script, "signet dev: ready on ")
}

// broker runs a script that ends in a broker, and returns when a line with ready is shown.
func (n *newcomer) broker(t *testing.T, script, ready string) {
	t.Helper()
	cmd := n.command(context.Background(), script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	isReady, drained := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(drained)
		for s, told := bufio.NewScanner(out), false; s.Scan(); {
			if !told && strings.Contains(s.Text(), ready) {
				told = true
				close(isReady)
			}
		}
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-drained
		if err := cmd.Wait(); err != nil {
			t.Errorf("the broker ended with %v\n%s", err, stderr.String())
		}
	})
	select {
	case <-isReady:
	case <-drained:
		t.Fatalf("the broker ended early\n%s", stderr.String())
	case <-time.After(time.Minute):
		t.Fatalf("the broker is not ready\n%s", stderr.String())
	}
}

var saysExitCode = regexp.MustCompile(`#.*exit code (\d+)$`)

// run runs each line of a block in a shell of its own, checks the exit code that
// its comment names (0 if none), and returns all that was shown.
func (n *newcomer) run(t *testing.T, block string) string {
	t.Helper()
	var shown strings.Builder
	setup := ""
	for line := range strings.Lines(block) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "export ") {
			setup += line + "\n"
			continue
		}
		want := 0
		if m := saysExitCode.FindStringSubmatch(line); m != nil {
			want, _ = strconv.Atoi(m[1])
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		out, err := n.command(ctx, setup+line).CombinedOutput()
		cancel()
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != want {
			t.Errorf("%s\nexit code %d, the README says %d\n%s", line, code, want, out)
		}
		shown.Write(out)
	}
	return shown.String()
}

// TestReadme does what the README tells a newcomer to do, and compares what is
// shown with what it says.
func TestReadme(t *testing.T) {
	n := newNewcomer(t)
	n.dev(t, quickstart(t, "terminal 1"))
	shown := n.run(t, quickstart(t, "terminal 2"))
	rest := shown
	for line := range strings.Lines(quickstart(t, "output")) {
		for _, part := range strings.Split(strings.TrimSpace(line), " … ") {
			_, after, ok := strings.Cut(rest, strings.TrimSpace(part))
			if !ok {
				t.Fatalf("the README says %q, which does not follow in what is shown:\n%s", part, shown)
			}
			rest = after
		}
	}
	n.goProgram(t, "program", "", quickstart(t, "go"), "stored as ORDERS/", "orders.paid by demo/app: order 1")
}

// goProgram, behind env in a shell, builds the program in a module of its own, as a user of the SDK would,
// and runs it against the broker.
func (n *newcomer) goProgram(t *testing.T, name, env, source string, wants ...string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(n.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	mod := strings.Replace(read("go.mod"), "module github.com/signetbus/signet", "module example", 1) +
		"\nrequire github.com/signetbus/signet v0.0.0\n\nreplace github.com/signetbus/signet => " + root + "\n"
	for name, text := range map[string]string{"go.mod": mod, "go.sum": read("go.sum"), "main.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := n.command(ctx, env+"cd "+name+" && GOFLAGS=-mod=mod GOPROXY=off go vet . && GOFLAGS=-mod=mod GOPROXY=off go run .").CombinedOutput()
	if err != nil {
		t.Fatalf("the Go program %s: %v\n%s", name, err, out)
	}
	for _, want := range wants {
		if !strings.Contains(string(out), want) {
			t.Errorf("the Go program "+name+" showed %q, want %q in it", out, want)
		}
	}
}
