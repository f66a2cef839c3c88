package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
)

// planLimit bounds a plan: the replay of events may take half a minute.
const planLimit = time.Minute

func policyPlanCommand(a *app) *cobra.Command {
	hours := 24
	cmd := &cobra.Command{
		Use: "plan FILE... [--hours N]", Short: "show who gains and loses what, and what stored events would be refused", Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		Long: `Compares the policy in the files with the one in force, by what it means: a grant that
moves to a role is no change. Then the events that were stored in the last hours are
judged by it: who sent what it would refuse. Nothing is applied. Exit code 3 if a
stored event would be refused.`,
		Example: "  signet policy plan policy.yaml\n  signet policy plan policy.d/ --hours 168 -o json",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			_, packed, err := packPolicy(a, args)
			if err != nil {
				return err
			}
			return showPlan(ctx, a, admin.PolicyPlanRequest{Files: packed, Hours: hours})
		}),
	}
	cmd.Flags().IntVar(&hours, "hours", hours, "judge the events stored in the last hours; 0 for none")
	return cmd
}

func policyDiffCommand(a *app) *cobra.Command {
	var version uint64
	cmd := &cobra.Command{
		Use: "diff FILE... | --version N", Short: "compare a policy with the one in force", Args: cobra.ArbitraryArgs, DisableFlagsInUseLine: true,
		Long:    "As plan, without stored events. With --version an earlier version is compared: what\na rollback would change.",
		Example: "  signet policy diff policy.yaml\n  signet policy diff --version 7",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if version > 0 && len(args) > 0 {
				return &usageError{msg: "FILE or --version, not both"}
			}
			q := admin.PolicyPlanRequest{Version: version}
			if version == 0 {
				var err error
				if _, q.Files, err = packPolicy(a, args); err != nil {
					return err
				}
			}
			return showPlan(ctx, a, q)
		}),
	}
	cmd.Flags().Uint64Var(&version, "version", 0, "a version that signet policy history lists, in place of files")
	return cmd
}

func showPlan(ctx context.Context, a *app, q admin.PolicyPlanRequest) error {
	ctx, cancel := context.WithTimeout(ctx, max(planLimit, a.timeout))
	defer cancel()
	return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		p, err := admin.PolicyOf(api).Plan(ctx, q)
		if err != nil {
			return err
		}
		if len(p.Faults) > 0 {
			return printFaults(a, p.Faults)
		}
		if a.jsonOut() {
			err = a.printJSON(p)
		} else {
			printChanges(a, p)
			printReplay(a, p.Replay)
		}
		if err == nil && p.Replay != nil && p.Replay.Refused > 0 {
			return &exitError{code: exitRefused}
		}
		return err
	})
}

func printChanges(a *app, p *admin.PolicyPlan) {
	if p.Digest == p.InForce {
		fmt.Fprintf(a.stdout, "this policy is in force: %s\n", p.Digest)
		return
	}
	fmt.Fprintf(a.stdout, "from %s\n  to %s\n", p.InForce, p.Digest)
	if len(p.Changes) == 0 {
		fmt.Fprintln(a.stdout, "  it means the same: nobody gains or loses anything")
	}
	sign := map[string]string{"gains": "+", "adds": "+", "loses": "-", "removes": "-", "changes": "~"}
	for i := range p.Changes {
		fmt.Fprintf(a.stdout, "  %s %s\n", sign[p.Changes[i].What], clean(p.Changes[i].Text))
	}
	if p.More > 0 {
		fmt.Fprintf(a.stdout, "  ... and %s more\n", plural(p.More, "change"))
	}
	for _, f := range p.Ungiven {
		a.note("as in the policy in force: %s: %s", place(f.File, f.Line), f.Message)
	}
	if len(p.Unasked) > 0 {
		a.note("not asked whether they know whoever vouches for its identities: %s", strings.Join(p.Unasked, ", "))
	}
	if p.Partial {
		a.note("only the changes of your tenant are shown: all of them need the grant admin cluster")
	}
}

func printReplay(a *app, r *admin.PolicyReplayed) {
	if r == nil {
		return
	}
	fmt.Fprintf(a.stdout, "%s since %s, %d would be refused\n", plural(r.Events, "stored event"), stamp(r.Since), r.Refused)
	if r.Cut != "" {
		a.note("not all were judged: %s", r.Cut)
	}
	if len(r.Refusals) == 0 {
		return
	}
	g := newGrid(a.stdout, "PRINCIPAL", "TYPE", "CODE", "RULE", "DETAIL", "COUNT", "FIRST")
	for i := range r.Refusals {
		x := &r.Refusals[i]
		g.row(x.Principal, x.Type, x.Code.String(), x.Rule, x.Detail, strconv.Itoa(x.Count), fmt.Sprintf("%s %s/%d", x.Subject, x.Stream, x.Sequence))
	}
	g.flush()
}

func policyHistoryCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "history", Short: "list the versions of the policy that were applied", Args: cobra.NoArgs,
		Example: "  signet policy history",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				list, err := admin.PolicyOf(api).History(ctx)
				if err != nil {
					return err
				}
				if a.jsonOut() {
					return a.printJSON(list)
				}
				if len(list) == 0 {
					a.note("none was applied: the policy comes from the files of the nodes")
					return nil
				}
				g := newGrid(a.stdout, "VERSION", "APPLIED", "BY", "POLICY", "NOTE")
				for _, v := range list {
					digest := v.Digest
					if digest == "" {
						digest = "the files of the nodes"
					}
					g.row(strconv.FormatUint(v.Version, 10), stamp(v.Time), v.By, digest, v.Note)
				}
				g.flush()
				return nil
			})
		}),
	}
}

func policyUnusedCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "unused [--all]", Short: "list the grants that nobody has used, and what modes let through", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: `Lists the grants of the tenant that nothing was let in by at any node since the nodes
began, the rules in mode audit or off, with the count of what they would have
refused, and the limits that no principal has. Counts are kept in memory: the time since which they count is printed.`,
		Example: "  signet policy unused\n  signet policy unused --all -o json",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				u, err := admin.PolicyOf(api).Usage(ctx)
				if err != nil {
					return err
				}
				if !all {
					u.Grants = slices.DeleteFunc(u.Grants, func(g admin.GrantUse) bool { return g.Count > 0 })
				}
				if a.jsonOut() {
					return a.printJSON(u)
				}
				printUsage(a, u)
				return nil
			})
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "the grants that are used, too")
	return cmd
}

func printUsage(a *app, u *admin.PolicyUsage) {
	fmt.Fprintf(a.stdout, "%s since %s (%s)\n", plural(len(u.Grants), "grant"), stamp(u.Since), span(time.Since(u.Since)))
	if len(u.Grants) > 0 {
		g := newGrid(a.stdout, "GRANT", "PATTERN", "AT", "HOLDERS", "USES")
		for i := range u.Grants {
			x := &u.Grants[i]
			g.row(x.Rule, strings.TrimSpace(x.Verb+" "+x.Pattern), place(x.File, x.Line), strconv.Itoa(x.Holders), count(x.Count))
		}
		g.flush()
	}
	if u.More > 0 {
		a.note("%s more are not listed", plural(u.More, "grant"))
	}
	if len(u.Modes) > 0 {
		fmt.Fprintf(a.stdout, "\n%s not enforced\n", plural(len(u.Modes), "rule"))
		g := newGrid(a.stdout, "RULE", "MODE", "AT", "WOULD HAVE REFUSED")
		for _, m := range u.Modes {
			times := count(m.Count)
			if m.Mode == "off" {
				times = "not counted"
			}
			g.row(m.Rule, m.Mode, place(m.File, m.Line), times)
		}
		g.flush()
	}
	if len(u.Idle) > 0 {
		fmt.Fprintf(a.stdout, "\n%s of nobody: name it under limit of a role, a principal or the document\n", plural(len(u.Idle), "limit"))
		g := newGrid(a.stdout, "RULE", "AT")
		for _, l := range u.Idle {
			g.row(l.Rule, place(l.File, l.Line))
		}
		g.flush()
	}
	for _, node := range slices.Sorted(maps.Keys(u.Without)) {
		a.note("without node %s: %s", node, u.Without[node])
	}
}
