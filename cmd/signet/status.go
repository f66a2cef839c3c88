package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
)

func statusCommand(a *app) *cobra.Command {
	throttled := false
	cmd := &cobra.Command{
		Use: "status", Short: "show the broker on one page", Args: cobra.NoArgs,
		Long:    "Shows version, policy, gate, streams, dead letters, refusals, certificates and health\nof the broker. Exit code 1 if a part is not well. Grant: admin status.\n\nWith --throttled, who was refused because of a limit in the last minutes, by which\nrule and at which node.",
		Example: "  signet status --context dev-operator\n  signet status --throttled\n  signet status -o json | jq .health",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				if throttled {
					return showThrottled(ctx, a, api)
				}
				s, err := api.Status(ctx)
				if err != nil {
					return err
				}
				if a.jsonOut() {
					err = a.printJSON(s)
				} else {
					printStatus(a, s, time.Now())
				}
				for _, h := range s.Health {
					if err == nil && !h.OK {
						return &exitError{code: exitFailed}
					}
				}
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&throttled, "throttled", false, "who was refused because of a limit, by rule and node")
	return cmd
}

func printStatus(a *app, s *admin.Status, now time.Time) {
	health := "ok"
	var ill []string
	for _, h := range s.Health {
		if !h.OK {
			ill = append(ill, strings.TrimSpace(h.Part+" "+h.Detail))
		}
	}
	if len(ill) > 0 {
		health = "NOT WELL: " + strings.Join(ill, "; ")
	}
	name := s.Server.Name
	if s.Server.Cluster != "" {
		name += " of cluster " + s.Server.Cluster
	}
	digest := s.Policy.Digest
	if len(digest) > 12 {
		digest = digest[:12]
	}
	pairs := []string{
		"health", health,
		"broker", fmt.Sprintf("%s, signet %s, nats-server %s, up %s", name, s.Server.Version, s.Server.NATSVersion, span(now.Sub(s.Server.Started))),
		"durability", s.Server.Durability,
		"policy", fmt.Sprintf("%s, loaded %s ago, %s, %s", digest, span(now.Sub(s.Policy.Loaded)), plural(s.Policy.Tenants, "tenant"), plural(s.Policy.Principals, "principal")),
		"gate", fmt.Sprintf("%s, %s, %d accepted, %d refused", plural(s.Gate.Connections, "connection"), plural(s.Gate.Subscriptions, "subscription"), s.Gate.Accepted, s.Gate.Refused),
		"dead letters", fmt.Sprintf("%d (%s of %s), %d dropped, %d in retry queues", s.DeadLetters.Messages, size(int64(s.DeadLetters.Bytes)), size(s.DeadLetters.MaxBytes), s.DeadLetters.Dropped, s.DeadLetters.Queued),
	}
	for _, c := range s.Certificates {
		left := "in " + span(c.NotAfter.Sub(now))
		if c.NotAfter.Before(now) {
			left = "EXPIRED " + span(now.Sub(c.NotAfter)) + " ago"
		}
		pairs = append(pairs, "certificate", fmt.Sprintf("%s, expires %s (%s)", c.Subject, stamp(c.NotAfter), left))
	}
	facts(a.stdout, "", pairs...)
	if len(s.Streams) > 0 {
		fmt.Fprintln(a.stdout)
		g := newGrid(a.stdout, "STREAM", "SUBJECTS", "EVENTS", "STORED", "MAX", "FIRST", "LAST", "CONSUMERS")
		for i := range s.Streams {
			t := &s.Streams[i]
			g.row(t.Name, strings.Join(t.Subjects, " "), count(t.Messages), size(int64(t.Bytes)), size(t.MaxBytes), count(t.FirstSeq), count(t.LastSeq), fmt.Sprint(t.Consumers))
		}
		g.flush()
	}
	if len(s.Refusals) > 0 {
		fmt.Fprintln(a.stdout)
		g := newGrid(a.stdout, "REFUSED", "CODE")
		for _, c := range s.Refusals {
			g.row(count(c.Count), fmt.Sprintf("%d %s", int(c.Code), c.Name))
		}
		g.flush()
	}
}
