package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signetbus/signet/client/admin"
)

// showThrottled is status --throttled.
func showThrottled(ctx context.Context, a *app, api *admin.API) error {
	list, err := admin.Throttled(ctx, api)
	if err != nil {
		return err
	}
	if a.jsonOut() {
		return a.printJSON(list)
	}
	if len(list.Throttled) == 0 {
		fmt.Fprintf(a.stdout, "nobody was refused because of a limit in the last %d minutes\n", list.Minutes)
	} else {
		g := newGrid(a.stdout, "REFUSED", "PRINCIPAL", "RULE", "CODE", "NODE", "LAST", "RETRY AFTER")
		for i := range list.Throttled {
			t := &list.Throttled[i]
			code, after := "", "-"
			if t.Code != 0 {
				code = fmt.Sprintf("%d %s", int(t.Code), t.Name)
			}
			if t.RetryAfterMs > 0 {
				after = (time.Duration(t.RetryAfterMs) * time.Millisecond).String()
			}
			g.row(count(t.Refused), t.Principal, t.Rule, code, t.Node, stamp(t.Last), after)
		}
		g.flush()
	}
	if list.More > 0 {
		fmt.Fprintf(a.stdout, "and %d more rows\n", list.More)
	}
	var without []string
	for _, node := range slices.Sorted(maps.Keys(list.Without)) {
		without = append(without, node+" ("+list.Without[node]+")")
	}
	if len(without) > 0 {
		fmt.Fprintln(a.stdout, "without these nodes:", strings.Join(without, ", "))
	}
	return nil
}
