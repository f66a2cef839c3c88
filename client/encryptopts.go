package client

import (
	"fmt"
	"slices"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/payload"
)

// Defaults and limits of Encryption and Decryption.
const (
	DefaultKeyPrefix   = "encryption.keys"  // of Encryption and Decryption
	DefaultEpochAge    = 24 * time.Hour     // of Encryption
	MaxEpochAge        = 7 * 24 * time.Hour // limit of Encryption.EpochAge
	DefaultEpochEvents = 1 << 20            // of Encryption
	maxKeyPrefix       = 128
)

// Encryption says which events are encrypted, and for how long with one key.
type Encryption struct {
	// Subjects are NATS filters of the subjects whose payloads are encrypted. Empty:
	// all. What is published elsewhere goes out in the clear.
	Subjects []string
	// KeyPrefix is where key records go: <prefix>.<name of the principal>.<key id>. The
	// policy must have a stream for it, and let this principal publish there. Default
	// DefaultKeyPrefix. What Subjects cover and is under it cannot be published
	// (ErrEncryption): the records are in the clear.
	KeyPrefix string
	// Tenant is whose recipients are meant: Connect fails if the broker says that this
	// principal is of another one. Empty: as the broker says, and nothing is published
	// (ErrEncryption) while the keyring has recipients of another tenant. With an event key
	// the keyring has the tenant anyhow, and is believed.
	Tenant string
	// EpochAge is how long a key is used. Default DefaultEpochAge, 1 min to MaxEpochAge.
	EpochAge time.Duration
	// EpochEvents is how many events a key encrypts, about: publishes at the same time can
	// add to it. Default DefaultEpochEvents, at most payload.MaxEvents.
	EpochEvents uint64
}

// WithEncryption encrypts the payload and content type of events end to end: to the
// recipient keys that the keyring has for their subject and this tenant, unreadable for
// the broker. Attributes stay in the clear. What cannot be encrypted is not published:
// ErrEncryption, also where the keyring has no recipient for the subject.
//
// The first event on a subject stores the record of a new key before it goes out, which
// takes a publish more; so does the first one after the age or count of the key is over,
// or the recipients of the subject have changed. Keys are in memory only. With an event
// key (WithEventKeyFile) the encrypted event is signed, and so is the record: the event
// key must cover the subject of the records.
func WithEncryption(e Encryption) Option {
	given := e
	return func(c *config) error {
		e := given // an option may be used for many clients
		e.Subjects = slices.Clone(e.Subjects)
		if e.KeyPrefix == "" {
			e.KeyPrefix = DefaultKeyPrefix
		}
		if e.EpochAge == 0 {
			e.EpochAge = DefaultEpochAge
		}
		if e.EpochEvents == 0 {
			e.EpochEvents = DefaultEpochEvents
		}
		for _, filter := range e.Subjects {
			if err := wire.CheckFilter(filter); err != nil {
				return fmt.Errorf("%w: WithEncryption: subject %q: %w", ErrInvalidOption, filter, err)
			}
		}
		switch err := checkKeyPrefix(e.KeyPrefix); {
		case err != nil:
			return fmt.Errorf("%w: WithEncryption: %w", ErrInvalidOption, err)
		case e.EpochAge < time.Minute || e.EpochAge > MaxEpochAge:
			return fmt.Errorf("%w: WithEncryption: EpochAge %v is not in 1m to %v", ErrInvalidOption, e.EpochAge, MaxEpochAge)
		case e.EpochEvents > payload.MaxEvents:
			return fmt.Errorf("%w: WithEncryption: EpochEvents %d is over %d", ErrInvalidOption, e.EpochEvents, uint64(payload.MaxEvents))
		}
		c.encryption = &e
		return nil
	}
}

// Decryption says with which keys events are decrypted.
type Decryption struct {
	// SeedFiles hold the seeds (SX...) of the recipient keys, in files whose mode must not
	// let others use them. After a rotation the old one is needed for old events.
	SeedFiles []string
	// Seeds are further seeds, for those who keep them elsewhere. They are not kept.
	Seeds [][]byte
	// KeyPrefix is that of Encryption.KeyPrefix. This principal must be let subscribe
	// there. Default DefaultKeyPrefix.
	KeyPrefix string
}

// WithDecryption decrypts the events that are encrypted to one of the keys. What
// cannot be decrypted goes to WithInvalidHandler with ErrDecryption, like an event whose
// attestation does not hold. Without this option an encrypted event is delivered as it
// is, with Delivery.Ciphertext.
func WithDecryption(d Decryption) Option {
	given := d
	return func(c *config) error {
		d := given // as in WithEncryption
		if d.KeyPrefix == "" {
			d.KeyPrefix = DefaultKeyPrefix
		}
		if err := checkKeyPrefix(d.KeyPrefix); err != nil {
			return fmt.Errorf("%w: WithDecryption: %w", ErrInvalidOption, err)
		}
		seeds := append([][]byte{}, d.Seeds...)
		for _, file := range d.SeedFiles {
			raw, err := readPrivate(file, maxSeedFileBytes)
			if err != nil {
				return fmt.Errorf("client: recipient seed file: %w", err)
			}
			defer clear(raw)
			seeds = append(seeds, raw)
		}
		reader, err := payload.NewReader(seeds...)
		if err != nil {
			return fmt.Errorf("%w: WithDecryption: %w", ErrInvalidOption, err)
		}
		c.decryption = newDecrypter(reader, d.KeyPrefix)
		return nil
	}
}

func checkKeyPrefix(prefix string) error {
	if len(prefix) > maxKeyPrefix {
		return fmt.Errorf("key prefix of %d bytes, limit %d", len(prefix), maxKeyPrefix)
	}
	if err := wire.CheckSubject(payload.RecordSubject(prefix, "t/n", "k")); err != nil {
		return fmt.Errorf("key prefix %q: %w", prefix, err)
	}
	return nil
}
