package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

func proveCommand(a *app) *cobra.Command {
	var ranges, out string
	cmd := &cobra.Command{
		Use: "prove STREAM SEQUENCE|ID [--out FILE]", Short: "prove that an event is logged", DisableFlagsInUseLine: true,
		Args: cobra.RangeArgs(1, 2),
		Long: `Writes a proof that an event stands in the log of a stream, unchanged and at its
sequence, since the time of a signed checkpoint. The file has everything but the root
key: signet verify FILE --root O... checks it without a broker. --range proves all
sequences between two at once: none is left out, and those without an event are
named. Grant: admin log.`,
		Example: `  signet prove ORDERS 4711 --out proof.json
  signet prove ORDERS 01JD8Z6W3K7M5Q2R9T4V000017 > proof.json
  signet prove ORDERS --range 4700-4800 --out proof.json`,
		RunE: a.verb(func(ctx context.Context, args []string) error { return prove(ctx, a, args, ranges, out) }),
	}
	cmd.Flags().StringVar(&ranges, "range", "", "FIRST-LAST: all sequences between two")
	cmd.Flags().StringVar(&out, "out", "", "file for the proof (default: standard output)")
	return cmd
}

func prove(ctx context.Context, a *app, args []string, ranges, out string) error {
	if (len(args) == 2) == (ranges != "") {
		return &usageError{msg: "say which: a sequence, an event's id, or --range FIRST-LAST"}
	}
	saved, err := a.loadContext()
	if err != nil {
		return err
	}
	return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		stream := args[0]
		first, last, err := whichSequences(ctx, api, stream, args[1:], ranges)
		if err != nil {
			return err
		}
		doc, err := api.Log().Prove(ctx, stream, first, last)
		if err != nil {
			return err
		}
		// What does not verify is not handed on.
		v, err := verifiedProof(doc, saved.RootKey, nil)
		if err != nil {
			return &exitError{code: exitRefused, err: fmt.Errorf("the broker's proof does not verify: %w", err)}
		}
		if v.Checkpoint.Origin.Stream != stream || v.Leaves[0].Sequence != first || v.Leaves[len(v.Leaves)-1].Sequence != last {
			return &exitError{code: exitRefused, err: fmt.Errorf("the broker's proof is of something else, %s", v.Checkpoint.Origin)}
		}
		if out == "" {
			_, err = a.stdout.Write(doc)
			return err
		}
		if err := os.WriteFile(out, doc, 0o644); err != nil { //nolint:gosec // who may read it is the caller's umask
			return err
		}
		without := ""
		if gone, _ := absentOf(v); gone != "" {
			without = ", without an event: " + gone + ","
		}
		a.note("proof of %s%s in %s; check it with: signet verify %s --root %s", plural(len(v.Leaves), "sequence"), without, out, out, saved.RootKey)
		return nil
	})
}

func whichSequences(ctx context.Context, api *admin.API, stream string, which []string, ranges string) (first, last uint64, err error) {
	if ranges != "" {
		from, to, ok := strings.Cut(ranges, "-")
		first, err1 := strconv.ParseUint(from, 10, 63)
		last, err2 := strconv.ParseUint(to, 10, 63)
		if !ok || err1 != nil || err2 != nil || first == 0 || last < first {
			return 0, 0, &usageError{msg: fmt.Sprintf("--range %s: want FIRST-LAST, such as 100-200", ranges)}
		}
		if last-first >= tlog.MaxRange {
			return 0, 0, &usageError{
				msg: fmt.Sprintf("--range %s: %d sequences, one proof has at most %d", ranges, last-first+1, tlog.MaxRange),
				fix: fmt.Sprintf("signet prove %s --range %d-%d, and the rest in proofs of their own", stream, first, first+tlog.MaxRange-1),
			}
		}
		return first, last, nil
	}
	if seq, err := strconv.ParseUint(which[0], 10, 63); err == nil {
		return seq, seq, nil
	}
	seq, err := api.Log().Find(ctx, stream, which[0])
	return seq, seq, err
}

// verifiedProof checks a proof document; ring nil: with the keyring inside.
func verifiedProof(doc []byte, root string, ring *keyring.Ring) (*tlog.Verified, error) {
	p, err := tlog.ParseProof(doc)
	if err != nil {
		return nil, err
	}
	return p.Verify(root, ring)
}

// provenLeaf is one proven sequence, for -o json.
type provenLeaf struct {
	Sequence  uint64     `json:"sequence"`
	Kind      string     `json:"kind"`
	Stored    *time.Time `json:"stored,omitempty"`
	Principal string     `json:"principal,omitempty"`
	Subject   string     `json:"natsSubject,omitempty"`
	ID        string     `json:"id,omitempty"`
	Reason    string     `json:"reason,omitempty"` // why the event's own signature does not hold
}

type provenJSON struct {
	OK         bool         `json:"ok"`
	Reason     string       `json:"reason,omitempty"`
	Origin     string       `json:"origin,omitempty"`
	Checkpoint *time.Time   `json:"checkpointTime,omitempty"`
	Size       int64        `json:"size,omitempty"`
	Key        string       `json:"key,omitempty"`
	Node       string       `json:"node,omitempty"`
	Absent     string       `json:"absent,omitempty"` // sequences without an event, such as 5-6, 9
	Leaves     []provenLeaf `json:"leaves,omitempty"`

	KeyringVersion uint64     `json:"keyringVersion,omitempty"` // that it was judged by
	KeyringExpires *time.Time `json:"keyringExpires,omitempty"`
	KeyringExpired bool       `json:"keyringExpired,omitempty"` // only by the keyring in the proof: a newer one may have revoked keys
}

// verifyProofFile is signet verify for a proof. ringFile empty: the keyring inside of it.
func verifyProofFile(ctx context.Context, a *app, doc []byte, ringFile, root string) error {
	root, err := trustedRoot(a, root, "signet verify FILE --root O... needs no context")
	if err != nil {
		return err
	}
	var ring *keyring.Ring
	if ringFile != "" {
		if ring, err = fileRing(ctx, a, ringFile, root); err != nil {
			return err
		}
		if err := notOlder(doc, root, ring); err != nil {
			return err
		}
	}
	v, err := verifiedProof(doc, root, ring)
	if err != nil {
		if a.jsonOut() {
			err = a.printJSON(provenJSON{Reason: plain(err.Error())})
		} else {
			fmt.Fprintf(a.stdout, "NOT PROVEN: %s\n", clean(plain(err.Error())))
			err = nil
		}
		if err == nil {
			err = &exitError{code: exitRefused}
		}
		return err
	}
	good := allAttested(v)
	if a.jsonOut() {
		err = a.printJSON(provenOf(v, good, time.Now()))
	} else {
		printProven(a, v)
	}
	if err == nil && !good {
		err = &exitError{code: exitRefused}
	}
	return err
}

// notOlder refuses a keyring that revokes less than the one in a proof may.
func notOlder(doc []byte, root string, ring *keyring.Ring) error {
	var held *keyring.Ring
	p, err := tlog.ParseProof(doc)
	if err == nil {
		held, err = keyring.Parse(p.Keyring, root, time.Time{})
	}
	if err == nil && held.Version() > ring.Version() { // a proof that is none is judged later
		return &usageError{
			msg: fmt.Sprintf("--keyring has version %d, the proof a newer one, version %d, which may have revoked keys", ring.Version(), held.Version()),
			fix: "leave out --keyring, or give the one in force: signet keys ring --out FILE",
		}
	}
	return nil
}

// allAttested: every leaf that is not absent is an event whose own signature holds. A
// message has none.
func allAttested(v *tlog.Verified) bool {
	for i := range v.Leaves {
		if l := &v.Leaves[i]; l.Kind != tlog.Absent && l.Attestation == nil {
			return false
		}
	}
	return true
}

func provenOf(v *tlog.Verified, good bool, now time.Time) provenJSON {
	expires := v.Ring.Expires()
	out := provenJSON{OK: good, Origin: v.Checkpoint.Origin.String(), Checkpoint: &v.Checkpoint.Time, Size: v.Checkpoint.Size, Key: v.Key.ID, Node: v.Key.Principal}
	out.KeyringVersion, out.KeyringExpires, out.KeyringExpired = v.Ring.Version(), &expires, !now.Before(expires)
	out.Absent, _ = absentOf(v)
	for i := range v.Leaves {
		out.Leaves = append(out.Leaves, leafOf(&v.Leaves[i]))
	}
	return out
}

func leafOf(l *tlog.VerifiedLeaf) provenLeaf {
	out := provenLeaf{Sequence: l.Sequence, Kind: l.Kind.String(), Subject: l.NATSSubject}
	if l.Kind != tlog.Absent {
		at := time.Unix(0, l.Stored).UTC()
		out.Stored = &at
	}
	if l.Kind == tlog.Event {
		out.ID = string(l.Event.ID)
	}
	switch {
	case l.Attestation != nil:
		out.Principal = l.Attestation.Principal
	case l.Unattested != nil:
		out.Reason = reason(l.Unattested)
	case l.Kind == tlog.Message:
		out.Reason = "a message that is not an event, without a signature of its own"
	}
	return out
}

func printProven(a *app, v *tlog.Verified) {
	expired := ""
	if !time.Now().Before(v.Ring.Expires()) {
		expired = ", expired " + stamp(v.Ring.Expires()) + ": a newer one may have revoked keys (--keyring)"
	}
	fmt.Fprintln(a.stdout, provenHeadline(v))
	facts(a.stdout, "  ", "log", v.Checkpoint.Origin.String(), "leaves", strconv.FormatInt(v.Checkpoint.Size, 10), "signed by", v.Key.Principal+" "+v.Key.ID,
		"keyring", fmt.Sprintf("version %d%s", v.Ring.Version(), expired))
	for i := range v.Leaves {
		l := leafOf(&v.Leaves[i])
		switch {
		case l.Kind == tlog.Absent.String():
			fmt.Fprintf(a.stdout, "  %d  absent: there was no event\n", l.Sequence)
		case l.Reason != "":
			fmt.Fprintf(a.stdout, "  %d  NOT ATTESTED  %s  %s: %s\n", l.Sequence, orDash(l.Subject), orDash(l.ID), clean(l.Reason))
		default:
			fmt.Fprintf(a.stdout, "  %d  %s  %s  %s  %s\n", l.Sequence, l.Stored.Format(time.RFC3339Nano), clean(l.Subject), orDash(l.Principal), orDash(l.ID))
		}
	}
	if e := v.Leaves[0].Event; len(v.Leaves) == 1 && e != nil {
		a.note("the event itself: %s", clean(string(bytes.TrimSpace(cloudevent.AppendJSON(nil, e)))))
	}
}

// absentOf names the sequences of a proof that have no event, such as 5-6, 9, and counts
// them.
func absentOf(v *tlog.Verified) (text string, n int) {
	var runs []string
	for i := 0; i < len(v.Leaves); i++ {
		if v.Leaves[i].Kind != tlog.Absent {
			continue
		}
		first := i
		for i+1 < len(v.Leaves) && v.Leaves[i+1].Kind == tlog.Absent {
			i++
		}
		run := strconv.FormatUint(v.Leaves[first].Sequence, 10)
		if i > first {
			run += "-" + strconv.FormatUint(v.Leaves[i].Sequence, 10)
		}
		runs, n = append(runs, run), n+i-first+1
	}
	return strings.Join(runs, ", "), n
}

// provenHeadline says in one line what is proven: that there was no event is, too.
func provenHeadline(v *tlog.Verified) string {
	gone, absent := absentOf(v)
	first, last := v.Leaves[0].Sequence, v.Leaves[len(v.Leaves)-1].Sequence
	stream, since := v.Checkpoint.Origin.Stream, stamp(v.Checkpoint.Time)
	switch {
	case first == last && absent > 0:
		return fmt.Sprintf("PROVEN ABSENT: sequence %d of %s has no event in the log of %s", first, stream, since)
	case first == last:
		return fmt.Sprintf("PROVEN: sequence %d of %s stands in the log since %s", first, stream, since)
	case absent == len(v.Leaves):
		return fmt.Sprintf("PROVEN ABSENT: sequences %d to %d of %s have no event in the log of %s", first, last, stream, since)
	case absent > 0:
		return fmt.Sprintf("PROVEN IN PART: sequences %d to %d of %s stand in the log since %s, but %d of %d have no event: %s", first, last, stream, since, absent, len(v.Leaves), gone)
	}
	return fmt.Sprintf("PROVEN: sequences %d to %d of %s, none missing, stand in the log since %s", first, last, stream, since)
}
