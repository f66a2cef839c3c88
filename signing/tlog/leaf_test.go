package tlog

import (
	"bytes"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// Every byte of what is stored changes the leaf, but for what is said to be no change.
func TestEveryStoredByteCounts(t *testing.T) {
	m := testStored(t, 7, 1)
	var h Hasher
	want := h.Stored(m.seq, m.at, m.subject, m.block, m.data)
	if want.Kind != Event {
		t.Fatal("an attested event is not taken for one")
	}
	tried, same := 0, 0
	for i := range m.block {
		for bit := range 8 {
			block := bytes.Clone(m.block)
			block[i] ^= 1 << bit
			tried++
			if got := h.Stored(m.seq, m.at, m.subject, block, m.data); got.Hash() == want.Hash() {
				same++
				t.Errorf("byte %d of the headers, bit %d: the same leaf: %q", i, bit, block)
			}
		}
	}
	for i := range m.data {
		data := bytes.Clone(m.data)
		data[i] ^= 1
		tried++
		if got := h.Stored(m.seq, m.at, m.subject, m.block, data); got.Hash() == want.Hash() {
			same++
			t.Errorf("byte %d of the data: the same leaf", i)
		}
	}
	for name, got := range map[string]Leaf{
		"sequence":     h.Stored(m.seq+1, m.at, m.subject, m.block, m.data),
		"time":         h.Stored(m.seq, m.at+1, m.subject, m.block, m.data),
		"subject":      h.Stored(m.seq, m.at, m.subject+"x", m.block, m.data),
		"no header":    h.Stored(m.seq, m.at, m.subject, nil, m.data),
		"added header": h.Stored(m.seq, m.at, m.subject, append(bytes.Clone(m.block[:len(m.block)-2]), "X: y\r\n\r\n"...), m.data),
	} {
		tried++
		if got.Hash() == want.Hash() {
			same++
			t.Errorf("%s: the same leaf", name)
		}
	}
	t.Logf("%d changes, %d with the same leaf", tried, same)
}

func TestWhatIsNoEventIsTakenAsItIs(t *testing.T) {
	var h Hasher
	many := []byte(wire.HeaderLine)
	for range 40 {
		many = append(many, "A: b\r\n"...)
	}
	seen := map[Hash]int{}
	for i, m := range []stored{
		{},
		{data: []byte("x")},
		{subject: "x"},
		{block: []byte("x")},
		{block: []byte("NATS/1.0\r\n\r\n")},
		{block: []byte("NATS/1.0\r\nce-id: 1\r\n\r\n")},
		{block: []byte("NATS/1.0\r\nce-attestation: x\r\n\r\n")},
		{block: append(many, "\r\n"...)},
	} {
		l := h.Stored(1, 1, m.subject, m.block, m.data)
		if l.Kind != Message {
			t.Errorf("%q: kind %v", m.block, l.Kind)
		}
		if before, twice := seen[l.Hash()]; twice {
			t.Errorf("%d and %d have one leaf", before, i)
		}
		seen[l.Hash()] = i
	}
}

// The leaf that a verifier makes from a proof is the leaf of what is stored, also for
// an event with more headers than a client may send.
func TestLeafFromProofIsLeafOfStored(t *testing.T) {
	var h, again Hasher
	wide := testStored(t, 3, 3)
	wide.block = wide.block[:len(wide.block)-2]
	for range 50 {
		wide.block = append(wide.block, "Repeated: x\r\n"...)
	}
	wide.block = append(wide.block, "\r\n"...)
	for _, m := range []stored{testStored(t, 1, 1), {seq: 2, at: 5, subject: "x", block: []byte("raw"), data: []byte{0}}, wide} {
		want := h.Stored(m.seq, m.at, m.subject, m.block, m.data)
		p := LeafOf(&again, m.at, m.subject, m.block, m.data)
		got, err := p.leaf(&again, m.seq)
		if err != nil || got != want {
			t.Errorf("sequence %d: %v, %v; want %v", m.seq, got, err, want)
		}
	}
}

func BenchmarkLeaf(b *testing.B) {
	m := testStored(b, 1, 1)
	var h Hasher
	b.ReportAllocs()
	b.SetBytes(int64(len(m.block) + len(m.data)))
	for i := range b.N {
		l := h.Stored(uint64(i), m.at, m.subject, m.block, m.data)
		_ = l.Hash()
	}
}

func FuzzStored(f *testing.F) {
	m := testStored(f, 1, 1)
	f.Add(m.subject, m.block, m.data)
	f.Add("", []byte("NATS/1.0\r\n\r\n"), []byte(nil))
	f.Fuzz(func(t *testing.T, subject string, block, data []byte) {
		var h, again Hasher
		want := h.Stored(9, 8, subject, block, data)
		p := LeafOf(&again, 8, subject, block, data)
		if got, err := p.leaf(&again, 9); err != nil || got != want {
			t.Fatalf("%v, %v; want %v", got, err, want)
		}
		if want.Kind != Event {
			return
		}
		if got := again.StoredAs(9, 8, subject, block, data, want.Content); got != want {
			t.Fatalf("with its content known: %v, want %v", got, want)
		}
	})
}
