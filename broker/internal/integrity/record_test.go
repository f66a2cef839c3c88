package integrity

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/klauspost/compress/s2"
)

// appendRecord writes a record as nats-server does.
func appendRecord(h *hasher, b []byte, seq uint64, ts int64, subject string, header, payload []byte) []byte {
	start := len(b)
	size := recordHead + len(subject) + len(payload) + hashSize
	if len(header) > 0 {
		size = (size + 4 + len(header)) | headerBit
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	b = binary.LittleEndian.AppendUint64(b, seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(ts))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(subject)))
	b = append(b, subject...)
	if len(header) > 0 {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(header)))
		b = append(b, header...)
	}
	b = append(b, payload...)
	h.h.Reset()
	_, _ = h.h.Write(b[start+4 : start+20])
	_, _ = h.h.Write([]byte(subject))
	_, _ = h.h.Write(header)
	_, _ = h.h.Write(payload)
	return h.h.Sum(b)
}

// TestLengthsAreJudged: the lengths that no checksum covers.
func TestLengthsAreJudged(t *testing.T) {
	h, err := newHasher(blockKey("S", 1), false)
	if err != nil {
		t.Fatal(err)
	}
	header := []byte("NATS/1.0\r\nA: b\r\n\r\n")
	for _, tt := range []struct {
		name    string
		subject string
		header  []byte
		want    Kind
	}{
		{"with headers", "a.b", header, ""},
		{"without headers", "a.b", nil, ""},
		{"no subject", "", nil, KindStructure},
		{"a space in the subject", "a. b", nil, KindStructure},
		{"an empty token", "a..b", nil, KindStructure},
		{"headers that end later", "a.b", header[:len(header)-1], KindStructure},
		{"headers that end earlier", "a.b", append(header, "x\r\n\r\n"...), KindStructure},
		{"headers that are none", "a.b", []byte("HTTP/1.1\r\n\r\n"), KindStructure},
	} {
		b := appendRecord(h, nil, 7, 1, tt.subject, tt.header, []byte("payload"))
		r, kind := h.read(b)
		if kind != tt.want || kind == "" && (r.seq != 7 || r.size != len(b)) {
			t.Errorf("%s: got %q %+v, want %q", tt.name, kind, r, tt.want)
		}
	}
	// A Raft log has no subjects.
	h.raft = true
	if _, kind := h.read(appendRecord(h, nil, 7, 1, "", nil, []byte("entry"))); kind != "" {
		t.Errorf("a Raft entry: %q", kind)
	}
	if _, kind := h.read(appendRecord(h, nil, 7, 1, "a", nil, []byte("entry"))); kind == "" {
		t.Error("a Raft entry with a subject is sound")
	}
}

// FuzzScanBlock: whatever a block holds, the scan ends, does not panic, and claims no
// more messages than there are bytes for.
func FuzzScanBlock(f *testing.F) {
	h, err := newHasher(blockKey("S", 1), false)
	if err != nil {
		f.Fatal(err)
	}
	var b []byte
	for seq := uint64(1); seq < 6; seq++ {
		b = appendRecord(h, b, seq, int64(seq), "a.b", []byte("NATS/1.0\r\nA: b\r\n\r\n"), []byte("payload"))
	}
	b = appendRecord(h, b, 9|erasedBit, 0, "", nil, nil)
	b = appendRecord(h, b, 3|tombstoneBit, 0, "", nil, nil)
	f.Add(b, uint8(0))
	f.Add(b[:len(b)-7], uint8(7))
	f.Add(append(make([]byte, 512), b...), uint8(15))
	packed := append([]byte{'c', 'm', 'p', 1}, binary.AppendUvarint(nil, uint64(len(b)))...)
	packed = append(packed, s2.Encode(nil, b[:len(b)-8])...)
	f.Add(append(packed, b[len(b)-8:]...), uint8(1))
	locks := map[uint8]*lock{16: testLock(f, true), 32: testLock(f, false)}
	for flag, l := range locks {
		enc := bytes.Clone(b)
		l.stream().XORKeyStream(enc, enc)
		f.Add(enc, flag)
		f.Add(append(enc[:len(enc)-40], make([]byte, 40)...), flag|15)
	}
	f.Fuzz(func(t *testing.T, raw []byte, flags uint8) {
		l, size := locks[flags&48], len(raw)
		if l.records(raw); len(raw) != size {
			t.Fatalf("%d bytes of %d", len(raw), size)
		}
		data, _, err := decompress(raw)
		if err != nil {
			return
		}
		if len(data) > maxBlock {
			t.Fatalf("decompressed to %d bytes", len(data))
		}
		s := scanBlock(h, data, tail{last: flags&1 != 0, clean: flags&2 != 0, powerCut: flags&4 != 0, lazy: flags&8 != 0})
		if s.Messages > uint64(len(data)/emptySize) || s.torn > len(data) || len(s.faults) > maxFaults || len(s.Gaps) > maxFaults {
			t.Fatalf("%+v", s)
		}
		if s.First > s.Last {
			t.Fatalf("first %d, last %d", s.First, s.Last)
		}
	})
}

// testLock is what a key file of nats-server holds when it is open.
func testLock(tb testing.TB, chacha bool) *lock {
	tb.Helper()
	l := unlock(sealSeed(tb, make([]byte, 32), chacha), make([]byte, 32), chacha)
	if l.bad {
		tb.Fatal("a sound key file does not open")
	}
	return l
}

// sealSeed makes a key file as nats-server does.
func sealSeed(tb testing.TB, sealing []byte, chacha bool) []byte {
	tb.Helper()
	outer, err := newAEAD(sealing, chacha)
	if err != nil {
		tb.Fatal(err)
	}
	nonce := bytes.Repeat([]byte{7}, outer.NonceSize())
	return outer.Seal(bytes.Clone(nonce), nonce, bytes.Repeat([]byte{3}, seedSize), nil)
}

// FuzzOpenSealed: whatever a key file and the file under it hold, opening them ends and
// does not panic; a text whose tag agrees is what was sealed.
func FuzzOpenSealed(f *testing.F) {
	sealing := make([]byte, 32)
	for _, chacha := range []bool{true, false} {
		key, l := sealSeed(f, sealing, chacha), testLock(f, chacha)
		text := l.aead.Seal(bytes.Clone(l.nonce), l.nonce, []byte(`{"name":"S"}`), nil)
		f.Add(key, text, chacha)
		f.Add(key, text[:len(text)-1], chacha)
		f.Add(key[:len(key)-1], text, chacha)
		f.Add([]byte{}, []byte{}, chacha)
	}
	f.Fuzz(func(t *testing.T, key, file []byte, chacha bool) {
		l := unlock(key, sealing, chacha)
		text, whole := l.text(file)
		if len(text) > len(file) || whole && l.bad && len(file) > 0 {
			t.Fatalf("%d bytes of %d, whole %t, bad %t", len(text), len(file), whole, l.bad)
		}
		if whole && len(file) > 0 {
			if again := l.aead.Seal(bytes.Clone(file[:len(l.nonce)]), file[:len(l.nonce)], text, nil); !bytes.Equal(again, file) {
				t.Fatal("what was opened is not what was sealed")
			}
		}
		if !l.bad {
			l.records(file)
		}
	})
}

// FuzzParseIndex: index.db has a checksum that anybody can make.
func FuzzParseIndex(f *testing.F) {
	b := []byte{indexMagic, 4}
	for _, v := range []uint64{3, 300, 1} {
		b = binary.AppendUvarint(b, v)
	}
	b = binary.AppendVarint(b, 1)
	b = binary.AppendUvarint(b, 3)
	b = binary.AppendVarint(b, 2)
	b = append(b, 0, 1, 1)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := parseIndex(b); err == nil && len(x.blocks) > len(b) {
			t.Fatalf("%d blocks in %d bytes", len(x.blocks), len(b))
		}
	})
}

// BenchmarkScanBlock is the rate of a check that the disk does not hold up: of a plain
// block, and of encrypted ones.
func BenchmarkScanBlock(b *testing.B) {
	h, err := newHasher(blockKey("S", 1), false)
	if err != nil {
		b.Fatal(err)
	}
	var raw []byte
	header := append([]byte("NATS/1.0\r\nA: "), bytes.Repeat([]byte("a"), 450)...)
	header = append(header, "\r\n\r\n"...)
	for seq := uint64(1); len(raw) < 8<<20; seq++ {
		raw = appendRecord(h, raw, seq, int64(seq), "orders.eu.created", header, make([]byte, 256))
	}
	for _, v := range variants() {
		b.Run(v.name, func(b *testing.B) {
			var l *lock
			stored, buf := bytes.Clone(raw), make([]byte, len(raw))
			if v.key != nil {
				l = testLock(b, v.key.chacha)
				l.stream().XORKeyStream(stored, stored)
			}
			b.SetBytes(int64(len(raw)))
			for b.Loop() {
				copy(buf, stored)
				contentHash(buf)
				l.records(buf)
				if s := scanBlock(h, buf, tail{}); len(s.faults) > 0 {
					b.Fatal(s.faults)
				}
			}
		})
	}
}
