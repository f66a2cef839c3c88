package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/backupfile"
	"github.com/signetbus/signet/internal/durablefile"
)

// unverified ends the name of a backup that was made and does not verify.
const unverified = ".unverified"

// clusterBackupCommands are the verbs of `signet cluster` that save a tenant and
// bring it back.
func clusterBackupCommands(a *app) []*cobra.Command {
	return []*cobra.Command{clusterBackupCommand(a), clusterRestoreCommand(a)}
}

func clusterBackupCommand(a *app) *cobra.Command {
	var tenant, out string
	cmd := &cobra.Command{
		Use: "backup --out FILE|DIR [--tenant NAME]", Short: "save a tenant, signed by its broker (grant: admin backup)",
		Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: `Saves everything that is stored for the tenant of the context's credential: events,
dead letters, key-value and object buckets, consumers. Publishing goes on meanwhile;
each stream is saved as it is at one sequence. The broker signs counts and hashes.
The file is verified before it gets its name. It holds all data of the tenant: keep
it as you keep the store.`,
		Example: `  signet cluster backup --out /backups
  signet cluster backup --tenant shop --out shop.signetbackup --context ops
  signet cluster backup verify shop.signetbackup --root OBQ7...`,
		RunE: a.verb(func(ctx context.Context, _ []string) error { return makeBackup(ctx, a, tenant, out) }),
	}
	cmd.Flags().StringVar(&out, "out", "", "file to write, or a folder for TENANT-TIME"+backupfile.Extension)
	cmd.Flags().StringVar(&tenant, "tenant", "", "fail unless the credential is of this tenant")
	_ = cmd.MarkFlagRequired("out") // fails only for an unknown flag
	cmd.AddCommand(backupVerifyCommand(a))
	return cmd
}

// makeBackup writes to a file beside the one that is wanted, so that a name always
// stands for a whole backup.
func makeBackup(ctx context.Context, a *app, tenant, out string) error {
	saved, err := a.loadContext()
	if err != nil {
		return err
	}
	dir, name := filepath.Split(out)
	if info, err := os.Stat(out); err == nil && info.IsDir() {
		dir, name = out, ""
	} else if err == nil {
		return &usageError{msg: out + " exists", fix: "choose another name; a backup overwrites nothing"}
	}
	if dir == "" {
		dir = "."
	}
	part, err := os.CreateTemp(dir, ".signet-backup-*")
	if errors.Is(err, fs.ErrNotExist) {
		return &usageError{msg: "there is no folder " + dir, fix: "make it: mkdir -p"}
	}
	if err != nil {
		return err
	}
	defer func() {
		_ = part.Close() // closed before where it matters
		_ = os.Remove(part.Name())
	}()
	if err := a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		_, err := api.Backup(ctx, tenant, part)
		return err
	}); err != nil {
		return err
	}
	if err := part.Sync(); err != nil {
		return err
	}
	proof, err := verifyBackup(ctx, part.Name(), saved.RootKey)
	if name == "" {
		name = "tenant-" + time.Now().UTC().Format("20060102T150405Z") + backupfile.Extension
		if err == nil {
			name = proof.Head.Tenant + strings.TrimPrefix(name, "tenant")
		}
	}
	final := filepath.Join(dir, name)
	if err != nil {
		final += unverified
	}
	if e := keepNew(part, final); e != nil {
		return errors.Join(err, e)
	}
	if err != nil {
		return &exitError{code: exitRefused, err: fmt.Errorf("the backup was made, and does not verify: it is kept as %s: %w", final, err)}
	}
	return printBackup(a, final, proof)
}

// keepNew gives a finished file its name, unless that is taken by now.
func keepNew(part *os.File, final string) error {
	if err := part.Close(); err != nil {
		return err
	}
	if err := os.Link(part.Name(), final); err != nil && !errors.Is(err, fs.ErrExist) {
		return os.Rename(part.Name(), final) // a file system without links
	} else if err != nil {
		return err
	}
	syncFolder(filepath.Dir(final))
	return nil
}

// syncFolder makes the names in a folder stable where that is possible: not every file
// system can, and the file itself is synced.
func syncFolder(dir string) { _ = durablefile.SyncDir(dir) }

func backupVerifyCommand(a *app) *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use: "verify FILE [--root O...]", Short: "prove offline that a backup is whole, unchanged and of this cluster",
		Args: exactly("FILE"), DisableFlagsInUseLine: true,
		Long: `Checks a backup without a network: that its keyring is signed by the root key, its
manifest by a broker of that keyring, that counts and hashes are those of the
manifest, and that every event is attested. Dead letters and buckets have no
attestations: the signed manifest alone covers them. Exit code 3 if anything of it
does not hold. Without --root, the root key of the context is used.`,
		Example: "  signet cluster backup verify shop.signetbackup --root OBQ7...",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			trusted, err := trustedRoot(a, root, "signet cluster backup verify FILE --root O... needs no context")
			if err != nil {
				return err
			}
			proof, err := verifyBackup(ctx, args[0], trusted)
			var path *fs.PathError
			if errors.As(err, &path) || errors.Is(err, context.Canceled) {
				return err
			}
			if err != nil {
				return &exitError{code: exitRefused, err: fmt.Errorf("NOT VERIFIED: %s: %w", args[0], err)}
			}
			return printBackup(a, args[0], proof)
		}),
	}
	cmd.Flags().StringVar(&root, "root", "", "public root key (O...), or a file with it (default: of the context)")
	return cmd
}

func verifyBackup(ctx context.Context, file, root string) (*backupfile.Proof, error) {
	f, err := openKept(ctx, file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return backupfile.Verify(bufio.NewReaderSize(f, 1<<20), backupfile.Trust{Root: root})
}

// interruptible is a reader that ends with its context.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// backupRow is a verified backup as -o json prints it.
type backupRow struct {
	File     string               `json:"file"`
	Key      string               `json:"key"`
	Proven   uint64               `json:"proven"`
	Unproven uint64               `json:"unproven"`
	Manifest *backupfile.Manifest `json:"manifest"`
}

func printBackup(a *app, file string, p *backupfile.Proof) error {
	if a.jsonOut() {
		return a.printJSON(backupRow{File: file, Key: p.Key, Proven: p.Proven, Unproven: p.Unproven, Manifest: &p.Manifest})
	}
	fmt.Fprintf(a.stdout, "VERIFIED: %s\n", clean(file))
	m := &p.Manifest
	facts(a.stdout, "  ", "backup", m.ID, "tenant", m.Tenant, "made", m.Created.Format(time.RFC3339)+" by "+m.Node, "broker key", p.Key,
		"policy", m.Policy, "size", size(int64(m.Bytes)), "events", fmt.Sprintf("%d proven by their attestations", p.Proven),
		"other", fmt.Sprintf("%d messages of buckets and dead letters, covered by the signed manifest alone", p.Unproven))
	fmt.Fprintln(a.stdout)
	g := newGrid(a.stdout, "STREAM", "HOLDS", "MESSAGES", "STORED", "FIRST", "LAST", "CONSUMERS")
	for i := range m.Streams {
		s := &m.Streams[i]
		g.row(s.Name, string(backupfile.KindOf(s.Name)), count(s.Messages), size(int64(s.Bytes)), count(s.FirstSeq), count(s.EndSeq), fmt.Sprint(s.Consumers))
	}
	g.flush()
	return nil
}

func clusterRestoreCommand(a *app) *cobra.Command {
	var file, root string
	var q admin.RestoreRequest
	cmd := &cobra.Command{
		Use: "restore --in FILE [--tenant NAME] [--dry-run]", Short: "bring a saved tenant back into new streams (grant: admin backup)",
		Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long: `Restores a backup into the tenant of the context's credential. The broker verifies
all of it first: the keyring against its own root key, the manifest, every event.
Then all streams come back, or none does. They must be declared by the policy, which
gives them their settings, and nothing may have been stored in them; --skip leaves a
stream out. --dry-run verifies and says what would be restored.`,
		Example: `  signet cluster restore --in shop.signetbackup --dry-run
  signet cluster restore --in shop.signetbackup --tenant shop
  signet cluster restore --in shop.signetbackup --skip DLQ`,
		RunE: a.verb(func(ctx context.Context, _ []string) (err error) {
			if root != "" {
				if q.TrustRoot, err = rootKey(root); err != nil {
					u := &usageError{}
					if errors.As(err, &u) {
						u.msg = strings.Replace(u.msg, "--root", "--trust-root", 1)
					}
					return err
				}
			}
			return restoreBackup(ctx, a, file, q)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&file, "in", "", "backup to restore")
	f.StringVar(&q.Tenant, "tenant", "", "fail unless the credential is of this tenant")
	f.BoolVar(&q.DryRun, "dry-run", false, "verify, say what would be restored, and restore nothing")
	f.StringSliceVar(&q.Skip, "skip", nil, "stream to leave out; repeat it")
	f.StringVar(&root, "trust-root", "", "root key (O...) of the cluster that made the backup, or a file with it (default: the broker's own);\nits keys must be in the broker's keyring")
	_ = cmd.MarkFlagRequired("in") // fails only for an unknown flag
	return cmd
}

func restoreBackup(ctx context.Context, a *app, file string, q admin.RestoreRequest) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if q.Bytes = info.Size(); !info.Mode().IsRegular() || q.Bytes == 0 {
		return &usageError{msg: file + " is no backup: it is empty, or no file"}
	}
	return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		report, err := api.Restore(ctx, bufio.NewReaderSize(f, 1<<20), q)
		if err != nil {
			return err
		}
		if a.jsonOut() {
			return a.printJSON(report)
		}
		printRestore(a, report)
		return nil
	})
}

func printRestore(a *app, r *admin.RestoreReport) {
	verb := "RESTORED"
	if r.DryRun {
		verb = "VERIFIED, nothing restored"
	}
	fmt.Fprintf(a.stdout, "%s: backup %s of the tenant %s\n", verb, clean(r.ID), clean(r.Tenant))
	facts(a.stdout, "  ", "made", r.Created.Format(time.RFC3339)+" by "+r.Node, "broker key", r.Key,
		"events", fmt.Sprintf("%d proven by their attestations", r.Proven),
		"other", fmt.Sprintf("%d messages of buckets and dead letters, covered by the signed manifest alone", r.Unproven))
	fmt.Fprintln(a.stdout)
	g := newGrid(a.stdout, "STREAM", "HOLDS", "MESSAGES", "STORED", "LAST", "CONSUMERS", "WHAT")
	for i := range r.Streams {
		s := &r.Streams[i]
		what := "restored"
		switch {
		case s.Skipped:
			what = "left out"
		case r.DryRun:
			what = "would be restored"
		}
		g.row(s.Name, s.Kind, count(s.Messages), size(int64(s.Bytes)), count(s.LastSeq), fmt.Sprint(s.Consumers), what)
	}
	g.flush()
}
