package gate

import "sync"

// Sizes of read buffers. A buffer starts small, grows in these steps while reads
// fill it, and beyond them to exactly one whole message.
const (
	smallBuffer = 512
	midBuffer   = 8 << 10
	largeBuffer = 64 << 10

	// shrinkAfter is how many reads in a row must fit the small buffer before a
	// bigger one is given back. With a server PING every 20 s an idle connection is
	// small again within a minute.
	shrinkAfter = 3
)

var (
	midPool   = sync.Pool{New: func() any { return new([midBuffer]byte) }}
	largePool = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// getBuffer returns a buffer of at least n bytes, from a pool where one fits.
func getBuffer(n int) []byte {
	switch {
	case n <= smallBuffer:
		return make([]byte, smallBuffer)
	case n <= midBuffer:
		return midPool.Get().(*[midBuffer]byte)[:]
	case n <= largeBuffer:
		return largePool.Get().(*[largeBuffer]byte)[:]
	default:
		return make([]byte, n)
	}
}

// putBuffer gives b back. b must have come from getBuffer, whole, and nobody may
// hold a view into it.
func putBuffer(b []byte) {
	switch cap(b) {
	case midBuffer:
		midPool.Put((*[midBuffer]byte)(b[:midBuffer]))
	case largeBuffer:
		largePool.Put((*[largeBuffer]byte)(b[:largeBuffer]))
	}
}

// window is a read buffer with the unread bytes at [r, w). It is used by one
// goroutine.
type window struct {
	buf   []byte
	r, w  int
	short int  // reads in a row that would have fit the small buffer
	grow  bool // the last read filled the buffer: the socket has more
}

// unread returns the bytes that were read and not yet taken.
func (b *window) unread() []byte { return b.buf[b.r:b.w] }

// room moves the unread bytes to the front and makes space for the next read, for
// at least need bytes in all (0 if unknown). Views into the buffer end here.
func (b *window) room(need int) []byte {
	have := b.w - b.r
	want := max(need, smallBuffer, have+1)
	if b.grow {
		want = max(want, grownSize(len(b.buf)))
	}
	switch {
	case want > len(b.buf):
		b.replace(want)
	case have == 0 && len(b.buf) > largeBuffer:
		b.replace(largeBuffer)
	case have == 0 && len(b.buf) > smallBuffer && b.short >= shrinkAfter:
		b.replace(smallBuffer)
	case b.r > 0:
		copy(b.buf, b.buf[b.r:b.w])
		b.r, b.w = 0, have
	}
	return b.buf[b.w:]
}

// filled records a read of n bytes into the slice that room returned.
func (b *window) filled(n int) {
	b.w += n
	b.grow = b.w == len(b.buf)
	if n <= smallBuffer && !b.grow {
		b.short++
	} else {
		b.short = 0
	}
}

// settle forgets how the buffer came to its size: INFO and CONNECT are longer than
// what follows on an idle connection.
func (b *window) settle() { b.grow, b.short = false, shrinkAfter }

// grownSize is the next step after a buffer of n bytes.
func grownSize(n int) int {
	if n < midBuffer {
		return midBuffer
	}
	return largeBuffer
}

func (b *window) replace(size int) {
	next := getBuffer(size)
	n := copy(next, b.buf[b.r:b.w])
	putBuffer(b.buf)
	b.buf, b.r, b.w, b.short = next, 0, n, 0
}

// release gives the buffer back at the end of the connection.
func (b *window) release() {
	putBuffer(b.buf)
	b.buf, b.r, b.w = nil, 0, 0
}
