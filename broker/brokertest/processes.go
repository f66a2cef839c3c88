package brokertest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/internal/freeport"
)

const (
	readyPoll = 20 * time.Millisecond
	// nowhere is what a node tells the others of its own address, which they tell each
	// other: nobody listens there, so that no route goes around the proxies.
	nowhere = "127.0.0.1:1"
	// restarts is how often a node that ends by itself before it is ready is started
	// again, as a supervisor does.
	restarts = 5
)

// Errors of Processes.
var (
	ErrNotHere    = errors.New("brokertest: this system has no such signal")
	ErrNotRunning = errors.New("brokertest: the node does not run")
)

// ProcessOptions is what StartProcesses needs.
type ProcessOptions struct {
	// Nodes is how many, 3 or 5.
	Nodes int
	// Dir holds keys, certificates, policies, logs and the binary. Required.
	Dir string
	// Binary is a signet binary. Empty: it is built once, with the go command.
	Binary string
	// Policy is as in broker.Setup.
	Policy string
	// Stores are the folders for the streams, by node. Empty means folders inside Dir.
	Stores []string
	// Command says, at every start of a node, which binary runs and what its environment
	// has beside that of this process. nil, or an empty binary: Binary.
	Command func(node int) (binary string, env []string)
	// Change edits the configuration of each node before it is written.
	Change func(node int, c *broker.Config)
}

// Processes is a cluster of `signet serve` processes on loopback whose routes go
// through proxies. Nodes are counted from 0. Methods may be called for different nodes
// at the same time, and for one node by one goroutine at a time.
type Processes struct {
	o      ProcessOptions
	states []*broker.State
	nodes  []*process
	// links has the proxy that the routes of one node to another go through, nil for a
	// node to itself.
	links [][]*Proxy
}

// process is one node.
type process struct {
	name, listen, ops, config, store, log string

	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process is gone
	starts int
}

// NewProcesses makes the state of a cluster and starts no node.
func NewProcesses(ctx context.Context, o ProcessOptions) (*Processes, error) {
	if o.Binary == "" {
		o.Binary = filepath.Join(o.Dir, "signet")
		if err := BuildSignet(ctx, o.Binary); err != nil {
			return nil, err
		}
	}
	addrs, err := unusedAddrs(3 * o.Nodes)
	if err != nil {
		return nil, err
	}
	c := &Processes{o: o}
	s := broker.ClusterSetup{Dir: filepath.Join(o.Dir, "state"), Name: "test", Policy: o.Policy}
	for i := range o.Nodes {
		n := broker.ClusterNode{Name: fmt.Sprintf("n%d", i+1), Listen: addrs[3*i], Client: addrs[3*i], Route: addrs[3*i+1]}
		s.Nodes = append(s.Nodes, n)
		c.nodes = append(c.nodes, &process{name: n.Name, listen: n.Listen, ops: addrs[3*i+2], log: filepath.Join(o.Dir, n.Name+".log")})
	}
	if c.states, err = s.Run(); err != nil {
		return nil, err
	}
	for i := range c.nodes {
		if err := c.configure(i, s.Nodes); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// BuildSignet builds the signet binary of this module with the go command. flags are
// those of go build, such as -overlay.
func BuildSignet(ctx context.Context, binary string, flags ...string) error {
	args := append([]string{"build", "-o", binary}, flags...)
	build := exec.CommandContext(ctx, "go", append(args, "github.com/signetbus/signet/cmd/signet")...) //nolint:gosec // to a path of the caller
	out, err := build.CombinedOutput()
	if err != nil {
		return fmt.Errorf("brokertest: build signet: %w: %s", err, out)
	}
	return nil
}

func unusedAddrs(n int) ([]string, error) {
	var out []string
	for range n {
		addr, err := freeport.Addr()
		if err != nil {
			return nil, fmt.Errorf("brokertest: %w", err)
		}
		out = append(out, addr)
	}
	return out, nil
}

// configure writes the configuration with which node i reaches the others through
// its proxies.
func (c *Processes) configure(i int, all []broker.ClusterNode) error {
	cfg, err := broker.LoadConfig(c.states[i].Config, nil)
	if err != nil {
		return err
	}
	routes := make([]*Proxy, len(all))
	c.links = append(c.links, routes)
	cfg.Cluster.Nodes = maps.Clone(cfg.Cluster.Nodes)
	for to := range all {
		if to == i {
			cfg.Cluster.Nodes[all[to].Name] = nowhere
			continue
		}
		if routes[to], err = NewProxy(all[to].Route); err != nil {
			return err
		}
		cfg.Cluster.Nodes[all[to].Name] = routes[to].Addr()
	}
	n := c.nodes[i]
	cfg.Ops.Listen = n.ops
	cfg.Gate.ConnectionRate = 100000 // all load comes from one address
	if len(c.o.Stores) > 0 {
		cfg.State = filepath.Join(c.o.Stores[i], "signet")
	}
	if c.o.Change != nil {
		c.o.Change(i, &cfg)
	}
	n.store = cfg.State
	text, err := lean(&cfg)
	if err != nil {
		return fmt.Errorf("brokertest: %w", err)
	}
	n.config = filepath.Join(c.o.Dir, n.name+".yaml")
	return os.WriteFile(n.config, text, 0o600)
}

// lean is a configuration without what is the default, so that an earlier build, which
// refuses settings that it does not know, reads it too.
func lean(cfg *broker.Config) ([]byte, error) {
	usual := broker.DefaultConfig()
	var trees [2]map[string]any
	for i, c := range []*broker.Config{cfg, &usual} {
		text, err := yaml.Marshal(c)
		if err == nil {
			err = yaml.Unmarshal(text, &trees[i])
		}
		if err != nil {
			return nil, err
		}
	}
	without(trees[0], trees[1])
	return yaml.Marshal(trees[0])
}

// without deletes from tree what is the same in usual.
func without(tree, usual map[string]any) {
	for key, v := range tree {
		inner, ok := v.(map[string]any)
		other, both := usual[key].(map[string]any)
		switch {
		case ok && both:
			if without(inner, other); len(inner) == 0 {
				delete(tree, key)
			}
		case reflect.DeepEqual(v, usual[key]):
			delete(tree, key)
		}
	}
}

// Close kills what runs and ends the proxies.
func (c *Processes) Close() {
	for i := range c.nodes {
		c.Kill(i)
	}
	for _, routes := range c.links {
		for _, p := range routes {
			if p != nil {
				p.Close()
			}
		}
	}
}

// Len is the number of nodes.
func (c *Processes) Len() int { return len(c.nodes) }

// Name is the name of a node in its configuration.
func (c *Processes) Name(i int) string { return c.nodes[i].name }

// State has the files of a node.
func (c *Processes) State(i int) *broker.State { return c.states[i] }

// URL is the address of one node for clients.
func (c *Processes) URL(i int) string { return "tls://" + c.nodes[i].listen }

// URLs are the addresses of all nodes, with commas.
func (c *Processes) URLs() string {
	var out []string
	for i := range c.nodes {
		out = append(out, c.URL(i))
	}
	return strings.Join(out, ",")
}

// Log returns the last lines of what a node has written.
func (c *Processes) Log(i, lines int) string {
	text, err := os.ReadFile(c.nodes[i].log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// Restarts is how often nodes were started again because they ended before they were
// ready.
func (c *Processes) Restarts() int {
	n := 0
	for _, p := range c.nodes {
		n += p.starts
	}
	return n
}
