package brokertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// Launch starts a node and does not wait.
func (c *Processes) Launch(i int) error {
	n := c.nodes[i]
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("brokertest: %w", err)
	}
	defer log.Close() // the process has its own by then
	binary, env := c.o.Binary, []string(nil)
	if c.o.Command != nil {
		var other string
		other, env = c.o.Command(i)
		binary = cmp.Or(other, binary)
	}
	n.cmd = exec.Command(binary, "serve", "--config", n.config) //nolint:gosec // the binary under test
	n.cmd.Env = append(os.Environ(), env...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	noOrphan(n.cmd)
	if err := n.cmd.Start(); err != nil {
		n.cmd = nil
		return fmt.Errorf("brokertest: start %s: %w", n.name, err)
	}
	cmd, ended := n.cmd, make(chan struct{})
	n.ended = ended
	go func() {
		defer close(ended)
		_ = cmd.Wait() // what it says is in its log
	}()
	return nil
}

// Start starts a node and waits until it is ready.
func (c *Processes) Start(ctx context.Context, i int) error {
	if err := c.Launch(i); err != nil {
		return err
	}
	return c.AwaitReady(ctx, i)
}

// StartAll starts all nodes at once and waits until they are ready.
func (c *Processes) StartAll(ctx context.Context) error {
	all := make([]int, len(c.nodes))
	for i := range all {
		all[i] = i
	}
	return c.StartNodes(ctx, all...)
}

// StartNodes starts nodes at once and waits until they are ready.
func (c *Processes) StartNodes(ctx context.Context, nodes ...int) error {
	for _, i := range nodes {
		if err := c.Launch(i); err != nil {
			return err
		}
	}
	faults := make([]error, len(nodes))
	var wg sync.WaitGroup
	for k, i := range nodes {
		wg.Go(func() { faults[k] = c.AwaitReady(ctx, i) })
	}
	wg.Wait()
	return errors.Join(faults...)
}

// AwaitReady waits until a node says on its operations port that it is ready. A node
// that ends by itself meanwhile is started again, a few times.
func (c *Processes) AwaitReady(ctx context.Context, i int) error {
	n := c.nodes[i]
	poll := time.NewTicker(readyPoll)
	defer poll.Stop()
	said := "nothing"
	for again := 0; ; {
		select {
		case <-n.ended:
			if again++; again > restarts {
				return fmt.Errorf("brokertest: %s ended by itself %d times: %s", n.name, again, c.Log(i, 3))
			}
			n.starts++
			if err := c.Launch(i); err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("brokertest: %s is not ready (it says: %s): %w", n.name, said, ctx.Err())
		case <-poll.C:
		}
		ok, text := probe(ctx, "http://"+n.ops+"/readyz")
		if ok {
			return nil
		}
		said = text
	}
}

// Probe asks a node on its operations port whether it is ready; said is why not.
func Probe(ctx context.Context, c *Processes, i int) (ready bool, said string) {
	return probe(ctx, "http://"+c.nodes[i].ops+"/readyz")
}

// OpsAddr is the operations port of a node.
func OpsAddr(c *Processes, i int) string { return c.nodes[i].ops }

func probe(ctx context.Context, url string) (ok bool, said string) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err.Error()
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 4096))
	if err != nil {
		return false, err.Error()
	}
	return res.StatusCode == http.StatusOK, strings.TrimSpace(string(text))
}

// Kill ends a node with SIGKILL and waits until it is gone. A node that does not run
// is left alone.
func (c *Processes) Kill(i int) { c.KillAll(i) }

// KillAll ends nodes with SIGKILL at the same moment.
func (c *Processes) KillAll(nodes ...int) {
	for _, i := range nodes {
		if n := c.nodes[i]; n.cmd != nil {
			_ = n.cmd.Process.Kill()
		}
	}
	for _, i := range nodes {
		if n := c.nodes[i]; n.cmd != nil {
			<-n.ended
			n.cmd = nil
		}
	}
}

// Term drains a node with SIGTERM and waits until it is gone. When ctx ends first it
// is killed and the error says so.
func (c *Processes) Term(ctx context.Context, i int) error {
	n := c.nodes[i]
	if err := c.signal(i, signalDrain); err != nil {
		return err
	}
	defer func() { n.cmd = nil }()
	select {
	case <-n.ended:
	case <-ctx.Done():
		_ = n.cmd.Process.Kill()
		<-n.ended
		return fmt.Errorf("brokertest: %s does not end: %w: %s", n.name, ctx.Err(), c.Log(i, 5))
	}
	if code := n.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("brokertest: %s ended with exit code %d: %s", n.name, code, c.Log(i, 5))
	}
	return nil
}

// Pause stops a node with SIGSTOP: its connections stay open and nothing answers.
func (c *Processes) Pause(i int) error { return c.signal(i, signalPause) }

// Resume lets a paused node go on.
func (c *Processes) Resume(i int) error { return c.signal(i, signalResume) }

// Reload makes a node read policy, keys and certificates again.
func (c *Processes) Reload(i int) error { return c.signal(i, signalReload) }

func (c *Processes) signal(i int, s os.Signal) error {
	n := c.nodes[i]
	if s == nil {
		return ErrNotHere
	}
	if n.cmd == nil {
		return fmt.Errorf("%w: %s", ErrNotRunning, n.name)
	}
	if err := n.cmd.Process.Signal(s); err != nil {
		return fmt.Errorf("brokertest: %s: %w", n.name, err)
	}
	return nil
}

// Running says whether a node was started and not ended by a method.
func (c *Processes) Running(i int) bool { return c.nodes[i].cmd != nil }

// Wipe removes what a node has stored. The node must not run.
func (c *Processes) Wipe(i int) error {
	if c.Running(i) {
		return fmt.Errorf("brokertest: %s runs", c.nodes[i].name)
	}
	return os.RemoveAll(c.nodes[i].store)
}

// Isolate changes every link between node i and the others. Link.Only is seen from
// node i: Toward is what it sends.
func (c *Processes) Isolate(i int, l Link) {
	turned := l
	switch l.Only {
	case Toward:
		turned.Only = Back
	case Back:
		turned.Only = Toward
	case BothWays:
	}
	for from, routes := range c.links {
		for to, p := range routes {
			switch {
			case p == nil:
			case from == i:
				p.Set(l)
			case to == i: // routes that the others have dialed
				p.Set(turned)
			}
		}
	}
}

// Mend lets all links pass everything.
func (c *Processes) Mend() {
	for i := range c.nodes {
		c.Isolate(i, Link{})
	}
}
