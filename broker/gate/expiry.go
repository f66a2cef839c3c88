package gate

import (
	"sync"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

// expiryLook is how long the gate goes at most without comparing the end of a
// connection's proof with the wall clock, which may be set.
const expiryLook = 30 * time.Second

// expiry ends a connection when what it proved itself with does: the certificate's
// notAfter, the token's exp. The first goroutine of the connection arms and stops it;
// the timer runs in a goroutine of its own.
type expiry struct {
	mu      sync.Mutex
	timer   *time.Timer // nil: not armed
	stopped bool
}

// arm starts to look. A connection without an end costs nothing.
func (e *expiry) arm(c *conn) {
	login := c.access.login.Load()
	if login == nil || login.Until.IsZero() {
		return
	}
	e.look(c)
}

// look cuts c if its time is over, and otherwise looks again when it may be. A Reload
// may have moved the end.
func (e *expiry) look(c *conn) {
	left := time.Until(c.access.login.Load().Until.Round(0))
	if left <= 0 {
		c.cut(c.access.principal.Load(), wire.Refuse(wire.CodeCredentialExpired, "expiry", ""), errExpired)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.stopped {
		e.timer = time.AfterFunc(min(left, expiryLook), func() { c.gate.spawn(c, func() { e.look(c) }) })
	}
}

func (e *expiry) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	if e.timer != nil {
		e.timer.Stop()
	}
}
