package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets scripts run `signet`: the test binary calls main again.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"signet": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SIGNET_HOME", filepath.Join(env.WorkDir, "home"))
			env.Values[processesKey{}] = &processes{byName: map[string]*process{}}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"rc": cmdRC, "start": cmdStart, "end": cmdEnd, "await": cmdAwait, "retry": cmdRetry, "reload": cmdReload,
			"setenv": cmdSetenv, "flip": cmdFlip, "edit": cmdEdit, "lines": cmdLines, "isjson": cmdIsJSON,
			"eventkeys": cmdEventKeys,
		},
	})
}

// startDeadline bounds what a script waits for: a broken broker fails the test, it
// does not hang it.
const startDeadline = time.Minute

// cmdRC is `rc CODE command args...`: exec, and the exit code must be CODE. Its
// output is left in the files out and err of the working folder.
func cmdRC(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: rc CODE COMMAND [ARGS...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var out, errOut bytes.Buffer
	cmd := command(ts, args[1:], &out, &errOut)
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	ts.Check(os.WriteFile(ts.MkAbs("out"), out.Bytes(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("err"), errOut.Bytes(), 0o600))
	ts.Logf("[stdout]\n%s[stderr]\n%s", out.String(), errOut.String())
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdRetry runs a program again and again until what it prints matches.
func cmdRetry(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[0])
	var out, errOut bytes.Buffer
	for end := time.Now().Add(startDeadline); time.Now().Before(end); <-time.After(100 * time.Millisecond) {
		out.Reset()
		errOut.Reset()
		if _ = command(ts, args[1:], &out, &errOut).Run(); want.Match(out.Bytes()) {
			return
		}
	}
	ts.Fatalf("no %s in the output:\n%s%s", want, out.String(), errOut.String())
}

func command(ts *testscript.TestScript, args []string, stdout, stderr io.Writer) *exec.Cmd {
	bin := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, args[0])); err == nil {
			bin = filepath.Join(dir, args[0])
			break
		}
	}
	if bin == "" {
		ts.Fatalf("no program %s", args[0])
	}
	cmd := exec.Command(bin, args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), stdout, stderr
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "SIGNET_HOME", "SIGNET_CONTEXT", "GOCOVERDIR", "WORK"} {
		if v := ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	return cmd
}

// process is a program that runs beside the script.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
	line *sync.Cond
	eof  bool
}

type (
	processesKey struct{}
	processes    struct{ byName map[string]*process }
)

func (p *process) follow(r io.Reader, wg *sync.WaitGroup) {
	defer wg.Done()
	s := bufio.NewScanner(r)
	for s.Scan() {
		p.mu.Lock()
		p.text.WriteString(s.Text() + "\n")
		p.line.Broadcast()
		p.mu.Unlock()
	}
}

// await blocks until the output matches, and returns the match.
func (p *process) await(pattern *regexp.Regexp) ([]string, error) {
	timer := time.AfterFunc(startDeadline, func() {
		p.mu.Lock()
		p.eof = true
		p.line.Broadcast()
		p.mu.Unlock()
	})
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if m := pattern.FindStringSubmatch(p.text.String()); m != nil {
			return m, nil
		}
		if p.eof {
			return nil, fmt.Errorf("no %s in the output:\n%s", pattern, p.text.String())
		}
		p.line.Wait()
	}
}

// cmdStart is `start NAME PATTERN command args...`: it runs the command in the
// background until a line of its output matches. The first group of the pattern
// goes to the environment as NAME.
func cmdStart(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: start NAME PATTERN COMMAND [ARGS...]")
	}
	p := &process{done: make(chan struct{})}
	p.line = sync.NewCond(&p.mu)
	r, w := io.Pipe()
	p.cmd = command(ts, args[2:], w, w)
	ts.Check(p.cmd.Start())
	var wg sync.WaitGroup
	wg.Add(1)
	go p.follow(r, &wg)
	go func() {
		_ = p.cmd.Wait() // the exit code is read by end
		_ = w.Close()
		wg.Wait()
		p.mu.Lock()
		p.eof = true
		p.line.Broadcast()
		p.mu.Unlock()
		close(p.done)
	}()
	ts.Defer(func() {
		_ = p.cmd.Process.Kill() // it may be gone
		<-p.done
		ts.Logf("[%s]\n%s", args[0], p.text.String())
	})
	ts.Value(processesKey{}).(*processes).byName[args[0]] = p
	m, err := p.await(regexp.MustCompile(args[1]))
	ts.Check(err)
	if len(m) > 1 {
		ts.Setenv(args[0], m[1])
	}
}

func find(ts *testscript.TestScript, name string) *process {
	p := ts.Value(processesKey{}).(*processes).byName[name]
	if p == nil {
		ts.Fatalf("nothing was started as %s", name)
	}
	return p
}

// cmdAwait is `await NAME PATTERN`.
func cmdAwait(ts *testscript.TestScript, _ bool, args []string) {
	_, err := find(ts, args[0]).await(regexp.MustCompile(args[1]))
	ts.Check(err)
}

// cmdReload is `reload NAME`: SIGHUP.
func cmdReload(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(find(ts, args[0]).cmd.Process.Signal(syscall.SIGHUP))
}

// cmdEnd is `end NAME SIGNAL CODE`: the process must end with CODE. SIGNAL is
// INT, TERM, or - when it ends by itself.
func cmdEnd(ts *testscript.TestScript, _ bool, args []string) {
	p := find(ts, args[0])
	if s := map[string]os.Signal{"INT": os.Interrupt, "TERM": syscall.SIGTERM}[args[1]]; s != nil {
		ts.Check(p.cmd.Process.Signal(s))
	}
	select {
	case <-p.done:
	case <-time.After(startDeadline):
		ts.Fatalf("%s did not end", args[0])
	}
	if got := strconv.Itoa(p.cmd.ProcessState.ExitCode()); got != args[2] {
		ts.Fatalf("%s ended with %s, want %s:\n%s", args[0], got, args[2], p.text.String())
	}
}

// cmdSetenv is `setenv NAME FILE PATTERN`: the first group, found in a file.
func cmdSetenv(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if len(m) < 2 {
		ts.Fatalf("%s has no %s", args[1], args[2])
	}
	ts.Setenv(args[0], m[1])
}

// cmdFlip is `flip FROM TO`: TO is the event of FROM with one bit of its data
// changed.
func cmdFlip(ts *testscript.TestScript, _ bool, args []string) {
	var e map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &e))
	data, err := base64.StdEncoding.DecodeString(e["data_base64"].(string))
	ts.Check(err)
	data[len(data)/2] ^= 1
	e["data_base64"] = base64.StdEncoding.EncodeToString(data)
	b, err := json.Marshal(e)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// cmdEdit is `edit FILE OLD NEW`: every OLD becomes NEW; there must be one. The
// file is replaced in one step, as editors do.
func cmdEdit(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	if !strings.Contains(text, args[1]) {
		ts.Fatalf("%s has no %q", args[0], args[1])
	}
	file := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(file+".tmp", []byte(strings.ReplaceAll(text, args[1], args[2])), 0o600))
	ts.Check(os.Rename(file+".tmp", file))
}

// cmdLines is `lines FILE N`.
func cmdLines(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(strings.Count(ts.ReadFile(args[0]), "\n")); got != args[1] {
		ts.Fatalf("%s has %s lines, want %s", args[0], got, args[1])
	}
}

// cmdIsJSON is `isjson FILE`.
func cmdIsJSON(ts *testscript.TestScript, _ bool, args []string) {
	if !json.Valid([]byte(ts.ReadFile(args[0]))) {
		ts.Fatalf("%s is not JSON:\n%s", args[0], ts.ReadFile(args[0]))
	}
}
