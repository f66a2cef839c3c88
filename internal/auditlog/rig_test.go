package auditlog

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// rig is a root, a ring with the keys of two nodes, and their signers.
type rig struct {
	root string
	ring *keyring.Ring
	doc  []byte
	keys map[string]*signing.Signer
}

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newRig(t testing.TB) *rig {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	r := &rig{keys: map[string]*signing.Signer{}}
	var keys []keyring.Key
	for _, node := range []string{"n1", "n2"} {
		kp, err := nkeys.CreateServer()
		must(err)
		seed, err := kp.Seed()
		must(err)
		s, err := signing.NewSigner(seed)
		must(err)
		r.keys[node] = s
		keys = append(keys, keyring.Key{
			ID: s.KeyID(), Alg: keyring.AlgEd25519, Role: keyring.RoleBroker, Principal: node,
			NotBefore: began.Add(-time.Hour), NotAfter: began.Add(24 * time.Hour),
		})
	}
	var err error
	r.ring, err = keyring.New(1, began.Add(-time.Hour), began.Add(time.Hour), keys)
	must(err)
	kp, err := nkeys.CreateOperator()
	must(err)
	r.root, err = kp.PublicKey()
	must(err)
	seed, err := kp.Seed()
	must(err)
	r.doc, err = r.ring.Sign(seed)
	must(err)
	return r
}

// trail is what the nodes have written, message by message.
type trail struct {
	*rig
	t        testing.TB
	writers  map[string]*Writer
	messages [][]byte
}

func newTrail(t testing.TB) *trail {
	return &trail{rig: newRig(t), t: t, writers: map[string]*Writer{}}
}

// write appends a batch of n records by a node, after the first of a chain if need be.
func (tr *trail) write(node string, n int) {
	tr.t.Helper()
	w := tr.writers[node]
	var entries []Entry
	if w == nil {
		w = NewWriter("shop", ChainID{node, fmt.Sprintf("%016x", len(node)+len(tr.messages))})
		tr.writers[node] = w
		entries = append(entries, Entry{Time: began, Kind: KindChain, Outcome: OutcomeOK})
	}
	for i := range n {
		entries = append(entries, Entry{
			Time: began.Add(time.Duration(len(tr.messages)) * time.Second), Kind: KindLogin, Outcome: OutcomeOK,
			Who: "shop/checkout", Remote: "192.0.2.7:4100", Detail: fmt.Sprintf("quote \" and ü %d", i),
		})
	}
	data, taken, next, err := w.Batch(entries, began.Add(time.Duration(len(tr.messages))*time.Second), tr.keys[node])
	if err != nil || taken != len(entries) {
		tr.t.Fatalf("took %d of %d: %v", taken, len(entries), err)
	}
	w.Advance(next)
	tr.messages = append(tr.messages, data)
}

// standard is two nodes that take turns, 8 messages of 3 records and the first ones.
func standard(t testing.TB) *trail {
	tr := newTrail(t)
	for range 4 {
		tr.write("n1", 3)
		tr.write("n2", 3)
	}
	return tr
}

func (tr *trail) verify(heads ...[]byte) *Report {
	tr.t.Helper()
	v := NewVerifier("shop", tr.ring)
	for _, h := range heads {
		if err := v.Expect(h); err != nil {
			tr.t.Fatal(err)
		}
	}
	for i, m := range tr.messages {
		v.Batch(uint64(i+1), m)
	}
	return v.Finish()
}

// head is a signed head of everything that was written.
func (tr *trail) head(node string) []byte {
	tr.t.Helper()
	h := Head{Tenant: "shop", Node: node, Time: began.Add(time.Minute), Seal: true}
	for _, w := range tr.writers {
		h.Chains = append(h.Chains, w.Position())
	}
	doc, err := h.Sign(tr.keys[node])
	if err != nil {
		tr.t.Fatal(err)
	}
	return doc
}

func (tr *trail) export() []byte {
	tr.t.Helper()
	var out bytes.Buffer
	x, err := NewExport(&out, "shop", tr.root, tr.doc)
	if err != nil {
		tr.t.Fatal(err)
	}
	for _, m := range tr.messages {
		if err := x.Batch(m); err != nil {
			tr.t.Fatal(err)
		}
	}
	if err := x.Close(tr.head("n1")); err != nil {
		tr.t.Fatal(err)
	}
	return out.Bytes()
}
