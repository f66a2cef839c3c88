package translog

import (
	"errors"
	"fmt"
	"time"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// Patience is how long a log may be behind, or without its copy in AUDIT, before it is a
// fault: changes of leader and reloads pass by themselves.
const Patience = 10 * time.Second

// errKey: this node has no key that it may sign checkpoints with now.
var errKey = errors.New("translog: this node may not sign checkpoints now")

// Trouble says why somebody should look at the log on this node; nil while it goes on, or
// stands for less than Patience.
//
// Errors: ErrDisagrees, or another that says what to do.
func (s *State) Trouble(now time.Time) error {
	switch late := now.Sub(s.Behind); {
	case errors.Is(s.Fault, ErrDisagrees):
		return s.Fault
	case !s.Behind.IsZero() && late > Patience && s.Fault != nil:
		return fmt.Errorf("it does not go on since %s: %w", s.Behind.UTC().Format(time.RFC3339), s.Fault)
	case !s.Behind.IsZero() && late > Patience:
		return fmt.Errorf("it is %s behind, %d sequences are known to be in no checkpoint: is the node or its disk overloaded, or the sink out of reach?", late.Round(time.Second), s.Lag())
	case s.Unkept != nil && now.Sub(s.UnkeptSince) > Patience:
		return fmt.Errorf("AUDIT takes none of its checkpoints since %s: %w", s.UnkeptSince.UTC().Format(time.RFC3339), s.Unkept)
	case s.Room > 0 && s.Used > s.Room/100*roomAlarm:
		return fmt.Errorf("it has used %d of its %d bytes in LOG: raise maxBytes of the stream, of which an eighth is for the log", s.Used, s.Room)
	}
	return nil
}

// well notes that everything stored is in a checkpoint.
func (l *log) well() {
	l.update(func(s *State) { s.Fault, s.Behind = nil, time.Time{} })
}

// behind notes that what was stored at a time is in no checkpoint yet. What came before
// this node began to write counts from then on.
func (l *log) behind(stored int64) {
	l.update(func(s *State) {
		if !s.Behind.IsZero() {
			return
		}
		if s.Behind = time.Unix(0, stored); s.Behind.Before(l.began) {
			s.Behind = l.began
		}
	})
}

// signer returns this node's signer, if its key may sign at a time and now.
//
// Errors: errKey.
func (l *log) signer(at time.Time) (*signing.Signer, error) {
	s, ring := l.s.cfg.Signer(), l.s.cfg.Ring()
	if s == nil || ring == nil {
		return nil, fmt.Errorf("%w: it has no key or no keyring", errKey)
	}
	key, ok := ring.ByID(s.KeyID())
	switch now := l.s.cfg.Now(); {
	case !ok || key.Role != keyring.RoleBroker:
		return nil, fmt.Errorf("%w: %s is no broker key of the keyring in force (version %d)", errKey, s.KeyID(), ring.Version())
	case !key.ValidAt(now) || !key.ValidAt(at):
		return nil, fmt.Errorf("%w: %s is revoked or outside of its time at %s: give the node a key that is valid (docs/operations.md, Keys of nodes), and compare its clock", errKey, key.ID, now.UTC().Format(time.RFC3339))
	}
	return s, nil
}
