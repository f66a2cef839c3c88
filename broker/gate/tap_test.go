package gate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// pieces is a socket that returns its bytes in pieces of random size.
type pieces struct {
	net.Conn
	data []byte
	rng  *rand.Rand
	most int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.data[:min(len(p.data), 1+p.rng.IntN(p.most))])
	p.data = p.data[n:]
	return n, nil
}

func tlsRecord(size int) []byte {
	b := append([]byte{23, 3, 3, 0, 0}, bytes.Repeat([]byte{byte(size)}, size)...)
	binary.BigEndian.PutUint16(b[3:], uint16(size))
	return b
}

// However the socket cuts the bytes and whatever TLS asks for, the bytes arrive
// unchanged, no read goes past the end of a record, and waiting never promises
// what a read would have to wait for.
func TestTapKeepsRecords(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var data []byte
		ends := map[int]bool{}
		for range 1 + rng.IntN(40) {
			data = append(data, tlsRecord(rng.IntN(700)*rng.IntN(2)+rng.IntN(90))...)
			ends[len(data)] = true
		}
		socket := &pieces{data: data, rng: rng, most: 1 + rng.IntN(3000)}
		tp := &tap{Conn: socket}
		var got []byte
		for {
			whole, before := tp.waiting(), len(socket.data)
			p := make([]byte, 5+rng.IntN(1200))
			n, err := tp.Read(p)
			for i := 1; i < n; i++ {
				if ends[len(got)+i] {
					t.Fatalf("seed %d: a read of %d went over the end of a record", seed, n)
				}
			}
			got = append(got, p[:n]...)
			if whole && len(socket.data) != before {
				t.Fatalf("seed %d: a record was waiting and the socket was read", seed)
			}
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("seed %d: %d bytes in, %d out, or changed", seed, len(data), len(got))
		}
		if tp.buf != nil {
			t.Fatalf("seed %d: an idle tap holds a buffer", seed)
		}
	}
}

// A record of TLS itself must not be waited behind: it carries no event.
func TestTapDoesNotWaitBehindKeyUpdate(t *testing.T) {
	data := append(tlsRecord(300), tlsRecord(22)...)
	tp := &tap{Conn: &pieces{data: data, rng: rand.New(rand.NewPCG(1, 1)), most: len(data) + 1}}
	for range 2 {
		if _, err := tp.Read(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
		if tp.waiting() {
			t.Fatal("a key update counts as an event")
		}
	}
}
