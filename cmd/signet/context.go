package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/adminapi"
)

const envContext = "SIGNET_CONTEXT"

// currentContext is the name that a verb uses: the flag, the environment, else the
// selected one.
func (a *app) currentContext() (string, error) {
	if a.contextName != "" {
		return a.contextName, nil
	}
	if name := a.getenv(envContext); name != "" {
		return name, nil
	}
	return client.SelectedContext()
}

// loadContext reads the current context.
func (a *app) loadContext() (*client.Context, error) {
	name, err := a.currentContext()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &usageError{
			msg: "no context is selected, so there is no broker to talk to",
			fix: "signet dev starts one here; or: signet context add NAME --server tls://HOST:4222 --nkey FILE --ca FILE --root O...",
		}
	}
	if err != nil {
		return nil, err
	}
	c, err := client.LoadContext(name)
	if errors.Is(err, fs.ErrNotExist) {
		fix := "signet context add " + name + " --server tls://HOST:4222 --nkey FILE --ca FILE --root O..."
		if names, lerr := client.ListContexts(); lerr == nil && len(names) > 0 {
			fix = "there are: " + strings.Join(names, ", ")
		}
		return nil, &usageError{msg: fmt.Sprintf("there is no context %q", name), fix: fix}
	}
	return c, err
}

// connect opens a connection as the current context says.
func (a *app) connect(ctx context.Context, opts ...client.Option) (*client.Client, error) {
	saved, err := a.loadContext()
	if err != nil {
		return nil, err
	}
	all := append([]client.Option{
		client.WithContext(saved.Name), client.WithName("signet-cli"), client.WithTimeout(a.timeout),
	}, opts...)
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	c, err := client.Connect(ctx, "", all...)
	var path *fs.PathError
	if errors.As(err, &path) {
		return nil, &usageError{msg: fmt.Sprintf("context %s: %s: %v", saved.Name, path.Path, path.Err), fix: "signet context show " + saved.Name}
	}
	var e *client.Error
	if errors.As(err, &e) && e.Detail == "" {
		e.Detail = saved.URL + " (context " + saved.Name + ")"
	}
	return c, err
}

// admin runs f with the admin API.
func (a *app) admin(ctx context.Context, f func(context.Context, *admin.API) error) error {
	c, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	err = f(ctx, admin.New(c))
	var refusal *client.Error
	if errors.As(err, &refusal) && refusal.Rule == adminapi.RuleOtherTenant { // mistyped: only the broker knows the tenant
		return &usageError{msg: refusal.Detail, fix: "the name alone, or a context of that tenant"}
	}
	return err
}

func contextCommand(a *app) *cobra.Command {
	return parent("context", "name brokers and credentials, choose one", "  signet context ls\n  signet context select prod",
		contextAddCommand(a), contextLsCommand(a), contextSelectCommand(a), contextShowCommand(a), contextRmCommand(a))
}

func contextAddCommand(a *app) *cobra.Command {
	var c client.Context
	var choose bool
	cmd := &cobra.Command{
		Use: "add NAME --server tls://HOST:PORT --root O... [flags]", Short: "save a context, or replace it",
		Args: exactly("NAME"), DisableFlagsInUseLine: true,
		Example: `  signet context add prod --server tls://bus.example.org:4222 --nkey checkout.nk \
    --ca ca.pem --root OBQ7... --select`,
		RunE: a.verb(func(_ context.Context, args []string) error {
			c.Name = args[0]
			return addContext(a, c, choose)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&c.URL, "server", "", "tls://host:port of the broker; several with commas")
	f.StringVar(&c.NkeySeedFile, "nkey", "", "file with the nkey seed (SU...), mode 0600")
	f.StringVar(&c.CertificateFile, "cert", "", "PEM file with a client certificate")
	f.StringVar(&c.KeyFile, "key", "", "PEM file with its key, mode 0600")
	f.StringVar(&c.TokenFile, "token-file", "", "file with a token (JWT), in place of an nkey")
	f.StringVar(&c.CAFile, "ca", "", "PEM roots that the broker's certificate is checked against (default: those of the system)")
	f.StringVar(&c.RootKey, "root", "", "public root key (O...) that events are verified against, or a file with it")
	f.StringVar(&c.KeyringFile, "keyring", "", "signed keyring file (default: fetched from the broker)")
	f.BoolVar(&choose, "select", false, "select it (the first context is selected by itself)")
	for _, name := range []string{"server", "root"} {
		_ = cmd.MarkFlagRequired(name) // fails only for an unknown flag
	}
	return cmd
}

func addContext(a *app, c client.Context, choose bool) error {
	var err error
	if c.RootKey, err = rootKey(c.RootKey); err != nil {
		return err
	}
	if err := checkServers(c.URL); err != nil {
		return err
	}
	switch {
	case c.NkeySeedFile == "" && c.CertificateFile == "" && c.TokenFile == "":
		return &usageError{msg: "no credential", fix: "give --nkey FILE, --cert FILE with --key FILE, or --token-file FILE"}
	case (c.CertificateFile == "") != (c.KeyFile == ""):
		return &usageError{msg: "--cert and --key belong together"}
	case c.NkeySeedFile != "" && c.TokenFile != "":
		return &usageError{msg: "--nkey and --token-file: the broker takes one of them"}
	}
	if c.NkeySeedFile != "" {
		if _, err := publicOfSeed(c.NkeySeedFile, nkeys.PrefixByteUser); err != nil {
			return err
		}
	}
	for _, file := range []*string{&c.NkeySeedFile, &c.CertificateFile, &c.KeyFile, &c.TokenFile, &c.CAFile, &c.KeyringFile} {
		if *file == "" {
			continue
		}
		if _, err := os.Stat(*file); err != nil {
			return err
		}
		abs, err := filepath.Abs(*file)
		if err != nil {
			return err
		}
		*file = abs
	}
	if err := client.SaveContext(&c); err != nil {
		return err
	}
	if _, err := client.SelectedContext(); choose || errors.Is(err, fs.ErrNotExist) {
		if err := client.SelectContext(c.Name); err != nil {
			return err
		}
		a.note("context %s saved and selected", c.Name)
		return nil
	}
	a.note("context %s saved; use it with --context %s or signet context select %s", c.Name, c.Name, c.Name)
	return nil
}

// rootKey takes a public root key, or a file that holds one.
func rootKey(s string) (string, error) {
	if nkeys.IsValidPublicOperatorKey(s) {
		return s, nil
	}
	if raw, err := smallFile(s, 1024); err == nil {
		if key := strings.TrimSpace(string(raw)); nkeys.IsValidPublicOperatorKey(key) {
			return key, nil
		}
	}
	if strings.HasPrefix(s, "S") { // not repeated: it may be a secret
		s = "(a seed?)"
	}
	return "", &usageError{msg: "--root " + clean(s) + " is neither a public root key (O...) nor a file with one", fix: "signet init and signet dev write it to keys/root.pub"}
}

// smallFile reads a file of at most so many bytes. A device has no end.
func smallFile(file string, most int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(raw)) > most {
		err = &usageError{msg: fmt.Sprintf("%s is too long: what is wanted has at most %d bytes", file, most)}
	}
	return raw, err
}

// trustedRoot is the public root key that root is or names; empty: that of the context. fix
// is the command that needs no context.
func trustedRoot(a *app, root, fix string) (string, error) {
	if root != "" {
		return rootKey(root)
	}
	saved, err := a.loadContext()
	var u *usageError
	if errors.As(err, &u) {
		u.fix = fix
	}
	if err != nil {
		return "", err
	}
	return saved.RootKey, nil
}

// checkServers finds what is no address of a broker before it is saved.
func checkServers(list string) error {
	for s := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		if err != nil || u.Scheme != "tls" && u.Scheme != "nats" || u.Hostname() == "" || u.User != nil || u.Path != "" {
			return &usageError{msg: fmt.Sprintf("--server %q: want tls://host:port, several with commas", list)}
		}
	}
	return nil
}

// contextRow is one context as -o json lists it.
type contextRow struct {
	Name     string `json:"name"`
	Selected bool   `json:"selected"`
	*client.Context
	Fault string `json:"fault,omitempty"`
}

func contextLsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "list the contexts; * is the one in use", Args: cobra.NoArgs, Example: "  signet context ls",
		RunE: a.verb(func(context.Context, []string) error {
			names, err := client.ListContexts()
			if err != nil {
				return err
			}
			current, _ := a.currentContext() // none selected: no row is marked
			rows := []contextRow{}
			for _, name := range names {
				row := contextRow{Name: name, Selected: name == current}
				if row.Context, err = client.LoadContext(name); err != nil {
					row.Fault = err.Error()
				}
				rows = append(rows, row)
			}
			if a.jsonOut() {
				return a.printJSON(rows)
			}
			if len(rows) == 0 {
				a.note("no contexts; signet dev makes some, signet context add saves one")
				return nil
			}
			g := newGrid(a.stdout, " ", "NAME", "SERVER", "CREDENTIAL")
			for _, r := range rows {
				mark, server, credential := " ", r.Fault, ""
				if r.Selected {
					mark = "*"
				}
				if r.Context != nil {
					server, credential = r.URL, cmp.Or(r.NkeySeedFile, r.TokenFile, r.CertificateFile)
				}
				g.row(mark, r.Name, server, credential)
			}
			g.flush()
			return nil
		}),
	}
}

func contextSelectCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "select NAME", Short: "use a context from now on", Args: exactly("NAME"), Example: "  signet context select dev-operator",
		ValidArgsFunction: completeContexts,
		RunE: a.verb(func(_ context.Context, args []string) error {
			a.contextName = args[0]
			if _, err := a.loadContext(); err != nil {
				return err
			}
			if err := client.SelectContext(args[0]); err != nil {
				return err
			}
			if env := a.getenv(envContext); env != "" && env != args[0] {
				a.note("selected %s, but %s=%s wins while it is set", args[0], envContext, env)
				return nil
			}
			a.note("selected %s", args[0])
			return nil
		}),
	}
}

func contextShowCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show [NAME]", Short: "show a context and the public key of its credential", Args: cobra.MaximumNArgs(1),
		Example: "  signet context show\n  signet context show dev-app -o json", ValidArgsFunction: completeContexts,
		RunE: a.verb(func(_ context.Context, args []string) error {
			if len(args) == 1 {
				a.contextName = args[0]
			}
			c, err := a.loadContext()
			if err != nil {
				return err
			}
			public := ""
			if c.NkeySeedFile != "" {
				if public, err = publicOfSeed(c.NkeySeedFile, nkeys.PrefixByteUser); err != nil {
					a.note("warning: %s", clean(err.Error()))
				}
			}
			if a.jsonOut() {
				return a.printJSON(struct {
					contextRow
					PublicKey string `json:"publicKey,omitempty"`
				}{contextRow{Name: c.Name, Context: c}, public})
			}
			facts(a.stdout, "", "name", c.Name, "server", c.URL, "nkey", c.NkeySeedFile, "public key", public,
				"certificate", c.CertificateFile, "key", c.KeyFile, "token", c.TokenFile,
				"ca", c.CAFile, "root", c.RootKey, "keyring", c.KeyringFile)
			return nil
		}),
	}
}

func contextRmCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME", Short: "remove a context; its credential stays", Args: exactly("NAME"), Example: "  signet context rm old",
		ValidArgsFunction: completeContexts,
		RunE: a.verb(func(_ context.Context, args []string) error {
			err := client.RemoveContext(args[0])
			if errors.Is(err, fs.ErrNotExist) {
				return &usageError{msg: fmt.Sprintf("there is no context %q", args[0]), fix: "signet context ls"}
			}
			if err == nil {
				a.note("context %s removed", args[0])
			}
			return err
		}),
	}
}
