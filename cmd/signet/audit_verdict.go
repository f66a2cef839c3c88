package main

import (
	"fmt"
	"time"

	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing/keyring"
)

// auditVerdict is a report on the trail, and what it rests on.
type auditVerdict struct {
	*auditlog.Report
	KeyringVersion uint64        `json:"keyringVersion"` // that it was judged by
	KeyringExpires time.Time     `json:"keyringExpires"`
	KeyringExpired bool          `json:"keyringExpired,omitempty"` // only by the keyring in an export: a newer one may have revoked keys
	Export         *exportOrigin `json:"export,omitempty"`         // nil: it is on the trail itself

	facts string // the same for people; empty: on the trail itself
}

// exportOrigin is what an export says of itself.
type exportOrigin struct {
	Closed         time.Time `json:"closed"`
	Clock          string    `json:"clock,omitempty"` // why that cannot be: see aheadOfClock
	KeyringVersion uint64    `json:"keyringVersion"`  // that is in it
}

// verdictUnder is the verdict on the trail itself, judged by a keyring that is in force.
func verdictUnder(r *auditlog.Report, ring *keyring.Ring) *auditVerdict {
	return &auditVerdict{Report: r, KeyringVersion: ring.Version(), KeyringExpires: ring.Expires()}
}

// verdictOnExport is the verdict on an export. Its keyring may have expired.
func verdictOnExport(x *auditlog.Export, now time.Time) *auditVerdict {
	return &auditVerdict{
		Report: x.Report, KeyringVersion: x.Keyring, KeyringExpires: x.Expires, KeyringExpired: !now.Before(x.Expires),
		Export: &exportOrigin{Closed: x.Closed, Clock: aheadOfClock(x.Closed, now), KeyringVersion: x.Within},
		facts:  exportFacts(x, now),
	}
}

// printAuditVerdict prints v. Its error has the exit code.
func printAuditVerdict(a *app, v *auditVerdict) error {
	r := v.Report
	if a.jsonOut() {
		if err := a.printJSON(v); err != nil {
			return err
		}
	} else {
		printAuditText(a, v)
	}
	switch {
	case !r.OK:
		return &exitError{code: exitRefused}
	case !r.Proved():
		return &exitError{code: exitUnproved}
	}
	return nil
}

func printAuditText(a *app, v *auditVerdict) {
	r := v.Report
	for i := range r.Faults {
		fmt.Fprintln(a.stdout, clean(r.Faults[i].String()))
	}
	if r.More > 0 {
		fmt.Fprintf(a.stdout, "and %d more\n", r.More)
	}
	for i := range r.Covered {
		fmt.Fprintln(a.stdout, "note: "+clean(r.Covered[i].String()))
	}
	if r.MoreCovered > 0 {
		fmt.Fprintf(a.stdout, "note: and %d more such parts\n", r.MoreCovered)
	}
	for i := range r.Accepted {
		fmt.Fprintf(a.stdout, "note: node %s is taken as gone: the end of its chain is as the trail has it\n", clean(r.Accepted[i].Node))
	}
	for i := range r.Gone {
		fmt.Fprintln(a.stdout, "note: "+clean(r.Gone[i].String()))
	}
	for i := range r.Open {
		fmt.Fprintln(a.stdout, clean(r.Open[i].String()))
	}
	fmt.Fprintf(a.stdout, "the trail of %s is %s\n", clean(r.Tenant), verdictOf(r))
	facts(a.stdout, "  ", "records", count(r.Records), "signed heads checked", count(uint64(r.Heads)), "export", v.facts)
	for i := range r.Chains {
		c := &r.Chains[i]
		fmt.Fprintf(a.stdout, "  node %s, chain %s: %d records, %s to %s", clean(c.Node), c.Chain, c.Seq, stamp(c.First), stamp(c.Last))
		if c.Pruned > 0 {
			fmt.Fprintf(a.stdout, ", pruned by the node up to record %d", c.Pruned)
		}
		if c.After != "" {
			fmt.Fprintf(a.stdout, ", goes on from %s", clean(c.After))
		}
		fmt.Fprint(a.stdout, ", "+clean(loggedText(c.Logged)))
		fmt.Fprintln(a.stdout)
	}
}

// verdictOf is what a report comes to, for people.
func verdictOf(r *auditlog.Report) string {
	switch {
	case !r.OK:
		return "NOT what was written: the first fault is the first line; docs/operations.md says what to do"
	case !r.Proved():
		return "NOT PROVED to be whole: what is there verifies, and the lines above say what was not covered; ask again when all nodes answer, or give heads that were kept with --head"
	}
	return "whole"
}
