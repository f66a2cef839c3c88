package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/signing/keyring"
)

func keysShowCommand(a *app) *cobra.Command {
	var root string
	var server bool
	cmd := &cobra.Command{
		Use: "show FILE|--server", Short: "show a keyring; of a seed file, its public key", Args: cobra.MaximumNArgs(1), DisableFlagsInUseLine: true,
		Long: `Lists a keyring: version, when it expires, and each key with its holder, its time and
whether it is revoked. Of a seed file it prints the public key. With --server it lists
the keyring that the broker of the context has in force (no grant is needed).

A keyring file is verified against a root key: --root, else root.pub beside the file,
else the root key of the context.`,
		Example: "  signet keys show keyring.json --root root.pub\n  signet keys show --server\n  signet keys show checkout.nk",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			switch {
			case server == (len(args) == 1):
				return &usageError{msg: "want either FILE or --server"}
			case server:
				saved, err := a.loadContext()
				if err != nil {
					return err
				}
				_, ring, err := fetchRing(ctx, a, saved.RootKey)
				if err != nil {
					return err
				}
				return printKeys(a, listOf(ring))
			}
			return showFile(a, args[0], root)
		}),
	}
	cmd.Flags().StringVar(&root, "root", "", "public root key (O...) that signed the keyring, or a file with it")
	cmd.Flags().BoolVar(&server, "server", false, "show the keyring of the broker of the context")
	return cmd
}

func showFile(a *app, file, root string) error {
	doc, _, err := readRingFile(file)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(doc, []byte("{")) {
		clear(doc)
		return showSeed(a, file)
	}
	ring, err := parseRing(a, doc, file, root, time.Time{})
	if err != nil {
		return err
	}
	if !time.Now().Before(ring.Expires()) {
		a.note("%s has EXPIRED: no reader takes it", file)
	}
	return printKeys(a, listOf(ring))
}

func showSeed(a *app, file string) error {
	public, err := publicOfSeed(file)
	if err != nil {
		return err
	}
	if a.jsonOut() {
		return a.printJSON(map[string]string{"publicKey": public, "kind": nkeys.Prefix(public).String(), "file": file})
	}
	fmt.Fprintln(a.stdout, public)
	return nil
}

// parseRing verifies the keyring of a file against the root key given, else the one
// beside the file, else that of the context.
func parseRing(a *app, doc []byte, file, root string, now time.Time) (*keyring.Ring, error) {
	beside := filepath.Join(filepath.Dir(file), "root.pub")
	if root == "" {
		if _, err := os.Stat(beside); err == nil {
			root = beside
		}
	}
	if root == "" {
		saved, err := a.loadContext()
		if err != nil || saved.RootKey == "" {
			return nil, &usageError{msg: "no root key to verify " + file + " with", fix: "give --root ROOT.PUB, or put root.pub beside it"}
		}
		root = saved.RootKey
	}
	public, err := rootKey(root)
	if err != nil {
		return nil, err
	}
	ring, err := keyring.Parse(doc, public, now)
	switch {
	case errors.Is(err, keyring.ErrBadSignature):
		return nil, fmt.Errorf("%s cannot be trusted: %w, %s", file, err, public)
	case errors.Is(err, keyring.ErrMalformed), errors.Is(err, keyring.ErrInvalid):
		return nil, &usageError{msg: fmt.Sprintf("%s is not a keyring: %v", file, err)}
	case errors.Is(err, keyring.ErrExpired):
		return nil, &exitError{
			code: exitRefused, err: fmt.Errorf("%s: %w", file, err),
			fix: "is the clock here right? else sign a version anew: signet keys rotate KEY --keyring " + file + " --root-seed FILE",
		}
	case err != nil:
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return ring, nil
}

func listOf(ring *keyring.Ring) *admin.KeyList {
	list := &admin.KeyList{Version: ring.Version(), Issued: ring.Issued(), Expires: ring.Expires()}
	for _, k := range ring.Keys() {
		list.Keys = append(list.Keys, admin.Key{
			ID: k.ID, Alg: k.Alg, Role: k.Role, Principal: k.Principal, Sources: k.Sources, Subjects: k.Subjects,
			NotBefore: k.NotBefore, NotAfter: k.NotAfter, RevokedAt: k.RevokedAt,
		})
	}
	return list
}

// pushTimeout is how long a push may take: without a quorum the broker waits for the
// stream KEYS first, and then for each node that is silent.
const pushTimeout = 30 * time.Second

func keysPushCommand(a *app) *cobra.Command {
	var root string
	var cutOff []string
	cmd := &cobra.Command{
		Use: "push FILE", Short: "bring a keyring to all nodes (grant: admin keys)", Args: exactly("FILE"), DisableFlagsInUseLine: true,
		Long: `Verifies a keyring and brings it to the broker of the context, which verifies it
again, keeps it, and brings it to all nodes and connected readers. It is in force in
seconds and stays so over restarts.

Refused: another root key, a version that is not higher or far too high, a keyring that
expires within ten minutes, one that takes from readers what they could verify, and one
that leaves a node without a key to attest with. If that is meant, because the node's key
is revoked or the node is gone, name it with --cut-off: it attests nothing any more, and
loses its routes.

Once one node has it, it is not refused: the output says which nodes have it, and which
get it later. To push the same file again is harmless, and tries those once more.`,
		Example: "  signet keys push keyring.json\n  signet keys push keyring.json --cut-off n2",
		RunE: a.verb(func(ctx context.Context, args []string) error {
			doc, _, err := readRingFile(args[0])
			if err != nil {
				return err
			}
			ring, err := parseRing(a, doc, args[0], root, time.Now())
			if err != nil {
				return err
			}
			return a.admin(ctx, func(ctx context.Context, api *admin.API) error {
				ctx, cancel := context.WithTimeout(ctx, max(a.timeout, pushTimeout))
				defer cancel()
				put, err := api.PutKeys(ctx, doc, cutOff...)
				if err != nil {
					return err
				}
				return printPut(a, put, ring)
			})
		}),
	}
	cmd.Flags().StringVar(&root, "root", "", "public root key (O...) that signed the keyring, or a file with it")
	cmd.Flags().StringArrayVar(&cutOff, "cut-off", nil, "node that is meant to lose its last key (repeat it)")
	return cmd
}

func printPut(a *app, put *admin.KeysPut, ring *keyring.Ring) error {
	if a.jsonOut() {
		return a.printJSON(put)
	}
	if len(put.InForce) > 0 {
		fmt.Fprintf(a.stdout, "keyring version %d is in force at %s\n", put.Version, strings.Join(put.InForce, ", "))
	} else {
		fmt.Fprintf(a.stdout, "keyring version %d is kept, and in force at no node yet\n", put.Version)
	}
	if len(put.Waiting) > 0 {
		a.note("not yet at %s: it gets the keyring when it is up and in touch again", strings.Join(put.Waiting, ", "))
		for _, node := range put.Waiting {
			if fault := put.Faults[node]; fault != "" {
				a.note("  %s: %s", clean(node), clean(fault))
			}
		}
	}
	if !put.Kept {
		a.note("the stream KEYS does not have it yet, for want of a quorum: the nodes that have it go on trying; push it again to be sure")
	}
	a.note("it is good until %s (in %s)", stamp(ring.Expires()), span(time.Until(ring.Expires())))
	return nil
}
