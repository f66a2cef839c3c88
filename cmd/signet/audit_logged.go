package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// loggedHeads asks for the heads that the log of the heads has. A broker of a release that
// keeps no such log has none: the verdict says of each chain that no log covers it.
//
// since is a checkpoint that was kept elsewhere and that the log is to begin with; empty:
// none.
func loggedHeads(ctx context.Context, a *app, api *admin.API, system bool, since string) (*admin.AuditHeads, error) {
	said, err := admin.LoggedHeadsSince(ctx, api, system, since)
	if errors.Is(err, client.ErrNotFound) {
		a.note("warning: no log covers the trail: the broker is of a release without a log of the heads")
		return &admin.AuditHeads{}, nil
	}
	return said, err
}

// noLog is why a trail is not proved whose broker keeps a log of the heads and has none to
// show: what it covered may have been taken away with it.
func noLog(said *admin.AuditHeads) string { return "the log of the heads: " + said.Unlogged }

// expectLogged verifies the trail against the log of the heads, too.
func expectLogged(v *auditlog.Verifier, said *admin.AuditHeads) error {
	for _, line := range said.Logged {
		if err := v.ExpectLogged([]byte(line)); err != nil {
			return fmt.Errorf("what the log of the heads has does not verify: %w", err)
		}
	}
	for _, doc := range said.Recent {
		if err := v.ExpectRecent([]byte(doc)); err != nil {
			return fmt.Errorf("a head in the stream HEADS does not verify: %w", err)
		}
	}
	if said.Finding != "" {
		v.LogFault(said.Finding)
	}
	if said.Unlogged != "" {
		v.Open("", noLog(said))
	}
	return nil
}

// keptLog are checkpoints of the log of the heads that were kept elsewhere, the last one of
// each run of it.
type keptLog []*tlog.Note

// readKeptLog reads them from files, such as those of a sink, and verifies the last of each
// run.
func readKeptLog(ctx context.Context, a *app, files []string, ring *keyring.Ring) (keptLog, error) {
	last := map[string]*tlog.Note{}
	for _, file := range files {
		found := false
		err := scanKeptLog(ctx, a, file, func(n *tlog.Note) {
			if n.Origin.Tenant != wire.BrokerAccount || n.Origin.Stream != wire.StreamHeads {
				return
			}
			found = true
			if was := last[n.Origin.String()]; was == nil || was.Size <= n.Size {
				last[n.Origin.String()] = n
			}
		})
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, &usageError{msg: file + " holds no checkpoint of the log of the heads", fix: "give a file of checkpoints.sink that has " + wire.BrokerAccount + "/" + wire.StreamHeads}
		}
	}
	kept := keptLog(slices.SortedFunc(maps.Values(last), func(a, b *tlog.Note) int { return a.Origin.Start.Compare(b.Origin.Start) }))
	for _, n := range kept {
		if _, err := n.VerifyAt(ring, time.Now()); err != nil {
			return nil, &exitError{code: exitRefused, err: fmt.Errorf("a checkpoint of %s that was kept, of %s: %w", clean(n.Origin.String()), n.Time.Format(time.RFC3339), err)}
		}
	}
	return kept, nil
}

func scanKeptLog(ctx context.Context, a *app, file string, each func(*tlog.Note)) error {
	f, err := openKept(ctx, file)
	if err != nil {
		return err
	}
	defer f.Close()
	read := 0
	torn, err := tlog.ScanNotes(f, func(n *tlog.Note) error {
		read++
		each(n)
		return nil
	})
	if torn > 0 {
		a.note("%s: %s that no checkpoint can be read from, left out", file, plural(torn, "place"))
	}
	if what, _ := damage(file, f.head); err == nil && read == 0 && what != "" {
		return noCheckpoints(file, f.head)
	}
	return err
}

// ask asks for the heads, and for the proof that their log begins with the checkpoint of it.
func (k keptLog) ask(ctx context.Context, a *app, api *admin.API, system bool) (*admin.AuditHeads, error) {
	said, err := loggedHeads(ctx, a, api, system, "")
	if err != nil || len(k) == 0 {
		return said, err
	}
	if newest, err := tlog.ParseNote([]byte(said.Checkpoint)); err == nil { // else expect says so
		for _, n := range k {
			if n.Origin.String() == newest.Origin.String() {
				return loggedHeads(ctx, a, api, system, string(n.Bytes()))
			}
		}
	}
	return said, nil
}

// expect holds the log of the heads against the checkpoints.
func (k keptLog) expect(v *auditlog.Verifier, said *admin.AuditHeads) error {
	newest, err := tlog.ParseNote([]byte(said.Checkpoint))
	for _, n := range k {
		hashes := said.Consistency
		if err == nil && n.Origin.String() != newest.Origin.String() {
			hashes = nil // the proof is of another run
		}
		if err := auditlog.ExpectLog(v, n, said.Checkpoint, hashes); err != nil {
			return fmt.Errorf("what the broker shows of the log of the heads does not verify: %w", err)
		}
	}
	return nil
}

// loggedText says how far a log covers a chain.
func loggedText(l *auditlog.LoggedUpTo) string {
	switch {
	case l == nil:
		return "covered by no log"
	case l.Through != "":
		return fmt.Sprintf("covered by the log through chain %s, checkpoint of %s", l.Through, l.Time.Format(time.RFC3339))
	}
	return fmt.Sprintf("covered by the log up to record %d, checkpoint of %s", l.Seq, l.Time.Format(time.RFC3339))
}
