package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
)

// loggedHeads asks for the heads that the log of the heads has. A broker of a release that
// keeps no such log has none: the verdict says of each chain that no log covers it.
func loggedHeads(ctx context.Context, a *app, api *admin.API, system bool) (*admin.AuditHeads, error) {
	said, err := admin.LoggedHeads(ctx, api, system)
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
