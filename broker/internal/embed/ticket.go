package embed

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ticketTTL is how long a ticket may wait for its CONNECT. The server itself cuts
// a connection that has not authenticated after two seconds.
const ticketTTL = 30 * time.Second

// nothing is the one entry of an allow list that allows nothing: for nats-server
// an empty subscribe list means that everything is allowed.
const nothing = "_SIGNET_NOTHING_"

// ticket is one permission to connect. Fields but the first two change under
// tickets.mu.
type ticket struct {
	account string
	from    netip.AddrPort // the redeemer's source address; zero: an in-process pipe
	expires time.Time      // of the redemption, not of the connection
	perms   *server.Permissions
	cid     uint64 // the connection that redeemed it; 0: not yet redeemed
}

// tickets is the table of all live tickets, keyed by the hash of the token so
// that the look-up's timing says nothing about tokens. It is nats-server's custom
// authenticator.
type tickets struct {
	mu      sync.Mutex // leaf: nothing is called while it is held
	table   map[[sha256.Size]byte]*ticket
	lookup  func(account string) (*server.Account, error) // set before the server starts
	now     func() time.Time
	refused atomic.Uint64
}

var _ server.Authentication = (*tickets)(nil)

func newTickets() *tickets {
	return &tickets{table: make(map[[sha256.Size]byte]*ticket), now: time.Now}
}

func (t *tickets) issue(account string, from netip.AddrPort, perms *server.Permissions) string {
	var raw [32]byte
	rand.Read(raw[:]) // never fails; it would crash the process first
	token := base64.RawURLEncoding.EncodeToString(raw[:])
	t.mu.Lock()
	defer t.mu.Unlock()
	t.table[sha256.Sum256([]byte(token))] = &ticket{
		account: account, from: from, perms: perms, expires: t.now().Add(ticketTTL),
	}
	return token
}

func (t *tickets) revoke(token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.table, sha256.Sum256([]byte(token)))
}

func (t *tickets) update(token string, perms *server.Permissions) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k, ok := t.table[sha256.Sum256([]byte(token))]; ok {
		k.perms = perms
	}
}

func (t *tickets) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.table)
}

// Check is called by nats-server for every CONNECT, and at every reload for every
// live connection. It must not change its mind about a connection whose ticket
// stands.
func (t *tickets) Check(c server.ClientAuthentication) bool {
	account, perms, ok := t.admit(c)
	if ok {
		acc, err := t.lookup(account)
		if err == nil {
			// No Username: see the package comment.
			c.RegisterUser(&server.User{Account: acc, Permissions: perms})
			return true
		}
	}
	t.refused.Add(1)
	return false
}

func (t *tickets) admit(c server.ClientAuthentication) (account string, perms *server.Permissions, ok bool) {
	o := c.GetOpts()
	if c.Kind() != server.CLIENT || o.Username != "" || o.Password != "" || o.Nkey != "" || o.JWT != "" {
		return "", nil, false
	}
	from, ok := source(c.RemoteAddress())
	if !ok {
		return "", nil, false
	}
	id := c.GetID()
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.table[sha256.Sum256([]byte(o.Token))]
	switch {
	case k == nil, k.from != from:
		return "", nil, false
	case k.cid == 0 && t.now().Before(k.expires):
		k.cid = id
	case k.cid != id:
		return "", nil, false
	}
	return k.account, k.perms, true
}

// source reads the address of a connection: a TCP source address, or the zero
// value for an in-process pipe. Anything else has none.
func source(a net.Addr) (netip.AddrPort, bool) {
	switch a := a.(type) {
	case nil:
		return netip.AddrPort{}, false
	case *net.TCPAddr:
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()), p.IsValid()
	default:
		return netip.AddrPort{}, a.Network() == "pipe"
	}
}

func permissions(publish, subscribe []string) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: allowList(publish)},
		Subscribe: &server.SubjectPermission{Allow: allowList(subscribe)},
	}
}

func allowList(subjects []string) []string {
	if len(subjects) == 0 {
		return []string{nothing}
	}
	return slices.Clone(subjects)
}
