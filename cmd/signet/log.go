package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

func logCommand(a *app) *cobra.Command {
	return parent("log", "that a stream is whole", "  signet log ls\n  signet log verify ORDERS",
		logLsCommand(a), logCheckpointCommand(a), logVerifyCommand(a), logConsistencyCommand(a), logRestartCommand(a))
}

func logLsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "list the logs: size, lag, last checkpoint", Args: cobra.NoArgs, Example: "  signet log ls --context dev-operator",
		Long: "Lists the logs of the streams whose policy says log: true. Exit code 1 if one has a fault.",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				list, err := api.Log().List(ctx)
				if err != nil {
					return err
				}
				bad := false
				for i := range list {
					bad = bad || list[i].Fault != ""
				}
				if a.jsonOut() {
					err = a.printJSON(map[string]any{"logs": list})
				} else {
					printLogs(a, list)
				}
				if err == nil && bad {
					err = &exitError{code: exitFailed}
				}
				return err
			})
		}),
	}
}

func printLogs(a *app, list []admin.LogStatus) {
	if len(list) == 0 {
		a.note("no stream has a log: give it log: true in the policy")
		return
	}
	g := newGrid(a.stdout, "STREAM", "FIRST", "LEAVES", "LAG", "LAST CHECKPOINT", "FAULT")
	for _, l := range list {
		g.row(l.Stream, count(l.First), count(uint64(l.Size)), count(l.Lag), stamp(l.Time), orDash(l.Fault))
	}
	g.flush()
}

func logCheckpointCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint STREAM", Short: "print the last checkpoint, after verifying it", Args: exactly("STREAM"),
		Long: "Fetches the last checkpoint of the log, verifies its signature with the keyring, and\n" +
			"prints it: a C2SP signed note. Keep it where the broker cannot reach it; later\n" +
			"signet log verify --from FILE proves that the log was not rewritten since.",
		Example: "  signet log checkpoint ORDERS > orders.checkpoint",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			ring, err := loadRing(ctx, a, "", "")
			if err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				note, key, err := lastCheckpoint(ctx, api, ring, args[0])
				if err != nil {
					return err
				}
				if a.jsonOut() {
					return a.printJSON(map[string]any{"checkpoint": string(note.Bytes()), "origin": note.Origin.String(), "size": note.Size, "first": note.First, "time": note.Time, "key": key.ID, "node": key.Principal})
				}
				_, err = a.stdout.Write(note.Bytes())
				return err
			})
		}),
	}
}

// lastCheckpoint fetches the last checkpoint of a log and verifies it.
func lastCheckpoint(ctx context.Context, api *admin.API, ring *keyring.Ring, stream string) (*tlog.Note, keyring.Key, error) {
	answer, err := api.Log().Checkpoint(ctx, stream)
	if err != nil {
		return nil, keyring.Key{}, err
	}
	note, err := tlog.ParseNote([]byte(answer.Checkpoint))
	if err != nil {
		return nil, keyring.Key{}, &exitError{code: exitRefused, err: err}
	}
	key, err := note.VerifyAt(ring, time.Now())
	if err != nil {
		return nil, key, &exitError{code: exitRefused, err: err}
	}
	if note.Origin.Stream != stream {
		return nil, key, &exitError{code: exitRefused, err: fmt.Errorf("the broker answered with a checkpoint of another log, %s", note.Origin)}
	}
	return note, key, nil
}

func logConsistencyCommand(a *app) *cobra.Command {
	var of string
	cmd := &cobra.Command{
		Use: "consistency OLD NEW [--log TENANT/STREAM]", Short: "prove that a log only grew between two checkpoints", Args: exactly("OLD", "NEW"), DisableFlagsInUseLine: true,
		Long: `Verifies the checkpoints of two files, each, and has the broker prove that the log of the
newest in NEW begins with all of the log of the newest in OLD. Where a file holds more of
them, as that of a sink does, they are compared with each other, and up to 64 of each file
with the log. Exit code 3 if one does not fit. A file may hold several logs: --log says which.`,
		Example: "  signet log consistency monday.checkpoint friday.checkpoint\n  signet log consistency monday.sink friday.sink --log shop/ORDERS",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			ring, err := loadRing(ctx, a, "", "")
			if err != nil {
				return err
			}
			older, err := readCheckpoints(ctx, args[0], of, nil, ring)
			if err != nil {
				return err
			}
			newer, err := readCheckpoints(ctx, args[1], logName(&older.origin), nil, ring)
			if err != nil {
				return err
			}
			if err := inOrder(older, newer); err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				return compareKept(ctx, a, api.Log().Consistency, older, newer)
			})
		}),
	}
	cmd.Flags().StringVar(&of, "log", "", "TENANT/STREAM, where a file holds more than one log")
	return cmd
}

func logVerifyCommand(a *app) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use: "verify STREAM [--from FILE]", Short: "compare a stream as it is stored with its log", Args: exactly("STREAM"), DisableFlagsInUseLine: true,
		Long: `Verifies the last checkpoint of the log, then walks the stream as it is stored and
compares every sequence with its leaf. It names the first event that was dropped,
altered, reordered or added, with exit code 3. Events that have aged out count as such
where a node has signed that they were old enough; the others are said to be not
verified, with exit code 1.

--from takes a checkpoint that was kept outside, or a file of a sink: the log must
begin with it, so a log that was rewritten together with its stream is found too. Of a
file with more of them each is verified and compared with the others, and up to 64,
spread over the file, with the log; one that does not fit ends with exit code 3.`,
		Example: "  signet log verify ORDERS\n  signet log verify ORDERS --from /mnt/other/checkpoints",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			ring, err := loadRing(ctx, a, "", "")
			if err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				return verifyLog(ctx, a, api, ring, args[0], from)
			})
		}),
	}
	cmd.Flags().StringVar(&from, "from", "", "checkpoint from outside that the log must begin with")
	return cmd
}

// logReport is the result of signet log verify.
type logReport struct {
	OK       bool      `json:"ok"`
	Origin   string    `json:"origin"`
	First    uint64    `json:"first"`
	Last     uint64    `json:"last"`
	Time     time.Time `json:"checkpointTime"`
	Compared uint64    `json:"compared"`
	Absent   uint64    `json:"absent"`
	Aged     uint64    `json:"aged"`
	// Unproven are gone, and nothing signed says that they were old enough.
	Unproven uint64            `json:"unproven"`
	Doubt    string            `json:"doubt,omitempty"`
	Outside  int64             `json:"outsideSize,omitempty"` // the newest of --from
	Kept     *keptCount        `json:"outside,omitempty"`
	Finding  *admin.LogFinding `json:"finding,omitempty"`
}

func verifyLog(ctx context.Context, a *app, api *admin.API, ring *keyring.Ring, stream, from string) error {
	note, _, err := lastCheckpoint(ctx, api, ring, stream)
	if err != nil {
		return err
	}
	var report logReport
	if from != "" {
		outside, err := readCheckpoints(ctx, from, logName(&note.Origin), &note.Origin, ring)
		if err != nil {
			return err
		}
		if outside.newest.Size > note.Size { // a sink may have got one since it was asked for
			if note, _, err = lastCheckpoint(ctx, api, ring, stream); err != nil {
				return err
			}
		}
		if err := outside.held(ctx, api.Log().Consistency, note); err != nil {
			return err
		}
		report.Outside, report.Kept = outside.newest.Size, &outside.count
	}
	report.Origin, report.First, report.Last, report.Time = note.Origin.String(), note.First, note.Next()-1, note.Time
	for from := note.First; from < note.Next() && report.Finding == nil; {
		part, err := api.Log().Verify(ctx, stream, string(note.Bytes()), from)
		if err != nil {
			return err
		}
		report.Compared += part.Compared
		report.Absent += part.Absent
		report.Aged += part.Aged
		if report.Unproven += part.Unproven; part.Doubt != "" {
			report.Doubt = part.Doubt
		}
		if report.Finding = part.Finding; report.Finding == nil && part.Next <= from {
			return errors.New("the walk does not advance")
		}
		from = part.Next
	}
	report.OK = report.Finding == nil && report.Unproven == 0
	if a.jsonOut() {
		err = a.printJSON(report)
	} else {
		printLogReport(a, stream, &report)
	}
	switch {
	case err == nil && report.Finding != nil:
		err = &exitError{code: exitRefused}
	case err == nil && !report.OK:
		err = &exitError{code: exitFailed}
	}
	return err
}

func printLogReport(a *app, stream string, r *logReport) {
	switch f := r.Finding; {
	case f != nil:
		fmt.Fprintf(a.stdout, "NOT AS LOGGED: %s, sequence %d is the first that was %s\n", stream, f.Sequence, strings.ToUpper(f.What))
		facts(a.stdout, "  ", "detail", clean(f.Detail))
	case r.Unproven > 0:
		fmt.Fprintf(a.stdout, "NOT ALL VERIFIED: %s, sequences %d to %d: what is stored is as logged, but %d are gone that may have been cut off\n", stream, r.First, r.Last, r.Unproven)
	default:
		fmt.Fprintf(a.stdout, "AS LOGGED: %s, sequences %d to %d\n", stream, r.First, r.Last)
	}
	outside := ""
	if r.Kept != nil {
		outside = fmt.Sprintf("the log begins with its %d leaves: %s", r.Outside, r.Kept)
	}
	doubt := ""
	if r.Unproven > 0 {
		doubt = count(r.Unproven) + " sequences are no longer stored: " + clean(r.Doubt)
	}
	facts(a.stdout, "  ", "log", r.Origin, "checkpoint", stamp(r.Time), "compared", count(r.Compared)+" events", "absent", count(r.Absent)+" sequences never had an event",
		"aged out", count(r.Aged)+" sequences are no longer stored, and were old enough", "not verified", doubt, "outside checkpoint", outside)
}

func logRestartCommand(a *app) *cobra.Command {
	var heads bool
	cmd := &cobra.Command{
		Use: "restart STREAM | --heads", Short: "begin a new log where the old one stands still", Args: cobra.MaximumNArgs(1), DisableFlagsInUseLine: true,
		Long: "Begins a new log from what the stream has stored now. The old log, which says that the\n" +
			"stream was changed, stays where it is; proofs of it go on verifying. Look first:\n" +
			"signet log verify, and docs/operations.md. Grants: admin log and streams; with --heads\n" +
			"admin cluster too.",
		Example: "  signet log restart ORDERS",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			if heads == (len(args) == 1) {
				return &usageError{msg: "want either a stream or --heads"}
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				name, restart := "the heads of the audit trail", api.Log().RestartHeads
				if !heads {
					name, restart = args[0], func(ctx context.Context) error { return api.Log().Restart(ctx, args[0]) }
				}
				if err := restart(ctx); err != nil {
					return err
				}
				if a.jsonOut() {
					return a.printJSON(map[string]string{"restarted": name})
				}
				fmt.Fprintf(a.stdout, "%s has a new log\n", clean(name))
				return nil
			})
		}),
	}
	cmd.Flags().BoolVar(&heads, "heads", false, "the log of the heads of the audit trail, which is of all tenants")
	return cmd
}
