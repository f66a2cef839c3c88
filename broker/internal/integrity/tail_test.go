package integrity

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestTornTail: what a kill or a power cut may leave at the very end of a store is
// tolerated, and nothing else is; where it is, the server serves everything before it.
func TestTornTail(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) { tornTail(t, v) })
	}
}

func tornTail(t *testing.T, v variant) {
	type end struct {
		lazy, sameBoot bool
	}
	appendRest := func(n int) func(t *testing.T, s stored) {
		return func(t *testing.T, s stored) {
			file := filepath.Join(s.msgs, "4.blk")
			raw := s.read(t, file)
			recs := offsets(t, raw)
			s.write(t, file, append(raw, raw[recs[0]:recs[0]+n]...))
		}
	}
	zeroTail := func(records int) func(t *testing.T, s stored) {
		return func(t *testing.T, s stored) {
			file := filepath.Join(s.msgs, "4.blk")
			raw, recs := read(t, file), offsets(t, s.read(t, file))
			clear(raw[recs[len(recs)-records]:])
			write(t, file, raw)
			if err := os.Remove(filepath.Join(s.msgs, "index.db")); err != nil {
				t.Fatal(err)
			}
		}
	}
	base := ordersStore(t, v.server)
	for _, tt := range []struct {
		name   string
		harm   func(t *testing.T, s stored)
		end    end
		served uint64 // 0: it must be damage
	}{
		{"half a record after kill -9", appendRest(90), end{sameBoot: true}, messages},
		{"three bytes after kill -9", appendRest(3), end{sameBoot: true}, messages},
		{"half a record after a power cut", appendRest(90), end{lazy: true}, messages},
		{"zeros instead of the last record after a power cut", zeroTail(1), end{}, messages - 1},
		{"zeros instead of the last records after a power cut", zeroTail(20), end{lazy: true}, messages - 20},
		{"zeros, and the machine has not stopped", zeroTail(1), end{lazy: true, sameBoot: true}, 0},
		{"a flipped bit in the last record", func(t *testing.T, s stored) {
			file := filepath.Join(s.msgs, "4.blk")
			flip(t, file, int64(len(read(t, file))-20), 4)
		}, end{lazy: true}, 0},
		{"a flipped bit in the length of the last record", func(t *testing.T, s stored) {
			file := filepath.Join(s.msgs, "4.blk")
			recs := offsets(t, s.read(t, file))
			flip(t, file, int64(recs[len(recs)-1]+2), 1)
		}, end{lazy: true}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyStore(t, base)
			l := mustLedger(t, dir)
			if tt.end.sameBoot {
				if err := l.Running(); err != nil {
					t.Fatal(err)
				}
			}
			tt.harm(t, v.orders(dir))
			r := replica(t, mustCheck(t, Options{Dir: dir, Key: v.key, Ledger: l, LazySync: tt.end.lazy}), "$G/ORDERS")
			if r.Damaged() != (tt.served == 0) {
				t.Fatalf("damage %v, notes %v", r.Damage, r.Notes)
			}
			if tt.served == 0 {
				return
			}
			if len(r.Notes) == 0 {
				t.Error("nothing is said of it")
			}
			s := startServer(t, dir, v.server)
			_, js := jet(t, s)
			if got := served(t, js, "ORDERS", tt.served); got != tt.served {
				t.Errorf("served %d, want %d", got, tt.served)
			}
		})
	}
}

// TestHoleAfterAZero: the cipher makes the last byte of one record in 256 zero. A hole
// behind it then seems to begin a byte early, and the record, which is whole, to be
// damaged.
func TestHoleAfterAZero(t *testing.T) {
	h, err := newHasher(blockKey("ORDERS", 1), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, chacha := range []bool{false, true} {
		l := testLock(t, chacha)
		for zeros := 1; zeros <= 2; zeros++ {
			kept, file := endsInZeros(t, h, l, zeros)
			file = append(file, make([]byte, 300)...)
			e := examined{file: blockFile{index: 1}}
			if err := e.scan(folder{name: "ORDERS"}, l, bytes.Clone(file), tail{last: true, powerCut: true}); err != nil {
				t.Fatal(err)
			}
			if len(e.faults) > 0 || e.Last != 2 || e.torn != len(file)-kept {
				t.Errorf("chacha %t, %d zeros: faults %v, last %d, torn %d of %d", chacha, zeros, e.faults, e.Last, e.torn, len(file)-kept)
			}
			// A record whose end is wrong is damage, hole or not.
			file[kept-zeros-1] ^= 1
			e = examined{file: blockFile{index: 1}}
			if err := e.scan(folder{name: "ORDERS"}, l, file, tail{last: true, powerCut: true}); err != nil || len(e.faults) == 0 {
				t.Errorf("chacha %t, %d zeros: a flipped bit before them: %v, faults %v", chacha, zeros, err, e.faults)
			}
		}
	}
}

// endsInZeros makes an encrypted block of two records whose last bytes on disk are so
// many zeros.
func endsInZeros(t *testing.T, h *hasher, l *lock, zeros int) (size int, file []byte) {
	t.Helper()
	for try := range uint64(1 << 22) {
		b := appendRecord(h, nil, 1, 1, "ORDERS.a", nil, body(1, 40))
		b = appendRecord(h, b, 2, 2, "ORDERS.a", nil, binary.BigEndian.AppendUint64(nil, try))
		l.stream().XORKeyStream(b, b)
		if bytes.Equal(b[len(b)-zeros:], make([]byte, zeros)) && b[len(b)-zeros-1] != 0 {
			return len(b), b
		}
	}
	t.Fatal("no record ends so")
	return 0, nil
}

// TestTornWindow: zeros in the last block with records after them are the rest of a
// power cut only if all that is beside them was written within half a minute.
func TestTornWindow(t *testing.T) {
	h, err := newHasher(blockKey("ORDERS", 1), false)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	block := func(age time.Duration) []byte {
		var b []byte
		for seq := uint64(1); seq <= 60; seq++ {
			at := now
			if seq <= 10 {
				at = now.Add(-age)
			}
			b = appendRecord(h, b, seq, at.UnixNano(), "ORDERS.a", nil, body(seq, 100))
		}
		recs := offsets(t, b)
		clear(b[recs[10] : (recs[10]/sector+2)*sector])
		return b
	}
	end := tail{last: true, powerCut: true, lazy: true}
	if s := scanBlock(h, block(time.Second), end); s.torn == 0 || len(s.faults) != 0 {
		t.Errorf("a hole of the last second: torn %d, faults %v", s.torn, s.faults)
	}
	if s := scanBlock(h, block(time.Minute), end); s.torn != 0 || len(s.faults) != 1 {
		t.Errorf("a hole a minute old: torn %d, faults %v", s.torn, s.faults)
	}
}
