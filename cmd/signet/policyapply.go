package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/signing"
)

// applyLimit bounds an apply: where there is a new tenant, all nodes wait for each other.
const applyLimit = 2 * time.Minute

// applyFlags are those of the verbs that sign a version of the policy.
type applyFlags struct {
	key, note string
	lockOut   bool
}

func (f *applyFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "key", "", "file with the seed of a key of the role policy (SA...), mode 0600")
	cmd.Flags().StringVar(&f.note, "note", "", "why, for the history and the audit trail")
	cmd.Flags().BoolVar(&f.lockOut, "lock-me-out", false, "you are meant to lose the right to apply policies")
	_ = cmd.MarkFlagRequired("key") // fails only for an unknown flag
}

func policyApplyCommand(a *app) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "apply FILE... --key SEED", Short: "sign a policy and put it in force at all nodes", Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		Long: `Shows what the policy in the files changes, signs it as the next version with a key of
the role policy (signet keys issue --role policy), and puts it in force at all nodes.
It replaces the whole policy, of all tenants.

From the first version on the policy files on the nodes are not read any more:
signet policy release gives the policy back to them.`,
		Example: "  signet policy apply policy.yaml --key policy.seed --note 'billing may read refunds'",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			bundle, packed, err := packPolicy(a, args)
			if err != nil {
				return err
			}
			return signAndPut(ctx, a, &f, bundle.Digest(), packed, &admin.PolicyPlanRequest{Files: packed})
		}),
	}
	f.flags(cmd)
	return cmd
}

func policyRollbackCommand(a *app) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "rollback VERSION --key SEED", Short: "apply an earlier version of the policy again", Args: exactly("VERSION"), DisableFlagsInUseLine: true,
		Long:    "Signs the files of an earlier version as the next one, and puts it in force: the\nhistory only grows.",
		Example: "  signet policy rollback 7 --key policy.seed --note 'the new limits were too low'",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			n, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || n == 0 {
				return &usageError{msg: fmt.Sprintf("VERSION %q: want a number, such as signet policy history lists", args[0])}
			}
			var v *signing.PolicyVersion
			err = a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				doc, err := admin.PolicyOf(api).Get(ctx, n)
				if err == nil {
					v, err = signing.PeekPolicy(doc) // what is in it is judged when it is signed anew
				}
				return err
			})
			if err != nil {
				return err
			}
			if v.Digest == "" {
				return &usageError{msg: fmt.Sprintf("version %d gave the policy back to the files of the nodes", n), fix: "signet policy release does that again"}
			}
			if f.note == "" {
				f.note = fmt.Sprintf("back to version %d", n)
			}
			return signAndPut(ctx, a, &f, v.Digest, v.Files, &admin.PolicyPlanRequest{Version: n})
		}),
	}
	f.flags(cmd)
	return cmd
}

func policyReleaseCommand(a *app) *cobra.Command {
	var f applyFlags
	cmd := &cobra.Command{
		Use: "release --key SEED", Short: "give the policy back to the files of the nodes", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long:    "Signs a version that says: the policy files on each node hold again. Bring the files\nof all nodes up to date first, signet policy show --out writes those in force.",
		Example: "  signet policy release --key policy.seed",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return signAndPut(ctx, a, &f, "", nil, nil)
		}),
	}
	f.flags(cmd)
	return cmd
}

// packPolicy reads policy files as the broker would, and packs them.
func packPolicy(a *app, paths []string) (*policy.Bundle, []byte, error) {
	if len(paths) == 0 {
		return nil, nil, &usageError{msg: "FILE is missing"}
	}
	bundle, files, err := policy.LoadFiles(paths)
	if list := policyFaults(err); len(list) > 0 {
		return nil, nil, printFaults(a, list)
	}
	if err != nil {
		return nil, nil, &exitError{code: exitUsage, err: err}
	}
	packed, err := policy.Pack(files)
	return bundle, packed, err
}

// signAndPut signs the next version and applies it. plan shows what it changes before.
func signAndPut(ctx context.Context, a *app, f *applyFlags, digest string, packed []byte, plan *admin.PolicyPlanRequest) error {
	signer, err := policySigner(f.key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, applyLimit)
	defer cancel()
	return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		ring, err := api.KeyRing(ctx)
		if err != nil {
			return err
		}
		shown, err := admin.PolicyOf(api).Show(ctx)
		if err != nil {
			return err
		}
		if digest != "" && digest == shown.Digest && !shown.Files {
			a.note("this policy is in force already, version %d: nothing was applied", shown.Applied.Version)
			return nil
		}
		if plan != nil {
			p, err := admin.PolicyOf(api).Plan(ctx, *plan)
			if err != nil {
				return err
			}
			if len(p.Faults) > 0 {
				return printFaults(a, p.Faults)
			}
			if !a.jsonOut() {
				printChanges(a, p)
			}
		}
		doc, err := signer.SignPolicy(signing.PolicyVersion{
			Version: shown.Next, Broker: shown.Broker, Digest: digest, Before: shown.Digest, By: ring.Caller,
			Time: time.Now(), Note: f.note, Files: packed,
		})
		if err != nil {
			return &usageError{msg: err.Error()}
		}
		put, err := admin.PolicyOf(api).Put(ctx, doc, f.lockOut)
		if err != nil {
			return err
		}
		return printApplied(a, put)
	})
}

func policySigner(file string) (*signing.Signer, error) {
	if _, err := publicOfSeed(file, nkeys.PrefixByteAccount); err != nil {
		return nil, err
	}
	seed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(seed)
	return signing.NewSigner(bytes.TrimSpace(seed))
}

func printApplied(a *app, put *admin.PolicyPut) error {
	if a.jsonOut() {
		if err := a.printJSON(put); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(a.stdout, "version %d is in force at %s\n", put.Version, clean(strings.Join(put.InForce, ", ")))
		for _, node := range slices.Sorted(maps.Keys(put.Waiting)) {
			fmt.Fprintf(a.stdout, "  not at %s: %s\n", clean(node), clean(put.Waiting[node]))
		}
	}
	if len(put.Waiting) > 0 {
		return &exitError{code: exitFailed, err: errors.New("not all nodes have it: they take it when they can; signet policy show tells")}
	}
	return nil
}

func policyShowCommand(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "show [--out DIR]", Short: "show which policy is in force, and where it comes from", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long:    "Shows the version of the policy that the broker of the context has in force. With\n--out the files of the version are written to a new folder.",
		Example: "  signet policy show\n  signet policy show --out in-force/",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				shown, err := admin.PolicyOf(api).Show(ctx)
				if err != nil {
					return err
				}
				if out != "" {
					if err := writeVersion(ctx, a, api, shown, out); err != nil {
						return err
					}
				}
				return printShow(a, shown)
			})
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "write the files of the version to this folder, which must not exist")
	return cmd
}

func printShow(a *app, s *admin.PolicyShow) error {
	if a.jsonOut() {
		return a.printJSON(s)
	}
	from := "the policy files of the node"
	if !s.Files {
		from = fmt.Sprintf("version %d, applied by %s at %s", s.Applied.Version, s.Applied.By, stamp(s.Applied.Time))
	} else if s.Applied.Version > 0 {
		from += fmt.Sprintf(", given back by %s at %s (version %d)", s.Applied.By, stamp(s.Applied.Time), s.Applied.Version)
	}
	facts(a.stdout, "", "broker", s.Broker, "policy", s.Digest, "from", from, "note", s.Applied.Note, "next grant ends", stamp(s.Lapses), "tenants", strings.Join(s.Tenants, ", "))
	return nil
}

// writeVersion writes the files of the version in force to a new folder.
func writeVersion(ctx context.Context, a *app, api *admin.API, s *admin.PolicyShow, dir string) error {
	if s.Files {
		return &usageError{msg: "the policy comes from the policy files of the node, which the broker does not give away"}
	}
	doc, err := admin.PolicyOf(api).Get(ctx, s.Applied.Version)
	if err != nil {
		return err
	}
	v, err := signing.PeekPolicy(doc)
	if err != nil {
		return err
	}
	files, err := policy.Unpack(v.Files)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		return &usageError{msg: err.Error()}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range files {
		if i := strings.LastIndexByte(f.Name, '/'); i > 0 {
			if err := root.MkdirAll(f.Name[:i], 0o750); err != nil {
				return err
			}
		}
		if err := root.WriteFile(f.Name, f.Text, 0o640); err != nil {
			return err
		}
	}
	a.note("%s in %s", plural(len(files), "file"), dir)
	return nil
}
