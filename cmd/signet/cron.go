package main

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
)

func cronCommand(a *app) *cobra.Command {
	return parent("cron", "publish by time", "  signet cron put nightly '30 2 * * *' reports.wanted -d '{}'\n  signet cron ls",
		cronLsCommand(a), cronPutCommand(a), cronRmCommand(a))
}

func cronPutCommand(a *app) *cobra.Command {
	var data, contentType, eventType string
	cmd := &cobra.Command{
		Use: "put NAME SPEC SUBJECT [-d DATA]", Short: "have an event published again and again", Args: exactly("NAME", "SPEC", "SUBJECT"), DisableFlagsInUseLine: true,
		Long: `Puts a schedule of the principal of the context, in place of the one of that name.
The broker publishes the event at its moments, in UTC, as the principal, and judges
each time anew. It needs the right Nats-Schedule-Cron and a publish grant.

SPEC is '@every 15m', @hourly, @daily, @weekly, @monthly, @yearly, or the five fields
of cron: minute, hour, day of the month, month, day of the week; or six, with the
second before them.`,
		Example: "  signet cron put nightly '30 2 * * *' reports.wanted -d '{\"kind\":\"daily\"}'\n  signet cron put beat '@every 30s' health.beat --type com.example.beat",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			ev := &client.Event{Type: eventType, DataContentType: contentType, Data: []byte(data)}
			if contentType == "" && json.Valid(ev.Data) {
				ev.DataContentType = client.ContentTypeJSON
			}
			c, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			info, err := client.SchedulesOf(c).Put(ctx, client.Schedule{Name: args[0], Spec: args[1], NATSSubject: args[2], Event: ev})
			if err != nil {
				return err
			}
			if a.jsonOut() {
				return a.printJSON(shown(*info))
			}
			printCron(a, []admin.Schedule{shown(*info)})
			return nil
		}),
	}
	f := cmd.Flags()
	f.StringVarP(&data, "data", "d", "", "the data, at most 8 KiB (default: none)")
	f.StringVar(&contentType, "content-type", "", "media type of the data (default: application/json if it is JSON)")
	f.StringVar(&eventType, "type", "", "CloudEvents type, such as com.example.order")
	return cmd
}

func cronLsCommand(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "ls", Short: "list schedules", Args: cobra.NoArgs,
		Example: "  signet cron ls\n  signet cron ls --all --context dev-operator",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			c, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			list := []admin.Schedule{}
			if all {
				list, err = admin.SchedulesOf(admin.New(c)).List(ctx)
			} else {
				var own []client.ScheduleInfo
				own, err = client.SchedulesOf(c).List(ctx)
				for _, s := range own {
					list = append(list, shown(s))
				}
			}
			if err != nil {
				return err
			}
			if a.jsonOut() {
				return a.printJSON(list)
			}
			printCron(a, list)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "those of all principals of the tenant (grant: admin schedules)")
	return cmd
}

func cronRmCommand(a *app) *cobra.Command {
	var principal string
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "remove a schedule", Args: exactly("NAME"),
		Example: "  signet cron rm nightly\n  signet cron rm nightly --principal checkout --context dev-operator",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			c, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer c.Close()
			if principal != "" {
				return admin.SchedulesOf(admin.New(c)).Remove(ctx, principal, args[0])
			}
			return client.SchedulesOf(c).Remove(ctx, args[0])
		}),
	}
	cmd.Flags().StringVar(&principal, "principal", "", "of this principal (default: one's own; grant: admin schedules)")
	return cmd
}

func shown(s client.ScheduleInfo) admin.Schedule {
	return admin.Schedule{
		Principal: s.Principal, Name: s.Name, Spec: s.Spec, Subject: s.NATSSubject, Type: s.Type, Bytes: s.Bytes, Put: s.Put, Next: s.Next,
	}
}

func printCron(a *app, list []admin.Schedule) {
	g := newGrid(a.stdout, "PRINCIPAL", "NAME", "WHEN (UTC)", "SUBJECT", "TYPE", "PUT", "NEXT")
	for i := range list {
		s := &list[i]
		g.row(s.Principal, s.Name, s.Spec, s.Subject, s.Type, stamp(s.Put), stamp(s.Next))
	}
	g.flush()
}
