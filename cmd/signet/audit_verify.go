package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/auditlog"
	"github.com/signetbus/signet/signing/keyring"
)

func auditHeadCommand(a *app) *cobra.Command {
	var system bool
	cmd := &cobra.Command{
		Use: "head", Short: "print signed heads, to be kept off the cluster (grant: admin audit)", Args: cobra.NoArgs,
		Long: `Prints, one a line, what each node signs about how far its chain is now. Keep them where
whoever holds the cluster cannot write: with them signet audit verify --head finds
everything that was changed or cut off before they were made.`,
		Example: "  signet audit head >> /mnt/elsewhere/shop.heads\n  signet audit verify --head /mnt/elsewhere/shop.heads",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				seals, err := api.AuditSeals(ctx, system)
				if err != nil {
					return err
				}
				warnSilent(a, seals)
				for _, doc := range append([]string{seals.Seal}, seals.Nodes...) {
					if _, err := fmt.Fprintln(a.stdout, doc); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
	cmd.Flags().BoolVar(&system, "system", false, "of the broker's own trail (needs admin cluster too)")
	return cmd
}

func warnSilent(a *app, seals *admin.AuditSeals) {
	for node, why := range seals.Silent {
		a.note("warning: node %s did not say how far its chain is: %s", node, why)
	}
}

func auditVerifyCommand(a *app) *cobra.Command {
	var heads, checkpoints, gone []string
	var system bool
	var root, ringFile string
	cmd := &cobra.Command{
		Use: "verify [FILE] [--keyring FILE] [--head FILE] [--checkpoint FILE] [--gone NODE] [--root O...]", Short: "prove that the trail is whole, or name the first record that is not", DisableFlagsInUseLine: true,
		Args: cobra.MaximumNArgs(1),
		Long: `Walks the trail: every record must hold the hash of the one before it, and every batch
be signed by its node. It names the first record that was edited, deleted, inserted,
reordered or cut off, and ends with exit code 3. Where nothing is wrong and a node did
not say itself how far its chain is, or a file of --head has nothing about this trail,
it says so and ends with exit code 5: the trail is not proved.

Without FILE it reads the trail of the caller's tenant from the broker, and asks every
node how far its chain is. With FILE, an export, it needs no network: only the root key,
and the keyring in force with --keyring: that in the export is as old as the export, and
does not know which keys were revoked since.
--head takes what signet audit head printed earlier, or a file that a sink wrote; lines
that are no heads are passed over. --checkpoint takes a file that checkpoints.sink wrote:
the log of the heads must begin with its checkpoints of that log.`,
		Example: `  signet audit verify
  signet audit verify --head /mnt/elsewhere/shop.heads
  signet audit verify --checkpoint /mnt/elsewhere/checkpoints
  signet audit verify shop.audit --root OBQ7... --keyring keyring.json`,
		RunE: a.verb(func(ctx context.Context, args []string) error {
			kept, err := readHeads(ctx, heads)
			if err != nil {
				return err
			}
			done := func(v *auditVerdict) error {
				for _, node := range gone {
					if !slices.ContainsFunc(v.Chains, func(c auditlog.ChainReport) bool { return c.Node == node }) &&
						!slices.ContainsFunc(v.Open, func(o auditlog.Open) bool { return o.Node == node }) {
						return &usageError{msg: fmt.Sprintf("--gone %s: the trail has no records of such a node", node)}
					}
					v.Accept(node)
				}
				return printAuditVerdict(a, v)
			}
			if len(args) == 1 && len(checkpoints) > 0 {
				return &usageError{msg: "--checkpoint is of a trail that the broker is asked for: only it can prove what its log begins with", fix: "leave out the file, or --checkpoint"}
			}
			if len(args) == 1 && system {
				return &usageError{msg: "--system is of a trail that the broker is asked for; a file is of the trail that it was exported from", fix: "leave out the file, or --system"}
			}
			if len(args) == 1 {
				return verifyExport(ctx, a, args[0], root, ringFile, kept, done)
			}
			return verifyLive(ctx, a, root, ringFile, system, kept, checkpoints, done)
		}),
	}
	f := cmd.Flags()
	f.StringArrayVar(&heads, "head", nil, "file with signed heads that was kept elsewhere; may be given several times")
	f.StringArrayVar(&checkpoints, "checkpoint", nil, "file with checkpoints of the log of the heads that was kept elsewhere; may be given several times")
	f.StringArrayVar(&gone, "gone", nil, "node that left the cluster for good: take the end of its chain as the trail has it; may be given several times")
	f.BoolVar(&system, "system", false, "the broker's own trail (needs admin cluster too)")
	f.StringVar(&root, "root", "", "public root key (O...) of the cluster, or a file with it (default: of the context)")
	f.StringVar(&ringFile, "keyring", "", "signed keyring in force, to judge by (default: of an export that in it, else that of the context or broker)")
	return cmd
}

// maxHeadLine bounds a line of a file of heads. A head has some ten thousand bytes at most.
const maxHeadLine = 1 << 20

// readHeads returns the lines of files that look like signed heads.
func readHeads(ctx context.Context, files []string) (kept []auditlog.Kept, err error) {
	for _, file := range files {
		f, err := openKept(ctx, file)
		if err != nil {
			return nil, err
		}
		k := auditlog.Kept{Name: file}
		err = boundedLines(f, maxHeadLine, func(line []byte) {
			line = bytes.TrimSpace(line)
			// syslog puts a text of its own before the line
			if at := bytes.Index(line, []byte(`{"payloadType":"`+auditlog.HeadType)); at >= 0 {
				k.Docs = append(k.Docs, bytes.Clone(line[at:]))
			}
		})
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		if len(k.Docs) == 0 {
			return nil, &usageError{msg: file + " holds no signed head", fix: "signet audit head prints them"}
		}
		kept = append(kept, k)
	}
	return kept, nil
}

func verifyLive(ctx context.Context, a *app, root, ringFile string, system bool, kept []auditlog.Kept, checkpoints []string, done func(*auditVerdict) error) error {
	ring, err := loadRing(ctx, a, ringFile, root)
	if err != nil {
		return err
	}
	keptLog, err := readKeptLog(ctx, a, checkpoints, ring)
	if err != nil {
		return err
	}
	return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		seals, err := api.AuditSeals(ctx, system)
		if err != nil {
			return err
		}
		warnSilent(a, seals)
		v := auditlog.NewVerifier(seals.Tenant, ring)
		for node, why := range seals.Silent {
			v.Open(node, "it did not say how far its chain is: "+why)
		}
		for _, doc := range append([]string{seals.Seal}, seals.Nodes...) {
			err := v.Expect([]byte(doc))
			if errors.Is(err, auditlog.ErrKeyTime) {
				v.Open("", "what a node said of its chain proves nothing: "+err.Error())
				continue
			}
			if err != nil {
				return &exitError{code: exitRefused, err: fmt.Errorf("what a node says of its chain does not verify: %w", err)}
			}
		}
		if err := v.ExpectKept(kept); err != nil {
			return &exitError{code: exitRefused, err: err}
		}
		said, err := keptLog.ask(ctx, a, api, system)
		if err != nil {
			return err
		}
		if err := errors.Join(keptLog.expect(v, said), expectLogged(v, said)); err != nil {
			return &exitError{code: exitRefused, err: err}
		}
		if err := eachBatch(ctx, api, system, func(b *admin.AuditBatch) error { v.Batch(b.Seq, b.Data); return nil }); err != nil {
			return err
		}
		return done(verdictUnder(v.Finish(), ring))
	})
}

func eachBatch(ctx context.Context, api *admin.API, system bool, do func(*admin.AuditBatch) error) error {
	for after := uint64(0); ; {
		page, err := api.AuditBatches(ctx, system, after)
		if err != nil || len(page.Batches) == 0 {
			return err
		}
		for i := range page.Batches {
			if err := do(&page.Batches[i]); err != nil {
				return err
			}
			after = page.Batches[i].Seq
		}
	}
}

// verifyExport is signet audit verify for an export. ringFile empty: it is judged by the
// keyring in it, also where the context has another: what a file proves does not hang on
// the context that is selected.
func verifyExport(ctx context.Context, a *app, file, root, ringFile string, kept []auditlog.Kept, done func(*auditVerdict) error) error {
	trusted, err := trustedRoot(a, root, "signet audit verify FILE --root O... needs no context")
	if err != nil {
		return err
	}
	trust := auditlog.Trust{Root: trusted}
	if ringFile != "" {
		if trust.Ring, err = loadRing(ctx, a, ringFile, trusted); err != nil {
			return err
		}
	}
	x, err := openExport(ctx, file, trust, kept)
	if err != nil {
		return err
	}
	return done(verdictOnExport(x, time.Now()))
}

func openExport(ctx context.Context, file string, trust auditlog.Trust, kept []auditlog.Kept) (*auditlog.Export, error) {
	f, err := openKept(ctx, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	x, err := auditlog.VerifyExport(f, trust, kept, nil)
	if errors.Is(err, keyring.ErrRollback) {
		return nil, &exitError{code: exitRefused, err: fmt.Errorf("%s: %w", file, err), fix: "signet keys ring --out FILE saves the keyring that is in force"}
	}
	if err != nil && ctx.Err() == nil {
		return nil, &exitError{code: exitRefused, err: fmt.Errorf("%s does not verify: %w", file, err)}
	}
	return x, err
}

func auditExportCommand(a *app) *cobra.Command {
	var out string
	var system bool
	cmd := &cobra.Command{
		Use: "export --out FILE", Short: "save the trail for an auditor, to be verified offline (grant: admin audit)", Args: cobra.NoArgs,
		Long: `Writes the whole trail of the caller's tenant, the keyring and a signed head to one file,
and verifies it. It overwrites nothing. Whoever has the file and the root key can verify
it without us: signet audit verify FILE --root O... --keyring RING, with the keyring in
force then.`,
		Example: "  signet audit export --out shop.audit\n  signet audit verify shop.audit --root OBQ7...",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			if out == "" {
				return &usageError{msg: "--out is missing"}
			}
			return exportAudit(ctx, a, out, system)
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write")
	cmd.Flags().BoolVar(&system, "system", false, "the broker's own trail (needs admin cluster too)")
	return cmd
}

func exportAudit(ctx context.Context, a *app, out string, system bool) (err error) {
	if _, err := os.Lstat(out); err == nil {
		return &usageError{msg: out + " exists", fix: "choose another name; an export overwrites nothing"}
	}
	saved, err := a.loadContext()
	if err != nil {
		return err
	}
	doc, ring, err := fetchRing(ctx, a, saved.RootKey)
	if err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(out), ".signet-audit-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(part.Name()) }() // gone once it has its name
	w := bufio.NewWriterSize(part, 1<<20)
	silent := map[string]string{}
	var said *admin.AuditHeads
	err = a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		nodes, err := api.AuditSeals(ctx, system)
		if err != nil {
			return err
		}
		warnSilent(a, nodes)
		silent = nodes.Silent
		if said, err = loggedHeads(ctx, a, api, system, ""); err != nil {
			return err
		}
		// Asked again, after the others have answered: it must know all that they speak of.
		seals, err := api.AuditSeals(ctx, system)
		if err != nil {
			return err
		}
		head, err := auditlog.OpenHead([]byte(seals.Seal), ring)
		if err != nil {
			return &exitError{code: exitRefused, err: fmt.Errorf("the head that closes the export does not verify: %w", err)}
		}
		seals.Nodes = append(nodes.Nodes, nodes.Seal)
		return writeExport(ctx, api, w, seals, head, saved.RootKey, doc, said, system)
	})
	if err := errors.Join(err, w.Flush(), part.Sync(), part.Close()); err != nil {
		return err
	}
	x, err := openExport(ctx, part.Name(), auditlog.Trust{Root: saved.RootKey}, nil)
	if err != nil {
		return err
	}
	if err := os.Rename(part.Name(), out); err != nil {
		return err
	}
	for node, why := range silent {
		x.Report.Open = slices.DeleteFunc(x.Report.Open, func(o auditlog.Open) bool { return o.Node == node })
		x.Report.Open = append(x.Report.Open, auditlog.Open{Node: node, Why: "it did not say how far its chain is: " + why})
	}
	if said.Unlogged != "" {
		x.Report.Open = append(x.Report.Open, auditlog.Open{Why: noLog(said)})
	}
	if said.Finding != "" {
		x.Report.OK = false
		x.Report.Faults = append(x.Report.Faults, auditlog.Fault{What: auditlog.FaultLog, Detail: said.Finding})
	}
	a.note("%s: the trail of %s", out, clean(x.Tenant))
	return printAuditVerdict(a, verdictOnExport(x, time.Now()))
}

// writeExport writes what each node said of its chain, and what the head knows: records that came after it would have nothing
// that closes them.
func writeExport(ctx context.Context, api *admin.API, w io.Writer, seals *admin.AuditSeals, head *auditlog.Head, root string, ring []byte, said *admin.AuditHeads, system bool) error {
	x, err := auditlog.NewExport(w, seals.Tenant, root, ring, said.Logged...)
	if err != nil {
		return err
	}
	for _, doc := range seals.Nodes {
		err = errors.Join(err, x.Seal([]byte(doc)))
	}
	if err != nil {
		return err
	}
	err = eachBatch(ctx, api, system, func(m *admin.AuditBatch) error {
		b, err := auditlog.ParseBatch(m.Data)
		if err != nil {
			return &exitError{code: exitRefused, err: fmt.Errorf("message %d of the trail is not a batch (%w): signet audit verify says more", m.Seq, err)}
		}
		first := &b.Records[0]
		at := slices.IndexFunc(head.Chains, func(p auditlog.Position) bool { return p.Node == first.Node })
		if at < 0 || head.Chains[at].Chain == first.Chain && first.Seq > head.Chains[at].Seq || head.Chains[at].Chain != first.Chain && first.Time.After(head.Time) {
			return nil
		}
		return x.Batch(m.Data)
	})
	if err != nil {
		return err
	}
	return x.Close([]byte(seals.Seal))
}
