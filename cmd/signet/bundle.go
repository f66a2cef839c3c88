package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/doctor"
	"github.com/signetbus/signet/internal/support"
)

// maxLogTail is how much of the end of a log goes into a bundle.
const maxLogTail = 4 << 20

// bundleEntries are the entries of a bundle, in their order.
var bundleEntries = []struct{ name, what, from string }{
	{support.ManifestName, "what the bundle holds, with the SHA-256 of each entry, and what could not be had", "always"},
	{"doctor.json", "what signet doctor finds", "always"},
	{"version.json", "version, revision, Go, modules of this binary", "always"},
	{"system.txt", "operating system, memory, load, limits of this machine", "always"},
	{"config.yaml", "the configuration in force, without comments", "--config"},
	{"policy.yaml", "the policy: names and public keys; without comments, descriptions and schema texts", "--config"},
	{"metrics.txt", "the metrics of the broker", "the operations port"},
	{"status.json", "signet status", "a context"},
	{"consumers.json", "the consumers with the most to do", "a context"},
	{"refusals.json", "the latest refusals: time, code, rule, principal, subject; no detail, no payload", "a context"},
	{"log-N.txt", "the last 4 MiB of a log", "--log"},
}

// bundleRequest is what a bundle is made of.
type bundleRequest struct {
	examination
	out  string
	logs []string
	list bool
}

func supportBundleCommand(a *app) *cobra.Command {
	x := bundleRequest{examination: examination{thresholds: doctor.DefaultThresholds()}}
	cmd := &cobra.Command{
		Use: "support-bundle --out FILE.tar.gz [flags]", Short: "collect what helps others to find a fault, redacted",
		Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: `Writes one archive with what helps somebody else to find a fault; --list says what.
It holds names (principals, subjects, streams, files, hosts) and public keys, but no
events, no payloads and no environment. Seeds, private keys, tokens, passwords and
user information in addresses are taken out of every byte wherever their form can be
recognised. Look into it before you send it all the same.

What cannot be had (no context, no answer, no grant) is left out, and the manifest
says so. The file is made with mode 0600 and never overwrites another.`,
		Example: "  signet support-bundle --list\n  signet support-bundle --out fault.tar.gz --config /etc/signet/signet.yaml --context dev-operator --log /var/log/signet.log",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			switch {
			case x.list:
				return listBundle(a)
			case x.out == "":
				return &usageError{msg: "missing: --out"}
			}
			return makeBundle(ctx, a, &x)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&x.out, "out", "", "file to make, .tar.gz")
	f.BoolVar(&x.list, "list", false, "say what a bundle contains, and make none")
	f.StringVar(&x.config, "config", "", "configuration file of the broker, on this machine")
	f.StringVar(&x.ops, "ops", "", "operations port, http://host:port (default: that of --config; off: none)")
	f.StringArrayVar(&x.logs, "log", nil, "log of the broker, for its end (repeat it)")
	return cmd
}

func listBundle(a *app) error {
	if a.jsonOut() {
		rows := []map[string]string{}
		for _, e := range bundleEntries {
			rows = append(rows, map[string]string{"name": e.name, "what": e.what, "from": e.from})
		}
		return a.printJSON(rows)
	}
	g := newGrid(a.stdout, "ENTRY", "FROM", "WHAT")
	for _, e := range bundleEntries {
		g.row(e.name, e.from, e.what)
	}
	g.flush()
	return nil
}

// whatOf is the description of an entry.
func whatOf(name string) string {
	for _, e := range bundleEntries {
		if e.name == name || e.name == "log-N.txt" && strings.HasPrefix(name, "log-") {
			return e.what
		}
	}
	return ""
}

func makeBundle(ctx context.Context, a *app, x *bundleRequest) error {
	if _, err := os.Lstat(x.out); err == nil {
		return &usageError{msg: x.out + " is there already, and is not overwritten", fix: "--out with another name"}
	}
	v, revision := buildVersion()
	b := support.New(time.Now(), v)
	add := func(name string, data []byte) { b.Add(name, whatOf(name), data) }
	found, err := examine(ctx, a, &x.examination)
	if err != nil {
		// A bundle is made when things do not work: what can be had goes in.
		b.Miss("doctor.json", err)
		found = &result{}
	} else {
		b.AddJSON("doctor.json", whatOf("doctor.json"), found.report)
	}
	b.AddJSON("version.json", whatOf("version.json"), map[string]any{
		"version": v, "revision": revision, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "modules": modules(),
	})
	add("system.txt", systemFacts())
	if found.folder != nil {
		bundleFolder(b, &found.folder.Config)
	}
	if found.metrics != "" {
		add("metrics.txt", []byte(found.metrics))
	}
	if err := bundleOnline(ctx, a, b, x); err != nil {
		b.Miss("status.json", err)
	}
	for i, file := range x.logs {
		name := fmt.Sprintf("log-%d.txt", i+1)
		tail, err := logTail(file)
		if err != nil {
			b.Miss(name, err)
			continue
		}
		add(name, tail)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.Write(x.out); err != nil {
		return err
	}
	return reportBundle(a, x.out, b.Manifest())
}

func reportBundle(a *app, file string, m *support.Manifest) error {
	if a.jsonOut() {
		return a.printJSON(m)
	}
	for _, e := range m.Entries {
		fmt.Fprintf(a.stdout, "%-16s %9d bytes  %s\n", clean(e.Name), e.Bytes, clean(e.What))
	}
	for _, s := range m.Missing {
		a.note("not in it: %s", clean(s))
	}
	a.note("%s made, mode 0600; look into it before you send it", clean(file))
	return nil
}

// bundleFolder adds configuration and policy. Both are decoded and written anew: a
// comment can hold anything.
func bundleFolder(b *support.Bundle, cfg *broker.Config) {
	text, err := yaml.Marshal(cfg)
	if err != nil {
		b.Miss("config.yaml", err)
	} else {
		b.Add("config.yaml", whatOf("config.yaml"), text)
	}
	var out bytes.Buffer
	for _, path := range cfg.Policy {
		files, err := policyFiles(path)
		if err != nil {
			b.Miss("policy.yaml", err)
		}
		for _, file := range files {
			if err := barePolicy(&out, file); err != nil {
				// The error of the parser quotes the text.
				b.Miss("policy.yaml", fmt.Errorf("%s cannot be read as YAML: signet policy check says where", file))
			}
		}
	}
	if out.Len() > 0 {
		b.Add("policy.yaml", whatOf("policy.yaml"), out.Bytes())
	}
}

func policyFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	all, err := os.ReadDir(path)
	var out []string
	for _, e := range all {
		if n := e.Name(); !strings.HasPrefix(n, ".") && (strings.HasSuffix(n, ".yaml") || strings.HasSuffix(n, ".yml")) {
			out = append(out, path+string(os.PathSeparator)+n)
		}
	}
	return out, err
}

func barePolicy(out *bytes.Buffer, file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var doc yaml.MapSlice
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return err
	}
	text, err := yaml.Marshal(bare(doc))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "--- # %s\n%s", clean(file), text)
	return nil
}

// bare takes out of a policy what people write for people, and the texts of schemas,
// which may quote payloads as examples.
func bare(v any) any {
	switch v := v.(type) {
	case yaml.MapSlice:
		for i := range v {
			switch v[i].Key {
			case "text", "description":
				v[i].Value = support.Marker
			default:
				v[i].Value = bare(v[i].Value)
			}
		}
		return v
	case []any:
		for i := range v {
			v[i] = bare(v[i])
		}
		return v
	}
	return v
}

// bundleOnline adds what the admin API tells.
func bundleOnline(ctx context.Context, a *app, b *support.Bundle, x *bundleRequest) error {
	if x.config != "" && a.contextName == "" && a.getenv(envContext) == "" {
		return errors.New("no --context was given")
	}
	return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		status, err := api.Status(ctx)
		if err != nil {
			return err
		}
		b.AddJSON("status.json", whatOf("status.json"), status)
		if list, err := api.Consumers(ctx, admin.MaxListLimit); err != nil {
			b.Miss("consumers.json", err)
		} else {
			b.AddJSON("consumers.json", whatOf("consumers.json"), list)
		}
		refused, err := api.Refusals(ctx, admin.RefusalsQuery{Limit: admin.MaxListLimit}, 0)
		if err != nil {
			b.Miss("refusals.json", err)
			return nil
		}
		for i := range refused.Entries {
			// Details and violations quote what was published.
			r := &refused.Entries[i]
			r.Detail, r.Violations, r.Explain = "", nil, nil
		}
		b.AddJSON("refusals.json", whatOf("refusals.json"), refused)
		return nil
	})
}

// logTail returns the end of a log from the beginning of a line on.
func logTail(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", file)
	}
	from := max(0, info.Size()-maxLogTail)
	data, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, from, info.Size()-from), maxLogTail))
	if err != nil {
		return nil, err
	}
	if from > 0 {
		// Half a secret is harder to recognise than a whole one.
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return data, nil
}

// systemFacts are what the system says of itself. The environment is not among it.
func systemFacts() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s/%s, %d CPUs, GOMAXPROCS %d, uid %d, %s\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.GOMAXPROCS(0), os.Geteuid(), time.Now().UTC().Format(time.RFC3339))
	for _, file := range []string{"/proc/sys/kernel/osrelease", "/etc/os-release", "/proc/loadavg", "/proc/meminfo", "/proc/self/limits", "/proc/pressure/io", "/proc/pressure/memory"} {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			text = []byte(err.Error())
		}
		fmt.Fprintf(&out, "\n# %s\n%s", file, text)
	}
	return out.Bytes()
}
