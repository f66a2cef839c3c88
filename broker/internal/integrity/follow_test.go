package integrity

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// mustFollow opens a follower of ORDERS.
func mustFollow(t *testing.T, dir string, v variant, from uint64) *Follower {
	t.Helper()
	f, err := Follow(dir, v.key, "$G", "ORDERS", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// awaitNext returns the next message as soon as it is there.
func awaitNext(t *testing.T, f *Follower) Stored {
	t.Helper()
	for look, end := time.Tick(time.Millisecond), time.After(30*time.Second); ; {
		var m Stored
		ok, err := f.Next(&m)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return m
		}
		select {
		case <-look:
		case <-end:
			t.Fatalf("nothing comes behind sequence %d", f.last)
		}
	}
}

// wantNext holds the next message against what fill has published.
func wantNext(t *testing.T, f *Follower, seq uint64, size int) {
	t.Helper()
	m := awaitNext(t, f)
	want := Stored{
		Seq: seq, Subject: []byte("ORDERS.a"), Headers: fmt.Appendf(nil, "NATS/1.0\r\nCe-Id: %d\r\n\r\n", seq), Payload: body(seq, size), Time: m.Time,
	}
	if !equalStored(&m, &want) || time.Since(time.Unix(0, m.Time)).Abs() > time.Hour {
		t.Fatalf("got %d %q %q %d bytes at %d, want sequence %d", m.Seq, m.Subject, m.Headers, len(m.Payload), m.Time, seq)
	}
}

func equalStored(a, b *Stored) bool {
	return a.Seq == b.Seq && a.Time == b.Time && bytes.Equal(a.Subject, b.Subject) && bytes.Equal(a.Headers, b.Headers) && bytes.Equal(a.Payload, b.Payload)
}

// TestFollowsTheServer: a follower gets every message as the server has taken it, in
// order and once, while it is published, over the ends of blocks, from any sequence on,
// and over a restart.
func TestFollowsTheServer(t *testing.T) {
	for _, v := range variants() {
		for _, sync := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,sync=%t", v.name, sync), func(t *testing.T) { followsTheServer(t, v, sync) })
		}
	}
}

func followsTheServer(t *testing.T, v variant, sync bool) {
	dir := t.TempDir()
	always := func(o *server.Options) { o.SyncAlways = sync }
	s := startServer(t, dir, v.server, always)
	_, js := jet(t, s)
	if _, err := js.CreateStream(t.Context(), appendOnlyConfig("ORDERS", 1)); err != nil {
		t.Fatal(err)
	}
	f := mustFollow(t, dir, v, 0)
	var m Stored
	if ok, err := f.Next(&m); ok || err != nil {
		t.Fatalf("an empty stream: %t, %v", ok, err)
	}
	published := make(chan struct{})
	go func() {
		defer close(published)
		fill(t, js, "ORDERS.a", 1, messages, 100)
	}()
	for seq := uint64(1); seq <= messages; seq++ {
		wantNext(t, f, seq, 100)
	}
	<-published
	if f.index < 4 {
		t.Errorf("it ended in block %d: no block was turned", f.index)
	}
	for _, from := range []uint64{1, 2, 180, 181, 182, messages, messages + 1} {
		again := mustFollow(t, dir, v, from)
		for seq := from; seq <= messages; seq++ {
			wantNext(t, again, seq, 100)
		}
		if ok, err := again.Next(&m); ok || err != nil {
			t.Errorf("behind the end: %t, %v", ok, err)
		}
	}
	stopServer(s)
	s = startServer(t, dir, v.server, always)
	_, js = jet(t, s)
	fill(t, js, "ORDERS.a", messages+1, messages+3, 100)
	for seq := uint64(messages + 1); seq <= messages+3; seq++ {
		wantNext(t, f, seq, 100)
	}
}

// TestFollowsLargeMessages: a record may be larger than what is read at once, and larger
// than a block.
func TestFollowsLargeMessages(t *testing.T) {
	dir := t.TempDir()
	s := startServer(t, dir)
	_, js := jet(t, s)
	cfg := appendOnlyConfig("ORDERS", 1)
	cfg.MaxBytes = 64 << 20
	if _, err := js.CreateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	f := mustFollow(t, dir, variant{}, 1)
	for seq, size := range []int{1: followBuffer, 2: 100, 3: followMost + 1, 4: 900_000, 5: 8, 6: followBuffer - 100} {
		if seq > 0 {
			fill(t, js, "ORDERS.a", uint64(seq), uint64(seq), size)
			wantNext(t, f, uint64(seq), size)
		}
	}
	last := mustFollow(t, dir, variant{}, 5)
	wantNext(t, last, 5, 8)
}

// TestFollowerOutlivesItsBlock: what the server has removed stays readable to who is in
// it; then it goes on with the first block that is there.
func TestFollowerOutlivesItsBlock(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			dir := t.TempDir()
			_, js := jet(t, startServer(t, dir, v.server))
			cfg := appendOnlyConfig("ORDERS", 1)
			cfg.Discard = jetstream.DiscardOld
			if _, err := js.CreateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			fill(t, js, "ORDERS.a", 1, messages, 100)
			f := mustFollow(t, dir, v, 1)
			wantNext(t, f, 1, 100)
			fill(t, js, "ORDERS.a", messages+1, 4*messages, 100)
			if _, err := os.Stat(filepath.Join(dir, "jetstream/$G/streams/ORDERS/msgs/1.blk")); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("the block is not gone: %v", err)
			}
			seq, jumps := uint64(1), 0
			for seq < 4*messages {
				m := awaitNext(t, f)
				if m.Seq <= seq || !bytes.Equal(m.Payload, body(m.Seq, 100)) {
					t.Fatalf("sequence %d after %d", m.Seq, seq)
				}
				if m.Seq > seq+1 {
					jumps++
				}
				seq = m.Seq
			}
			if jumps != 1 {
				t.Errorf("%d gaps, want 1: where its block ended", jumps)
			}
		})
	}
}

// TestFollowRefuses: what the server does not do to a block ends a follower, and what is
// sound before it was returned.
func TestFollowRefuses(t *testing.T) {
	last := func(s stored) string { return filepath.Join(s.msgs, "4.blk") }
	for _, v := range variants() {
		base := ordersStore(t, v.server)
		for _, tt := range []struct {
			name string
			harm func(t *testing.T, s stored)
			good uint64 // sequences that are returned; 0: some
		}{
			{"a flipped bit", func(t *testing.T, s stored) { flip(t, last(s), 700, 4) }, 0},
			{"a flipped bit in a block before", func(t *testing.T, s stored) { flip(t, filepath.Join(s.msgs, "2.blk"), 9000, 4) }, 0},
			{"a changed payload", func(t *testing.T, s stored) {
				raw := s.read(t, last(s))
				raw[offsets(t, raw)[4]-hashSize-1] ^= 4
				s.write(t, last(s), raw)
			}, 0},
			{"a block before that is cut", func(t *testing.T, s stored) {
				truncate(t, filepath.Join(s.msgs, "2.blk"), 50)
			}, 0},
			{"a record twice", func(t *testing.T, s stored) {
				raw := s.read(t, last(s))
				recs := offsets(t, raw)
				s.write(t, last(s), append(raw, raw[recs[3]:recs[4]]...))
			}, messages},
			{"a length that cannot be", func(t *testing.T, s stored) {
				raw := s.read(t, last(s))
				s.write(t, last(s), append(raw, bytes.Repeat([]byte{0xff}, 100)...))
			}, messages},
			{"zeros", func(t *testing.T, s stored) {
				raw := s.read(t, last(s))
				s.write(t, last(s), append(raw, make([]byte, 100)...))
			}, messages},
		} {
			t.Run(v.name+"/"+tt.name, func(t *testing.T) {
				dir := copyStore(t, base)
				tt.harm(t, v.orders(dir))
				f := mustFollow(t, dir, v, 1)
				n, err := drain(f)
				if !errors.Is(err, ErrFollow) || n == 0 || n >= messages && tt.good == 0 || tt.good > 0 && n != tt.good {
					t.Errorf("%d messages, then %v", n, err)
				}
			})
		}
	}
}

// drain counts the messages up to the end or an error.
func drain(f *Follower) (n uint64, err error) {
	for {
		var m Stored
		ok, err := f.Next(&m)
		if !ok || err != nil {
			return n, err
		}
		n++
	}
}

// TestFollowRefusesChanges: the same while it is in the block.
func TestFollowRefusesChanges(t *testing.T) {
	base := ordersStore(t)
	for _, tt := range []struct {
		name string
		harm func(t *testing.T, msgs, last string)
		more uint64 // messages that still come
		want error
	}{
		{"shorter than what was read", func(t *testing.T, _, last string) { truncate(t, last, 1) }, 0, ErrFollow},
		{"removed", func(t *testing.T, _, last string) { mustRemove(t, last) }, 0, ErrFollow},
		{"replaced", func(t *testing.T, _, last string) {
			raw := read(t, last)
			mustRemove(t, last)
			write(t, last, raw)
		}, 0, ErrFollow},
		{"replaced, and another comes after it", func(t *testing.T, msgs, last string) {
			mustRemove(t, last)
			write(t, last, nil)
			write(t, filepath.Join(msgs, "7.blk"), madeBlock(t, 7, messages+1, messages+2))
		}, 2, nil},
		{"another comes after it", func(t *testing.T, msgs, last string) {
			write(t, last, append(read(t, last), madeBlock(t, 4, messages+1)...))
			write(t, filepath.Join(msgs, "5.blk"), madeBlock(t, 5, messages+2))
		}, 2, nil},
		{"half a record, and another block after it", func(t *testing.T, msgs, last string) {
			write(t, last, append(read(t, last), madeBlock(t, 4, messages+1)[:40]...))
			write(t, filepath.Join(msgs, "5.blk"), madeBlock(t, 5, messages+2))
		}, 0, ErrFollow},
		{"the folder replaced", func(t *testing.T, msgs, last string) {
			raw := read(t, last)
			if err := os.Rename(msgs, msgs+"-"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(msgs, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, last, raw)
			write(t, filepath.Join(msgs, "5.blk"), madeBlock(t, 5, messages+1))
		}, 0, ErrFollow},
		{"half a record", func(t *testing.T, _, last string) {
			write(t, last, append(read(t, last), madeBlock(t, 4, messages+1)[:40]...))
		}, 0, nil},
		{"a folder comes after it", func(t *testing.T, msgs, _ string) {
			if err := os.Mkdir(filepath.Join(msgs, "5.blk"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, 0, ErrStore},
		{"tombstones without end", func(t *testing.T, _, last string) {
			raw, more := read(t, last), madeBlock(t, 4, 1|tombstoneBit)
			write(t, last, append(raw, bytes.Repeat(more, maxBlock/len(more))...))
		}, 0, ErrFollow},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyStore(t, base)
			msgs := variant{}.orders(dir).msgs
			f := mustFollow(t, dir, variant{}, 1)
			if n, err := drain(f); n != messages || err != nil {
				t.Fatalf("%d messages, then %v", n, err)
			}
			tt.harm(t, msgs, filepath.Join(msgs, "4.blk"))
			if n, err := drain(f); n != tt.more || !errors.Is(err, tt.want) {
				t.Errorf("%d more, then %v; want %d and %v", n, err, tt.more, tt.want)
			}
		})
	}
}

func mustRemove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// TestFollowTurnsAtTheEnd: what the server appends after the end of a block was met, and
// before the next one is made, is not passed over.
func TestFollowTurnsAtTheEnd(t *testing.T) {
	dir := copyStore(t, ordersStore(t))
	msgs := variant{}.orders(dir).msgs
	f := mustFollow(t, dir, variant{}, 1)
	if n, err := drain(f); n != messages || err != nil {
		t.Fatalf("%d messages, then %v", n, err)
	}
	last := filepath.Join(msgs, "4.blk")
	write(t, last, append(read(t, last), madeBlock(t, 4, messages+1)...))
	write(t, filepath.Join(msgs, "5.blk"), madeBlock(t, 5, messages+2))
	if more, err := f.turn(); !more || err != nil {
		t.Fatal(more, err)
	}
	if n, err := drain(f); n != 2 || err != nil {
		t.Errorf("%d more, then %v; want both", n, err)
	}
}

// madeBlock is a block of ORDERS with these sequences.
func madeBlock(tb testing.TB, index uint32, seqs ...uint64) (b []byte) {
	tb.Helper()
	h, err := newHasher(blockKey("ORDERS", index), false)
	if err != nil {
		tb.Fatal(err)
	}
	for _, seq := range seqs {
		b = appendRecord(h, b, seq, int64(seq), "ORDERS.a", []byte("NATS/1.0\r\nA: b\r\n\r\n"), body(seq&seqMask, 20))
	}
	return b
}

// TestFollowWithoutKeys: a key file that is gone or of another store is no message.
func TestFollowWithoutKeys(t *testing.T) {
	for _, v := range encrypted() {
		base := ordersStore(t, v.server)
		if _, err := Follow(base, NewStoreKey("another key", v.key.chacha), "$G", "ORDERS", 1); !errors.Is(err, ErrFollow) {
			t.Errorf("%s, wrong key: %v", v.name, err)
		}
		if _, err := Follow(base, nil, "$G", "ORDERS", messages); !errors.Is(err, ErrFollow) {
			t.Errorf("%s, no key: %v", v.name, err)
		}
		mustRemove(t, filepath.Join(v.orders(base).msgs, "4.key"))
		if _, err := Follow(base, v.key, "$G", "ORDERS", messages); !errors.Is(err, ErrFollow) {
			t.Errorf("%s, no key file: %v", v.name, err)
		}
	}
}

// FuzzFollow: whatever a block holds, and in whatever parts it grows, a follower returns
// the messages of the sound records before the first that is not, as a scan of the whole
// block finds them.
func FuzzFollow(f *testing.F) {
	sound := madeBlock(f, 1, 1, 2, 3|erasedBit, 4, 2|tombstoneBit, 9)
	f.Add(sound, uint16(1))
	f.Add(sound, uint16(33))
	f.Add(sound[:len(sound)-3], uint16(100))
	f.Add(append(slices.Clone(sound), sound...), uint16(500))
	f.Add(append(slices.Clone(sound), make([]byte, 64)...), uint16(70))
	f.Add(append([]byte("cmp\x01"), sound...), uint16(9))
	f.Fuzz(func(t *testing.T, raw []byte, step uint16) {
		if len(raw) > 1<<16 {
			return
		}
		want, bad := scanMessages(t, raw)
		dir := t.TempDir()
		msgs := variant{}.orders(dir).msgs
		if err := os.MkdirAll(msgs, 0o700); err != nil {
			t.Fatal(err)
		}
		file, err := os.Create(filepath.Join(msgs, "1.blk"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		follower, err := Follow(dir, nil, "$G", "ORDERS", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer follower.Close()
		parts := max(int(step), len(raw)/64+1)
		for rest := raw; err == nil; {
			n := min(parts, len(rest))
			if _, werr := file.Write(rest[:n]); werr != nil {
				t.Fatal(werr)
			}
			rest = rest[n:]
			for {
				var m Stored
				var ok bool
				if ok, err = follower.Next(&m); !ok || err != nil {
					break
				}
				if len(want) == 0 || !equalStored(&m, &want[0]) {
					t.Fatalf("got sequence %d, want %d more", m.Seq, len(want))
				}
				want = want[1:]
			}
			if len(rest) == 0 {
				break
			}
		}
		if len(want) > 0 || (err != nil) != bad || err != nil && !errors.Is(err, ErrFollow) {
			t.Fatalf("%d messages did not come, error %v, the block is bad: %t", len(want), err, bad)
		}
	})
}

// scanMessages is the slow way: the messages of a block up to the first record that is
// not sound, and whether there is one of which all bytes are there.
func scanMessages(t *testing.T, raw []byte) (out []Stored, bad bool) {
	t.Helper()
	h, err := newHasher(blockKey("ORDERS", 1), false)
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for at := 0; at < len(raw); {
		b := raw[at:]
		if len(b) < recordHead {
			return out, false
		}
		if size := int(binary.LittleEndian.Uint32(b) &^ headerBit); size > len(b) && size <= maxRecord {
			return out, false // the rest of it may come
		}
		r, kind := h.read(b)
		if kind != "" {
			return out, true
		}
		at += r.size
		if r.tomb || r.seq == 0 {
			continue
		}
		if r.seq <= last {
			return out, true
		}
		if last = r.seq; r.erased {
			continue
		}
		body := bytes.Clone(b[recordHead : r.size-hashSize])
		slen := binary.LittleEndian.Uint16(b[20:])
		m := Stored{Seq: r.seq, Time: r.ts, Subject: body[:slen], Payload: body[slen:]}
		if binary.LittleEndian.Uint32(b)&headerBit != 0 {
			end := 4 + binary.LittleEndian.Uint32(m.Payload)
			m.Headers, m.Payload = m.Payload[4:end], m.Payload[end:]
		}
		out = append(out, m)
	}
	return out, false
}

// BenchmarkFollow is what a message costs that is read from the page cache.
func BenchmarkFollow(b *testing.B) {
	dir := b.TempDir()
	msgs := variant{}.orders(dir).msgs
	if err := os.MkdirAll(msgs, 0o700); err != nil {
		b.Fatal(err)
	}
	h, err := newHasher(blockKey("ORDERS", 1), false)
	if err != nil {
		b.Fatal(err)
	}
	var raw []byte
	header := fmt.Appendf(nil, "NATS/1.0\r\nA: %0500d\r\n\r\n", 0)
	const n = 8000
	for seq := uint64(1); seq <= n; seq++ {
		raw = appendRecord(h, raw, seq, int64(seq), "ORDERS.a", header, make([]byte, 256))
	}
	if err := os.WriteFile(filepath.Join(msgs, "1.blk"), raw, 0o600); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		f, err := Follow(dir, nil, "$G", "ORDERS", 1)
		if err != nil {
			b.Fatal(err)
		}
		if got, err := drain(f); got != n || err != nil {
			b.Fatal(got, err)
		}
		f.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/message")
}
