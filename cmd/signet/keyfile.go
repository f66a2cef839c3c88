package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/spf13/cobra"

	"github.com/signetbus/signet/signing/keyring"
)

// Lifetimes where no flag says another.
const (
	defaultRingLife = 365 * 24 * time.Hour
	defaultKeyLife  = 2 * 365 * 24 * time.Hour
	defaultOverlap  = 24 * time.Hour
	minOverlap      = time.Minute
	// clockMargin is how far before the present a new key begins: clocks differ.
	clockMargin = time.Hour
)

// spanFlag is a length of time that may be in days: 730d.
type spanFlag struct{ d *time.Duration }

func newSpan(d *time.Duration, value time.Duration) spanFlag {
	*d = value
	return spanFlag{d}
}

func (f spanFlag) Type() string { return "span" }

func (f spanFlag) String() string {
	if f.d == nil {
		return ""
	}
	const day = 24 * time.Hour
	if *f.d >= day && *f.d%day == 0 {
		return strconv.Itoa(int(*f.d/day)) + "d"
	}
	return f.d.String()
}

func (f spanFlag) Set(s string) error {
	var d time.Duration
	var err error
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		n, err = strconv.Atoi(days)
		if n > 36600 {
			return errors.New("want at most 36600d")
		}
		d = time.Duration(n) * 24 * time.Hour
	} else {
		d, err = time.ParseDuration(s)
	}
	if err != nil || d <= 0 {
		return errors.New("want a span such as 730d, 24h or 90m")
	}
	*f.d = d
	return nil
}

// ringEdit signs a new version of a keyring file. It never touches a server.
type ringEdit struct {
	file, rootSeed string
	life           time.Duration // of the new version
	mayMake        bool          // a keyring that is not there is begun
}

func (e *ringEdit) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&e.file, "keyring", "", "signed keyring to change; written anew in one step")
	f.StringVar(&e.rootSeed, "root-seed", "", "seed file of the root key that signs it (signet keys root)")
	f.Var(newSpan(&e.life, defaultRingLife), "expires-in", "until when readers may use this version")
	_ = cmd.MarkFlagRequired("keyring") // fails only for an unknown flag, as below
	_ = cmd.MarkFlagRequired("root-seed")
}

// sign changes the keyring and replaces the file. The file beside it with the ending
// .new, which becomes the keyring, keeps a second command out meanwhile.
func (e *ringEdit) sign(now time.Time, change func(*keyring.Ring, *keyring.Change) error) (ring *keyring.Ring, err error) {
	tmp := e.file + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, &usageError{msg: tmp + " is there: another command changes this keyring, or one was cut short", fix: "if none runs: rm " + tmp}
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // it may be closed; what counts is that the file goes
			err = errors.Join(err, ignoreAbsent(os.Remove(tmp)))
		}
	}()
	root, err := seedPair(e.rootSeed, nkeys.PrefixByteOperator)
	if err != nil {
		return nil, err
	}
	defer root.Wipe()
	old, mode, err := e.read(root)
	if err != nil {
		return nil, err
	}
	c := old.Change(now)
	if err := change(old, c); err != nil {
		return nil, ringFault(err)
	}
	if ring, err = c.Ring(now.Add(e.life)); err != nil {
		return nil, ringFault(err)
	}
	seed, err := root.Seed()
	if err != nil {
		return nil, err
	}
	doc, err := ring.Sign(seed)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(doc)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, e.file); err != nil {
		return nil, err
	}
	syncFolder(filepath.Dir(e.file))
	return ring, nil
}

// read returns the keyring as it is, expired or not, and the mode of its file; a nil
// ring where one may be begun.
func (e *ringEdit) read(root nkeys.KeyPair) (*keyring.Ring, fs.FileMode, error) {
	public, err := root.PublicKey()
	if err != nil {
		return nil, 0, err
	}
	doc, mode, err := readRingFile(e.file)
	if errors.Is(err, fs.ErrNotExist) && e.mayMake {
		return nil, 0o644, nil // a keyring is public
	}
	if err != nil {
		return nil, 0, err
	}
	ring, err := keyring.Parse(doc, public, time.Time{})
	if errors.Is(err, keyring.ErrBadSignature) {
		err = &usageError{
			msg: fmt.Sprintf("%s is not signed by the root key %s, whose seed is %s", e.file, public, e.rootSeed),
			fix: "take the root seed that belongs to this keyring, or the keyring that belongs to this root",
		}
	}
	return ring, mode, err
}

func readRingFile(file string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() || info.Size() > keyring.MaxDocumentBytes {
		return nil, 0, &usageError{msg: file + " is not a keyring"}
	}
	doc, err := io.ReadAll(io.LimitReader(f, keyring.MaxDocumentBytes+1))
	return doc, info.Mode().Perm(), err
}

// ringFault turns what is wrong with a change into wrong usage.
func ringFault(err error) error {
	for _, is := range []error{keyring.ErrInvalid, keyring.ErrNoKey, keyring.ErrKeyHeld} {
		if errors.Is(err, is) {
			return &usageError{msg: err.Error()}
		}
	}
	return err
}

// newKey makes a seed in file, or takes the public key that was given instead.
func newKey(file, public string, create func() (nkeys.KeyPair, error), want nkeys.PrefixByte) (id string, undo func(), err error) {
	switch {
	case (file == "") == (public == ""):
		return "", nil, &usageError{msg: "want either --out FILE, for a new seed, or --key PUBLIC, whose seed is elsewhere"}
	case file != "":
		id, err = newSeed(file, create)
		// Nobody knows the key yet: without its place in the keyring it is of no use.
		return id, func() { _ = os.Remove(file) }, err
	case strings.HasPrefix(public, "S"): // not repeated: it may be a secret
		return "", nil, &usageError{msg: "--key is a seed, a secret: it wants the public key", fix: "signet keys show FILE prints the public key of a seed file"}
	case !nkeys.IsValidPublicKey(public) || nkeys.Prefix(public) != want && want != 0:
		return "", nil, &usageError{msg: "--key is not the public key of a " + kindName(want)}
	}
	return public, func() {}, nil
}

func kindName(p nkeys.PrefixByte) string {
	switch p {
	case nkeys.PrefixByteServer:
		return "node (N...)"
	case nkeys.PrefixByteCurve:
		return "recipient (X...)"
	case nkeys.PrefixByteAccount:
		return "principal that applies policies (A...)"
	}
	return "producer (A... or U...)"
}

// seedPair reads a seed file, whose mode must keep others out.
func seedPair(file string, want nkeys.PrefixByte) (nkeys.KeyPair, error) {
	if _, err := publicOfSeed(file, want); err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return nkeys.FromSeed(bytes.TrimSpace(raw))
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
