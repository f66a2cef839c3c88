package client

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing/keyring"
)

// TestKeyringMemory: a ring that cannot be remembered is in use all the same, as it may
// revoke a key, and is remembered when it can be; an older one is refused by the file.
// What the command keeps beside the file while it changes a keyring is left alone.
func TestKeyringMemory(t *testing.T) {
	rootSeed, root := testSeed(t, nkeys.PrefixByteOperator)
	document := func(version uint64) []byte {
		t.Helper()
		r, err := keyring.New(version, time.Now().Add(-time.Hour), time.Now().Add(time.Hour), nil)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := r.Sign(rootSeed)
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	dir := filepath.Join(t.TempDir(), "memory")
	file := filepath.Join(dir, "ring.json")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(file+".new", []byte("the command's"), 0o600)); err != nil {
		t.Fatal(err)
	}
	keeper := func() *ringKeeper {
		k := newRingKeeper(root, nil, func(error) {})
		k.memory = file
		return k
	}
	k := keeper()
	offer := func(version uint64) error { return k.offer(context.Background(), document(version)) }
	if err := offer(1); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file + ".new"); err != nil || string(got) != "the command's" {
		t.Errorf("the file beside it has %q (%v)", got, err)
	}
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	if err := offer(2); !errors.Is(err, errNotRemembered) || !errors.Is(err, ErrKeyring) || k.current().Version() != 2 {
		t.Errorf("a ring that cannot be remembered: %v, in use is %d", err, k.current().Version())
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	if err := offer(2); err != nil {
		t.Fatal(err)
	}
	remembered := func() uint64 {
		t.Helper()
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ring, err := keyring.Parse(got, root, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return ring.Version()
	}
	if v := remembered(); v != 2 {
		t.Errorf("version %d is remembered, want 2", v)
	}
	// Damage in the file while the program runs keeps no newer ring out; another
	// program's newer ring keeps an older one out.
	if err := os.WriteFile(file, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := offer(3); err == nil || k.current().Version() != 3 {
		t.Errorf("a newer ring over a damaged file: %v, in use is %d", err, k.current().Version())
	}
	if err := os.WriteFile(file, document(9), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := offer(4); !errors.Is(err, keyring.ErrRollback) || k.current().Version() != 3 {
		t.Errorf("a ring older than another program's: %v, in use is %d", err, k.current().Version())
	}
	k = keeper() // another start
	if err := offer(1); !errors.Is(err, keyring.ErrRollback) || k.current() != nil {
		t.Errorf("an older one after a restart: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
