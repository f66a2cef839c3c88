package gate

import (
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Reload makes set the policy in force and authorises every live connection again:
// its credentials are checked against set, a connection whose principal is gone,
// disabled or another one is cut with -ERR, and the others continue with the new
// grants from their next batch on. Subscriptions that are no longer granted end.
//
// The tickets of the connections have the new permissions when Reload returns; the
// caller makes the server apply them (its own reload). Reload does not wait for
// clients.
func (g *Gate) Reload(set *policy.Set) {
	g.policy.Store(&inForce{set})
	g.rates.Sweep(time.Now().UnixNano()) // principals that are gone
	for _, c := range g.snapshot() {
		c.reauthorise(set)
	}
}

func (c *conn) reauthorise(set *policy.Set) {
	was, now := c.access.renew(c.life.ctx, set)
	switch {
	case was == nil: // the handshake will see the new set
	case now == nil:
		// Nothing of the connection that is not forwarded yet will be.
		c.session.audit.refused(was, wire.Refuse(wire.CodePrincipalRevoked, "reload", ""), Rejected{Verb: verbNameConnect})
		c.access.bar()
		c.life.wake(errRevoked)
	default:
		c.gate.spawn(c, func() { c.session.recheck(now) })
	}
}
