package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/signetbus/signet/internal/durablefile"
	"github.com/signetbus/signet/signing/keyring"
)

// heldKeyring is where a node holds the keyring that it has in force, beside the file of
// the configuration: whoever puts an older file back does not bring a revoked key back
// with it, and a keyring that came over the wire outlives a restart where the file cannot
// be written, as in a mounted secret.
func heldKeyring(cfg *Config) string { return filepath.Join(cfg.State, "keyring.json") }

// readRing returns the newer of the keyring's file and of the one that this node held
// before, expired or not: an expired keyring is not followed by an older one. note says
// why the file is passed over; nil: it is what counts.
//
// Errors: those of the file where nothing is held, and keyring.ErrExpired.
func readRing(cfg *Config, now time.Time) (ring *keyring.Ring, doc []byte, note, err error) {
	ring, doc, err = readRingFile(cfg, cfg.Keys.Keyring)
	held, heldDoc, heldErr := readRingFile(cfg, heldKeyring(cfg))
	switch {
	case heldErr != nil && err != nil:
		return nil, nil, nil, err
	case heldErr != nil && !errors.Is(heldErr, fs.ErrNotExist):
		note = fmt.Errorf("the keyring that this node held before cannot be read, and is made anew from the file: %w", heldErr)
	case heldErr != nil:
	case err != nil:
		note = fmt.Errorf("%w; in force is version %d, which this node held", err, held.Version())
		ring, doc = held, heldDoc
	default:
		if fault := ring.Replaces(held); fault != nil {
			note = olderFile(cfg, ring, held)
			ring, doc = held, heldDoc
		}
	}
	if !now.Before(ring.Expires()) {
		return nil, nil, nil, fmt.Errorf("broker: keyring %s: %w: at %s (version %d): sign a newer one with the root key and bring it as this file", cfg.Keys.Keyring, keyring.ErrExpired, ring.Expires().Format(time.RFC3339), ring.Version())
	}
	return ring, doc, note, nil
}

// rereadRing is readRing for a broker that runs with old. A file that is older than the
// keyring in force is passed over, with a note: it must keep neither a policy nor a
// certificate from coming into force.
//
// Errors: a file that cannot be read or is not of this root key, and a newer one that has
// expired.
func rereadRing(cfg *Config, old *material, now time.Time) (ring *keyring.Ring, doc []byte, note, err error) {
	ring, doc, err = readRingFile(cfg, cfg.Keys.Keyring)
	switch {
	case err != nil:
		return nil, nil, nil, err
	case ring.Replaces(old.ring) != nil:
		return old.ring, old.ringDoc, olderFile(cfg, ring, old.ring), nil
	case ring.Version() > old.ring.Version() && !now.Before(ring.Expires()):
		return nil, nil, nil, fmt.Errorf("broker: keyring %s: %w: at %s", cfg.Keys.Keyring, keyring.ErrExpired, ring.Expires().Format(time.RFC3339))
	}
	return ring, doc, nil, nil
}

// olderFile says that the file is not what counts, and what to do.
func olderFile(cfg *Config, file, inForce *keyring.Ring) error {
	if file.Version() == inForce.Version() {
		return fmt.Errorf("broker: keyring %s: %w: it has version %d with other content than the one in force; sign one with a higher version and push it", cfg.Keys.Keyring, keyring.ErrRollback, file.Version())
	}
	return fmt.Errorf("broker: keyring %s: %w: it has version %d, in force is %d; if nobody put it back on purpose, look for who did; bring the file up to date (signet keys push writes it where it may)",
		cfg.Keys.Keyring, keyring.ErrRollback, file.Version(), inForce.Version())
}

// readRingFile reads a keyring, whether it has expired or not.
func readRingFile(cfg *Config, file string) (*keyring.Ring, []byte, error) {
	doc, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, fmt.Errorf("broker: read keyring: %w", err)
	}
	ring, err := parseRing(cfg, doc, time.Time{})
	if err != nil {
		return nil, nil, fmt.Errorf("broker: keyring %s: %w", file, err)
	}
	return ring, doc, nil
}

// parseRing verifies a keyring against this node's own pinned root key.
func parseRing(cfg *Config, doc []byte, now time.Time) (*keyring.Ring, error) {
	ring, err := keyring.Parse(doc, cfg.Keys.Root, now)
	if errors.Is(err, keyring.ErrBadSignature) {
		err = fmt.Errorf("%w of keys.root, %s: it is that of another broker or cluster", err, cfg.Keys.Root)
	}
	return ring, err
}

// holdRing holds a keyring for the next start.
func holdRing(cfg *Config, doc []byte) error {
	return durablefile.Replace(heldKeyring(cfg), doc, 0o644)
}

// writeRing brings the keyring's file up to date; where it cannot be written, the held
// one counts.
func writeRing(cfg *Config, doc []byte) (note error) {
	if err := durablefile.Replace(cfg.Keys.Keyring, doc, 0o644); err != nil {
		return fmt.Errorf("broker: the keyring file is older than the keyring in force and cannot be written; bring it up to date: %w", err)
	}
	return nil
}
