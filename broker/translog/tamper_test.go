package translog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/signing/tlog"
)

// A record of a block file of nats-server, as broker/internal/integrity reads it.
type record struct {
	at, size int // in the file
	seq      uint64
}

const recordHead, hashSize, headerBit = 22, 8, 1 << 31

func records(t *testing.T, block []byte) []record {
	t.Helper()
	var out []record
	for at := 0; at < len(block); {
		size := int(binary.LittleEndian.Uint32(block[at:]) &^ uint32(headerBit))
		if size < recordHead+hashSize || at+size > len(block) {
			t.Fatalf("no record at %d of %d", at, len(block))
		}
		out = append(out, record{at, size, binary.LittleEndian.Uint64(block[at+4:])})
		at += size
	}
	return out
}

// seal gives a changed record the checksum that nats-server expects.
func seal(t *testing.T, rec []byte) {
	t.Helper()
	key := sha256.Sum256([]byte("ORDERS-1"))
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		t.Fatal(err)
	}
	subject := int(binary.LittleEndian.Uint16(rec[20:]))
	body, end := rec[recordHead:len(rec)-hashSize], subject
	if binary.LittleEndian.Uint32(rec)&uint32(headerBit) != 0 {
		end += 4
	}
	_, _ = h.Write(rec[4:20])
	_, _ = h.Write(body[:subject])
	_, _ = h.Write(body[end:])
	copy(rec[len(rec)-hashSize:], h.Sum(nil))
}

// Somebody who can write to the disk, and knows the format of nats-server well enough to
// leave no wrong checksum, changes what is stored while the broker is down.
func TestVerifyNamesWhatWasDoneOnDisk(t *testing.T) {
	const n = 600
	for _, tt := range []struct {
		name   string
		tamper func(t *testing.T, block []byte, recs []record) []byte
		want   Finding
	}{
		{"altered data", func(t *testing.T, block []byte, recs []record) []byte {
			rec := block[recs[99].at:][:recs[99].size]
			at := bytes.Index(rec, []byte(`"order":000099`))
			rec[at+len(`"order":`)] = '9'
			seal(t, rec)
			return block
		}, Finding{Sequence: 100, What: Altered}},
		{"altered header", func(t *testing.T, block []byte, recs []record) []byte {
			rec := block[recs[99].at:][:recs[99].size]
			at := bytes.Index(rec, []byte("Unsigned: 99"))
			rec[at+len("Unsigned: ")] = '8'
			seal(t, rec)
			return block
		}, Finding{Sequence: 100, What: Altered}},
		{"swapped", func(t *testing.T, block []byte, recs []record) []byte {
			a, b := bytes.Clone(block[recs[49].at:][:recs[49].size]), bytes.Clone(block[recs[52].at:][:recs[52].size])
			if len(a) != len(b) {
				t.Fatal("records of two sizes")
			}
			// Each keeps its body and takes the place, and so the sequence and time, of the other.
			for i := 4; i < 20; i++ {
				a[i], b[i] = b[i], a[i]
			}
			seal(t, a)
			seal(t, b)
			copy(block[recs[49].at:], b)
			copy(block[recs[52].at:], a)
			return block
		}, Finding{Sequence: 50, What: Reordered}},
		{"dropped and closed up", func(t *testing.T, block []byte, recs []record) []byte {
			out := bytes.Clone(block[:recs[300].at])
			for _, r := range recs[301:] {
				rec := bytes.Clone(block[r.at:][:r.size])
				binary.LittleEndian.PutUint64(rec[4:], r.seq-1)
				seal(t, rec)
				out = append(out, rec...)
			}
			return out
		}, Finding{Sequence: 301, What: Reordered}}, // the event of the next sequence stands there
		{"dropped", func(_ *testing.T, block []byte, recs []record) []byte {
			return append(bytes.Clone(block[:recs[300].at]), block[recs[301].at:]...)
		}, Finding{Sequence: 301, What: Dropped}},
		{"cut off at the end", func(_ *testing.T, block []byte, recs []record) []byte {
			return block[:recs[500].at]
		}, Finding{Sequence: 501, What: Dropped}},
		{"put in between", func(t *testing.T, block []byte, recs []record) []byte {
			extra := bytes.Clone(block[recs[10].at:][:recs[10].size])
			out := bytes.Clone(block[:recs[200].at])
			for i, r := range append([]record{{seq: 200}}, recs[200:]...) {
				rec := extra
				if i > 0 {
					rec = bytes.Clone(block[r.at:][:r.size])
				}
				binary.LittleEndian.PutUint64(rec[4:], r.seq+1)
				seal(t, rec)
				out = append(out, rec...)
			}
			return out
		}, Finding{Sequence: 201, What: Reordered}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			js := r.js("shop")
			for i := range n {
				m := r.event(i)
				m.Header["Unsigned"] = []string{fmt.Sprint(i)}
				if _, err := js.PublishMsg(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			s, stop := r.serve(nil)
			outside := awaitSize(t, s, n)
			stop()
			r.end()
			file := blockFile(t, r.dir)
			block := readFile(t, file)
			if err := os.WriteFile(file, tt.tamper(t, block, records(t, block)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(filepath.Dir(file), "index.db")); err != nil {
				t.Fatal(err)
			}
			r.start()
			s, _ = r.serve(nil)
			got := verifyAll(t, s, &outside.Checkpoint)
			if got.Finding == nil || got.Finding.Sequence != tt.want.Sequence || got.Finding.What != tt.want.What {
				t.Fatalf("found %+v, want %+v", got.Finding, tt.want)
			}
			t.Logf("sequence %d %s: %s", got.Finding.Sequence, got.Finding.What, got.Finding.Detail)
			if _, err := s.Prove(t.Context(), "shop", "ORDERS", tt.want.Sequence, tt.want.Sequence); !errors.Is(err, ErrDisagrees) {
				t.Errorf("a proof of what is not there: %v", err)
			}
		})
	}
}

// Added: an event at a sequence that was absent when the log reached it. No client can
// do that; the disk can.
func TestVerifyNamesWhatWasAdded(t *testing.T) {
	r := newLooseRig(t)
	r.publish(0, 30)
	block := readFile(t, blockFile(t, r.dir))
	stream, err := r.js("shop").Stream(t.Context(), "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 20); err != nil {
		t.Fatal(err)
	}
	s, stop := r.serve(nil)
	note := awaitSize(t, s, 30)
	stop()
	r.end()
	file := blockFile(t, r.dir)
	if err := os.WriteFile(file, block, 0o600); err != nil { // as it was before the deletion
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(file), "index.db")); err != nil {
		t.Fatal(err)
	}
	r.start()
	s, _ = r.serve(nil)
	if got := verifyAll(t, s, &note.Checkpoint); got.Finding == nil || got.Finding.Sequence != 20 || got.Finding.What != Added {
		t.Errorf("found %+v", got.Finding)
	}
}

// A stream that is deleted and filled anew is not taken for the logged one, neither by a
// running log nor at its start; the log stands still and says so.
func TestLogStandsStillOverAnotherStream(t *testing.T) {
	r := newRig(t)
	r.publish(0, 40)
	s, _ := r.serve(nil)
	before := awaitSize(t, s, 40)
	if err := r.js("shop").DeleteStream(t.Context(), "ORDERS"); err != nil {
		t.Fatal(err)
	}
	r.makeStream("shop", jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	r.publish(0, 60)
	eventually(t, "the fault", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, ErrDisagrees) && s.Fault() != nil, fmt.Sprintf("%+v", st)
	})
	after, _, err := s.Last(t.Context(), "shop", "ORDERS")
	if err != nil || !bytes.Equal(after.Bytes(), before.Bytes()) {
		t.Errorf("the log went on: %v\n%s", err, after.Bytes())
	}
	if got := verifyAll(t, s, &before.Checkpoint); got.Finding == nil || got.Finding.Sequence != 1 || got.Finding.What != Altered {
		t.Errorf("found %+v", got.Finding)
	}
	// The operator has looked and begins a new log: another origin, which contradicts
	// nothing.
	if err := s.Restart(t.Context(), "shop", "ORDERS"); err != nil {
		t.Fatal(err)
	}
	anew := awaitSize(t, s, 60)
	if anew.Origin.String() == before.Origin.String() {
		t.Error("the new log has the name of the old one")
	}
	if err := tlog.CheckConsistency(&before.Checkpoint, &anew.Checkpoint, nil); err == nil {
		t.Error("two logs pass for one")
	}
}

// Also the last event, behind which nothing comes that would show the hole.
func TestLastEventDroppedIsSeen(t *testing.T) {
	r := newLooseRig(t)
	r.publish(0, 30)
	s, stop := r.serve(nil)
	awaitSize(t, s, 30)
	stop()
	stream, err := r.js("shop").Stream(t.Context(), "ORDERS")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.DeleteMsg(t.Context(), 30); err != nil {
		t.Fatal(err)
	}
	s, _ = r.serve(nil)
	eventually(t, "the fault", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, ErrDisagrees), fmt.Sprintf("%+v", st)
	})
}

// Tiles that were changed on disk are not used, and the log does not go on over them.
func TestChangedTileIsSeen(t *testing.T) {
	r := newRig(t)
	r.publish(0, 300)
	s, stop := r.serve(nil)
	note := awaitSize(t, s, 300)
	stop()
	js := r.js(system)
	stream, err := js.Stream(t.Context(), StreamLog)
	if err != nil {
		t.Fatal(err)
	}
	subject := SubjectTile(&note.Origin, 0, 1)
	m, err := stream.GetLastMsgForSubject(t.Context(), subject)
	if err != nil {
		t.Fatal(err)
	}
	m.Data[5] ^= 1
	if _, err := js.Publish(t.Context(), subject, m.Data); err != nil {
		t.Fatal(err)
	}
	s, _ = r.serve(nil)
	eventually(t, "the fault", func() (bool, string) {
		st := s.States()[0]
		return errors.Is(st.Fault, ErrDisagrees), fmt.Sprintf("%+v", st)
	})
	if _, err := s.Verify(t.Context(), "shop", "ORDERS", &note.Checkpoint, 1); !errors.Is(err, ErrDisagrees) {
		t.Errorf("verify: %v", err)
	}
}
