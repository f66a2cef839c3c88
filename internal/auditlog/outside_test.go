package auditlog

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// now is the log as it is, under a checkpoint of a run that began at start.
func (l *headLog) now(s *signing.Signer, start, at time.Time) *tlog.Note {
	l.t.Helper()
	cp := tlog.Checkpoint{
		Origin: tlog.Origin{Cluster: "eu", Tenant: wire.BrokerAccount, Stream: wire.StreamHeads, Start: start}, Size: l.edge.Size(), Root: l.edge.Root(),
		First: 1, Time: at, Created: began,
	}
	doc, err := cp.Sign(s)
	if err != nil {
		l.t.Fatal(err)
	}
	note, err := tlog.ParseNote(doc)
	if err != nil {
		l.t.Fatal(err)
	}
	return note
}

// TestLogAgainstACheckpointFromOutside: the log of the heads must begin with what was kept
// of it elsewhere. What another clock or a new log leaves open is not proved, and no fault.
func TestLogAgainstACheckpointFromOutside(t *testing.T) {
	tr, l, lines := logged(t)
	at := began.Add(time.Minute)
	kept := l.now(tr.keys["n2"], began, at)
	newest := l.now(tr.keys["n2"], began, at)
	forged := newHeadLog(t, tr.rig)
	for range 5 {
		forged.publish("n1", tr.writers["n1"].Position())
	}
	longer := newHeadLog(t, tr.rig)
	for range 7 {
		longer.publish("n1", tr.writers["n1"].Position())
	}
	shorter := newHeadLog(t, tr.rig)
	shorter.publish("n1", tr.writers["n1"].Position())
	hash := make([]byte, 32)
	for name, tt := range map[string]struct {
		newest      string
		hashes      [][]byte
		fault, open string
	}{
		"the same":          {newest: string(newest.Bytes())},
		"another history":   {newest: string(forged.now(tr.keys["n1"], began, at).Bytes()), fault: "does not begin with"},
		"another beginning": {newest: string(longer.now(tr.keys["n1"], began, at).Bytes()), hashes: [][]byte{hash}, fault: "does not begin with"},
		"shorter":           {newest: string(shorter.now(tr.keys["n1"], began, at).Bytes()), fault: "does not begin with"},
		"no proof":          {newest: string(longer.now(tr.keys["n1"], began, at).Bytes()), open: "gives no proof"},
		"begun anew":        {newest: string(longer.now(tr.keys["n1"], began.Add(time.Hour), at).Bytes()), open: "begun anew"},
		"not shown":         {open: "shows no log"},
		"a key too late":    {newest: string(l.now(tr.keys["n1"], began, began.Add(48*time.Hour)).Bytes()), open: "proves nothing"},
	} {
		v := NewVerifier("shop", tr.ring)
		if err := ExpectLog(v, kept, tt.newest, tt.hashes); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var faults, open string
		for _, f := range v.out.Faults {
			faults += f.String()
		}
		for _, o := range v.open {
			open += o.Why
		}
		if (faults == "") != (tt.fault == "") || !strings.Contains(faults, tt.fault) || (open == "") != (tt.open == "") || !strings.Contains(open, tt.open) {
			t.Errorf("%s: faults %q, open %q", name, faults, open)
		}
	}
	v := NewVerifier("shop", tr.ring)
	if err := ExpectLog(v, kept, string(newest.Bytes()), nil); err != nil {
		t.Fatal(err)
	}
	if err := v.ExpectLogged([]byte(lines[0])); err != nil {
		t.Errorf("under the checkpoint that was compared: %v", err)
	}
	l.publish("n1", tr.writers["n1"].Position())
	if err := v.ExpectLogged([]byte(l.prove(tr.keys["n1"], at, wire.StreamHeads, 2)[0])); !errors.Is(err, ErrLogged) {
		t.Errorf("under a checkpoint that nobody compared: %v", err)
	}
	for name, doc := range map[string]string{
		"no checkpoint": "x",
		"another log":   strings.Replace(string(newest.Bytes()), "HEADS", "ORDERS", 2),
		"its signature": strings.Replace(string(newest.Bytes()), "first 1", "first 2", 1),
	} {
		if err := ExpectLog(NewVerifier("shop", tr.ring), kept, doc, nil); !errors.Is(err, ErrLogged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := ExpectLog(NewVerifier("shop", tr.ring), kept, string(newest.Bytes()), [][]byte{{1}}); !errors.Is(err, ErrLogged) {
		t.Errorf("a short hash: %v", err)
	}
}

// TestLoggedUnderACheckpointFromTheFuture: a clock that is an hour ahead is no forgery. The
// trail is not proved until the time has come.
func TestLoggedUnderACheckpointFromTheFuture(t *testing.T) {
	tr, l, _ := logged(t)
	now := time.Now()
	var keys []keyring.Key
	for node, s := range tr.keys {
		keys = append(keys, keyring.Key{
			ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: node, NotBefore: began.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		})
	}
	var err error
	if tr.ring, err = keyring.New(1, began.Add(-time.Hour), now.Add(time.Hour), keys); err != nil {
		t.Fatal(err)
	}
	ahead := now.Add(time.Hour).UTC().Truncate(time.Millisecond)
	r := tr.against(l.prove(tr.keys["n1"], ahead, wire.StreamHeads, 2)[0])
	if !r.OK || r.Proved() || r.Heads != 0 || !strings.Contains(r.Open[0].Why, "from the future") {
		t.Errorf("a logged head: %+v", r)
	}
	v := NewVerifier("shop", tr.ring)
	if err := ExpectLog(v, l.now(tr.keys["n1"], began, began), string(l.now(tr.keys["n1"], began, ahead).Bytes()), nil); err != nil || len(v.open) != 1 || len(v.out.Faults) > 0 {
		t.Errorf("the last checkpoint: %v, %+v", err, v.open)
	}
}
