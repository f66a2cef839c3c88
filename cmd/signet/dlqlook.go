package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
)

func dlqStatsCommand(a *app) *cobra.Command {
	var q letterFilter
	cmd := &cobra.Command{
		Use: "stats", Short: "count dead letters by what they have in common (grant: admin dlq)", Args: cobra.NoArgs,
		Example: "  signet dlq stats\n  signet dlq stats --since 1h --reason delivery",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			if err := q.read(); err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				all, err := letterStats(ctx, api, q.DLQFilter)
				if err != nil {
					return err
				}
				if a.jsonOut() {
					return a.printJSON(all)
				}
				printStats(a, all)
				return nil
			})
		}),
	}
	q.flags(cmd)
	return cmd
}

// letterStats adds up all parts.
func letterStats(ctx context.Context, api *admin.API, f admin.DLQFilter) (*admin.DLQStats, error) {
	q := admin.DLQStatsQuery{DLQFilter: f}
	var all *admin.DLQStats
	for {
		part, err := admin.DLQOf(api).Stats(ctx, q)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = part
		} else {
			all.Matched += part.Matched
			all.Size += part.Size
			if all.Oldest.IsZero() || !part.Oldest.IsZero() && part.Oldest.Before(all.Oldest) {
				all.Oldest = part.Oldest
			}
			if part.Newest.After(all.Newest) {
				all.Newest = part.Newest
			}
			for _, pair := range [][2]map[string]uint64{{all.Reasons, part.Reasons}, {all.Subjects, part.Subjects}, {all.Principals, part.Principals}, {all.Types, part.Types}, {all.Consumers, part.Consumers}} {
				for name, n := range pair[1] {
					pair[0][name] += n
				}
			}
		}
		if all.Cursor, all.More = part.Cursor, part.More; !part.More || part.Cursor <= q.Cursor {
			return all, nil
		}
		q.Cursor = part.Cursor
	}
}

// statRows is how many rows of each part are shown.
const statRows = 10

func printStats(a *app, s *admin.DLQStats) {
	span := ""
	if s.Matched > 0 {
		span = stamp(s.Oldest) + " to " + stamp(s.Newest)
	}
	room := ""
	if s.MaxBytes > 0 {
		room = fmt.Sprintf("%s of %s", size(int64(min(s.Bytes, 1<<62))), size(s.MaxBytes))
	}
	facts(a.stdout, "", "stored", count(s.Messages), "room", room, "matched", count(s.Matched), "payloads", size(int64(min(s.Size, 1<<62))), "time", span)
	for _, part := range []struct {
		title string
		rows  map[string]uint64
	}{{"REASON", s.Reasons}, {"CONSUMER", s.Consumers}, {"SUBJECT", s.Subjects}, {"TYPE", s.Types}, {"PRINCIPAL", s.Principals}} {
		if len(part.rows) == 0 {
			continue
		}
		names := slices.SortedFunc(maps.Keys(part.rows), func(x, y string) int {
			return cmp.Or(cmp.Compare(part.rows[y], part.rows[x]), cmp.Compare(x, y))
		})
		fmt.Fprintln(a.stdout)
		g := newGrid(a.stdout, part.title, "COUNT")
		for i, name := range names {
			if i == statRows {
				g.row(fmt.Sprintf("... and %d more", len(names)-statRows), "")
				break
			}
			g.row(name, count(part.rows[name]))
		}
		g.flush()
	}
	if s.Kept {
		a.note("these dead letters were made by a release that lets nothing be taken from them: no redrive, no purge")
	}
}

// tailPause is between two looks for new letters.
const tailPause = time.Second

func dlqTailCommand(a *app) *cobra.Command {
	var q letterFilter
	cmd := &cobra.Command{
		Use: "tail", Short: "print dead letters as they come (grant: admin dlq)", Args: cobra.NoArgs,
		Long:    "Prints the dead letters that come from now on; with --since those that are there\nsince then, too. It ends when it is interrupted.",
		Example: "  signet dlq tail\n  signet dlq tail --reason delivery --since 10m -o json",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			if err := q.read(); err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error { return tailLetters(ctx, a, api, q.DLQFilter) })
		}),
	}
	q.flags(cmd)
	return cmd
}

func tailLetters(ctx context.Context, a *app, api *admin.API, f admin.DLQFilter) error {
	query := admin.DLQQuery{DLQFilter: f, Limit: admin.MaxListLimit}
	if f.Since.IsZero() {
		now, err := admin.DLQOf(api).Stats(ctx, admin.DLQStatsQuery{Cursor: 1<<63 - 1}) // the state alone
		if err != nil {
			return err
		}
		query.Cursor = now.Last
	}
	for {
		list, err := api.DLQList(ctx, query)
		if err != nil {
			return err
		}
		for i := range list.Entries {
			if err := printLetterLine(a, &list.Entries[i]); err != nil {
				return err
			}
		}
		query.Cursor = max(query.Cursor, list.Cursor)
		if list.More {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tailPause):
		}
	}
}

func printLetterLine(a *app, l *admin.DeadLetter) error {
	if a.jsonOut() {
		return a.printLine(l)
	}
	why := l.Detail
	if len(l.Violations) > 0 {
		why = violationText(l.Violations[0])
	}
	_, err := fmt.Fprintf(a.stdout, "%s  %s  %s  %s  %s  %s  %s\n", l.Time.Local().Format("15:04:05.000"), strconv.FormatUint(l.Seq, 10), clean(l.Reason),
		orDash(l.Principal), orDash(l.Subject), orDash(letterConsumer(l)), clean(why))
	return err
}

func letterConsumer(l *admin.DeadLetter) string {
	if l.Consumer == "" {
		return ""
	}
	return l.Stream + "." + l.Consumer
}
