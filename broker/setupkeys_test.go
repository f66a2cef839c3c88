package broker

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/broker/ca"
	"github.com/signetbus/signet/signing/keyring"
)

func ringOf(t *testing.T, st *State) *keyring.Ring {
	t.Helper()
	doc, err := os.ReadFile(st.Keyring)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Parse(doc, st.Root, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func runSetup(t *testing.T, s Setup) *State {
	t.Helper()
	st, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// TestSetupRenewsKeyring: a renewal takes no key out of the keyring and moves no
// beginning; what the keys have signed goes on to verify, and what is revoked stays so.
func TestSetupRenewsKeyring(t *testing.T) {
	s := Setup{Dir: t.TempDir(), Name: "n1", Listen: "127.0.0.1:0"}
	st := runSetup(t, s)
	before, err := os.ReadFile(st.Keyring)
	if err != nil {
		t.Fatal(err)
	}
	runSetup(t, s)
	if again, err := os.ReadFile(st.Keyring); err != nil || !bytes.Equal(before, again) {
		t.Fatalf("a keyring that is not due was changed: %v", err)
	}

	// The same ring eleven months later, with an older key of the node that was revoked.
	now := time.Now().UTC().Truncate(time.Second)
	old, err := nkeys.CreateServer()
	if err != nil {
		t.Fatal(err)
	}
	oldID, err := old.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	node := ringOf(t, st).Keys()[0]
	node.NotBefore, node.NotAfter = now.AddDate(0, -11, 0), now.AddDate(0, 13, 0)
	gone := keyring.Key{
		ID: oldID, Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1",
		NotBefore: now.AddDate(0, -14, 0), NotAfter: now.AddDate(0, -2, 0), RevokedAt: now.AddDate(0, -3, 0),
	}
	ring, err := keyring.New(uint64(now.Unix())+5, now.AddDate(0, -11, 0), now.Add(renewalMargin-time.Hour), []keyring.Key{node, gone})
	if err != nil {
		t.Fatal(err)
	}
	seed, err := os.ReadFile(st.RootSeed)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := ring.Sign(bytes.TrimSpace(seed))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(st.Keyring, doc, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Name = "another-host" // the name is asked for at the first run only
	fresh := ringOf(t, runSetup(t, s))
	if fresh.Version() != ring.Version()+1 || fresh.Expires().Sub(now) < keyringTTL-time.Minute || len(fresh.Keys()) != 2 {
		t.Errorf("version %d, expires %s, keys %+v", fresh.Version(), fresh.Expires(), fresh.Keys())
	}
	if k, _ := fresh.ByID(node.ID); !k.NotBefore.Equal(node.NotBefore) || k.Principal != "n1" || k.NotAfter.Sub(now) < attestKeyTTL-time.Minute {
		t.Errorf("the node's key: %+v, was %+v", k, node)
	}
	if k, _ := fresh.ByID(oldID); !k.RevokedAt.Equal(gone.RevokedAt) || !k.NotBefore.Equal(gone.NotBefore) || !k.NotAfter.Equal(gone.NotAfter) {
		t.Errorf("the revoked key: %+v, was %+v", k, gone)
	}
}

// TestSetupRenewsCertificate: the hosts of the first run are in the renewed certificate,
// and the authority's key is asked for only then.
func TestSetupRenewsCertificate(t *testing.T) {
	s := Setup{Dir: t.TempDir(), Name: "n1", Hosts: []string{"bus.example.org", "10.0.0.7"}, Listen: "127.0.0.1:0"}
	st := runSetup(t, s)
	authority, err := ca.Load(st.CADir)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.IssueServer(st.Cert, st.Key, s.Hosts, renewalMargin-time.Hour); err != nil {
		t.Fatal(err)
	}
	s.Hosts = nil
	key, away := filepath.Join(st.CADir, ca.CAKeyFile), filepath.Join(t.TempDir(), "ca.key")
	if err := os.Rename(key, away); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(); err == nil || !strings.Contains(err.Error(), "the authority's key is not here") {
		t.Fatalf("without the authority's key: %v", err)
	}
	if err := os.Rename(away, key); err != nil {
		t.Fatal(err)
	}
	runSetup(t, s)
	if err := os.Rename(key, away); err != nil {
		t.Fatal(err)
	}
	runSetup(t, s) // nothing is due
	if hosts := certifiedHosts(st.Cert, nil); !slices.Equal(hosts, []string{"bus.example.org", "10.0.0.7"}) {
		t.Errorf("renewed for %v", hosts)
	}
	r, err := ca.ServerTLS(st.Cert, st.Key)
	if err != nil {
		t.Fatal(err)
	}
	if time.Until(r.Expires()) < 2*renewalMargin {
		t.Errorf("renewed until %s", r.Expires())
	}
}

// TestKeyringFaultsSayWhatToDo: a node whose key was revoked, and a keyring of somewhere
// else, are told apart from keys that have run out.
func TestKeyringFaultsSayWhatToDo(t *testing.T) {
	st := runSetup(t, Setup{Dir: t.TempDir(), Name: "n1", Listen: "127.0.0.1:0"})
	cfg := Config{Keys: KeysConfig{Node: st.NodeSeed, Keyring: st.Keyring, Root: st.Root}}
	now := time.Now()
	if err := new(material).loadKeys(&cfg, now); err != nil {
		t.Fatal(err)
	}
	held := ringOf(t, st)
	keys := held.Keys()
	keys[0].RevokedAt = now.Add(-time.Minute)
	if err := signRing(st, held.Version()+1, keys, now); err != nil {
		t.Fatal(err)
	}
	if err := new(material).loadKeys(&cfg, now); err == nil || !strings.Contains(err.Error(), "is revoked in the keyring") || !strings.Contains(err.Error(), "give the node a new one") {
		t.Errorf("a revoked key: %v", err)
	}
	cfg.Keys.Root = runSetup(t, Setup{Dir: t.TempDir(), Name: "n1", Listen: "127.0.0.1:0"}).Root
	if err := new(material).loadKeys(&cfg, now); err == nil || !strings.Contains(err.Error(), "not signed by the root key of keys.root, "+cfg.Keys.Root) {
		t.Errorf("another root: %v", err)
	}
}

// TestSetupAddsNodeKey: a node whose seed was taken away gets a new key beside the old
// one, signed by the same root and by no other.
func TestSetupAddsNodeKey(t *testing.T) {
	dir := t.TempDir()
	s := ClusterSetup{Dir: dir, Name: "prod"}
	for _, name := range []string{"n1", "n2", "n3"} {
		s.Nodes = append(s.Nodes, ClusterNode{Name: name, Listen: "127.0.0.1:4222", Client: "127.0.0.1:4222", Route: "127.0.0.1:6222"})
	}
	states, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	first := ringOf(t, states[0])
	const edited = "tenant: edited\n"
	rootSeed, away := filepath.Join(dir, "keys", "root.seed"), filepath.Join(t.TempDir(), "root.seed")
	for _, err := range []error{os.Rename(rootSeed, away), os.Remove(states[1].NodeSeed), os.WriteFile(states[0].Policy, []byte(edited), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Run(); err == nil || !strings.Contains(err.Error(), "the root seed is not here") {
		t.Fatalf("without the root seed: %v", err)
	}
	other, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := other.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(rootSeed, seed, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(); err == nil || !strings.Contains(err.Error(), "is not the seed of the root key") {
		t.Fatalf("with the seed of another root: %v", err)
	}
	if err := os.Rename(away, rootSeed); err != nil {
		t.Fatal(err)
	}
	if states, err = s.Run(); err != nil {
		t.Fatal(err)
	}
	for _, st := range states {
		ring := ringOf(t, st)
		of := map[string]int{}
		for _, k := range ring.Keys() {
			of[k.Principal]++
		}
		if ring.Replaces(first) != nil || len(ring.Keys()) != 4 || of["n2"] != 2 {
			t.Errorf("version %d after %d, keys %+v", ring.Version(), first.Version(), ring.Keys())
		}
	}
	if text, err := os.ReadFile(states[0].Policy); err != nil || string(text) != edited {
		t.Errorf("the policy of a node was overwritten: %q, %v", text, err)
	}
}
