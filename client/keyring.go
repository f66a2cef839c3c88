package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/signing/keyring"
)

const (
	minKeyringInterval = 5 * time.Second  // between refreshes that unknown keys ask for
	keyringRetry       = 30 * time.Second // after a refresh that failed
	maxKeyringAge      = 15 * time.Minute // of a ring that nothing newer was heard of
	maxKeyringFileAge  = 30 * time.Second // the same of one in a file, which costs little to read
	keyringWait        = 4 * time.Minute  // of one request for a newer ring
)

// keyringSource returns the bytes of the signed document.
type keyringSource func(ctx context.Context) ([]byte, error)

// ringKeeper holds the keyring and keeps it fresh. Readers load the snapshot
// without a lock; one refresh runs at a time.
type ringKeeper struct {
	root    string
	source  keyringSource
	now     func() time.Time
	onError func(error)
	memory  string        // file that remembers the ring over restarts; empty: none
	maxAge  time.Duration // of a ring before it is asked for again

	ring atomic.Pointer[keyring.Ring]
	turn chan struct{} // capacity 1: held by the refresh that runs; guards the two below
	// remembered is the version that memory has. tried and fetched are when the last refresh began, and when the last one that
	// succeeded began.
	remembered     uint64
	tried, fetched time.Time
}

func newRingKeeper(root string, source keyringSource, onError func(error)) *ringKeeper {
	return &ringKeeper{root: root, source: source, now: time.Now, onError: onError, maxAge: maxKeyringAge, turn: make(chan struct{}, 1)}
}

func (k *ringKeeper) current() *keyring.Ring { return k.ring.Load() }

// refresh loads the ring now. An older version than the held one is refused.
func (k *ringKeeper) refresh(ctx context.Context) error {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return k.refreshLocked(ctx)
}

func (k *ringKeeper) refreshLocked(ctx context.Context) error {
	began := k.now()
	k.tried = began
	doc, err := k.source(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyring, err)
	}
	if err := k.take(doc); err != nil {
		return err
	}
	k.fetched = began
	return nil
}

// offer takes a document that came by itself, if it is newer.
func (k *ringKeeper) offer(ctx context.Context, doc []byte) error {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return k.take(doc)
}

// take verifies a document and puts it in the place of the ring; the caller holds turn.
// A ring that is older than one that was ever held is refused, and one that has expired.
// One that cannot be remembered is in use all the same, with an error: it may revoke a
// stolen key.
func (k *ringKeeper) take(doc []byte) error {
	ring, err := keyring.Parse(doc, k.root, k.now())
	if err == nil {
		err = ring.Replaces(k.ring.Load())
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyring, err)
	}
	if k.memory != "" && k.remembered < ring.Version() {
		err = rememberRing(k.memory, k.root, ring, doc)
		// What is held is no older than the file was at the first look.
		first := k.ring.Load() == nil
		if errors.Is(err, keyring.ErrRollback) || first && err != nil && !errors.Is(err, errNotRemembered) {
			return fmt.Errorf("%w: %w", ErrKeyring, err)
		}
	}
	k.ring.Store(ring)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyring, err)
	}
	k.remembered = ring.Version()
	return nil
}

// settle is called when the ring says something against an event that came at
// arrived. It returns true when the held ring was fetched after that, so that it is
// truly so or no longer; false when this cannot be told now:
// the refresh failed, or the last one is too recent.
func (k *ringKeeper) settle(ctx context.Context, arrived time.Time) bool {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return false
	}
	if k.fetched.After(arrived) {
		return true
	}
	if k.now().Sub(k.tried) < minKeyringInterval {
		return false
	}
	if err := k.refreshLocked(ctx); err != nil {
		k.onError(err)
		return false
	}
	return true
}

// next is how long the held ring needs no refresh: two thirds of what is left of
// its life, at most maxKeyringAge.
func (k *ringKeeper) next() time.Duration {
	r := k.ring.Load()
	if r == nil {
		return keyringRetry
	}
	left := r.Expires().Sub(k.now())
	return max(min(left/3*2, k.maxAge), min(keyringRetry, k.maxAge))
}

// run refreshes until ctx ends.
func (k *ringKeeper) run(ctx context.Context, timeout time.Duration) {
	timer := time.NewTimer(k.next())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		call, cancel := context.WithTimeout(ctx, timeout)
		err := k.refresh(call)
		cancel()
		if err == nil {
			timer.Reset(k.next())
			continue
		}
		if ctx.Err() == nil {
			k.onError(err)
		}
		timer.Reset(keyringRetry)
	}
}

// fileSource reads the document from a file, which may be public.
func fileSource(name string) keyringSource {
	return func(context.Context) ([]byte, error) {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		doc, err := io.ReadAll(io.LimitReader(f, keyring.MaxDocumentBytes+1))
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		if len(doc) > keyring.MaxDocumentBytes {
			return nil, fmt.Errorf("%s is over %d bytes", name, keyring.MaxDocumentBytes)
		}
		return doc, nil
	}
}

// brokerSource asks the broker; the signature of the root makes the answer good,
// not the connection.
func brokerSource(c *Client) keyringSource {
	return func(ctx context.Context) ([]byte, error) {
		var answer adminapi.KeyRing
		if err := c.request(ctx, adminapi.SubjectKeysRing, nil, &answer); err != nil {
			return nil, err
		}
		return answer.Document, nil
	}
}
