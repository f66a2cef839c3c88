package embed

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
)

var noAddress netip.AddrPort

// Reload checks every live connection against its ticket again: permissions set
// by UpdateTicket take effect, and a connection whose ticket was revoked is cut.
//
// Errors: ErrReload.
func (s *Server) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloadLocked(s.accounts)
}

// ReloadAccounts brings the accounts to the given list, and does what Reload
// does. It returns when the new accounts can hold streams. Accounts that are not
// in the list stay until the next start, with the limits they had. Live
// connections stay up. When it fails the accounts are as before.
//
// Errors: ErrConfig for the list; ErrReload, for instance where an account's limit
// would be lower than what its streams reserve.
func (s *Server) ReloadAccounts(tenants []TenantAccount) error {
	if err := checkTenants(tenants); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maps.Clone(s.accounts)
	for _, t := range tenants {
		// nats-server takes a limit below what is reserved without a word, and
		// then refuses writes.
		if reserved, err := s.reserved(t.Name); err != nil {
			return err
		} else if uint64(t.MaxBytes) < reserved {
			return fmt.Errorf("%w: account %s: the limit of %d bytes is below the %d that its streams reserve", ErrReload, t.Name, t.MaxBytes, reserved)
		}
		next[t.Name] = t
	}
	if err := s.reloadLocked(next); err != nil {
		return errors.Join(err, s.reloadLocked(s.accounts))
	}
	s.accounts = next
	return nil
}

func (s *Server) reloadLocked(accounts map[string]TenantAccount) error {
	list := slices.Collect(maps.Values(accounts))
	limits := s.limits.grow(list)
	opts, err := s.cfg.options(list, limits, s.tickets, s.routes)
	if err != nil {
		return err
	}
	// The accounts always differ in nats-server's eyes, so that each reload
	// re-checks the connections; TestRevokedTicketIsCutAtReload holds it to that.
	if err := s.reloadOptions(opts); err != nil {
		return fmt.Errorf("%w: %w", ErrReload, err)
	}
	s.limits = limits
	return s.checkLimits(accounts)
}

// reloadOptions waits until nobody logs in, and keeps them waiting meanwhile.
func (s *Server) reloadOptions(opts *server.Options) error {
	s.connecting.Lock()
	defer s.connecting.Unlock()
	return s.ns.ReloadOptions(opts)
}

// checkLimits compares what the server made of the accounts with what was asked:
// nats-server only logs when it cannot enable JetStream for an account.
func (s *Server) checkLimits(accounts map[string]TenantAccount) error {
	for name, want := range accounts {
		acc, err := s.ns.LookupAccount(name)
		if err != nil {
			return fmt.Errorf("%w: account %s: %w", ErrReload, name, err)
		}
		if !acc.JetStreamEnabled() {
			return fmt.Errorf("%w: account %s has no JetStream", ErrReload, name)
		}
		if got := acc.JetStreamUsage().Limits.MaxStore; got != want.MaxBytes {
			return fmt.Errorf("%w: account %s has a limit of %d bytes, not %d", ErrReload, name, got, want.MaxBytes)
		}
	}
	return nil
}

// reserved is how many bytes the streams of an account reserve; 0 if it is new.
func (s *Server) reserved(name string) (uint64, error) {
	if _, ok := s.accounts[name]; !ok {
		return 0, nil
	}
	acc, err := s.ns.LookupAccount(name)
	if err != nil {
		return 0, fmt.Errorf("%w: account %s: %w", ErrReload, name, err)
	}
	return acc.JetStreamUsage().ReservedStore, nil
}
