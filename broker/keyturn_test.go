package broker

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/signing/keyring"
)

// turning is a node with a key in use and a next one, good from begins on; the one in use
// ends at ends. Both are seen from now.
func turning(t *testing.T, now time.Time, begins, ends time.Duration) (*Config, *material) {
	t.Helper()
	cfg := Config{Name: "n1"}
	m := new(material)
	var keys []keyring.Key
	for _, bounds := range [][2]time.Duration{{-time.Hour, ends}, {begins, 48 * time.Hour}} {
		file := filepath.Join(t.TempDir(), "seed")
		made, err := makeNodeKey(file, "n1")
		if err != nil {
			t.Fatal(err)
		}
		s, err := readSeed(file)
		if err != nil {
			t.Fatal(err)
		}
		m.signers = append(m.signers, s)
		keys = append(keys, keyring.Key{
			ID: made.id, Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: "n1",
			NotBefore: now.Add(bounds[0]), NotAfter: now.Add(bounds[1]),
		})
	}
	var err error
	if m.ring, err = keyring.New(1, now.Add(-time.Hour), now.Add(100*time.Hour), keys); err != nil {
		t.Fatal(err)
	}
	m.signer = m.signers[0]
	return &cfg, m
}

// TestTurnIsDue: a node goes over to its next key when no event is let in any more that
// was recorded before it began, and before what is dated ahead is too late for the old
// one. Where both do not fit, it has a key that is good at every moment.
func TestTurnIsDue(t *testing.T) {
	const no, wait, once = "no", "when all have the keyring", "at once"
	const s, past, future = time.Second, policy.ReplayPast, policy.ReplayFuture
	type look struct {
		at   time.Duration // after the next key began
		want string
	}
	for _, tt := range []struct {
		name  string
		both  time.Duration // how long both keys are good
		looks []look
	}{
		{"a day", 12 * time.Hour, []look{{-s, no}, {0, no}, {past - s, no}, {past, wait}, {9 * time.Hour, wait}, {9*time.Hour + s, once}, {12*time.Hour - s, once}}},
		{"long enough", policy.KeyTurn, []look{{-s, no}, {0, no}, {past - s, no}, {past, wait}, {past + s, once}, {policy.KeyTurn - future - 10*s + s, once}}},
		{"too short for what is dated ahead", past + 30*s, []look{{0, no}, {112 * s, no}, {113 * s, once}, {past, once}, {past + 29*s, once}}},
		{"too short for what was recorded before", 40 * s, []look{{-s, no}, {0, no}, {30 * s, no}, {31 * s, once}, {39 * s, once}}},
	} {
		now := time.Now().Truncate(time.Second)
		cfg, m := turning(t, now, time.Minute, time.Minute+tt.both)
		for _, l := range tt.looks {
			next, endsSoon := m.dueSigner(cfg, now.Add(time.Minute+l.at))
			got := no
			switch {
			case next != nil && next.KeyID() != m.signers[1].KeyID():
				t.Errorf("%s: the key %s is due", tt.name, next.KeyID())
			case next != nil && endsSoon:
				got = once
			case next != nil:
				got = wait
			}
			if got != l.want {
				t.Errorf("%s: %s after the next key began: %q, want %q", tt.name, l.at, got, l.want)
			}
		}
	}
}

// TestTurnOfAMuteNode: a node whose key attests nothing any more goes over at once.
func TestTurnOfAMuteNode(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	cfg, m := turning(t, now, 0, time.Hour)
	if next, _ := m.dueSigner(cfg, now); next != nil {
		t.Fatalf("with a key that is good: %s is due", next.KeyID())
	}
	m.mute = errors.New("revoked")
	if next, endsSoon := m.dueSigner(cfg, now); next == nil || !endsSoon {
		t.Errorf("with none: %v is due, at once: %t", next, endsSoon)
	}
}
