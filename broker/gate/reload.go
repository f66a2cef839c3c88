package gate

import (
	"github.com/signetbus/signet/broker/acl"
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
	g.policy.Store(set)
	for _, c := range g.snapshot() {
		c.reauthorise(set)
	}
}

func (c *conn) reauthorise(set *policy.Set) {
	old := c.principal.Load()
	if old == nil {
		return // the handshake will see the new set
	}
	p, refusal := c.gate.deps.Authenticate(c.life, set, c.creds)
	if refusal != nil || p == nil || p.FullName() != old.FullName() {
		r := wire.Refuse(wire.CodePrincipalRevoked, "reload", "")
		c.gate.counters.refuse(r.Code)
		r.Principal = old.FullName()
		c.gate.sink.Refused(r, &Rejected{Verb: verbNameConnect, Tenant: old.Tenant.Name, Principal: old.Name, Remote: c.creds.RemoteAddr})
		c.cut()
		return
	}
	c.ticketMu.Lock()
	c.principal.Store(p)
	if c.token != "" {
		publish, subscribe := acl.Permissions(p, c.box.token)
		c.gate.deps.Upstream.UpdateTicket(c.token, publish, subscribe)
	}
	c.ticketMu.Unlock()
	c.gate.spawn(func() { c.recheckSubscriptions(p) })
}

// cut ends the connection of a principal that is no longer let in. Nothing of it
// that is not forwarded yet will be.
func (c *conn) cut() {
	c.ticketMu.Lock()
	if c.token != "" {
		c.gate.deps.Upstream.UpdateTicket(c.token, nil, nil)
	}
	c.ticketMu.Unlock()
	c.wake(errRevoked)
}

// recheckSubscriptions ends the subscriptions that p may not have. The server's own
// check ends them too when it reloads; this is at once and says why.
func (c *conn) recheckSubscriptions(p *policy.Principal) {
	for _, s := range c.subs.list() {
		if s.inbox {
			continue
		}
		_, refusal := c.judgeSub(p, s)
		if refusal == nil {
			continue
		}
		c.subs.drop(s)
		if c.up.write(appendUnsub(nil, s.sid, 0)) != nil {
			return
		}
		c.gate.counters.refuse(refusal.Code)
		c.gate.sink.Refused(refusal, &Rejected{
			Verb: verbNameSubscribe, Tenant: p.Tenant.Name, Principal: p.Name,
			Remote: c.creds.RemoteAddr, Subject: []byte(s.subject),
		})
		if c.down.write(appendErr(nil, subText(s, refusal))) != nil {
			return
		}
	}
}
