package keyring

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Errors of changes. ErrNoKey and ErrKeyHeld are about one key that was named.
var (
	// ErrBreaks: a ring takes from readers what another one let them verify.
	ErrBreaks  = errors.New("keyring: events that verify by the keyring in use would no longer do so")
	ErrNoKey   = errors.New("keyring: no such key")
	ErrKeyHeld = errors.New("keyring: the key is in the keyring already")
)

// Change is the next version of a ring in the making. It begins with every key of the
// ring before, as it was: what a key has signed verifies only while the key is there.
// Not safe for concurrent use.
type Change struct {
	now     time.Time
	version uint64
	keys    []Key
}

// Change begins the next version of r; of none if r is nil. now is the clock of whoever
// makes it.
func (r *Ring) Change(now time.Time) *Change {
	c := &Change{now: now, version: uint64(max(now.Unix(), 1))}
	if r != nil {
		c.version, c.keys = max(c.version, r.version+1), r.Keys()
	}
	return c
}

func (c *Change) find(id string) *Key {
	i := slices.IndexFunc(c.keys, func(k Key) bool { return k.ID == id })
	if i < 0 {
		return nil
	}
	return &c.keys[i]
}

// Issue adds a key. Ring checks what is in it.
//
// Errors: ErrKeyHeld.
func (c *Change) Issue(k Key) error {
	if c.find(k.ID) != nil {
		return fmt.Errorf("%w: %s", ErrKeyHeld, k.ID)
	}
	c.keys = append(c.keys, k)
	return nil
}

// Rotate adds the key next, good from from until until, to take the place of the key
// id: it gets that key's algorithm, role, holder and bounds, and that key ends at end, if
// it does not end sooner.
//
// Errors: ErrNoKey; ErrKeyHeld; ErrInvalid unless now < end and from < end, for a key
// that ends before its successor begins leaves a gap in which its holder can sign
// nothing, and for a key that has ended or is revoked.
func (c *Change) Rotate(id, next string, from, until, end time.Time) error {
	old := c.find(id)
	switch {
	case old == nil:
		return fmt.Errorf("%w: %s", ErrNoKey, id)
	case !old.RevokedAt.IsZero():
		return fmt.Errorf("%w: %s is revoked: issue a new key", ErrInvalid, id)
	case !c.now.Before(old.NotAfter):
		return fmt.Errorf("%w: %s has ended at %s: issue a new key", ErrInvalid, id, old.NotAfter.Format(timeLayout))
	case !c.now.Before(end) || !from.Before(end):
		return fmt.Errorf("%w: the old key must end after now, and after the new one begins", ErrInvalid)
	case !from.Before(old.NotAfter):
		return fmt.Errorf("%w: %s ends at %s, before the new key would begin: use a shorter overlap", ErrInvalid, id, old.NotAfter.Format(timeLayout))
	}
	k := *old
	k.ID, k.NotBefore, k.NotAfter = next, from, until
	if end.Before(old.NotAfter) {
		old.NotAfter = end
	}
	return c.Issue(k)
}

// Revoke refuses what the key id has signed at the instant at or later. A key whose
// theft has no known time is revoked at its NotBefore. A revocation can be moved to an
// earlier time, never to a later one.
//
// Errors: ErrNoKey; ErrInvalid for a later time.
func (c *Change) Revoke(id string, at time.Time) error {
	k := c.find(id)
	if k == nil {
		return fmt.Errorf("%w: %s", ErrNoKey, id)
	}
	if !k.RevokedAt.IsZero() && k.RevokedAt.Before(second(at)) {
		return fmt.Errorf("%w: %s is revoked from %s on already; it can only be moved to an earlier time", ErrInvalid, id, k.RevokedAt.Format(timeLayout))
	}
	k.RevokedAt = second(at)
	return nil
}

// Ring returns the new version, issued a minute before the change began, for readers
// whose clocks are behind.
//
// Errors: ErrInvalid, with all faults joined.
func (c *Change) Ring(expires time.Time) (*Ring, error) {
	return New(c.version, c.now.Add(-time.Minute), expires, c.keys)
}

// Keeps reports what readers who verify by old, at the time now, would lose with r, all
// of it joined: a key that is gone, or has another role or holder, begins later, is
// revoked no longer or only from a later time on, or ends sooner at a time that is over.
// A revocation is no loss: it is meant. An old of nil has nothing to lose.
//
// Errors: ErrBreaks.
func (r *Ring) Keeps(old *Ring, now time.Time) error {
	if old == nil {
		return nil
	}
	var faults []error
	for i := range old.keys {
		was := &old.keys[i]
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("%w: key %s of %s "+format, append([]any{ErrBreaks, was.ID, was.Principal}, args...)...))
		}
		k, ok := r.ByID(was.ID)
		switch {
		case !ok:
			fault("is gone: put it back as it was")
		case k.Role != was.Role || k.Principal != was.Principal || k.Alg != was.Alg:
			fault("is now of %s %s", k.Role, k.Principal)
		case k.NotBefore.After(was.NotBefore):
			fault("begins at %s, it began at %s", k.NotBefore.Format(timeLayout), was.NotBefore.Format(timeLayout))
		case !was.RevokedAt.IsZero() && (k.RevokedAt.IsZero() || k.RevokedAt.After(was.RevokedAt)):
			fault("was revoked from %s on and must stay so", was.RevokedAt.Format(timeLayout))
		case k.NotAfter.Before(was.NotAfter) && !k.NotAfter.After(now):
			fault("would end at %s, which is over: what it signed since then was good. Let it end later, or revoke it if that is meant", k.NotAfter.Format(timeLayout))
		}
	}
	return errors.Join(faults...)
}
