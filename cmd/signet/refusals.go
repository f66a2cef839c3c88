package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

// pollWait is how long one request of refusals tail waits at the broker: short
// enough that a lost broker is noticed.
const pollWait = 20 * time.Second

func refusalsCommand(a *app) *cobra.Command {
	return parent("refusals", "watch what the broker refuses, and why", "  signet refusals tail", refusalsTailCommand(a))
}

func refusalsTailCommand(a *app) *cobra.Command {
	var q admin.RefusalsQuery
	var from string
	var code int
	var follow bool
	cmd := &cobra.Command{
		Use: "tail", Short: "print refusals as they happen (grant: admin refusals)", Args: cobra.NoArgs,
		Long:    "Prints the refusals that the broker still keeps, oldest first, and then those that\ncome. Equal refusals within a second are one line with a count.",
		Example: "  signet refusals tail\n  signet refusals tail --principal checkout --code 40101\n  signet refusals tail --since 10m --follow=false -o json",
		RunE: a.verb(func(ctx context.Context, _ []string) (err error) {
			if q.Since, err = since("--since", from, time.Now()); err != nil {
				return err
			}
			if q.Code = wire.Code(code); code != 0 && q.Code.Entry().Code != q.Code {
				return &usageError{msg: fmt.Sprintf("--code %d is no code; docs/spec/errors.md lists them", code)}
			}
			q.Limit = admin.MaxListLimit
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error { return tail(ctx, a, api, q, follow) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&from, "since", "", "only after this: 10m or an RFC 3339 time (default: all that are kept)")
	f.IntVar(&code, "code", 0, "only this code, such as 40101")
	f.StringVar(&q.Principal, "principal", "", "only of this principal, NAME or TENANT/NAME")
	f.StringVar(&q.Subject, "subject", "", "only on this subject; wildcards allowed")
	f.BoolVar(&follow, "follow", true, "go on with those that come; false ends after those that are there")
	return cmd
}

func tail(ctx context.Context, a *app, api *admin.API, q admin.RefusalsQuery, follow bool) error {
	shown := 0
	var without map[string]string // by node, why, as of the last list
	for {
		list, err := api.Refusals(ctx, q, 0)
		if err == nil && follow && seen(list, &q) && len(list.Entries) == 0 {
			list, err = api.Refusals(ctx, q, pollWait)
		}
		if err != nil {
			return err
		}
		if list.Missed {
			a.note("warning: some refusals were overwritten before they could be shown")
		}
		for _, node := range slices.Sorted(maps.Keys(list.Without)) {
			if why := list.Without[node]; without[node] != why {
				a.note("warning: the refusals of node %s are not here: %s", node, why)
			}
		}
		without = list.Without
		for i := range list.Entries {
			shown++
			if err := printRefusalLine(a, &list.Entries[i]); err != nil {
				return err
			}
		}
		if !follow && seen(list, &q) {
			if shown == 0 {
				a.note("no refusals")
			}
			return nil
		}
		q.After, q.Cursors = list.Cursor, list.Cursors
	}
}

// seen reports whether list is at the end of what q has asked for.
func seen(list *admin.RefusalList, q *admin.RefusalsQuery) bool {
	return list.Cursor == q.After && maps.Equal(list.Cursors, q.Cursors)
}

func printRefusalLine(a *app, r *admin.Refusal) error {
	if a.jsonOut() {
		return a.printLine(r)
	}
	times := ""
	if r.Count > 1 {
		times = "  x" + strconv.FormatUint(r.Count, 10)
	}
	detail := ""
	if r.Detail != "" {
		detail = "  " + clean(r.Detail)
	}
	node := ""
	if r.Node != "" {
		node = "  node " + clean(r.Node)
	}
	_, err := fmt.Fprintf(a.stdout, "%s  %s  %s  %s  rule %s%s%s  ref %s%s\n", r.Time.Local().Format("15:04:05.000"), r.Code,
		orDash(r.Principal), orDash(r.Subject), orDash(r.Rule), detail, times, orDash(r.Ref), node)
	return err
}

func explainCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "explain REF", Short: "explain a refusal by its ref", Args: exactly("REF"),
		Long:    "Shows the audit record of one refusal: the rule, where it stands in the policy, the\nnearest grant and the fix. It needs the grant admin policy.",
		Example: "  signet explain 7KQ2M4XA --context dev-operator",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				r, err := api.Explain(ctx, args[0])
				if err != nil {
					return err
				}
				if a.jsonOut() {
					return a.printJSON(r)
				}
				printRefusal(a, r)
				return nil
			})
		}),
	}
}

func printRefusal(a *app, r *admin.Refusal) {
	times := ""
	if r.Count > 1 {
		times = count(r.Count) + " times within a second"
	}
	fmt.Fprintf(a.stdout, "%s\n", clean(r.Title))
	pairs := []string{
		"detail", r.Detail, "code", fmt.Sprintf("%s (%s)", r.Code, r.Class), "time", stamp(r.Time), "node", r.Node, "count", times,
		"principal", r.Principal, "subject", r.Subject, "rule", r.Rule,
	}
	fix := fillFix(r.Fix, r.Subject, r.Principal, r.Ref)
	if x := r.Explain; x != nil {
		pairs = append(pairs, "nearest grant", x.Nearest, "policy", place(x.File, x.Line))
		if x.Fix != "" {
			fix = x.Fix
		}
	}
	for _, v := range r.Violations {
		pairs = append(pairs, "violation", violationText(v))
	}
	if r.Truncated {
		pairs = append(pairs, "violation", "... and more")
	}
	facts(a.stdout, "  ", append(pairs, "policy version", r.Policy, "fix", fix)...)
}
