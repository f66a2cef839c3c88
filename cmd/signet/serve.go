package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker"
)

var errStopped = errors.New("the broker stopped by itself; its log says why")

func serveCommand(a *app) *cobra.Command {
	var file string
	var check, show, full bool
	var accept []string
	cmd := &cobra.Command{
		Use: "serve --config FILE", Short: "run a broker from a configuration", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: `Runs a broker until SIGTERM or SIGINT, which drain it within the drain time of the
configuration; a second signal ends it at once with exit code 130. SIGHUP reads
policy, schemas, keys and certificates again; so does a change of their files. A
fault in them changes nothing.

Before anything is served, the store is verified. A damaged one is not served: the
error says which streams, sequences and files; restore a backup, or agree to the loss
with --accept-damage. A store over 8 GiB is not read again where it was verified
before; --full-check reads all of it.

--check reads everything that a start would and prints all faults (exit code 2).
--print-config prints the configuration in force, defaults and environment included.`,
		Example: "  signet serve --config /etc/signet/signet.yaml\n  signet serve --config signet.yaml --check\n  signet serve --config signet.yaml --print-config",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := broker.LoadConfig(file, a.getenv)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return &usageError{msg: fmt.Sprintf("there is no configuration %s", file), fix: "signet init DIR writes one"}
			case err != nil:
				return a.faulty(err)
			case show:
				return printConfig(a, &cfg)
			case check:
				return checkConfig(cmd.Context(), a, file, &cfg)
			}
			cfg.AcceptDamage, cfg.FullCheck = accept, full
			v, _ := buildVersion()
			b, err := broker.New(cfg, v, newLog(a.stderr, cfg.Log))
			if err != nil {
				return err
			}
			return runBroker(cmd.Context(), a, b, cfg.Drain, func() error { return nil })
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration file")
	f.BoolVar(&check, "check", false, "check configuration, policy, schemas, keys and certificates, and end")
	f.StringArrayVar(&accept, "accept-damage", nil, "TENANT/STREAM to serve though it is damaged: what cannot be read is lost for good")
	f.BoolVar(&full, "full-check", false, "verify all that is stored before the start, also what was verified before")
	f.BoolVar(&show, "print-config", false, "print the configuration in force, and end")
	cmd.MarkFlagsMutuallyExclusive("check", "print-config")
	_ = cmd.MarkFlagRequired("config") // fails only for an unknown flag
	return cmd
}

func checkConfig(ctx context.Context, a *app, file string, cfg *broker.Config) error {
	b, err := broker.New(*cfg, version, zerolog.Nop())
	if err == nil {
		err = b.Check(ctx)
	}
	if err != nil {
		return a.faulty(err)
	}
	if a.jsonOut() {
		return a.printJSON(map[string]any{"ok": true, "config": file})
	}
	fmt.Fprintf(a.stdout, "%s: ok\n", clean(file))
	set, err := loadPolicy(ctx, cfg.Policy)
	if err != nil {
		return a.faulty(err)
	}
	for _, t := range set.Tenants() {
		facts(a.stdout, "  ", "tenant "+t.Name, dedupMemory(t))
	}
	return nil
}

// faulty prints every fault that err joins, one a line.
func (a *app) faulty(err error) error {
	list := flatten(err)
	if a.jsonOut() {
		if perr := a.printJSON(map[string]any{"ok": false, "faults": list}); perr != nil {
			return perr
		}
		return &exitError{code: exitUsage}
	}
	for _, f := range list {
		fmt.Fprintf(a.stderr, "%s\n", clean(f))
	}
	return &exitError{code: exitUsage, err: errors.New(plural(len(list), "fault"))}
}

// flatten lists the texts of a tree of joined errors, each once.
func flatten(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		if _, wrapped := err.(interface{ Is(error) bool }); !wrapped && isJoin(err, joined.Unwrap()) {
			var out []string
			for _, e := range joined.Unwrap() {
				out = append(out, flatten(e)...)
			}
			return out
		}
	}
	return []string{plain(oneLine(err))}
}

// isJoin tells errors.Join from fmt.Errorf with several %w, whose text says more
// than its parts.
func isJoin(err error, parts []error) bool {
	var texts []string
	for _, p := range parts {
		texts = append(texts, p.Error())
	}
	return err.Error() == strings.Join(texts, "\n")
}

// printConfig prints cfg. There is nothing to redact: secrets are only ever named
// by file, and their contents are not part of it.
func printConfig(a *app, cfg *broker.Config) error {
	text, err := yaml.Marshal(cfg)
	if err != nil {
		return err
	}
	if a.jsonOut() {
		if text, err = yaml.YAMLToJSON(text); err != nil {
			return err
		}
	}
	_, err = a.stdout.Write(text)
	return err
}
