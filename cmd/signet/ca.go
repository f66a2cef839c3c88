package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker/ca"
)

// defaultWithin is when signet ca status calls a certificate due.
const defaultWithin = 30 * 24 * time.Hour

func caCommand(a *app) *cobra.Command {
	return parent("ca", "certificates", "  signet ca init ./ca --name shop\n  signet ca issue client spiffe://shop.example/checkout --ca ./ca --out checkout",
		caInitCommand(a), caIssueCommand(a), caRenewCommand(a), caStatusCommand(a))
}

func caInitCommand(a *app) *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use: "init DIR --name NAME", Short: "make an authority", Args: exactly("DIR"), DisableFlagsInUseLine: true,
		Long:    "Makes a certificate authority in a folder: ca.pem, which those who trust it get, and ca.key,\nwhich signs and whose mode is 0600. signet init makes one by itself; overwrites nothing.",
		Example: "  signet ca init ./ca --name shop",
		RunE: a.verb(func(_ context.Context, args []string) error {
			authority, err := ca.Create(args[0], name)
			if err != nil {
				return err
			}
			if a.jsonOut() {
				return a.printJSON(map[string]any{"ca": filepath.Join(args[0], ca.CACertFile), "key": filepath.Join(args[0], ca.CAKeyFile), "notAfter": authority.Expires()})
			}
			fmt.Fprintln(a.stdout, filepath.Join(args[0], ca.CACertFile))
			a.note("%s signs: keep it from everybody, and off the brokers unless clients enrol with them (authentication.enrolment)", filepath.Join(args[0], ca.CAKeyFile))
			return nil
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the authority, for people")
	_ = cmd.MarkFlagRequired("name") // fails only for an unknown flag
	return cmd
}

// caIssue is what signet ca issue was asked for.
type caIssue struct {
	*app
	dir, out, csr, cluster, node string
	life                         time.Duration
}

func caIssueCommand(a *app) *cobra.Command {
	v := &caIssue{app: a}
	cmd := &cobra.Command{
		Use: "issue client|server|node [NAME...] --out FILE", Short: "issue a certificate", DisableFlagsInUseLine: true,
		Args: cobra.MinimumNArgs(1), ValidArgs: []string{ca.KindClient, ca.KindServer, ca.KindNode},
		Long: "Issues a certificate to FILE.pem and its key to FILE.key. A client has one SPIFFE ID or some DNS\n" +
			"names, which are what the policy has under identities; a server the hosts and addresses at\nwhich it is reached; a node, which --cluster and --node name, both.\n\n" +
			"With --csr the key stays where it is, and only FILE.pem is written.",
		Example: "  signet ca issue client spiffe://shop.example/checkout --ca ./ca --out checkout\n" +
			"  signet ca issue client billing.shop.example --csr billing.csr --ca ./ca --out billing\n" +
			"  signet ca issue server bus.example.org 10.0.0.1 --ca ./ca --out server",
		RunE: a.verb(func(_ context.Context, args []string) error { return v.run(args[0], args[1:]) }),
	}
	f := cmd.Flags()
	f.StringVar(&v.dir, "ca", "ca", "folder of the authority")
	f.StringVar(&v.out, "out", "", "file to write, without .pem and .key")
	f.StringVar(&v.csr, "csr", "", "certificate request (PEM) of a client, whose names must be those that are given here")
	f.StringVar(&v.cluster, "cluster", "", "name of the cluster, for a node")
	f.StringVar(&v.node, "node", "", "name of the node, for a node")
	f.Var(newSpan(&v.life, 0), "for", "valid for; default 24h for clients, 397d for servers and nodes")
	_ = cmd.MarkFlagRequired("out") // fails only for an unknown flag
	return cmd
}

func (v *caIssue) run(kind string, names []string) error {
	authority, err := ca.Load(v.dir)
	if err != nil {
		return err
	}
	cert, key := v.out+".pem", v.out+".key"
	switch kind {
	case ca.KindClient:
		if v.csr != "" {
			key, err = "", v.sign(authority, cert, clientNames(names))
		} else {
			err = authority.IssueClient(cert, key, clientNames(names), v.life)
		}
	case ca.KindServer:
		err = authority.IssueServer(cert, key, names, v.life)
	case ca.KindNode:
		if v.cluster == "" || v.node == "" {
			return &usageError{msg: "a node needs --cluster and --node"}
		}
		err = authority.IssueNode(cert, key, v.cluster, v.node, names, v.life)
	default:
		return &usageError{msg: fmt.Sprintf("%q: want client, server or node", kind)}
	}
	if errors.Is(err, ca.ErrInvalid) || errors.Is(err, ca.ErrRequest) {
		return &usageError{msg: err.Error()}
	}
	if err != nil {
		return err
	}
	issued, err := ca.ReadCertificate(cert)
	if err != nil {
		return err
	}
	if v.jsonOut() {
		return v.printJSON(map[string]any{"certificate": cert, "key": key, "names": certNames(issued), "notAfter": issued.NotAfter})
	}
	fmt.Fprintln(v.stdout, cert)
	v.note("valid until %s", issued.NotAfter.Format(time.RFC3339))
	return nil
}

// sign signs a request for the names of the command line: a request is written by who
// wants the names.
func (v *caIssue) sign(authority *ca.Authority, cert string, names ca.Names) error {
	text, err := os.ReadFile(v.csr)
	if err != nil {
		return err
	}
	req, asked, err := ca.ReadRequest(text)
	if err != nil {
		return err
	}
	if asked.SPIFFE != names.SPIFFE || strings.Join(asked.DNS, " ") != strings.Join(names.DNS, " ") {
		return &usageError{msg: fmt.Sprintf("the request asks for %q, not for what is given here", strings.TrimSpace(asked.SPIFFE+" "+strings.Join(asked.DNS, " ")))}
	}
	chain, _, err := authority.Sign(req, asked, v.life)
	if err != nil {
		return err
	}
	return os.WriteFile(cert, chain, 0o644) //nolint:gosec // a certificate is public
}

func clientNames(names []string) ca.Names {
	if len(names) == 1 && strings.Contains(names[0], "://") {
		return ca.Names{SPIFFE: names[0]}
	}
	return ca.Names{DNS: names}
}

func caRenewCommand(a *app) *cobra.Command {
	var dir, authority string
	var life time.Duration
	cmd := &cobra.Command{
		Use: "renew [CERT.pem...] [--authority STEP]", Short: "renew certificates, or the authority", DisableFlagsInUseLine: true, Args: cobra.ArbitraryArgs,
		Long: "Issues certificates with the names of those in CERT.pem over them, with fresh keys in the .key\nfiles beside them. Brokers and the SDK pick them up by themselves.\n\n" +
			"The authority changes in three steps, each of which may rest as long as you like:\n" +
			"  --authority prepare   ca.pem lists the old and the next one: bring it to all who trust it\n" +
			"  --authority switch    the next one issues from now on: renew all certificates\n" +
			"  --authority retire    ca.pem lists the new one alone: bring it to all who trust it",
		Example: "  signet ca renew server.pem --ca ./ca\n  signet ca renew --authority prepare --ca ./ca",
		RunE: a.verb(func(_ context.Context, args []string) error {
			switch {
			case (authority == "") == (len(args) == 0):
				return &usageError{msg: "either certificates, or --authority with a step"}
			case authority != "":
				return turnAuthority(a, dir, authority)
			}
			return renewAll(a, dir, args, life)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&dir, "ca", "ca", "folder of the authority")
	f.StringVar(&authority, "authority", "", "prepare, switch or retire")
	f.Var(newSpan(&life, 0), "for", "valid for; default as long as the certificate was")
	_ = cmd.RegisterFlagCompletionFunc("authority", cobra.FixedCompletions([]string{"prepare", "switch", "retire"}, noFiles)) // fails only for an unknown flag
	return cmd
}

// turnSteps are the steps of a change of authority, and what comes after each.
var turnSteps = map[string]struct {
	do   func(dir string) error
	then string
}{
	"prepare": {ca.Prepare, "bring %s to all who trust the authority, then: signet ca renew --authority switch"},
	"switch":  {ca.Switch, "renew every certificate, then: signet ca renew --authority retire (%s still lists both)"},
	"retire":  {ca.Retire, "bring %s to all who trust the authority: certificates of the old one are good nowhere any more"},
}

func turnAuthority(a *app, dir, name string) error {
	step, ok := turnSteps[name]
	if !ok {
		return &usageError{msg: fmt.Sprintf("--authority %q: want prepare, switch or retire", name)}
	}
	if err := step.do(dir); err != nil {
		return err
	}
	file := filepath.Join(dir, ca.CACertFile)
	if a.jsonOut() {
		return a.printJSON(map[string]string{"step": name, "ca": file})
	}
	fmt.Fprintln(a.stdout, file)
	a.note(step.then, file)
	return nil
}

func renewAll(a *app, dir string, files []string, life time.Duration) error {
	authority, err := ca.Load(dir)
	if err != nil {
		return err
	}
	type renewed struct {
		Certificate string    `json:"certificate"`
		NotAfter    time.Time `json:"notAfter"`
	}
	var out []renewed
	for _, cert := range files {
		base, ok := strings.CutSuffix(cert, ".pem")
		if !ok {
			return &usageError{msg: fmt.Sprintf("%s: a file NAME.pem is wanted, whose key is NAME.key", cert)}
		}
		if err := authority.Renew(cert, base+".key", life); err != nil {
			return err
		}
		c, err := ca.ReadCertificate(cert)
		if err != nil {
			return err
		}
		out = append(out, renewed{cert, c.NotAfter})
		if !a.jsonOut() {
			fmt.Fprintf(a.stdout, "%s  %s\n", clean(cert), c.NotAfter.Format(time.RFC3339))
		}
	}
	if a.jsonOut() {
		return a.printJSON(out)
	}
	return nil
}

// caState is one certificate of signet ca status.
type caState struct {
	File     string    `json:"file"`
	Kind     string    `json:"kind"`
	Names    []string  `json:"names,omitempty"`
	NotAfter time.Time `json:"notAfter"`
	State    string    `json:"state"`
}

// Values of caState.State.
const (
	stateOK      = "ok"
	stateDue     = "due"
	stateExpired = "expired"
)

func caStatusCommand(a *app) *cobra.Command {
	var within time.Duration
	cmd := &cobra.Command{
		Use: "status [FILE|FOLDER...]", Short: "when certificates end", DisableFlagsInUseLine: true, Args: cobra.ArbitraryArgs,
		Long:    "Lists the certificates in PEM files, and in the *.pem files of folders, with what they are for and\nwhen they end. Exit code 1 if one is due (or past two thirds of its life, if that is short) or expired.",
		Example: "  signet ca status /etc/signet/ca /etc/signet/tls\n  signet ca status checkout.pem --within 6h",
		RunE: a.verb(func(_ context.Context, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			list, err := caStates(args, within, time.Now())
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return &usageError{msg: "there is no certificate in " + strings.Join(args, ", ")}
			}
			return printStates(a, list)
		}),
	}
	cmd.Flags().Var(newSpan(&within, defaultWithin), "within", "due when it ends within")
	return cmd
}

func printStates(a *app, list []caState) error {
	bad := false
	for _, s := range list {
		bad = bad || s.State != stateOK
	}
	if a.jsonOut() {
		if err := a.printJSON(list); err != nil {
			return err
		}
	} else {
		g := newGrid(a.stdout, "STATE", "ENDS", "KIND", "NAMES", "FILE")
		for _, s := range list {
			g.row(s.State, s.NotAfter.UTC().Format("2006-01-02 15:04"), s.Kind, strings.Join(s.Names, " "), s.File)
		}
		g.flush()
	}
	if bad {
		return &exitError{code: exitFailed}
	}
	return nil
}

func caStates(paths []string, within time.Duration, now time.Time) ([]caState, error) {
	var list []caState
	for _, p := range paths {
		files := []string{p}
		if info, err := os.Stat(p); err != nil {
			return nil, err
		} else if info.IsDir() {
			if files, err = filepath.Glob(filepath.Join(p, "*.pem")); err != nil {
				return nil, err
			}
		}
		for _, file := range files {
			certs, err := ca.ReadAll(file)
			if errors.Is(err, ca.ErrInvalid) && file != p || errors.Is(err, fs.ErrNotExist) {
				continue // a PEM file of something else
			} else if err != nil {
				return nil, err
			}
			for i, c := range certs {
				if i > 0 && !certs[0].IsCA {
					break // the authority behind a certificate
				}
				list = append(list, stateOf(file, c, within, now))
			}
		}
	}
	return list, nil
}

func stateOf(file string, c *x509.Certificate, within time.Duration, now time.Time) caState {
	s := caState{File: file, Kind: ca.Kind(c), Names: certNames(c), NotAfter: c.NotAfter, State: stateOK}
	if c.IsCA {
		s.Kind, s.Names = "authority", []string{c.Subject.CommonName}
	}
	// A certificate of a day is not due all its life.
	margin := min(within, c.NotAfter.Sub(c.NotBefore)/3)
	switch left := c.NotAfter.Sub(now); {
	case left <= 0:
		s.State = stateExpired
	case left < margin:
		s.State = stateDue
	}
	return s
}

func certNames(c *x509.Certificate) []string {
	var names []string
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	names = append(names, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}
