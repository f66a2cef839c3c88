package tlog

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// mixedLog is a log of 300 sequences from 17 on: events, some messages that are none,
// some absent sequences.
func mixedLog(t testing.TB) (*testLog, map[uint64]stored) {
	t.Helper()
	var l testLog
	var h Hasher
	all := map[uint64]stored{}
	for i := range 300 {
		seq := uint64(17 + i)
		switch {
		case i%7 == 3:
			l.absent(t, 1)
			continue
		case i%11 == 5:
			all[seq] = stored{seq: seq, at: noon.UnixNano(), subject: "x", data: []byte{byte(i), 0xff}, block: []byte("NATS/1.0\r\nA: b\r\n\r\n")}
		default:
			all[seq] = testStored(t, seq, i)
		}
		m := all[seq]
		leaf := h.Stored(m.seq, m.at, m.subject, m.block, m.data)
		l.append(t, leaf.Hash())
	}
	l.sign(t, 17)
	return &l, all
}

func proofOf(t testing.TB, l *testLog, all map[uint64]stored, from, to uint64) *Proof {
	t.Helper()
	_, doc, _ := testRing(t)
	var h Hasher
	p := &Proof{First: from, Checkpoint: l.note, Keyring: doc}
	for seq := from; seq <= to; seq++ {
		m, ok := all[seq]
		if !ok {
			p.Leaves = append(p.Leaves, ProofLeaf{})
			continue
		}
		p.Leaves = append(p.Leaves, LeafOf(&h, m.at, m.subject, m.block, m.data))
	}
	var err error
	at := int64(from - l.cp.First)
	if p.Hashes, err = RangeHashes(l.cp.Size, at, at+int64(len(p.Leaves)), NewHashReader(l.cp.Size, l.cp.Root, l.read)); err != nil {
		t.Fatal(err)
	}
	return p
}

func encode(t testing.TB, p *Proof) []byte {
	t.Helper()
	doc, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestProofs(t *testing.T) {
	l, all := mixedLog(t)
	ring, _, root := testRing(t)
	for _, r := range [][2]uint64{{17, 17}, {20, 20}, {22, 22}, {316, 316}, {17, 316}, {40, 75}} {
		doc := encode(t, proofOf(t, l, all, r[0], r[1]))
		if !IsProof(doc) {
			t.Error("not known as a proof")
		}
		p, err := ParseProof(doc)
		if err != nil {
			t.Fatal(err)
		}
		v, err := p.Verify(root, nil)
		if err != nil {
			t.Fatalf("%d to %d: %v", r[0], r[1], err)
		}
		if len(v.Leaves) != int(r[1]-r[0]+1) || v.Key.ID != testSigner(t, fillBroker).KeyID() || v.Ring.Version() != ring.Version() {
			t.Errorf("%d to %d: %+v", r[0], r[1], v)
		}
		for _, leaf := range v.Leaves {
			m, there := all[leaf.Sequence]
			switch {
			case !there != (leaf.Kind == Absent):
				t.Errorf("sequence %d: %v", leaf.Sequence, leaf.Kind)
			case leaf.Kind == Event && (leaf.Unattested != nil || leaf.Attestation.Principal != "shop/checkout" || !bytes.Equal(leaf.Event.Data, m.data)):
				t.Errorf("sequence %d: %v", leaf.Sequence, leaf.Unattested)
			case leaf.Kind == Message && !bytes.Equal(leaf.Data, m.data):
				t.Errorf("sequence %d: data %q", leaf.Sequence, leaf.Data)
			}
		}
		if _, err := p.Verify(root, ring); err != nil {
			t.Errorf("with a keyring of the caller's: %v", err)
		}
	}
}

// Whoever leaves out, adds, moves or changes a sequence of a range is found out.
func TestRangeIsComplete(t *testing.T) {
	l, all := mixedLog(t)
	_, _, root := testRing(t)
	good := func() *Proof { return proofOf(t, l, all, 40, 60) }
	other := good()
	for name, change := range map[string]func(p *Proof){
		"left out":          func(p *Proof) { p.Leaves = append(p.Leaves[:5], p.Leaves[6:]...) },
		"left out at start": func(p *Proof) { p.Leaves = p.Leaves[1:] },
		"left out at end":   func(p *Proof) { p.Leaves = p.Leaves[:len(p.Leaves)-1] },
		"absent instead":    func(p *Proof) { p.Leaves[3] = ProofLeaf{} },
		"swapped":           func(p *Proof) { p.Leaves[2], p.Leaves[3] = p.Leaves[3], p.Leaves[2] },
		"twice":             func(p *Proof) { p.Leaves[3] = p.Leaves[2] },
		"moved":             func(p *Proof) { p.First++ },
		"before the log":    func(p *Proof) { p.First = 1 },
		"after the log":     func(p *Proof) { p.First = 317 },
		"no sequence":       func(p *Proof) { p.First = 0 },
		"overflow":          func(p *Proof) { p.First = 1<<64 - 1 },
		"one hash fewer":    func(p *Proof) { p.Hashes = p.Hashes[1:] },
		"one hash more":     func(p *Proof) { p.Hashes = append(p.Hashes, Hash{}) },
		"headers":           func(p *Proof) { p.Leaves[2].Headers[0] ^= 1 },
		"time":              func(p *Proof) { p.Leaves[2].Stored++ },
		"subject":           func(p *Proof) { p.Leaves[2].NATSSubject = "orders.us.created" },
		"data":              func(p *Proof) { p.Leaves[2].Event.Data = other.Leaves[3].Event.Data },
		"attribute":         func(p *Proof) { p.Leaves[2].Event.SetExt([]byte("sequence"), []byte("1")) },
		"no attestation":    func(p *Proof) { p.Leaves[2].Event.DelExt(wire.AttrAttestation) },
		"other keyring":     func(p *Proof) { p.Keyring = bytes.Replace(p.Keyring, []byte("keyid"), []byte("keyid "), 1) },
		"no keyring":        func(p *Proof) { p.Keyring = nil },
	} {
		p := good()
		change(p)
		if _, err := p.Verify(root, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := good().Verify(strings.Replace(root, "O", "A", 1), nil); !errors.Is(err, keyring.ErrRootKey) {
		t.Errorf("a root key of another type: %v", err)
	}
}

// Every bit of a proof of one event and of a range: 0 accepted.
func TestMutatedProofIsRefused(t *testing.T) {
	l, all := mixedLog(t)
	_, _, root := testRing(t)
	tried, accepted := 0, 0
	for _, r := range [][2]uint64{{18, 18}, {20, 22}} {
		doc := encode(t, proofOf(t, l, all, r[0], r[1]))
		try := func(bad []byte) bool {
			tried++
			p, err := ParseProof(bad)
			if err == nil {
				_, err = p.Verify(root, nil)
			}
			if err == nil {
				accepted++
			}
			return err == nil
		}
		for i := range doc {
			for _, mask := range []byte{1, 2, 0x20, 0x80} {
				bad := bytes.Clone(doc)
				bad[i] ^= mask
				if try(bad) {
					t.Errorf("byte %d ^ %#x is accepted: %q", i, mask, doc[max(0, i-20):min(len(doc), i+20)])
				}
			}
			if try(append(bytes.Clone(doc[:i]), doc[i+1:]...)) {
				t.Errorf("without byte %d it is accepted", i)
			}
		}
		try(append(bytes.Clone(doc), ' '))
	}
	t.Logf("%d mutations tried, %d accepted", tried, accepted)
	if accepted > 0 {
		t.Fail()
	}
}

// A proof whose event was signed by a key that may not attest still shows what is in
// the log, and says so.
func TestUnattestedEventIsSaid(t *testing.T) {
	m := testStored(t, 1, 1)
	m.block = bytes.Replace(m.block, []byte("ce-zone: b"), []byte("ce-zone: c"), 1)
	var l testLog
	var h Hasher
	leaf := h.Stored(1, m.at, m.subject, m.block, m.data)
	l.append(t, leaf.Hash())
	l.sign(t, 1)
	_, _, root := testRing(t)
	v, err := proofOf(t, &l, map[uint64]stored{1: m}, 1, 1).Verify(root, nil)
	if err != nil || !errors.Is(v.Leaves[0].Unattested, signing.ErrBadSignature) {
		t.Errorf("got %v, %v", err, v)
	}
}

func BenchmarkVerifyProof(b *testing.B) {
	l, all := mixedLog(b)
	_, _, root := testRing(b)
	doc := encode(b, proofOf(b, l, all, 18, 18))
	b.SetBytes(int64(len(doc)))
	for range b.N {
		p, err := ParseProof(doc)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Verify(root, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzParseProof(f *testing.F) {
	l, all := mixedLog(f)
	f.Add(encode(f, proofOf(f, l, all, 18, 18)))
	f.Add(encode(f, proofOf(f, l, all, 20, 22)))
	f.Add([]byte(`{"format":"signet/log-proof/v1"}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		p, err := ParseProof(doc)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		again, err := p.Encode()
		if err != nil || !bytes.Equal(again, doc) {
			t.Fatalf("another encoding: %v", err)
		}
	})
}
