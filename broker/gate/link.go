package gate

import (
	"net"
	"sync"
	"time"
)

// link is one direction of a connection: whole frames, one write at a time. Any
// goroutine may write; a write that fails is the last one.
type link struct {
	mu       sync.Mutex
	nc       net.Conn
	deadline time.Duration // per write
	bytes    *counter
	err      error
}

// write writes whole frames. It blocks for at most the write deadline: a peer that
// does not read is closed by whoever called.
func (l *link) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	if l.err = l.nc.SetWriteDeadline(time.Now().Add(l.deadline)); l.err != nil {
		return l.err
	}
	var n int
	n, l.err = l.nc.Write(b)
	l.bytes.Add(uint64(n))
	return l.err
}

// readWithin bounds the reads of the next d, 0 for no bound.
func (l *link) readWithin(d time.Duration) {
	t := time.Time{}
	if d > 0 {
		t = time.Now().Add(d)
	}
	_ = l.nc.SetReadDeadline(t)
}

// closeWrite tells the peer that nothing follows. It must not overtake a write.
func (l *link) closeWrite() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.nc.(interface{ CloseWrite() error }); ok {
		_ = l.nc.SetWriteDeadline(time.Now().Add(l.deadline))
		_ = c.CloseWrite()
	}
}
