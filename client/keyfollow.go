package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/signing/keyring"
)

// ringFollower asks the broker for a keyring newer than the one held, in a request that
// waits until there is one: a push reaches a connected reader at once. Its requests do
// not go through the mux, whose calls Flush and Drain wait for.
type ringFollower struct {
	c       *Client
	inbox   string
	answers chan *nats.Msg
}

func newRingFollower(c *Client) (*ringFollower, error) {
	f := &ringFollower{c: c, inbox: nats.NewInbox(), answers: make(chan *nats.Msg, 4)}
	_, err := c.nc.ChanSubscribe(f.inbox, f.answers)
	return f, err
}

// run follows until ctx ends. An answer that says nothing new and came early is
// followed by a pause, so no broker is asked in a circle.
func (f *ringFollower) run(ctx context.Context) {
	for ctx.Err() == nil {
		held, began := f.c.ring.current().Version(), time.Now()
		if err := f.ask(ctx, held); err != nil && ctx.Err() == nil {
			f.c.cfg.onError(err)
		}
		pause := minKeyringInterval + rand.N(minKeyringInterval) //nolint:gosec // spreads readers
		if f.c.ring.current().Version() > held || time.Since(began) >= keyringWait {
			pause = 0
		}
		select {
		case <-ctx.Done():
		case <-f.c.rejoined:
		case <-time.After(pause):
		}
	}
}

// ask sends one request and takes its answer. A request that is lost, with the
// connection or with the broker, is no error: the next one follows.
func (f *ringFollower) ask(ctx context.Context, held uint64) error {
	body, err := adminapi.EncodeRequest(adminapi.KeysRingRequest{After: held, WaitMs: keyringWait.Milliseconds()})
	if err != nil {
		return err
	}
	if f.c.nc.PublishRequest(adminapi.SubjectKeysRing, f.inbox, body) != nil {
		return nil // not connected: rejoined says when it is
	}
	late := time.NewTimer(keyringWait + f.c.cfg.timeout)
	defer late.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-f.c.rejoined:
		rejoin(f.c) // run goes on at once
		return nil
	case <-late.C:
		return nil
	case msg := <-f.answers:
		var answer adminapi.KeyRing
		if err := adminapi.DecodeAnswer(msg.Data, &answer); err != nil {
			return fmt.Errorf("%w: %w", ErrKeyring, err)
		}
		if answer.Version < held {
			return nil // of a node that is behind the others
		}
		return f.c.ring.offer(ctx, answer.Document)
	}
}

// errNotRemembered: a ring is good, and the file that should remember it was not written.
var errNotRemembered = errors.New("client: the keyring is in use and could not be remembered: after a restart an older one would be taken")

// rememberRing refuses a ring that is older than the one that the file remembers, and
// else writes it there, in one step.
//
// Errors: errNotRemembered; any other refuses the ring.
func rememberRing(file, root string, ring *keyring.Ring, doc []byte) error {
	was, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		held, err := keyring.Parse(was, root, time.Time{})
		if err != nil {
			return fmt.Errorf("the remembered keyring %s: %w; if it is damaged, or the root key has changed on purpose, remove it", file, err)
		}
		if err := ring.Replaces(held); err != nil {
			return fmt.Errorf("%w (remembered in %s)", err, file)
		}
		if held.Version() == ring.Version() {
			return nil
		}
	}
	if err := writePrivate(file, doc); err != nil {
		return fmt.Errorf("%w: %w", errNotRemembered, err)
	}
	return nil
}
