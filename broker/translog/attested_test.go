package translog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/signing/tlog"
)

// told is an event as a gate puts it.
type told struct {
	subject     string
	block, data []byte
	digest      [sha256.Size]byte
}

func toldEvent(i int, size int) told {
	r := rand.New(rand.NewPCG(uint64(i), uint64(size)))
	data := make([]byte, size)
	for j := range data {
		data[j] = byte(r.Uint32())
	}
	return told{subject: fmt.Sprintf("orders.%d", i%3), block: fmt.Appendf(nil, "NATS/1.0\r\nce-id: %d\r\n\r\n", i), data: data, digest: sha256.Sum256(fmt.Append(nil, i))}
}

func (e *told) put(s *AttestedStream) { s.Put([]byte(e.subject), e.block, e.data, e.digest) }

func (e *told) known(s *AttestedStream) bool {
	sum, ok := s.digest(e.subject, e.block, e.data)
	return ok && sum == tlog.Hash(e.digest)
}

// A digest is given for exactly the bytes that it was computed over.
func TestAttestedBytesOnly(t *testing.T) {
	s := NewAttested().Stream("shop", "ORDERS")
	defer s.write()()
	for i := range 3 {
		e := toldEvent(i, 40)
		e.put(s)
	}
	for i := range 3 {
		e := toldEvent(i, 40)
		if !e.known(s) {
			t.Fatalf("event %d is not known", i)
		}
		for name, b := range map[string][]byte{"block": e.block, "data": e.data} {
			for at := range b {
				b[at] ^= 1
				if sum, ok := s.digest(e.subject, e.block, e.data); ok {
					t.Errorf("event %d: byte %d of the %s differs, and the digest is %x", i, at, name, sum)
				}
				b[at] ^= 1
			}
		}
		for name, other := range map[string]told{
			"subject":             {e.subject + "x", e.block, e.data, e.digest},
			"shorter data":        {e.subject, e.block, e.data[1:], e.digest},
			"no data":             {e.subject, e.block, nil, e.digest},
			"no block":            {e.subject, nil, e.data, e.digest},
			"bytes moved forward": {e.subject, append(bytes.Clone(e.block), e.data[0]), e.data[1:], e.digest},
			"bytes moved back":    {e.subject + string(e.block[:1]), e.block[1:], e.data, e.digest},
		} {
			if _, ok := s.digest(other.subject, other.block, other.data); ok {
				t.Errorf("event %d: %s: a digest", i, name)
			}
		}
	}
}

// Whatever has been written over or was never there is not known, and what is known has
// its own digest: with events of all lengths, several times round the ring, from two
// senders, and read back in another order now and then.
func TestAttestedRoundTheRing(t *testing.T) {
	s := NewAttested().Stream("shop", "ORDERS")
	defer s.write()()
	r := rand.New(rand.NewPCG(1, 2))
	var last []told
	hits, looked, written := 0, 0, 0
	for i := 0; written < 5*attestedRing; i++ {
		e := toldEvent(i, int(r.Int64N(attestedMost/2)))
		written += len(e.data)
		e.put(s)
		if last = append(last, e); len(last) < 4 {
			continue
		}
		if i%5 == 0 {
			r.Shuffle(len(last), func(a, b int) { last[a], last[b] = last[b], last[a] })
		}
		for _, e := range last {
			looked++
			if sum, ok := s.digest(e.subject, e.block, e.data); ok && sum != tlog.Hash(e.digest) {
				t.Fatalf("the digest of another event: %q", e.block)
			} else if ok {
				hits++
			}
		}
		last = last[:0]
	}
	for i := range 100 { // written over long ago
		if e := toldEvent(i, 10); e.known(s) {
			t.Errorf("event %d is still known", i)
		}
	}
	if hits < looked*9/10 {
		t.Errorf("%d of %d found, though each was put just before", hits, looked)
	}
}

// What a sender writes into its payloads is never taken for what a gate has noted, also
// where the ring begins anew.
func TestAttestedForgedInside(t *testing.T) {
	s := NewAttested().Stream("shop", "ORDERS")
	defer s.write()()
	victim := told{subject: "orders.1", block: []byte("NATS/1.0\r\nce-id: victim\r\n\r\n"), data: []byte("x"), digest: [32]byte{6, 6, 6}}
	note := binary.LittleEndian.AppendUint32(nil, uint32(len(victim.subject)))
	note = binary.LittleEndian.AppendUint32(note, uint32(len(victim.block)))
	note = binary.LittleEndian.AppendUint32(note, uint32(len(victim.data)))
	note = append(append(append(append(note, victim.digest[:]...), victim.subject...), victim.block...), victim.data...)
	for i, written := 0, 0; written < 3*attestedRing; i++ {
		e := toldEvent(i, 0)
		e.data = bytes.Repeat(note, (attestedMost-1024-i%1000)/len(note))
		written += len(e.data)
		e.put(s)
		if !e.known(s) { // where the next is looked for first is behind it now
			t.Fatalf("event %d is not known", i)
		}
		if sum, ok := s.digest(victim.subject, victim.block, victim.data); ok {
			t.Fatalf("after %d events: the forged digest %x", i, sum)
		}
	}
}

// Without a log that is written here nothing is kept; what is too long never is.
func TestAttestedHoldsWhatIsOfUse(t *testing.T) {
	a := NewAttested()
	s, other := a.Stream("shop", "ORDERS"), a.Stream("shop", "OTHER")
	if s != a.Stream("shop", "ORDERS") || s == other {
		t.Fatal("streams are not told apart")
	}
	e := toldEvent(1, 10)
	if e.put(s); a.ring != nil || e.known(s) {
		t.Error("kept, and nobody writes the log")
	}
	done := s.write()
	if other.Wanted() || !s.Wanted() {
		t.Errorf("wanted: %v, and of another stream %v", s.Wanted(), other.Wanted())
	}
	if e.put(s); !e.known(s) {
		t.Error("not known")
	}
	long := toldEvent(2, attestedMost)
	if long.put(s); long.known(s) {
		t.Error("an event of any length is kept")
	}
	if done(); a.ring != nil || a.places != nil || s.Wanted() || e.known(s) {
		t.Error("still kept after the last writer has ended")
	}
	done = s.write()
	defer done()
	if e.known(s) {
		t.Error("known to the next writer")
	}
	if e.put(s); !e.known(s) {
		t.Error("not known to the next writer")
	}
}

func TestAttestedDoesNotAllocate(t *testing.T) {
	s := NewAttested().Stream("shop", "ORDERS")
	defer s.write()()
	e := toldEvent(1, 256)
	e.put(s)
	subject := []byte(e.subject)
	if n := testing.AllocsPerRun(1000, func() {
		s.Put(subject, e.block, e.data, e.digest)
		if _, ok := s.digest(e.subject, e.block, e.data); !ok {
			t.Fatal("not known")
		}
	}); n > 0 {
		t.Errorf("%.1f allocations for an event", n)
	}
}

// Gates put while logs look, begin and end.
func TestAttestedFromManySides(t *testing.T) {
	a := NewAttested()
	var work sync.WaitGroup
	for side := range 4 {
		s := a.Stream("shop", fmt.Sprint("S", side%2))
		work.Go(func() {
			for i := range 300 {
				done := s.write()
				e := toldEvent(4*i+side, 2000)
				e.put(s)
				if sum, ok := s.digest(e.subject, e.block, e.data); ok && sum != tlog.Hash(e.digest) {
					t.Errorf("the digest of another event")
				}
				done()
			}
		})
	}
	work.Wait()
	if a.ring != nil || a.writers != 0 {
		t.Errorf("%d writers are left", a.writers)
	}
}

// tell publishes events and puts what the stream has stored of them, as a gate does
// before; change may change what is put.
func (r *rig) tell(s *AttestedStream, n int, change func(*told)) {
	r.tb.Helper()
	r.publish(0, n)
	nc, err := r.conn("shop")
	if err != nil {
		r.tb.Fatal(err)
	}
	var h tlog.Hasher
	for seq := 1; seq <= n; seq++ {
		m, err := get(r.tb.Context(), nc, "ORDERS", map[string]any{"seq": seq})
		if err != nil || m == nil {
			r.tb.Fatalf("sequence %d: %v", seq, err)
		}
		leaf := h.Stored(m.Seq, m.Time.UnixNano(), m.Subject, m.Headers, m.Data)
		if leaf.Kind != tlog.Event {
			r.tb.Fatalf("sequence %d is no event", seq)
		}
		e := told{m.Subject, m.Headers, m.Data, leaf.Content}
		if change != nil {
			change(&e)
		}
		e.put(s)
	}
}

// The log that takes digests from the gate is the log that computes them; what is stored
// otherwise than the gate has written it is logged as it is stored; and a gate that hashes
// otherwise than readers is found out at the first event.
func TestLogTakesDigests(t *testing.T) {
	const n = 700
	for name, row := range map[string]struct {
		change func(*told)
		least  uint64 // leaves for which a digest is taken
		most   uint64
		says   string
	}{
		// Another may have the place of the first, behind which they come in order.
		"as written":       {nil, n - 1, n, ""},
		"changed in data":  {func(e *told) { e.data[3] ^= 1 }, 0, 0, ""},
		"changed in block": {func(e *told) { e.block[20] ^= 1 }, 0, 0, ""},
		"wrong digests":    {func(e *told) { e.digest[0] ^= 1 }, 1, 1, "a gate has hashed another event"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a := NewAttested()
			stream := a.Stream("shop", "ORDERS")
			done := stream.write()
			r.tell(stream, n, row.change)
			var said strings.Builder
			s, stop := r.serve(func(c *Config) {
				c.Attested = a
				c.Log = zerolog.New(zerolog.SyncWriter(&said))
			})
			note := awaitSize(t, s, n)
			if v := verifyAll(t, s, &note.Checkpoint); v.Finding != nil || v.Compared != n {
				t.Errorf("%d events compared, %+v", v.Compared, v.Finding)
			}
			if st := s.States()[0]; st.Attested < row.least || st.Attested > row.most {
				t.Errorf("%d digests taken, want %d to %d", st.Attested, row.least, row.most)
			}
			stop()
			if !strings.Contains(said.String(), row.says) {
				t.Errorf("it says %q", said.String())
			}
			if done(); stream.Wanted() || a.ring != nil {
				t.Error("the writer of the log has not let go")
			}
		})
	}
}
