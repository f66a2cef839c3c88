package gate

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// inForce is what one Reload has put in force. It is another value each time, also where
// the policy is the same: the keys of an issuer, or whom the operator trusts, may have changed.
type inForce struct{ set *policy.Set }

// access is who a connection belongs to and its permission at the server. The
// handshake fills it and Reload changes it; mu orders the two. creds does not change
// after CONNECT was read.
type access struct {
	deps   *Deps
	policy *atomic.Pointer[inForce] // the Gate's
	box    *inbox
	creds  *identity.Credentials

	principal atomic.Pointer[policy.Principal] // nil before authentication
	login     atomic.Pointer[identity.Login]   // stored before principal
	// renewals counts the calls of renew that have let the connection be: with the same
	// principal the admission may be another, with another key.
	renewals atomic.Uint64

	mu     sync.Mutex
	ticket string // empty until the handshake has asked for it
	revoke func()
}

// authenticate stores the principal of the credentials, by what is in force when it
// returns: a Reload either finds the principal or is seen here.
func (a *access) authenticate(ctx context.Context) *wire.Refusal {
	for {
		now := a.policy.Load()
		login, refusal := a.deps.Authenticate(ctx, now.set, a.creds)
		if refusal == nil && login.Principal == nil {
			refusal = wire.Refuse(wire.CodeInternal, "authenticate", "")
		}
		if refusal != nil {
			return refusal
		}
		a.login.Store(&login)
		a.principal.Store(login.Principal)
		if a.policy.Load() == now {
			return nil
		}
	}
}

// permissions are those of p, and to hear what the gate itself asks for on its behalf.
func (a *access) permissions(p *policy.Principal) (publish, subscribe []string) {
	publish, subscribe = acl.Permissions(p, a.box.token)
	return publish, append(subscribe, a.box.acks+"*")
}

// open gets the ticket for a connection to the server with that local address.
func (a *access) open(local net.Addr) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.principal.Load()
	publish, subscribe := a.permissions(p)
	a.ticket, a.revoke = a.deps.Upstream.Ticket(p.Tenant.Name, publish, subscribe, local)
	return a.ticket
}

// renew checks the credentials against set. was is nil before authentication, where
// the handshake will see set by itself. now is nil if set does not let the connection
// be what it was; otherwise it is the principal from here on, and the ticket has its
// permissions.
func (a *access) renew(ctx context.Context, set *policy.Set) (was, now *policy.Principal) {
	if was = a.principal.Load(); was == nil {
		return nil, nil
	}
	// What the authenticator would have to wait for (keys of an issuer), a reload does not.
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	login, refusal := a.deps.Authenticate(ctx, set, a.creds)
	now = login.Principal
	if refusal != nil || now == nil || now.FullName() != was.FullName() {
		return was, nil
	}
	a.login.Store(&login)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.principal.Store(now)
	a.renewals.Add(1)
	if a.ticket != "" {
		publish, subscribe := a.permissions(now)
		a.deps.Upstream.UpdateTicket(a.ticket, publish, subscribe)
	}
	return was, now
}

// bar takes every permission from the ticket.
func (a *access) bar() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ticket != "" {
		a.deps.Upstream.UpdateTicket(a.ticket, nil, nil)
	}
}

// close gives the ticket back, if there is one. The reader calls it, last.
func (a *access) close() {
	if a.revoke != nil {
		a.revoke()
	}
}
