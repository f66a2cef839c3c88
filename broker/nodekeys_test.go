package broker

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/signing/keyring"
)

// TestNodeKeyFaults: what is wrong with the seeds, the keyring or the clock of a node is
// said so that somebody can mend it, and the node does not start.
func TestNodeKeyFaults(t *testing.T) {
	st := runSetup(t, Setup{Dir: t.TempDir(), Name: "n1", Listen: "127.0.0.1:0"})
	cfg := Config{State: t.TempDir(), Keys: KeysConfig{Node: st.NodeSeed, Keyring: st.Keyring, Root: st.Root}}
	held, now := ringOf(t, st), time.Now()
	seed, err := os.ReadFile(st.NodeSeed)
	if err != nil {
		t.Fatal(err)
	}
	put := func(file string, data []byte, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(file, data, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
	}
	seedOf := func(create func() (nkeys.KeyPair, error)) []byte {
		t.Helper()
		pair, err := create()
		if err != nil {
			t.Fatal(err)
		}
		s, err := pair.Seed()
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Clone(s)
	}
	for _, tt := range []struct {
		name, want string
		now        time.Time
		prepare    func()
	}{
		{"good", "", now, func() {}},
		{"the clock is two hours behind", "is not valid now", now.Add(-2 * time.Hour), func() {}},
		{"the clock is half an hour behind", "", now.Add(-30 * time.Minute), func() {}},
		{"the clock is an hour ahead", "", now.Add(time.Hour), func() {}},
		{"the keyring has expired", "has expired", held.Expires(), func() {}},
		{"a seed of a user", "not an nkeys seed of type server", now, func() { put(st.NodeSeed, seedOf(nkeys.CreateUser), 0o600) }},
		{"a seed that others can read", "must be readable by its owner only", now, func() { put(st.NodeSeed, seed, 0o644) }},
		{"a next seed that others can read", "must be readable by its owner only", now, func() { put(nextSeed(&cfg), seedOf(nkeys.CreateServer), 0o644) }},
		{"a next seed that the keyring does not have yet", "", now, func() { put(nextSeed(&cfg), seedOf(nkeys.CreateServer), 0o600) }},
		{"a key that the keyring does not have", "is not in the keyring", now, func() { put(st.NodeSeed, seedOf(nkeys.CreateServer), 0o600) }},
		{"no keyring", "not in the one accepted encoding", now, func() { put(st.Keyring, []byte("{}"), 0o600) }},
	} {
		doc, err := os.ReadFile(st.Keyring)
		if err != nil {
			t.Fatal(err)
		}
		tt.prepare()
		err = new(material).loadKeys(&cfg, tt.now)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if err != nil && strings.Contains(err.Error(), string(bytes.TrimSpace(seed))) {
			t.Errorf("%s: the error has the seed", tt.name)
		}
		put(st.NodeSeed, seed, 0o600)
		put(st.Keyring, doc, 0o600)
		_ = os.Remove(nextSeed(&cfg)) // most rows have none
	}
}

// TestKeyringThatCannotBeWritten: one that came over the wire outlives a restart of a
// node whose keyring file is mounted read-only; an older file does not come back.
func TestKeyringThatCannotBeWritten(t *testing.T) {
	st := runSetup(t, Setup{Dir: t.TempDir(), Name: "n1", Listen: "127.0.0.1:0"})
	cfg := Config{State: t.TempDir(), Keys: KeysConfig{Node: st.NodeSeed, Keyring: st.Keyring, Root: st.Root}}
	ring := ringOf(t, st)
	next, err := ring.Change(time.Now()).Ring(ring.Expires())
	if err != nil {
		t.Fatal(err)
	}
	seed, err := os.ReadFile(st.RootSeed)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := next.Sign(bytes.TrimSpace(seed))
	if err != nil {
		t.Fatal(err)
	}
	// A name that leaves no room for that of the temporary file: root ignores modes.
	cfg.Keys.Keyring = filepath.Join(filepath.Dir(st.Keyring), strings.Repeat("k", 255))
	if err := os.Rename(st.Keyring, cfg.Keys.Keyring); err != nil {
		t.Fatal(err)
	}
	if err := holdRing(&cfg, doc); err != nil {
		t.Fatal(err)
	}
	if note := writeRing(&cfg, doc); note == nil || !strings.Contains(note.Error(), "bring it up to date") {
		t.Errorf("a file that cannot be written: %v", note)
	}
	got, gotDoc, note, err := readRing(&cfg, time.Now())
	if err != nil || got.Version() != next.Version() || !bytes.Equal(gotDoc, doc) {
		t.Errorf("version %v, want %d (%v)", got, next.Version(), err)
	}
	if !errors.Is(note, keyring.ErrRollback) {
		t.Errorf("the older file is passed over without a word: %v", note)
	}
	// What is held is verified like the file, and only what is newer counts.
	other, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	otherSeed, err := other.Seed()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := next.Sign(otherSeed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(heldKeyring(&cfg), forged, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _, note, err := readRing(&cfg, time.Now()); err != nil || got.Version() != ring.Version() || !errors.Is(note, keyring.ErrBadSignature) {
		t.Errorf("a forged one beside the file: %v, %v, %v", got, note, err)
	}
}

// TestSignerIsChosen: a node keeps its key while that is good, whatever else there is.
func TestSignerIsChosen(t *testing.T) {
	st := runSetup(t, Setup{Dir: t.TempDir(), Name: "n1", Listen: "127.0.0.1:0"})
	cfg := Config{State: t.TempDir(), Keys: KeysConfig{Node: st.NodeSeed, Keyring: st.Keyring, Root: st.Root}}
	ring, now := ringOf(t, st), time.Now().Truncate(time.Second)
	old := ring.Keys()[0]
	next, err := makeNodeKey(nextSeed(&cfg), "n1")
	if err != nil {
		t.Fatal(err)
	}
	c := ring.Change(now)
	if err := c.Rotate(old.ID, next.id, now.Add(time.Hour), now.AddDate(1, 0, 0), now.Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if ring, err = c.Ring(now.AddDate(1, 0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := signRing(st, ring.Version(), ring.Keys(), now); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		at          time.Duration
		start, then string // key at a start, key to go over to
	}{
		{0, old.ID, ""},
		{time.Hour - time.Second, old.ID, ""},
		{time.Hour, old.ID, next.id},
		{2*time.Hour - time.Second, old.ID, next.id},
		{2 * time.Hour, next.id, ""},
	} {
		m := new(material)
		if err := m.loadKeys(&cfg, now.Add(tt.at)); err != nil {
			t.Fatal(err)
		}
		then := ""
		if s := m.nextSigner(&cfg, now.Add(tt.at)); s != nil {
			then = s.KeyID()
		}
		if m.signer.KeyID() != tt.start || then != tt.then {
			t.Errorf("after %s: %s, then %q; want %s, then %q", tt.at, m.signer.KeyID(), then, tt.start, tt.then)
		}
	}
	// Somebody forgot to bring the seed.
	if err := os.Rename(nextSeed(&cfg), nextSeed(&cfg)+".away"); err != nil {
		t.Fatal(err)
	}
	without := new(material)
	if err := without.loadKeys(&cfg, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	b := &Broker{cfg: cfg, log: zerolog.New(&log)}
	b.cfg.Name = "n1"
	b.material.Store(without)
	if warnOfSeed(b, now); log.Len() != 0 {
		t.Errorf("before the next key is good: %s", log.String())
	}
	if warnOfSeed(b, now.Add(time.Hour)); !strings.Contains(log.String(), next.id) {
		t.Errorf("without the seed of the next key: %q", log.String())
	}
	// A key of which the seed is still there, and which was revoked.
	m := new(material)
	if err := m.loadKeys(&cfg, now); err != nil {
		t.Fatal(err)
	}
	keys := ring.Keys()
	for i := range keys {
		keys[i].RevokedAt = now
	}
	if err := signRing(st, ring.Version()+1, keys, now); err != nil {
		t.Fatal(err)
	}
	muted := new(material)
	if err := muted.reloadKeys(&cfg, m, now); err != nil || muted.mute == nil {
		t.Fatalf("a reload with its keys revoked: %v, %v", err, muted.mute)
	}
	if from, until := muted.attests(); now.Before(until) || !from.Before(until) {
		t.Errorf("it attests from %s to %s", from, until)
	}
	if _, err := keyring.Parse(muted.ringDoc, st.Root, now); err != nil {
		t.Error(err)
	}
}
