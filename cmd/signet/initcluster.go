package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/signing"
)

// Ports of a node if --node does not say.
const (
	clientPort = "4222"
	routePort  = "6222"
)

func (v *initVerb) runCluster(dir string) error {
	if !signing.ValidClusterName(v.cluster) {
		return &usageError{msg: fmt.Sprintf("--cluster %q: letters, digits, dash and underscore, at most 64", v.cluster)}
	}
	if n := len(v.nodes); n != 3 && n != 5 {
		return &usageError{msg: fmt.Sprintf("a cluster has 3 or 5 nodes, not %d", n), fix: "give --node NAME=HOST three or five times"}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	s := broker.ClusterSetup{Dir: dir, Name: v.cluster, Encrypt: v.encrypt}
	names := map[string]bool{}
	for _, text := range v.nodes {
		n, err := parseNode(text)
		if err != nil {
			return err
		}
		if names[n.Name] {
			return &usageError{msg: fmt.Sprintf("--node %s is there twice", n.Name)}
		}
		names[n.Name] = true
		s.Nodes = append(s.Nodes, *n)
	}
	existed, err := clusterFolder(dir, v.cluster, s.Nodes)
	if err != nil {
		return err
	}
	states, err := s.Run()
	if errors.Is(err, fs.ErrNotExist) && existed {
		return offline(err)
	}
	if err != nil {
		return err
	}
	root := filepath.Join(dir, "keys", "root.seed")
	if v.jsonOut() {
		out := map[string]any{"dir": dir, "cluster": v.cluster, "existed": existed, "root": states[0].Root, "rootSeed": root, "credentials": states[0].Creds}
		nodes := map[string]string{}
		for i, st := range states {
			nodes[s.Nodes[i].Name] = st.Dir
		}
		out["nodes"] = nodes
		return v.printJSON(out)
	}
	if existed {
		fmt.Fprintf(v.stdout, "The state of cluster %s in %s was made before: what is there was kept, and what was due is renewed.\n"+
			"Bring keys/keyring.json of the nodes to all machines first, then what else is new in each node's folder.\n", v.cluster, clean(dir))
		return nil
	}
	v.nextCluster(dir, root, &s, states)
	return nil
}

// parseNode reads NAME=HOST or NAME=HOST:CLIENTPORT:ROUTEPORT; an IPv6 address stands
// in brackets.
func parseNode(text string) (*broker.ClusterNode, error) {
	bad := &usageError{msg: fmt.Sprintf("--node %q: want NAME=HOST or NAME=HOST:CLIENTPORT:ROUTEPORT", text)}
	name, host, ok := strings.Cut(text, "=")
	if !ok || !nodeName.MatchString(name) || strings.Contains(name, ".") || host == "" {
		return nil, bad
	}
	client, route := clientPort, routePort
	rest := ""
	if end := strings.IndexByte(host, ']'); strings.HasPrefix(host, "[") && end > 0 {
		host, rest = host[1:end], host[end+1:]
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		host, rest = host[:i], host[i:]
	}
	if rest != "" {
		ports := strings.Split(rest, ":")
		if len(ports) != 3 || ports[0] != "" || ports[1] == "" || ports[2] == "" {
			return nil, bad
		}
		client, route = ports[1], ports[2]
	}
	return &broker.ClusterNode{
		Name: name, Hosts: []string{host}, Listen: net.JoinHostPort("0.0.0.0", client),
		Client: net.JoinHostPort(host, client), Route: net.JoinHostPort(host, route),
	}, nil
}

func (v *initVerb) nextCluster(dir, root string, s *broker.ClusterSetup, states []*broker.State) {
	w := v.stdout
	fmt.Fprintf(w, "The state of cluster %s is in %s.\n", v.cluster, clean(dir))
	var list []string
	var servers []string
	for i, st := range states {
		list = append(list, s.Nodes[i].Name, clean(st.Dir))
		servers = append(servers, "tls://"+s.Nodes[i].Client)
	}
	facts(w, "  ", list...)
	fmt.Fprintf(w, `
Next:
  1. take the root seed offline, and the authority's key with it:   mv %s %s SOMEWHERE-SAFE
  2. edit the policy in every node's folder: it must be the same everywhere
  3. copy each folder to its machine and run there:                 signet serve --config signet.yaml
     The cluster is up when all nodes have been started once; then any majority of them will do.
  4. look after it as operator:    signet context add %s --server %s --nkey %s --ca %s --root %s
                                   signet status --context %s
`, clean(shellWord(root)), clean(shellWord(filepath.Join(dir, "ca", "ca.key"))), v.cluster, strings.Join(servers, ","),
		clean(shellWord(states[0].Creds["operator"])), clean(shellWord(states[0].CA)), states[0].Root, v.cluster)
}
