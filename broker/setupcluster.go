package broker

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/internal/durablefile"
)

// ClusterSetup says what state to make for the nodes of a cluster: what they share
// (authority, root, keyring, policy, credentials) in Dir, and in Dir/nodes/<name> a
// folder for each that is complete, to be taken to its machine.
type ClusterSetup struct {
	// Dir is the folder, made if missing.
	Dir string
	// Name of the cluster, as in ClusterConfig.Name.
	Name string
	// Nodes are all nodes, 3 or 5.
	Nodes []ClusterNode
	// Dev, Encrypt and Policy are as in Setup.
	Dev     bool
	Encrypt bool
	Policy  string
}

// ClusterNode is one node of ClusterSetup.
type ClusterNode struct {
	Name   string
	Hosts  []string // DNS names and addresses for both certificates; the first is advertised
	Listen string   // host:port for clients
	Client string   // host:port at which clients reach it
	Route  string   // host:port at which the other nodes reach it
}

// Run makes what is missing and keeps what is there, as Setup.Run does. The states
// are in the order of Nodes; their Creds, CA and Root are those of the cluster.
func (s ClusterSetup) Run() ([]*State, error) {
	shared := Setup{Dir: s.Dir, Name: s.Name, Dev: s.Dev, Policy: s.Policy}
	top := layout(s.Dir)
	var states []*State
	for i := range s.Nodes {
		states = append(states, layout(filepath.Join(s.Dir, "nodes", s.Nodes[i].Name)))
	}
	if err := s.folders(top, states); err != nil {
		return nil, fmt.Errorf("broker: set up: %w", err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"keys", func() error { return s.keys(top, states) }},
		{"certificates", func() error { return s.certificates(top, states) }},
		{"policy", func() error { return shared.policy(top) }},
		{"nodes", func() error { return s.fill(top, states) }},
	} {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("broker: set up %s: %w", step.what, err)
		}
	}
	return states, nil
}

func (s ClusterSetup) folders(top *State, states []*State) error {
	dirs := []string{s.Dir, filepath.Dir(top.RootSeed), filepath.Join(s.Dir, "creds")}
	for _, st := range states {
		dirs = append(dirs, st.Dir, st.CADir, filepath.Dir(st.Cert), filepath.Dir(st.NodeSeed))
	}
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// keys makes the root, a key for every node, and the keyring with all of them.
func (s ClusterSetup) keys(top *State, states []*State) error {
	var keys []nodeKey
	for i, st := range states {
		key, err := makeNodeKey(st.NodeSeed, s.Nodes[i].Name)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	return makeRing(top, keys, time.Now())
}

func (s ClusterSetup) certificates(top *State, states []*State) error {
	authority := sync.OnceValues(func() (*ca.Authority, error) { return authorityOf(top.CADir, s.Name) })
	renew := func(cert, key string, issue func(*ca.Authority) error) error {
		if r, err := ca.ServerTLS(cert, key); err == nil && time.Until(r.Expires()) > renewalMargin {
			return nil
		}
		a, err := authority()
		if err != nil {
			return err
		}
		return issue(a)
	}
	for i, st := range states {
		n := &s.Nodes[i]
		if err := renew(st.Cert, st.Key, func(a *ca.Authority) error { return a.IssueServer(st.Cert, st.Key, n.Hosts, 0) }); err != nil {
			return err
		}
		cert, key := routeFiles(st)
		if err := renew(cert, key, func(a *ca.Authority) error { return a.IssueNode(cert, key, s.Name, n.Name, n.Hosts, 0) }); err != nil {
			return err
		}
	}
	return nil
}

func routeFiles(st *State) (cert, key string) {
	dir := filepath.Dir(st.Cert)
	return filepath.Join(dir, "route.pem"), filepath.Join(dir, "route.key")
}

// fill copies what all nodes share into their folders, and writes their
// configurations.
func (s ClusterSetup) fill(top *State, states []*State) error {
	t, err := template.New("config").Parse(initConfig)
	if err != nil {
		return err
	}
	var advertise []string
	for _, n := range s.Nodes {
		if n.Client != "" {
			advertise = append(advertise, n.Client)
		}
	}
	for i, st := range states {
		st.Root, st.Creds = top.Root, top.Creds
		for from, to := range map[string]string{top.CA: st.CA, top.Keyring: st.Keyring, rootFile(top): rootFile(st), top.Policy: st.Policy} {
			data, err := os.ReadFile(from)
			if err != nil {
				return err
			}
			put := func() error { return durablefile.Replace(to, data, 0o600) }
			if from == top.Policy { // edited there, by now
				put = func() error { return keep(to, data) }
			}
			if err := put(); err != nil {
				return err
			}
		}
		n := &s.Nodes[i]
		_, port, err := net.SplitHostPort(n.Route)
		if err != nil {
			return fmt.Errorf("route of node %s: %w", n.Name, err)
		}
		var out bytes.Buffer
		if err := t.Execute(&out, map[string]any{
			"Name": n.Name, "Listen": n.Listen, "Root": st.Root, "Encrypt": s.Encrypt, "Advertise": strings.Join(advertise, ", "),
			"Tenant":  Setup{Dev: s.Dev, Policy: s.Policy}.tenant(),
			"Cluster": map[string]any{"Name": s.Name, "Listen": net.JoinHostPort(routeHost(n.Listen), port), "Nodes": s.Nodes},
		}); err != nil {
			return err
		}
		if s.Encrypt {
			if err := storeKey(st); err != nil {
				return err
			}
		}
		if err := keep(st.Config, out.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// routeHost is the address on which routes listen: that of the clients.
func routeHost(listen string) string {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return ""
	}
	return host
}
