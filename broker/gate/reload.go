package gate

import (
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Reload makes set the policy in force and authorises every live connection again:
// its credentials are checked against set, a connection whose principal is gone,
// disabled or another one is cut with -ERR, and the others continue with the new
// grants from their next batch on. Subscriptions that are no longer granted end. A
// connection whose principal has lost a share of consumers is closed without -ERR, so
// that client libraries connect again: what it has asked of them goes with it.
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
		c.cut(was, wire.Refuse(wire.CodePrincipalRevoked, "reload", ""), errRevoked)
	case lostShare(was, now):
		// The server keeps pull requests for as long as their sender said, and drops
		// those whose inbox nobody listens to.
		c.cut(now, wire.Refuse(wire.CodeConsumerNotOwned, "reload", "a share of consumers was taken away; connect again"), nil)
	default:
		c.gate.spawn(c, func() { c.session.recheck(now) })
	}
}

// cut ends the connection of p and tells the sink of refusal: nothing of it that is not
// forwarded yet will be. why, if not nil, is said to the client.
func (c *conn) cut(p *policy.Principal, refusal *wire.Refusal, why error) {
	c.session.audit.refused(p, refusal, Rejected{Verb: verbNameConnect})
	c.access.bar()
	c.life.wake(why)
}

// lostShare reports whether a consumers grant of was is none of now.
func lostShare(was, now *policy.Principal) bool {
	for _, g := range was.Grants.Consumers.All() {
		if now.Grants.Consumers.Covers(g.Pattern) == nil {
			return true
		}
	}
	return false
}
