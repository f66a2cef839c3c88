package auditlog

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// later is a keyring that follows that of the rig, in which the key of node is revoked from at
// on. The node has a new one from then on, with which the rig signs; node "": nothing is revoked.
func (r *rig) later(t *testing.T, node string, at time.Time) *keyring.Ring {
	t.Helper()
	c := r.ring.Change(began)
	if node != "" {
		kp, err := nkeys.CreateServer()
		if err != nil {
			t.Fatal(err)
		}
		seed, err := kp.Seed()
		if err != nil {
			t.Fatal(err)
		}
		s, err := signing.NewSigner(seed)
		if err != nil {
			t.Fatal(err)
		}
		issue := keyring.Key{ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: node, NotBefore: began.Add(-time.Hour), NotAfter: began.Add(24 * time.Hour)}
		if err := errors.Join(c.Revoke(r.keys[node].KeyID(), at), c.Issue(issue)); err != nil {
			t.Fatal(err)
		}
		r.keys[node] = s
	}
	ring, err := c.Ring(began.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// signed puts a keyring into the place of that which exports of the rig hold.
func (r *rig) signed(t *testing.T, ring *keyring.Ring) {
	t.Helper()
	kp, err := nkeys.CreateOperator()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := kp.Seed()
	if err != nil {
		t.Fatal(err)
	}
	if r.root, err = kp.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if r.doc, err = ring.Sign(seed); err != nil {
		t.Fatal(err)
	}
}

func (tr *trail) judge(export []byte, ring *keyring.Ring) (*Export, error) {
	return VerifyExport(bytes.NewReader(export), Trust{Root: tr.root, Ring: ring}, nil, nil)
}

// Whoever has a stolen key that was revoked long ago, and the old, public keyring, can write a
// whole trail. The keyring in force says what it is worth.
func TestExportOfARevokedKey(t *testing.T) {
	tr := newTrail(t)
	tr.write("n1", 3)
	forged := tr.export()
	if x, err := tr.judge(forged, nil); err != nil || !x.Report.Proved() || x.Keyring != 1 || x.Within != 1 {
		t.Fatalf("by its own keyring: %+v %v", x, err)
	}
	for _, tt := range []struct {
		name   string
		from   time.Duration // revoked from, after the records
		ok     bool
		proved bool
	}{
		{"revoked from the beginning", -time.Hour, false, false},
		{"revoked before the records", 0, false, false},
		{"revoked between the records and the closing", 30 * time.Second, true, false},
		{"revoked after the closing", time.Hour, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rig := *tr.rig
			rig.keys = map[string]*signing.Signer{"n1": tr.keys["n1"]}
			ring := rig.later(t, "n1", began.Add(tt.from))
			x, err := tr.judge(forged, ring)
			if err != nil {
				t.Fatal(err)
			}
			r := x.Report
			if r.OK != tt.ok || r.Proved() != tt.proved || x.Keyring != ring.Version() || x.Within != 1 {
				t.Errorf("ok %v, proved %v, keyring %d: %+v %+v", r.OK, r.Proved(), x.Keyring, r.Faults, r.Open)
			}
			if !tt.ok && r.Faults[0].What != FaultForged {
				t.Errorf("%+v", r.Faults)
			}
			if closing := slices.ContainsFunc(r.Open, func(o Open) bool { return strings.Contains(o.Why, "the head that closes the export proves nothing") }); closing == tt.proved {
				t.Errorf("open: %+v", r.Open)
			}
		})
	}
}

// A revocation does not undo what a later head under the node's next key covers: the same rule
// as for the trail itself.
func TestExportOfANodeWithANewKey(t *testing.T) {
	tr := standard(t)
	at := began.Add(5 * time.Second) // n1 writes under its old key until 6 s
	ring := tr.later(t, "n1", at)
	tr.write("n1", 1)
	tr.signed(t, ring)
	x, err := tr.judge(tr.sealedExport(tr.seal("n2", began)), ring)
	if err != nil || !x.Report.Proved() || len(x.Report.Covered) != 1 || x.Report.Covered[0].Node != "n1" {
		t.Fatalf("%+v %v", x, err)
	}
}

func TestExportAgainstAKeyringThatDoesNotFollow(t *testing.T) {
	tr := standard(t)
	first, next := tr.ring, tr.later(t, "", began)
	if x, err := tr.judge(tr.export(), first); err != nil || !x.Report.OK {
		t.Errorf("the same: %+v %v", x, err)
	}
	if x, err := tr.judge(tr.export(), next); err != nil || !x.Report.OK {
		t.Errorf("a later one: %+v %v", x, err)
	}
	other, err := keyring.New(first.Version(), first.Issued(), first.Expires(), first.Keys()[:1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.judge(tr.export(), other); !errors.Is(err, keyring.ErrRollback) {
		t.Errorf("another of the same version: %v", err)
	}
	tr.signed(t, next)
	if _, err := tr.judge(tr.export(), first); !errors.Is(err, keyring.ErrRollback) {
		t.Errorf("an older one: %v", err)
	}
}
