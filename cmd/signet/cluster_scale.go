package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

const (
	leastNodes  = 3
	clusterPoll = 500 * time.Millisecond
	// clusterSettles is how long a conflict is taken for one of the moment.
	clusterSettles = 20 * time.Second
	clusterWait    = 10 * time.Minute // default of --wait
	clusterTells   = 10 * time.Second // between two lines that say what is waited for
)

// steps walks a change of the cluster that takes several requests and the hands of an
// operator. All it knows it reads from the cluster's status, so that it can be cut
// short anywhere and run again.
type steps struct {
	a    *app
	api  *admin.API
	wait time.Duration // of each step
}

// say prints what is done or to be done, a line each, also for programs.
func (s *steps) say(node, step, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if s.a.jsonOut() {
		_ = s.a.printLine(map[string]string{"node": node, "step": step, "text": text}) // of standard output: the next one fails too
		return
	}
	fmt.Fprintf(s.a.stdout, "%s: %s\n", clean(node), clean(text))
}

// until polls the status until done says so. what names what is waited for.
func (s *steps) until(ctx context.Context, what string, done func(*admin.ClusterStatus) bool) (*admin.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	poll := time.NewTicker(clusterPoll)
	defer poll.Stop()
	told := time.Now()
	for {
		status, err := s.api.ClusterStatus(ctx)
		switch {
		case err == nil && done(status):
			return status, nil
		case err != nil && ctx.Err() == nil && !errors.Is(err, client.ErrUnavailable):
			return nil, err
		}
		if time.Since(told) > clusterTells {
			told = time.Now()
			s.a.note("waiting until %s", what)
		}
		select {
		case <-ctx.Done():
			return nil, &exitError{code: exitFailed, err: fmt.Errorf("after %s it is not so that %s; see signet cluster status, and run this again: it goes on from there", s.wait, what)}
		case <-poll.C:
		}
	}
}

// ask makes a request, again while nobody can serve it: just after a node was stopped
// the streams that it led have no leader, nor can a change be put on record. A conflict
// may be of the same moment, when a node has not answered the one that judges.
func (s *steps) ask(ctx context.Context, request func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	poll := time.NewTicker(clusterPoll)
	defer poll.Stop()
	begin := time.Now()
	for again := false; ; again = true {
		err := request(ctx)
		switch {
		case again && errors.Is(err, client.ErrNotFound):
			return nil // an attempt without an answer had done it; the status tells
		case errors.Is(err, client.ErrUnavailable):
		case errors.Is(err, client.ErrConflict) && time.Since(begin) < clusterSettles:
		default:
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-poll.C:
		}
	}
}

func clusterScaleDownCommand(a *app) *cobra.Command {
	var to int
	var names []string
	var dry bool
	s := &steps{a: a}
	cmd := &cobra.Command{
		Use: "scale-down --to N | --node NAME", Short: "take nodes out of the cluster, in the safe order", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: "Takes nodes out, one at a time, those with the highest names first: moves their copies\n" +
			"away and waits until every stream is whole, waits until you have stopped the node, and\n" +
			"removes it. Only when it says so may a volume be deleted. Cut short, it goes on where it\n" +
			"was when it is run again. Grant: admin cluster.",
		Example: "  signet cluster scale-down --to 3 --dry-run\n  signet cluster scale-down --to 3\n  signet cluster scale-down --node bus-4",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			if err := checkScale(to, names, s.wait); err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				s.api = api
				status, err := api.ClusterStatus(ctx)
				if err != nil {
					return err
				}
				leaving, err := leavingNodes(status, to, names)
				if err != nil {
					return err
				}
				if len(leaving) == 0 {
					a.note("the cluster has %s: nothing to do", plural(status.Size, "member"))
				}
				if dry {
					return s.plan(status, leaving)
				}
				for _, name := range leaving {
					if err := s.takeOut(ctx, name); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
	cmd.Flags().IntVar(&to, "to", 0, "members to keep, 3 or more, odd")
	cmd.Flags().StringArrayVar(&names, "node", nil, "take this node out (repeat it); default: those with the highest names")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the steps and take none")
	cmd.Flags().DurationVar(&s.wait, "wait", clusterWait, "bound of each step, stopping the node included")
	return cmd
}

func checkScale(to int, names []string, wait time.Duration) error {
	switch {
	case to == 0 && len(names) == 0:
		return &usageError{msg: "how far? --to N or --node NAME"}
	case to != 0 && to < leastNodes:
		return &usageError{msg: fmt.Sprintf("--to %d: three copies need %d nodes", to, leastNodes)}
	case to%2 == 0 && to != 0:
		return &usageError{msg: fmt.Sprintf("--to %d: an even number bears no more losses than %d; want 3 or 5", to, to-1)}
	case wait < clusterPoll:
		return &usageError{msg: fmt.Sprintf("--wait %s: want %s or more", wait, clusterPoll)}
	}
	return nil
}

// leavingNodes are the nodes to take out, in order.
func leavingNodes(s *admin.ClusterStatus, to int, names []string) ([]string, error) {
	var members []string
	for i := range s.Nodes {
		if s.Nodes[i].Member {
			members = append(members, s.Nodes[i].Name)
		}
	}
	slices.SortFunc(members, func(a, b string) int { return natural(b, a) })
	leaving := names
	switch {
	case len(names) == 0:
		leaving = members[:max(0, len(members)-to)]
	case to != 0 && len(members)-to != len(names):
		return nil, &usageError{msg: fmt.Sprintf("--to %d of %d members are %d to take out, and --node names %d", to, len(members), len(members)-to, len(names))}
	}
	for _, name := range leaving {
		if !slices.Contains(members, name) {
			return nil, &usageError{msg: fmt.Sprintf("--node %s is no member; the members are %s", name, strings.Join(members, " "))}
		}
	}
	if rest := len(members) - len(leaving); rest < leastNodes && len(leaving) > 0 {
		return nil, &usageError{msg: fmt.Sprintf("%d nodes would be left: three copies need %d", rest, leastNodes)}
	}
	return leaving, nil
}

// natural orders bus-2 before bus-10.
func natural(a, b string) int {
	textA, numA := trailing(a)
	textB, numB := trailing(b)
	return cmp.Or(cmp.Compare(textA, textB), cmp.Compare(numA, numB), cmp.Compare(a, b))
}

func trailing(s string) (text string, number int) {
	text = strings.TrimRight(s, "0123456789")
	number, _ = strconv.Atoi(s[len(text):]) // 0 without a number
	return text, number
}

// plan prints what would be done, and fails while it could not begin.
func (s *steps) plan(status *admin.ClusterStatus, leaving []string) error {
	for _, name := range leaving {
		n := nodeOf(status, name)
		if n.Copies+n.Consumers > 0 {
			s.say(name, "evacuate", "move %s and %s to the other nodes", plural(n.Copies, "stream"), plural(n.Consumers, "consumer"))
		}
		if n.Answers {
			s.say(name, "stop", "wait until you have stopped it")
		}
		s.say(name, "remove", "remove it from the cluster")
		s.say(name, "delete", "then its volume may be deleted")
	}
	for _, p := range status.Problems {
		if !slices.Contains(leaving, p.Node) {
			what := p.What
			if about := p.Node + p.Stream; about != "" {
				what = about + ": " + what
			}
			return &exitError{code: exitFailed, err: fmt.Errorf("not before this is mended: %s; signet cluster status says how", what)}
		}
	}
	return nil
}

func nodeOf(s *admin.ClusterStatus, name string) *admin.ClusterNode {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return &admin.ClusterNode{Name: name}
}

func whole(s *admin.ClusterStatus) bool {
	return s.Leader != "" && s.Others.Whole == s.Others.Streams &&
		!slices.ContainsFunc(s.Streams, func(t admin.ClusterStream) bool { return !t.Whole })
}

// takeOut brings one node from wherever it is to removed.
func (s *steps) takeOut(ctx context.Context, name string) error {
	status, err := s.until(ctx, "the cluster has a leader", func(st *admin.ClusterStatus) bool { return st.Leader != "" })
	if err != nil {
		return err
	}
	n := nodeOf(status, name)
	if n.Copies+n.Consumers > 0 {
		s.say(name, "evacuate", "moving %s and %s to the other nodes", plural(n.Copies, "stream"), plural(n.Consumers, "consumer"))
		if err := s.ask(ctx, func(ctx context.Context) error { return s.api.ClusterEvacuate(ctx, name) }); err != nil {
			return err
		}
	}
	status, err = s.until(ctx, name+" holds nothing and every stream is whole", func(st *admin.ClusterStatus) bool {
		n := nodeOf(st, name)
		return n.Copies+n.Consumers == 0 && whole(st)
	})
	if err != nil {
		return err
	}
	if nodeOf(status, name).Answers {
		s.say(name, "stop", "it holds nothing any more: stop it now (SIGTERM), and see that nothing starts it again")
		if _, err = s.until(ctx, name+" is stopped", func(st *admin.ClusterStatus) bool {
			return st.Leader != "" && st.Leader != name && !nodeOf(st, name).Answers
		}); err != nil {
			return err
		}
	}
	s.say(name, "remove", "removing it from the cluster")
	if err := s.ask(ctx, func(ctx context.Context) error { return s.api.ClusterRemove(ctx, name) }); err != nil {
		return err
	}
	if _, err := s.until(ctx, name+" is removed", func(st *admin.ClusterStatus) bool {
		return st.Leader != "" && !nodeOf(st, name).Member
	}); err != nil {
		return err
	}
	s.say(name, "delete", "it is removed: its volume may be deleted now; take it out of cluster.nodes of the others")
	return nil
}
