package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
)

// clusterVerbs are the verbs of signet cluster, a line each.
var clusterVerbs = []func(*app) *cobra.Command{
	clusterStatusCommand,
	clusterScaleDownCommand,
	clusterReplaceCommand,
	clusterRescueCommand,
	clusterRebalanceCommand,
}

func clusterCommand(a *app) *cobra.Command {
	cmd := parent("cluster", "look after nodes and store; back up, restore", "  signet cluster status\n  signet cluster backup --out /backups\n  signet cluster scale-down --to 3 --dry-run")
	for _, verb := range clusterVerbs {
		cmd.AddCommand(verb(a))
	}
	cmd.AddCommand(clusterBackupCommands(a)...)
	return cmd
}

func clusterStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "show nodes, copies, and what has to be mended", Args: cobra.NoArgs,
		Long: "Shows every node of the cluster, the copies of the streams of the caller's tenant, and\n" +
			"what has to be mended. Exit code 1 if there is something. Grant: admin cluster.",
		Example: "  signet cluster status --context ops\n  signet cluster status -o json | jq .problems",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				s, err := api.ClusterStatus(ctx)
				if err != nil {
					return err
				}
				if a.jsonOut() {
					err = a.printJSON(s)
				} else {
					printCluster(a, s, time.Now())
				}
				if err == nil && len(s.Problems) > 0 {
					err = &exitError{code: exitFailed}
				}
				return err
			})
		}),
	}
}

func printCluster(a *app, s *admin.ClusterStatus, now time.Time) {
	leader := s.Leader
	if leader == "" {
		leader = "NONE"
	}
	health := "ok"
	if len(s.Problems) > 0 {
		health = "DEGRADED: " + plural(len(s.Problems), "problem")
	}
	others := ""
	if s.Others.Streams > 0 {
		others = fmt.Sprintf("%s, %d whole", plural(s.Others.Streams, "stream"), s.Others.Whole)
	}
	facts(a.stdout, "",
		"health", health,
		"cluster", fmt.Sprintf("%s, %s, leader %s, answered by %s", s.Name, plural(s.Size, "member"), leader, s.Answered),
		"other tenants", others)
	fmt.Fprintln(a.stdout)
	printNodes(a, s, now)
	if len(s.Streams) > 0 {
		fmt.Fprintln(a.stdout)
		g := newGrid(a.stdout, "STREAM", "COPIES", "LEADER", "STATE", "CANNOT LOSE")
		for i := range s.Streams {
			t := &s.Streams[i]
			g.row(t.Name, replicas(t), t.Leader, streamState(t), strings.Join(t.CannotLose, " "))
		}
		g.flush()
	}
	for _, p := range s.Problems {
		who := p.Node
		if p.Stream != "" {
			who = p.Stream
		}
		if who != "" {
			who += ": "
		}
		fmt.Fprintf(a.stdout, "\n%s%s\n  fix: %s\n", clean(who), clean(p.What), clean(p.Fix))
	}
}

func printNodes(a *app, s *admin.ClusterStatus, now time.Time) {
	g := newGrid(a.stdout, "NODE", "STATE", "STORE", "VERSION", "UP", "POLICY", "KEYRING", "STREAMS", "LEADS", "CONSUMERS", "CLIENTS AT")
	for i := range s.Nodes {
		n := &s.Nodes[i]
		up, policy, keyring := "", n.Policy, ""
		if !n.Started.IsZero() {
			up = span(now.Sub(n.Started))
		}
		if len(policy) > 12 {
			policy = policy[:12]
		}
		if n.PolicyDiffers {
			policy += " DIFFERS"
		}
		if n.Keyring != 0 {
			keyring = count(n.Keyring)
		}
		if n.KeyringDiffers {
			keyring += " DIFFERS"
		}
		g.row(n.Name, nodeState(s, n), n.Store, n.Version, up, policy, keyring, fmt.Sprint(n.Copies), fmt.Sprint(n.Leads), fmt.Sprint(n.Consumers), strings.Join(n.Advertise, " "))
	}
	g.flush()
}

func nodeState(s *admin.ClusterStatus, n *admin.ClusterNode) string {
	state := n.Phase
	switch {
	case !n.Member && !n.Answers:
		return "removed"
	case !n.Member:
		return "NO MEMBER"
	case !n.Answers:
		return "DOWN"
	case !n.Current && s.Leader != "":
		state += fmt.Sprintf(", %d behind", n.Lag)
	}
	if n.Name == s.Leader {
		state += ", leader"
	}
	return state
}

func replicas(t *admin.ClusterStream) string {
	var out []string
	for _, r := range t.Replicas {
		switch {
		case !r.Online:
			out = append(out, r.Node+"(down)")
		case !r.Current:
			out = append(out, fmt.Sprintf("%s(%d behind)", r.Node, r.Lag))
		default:
			out = append(out, r.Node)
		}
	}
	return strings.Join(out, " ")
}

func streamState(t *admin.ClusterStream) string {
	switch {
	case t.Whole:
		return "ok"
	case t.Leader == "":
		return "NO LEADER"
	}
	return "NOT WHOLE"
}
