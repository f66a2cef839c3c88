package tlog

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// With the content known, the leaf is the one that is computed whole, in whatever form the
// other headers and the signatures are.
func TestStoredAsIsStored(t *testing.T) {
	m := testStored(t, 7, 1)
	head := strings.TrimSuffix(string(m.block), "\r\n")
	material := wire.PrefixAttribute + wire.AttrDSSE + ": "
	for name, row := range map[string]struct {
		block string
		event bool
	}{
		"as written":             {string(m.block), true},
		"other headers":          {head + "X: y\r\nx:y\r\nEmpty:\r\nSpaces:  z \r\n\r\n", true},
		"signature, no space":    {strings.Replace(string(m.block), "ce-attestation: ", "ce-attestation:", 1), true},
		"signature, two spaces":  {strings.Replace(string(m.block), "ce-attestation: ", "ce-attestation:  ", 1), true},
		"encoded signature":      {strings.Replace(string(m.block), "ce-attestation: ", "ce-attestation: %41", 1), true},
		"signature, upper case":  {strings.Replace(string(m.block), "ce-attestation: ", "CE-attestation: ", 1), false},
		"two signatures":         {head + "ce-attestation: A\r\n\r\n", false},
		"empty signature":        {head + material + "\r\n\r\n", false},
		"no producer signature":  {head + material + "x\r\n\r\n", false},
		"expanded":               {head + wire.PrefixAttribute + wire.AttrExpanded + ": x\r\n\r\n", false},
		"line without a colon":   {head + "x\r\n\r\n", false},
		"bytes behind the block": {string(m.block) + "x", false},
		"cut":                    {head, false},
	} {
		var h, again Hasher
		want := h.Stored(m.seq, m.at, m.subject, []byte(row.block), m.data)
		if (want.Kind == Event) != row.event {
			t.Errorf("%s: a leaf of the kind %s", name, want.Kind)
		}
		// Nobody can vouch for the content of what is no event; but what does not even look
		// as brokers write it is computed whole.
		got := again.StoredAs(m.seq, m.at, m.subject, []byte(row.block), m.data, want.Content)
		if row.event && got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
}

// What no attestation covers is read from the bytes.
func TestStoredAsReadsTheRest(t *testing.T) {
	m := testStored(t, 7, 1)
	head := strings.TrimSuffix(string(m.block), "\r\n")
	var h Hasher
	known := h.Stored(m.seq, m.at, m.subject, m.block, m.data).Content
	seen := map[Hash]string{}
	at := strings.Index(head, "ce-attestation: ") + len("ce-attestation: ")
	other := []byte(string(m.block))
	other[at] ^= 1
	for name, block := range map[string]string{
		"as stored": string(m.block), "another attestation": string(other), "another header": head + "X: y\r\n\r\n", "its value": head + "X: z\r\n\r\n",
		"a signature": head + wire.PrefixAttribute + wire.AttrDSSE + ": x\r\n\r\n",
	} {
		for _, seq := range []uint64{7, 8} {
			l := h.StoredAs(seq, m.at, m.subject, []byte(block), m.data, known)
			name := fmt.Sprintf("%s at %d", name, seq)
			if before, twice := seen[l.Hash()]; twice {
				t.Errorf("%s and %s: the same leaf", name, before)
			}
			seen[l.Hash()] = name
		}
	}
}

func TestLeavesDoNotAllocate(t *testing.T) {
	m := testStored(t, 7, 1)
	m.block = append(bytes.TrimSuffix(m.block, []byte("\r\n")), "X: y\r\n\r\n"...)
	var h Hasher
	known := h.Stored(m.seq, m.at, m.subject, m.block, m.data)
	for name, make := range map[string]func() Leaf{
		"whole": func() Leaf { return h.Stored(m.seq, m.at, m.subject, m.block, m.data) },
		"known": func() Leaf { return h.StoredAs(m.seq, m.at, m.subject, m.block, m.data, known.Content) },
	} {
		if n := testing.AllocsPerRun(200, func() {
			if l := make(); l != known {
				t.Fatalf("%s: %+v, want %+v", name, l, known)
			}
		}); n > 0 {
			t.Errorf("%s: %.1f allocations for a leaf", name, n)
		}
	}
}

func BenchmarkLeafKnown(b *testing.B) {
	m := testStored(b, 1, 1)
	var h Hasher
	known := h.Stored(1, m.at, m.subject, m.block, m.data).Content
	b.ReportAllocs()
	b.SetBytes(int64(len(m.block) + len(m.data)))
	for i := range b.N {
		l := h.StoredAs(uint64(i), m.at, m.subject, m.block, m.data, known)
		_ = l.Hash()
	}
}
