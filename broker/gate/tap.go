package gate

import (
	"encoding/binary"
	"net"
)

const (
	recordHeader = 5
	// worthMerging is the smallest record, in bytes, that is read together with the
	// one before it. It is above those of TLS itself, such as a key update: reading
	// one of these would wait for the next event while others are at hand.
	worthMerging = 64
)

// tap lies between a socket and TLS. It reads in large pieces and hands the TLS
// layer one record at a time, so that the reader can tell whether another record
// is there already. Many small records then make one batch, with one signature and
// one write upstream, where each would have made its own. It holds a buffer only
// while there is more than one record. The reader's goroutine alone uses it.
type tap struct {
	net.Conn
	buf    []byte // from getBuffer; nil while nothing is left over
	r, w   int
	header [recordHeader]byte // of the record that is being handed out
	known  int                // bytes of it
	left   int                // bytes of its body
	busy   bool               // the last read found more than it had room for
}

// waiting reports whether a whole record is at hand.
func (t *tap) waiting() bool {
	have := t.buf[t.r:t.w]
	switch {
	case t.left > 0:
		return len(have) >= t.left && t.left >= worthMerging
	case t.known > 0 || len(have) < recordHeader:
		return false
	}
	size := bodySize(have)
	return size >= worthMerging && len(have) >= recordHeader+size
}

func bodySize(header []byte) int { return int(binary.BigEndian.Uint16(header[3:])) }

// Read returns at most what is left of the current record.
func (t *tap) Read(p []byte) (int, error) {
	if t.r == t.w && !t.busy {
		n, err := t.Conn.Read(p)
		t.busy = n == len(p) && n > 0
		return t.keepRest(p[:n]), err
	}
	if t.r == t.w {
		t.buf = getBuffer(largeBuffer)
		n, err := t.Conn.Read(t.buf)
		t.r, t.w, t.busy = 0, n, n == len(t.buf)
		if n == 0 {
			t.release()
			return 0, err
		}
	}
	n := t.record(t.buf[t.r:t.w], len(p))
	copy(p, t.buf[t.r:t.r+n])
	t.r += n
	if t.r == t.w {
		t.release()
	}
	return n, nil
}

// keepRest keeps what follows the current record in b, and returns the length of
// what does not.
func (t *tap) keepRest(b []byte) int {
	n := t.record(b, len(b))
	if rest := b[n:]; len(rest) > 0 {
		t.buf = getBuffer(max(len(rest), smallBuffer+1))
		t.r, t.w = 0, copy(t.buf, rest)
	}
	return n
}

// record counts as handed out what belongs to the current record at the start of
// b, at most limit bytes, and returns how many that are.
func (t *tap) record(b []byte, limit int) int {
	b = b[:min(len(b), limit)]
	head := 0
	if t.left == 0 {
		head = copy(t.header[t.known:], b)
		if t.known += head; t.known < recordHeader {
			return head
		}
		t.known, t.left = 0, bodySize(t.header[:])
	}
	body := min(len(b)-head, t.left)
	t.left -= body
	return head + body
}

func (t *tap) release() {
	putBuffer(t.buf)
	t.buf, t.r, t.w = nil, 0, 0
}
