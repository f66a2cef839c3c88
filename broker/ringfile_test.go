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

	"github.com/signetbus/signet/signing/keyring"
)

// ringFiles are the files of a node under a root that the test holds.
type ringFiles struct {
	t    *testing.T
	cfg  Config
	st   *State
	seed []byte
	ring *keyring.Ring // of the first start
	made time.Time     // of every document: the same arguments make the same bytes
}

func newRingFiles(t *testing.T) *ringFiles {
	t.Helper()
	st := runSetup(t, Setup{Dir: t.TempDir(), Name: "n1", Listen: "127.0.0.1:0"})
	f := &ringFiles{t: t, st: st, ring: ringOf(t, st), made: time.Now().Add(-48 * time.Hour)}
	f.cfg = Config{Name: "n1", State: t.TempDir(), Keys: KeysConfig{Node: st.NodeSeed, Keyring: st.Keyring, Root: st.Root}}
	seed, err := os.ReadFile(st.RootSeed)
	if err != nil {
		t.Fatal(err)
	}
	f.seed = bytes.TrimSpace(seed)
	return f
}

// doc is a keyring with the keys of the first one.
func (f *ringFiles) doc(version uint64, expires time.Time, more ...keyring.Key) []byte {
	f.t.Helper()
	ring, err := keyring.New(version, f.made, expires, append(f.ring.Keys(), more...))
	if err != nil {
		f.t.Fatal(err)
	}
	doc, err := ring.Sign(f.seed)
	if err != nil {
		f.t.Fatal(err)
	}
	return doc
}

func (f *ringFiles) put(file string, data []byte) {
	f.t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// TestNewestRingCounts: of the file and of what the node held, the newer one counts, an
// expired one is not followed by an older one, and what is wrong is said.
func TestNewestRingCounts(t *testing.T) {
	f := newRingFiles(t)
	now := time.Now()
	v, later, over := f.ring.Version(), now.Add(time.Hour), now.Add(-time.Hour)
	id, err := nkeys.CreateServer()
	if err != nil {
		t.Fatal(err)
	}
	public, err := id.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	other := keyring.Key{ID: public, Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n2", NotBefore: over, NotAfter: later}
	for _, tt := range []struct {
		name       string
		file, held []byte
		want       uint64 // 0: err
		note       string
		err        error
	}{
		{"nothing held", f.doc(v, later), nil, v, "", nil},
		{"the same", f.doc(v, later), f.doc(v, later), v, "", nil},
		{"a newer file", f.doc(v+1, later), f.doc(v, later), v + 1, "", nil},
		{"an older file was put back", f.doc(v, later), f.doc(v+1, later), v + 1, "in force is", nil},
		{"the file has other keys of the same version", f.doc(v, later, other), f.doc(v, later), v, "with other content", nil},
		{"an older file, and what was held has expired", f.doc(v, later), f.doc(v+1, over), 0, "", keyring.ErrExpired},
		{"a newer file, and what was held has expired", f.doc(v+2, later), f.doc(v+1, over), v + 2, "", nil},
		{"the file has expired", f.doc(v, over), nil, 0, "", keyring.ErrExpired},
		{"the file has expired, and is older", f.doc(v, over), f.doc(v+1, later), v + 1, "in force is", nil},
		{"a damaged file", []byte("{"), f.doc(v, later), v, "which this node held", nil},
		{"no file", nil, f.doc(v, later), v, "which this node held", nil},
		{"damage in what is held", f.doc(v, later), []byte("{"), v, "is made anew from the file", nil},
		{"both damaged", []byte("{"), []byte("{"), 0, "", keyring.ErrMalformed},
	} {
		for file, data := range map[string][]byte{f.cfg.Keys.Keyring: tt.file, heldKeyring(&f.cfg): tt.held} {
			_ = os.Remove(file) // of the row before
			if data != nil {
				f.put(file, data)
			}
		}
		ring, doc, note, err := readRing(&f.cfg, now)
		if !errors.Is(err, tt.err) || (tt.err == nil) != (err == nil) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
			continue
		}
		if (note != nil) != (tt.note != "") || note != nil && !strings.Contains(note.Error(), tt.note) {
			t.Errorf("%s: noted %v, want %q", tt.name, note, tt.note)
		}
		if err == nil && (ring.Version() != tt.want || !bytes.Equal(doc, f.doc(tt.want, ring.Expires()))) {
			t.Errorf("%s: version %d, want %d", tt.name, ring.Version(), tt.want)
		}
	}
}

// TestSeedInUseIsKept: the next seed takes the place of the other one only when the
// keyring in force says that the key of that is over, and by what the files have now: a
// reload that would have told of a change may have failed.
func TestSeedInUseIsKept(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	for _, tt := range []struct {
		name   string
		change func(f *ringFiles, keys []keyring.Key) // of the first and the next key, before the node reads them
		after  func(f *ringFiles)                     // what is done to the files then
		moves  bool
	}{
		{"the first key has ended", func(_ *ringFiles, k []keyring.Key) { k[0].NotAfter = now.Add(-time.Second) }, nil, true},
		{"the first key is revoked", func(_ *ringFiles, k []keyring.Key) { k[0].RevokedAt = now.Add(-time.Second) }, nil, true},
		{"the first key is good", func(*ringFiles, []keyring.Key) {}, nil, false},
		{"the first key is not good yet", func(_ *ringFiles, k []keyring.Key) { k[0].NotBefore = now.Add(time.Minute) }, nil, false},
		{"the first key will be revoked", func(_ *ringFiles, k []keyring.Key) {
			k[0].NotBefore, k[0].RevokedAt = now.Add(time.Minute), now.Add(time.Hour)
		}, nil, false},
		// The keyring in force does not know what is in next: the seed of the key in use
		// would be lost, and with it the node.
		{"another next seed was put, and no reload went well", func(_ *ringFiles, k []keyring.Key) { k[0].NotAfter = now.Add(-time.Second) }, func(f *ringFiles) {
			f.put(f.cfg.Keys.Node, must1(os.ReadFile(nextSeed(&f.cfg))))
			if err := os.Remove(nextSeed(&f.cfg)); err != nil {
				f.t.Fatal(err)
			}
			if _, err := makeNodeKey(nextSeed(&f.cfg), "n1"); err != nil {
				f.t.Fatal(err)
			}
		}, false},
		{"another seed was put in the place of the first", func(_ *ringFiles, k []keyring.Key) { k[0].NotAfter = now.Add(-time.Second) }, func(f *ringFiles) {
			if err := os.Remove(f.cfg.Keys.Node); err != nil {
				f.t.Fatal(err)
			}
			if _, err := makeNodeKey(f.cfg.Keys.Node, "n1"); err != nil {
				f.t.Fatal(err)
			}
		}, false},
		{"the next seed was damaged", func(_ *ringFiles, k []keyring.Key) { k[0].NotAfter = now.Add(-time.Second) }, func(f *ringFiles) {
			f.put(nextSeed(&f.cfg), []byte("SN"))
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newRingFiles(t)
			next, err := makeNodeKey(nextSeed(&f.cfg), "n1")
			if err != nil {
				t.Fatal(err)
			}
			keys := append(f.ring.Keys(), keyring.Key{
				ID: next.id, Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			})
			tt.change(f, keys)
			if err := signRing(f.st, f.ring.Version()+1, keys, now); err != nil {
				t.Fatal(err)
			}
			m := new(material)
			if err := m.loadKeys(&f.cfg, now); err != nil {
				t.Fatal(err)
			}
			for _, s := range m.signers { // the node has gone over
				if s.KeyID() == next.id {
					m.signer = s
				}
			}
			if tt.after != nil {
				tt.after(f)
			}
			held := map[string]bool{}
			files := func() []string { return []string{f.cfg.Keys.Node, nextSeed(&f.cfg)} }
			for _, file := range files() {
				held[string(must1(os.ReadFile(file)))] = true
			}
			promoteSeed(&Broker{cfg: f.cfg}, m, now)
			_, err = os.Stat(nextSeed(&f.cfg))
			if moved := errors.Is(err, os.ErrNotExist); moved != tt.moves {
				t.Errorf("moved: %t, want %t", moved, tt.moves)
			}
			if tt.moves {
				s, err := readSeed(f.cfg.Keys.Node)
				if err != nil || s.KeyID() != next.id {
					t.Errorf("the seed in place: %v, want %s", err, next.id)
				}
				return
			}
			for _, file := range files() {
				delete(held, string(must1(os.ReadFile(file))))
			}
			if len(held) != 0 {
				t.Error("a seed is lost")
			}
		})
	}
}

func must1(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestRingFilesLeaveNothing: what a keyring is written with does not stay, and a command
// that holds the file's lock is not in the way.
func TestRingFilesLeaveNothing(t *testing.T) {
	f := newRingFiles(t)
	lock := f.cfg.Keys.Keyring + ".new" // of signet keys, while it changes the file
	f.put(lock, []byte("half a keyring"))
	doc := f.doc(f.ring.Version()+1, time.Now().Add(time.Hour))
	if note := writeRing(&f.cfg, doc); note != nil {
		t.Fatal(note)
	}
	if got := must1(os.ReadFile(f.cfg.Keys.Keyring)); !bytes.Equal(got, doc) {
		t.Error("the keyring is not what was written")
	}
	if got := must1(os.ReadFile(lock)); string(got) != "half a keyring" {
		t.Errorf("the command's file has %q", got)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(f.cfg.Keys.Keyring), ".keyring.json.*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
