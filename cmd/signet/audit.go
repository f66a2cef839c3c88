package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
)

func auditCommand(a *app) *cobra.Command {
	return parent("audit", "read the audit trail and prove that it is whole", "  signet audit ls --since 1h\n  signet audit verify",
		auditLsCommand(a), auditTailCommand(a), auditVerifyCommand(a), auditExportCommand(a), auditHeadCommand(a))
}

// auditFilter is what ls and tail select by.
type auditFilter struct {
	q           admin.AuditQuery
	from, until string
}

func (f *auditFilter) flags(cmd *cobra.Command, since string) {
	fl := cmd.Flags()
	fl.BoolVar(&f.q.System, "system", false, "the broker's own trail: its policy, its keys, failed logins (needs admin cluster too)")
	fl.StringVar(&f.q.Principal, "principal", "", "only of this principal, NAME or TENANT/NAME; with --system only TENANT/NAME")
	fl.StringVar(&f.q.Kind, "kind", "", "only this kind: login, refusal, admin, api, delivered, ...")
	fl.StringVar(&f.q.Outcome, "outcome", "", "only ok, refused, failed or begun")
	fl.StringVar(&f.from, "since", since, "only after this: 10m or an RFC 3339 time")
	fl.StringVar(&f.until, "until", "", "only before this: 10m (ago) or an RFC 3339 time")
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(kindNames(), noFiles)) // fails only for an unknown flag
}

func kindNames() []string {
	var names []string
	for _, k := range auditlog.Kinds() {
		names = append(names, string(k))
	}
	slices.Sort(names)
	return names
}

func (f *auditFilter) query(now time.Time) (q admin.AuditQuery, err error) {
	q = f.q
	if q.Kind != "" && !slices.Contains(kindNames(), q.Kind) {
		return q, &usageError{msg: fmt.Sprintf("--kind %q: want one of %s", q.Kind, strings.Join(kindNames(), ", "))}
	}
	if o := auditlog.Outcome(q.Outcome); o != "" && o != auditlog.OutcomeOK && o != auditlog.OutcomeRefused && o != auditlog.OutcomeFailed && o != auditlog.OutcomeBegun {
		return q, &usageError{msg: fmt.Sprintf("--outcome %q: want ok, refused, failed or begun", q.Outcome)}
	}
	if q.System && q.Principal != "" && !strings.Contains(q.Principal, "/") {
		return q, &usageError{msg: fmt.Sprintf("--principal %q: the broker's own trail has those of all tenants: want TENANT/NAME", q.Principal)}
	}
	if q.Since, err = since("--since", f.from, now); err != nil {
		return q, err
	}
	q.Until, err = since("--until", f.until, now)
	return q, err
}

func auditLsCommand(a *app) *cobra.Command {
	var f auditFilter
	var most int
	cmd := &cobra.Command{
		Use: "ls", Short: "list records, oldest first (grant: admin audit)", Args: cobra.NoArgs,
		Long:    "Prints records of the caller's tenant: who did what, where, when, how it went, and the\nrule that decided. Formats: docs/spec/audit.md.",
		Example: "  signet audit ls --since 1h\n  signet audit ls --kind login --outcome refused --system\n  signet audit ls --principal checkout --since 2026-01-31T00:00:00Z --limit 10000 -o json",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			q, err := f.query(time.Now())
			if err != nil {
				return err
			}
			if most < 1 {
				return &usageError{msg: "--limit: 1 or more"}
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error { return listAudit(ctx, a, api, q, most) })
		}),
	}
	f.flags(cmd, "24h")
	cmd.Flags().IntVar(&most, "limit", 1000, "at most this many")
	return cmd
}

func listAudit(ctx context.Context, a *app, api *admin.API, q admin.AuditQuery, most int) error {
	shown := 0
	for {
		q.Limit = min(most-shown, admin.MaxListLimit)
		list, err := api.Audit(ctx, q, 0)
		if err != nil {
			return err
		}
		for _, line := range list.Records[:min(len(list.Records), most-shown)] {
			shown++
			if err := printRecord(a, line); err != nil {
				return err
			}
		}
		switch {
		case shown >= most:
			a.note("there may be more: --limit %d is reached", most)
			return nil
		case !list.More:
			if shown == 0 {
				a.note("no records")
			}
			return nil
		}
		q.After = list.Cursor
	}
}

func auditTailCommand(a *app) *cobra.Command {
	var f auditFilter
	cmd := &cobra.Command{
		Use: "tail", Short: "print records as they come (grant: admin audit)", Args: cobra.NoArgs,
		Example: "  signet audit tail\n  signet audit tail --kind refusal --since 10m",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			q, err := f.query(time.Now())
			if err != nil {
				return err
			}
			q.Limit = admin.MaxListLimit
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error { return tailAudit(ctx, a, api, q) })
		}),
	}
	f.flags(cmd, "")
	return cmd
}

func tailAudit(ctx context.Context, a *app, api *admin.API, q admin.AuditQuery) error {
	if q.Since.IsZero() {
		list, err := api.Audit(ctx, admin.AuditQuery{System: q.System, Newest: true}, 0)
		if err != nil {
			return err
		}
		q.After = list.Cursor
	}
	for {
		list, err := api.Audit(ctx, q, pollWait)
		if err != nil {
			return err
		}
		for _, line := range list.Records {
			if err := printRecord(a, line); err != nil {
				return err
			}
		}
		q.After = max(q.After, list.Cursor)
	}
}

// printRecord prints a record as it is stored, or as a line for people.
func printRecord(a *app, line json.RawMessage) error {
	if a.jsonOut() {
		_, err := fmt.Fprintf(a.stdout, "%s\n", line)
		return err
	}
	r, err := auditlog.Decode(line)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, recordLine(r))
	return err
}

func recordLine(r *auditlog.Record) string {
	parts := []string{r.Time.Local().Format("2006-01-02 15:04:05.000"), string(r.Kind), string(r.Outcome), orDash(r.Who)}
	add := func(name, value string) {
		if value != "" && value != "0" {
			parts = append(parts, strings.TrimSpace(name+" "+clean(value)))
		}
	}
	num := func(n uint64) string { return strconv.FormatUint(n, 10) }
	add("", r.Subject)
	if r.Stream != "" && r.Subject == "" {
		add("stream", strings.TrimSuffix(r.Stream+"."+r.Consumer, "."))
	}
	switch {
	case r.Last > 0:
		add("", num(r.First)+" to "+num(r.Last))
	case r.First > 0:
		add("sequence", num(r.First))
	}
	add("acked to", num(r.Floor))
	if r.Count > 1 {
		add("", "x"+num(r.Count))
	}
	if r.Code != 0 {
		add("", r.Code.String())
	}
	add("rule", r.Rule)
	add("version", num(r.Version))
	if r.Before != "" || r.After != "" {
		add("", orDash(short(r.Before))+" -> "+orDash(short(r.After)))
	}
	add("", r.Detail)
	add("from", r.Remote)
	add("ref", r.Ref)
	add("node", r.Node)
	return strings.Join(parts, "  ")
}

// short is the beginning of a digest, which is enough to compare two by eye.
func short(digest string) string { return digest[:min(len(digest), 12)] }
