package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/signing/keyring"
)

// keyKinds are the seeds that signet keys new makes.
var keyKinds = map[string]func() (nkeys.KeyPair, error){
	"user":   nkeys.CreateUser,     // connects
	"server": nkeys.CreateServer,   // attests
	"root":   nkeys.CreateOperator, // signs keyrings

	roleRecipient: nkeys.CreateCurveKeys, // reads encrypted payloads
}

func keysCommand(a *app) *cobra.Command {
	return parent("keys", "make keys; issue, rotate, revoke them", "  signet keys new --out checkout.nk\n  signet keys show --server",
		keysNewCommand(a), keysRootCommand(a), keysIssueCommand(a), keysRotateCommand(a), keysRevokeCommand(a),
		keysPushCommand(a), keysShowCommand(a), keysLsCommand(a), keysRingCommand(a))
}

func keysNewCommand(a *app) *cobra.Command {
	var out, kind string
	cmd := &cobra.Command{
		Use: "new --out FILE", Short: "make a key; print its public half", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long:    "Makes an nkey seed in a new file of mode 0600 and prints the public key, which is\nwhat goes into the policy. The seed is never printed. An existing file is kept.",
		Example: "  signet keys new --out checkout.nk\n  signet keys new --out root.seed --kind root",
		RunE: a.verb(func(context.Context, []string) error {
			create := keyKinds[kind]
			if create == nil {
				return &usageError{msg: fmt.Sprintf("--kind %q: want user, server, root or recipient", kind)}
			}
			public, err := newSeed(out, create)
			if err != nil {
				return err
			}
			if a.jsonOut() {
				return a.printJSON(map[string]string{"publicKey": public, "kind": kind, "file": out})
			}
			fmt.Fprintln(a.stdout, public)
			if kind == "user" {
				a.note("seed in %s; put the public key into the policy: identities: [{nkey: %s}]", out, public)
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "file for the seed; must not exist")
	cmd.Flags().StringVar(&kind, "kind", "user", "user (connects), server (attests), root (signs the keyring) or recipient (reads encrypted payloads)")
	_ = cmd.MarkFlagRequired("out")                                                                                                // fails only for an unknown flag
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"user", "server", "root", roleRecipient}, noFiles)) // as above
	return cmd
}

func newSeed(file string, create func() (nkeys.KeyPair, error)) (public string, err error) {
	pair, err := create()
	if err != nil {
		return "", err
	}
	defer pair.Wipe()
	seed, err := pair.Seed()
	if err != nil {
		return "", err
	}
	defer clear(seed)
	if public, err = pair.PublicKey(); err != nil {
		return "", err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", &usageError{msg: file + " exists: a key is never overwritten", fix: "choose another --out, or: signet keys show " + file}
	}
	if err != nil {
		return "", err
	}
	_, err = f.Write(append(bytes.Clone(seed), '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file))
	}
	return public, nil
}

// publicOfSeed reads a seed file, whose mode must keep others out, and returns the
// public key. want limits the type.
func publicOfSeed(file string, want ...nkeys.PrefixByte) (string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	if public := publicText(file, info); public != "" {
		return "", &usageError{msg: fmt.Sprintf("%s holds a public key, %s: the seed of it is wanted", file, public)}
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return "", &usageError{msg: fmt.Sprintf("%s has mode %04o: others can read the secret in it", file, mode), fix: "chmod 600 " + file}
	}
	if !info.Mode().IsRegular() || info.Size() > 1024 {
		return "", &usageError{msg: file + " is not a seed file"}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	defer clear(raw)
	pair, err := nkeys.FromSeed(bytes.TrimSpace(raw))
	if err != nil { // the text is not repeated: it may be a secret
		return "", &usageError{msg: file + " does not hold an nkey seed (S...)", fix: "signet keys new --out FILE makes one"}
	}
	defer pair.Wipe()
	public, err := pair.PublicKey()
	if err != nil {
		return "", err
	}
	for _, p := range want {
		if nkeys.Prefix(public) != p {
			return "", &usageError{msg: fmt.Sprintf("%s holds the seed of a %s, that of a %s is wanted", file, seedName(nkeys.Prefix(public)), seedName(p)), fix: seedFix[p]}
		}
	}
	return public, nil
}

// publicText is the public key that a file holds in place of a seed, if it does.
func publicText(file string, info os.FileInfo) string {
	if !info.Mode().IsRegular() || info.Size() > 1024 {
		return ""
	}
	raw, err := os.ReadFile(file)
	if text := string(bytes.TrimSpace(raw)); err == nil && nkeys.IsValidPublicKey(text) {
		return text
	}
	return ""
}

// seedFix says how seeds of a type are made.
var seedFix = map[nkeys.PrefixByte]string{
	nkeys.PrefixByteOperator: "name the file that signet keys root wrote",
	nkeys.PrefixByteUser:     "signet keys new --out FILE",
}

// seedName is what p is called in Signet.
func seedName(p nkeys.PrefixByte) string {
	switch p {
	case nkeys.PrefixByteOperator:
		return "root key"
	case nkeys.PrefixByteServer:
		return "node"
	case nkeys.PrefixByteCurve:
		return "recipient"
	case nkeys.PrefixByteAccount:
		return "principal that signs or applies policies"
	}
	return p.String()
}

func keysLsCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "list the keyring that the broker uses (grant: admin keys)", Args: cobra.NoArgs,
		Example: "  signet keys ls --context dev-operator",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				list, err := api.Keys(ctx)
				if err != nil {
					return err
				}
				return printKeys(a, list)
			})
		}),
	}
}

func printKeys(a *app, list *admin.KeyList) error {
	if a.jsonOut() {
		return a.printJSON(list)
	}
	left := time.Until(list.Expires)
	ends := fmt.Sprintf("expires %s (in %s)", stamp(list.Expires), span(left))
	if left <= 0 {
		ends = fmt.Sprintf("expired %s (%s ago)", stamp(list.Expires), span(left))
	}
	fmt.Fprintf(a.stdout, "keyring version %d, %s\n\n", list.Version, ends)
	g := newGrid(a.stdout, "KEY", "ROLE", "PRINCIPAL", "FROM", "TO", "REVOKED", "SOURCES", "SUBJECTS")
	for _, k := range list.Keys {
		g.row(k.ID, k.Role, k.Principal, stamp(k.NotBefore), stamp(k.NotAfter), stamp(k.RevokedAt), strings.Join(k.Sources, " "), strings.Join(k.Subjects, " "))
	}
	g.flush()
	return nil
}

func keysRingCommand(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "ring [--out FILE]", Short: "fetch the signed keyring and verify it", Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		Long:    "Fetches the signed keyring from the broker, verifies it against the root key of the\ncontext and lists it. With --out the signed document is saved, so that events can\nbe verified without a broker: signet verify --keyring FILE --root O...",
		Example: "  signet keys ring --out keyring.json",
		RunE: a.verb(func(ctx context.Context, _ []string) error {
			saved, err := a.loadContext()
			if err != nil {
				return err
			}
			doc, ring, err := fetchRing(ctx, a, saved.RootKey)
			if err != nil {
				return err
			}
			if out != "" {
				if err := os.WriteFile(out, doc, 0o644); err != nil { //nolint:gosec // a keyring is public
					return err
				}
				a.note("keyring version %d saved in %s", ring.Version(), out)
			}
			return printKeys(a, listOf(ring))
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "save the signed document here")
	return cmd
}

// fetchRing asks the broker of the context for the keyring and verifies it.
func fetchRing(ctx context.Context, a *app, root string) (doc []byte, ring *keyring.Ring, err error) {
	err = a.admin(ctx, func(ctx context.Context, api *admin.API) error {
		answer, err := api.KeyRing(ctx)
		if err != nil {
			return err
		}
		doc = answer.Document
		if ring, err = keyring.Parse(doc, root, time.Now()); err != nil {
			return fmt.Errorf("%w: %w", client.ErrKeyring, err)
		}
		return nil
	})
	return doc, ring, err
}
