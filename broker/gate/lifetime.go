package gate

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// lifetime is how a connection comes to its end. Any goroutine may call its
// methods, more than once.
type lifetime struct {
	raw     net.Conn              // the client's socket, under TLS
	ctx     context.Context       // ends when the connection is cut; bounds every wait
	end     context.CancelFunc    // of ctx
	closing atomic.Pointer[error] // why the reader should stop; a nil error: without -ERR
	fault   func(v any)           // reports a panic
}

func (l *lifetime) init(raw net.Conn, fault func(v any)) {
	l.raw, l.fault = raw, fault
	l.ctx, l.end = context.WithCancel(context.Background())
}

// wake ends the reader at its next read; why, if not nil, is said to the client.
// The first call counts.
func (l *lifetime) wake(why error) {
	if l.closing.CompareAndSwap(nil, &why) {
		_ = l.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// woken reports whether the reader should stop. It is asked after a read deadline
// was set, which may have undone that of wake.
func (l *lifetime) woken() bool { return l.closing.Load() != nil }

// reason is what wake was told; nil if it was not called.
func (l *lifetime) reason() error {
	if why := l.closing.Load(); why != nil {
		return *why
	}
	return nil
}

// abort ends every wait and every read and write with the client. What was written
// upstream is still processed.
func (l *lifetime) abort() {
	l.end()
	_ = l.raw.Close()
}

// reset is abort for a client that does not read: what the kernel still holds for
// it is dropped, not kept until it does.
func (l *lifetime) reset() {
	if t, ok := l.raw.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	l.abort()
}
