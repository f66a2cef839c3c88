package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

// redriving is one run of signet dlq redrive.
type redriving struct {
	filter  letterFilter
	q       admin.RedriveRequest
	every   bool
	rate    string
	cursor  string
	payload string

	perSecond float64 // 0: no bound
	at        *letterCursor
	verdicts  map[string]int
	hints     []string // what to do about what was refused, each once
}

const redriveLong = `Brings dead letters back: one by its number or ref, or those that the filter selects,
oldest first, of those that are there when it begins. A letter is taken away when its
target has it on stable storage; what is not redriven stays, and why is said.

--to consumer, the default, brings an event to the consumer that failed and to nobody
else, by a retry queue that its durable subscription of the SDK reads beside the stream.

--to all publishes it for everybody who reads its subject, as of who sent it, judged by
the policy in force; it is the only way for what was refused at the door. Every
subscriber and every consumer of the subject gets one more message, plain NATS clients
too: with a new sequence, a new Nats-Msg-Id and the header Signet-Redrive-Count. Who
has handled the event already must know it by its CloudEvents id and source.

--payload takes the place of the payload of one letter. What is published then is a new
event, of you and not of who sent the first one: with your name, a new id and no
signature of the first producer.

--dry-run says what would happen now, and why. --cursor names a file from which a run
that was ended goes on. An event that was redriven --most times and failed again is
left alone, unless --force.`

func dlqRedriveCommand(a *app) *cobra.Command {
	r := &redriving{verdicts: map[string]int{}}
	cmd := &cobra.Command{
		Use: "redrive [SEQ|REF]", Short: "bring dead letters back to a consumer, or to all (grant: admin dlq)", Args: cobra.MaximumNArgs(1),
		Long: redriveLong,
		Example: `  signet dlq redrive --consumer ORDERS.billing --dry-run
  signet dlq redrive --consumer ORDERS.billing --rate 20/s --cursor billing.cursor
  signet dlq redrive --reason schema --where /action=opened --to all
  signet dlq show 7 --payload fixed.json; vi fixed.json
  signet dlq redrive 7 --to all --payload fixed.json`,
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if err := r.read(args); err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				if len(args) == 1 {
					return r.one(ctx, a, api, args[0])
				}
				return r.run(ctx, a, api)
			})
		}),
	}
	r.filter.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&r.q.To, "to", admin.RedriveConsumer, "consumer (the one that failed) or all")
	f.BoolVar(&r.q.DryRun, "dry-run", false, "say what would happen, and do nothing")
	f.BoolVar(&r.every, "every", false, "all dead letters: without a number and without a filter")
	f.StringVar(&r.rate, "rate", "100/s", "at most so many: 20/s, 600/m, or off")
	f.StringVar(&r.cursor, "cursor", "", "file that keeps how far the run came, and from which it goes on")
	f.IntVar(&r.q.Most, "most", 3, "redrives of one event before it is left alone")
	f.BoolVar(&r.q.Force, "force", false, "also what was redriven too often, or may have been redriven by a run that broke")
	f.StringVar(&r.payload, "payload", "", "file with another payload for one letter: a new event of yours, --to all")
	_ = cmd.RegisterFlagCompletionFunc("to", cobra.FixedCompletions([]string{admin.RedriveConsumer, admin.RedriveAll}, noFiles)) // fails only for an unknown flag
	return cmd
}

func (r *redriving) read(args []string) (err error) {
	if err := r.filter.read(); err != nil {
		return err
	}
	r.q.DLQFilter = r.filter.DLQFilter
	if r.perSecond, err = perSecond(r.rate); err != nil {
		return err
	}
	one := len(args) == 1
	switch {
	case r.q.To != admin.RedriveConsumer && r.q.To != admin.RedriveAll:
		return &usageError{msg: fmt.Sprintf("--to %q: want consumer or all", r.q.To)}
	case one && (!r.filter.all() || r.every || r.cursor != ""):
		return &usageError{msg: "one letter, or a filter: not both", fix: "leave out the number, or the filter, --every and --cursor"}
	case !one && r.filter.all() && !r.every:
		return &usageError{msg: "without a number and a filter it would be every dead letter", fix: "add a filter such as --consumer ORDERS.billing, or --every"}
	case r.payload != "" && (!one || r.q.To != admin.RedriveAll):
		return &usageError{msg: "--payload is for one letter, and makes a new event for everybody", fix: "signet dlq redrive SEQ --to all --payload FILE"}
	case r.q.DryRun && r.cursor != "":
		return &usageError{msg: "--dry-run goes nowhere, so it needs no --cursor"}
	case r.q.Most < 1:
		return &usageError{msg: "--most: at least 1"}
	}
	if r.payload != "" {
		if r.q.Payload, err = os.ReadFile(r.payload); err != nil {
			return &usageError{msg: fmt.Sprintf("--payload: %v", err)}
		}
		if len(r.q.Payload) == 0 {
			return &usageError{msg: "--payload: " + r.payload + " is empty"}
		}
	}
	return nil
}

// perSecond reads 20/s, 600/m or off, which is 0.
func perSecond(s string) (float64, error) {
	if s == "off" {
		return 0, nil
	}
	number, unit, _ := strings.Cut(s, "/")
	n, err := strconv.ParseFloat(number, 64)
	per, known := map[string]float64{"s": 1, "m": 60, "h": 3600, "": 1}[unit]
	if err != nil || !known || !(n > 0) || n > 1e6 {
		return 0, &usageError{msg: fmt.Sprintf("--rate %q: want a number as in 20/s, 600/m, or off", s)}
	}
	return n / per, nil
}

// told says before it is done what a republish means for others.
func (r *redriving) told(a *app) {
	if r.q.To == admin.RedriveAll && !r.q.DryRun {
		a.note("to all: everybody who reads the subject gets one more message, plain NATS clients too, with a new sequence and Signet-Redrive-Count")
	}
}

func (r *redriving) one(ctx context.Context, a *app, api *admin.API, arg string) (err error) {
	if r.q.Seq, err = findLetter(ctx, api, arg); err != nil {
		return err
	}
	r.told(a)
	page, err := admin.DLQOf(api).Redrive(ctx, r.q)
	if err != nil {
		return err
	}
	return r.end(a, r.show(a, page))
}

// run works page by page. What was lost on the way to the broker or back is asked again: a
// letter that was redriven is gone.
func (r *redriving) run(ctx context.Context, a *app, api *admin.API) (err error) {
	if r.at, err = openCursor(r.cursor, &r.q); err != nil {
		return err
	}
	if r.at.Done {
		a.note("the run of %s is at its end: %d redriven, %d left; name another file to begin anew", r.cursor, r.at.Redriven, r.at.Left)
		return nil
	}
	r.told(a)
	r.q.DLQ, r.q.Cursor, r.q.UpTo = r.at.DLQ, r.at.Cursor, r.at.UpTo
	r.q.Limit = admin.MaxRedrive
	if r.perSecond > 0 && !r.q.DryRun {
		r.q.Limit = min(max(int(r.perSecond/4), 1), admin.MaxRedrive)
	}
	for began, tried := time.Now(), 0; ; {
		page, err := admin.DLQOf(api).Redrive(ctx, r.q)
		if err != nil {
			return err
		}
		if err := r.show(a, page); err != nil {
			return err
		}
		if err := r.at.take(page); err != nil {
			return err
		}
		switch {
		case page.Stopped != "":
			return r.end(a, fmt.Errorf("%w: %s: %s", client.ErrUnavailable, "it stopped", page.Stopped))
		case !page.More:
			return r.end(a, nil)
		}
		r.q.DLQ, r.q.Cursor, r.q.UpTo = page.DLQ, page.Cursor, page.UpTo
		if tried += len(page.Letters); r.perSecond > 0 && !r.q.DryRun {
			pause := time.Until(began.Add(time.Duration(float64(tried) / r.perSecond * float64(time.Second))))
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		}
	}
}

// show prints what became of the letters of a page, and counts it.
func (r *redriving) show(a *app, page *admin.RedrivePage) error {
	for i := range page.Letters {
		l := &page.Letters[i]
		r.verdicts[l.Verdict]++
		if hint := redriveHint(l); hint != "" && !slices.Contains(r.hints, hint) {
			r.hints = append(r.hints, hint)
		}
		if r.at != nil {
			if l.Verdict == admin.VerdictRedriven {
				r.at.Redriven++
			} else {
				r.at.Left++
			}
		}
		if err := printRedriven(a, l); err != nil {
			return err
		}
	}
	return nil
}

// redriveHint says what to do about a refusal, "" where the line of the letter says it all.
func redriveHint(l *admin.Redriven) string {
	switch {
	case l.Code == 0:
		return ""
	case l.Code == wire.CodePublishDenied: // whose grants it is about is what people get wrong
		return "about " + l.Code.String() + ": who sent it (signet dlq ls), or with --payload you, may not publish it now: " + l.Code.Entry().Fix
	case l.Code == wire.CodeSchemaViolation:
		return "about " + l.Code.String() + ": mend the payload (signet dlq show SEQ --payload FILE, signet dlq redrive SEQ --to all --payload FILE), or the schema in the policy"
	}
	return "about " + l.Code.String() + ": " + l.Code.Entry().Fix
}

func printRedriven(a *app, l *admin.Redriven) error {
	if a.jsonOut() {
		return a.printLine(l)
	}
	more := ""
	switch {
	case l.Duplicate:
		more = "  it was there already"
	case l.StoredAt > 0 && l.To != admin.RedriveConsumer:
		more = fmt.Sprintf("  seq %d", l.StoredAt)
	}
	if l.Code != 0 {
		more += "  " + l.Code.String()
	}
	if l.Rule != "" {
		more += "  rule " + clean(l.Rule)
	}
	if l.Detail != "" {
		more += "  " + clean(l.Detail)
	}
	for _, v := range l.Violations {
		more += "  " + violationText(v)
	}
	_, err := fmt.Fprintf(a.stdout, "%d  %s  %s  to %s%s\n", l.Letter, l.Verdict, orDash(l.Subject), clean(l.To), more)
	return err
}

// end says how it went: exit code 3 where a letter was left.
func (r *redriving) end(a *app, err error) error {
	left := 0
	var parts []string
	for _, v := range slices.SortedFunc(maps.Keys(r.verdicts), cmp.Compare) {
		parts = append(parts, fmt.Sprintf("%d %s", r.verdicts[v], v))
		if v != admin.VerdictRedriven && v != admin.VerdictWould {
			left += r.verdicts[v]
		}
	}
	if len(parts) == 0 {
		parts = []string{"no dead letter matches"}
	}
	a.note("%s", strings.Join(parts, ", "))
	for _, hint := range r.hints {
		a.note("%s", hint)
	}
	if err != nil {
		return err
	}
	if left > 0 {
		return &exitError{code: exitRefused}
	}
	return nil
}

func dlqPurgeCommand(a *app) *cobra.Command {
	var filter letterFilter
	var every, yes, dry bool
	cmd := &cobra.Command{
		Use: "purge [SEQ|REF]", Short: "take dead letters away for ever (grant: admin dlq)", Args: cobra.MaximumNArgs(1),
		Long:    "Takes dead letters away for ever: one by its number or ref, or those that the filter\nselects. signet dlq export keeps them elsewhere first.",
		Example: "  signet dlq purge --reason schema --until 168h --dry-run\n  signet dlq purge --reason schema --until 168h --yes",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if err := filter.read(); err != nil {
				return err
			}
			switch {
			case len(args) == 1 && (!filter.all() || every):
				return &usageError{msg: "one letter, or a filter: not both"}
			case len(args) == 0 && filter.all() && !every:
				return &usageError{msg: "without a number and a filter it would be every dead letter", fix: "add a filter such as --reason schema, or --every"}
			case dry == yes:
				return &usageError{msg: "a purge is for ever: --dry-run says what would go, --yes does it"}
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				q := admin.PurgeRequest{DLQFilter: filter.DLQFilter, DryRun: dry, Confirm: yes}
				if len(args) == 1 {
					seq, err := findLetter(ctx, api, args[0])
					if err != nil {
						return err
					}
					q.Seq = seq
				}
				return purgeLetters(ctx, a, api, q)
			})
		}),
	}
	filter.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&every, "every", false, "all dead letters: without a number and without a filter")
	f.BoolVar(&dry, "dry-run", false, "say what would go, and do nothing")
	f.BoolVar(&yes, "yes", false, "do it")
	return cmd
}

func purgeLetters(ctx context.Context, a *app, api *admin.API, q admin.PurgeRequest) error {
	var all admin.Purged
	for {
		part, err := admin.DLQOf(api).Purge(ctx, q)
		if err != nil {
			if all.Purged > 0 {
				err = errors.Join(fmt.Errorf("%d are gone, then", all.Purged), err)
			}
			return err
		}
		all.DLQ, all.Cursor, all.UpTo = part.DLQ, part.Cursor, part.UpTo
		all.Purged += part.Purged
		all.Bytes += part.Bytes
		if !part.More || part.Cursor <= q.Cursor || q.Seq > 0 {
			break
		}
		q.DLQ, q.Cursor, q.UpTo = part.DLQ, part.Cursor, part.UpTo
	}
	if a.jsonOut() {
		return a.printJSON(all)
	}
	verb := "gone"
	if q.DryRun {
		verb = "would go"
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s, payloads of %s\n", plural(int(all.Purged), "dead letter"), verb, size(int64(min(all.Bytes, 1<<62))))
	return err
}
