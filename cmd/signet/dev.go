package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/diskguard"
	"github.com/signetbus/signet/client"
)

// devPrefix starts the names of the contexts that signet dev writes.
const devPrefix = "dev-"

// devVerb is signet dev.
type devVerb struct {
	*app
	state, listen, ops string
	policy, durability string
	listenGiven        bool
	opsGiven           bool
	verbose            int
}

func devCommand(a *app) *cobra.Command {
	d := &devVerb{app: a}
	cmd := &cobra.Command{
		Use: "dev", Short: "start a broker on this machine, ready in a second", Args: cobra.NoArgs,
		Long: `Starts a broker on this machine with everything on: TLS with its own CA, nkeys,
policy, schemas, signatures, dead letters, and acknowledgements from stable storage.
It makes what is missing in the state folder, keeps what is there, writes the
contexts dev-app, dev-reader and dev-operator, and prints lines to copy. Refusals
explain themselves. It listens on loopback addresses only.

Edit the policy in the state folder while it runs: it is read again at once.
To start afresh, stop it and remove the folder.`,
		Example: "  signet dev\n  signet dev --listen 127.0.0.1:0 --ops off\n  signet dev --policy mypolicy.yaml -v",
		RunE: func(cmd *cobra.Command, _ []string) error {
			d.listenGiven, d.opsGiven = cmd.Flags().Changed("listen"), cmd.Flags().Changed("ops")
			return withCommand(d.run(cmd.Context()), cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&d.state, "state", "./.signet", "folder for keys, policy and streams")
	f.StringVar(&d.listen, "listen", broker.DefaultListen, "loopback host:port for clients; port 0 is any that is free")
	f.StringVar(&d.ops, "ops", broker.DefaultOpsListen, "host:port for metrics and probes, or off")
	f.StringVar(&d.policy, "policy", "", "policy to use in place of the one in the state folder")
	f.StringVar(&d.durability, "durability", "", "barrier, sync-always or unsafe-lazy-sync (default: of this platform)")
	f.CountVarP(&d.verbose, "verbose", "v", "log more: -v info, -vv debug")
	return cmd
}

func (d *devVerb) run(ctx context.Context) error {
	dir, err := filepath.Abs(d.state)
	if err != nil {
		return err
	}
	if err := stateFolder(dir); err != nil {
		return err
	}
	st, err := broker.Setup{Dir: dir, Name: "dev", Listen: broker.DefaultListen, Dev: true}.Run()
	if err != nil {
		return err
	}
	cfg, err := d.config(st)
	if err != nil {
		return err
	}
	v, _ := buildVersion()
	b, err := broker.New(cfg, v, newLog(d.stderr, cfg.Log))
	if err != nil {
		return d.faulty(err)
	}
	return runBroker(ctx, d.app, b, cfg.Drain, func() error { return d.ready(b, st, &cfg) })
}

// stateFolder refuses a folder with other things in it.
func stateFolder(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "signet.yaml")); err == nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(nodeFolders(dir)) > 0:
		return &usageError{msg: dir + " is the state of a cluster", fix: "signet init with --cluster and --node as at the first run; or choose an empty or a new folder"}
	case len(entries) > 0:
		return &usageError{msg: fmt.Sprintf("%s is not empty and holds no signet.yaml: it is not the state of a broker", dir), fix: "choose an empty or a new folder"}
	}
	return nil
}

func (d *devVerb) config(st *broker.State) (broker.Config, error) {
	cfg, err := broker.LoadConfig(st.Config, d.getenv)
	if err != nil {
		return cfg, d.faulty(err)
	}
	cfg.Dev = true
	if d.listenGiven || d.getenv("SIGNET_LISTEN") == "" {
		cfg.Listen = d.listen
	}
	if d.opsGiven || d.getenv("SIGNET_OPS_LISTEN") == "" {
		cfg.Ops.Listen = d.ops
	}
	if cfg.Storage.SoftWatermark == diskguard.DefaultSoft && cfg.Storage.HardWatermark == diskguard.DefaultHard {
		// The disk of a workstation is fuller than the volume of a server may be.
		cfg.Storage.SoftWatermark, cfg.Storage.HardWatermark = 97, 98
	}
	if d.durability != "" {
		cfg.Storage.Durability = broker.Durability(d.durability)
	}
	if d.policy != "" {
		file, err := filepath.Abs(d.policy)
		if err != nil {
			return cfg, err
		}
		cfg.Policy = []string{file}
	}
	cfg.Log = broker.LogConfig{Format: "console", Level: []string{"warn", "info", "debug"}[min(d.verbose, 2)]}
	return cfg, nil
}

// ready writes the contexts and prints what to do next; the last line is the one
// that programs wait for.
func (d *devVerb) ready(b *broker.Broker, st *broker.State, cfg *broker.Config) error {
	url := "tls://" + b.Addr().String()
	names, err := d.saveContexts(b, st, url)
	if err != nil {
		return err
	}
	w := d.stdout
	fmt.Fprintf(w, "Signet broker for development, durability %s\n", b.Durability())
	if len(names) > 0 {
		d.printTries(names, st, url)
	} else {
		fmt.Fprintf(w, "\nThe policy knows none of the credentials in %s/creds: no context was written.\n"+
			"  signet context add NAME --server %s --nkey FILE --ca %s --root %s\n", clean(st.Dir), url, clean(st.CA), st.Root)
	}
	ops := "off"
	if addr := b.OpsAddr(); addr != nil {
		ops = "http://" + addr.String() + "/metrics /livez /readyz /startupz"
	}
	fmt.Fprintln(w)
	facts(w, "", "policy", strings.Join(cfg.Policy, " "), "state", st.Dir, "operations", ops, "contexts", strings.Join(names, " "), "stop", "Ctrl-C; to start afresh remove the state folder")
	_, err = fmt.Fprintf(w, "signet dev: ready on %s (pid %d)\n", url, os.Getpid())
	return err
}

// saveContexts writes a context for each credential that the policy knows.
func (d *devVerb) saveContexts(b *broker.Broker, st *broker.State, url string) ([]string, error) {
	var names []string
	for name, file := range st.Creds {
		public, err := publicOfSeed(file)
		if err != nil {
			return nil, err
		}
		if p := b.Policy().ByNkey(public); p == nil || p.Disabled {
			continue
		}
		c := &client.Context{Name: devPrefix + name, URL: url, NkeySeedFile: file, CAFile: st.CA, RootKey: st.Root}
		if err := client.SaveContext(c); err != nil {
			return nil, err
		}
		names = append(names, c.Name)
	}
	slices.Sort(names)
	if app := devPrefix + "app"; slices.Contains(names, app) {
		if _, err := client.SelectedContext(); errors.Is(err, fs.ErrNotExist) {
			return names, client.SelectContext(app)
		}
	}
	return names, nil
}

func (d *devVerb) printTries(names []string, st *broker.State, url string) {
	as := ""
	if current, err := d.currentContext(); err != nil || current != devPrefix+"app" {
		as = " --context " + devPrefix + "app"
	}
	w := d.stdout
	if d.policy == "" {
		fmt.Fprintf(w, `
In another terminal:
  signet sub 'orders.>'%[1]s
  signet pub orders.created -d '{"id":1,"total":9.5}'%[1]s
  signet pub orders.created -d '{"id":"x"}'%[1]s        # refused, with the reason
  signet dlq ls --context dev-operator
`, as)
	}
	cred := st.Creds["app"]
	if cred == "" || !slices.Contains(names, devPrefix+"app") {
		cred = st.Creds[strings.TrimPrefix(names[0], devPrefix)]
	}
	fmt.Fprintf(w, `
With the nats command line:
  nats context add signet-dev --server %s --nkey %s --tlsca %s --select
`, url, shellWord(cred), shellWord(st.CA))
}

// loopbackListen reports whether host:port is on a loopback address.
func loopbackListen(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
