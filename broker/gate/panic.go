package gate

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/signetbus/signet/internal/wire"
)

var errInternal = errors.New("Internal Error")

// A fault of the broker must cost the connection that met it, and no other: each
// goroutine of a connection ends in survive or, where there is more to do than to
// end the connection, in contain.

// survive is deferred by a goroutine of the connection. It turns a panic into the
// end of the connection.
func (l *lifetime) survive() {
	if v := recover(); v != nil {
		l.fault(v)
		l.abort()
	}
}

// contain runs one part of the connection's first goroutine. It turns a panic into
// an error that the client is told without a reason.
func (c *conn) contain(part func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			c.fault(v)
			err = &fatal{err: errInternal, refusal: wire.Refuse(wire.CodeInternal, "panic", "")}
		}
	}()
	return part()
}

// fault counts a panic and tells the sink of the first one of the connection. It is
// called while the stack of the panic still stands.
func (c *conn) fault(v any) {
	c.gate.counters.panics.Add(1)
	if c.faulted.Swap(true) {
		return
	}
	defer func() { _ = recover() }() // the sink may be what is at fault
	what := fmt.Sprintf("a value of type %T", v)
	if e, ok := v.(runtime.Error); ok {
		what = e.Error() // written by the runtime: indexes and types, never bytes of a message
	}
	c.gate.sink.Panicked(c.describe(), what, debug.Stack())
}

// clear frees what the connection holds, after a panic in the course of its end too.
func (c *conn) clear() {
	c.session.subs.close()
	c.session.flights.close()
	c.life.abort()
	c.hold.stop()
	if nc := c.session.up.nc; nc != nil {
		_ = nc.Close()
	}
	c.access.close()
}
