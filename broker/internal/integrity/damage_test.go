package integrity

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// harm is one way to damage a stream. It says what it did.
type harm struct {
	name string
	do   func(t *testing.T, r *rand.Rand, s stored) string
	// unseen: without an orderly stop nothing on this disk tells of it.
	unseen bool
}

// field flips one bit in one part of a random record of a random block.
func field(part string) harm {
	return harm{name: "bit flip in " + part, do: func(t *testing.T, r *rand.Rand, s stored) string {
		file, raw := anyBlock(t, r, s)
		recs := offsets(t, raw)
		at := recs[r.IntN(len(recs))]
		size, slen, headers, _ := lengths(raw[at:])
		if !headers {
			t.Fatal("the messages of the test have headers")
		}
		hlen := int(binary.LittleEndian.Uint32(raw[at+recordHead+slen:]))
		from, n := at, size
		switch part {
		case "length":
			n = 4
		case "sequence":
			from, n = at+4, 8
		case "time":
			from, n = at+12, 8
		case "subject length":
			from, n = at+20, 2
		case "subject":
			from, n = at+recordHead, slen
		case "header length":
			from, n = at+recordHead+slen, 4
		case "header":
			from, n = at+recordHead+slen+4, hlen
		case "payload":
			from, n = at+recordHead+slen+4+hlen, size-recordHead-slen-4-hlen-hashSize
		case "checksum":
			from, n = at+size-hashSize, hashSize
		}
		pos, bit := from+r.IntN(n), byte(1)<<r.IntN(8)
		raw[pos] ^= bit
		s.write(t, file, raw)
		return fmt.Sprintf("%s byte %d (record at %d) bit %x", filepath.Base(file), pos, at, bit)
	}}
}

func harms() []harm {
	list := []harm{}
	for _, p := range []string{"length", "sequence", "time", "subject length", "subject", "header length", "header", "payload", "checksum"} {
		list = append(list, field(p))
	}
	return append(list,
		harm{name: "truncation inside a middle block", do: func(t *testing.T, r *rand.Rand, s stored) string {
			file := filepath.Join(s.msgs, mustBlocks(t, s.msgs)[1].name)
			raw := read(t, file)
			return truncate(t, file, 1+r.IntN(len(raw)-1))
		}},
		harm{name: "truncation of a middle block by whole records", do: func(t *testing.T, r *rand.Rand, s stored) string {
			file := filepath.Join(s.msgs, mustBlocks(t, s.msgs)[1].name)
			recs := offsets(t, s.read(t, file))
			return truncate(t, file, recs[r.IntN(len(recs))])
		}},
		harm{name: "truncation of the last block by whole records", do: func(t *testing.T, r *rand.Rand, s stored) string {
			blocks := mustBlocks(t, s.msgs)
			file := filepath.Join(s.msgs, blocks[len(blocks)-1].name)
			recs := offsets(t, s.read(t, file))
			return truncate(t, file, recs[r.IntN(len(recs))])
		}},
		removal("first", func(n int) int { return 0 }),
		removal("middle", func(n int) int { return n / 2 }),
		removal("last", func(n int) int { return n - 1 }),
		harm{name: "zeroed page", do: func(t *testing.T, r *rand.Rand, s stored) string {
			file, _ := anyBlock(t, r, s)
			raw := read(t, file)
			at := r.IntN((len(raw)+4095)/4096) * 4096
			clear(raw[at:min(at+4096, len(raw))])
			write(t, file, raw)
			return fmt.Sprintf("%s page at %d", filepath.Base(file), at)
		}},
		harm{name: "swapped blocks", do: func(t *testing.T, r *rand.Rand, s stored) string {
			blocks := mustBlocks(t, s.msgs)
			a, b := filepath.Join(s.msgs, blocks[0].name), filepath.Join(s.msgs, blocks[2].name)
			ra, rb := read(t, a), read(t, b)
			write(t, a, rb)
			write(t, b, ra)
			return blocks[0].name + " and " + blocks[2].name
		}},
		harm{name: "index and last block removed", do: func(t *testing.T, r *rand.Rand, s stored) string {
			if err := os.Remove(filepath.Join(s.msgs, "index.db")); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			return removal("last", func(n int) int { return n - 1 }).do(t, r, s)
		}, unseen: true},
	)
}

func removal(name string, which func(n int) int) harm {
	return harm{name: "removed " + name + " block", do: func(t *testing.T, _ *rand.Rand, s stored) string {
		blocks := mustBlocks(t, s.msgs)
		file := blocks[which(len(blocks))].name
		if err := os.Remove(filepath.Join(s.msgs, file)); err != nil {
			t.Fatal(err)
		}
		return file
	}}
}

func mustBlocks(t *testing.T, msgs string) []blockFile {
	t.Helper()
	blocks, err := listBlocks(msgs)
	if err != nil || len(blocks) < 4 {
		t.Fatalf("%d blocks, want 4: %v", len(blocks), err)
	}
	return blocks
}

func anyBlock(t *testing.T, r *rand.Rand, s stored) (string, []byte) {
	t.Helper()
	blocks := mustBlocks(t, s.msgs)
	file := filepath.Join(s.msgs, blocks[r.IntN(len(blocks))].name)
	return file, s.read(t, file)
}

func offsets(t *testing.T, raw []byte) []int {
	t.Helper()
	var out []int
	for at := 0; at < len(raw); {
		size, _, _, ok := lengths(raw[at:])
		if !ok {
			t.Fatalf("no record at %d", at)
		}
		out = append(out, at)
		at += size
	}
	return out
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, file string, n int) string {
	t.Helper()
	if err := os.Truncate(file, int64(n)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s to %d bytes", filepath.Base(file), n)
}

// TestEveryDamageIsFound: a store is damaged in one place, four times in each of many
// ways; the check sees it, or a server that is started on it serves every message.
// In an encrypted store this is also done to the keys, and all of it twice only. First as after an orderly stop of the broker, then with nothing but the disk's own
// word: no ledger, and the power may have been cut (under sync-always: with several
// records to a sync, what the end of a store has lost within half a minute cannot be
// told from what was never acknowledged, TestTornTail).
func TestEveryDamageIsFound(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) { everyDamageIsFound(t, v) })
	}
}

func everyDamageIsFound(t *testing.T, v variant) {
	sealed := ordersStore(t, v.server)
	seal(t, sealed, Options{Key: v.key})
	const seed = 20260822
	list, times := harms(), uint64(4)
	if v.key != nil {
		list, times = append(list, keyHarms()...), 2
	}
	trials, found, harmless := 0, 0, 0
	for _, ledger := range []bool{true, false} {
		for i, h := range list {
			for n := range times {
				trials++
				name := fmt.Sprintf("%s %d ledger %t", h.name, n, ledger)
				dir := copyStore(t, sealed)
				what := h.do(t, rand.New(rand.NewPCG(seed, uint64(i)<<8|n)), v.orders(dir))
				o := Options{Dir: dir, Key: v.key, Full: true, LazySync: ledger && n%2 == 0}
				if ledger {
					o.Ledger = mustLedger(t, dir)
				}
				rep := mustCheck(t, o)
				if len(rep.Damaged()) > 0 {
					found++
					continue
				}
				if h.unseen && !ledger {
					continue
				}
				s := startServer(t, dir, v.server)
				_, js := jet(t, s)
				if got := served(t, js, "ORDERS", messages); got != messages {
					t.Errorf("%s (%s): not seen, and the server serves %d of %d; notes %v", name, what, got, messages, replica(t, rep, "$G/ORDERS").Notes)
				} else {
					harmless++
					t.Logf("%s (%s): harmless", name, what)
				}
				stopServer(s)
			}
		}
	}
	t.Logf("%d trials: %d seen, %d harmless, the rest cannot be seen on this disk", trials, found, harmless)
}
