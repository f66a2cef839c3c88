package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/client/admin"
)

func clusterReplaceCommand(a *app) *cobra.Command {
	s := &steps{a: a}
	var dry bool
	cmd := &cobra.Command{
		Use: "replace NAME", Short: "bring a node back whose volume is lost", Args: exactly("NAME"),
		Long: "Says what to do for a node whose volume is lost, and waits until it is back with all its\n" +
			"copies. It comes back under its name with an empty volume; nothing is removed. All other\n" +
			"nodes must run meanwhile. Grant: admin cluster.",
		Example: "  signet cluster replace bus-2",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if s.wait < clusterPoll {
				return &usageError{msg: fmt.Sprintf("--wait %s: want %s or more", s.wait, clusterPoll)}
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				s.api = api
				return s.replace(ctx, args[0], dry)
			})
		}),
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what to do and do not wait")
	cmd.Flags().DurationVar(&s.wait, "wait", clusterWait, "bound of each step")
	return cmd
}

func (s *steps) replace(ctx context.Context, name string, dry bool) error {
	status, err := s.api.ClusterStatus(ctx)
	if err != nil {
		return err
	}
	if err := mayReplace(status, name); err != nil {
		return err
	}
	if !nodeOf(status, name).Answers {
		s.say(name, "prepare", "on its machine, or a new one at the same address: its folder as signet init made it (configuration, keys, certificates), and an empty state folder")
		s.say(name, "start", "start it: signet serve --config signet.yaml")
	}
	if dry {
		return nil
	}
	if _, err := s.until(ctx, name+" is started", func(st *admin.ClusterStatus) bool { return nodeOf(st, name).Answers }); err != nil {
		return err
	}
	s.say(name, "wait", "it is there; waiting for its copies")
	status, err = s.until(ctx, name+" has its copies", func(st *admin.ClusterStatus) bool {
		n := nodeOf(st, name)
		return n.Answers && n.Member && n.Current && n.Phase == "ready" && whole(st)
	})
	if err != nil {
		return err
	}
	n := nodeOf(status, name)
	s.say(name, "done", "it is back, with %s and %s; every stream is whole", plural(n.Copies, "stream"), plural(n.Consumers, "consumer"))
	return nil
}

// mayReplace refuses what would not end well: a node with an empty log cannot help to
// elect a leader, so all the others have to be there.
func mayReplace(s *admin.ClusterStatus, name string) error {
	var all, down []string
	for i := range s.Nodes {
		n := &s.Nodes[i]
		all = append(all, n.Name)
		if n.Member && !n.Answers && n.Name != name {
			down = append(down, n.Name)
		}
	}
	switch {
	case !slices.Contains(all, name):
		return &usageError{msg: fmt.Sprintf("no node is called %q: a node comes back under its own name; there are %s", name, strings.Join(all, " "))}
	case s.Leader == "":
		return &exitError{code: exitFailed, err: fmt.Errorf("the cluster has no quorum, and an empty node does not help to one; start the nodes that still have their volumes: %s; if there are none: signet cluster rescue --help", strings.Join(down, " "))}
	case len(down) > 0:
		return &exitError{code: exitFailed, err: fmt.Errorf("%s must run first: an empty node counts for nothing until the others have filled it", strings.Join(down, " "))}
	}
	return nil
}

func clusterRescueCommand(a *app) *cobra.Command {
	var lost []string
	var config string
	var sure bool
	cmd := &cobra.Command{
		Use: "rescue --lost NAME --i-understand", Short: "give a cluster that lost its majority for good a new one", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: "For a cluster of which more than half of the nodes are lost for good, volumes and all:\n" +
			"lets the nodes that are left decide by themselves, and removes the lost ones. Events that\n" +
			"only the lost nodes had are gone, acknowledged or not. It is refused while any node knows\n" +
			"a leader, while a lost node answers with its store, or when one that does not answer is\n" +
			"not named. Nodes that wait with an empty volume may be named or not: see the manual.\n" +
			"Nodes that can still be started are to be started instead. Grant: admin cluster.\n\n" +
			"A node that was started without a quorum lets no client in. With --config, on its machine\n" +
			"and as its user, the order goes through its state folder.",
		Example: "  signet cluster rescue --lost bus-1 --lost bus-2 --i-understand\n  signet cluster rescue --lost bus-1 --lost bus-2 --i-understand --config signet.yaml",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			switch {
			case len(lost) == 0:
				return &usageError{msg: "name every node that is lost: --lost NAME"}
			case !sure:
				return &usageError{
					msg: "acknowledged events that only " + strings.Join(lost, " and ") + " had will be gone, and these nodes may never come back with their old volumes",
					fix: "if none of them can be started again: add --i-understand",
				}
			}
			out, err := a.rescue(ctx, config, lost)
			if err != nil {
				return err
			}
			if a.jsonOut() {
				return a.printJSON(out)
			}
			facts(a.stdout, "", "leader", out.Leader, "quorum", fmt.Sprint(out.Quorum), "removed", strings.Join(out.Removed, " "))
			a.note("the removed nodes are taken in again, empty, after five minutes: empty their volumes, start them, then signet cluster status; nodes that waited and were not named are being filled now")
			return nil
		}),
	}
	cmd.Flags().StringArrayVar(&lost, "lost", nil, "a node that is lost for good (repeat it)")
	cmd.Flags().StringVar(&config, "config", "", "configuration of a node on this machine that waits for a quorum")
	cmd.Flags().BoolVar(&sure, "i-understand", false, "events that only the lost nodes had are gone")
	return cmd
}

// rescue asks the broker of the context, or the node of a configuration.
func (a *app) rescue(ctx context.Context, config string, lost []string) (out *admin.ClusterRescue, err error) {
	if config == "" {
		err = a.admin(ctx, func(ctx context.Context, api *admin.API) error {
			out, err = api.ClusterRescue(ctx, lost...)
			return err
		})
		return out, err
	}
	cfg, err := broker.LoadConfig(config, a.getenv)
	if err != nil {
		return nil, &usageError{msg: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return broker.OrderRescue(ctx, cfg.State, lost)
}

func clusterRebalanceCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "rebalance", Short: "spread the leaders of the streams over the nodes", Args: cobra.NoArgs,
		Long: "Lets streams of all tenants be led by other nodes until no node leads two more than\n" +
			"another that could lead them. No copy moves; writers wait some milliseconds. It is\n" +
			"refused while a stream lacks a copy. Grant: admin cluster.",
		Example: "  signet cluster rebalance",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				out, err := api.ClusterRebalance(ctx)
				if err != nil {
					return err
				}
				if a.jsonOut() {
					err = a.printJSON(out)
				} else {
					printRebalance(a, out)
				}
				if err == nil && len(out.Failed) > 0 {
					err = &exitError{code: exitFailed}
				}
				return err
			})
		}),
	}
}

func printRebalance(a *app, out *admin.ClusterRebalance) {
	for _, m := range out.Moves {
		fmt.Fprintf(a.stdout, "%s: %s -> %s\n", clean(m.Stream), clean(m.From), clean(m.To))
	}
	for _, f := range out.Failed {
		fmt.Fprintf(a.stdout, "not moved: %s\n", clean(f))
	}
	if out.Others > 0 {
		fmt.Fprintf(a.stdout, "%s of other tenants\n", plural(out.Others, "leader"))
	}
	var leads []string
	for _, node := range slices.Sorted(maps.Keys(out.Leads)) {
		leads = append(leads, fmt.Sprintf("%s %d", node, out.Leads[node]))
	}
	fmt.Fprintf(a.stdout, "%s moved; leaders now: %s\n", plural(len(out.Moves)+out.Others, "leader"), strings.Join(leads, ", "))
}
