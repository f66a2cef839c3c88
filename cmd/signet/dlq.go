package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/wire"
)

func dlqCommand(a *app) *cobra.Command {
	return parent("dlq", "look into the dead letters, bring them back", "  signet dlq ls\n  signet dlq show 1\n  signet dlq redrive --consumer ORDERS.billing --dry-run",
		dlqLsCommand(a), dlqShowCommand(a), dlqStatsCommand(a), dlqTailCommand(a), dlqExportCommand(a), dlqRedriveCommand(a), dlqPurgeCommand(a))
}

// letterFilter is the flags that select dead letters.
type letterFilter struct {
	admin.DLQFilter
	code         int
	since, until string
	consumer     string
}

func (q *letterFilter) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&q.Reason, "reason", "", "only this reason: schema, signature, delivery, terminated, ...")
	f.StringVar(&q.Stage, "stage", "", "only this stage: ingress, consumer or bridge")
	f.IntVar(&q.code, "code", 0, "only this code, such as 40400")
	f.StringVar(&q.Subject, "subject", "", "only this original subject; wildcards allowed")
	f.StringVar(&q.Principal, "principal", "", "only of this principal, NAME or TENANT/NAME: who sent it, or who owns the consumer that failed")
	f.StringVar(&q.consumer, "consumer", "", "only of this consumer: NAME or STREAM.NAME")
	f.StringVar(&q.Type, "type", "", "only this CloudEvents type; a trailing * matches any rest")
	f.StringArrayVar(&q.Where, "where", nil, "only payloads in JSON with /pointer, /pointer=value or /pointer!=value (repeat it)")
	f.StringVar(&q.since, "since", "", "only after this: 10m or an RFC 3339 time")
	f.StringVar(&q.until, "until", "", "only before this: 10m (ago) or an RFC 3339 time")
	var reasons []string
	for _, r := range dlq.Reasons() {
		reasons = append(reasons, string(r))
	}
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(reasons, noFiles)) // fails only for an unknown flag
}

// read checks what was typed and completes the filter.
func (q *letterFilter) read() (err error) {
	now := time.Now()
	if q.Since, err = since("--since", q.since, now); err != nil {
		return err
	}
	if q.Until, err = since("--until", q.until, now); err != nil {
		return err
	}
	q.Consumer = q.consumer
	if stream, name, ok := strings.Cut(q.consumer, "."); ok {
		if q.Stream, q.Consumer = stream, name; stream == "" || name == "" || strings.Contains(name, ".") {
			return &usageError{msg: fmt.Sprintf("--consumer %q: want NAME or STREAM.NAME, as in ORDERS.billing; neither has wildcards", q.consumer)}
		}
	}
	if q.Code = wire.Code(q.code); q.code != 0 && q.Code.Entry().Code != q.Code {
		return &usageError{msg: fmt.Sprintf("--code %d is no code; docs/spec/errors.md lists them", q.code)}
	}
	for _, w := range q.Where {
		if _, err := dlq.ParseWhere(w); err != nil {
			return &usageError{msg: "--where: " + err.Error()}
		}
	}
	switch {
	case q.Reason != "" && !dlq.Reason(q.Reason).Valid():
		return &usageError{msg: fmt.Sprintf("--reason %q: want one of %v", q.Reason, dlq.Reasons())}
	case q.Stage != "" && !dlq.Stage(q.Stage).Valid():
		return &usageError{msg: fmt.Sprintf("--stage %q: want ingress, consumer or bridge", q.Stage)}
	case q.Subject != "" && wire.CheckRawSubject(q.Subject, true) != nil:
		return &usageError{msg: fmt.Sprintf("--subject %q is not a subject: want one as in orders.created, or a pattern as in orders.>", q.Subject)}
	case len(q.Where) > dlq.MaxWhere:
		return &usageError{msg: fmt.Sprintf("--where: at most %d", dlq.MaxWhere)}
	case !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until):
		return &usageError{msg: "--since is not before --until"}
	}
	return nil
}

// all reports whether the filter selects everything.
func (q *letterFilter) all() bool { return reflect.DeepEqual(q.DLQFilter, admin.DLQFilter{}) }

func dlqLsCommand(a *app) *cobra.Command {
	var q letterFilter
	var limit int
	var after uint64
	cmd := &cobra.Command{
		Use: "ls", Short: "list dead letters, oldest first (grant: admin dlq)", Args: cobra.NoArgs,
		Example: `  signet dlq ls
  signet dlq ls --reason schema --subject 'orders.>' --since 1h
  signet dlq ls --where /action=opened --type 'com.github.*'
  signet dlq ls --limit 500 -o json`,
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			if err := q.read(); err != nil {
				return err
			}
			if limit < 1 || limit > admin.MaxListLimit {
				return &usageError{msg: fmt.Sprintf("--limit: 1 to %d", admin.MaxListLimit)}
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				list, err := api.DLQList(ctx, admin.DLQQuery{DLQFilter: q.DLQFilter, Limit: limit, Cursor: after})
				if err != nil {
					return err
				}
				return printLetters(a, list)
			})
		}),
	}
	q.flags(cmd)
	f := cmd.Flags()
	f.IntVar(&limit, "limit", admin.DefaultListLimit, "at most this many")
	f.Uint64Var(&after, "after", 0, "only after this number, to turn the page")
	return cmd
}

func printLetters(a *app, list *admin.DLQList) error {
	if a.jsonOut() {
		return a.printJSON(list)
	}
	if len(list.Entries) == 0 {
		a.note("no dead letters")
		return nil
	}
	g := newGrid(a.stdout, "SEQ", "TIME", "REASON", "CODE", "SUBJECT", "PRINCIPAL", "CONSUMER", "BYTES", "REF")
	for i := range list.Entries {
		l := &list.Entries[i]
		code := ""
		if l.Code != 0 {
			code = l.Code.String()
		}
		g.row(count(l.Seq), stamp(l.Time), l.Reason, code, l.Subject, l.Principal, letterConsumer(l), strconv.Itoa(l.Bytes), l.Ref)
	}
	g.flush()
	if list.More {
		a.note("there are more: --after %d, or --limit up to %d", list.Cursor, admin.MaxListLimit)
	}
	return nil
}

func dlqShowCommand(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "show SEQ|REF", Short: "show a dead letter with its original bytes", Args: exactly("SEQ"),
		Long:    "Shows a dead letter by its number in signet dlq ls, or by the ref of its refusal.\nWith --payload only the original payload is written, byte for byte.",
		Example: "  signet dlq show 1\n  signet dlq show 1 --payload fixed.json",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				seq, err := findLetter(ctx, api, args[0])
				if err != nil {
					return err
				}
				letter, err := api.DLQShow(ctx, seq)
				if err != nil {
					return err
				}
				switch {
				case out == "-":
					_, err = a.stdout.Write(letter.Payload)
				case out != "":
					if err = os.WriteFile(out, letter.Payload, 0o600); err == nil {
						a.note("%s written to %s", plural(len(letter.Payload), "byte"), out)
					}
				case a.jsonOut():
					err = a.printJSON(letterJSON(letter))
				default:
					printLetter(a, letter)
				}
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&out, "payload", "", "write the payload to this file; - is standard output")
	return cmd
}

// findLetter takes a number, or looks a ref up page by page.
func findLetter(ctx context.Context, api *admin.API, arg string) (uint64, error) {
	if n, err := strconv.ParseUint(arg, 10, 64); err == nil && n > 0 {
		return n, nil
	}
	q := admin.DLQQuery{Limit: admin.MaxListLimit}
	for {
		page, err := api.DLQList(ctx, q)
		if err != nil {
			return 0, err
		}
		for i := range page.Entries {
			if page.Entries[i].Ref == arg {
				return page.Entries[i].Seq, nil
			}
		}
		if !page.More || page.Cursor <= q.Cursor {
			return 0, fmt.Errorf("%w: no dead letter has the number or ref %q; signet dlq ls shows those that are there", client.ErrNotFound, arg)
		}
		q.Cursor = page.Cursor
	}
}

func printLetter(a *app, l *admin.StoredLetter) {
	code, origin, attempts, redrives, stored := "", "", "", "", ""
	if !l.Stored.IsZero() {
		stored = l.Stored.Format(time.RFC3339Nano)
	}
	if l.Redrives > 0 {
		redrives = strconv.Itoa(l.Redrives)
	}
	if l.Code != 0 {
		code = l.Code.String()
	}
	if l.Stream != "" {
		origin = fmt.Sprintf("%s seq %d consumer %s", l.Stream, l.StreamSeq, orDash(l.Consumer))
	}
	if l.Attempts > 0 {
		attempts = count(l.Attempts)
	}
	pairs := []string{
		"seq", count(l.Seq), "time", l.Time.Format(time.RFC3339Nano), "reason", l.Reason, "code", code, "stage", l.Stage,
		"subject", l.Subject, "principal", l.Principal, "detail", l.Detail, "rule", l.Rule, "ref", l.Ref,
		"origin", origin, "stored", stored, "attempts", attempts, "by", l.By, "redrives", redrives, "type", l.Type, "schema", l.Schema, "policy", l.Policy,
	}
	for _, d := range l.Deliveries {
		pairs = append(pairs, fmt.Sprintf("attempt %d", d.Attempt), d.At.Format(time.RFC3339Nano))
	}
	for _, v := range l.Violations {
		pairs = append(pairs, "violation", violationText(v))
	}
	facts(a.stdout, "", pairs...)
	if len(l.Header) > 0 {
		fmt.Fprintf(a.stdout, "\nheaders (%s)\n", plural(len(l.Header), "byte"))
		for _, line := range headerLines(l.Header) {
			fmt.Fprintf(a.stdout, "  %s\n", clean(line))
		}
	}
	fmt.Fprintf(a.stdout, "\npayload (%s)\n  %s\n", plural(len(l.Payload), "byte"), payload(l.Payload))
}

// headerLines splits a header block as it was sent.
func headerLines(block []byte) []string {
	return strings.FieldsFunc(string(block), func(r rune) bool { return r == '\r' || r == '\n' })
}
