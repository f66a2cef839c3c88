package gate

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// TestReloadDuringALogin: a reload that comes while a proof is looked at, by the same policy,
// because a key of an issuer is gone, has the proof looked at again: the connection is not
// among those that the reload sees.
func TestReloadDuringALogin(t *testing.T) {
	var calls atomic.Int32
	var w *world
	w = newWorld(t, func(_ *Config, d *Deps) {
		inner := d.Authenticate
		d.Authenticate = func(ctx context.Context, set *policy.Set, c *identity.Credentials) (identity.Login, *wire.Refusal) {
			login, refusal := inner(ctx, set, c)
			if calls.Add(1) == 1 {
				w.gate.Reload(set) // the proof was good a moment ago
				return login, refusal
			}
			return identity.Login{}, wire.Refuse(wire.CodeAuthFailed, "authentication", "the key is withdrawn")
		}
	})
	if nc, err := w.tryConnect("writer"); err == nil {
		nc.Close()
		t.Error("a login by a key that was withdrawn meanwhile is let in")
	}
	if calls.Load() < 2 {
		t.Errorf("the proof was looked at %d times", calls.Load())
	}
}
