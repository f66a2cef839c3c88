package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/internal/durablefile"
)

// policyAdd is signet policy add.
type policyAdd struct {
	*app
	name, dir, out, tenant, spiffe, ca, server string
	publish, subscribe, roles                  []string
	life                                       time.Duration
}

func policyAddCommand(a *app) *cobra.Command {
	v := &policyAdd{app: a}
	cmd := &cobra.Command{
		Use: "add NAME --dir DIR [--publish SUBJECT] [--subscribe SUBJECT]", Short: "add a workload: its grants, its certificate, a folder to hand over", Args: exactly("NAME"), DisableFlagsInUseLine: true,
		Long: `Adds a principal to the policy file of a broker that signet init made in DIR, with the
grants and the SPIFFE ID that its certificate has, and makes the folder that the
workload needs, and nothing else: certificate and key, the authority and the public
root key that it checks the broker by, and a context. Wherever the folder is,
SIGNET_HOME=FOLDER makes the SDK and signet use it.

A broker that runs reads the policy again by itself; that it lets the workload in is
tried, for some seconds, if one answers. The policy is checked before anything is written.`,
		Example: "  signet policy add checkout --dir bus --publish 'events.checkout.>'\n" +
			"  signet policy add billing --dir bus --role subscriber --server tls://bus.example.org:4222 --for 7d",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			v.name = args[0]
			return v.run(ctx)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&v.dir, "dir", ".", "folder that signet init made")
	f.StringVar(&v.out, "out", "", "folder to make (default: NAME)")
	f.StringVar(&v.tenant, "tenant", "", "tenant of the workload (default: the one that the policy has)")
	f.StringArrayVar(&v.publish, "publish", nil, "subjects that it may publish; repeat it")
	f.StringArrayVar(&v.subscribe, "subscribe", nil, "subjects that it may read; repeat it")
	f.StringArrayVar(&v.roles, "role", nil, "role of the policy that it has; repeat it")
	f.StringVar(&v.spiffe, "spiffe", "", "name in its certificate (default: spiffe://TENANT/NAME)")
	f.StringVar(&v.ca, "ca", "", "folder of the authority, where that is not in DIR")
	f.StringVar(&v.server, "server", "", "tls://host:port of the broker (default: what its configuration says)")
	f.Var(newSpan(&v.life, 0), "for", "the certificate is valid for; default 24h")
	return cmd
}

func (v *policyAdd) run(ctx context.Context) error {
	if len(v.publish)+len(v.subscribe)+len(v.roles) == 0 {
		return &usageError{msg: "a workload without grants could do nothing", fix: "--publish SUBJECT, --subscribe SUBJECT or --role NAME"}
	}
	cfg, err := broker.LoadConfig(filepath.Join(v.dir, "signet.yaml"), nil)
	if errors.Is(err, os.ErrNotExist) {
		return &usageError{msg: err.Error(), fix: "--dir names the folder that signet init made"}
	}
	if err != nil {
		return &usageError{msg: err.Error()}
	}
	if err := v.editable(&cfg); err != nil {
		return err
	}
	file, more, err := v.edit(&cfg)
	if err != nil {
		return err
	}
	authority, err := ca.Load(cmp.Or(v.ca, filepath.Join(v.dir, "ca")))
	if err != nil {
		return err
	}
	saved, err := v.handOver(&cfg, authority)
	if err == nil {
		err = appendTo(file, more)
	}
	if err != nil {
		return err
	}
	return v.printAdded(ctx, file, saved)
}

// editable refuses where a policy file of one node is not what counts.
func (v *policyAdd) editable(cfg *broker.Config) error {
	if cfg.Cluster != nil {
		return &usageError{msg: "a cluster has one policy for all its nodes", fix: "signet ca issue client spiffe://TENANT/" + v.name + ", the principal in policy.yaml, then signet policy apply policy.yaml --key SEED"}
	}
	hold, err := broker.FilesHold(cfg)
	if err == nil && !hold {
		return &usageError{msg: "a policy was applied there, so its policy files are not read", fix: "signet policy show --out FOLDER, add the principal, then signet policy apply FOLDER/policy.yaml --key SEED"}
	}
	return err
}

// appendTo leaves the owner and the mode of a file as they are: a broker of another user
// reads it. A new one belongs to its owner alone.
func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// edit returns the policy file that the principal shall stand in, and what is to be added to
// it. All that a broker would refuse is refused here.
func (v *policyAdd) edit(cfg *broker.Config) (file, more string, err error) {
	now, files, err := policy.LoadFiles(cfg.Policy)
	if err != nil {
		return "", "", v.faults(err)
	}
	set, err := policy.Compile(now)
	if err != nil {
		return "", "", v.faults(err)
	}
	if v.tenant == "" {
		if len(set.Tenants()) != 1 {
			return "", "", &usageError{msg: "the policy has several tenants", fix: "--tenant NAME"}
		}
		v.tenant = set.Tenants()[0].Name
	}
	v.spiffe = cmp.Or(v.spiffe, "spiffe://"+v.tenant+"/"+v.name)
	file = cfg.Policy[0]
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		file = filepath.Join(file, v.tenant+"-"+filepath.Base(v.name)+".yaml")
		files = append(files, policy.File{Name: filepath.Base(file)})
	}
	at := -1
	for i, f := range files {
		if !f.Schema && strings.HasSuffix(file, string(filepath.Separator)+f.Name) && (at < 0 || len(f.Name) > len(files[at].Name)) {
			at = i
		}
	}
	if at < 0 {
		return "", "", fmt.Errorf("%s is not among the policy files", file)
	}
	more = v.document(len(files[at].Text) > 0)
	files[at].Text = append(bytes.Clone(files[at].Text), more...)
	next, err := policy.ParseFiles(files)
	if err == nil {
		if set, err = policy.Compile(next); err == nil {
			err = broker.CheckNames(cfg, set)
		}
	}
	return file, more, v.faults(err)
}

func (v *policyAdd) faults(err error) error {
	if list := policyFaults(err); len(list) > 0 {
		return printFaults(v.app, list)
	}
	if err != nil {
		return &usageError{msg: err.Error()}
	}
	return nil
}

// document is the principal, as a document of its own: what is in the file stays as it
// is, comments too.
func (v *policyAdd) document(behind bool) string {
	var b strings.Builder
	if behind {
		b.WriteString("\n--- # signet policy add\n")
	}
	fmt.Fprintf(&b, "tenant: %s\nprincipals:\n  - name: %s\n    identities: [{spiffe: %s}]\n", strconv.Quote(v.tenant), strconv.Quote(v.name), strconv.Quote(v.spiffe))
	for _, grant := range []struct {
		key  string
		list []string
	}{{"roles", v.roles}, {"publish", v.publish}, {"subscribe", v.subscribe}} {
		if len(grant.list) > 0 {
			quoted := make([]string, len(grant.list))
			for i, s := range grant.list {
				quoted[i] = strconv.Quote(s)
			}
			fmt.Fprintf(&b, "    %s: [%s]\n", grant.key, strings.Join(quoted, ", "))
		}
	}
	return b.String()
}

// handOver makes the folder for the workload. It holds a context directory, so that
// SIGNET_HOME can name it, with paths relative to it.
func (v *policyAdd) handOver(cfg *broker.Config, authority *ca.Authority) (*client.Context, error) {
	v.out = cmp.Or(v.out, v.name)
	root, err := os.ReadFile(filepath.Join(v.dir, "keys", "root.pub"))
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(filepath.Join(v.dir, "ca", ca.CACertFile))
	if err != nil {
		return nil, err
	}
	contexts := filepath.Join(v.out, "contexts")
	if err := os.Mkdir(v.out, 0o700); err != nil {
		return nil, &usageError{msg: err.Error(), fix: "--out names a folder that does not exist yet"}
	}
	saved := &client.Context{
		Name: v.name, URL: cmp.Or(v.server, serverOf(cfg)), CertificateFile: "../cert.pem", KeyFile: "../cert.key",
		CAFile: "../ca.pem", RootKey: strings.TrimSpace(string(root)),
	}
	doc, err := json.MarshalIndent(saved, "", "  ")
	err = errors.Join(err, checkServers(saved.URL), os.Mkdir(contexts, 0o700))
	if err == nil {
		err = authority.IssueClient(filepath.Join(v.out, "cert.pem"), filepath.Join(v.out, "cert.key"), ca.Names{SPIFFE: v.spiffe}, v.life)
	}
	for _, f := range []struct {
		name string
		data []byte
	}{{"ca.pem", roots}, {"contexts/" + v.name + ".json", append(doc, '\n')}, {"contexts/selected", []byte(v.name + "\n")}} {
		if err == nil {
			err = durablefile.Replace(filepath.Join(v.out, filepath.FromSlash(f.name)), f.data, 0o600)
		}
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(v.out)) // made above: nobody else's
	}
	return saved, nil
}

// serverOf is where clients on this machine reach the broker, or where it tells them to.
func serverOf(cfg *broker.Config) string {
	if len(cfg.Advertise) > 0 {
		return "tls://" + cfg.Advertise[0]
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "tls://" + net.JoinHostPort(host, port)
}

// addTries are how often, and addPause how far apart, the broker is asked whether it lets
// the workload in: it reads the policy a moment after it has changed. Fewer failures than delay
// a name (docs/spec/authentication.md).
const (
	addTries = 4
	addPause = 700 * time.Millisecond
)

// letIn says why the workload is not let in; nil if it is.
func (v *policyAdd) letIn(ctx context.Context, saved *client.Context) error {
	var err error
	for range addTries {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(addPause):
		}
		var c *client.Client
		try, cancel := context.WithTimeout(ctx, v.timeout)
		c, err = client.Connect(try, saved.URL, client.WithClientCertificate(filepath.Join(v.out, "cert.pem"), filepath.Join(v.out, "cert.key")),
			client.WithTLSRoots(filepath.Join(v.out, "ca.pem")), client.WithRoot(saved.RootKey), client.WithTimeout(v.timeout))
		cancel()
		if err == nil {
			c.Close()
			return nil
		}
		if errors.Is(err, client.ErrUnavailable) {
			return err // none runs there: it need not
		}
	}
	return err
}

func (v *policyAdd) printAdded(ctx context.Context, file string, saved *client.Context) error {
	refused := v.letIn(ctx, saved)
	if v.jsonOut() {
		return v.printJSON(map[string]any{"principal": v.tenant + "/" + v.name, "spiffe": v.spiffe, "policy": file, "folder": v.out, "server": saved.URL, "letIn": refused == nil})
	}
	facts(v.stdout, "", "principal", v.tenant+"/"+v.name+" in "+file, "certificate", v.spiffe+" in "+filepath.Join(v.out, "cert.pem"), "folder", v.out+", for the workload: SIGNET_HOME="+v.out)
	switch {
	case errors.Is(refused, client.ErrUnavailable):
		v.note("no broker answers at %s; it lets it in when it runs", saved.URL)
		return nil
	case refused != nil:
		v.note("the broker at %s does not let it in yet: %s", saved.URL, clean(refused.Error()))
		return nil
	}
	v.note("the broker at %s lets it in", saved.URL)
	return nil
}
