package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/dlq"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// Files of an export to a folder.
const (
	exportLetters = "letters.ndjson"
	exportEvents  = "events.ndjson"
)

func dlqExportCommand(a *app) *cobra.Command {
	var q letterFilter
	var dir string
	cmd := &cobra.Command{
		Use: "export", Short: "write dead letters with their original bytes, one a line (grant: admin dlq)", Args: cobra.NoArgs,
		Long: `Writes the dead letters as JSON, one a line, with the original header block and
payload in base64. They stay where they are.

With --dir the lines go to ` + exportLetters + ` in that new folder, and what bears a
signature, the broker's or its producer's, stands in ` + exportEvents + ` too, as signet
verify reads it. What was refused before the broker attested it, and its producer did
not sign, nobody can prove: it is in ` + exportLetters + ` only.`,
		Example: "  signet dlq export --reason schema > letters.ndjson\n  signet dlq export --dir case-17 --since 24h && signet verify case-17/events.ndjson",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			if err := q.read(); err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				if dir == "" {
					n, _, err := exportTo(ctx, api, q.DLQFilter, a.stdout, nil)
					if err == nil {
						a.note("%s", plural(n, "dead letter"))
					}
					return err
				}
				return exportFolder(ctx, a, api, q.DLQFilter, dir)
			})
		}),
	}
	q.flags(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "write to this new folder, in place of standard output")
	return cmd
}

func exportFolder(ctx context.Context, a *app, api *admin.API, f admin.DLQFilter, dir string) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return &usageError{msg: fmt.Sprintf("--dir: %v", err), fix: "name a folder that is not there"}
	}
	var files [2]*os.File
	for i, name := range []string{exportLetters, exportEvents} {
		if files[i], err = os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, files[i].Close()) }()
	}
	letters, events, err := exportTo(ctx, api, f, files[0], files[1])
	if err != nil {
		return fmt.Errorf("the export in %s is not whole: %w", dir, err)
	}
	next := "see " + filepath.Join(dir, exportLetters) // signet verify has nothing to do
	if events > 0 {
		next = "signet verify " + filepath.Join(dir, exportEvents)
	}
	a.note("%s, %d of them signed: %s", plural(letters, "dead letter"), events, next)
	return nil
}

// exportTo writes letters to w and the signed events among them to ev, if there is one.
func exportTo(ctx context.Context, api *admin.API, f admin.DLQFilter, w, ev io.Writer) (letters, events int, err error) {
	out := bufio.NewWriter(w)
	defer func() { err = errors.Join(err, out.Flush()) }()
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false) // as signet dlq show -o json prints it
	q := admin.DLQQuery{DLQFilter: f, Limit: admin.MaxListLimit}
	for {
		page, err := api.DLQList(ctx, q)
		if err != nil {
			return letters, events, err
		}
		for i := range page.Entries {
			l, err := api.DLQShow(ctx, page.Entries[i].Seq)
			if errors.Is(err, client.ErrNotFound) {
				continue // redriven, purged or too old since it was listed
			}
			if err != nil {
				return letters, events, err
			}
			if err := lines.Encode(letterJSON(l)); err != nil {
				return letters, events, err
			}
			letters++
			text := signedEvent(l)
			if ev == nil || text == nil {
				continue
			}
			if _, err := ev.Write(append(text, '\n')); err != nil {
				return letters, events, err
			}
			events++
		}
		if !page.More || page.Cursor <= q.Cursor {
			return letters, events, nil
		}
		q.Cursor = page.Cursor
	}
}

// letterJSON is a letter with its bytes.
func letterJSON(l *admin.StoredLetter) any {
	return struct {
		admin.DeadLetter
		Header  []byte `json:"header,omitempty"`
		Payload []byte `json:"payload"`
	}{l.DeadLetter, l.Header, l.Payload}
}

// signedEvent is the event of a letter as signet verify reads it; nil if nobody signed it.
func signedEvent(l *admin.StoredLetter) []byte {
	e := dlq.EventOf(&dlq.Record{Header: l.Header, Payload: l.Payload})
	if e == nil || len(e.Get(wire.AttrAttestation)) == 0 && len(e.Get(wire.AttrDSSE)) == 0 {
		return nil
	}
	signing.Restore(e)
	if len(e.Get(wire.AttrNATSSubject)) == 0 {
		e.SetExt([]byte(wire.AttrNATSSubject), []byte(l.Subject))
	}
	return cloudevent.AppendJSON(nil, e)
}
