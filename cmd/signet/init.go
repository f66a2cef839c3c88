package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker"
)

// initVerb is signet init.
type initVerb struct {
	*app
	name, listen string
	hosts        []string
	cluster      string
	encrypt      bool
	nodes        []string
}

func initCommand(a *app) *cobra.Command {
	v := &initVerb{app: a}
	cmd := &cobra.Command{
		Use: "init DIR", Short: "make keys, certificates, policy and configuration", Args: exactly("DIR"),
		Long: `Makes the state of a broker in a new folder: a CA and a server certificate, the
root key and a keyring, the node's attestation key, a credential for an operator, a
first policy and the configuration; with --encrypt also the key that encrypts what
is stored. Nothing that exists is ever overwritten; in a folder that signet init made, what is missing is made again and what expires
within a month is renewed.

With --cluster it makes the state of a cluster of 3 or 5 nodes, one --node each: in
DIR what they share, the root key and the authority among it, and in DIR/nodes/NAME
all that one node needs, to be taken to its machine.`,
		Example: "  signet init /etc/signet --host bus.example.org\n  signet init ./node-1 --name node-1 --host 10.0.0.7 --listen 10.0.0.7:4222\n" +
			"  signet init ./prod --cluster prod --node n1=10.0.0.1 --node n2=10.0.0.2 --node n3=10.0.0.3",
		RunE: func(cmd *cobra.Command, args []string) error {
			given := ""
			for _, name := range []string{"name", "host", "listen", "encrypt"} {
				if cmd.Flags().Changed(name) {
					given = name
				}
			}
			if v.cluster != "" || len(v.nodes) > 0 {
				if given == "name" || given == "host" {
					return withCommand(&usageError{msg: "--" + given + " is for a broker by itself", fix: "--node NAME=HOST names the nodes of a cluster"}, cmd)
				}
				return withCommand(v.runCluster(args[0]), cmd)
			}
			return withCommand(v.run(args[0], given), cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&v.name, "name", "", "name of the node (default: the host name)")
	f.StringArrayVar(&v.hosts, "host", nil, "DNS name or address that clients use, for the certificate; repeat it (localhost is always in)")
	f.BoolVar(&v.encrypt, "encrypt", false, "encrypt what is stored, with a new key; only for a state folder that is new")
	f.StringVar(&v.cluster, "cluster", "", "name of a cluster to make")
	f.StringArrayVar(&v.nodes, "node", nil, "node of the cluster: NAME=HOST, or NAME=HOST:CLIENTPORT:ROUTEPORT (4222 and 6222); repeat it")
	f.StringVar(&v.listen, "listen", "0.0.0.0:4222", "host:port for clients")
	return cmd
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (v *initVerb) run(dir, given string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := stateFolder(dir); err != nil {
		return err
	}
	_, err = os.Stat(filepath.Join(dir, "signet.yaml"))
	exists := err == nil
	if exists && given != "" {
		return &usageError{msg: fmt.Sprintf("%s is set up already, so --%s would change nothing", dir, given), fix: "edit " + filepath.Join(dir, "signet.yaml")}
	}
	if exists { // a key that is made again is that of the same node
		if cfg, err := broker.LoadConfig(filepath.Join(dir, "signet.yaml"), nil); err == nil {
			v.name = cfg.Name
		}
	}
	if v.name == "" {
		if v.name, err = os.Hostname(); err != nil || !nodeName.MatchString(v.name) {
			v.name = "signet"
		}
	}
	if !nodeName.MatchString(v.name) {
		return &usageError{msg: fmt.Sprintf("--name %q: letters, digits, dot, dash and underscore, at most 64", v.name)}
	}
	if _, _, err := net.SplitHostPort(v.listen); err != nil {
		return &usageError{msg: fmt.Sprintf("--listen %q: want host:port", v.listen)}
	}
	st, err := broker.Setup{Dir: dir, Name: v.name, Hosts: v.hosts, Listen: v.listen, Encrypt: v.encrypt}.Run()
	if errors.Is(err, fs.ErrNotExist) && exists {
		return offline(err)
	}
	if err != nil {
		return err
	}
	if v.jsonOut() {
		return v.printJSON(map[string]any{
			"dir": st.Dir, "config": st.Config, "policy": st.Policy, "ca": st.CA, "root": st.Root,
			"rootSeed": st.RootSeed, "storeKey": st.StoreKey, "keyring": st.Keyring, "credentials": st.Creds, "existed": exists,
		})
	}
	v.next(st, exists)
	return nil
}

func (v *initVerb) next(st *broker.State, exists bool) {
	w := v.stdout
	if exists {
		fmt.Fprintf(w, "%s was set up before: everything that is there was kept.\n", clean(st.Dir))
		return
	}
	fmt.Fprintf(w, "Made in %s:\n", clean(st.Dir))
	rel := func(file string) string {
		if r, err := filepath.Rel(st.Dir, file); err == nil {
			return r
		}
		return file
	}
	facts(w, "  ", rel(st.Config), "configuration", rel(st.Policy), "who may do what; edit it", rel(st.CA), "certificate authority, for clients",
		rel(st.Keyring), "which keys are trusted, signed by the root", rel(st.Creds["operator"]), "SECRET of the operator: signs in to look after the broker", rel(st.RootSeed), "SECRET of the root: belongs offline",
	)
	if v.encrypt {
		facts(w, "  ", rel(st.StoreKey), "SECRET of the store: what is stored cannot be read without it; keep a copy in another place")
	}
	host := "localhost"
	if len(v.hosts) > 0 {
		host = v.hosts[0]
	} else if !loopbackListen(v.listen) {
		fmt.Fprintln(w, "\nNote: without --host the certificate is for localhost only.")
	}
	_, port, _ := net.SplitHostPort(v.listen) // checked before
	fmt.Fprintf(w, `
Next:
  1. take the root seed offline:   mv %s SOMEWHERE-SAFE
  2. edit the policy, then check:  signet serve --config %s --check
  3. run it:                       signet serve --config %s
  4. look after it as operator:    signet context add %s --server tls://%s --nkey %s --ca %s --root %s
                                   signet status --context %s
`, clean(shellWord(st.RootSeed)), clean(shellWord(st.Config)), clean(shellWord(st.Config)), v.name, net.JoinHostPort(host, port),
		clean(shellWord(st.Creds["operator"])), clean(shellWord(st.CA)), st.Root, v.name)
}
