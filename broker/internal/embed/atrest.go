package embed

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
)

// The ciphers of Encryption.
const (
	// CipherAES is AES-256, the default: where the processor has AES instructions it
	// costs a tenth of ChaCha20.
	CipherAES = "aes-256"
	// CipherChaCha is ChaCha20, for processors without AES instructions.
	CipherChaCha = "chacha20"
)

// Errors of encryption at rest. Nothing in the store was changed when Start or
// CheckEncryption returns one.
var (
	// ErrEncrypted: the store is encrypted, and no key was given.
	ErrEncrypted = errors.New("embed: the store is encrypted and no key is configured")
	// ErrPlain: a key was given, and the store holds data that is not encrypted.
	ErrPlain = errors.New("embed: the store holds unencrypted data")
	// ErrWrongKey: neither key opens the store.
	ErrWrongKey = errors.New("embed: wrong key for the encrypted store")
	// ErrNoStoreKey: the store is encrypted, and the sealed store key is not there.
	ErrNoStoreKey = errors.New("embed: the sealed store key is missing")
)

// Encryption at rest: everything that nats-server writes under StoreDir is
// encrypted with a store key, 256 random bits, made once for a store. The store key
// lies in StoreDir sealed with Key. A change of Key seals it anew, in one step, and
// leaves the data alone: nats-server's own change of keys rewrites every block in
// place, is not safe against a crash in the middle, and loses durable consumers.
//
// It hides what is stored; it does not protect it from change (the ciphers of the
// blocks are not authenticated), and the key is in the memory of the process.
type Encryption struct {
	// Key seals the store key: 32 to 1024 secret bytes, not a passphrase. Required.
	Key []byte
	// PreviousKey is tried when Key does not open the store; the store key is then
	// sealed with Key. Empty means none.
	PreviousKey []byte
	// Cipher is CipherAES or CipherChaCha. It is fixed when the store is made. Empty
	// means that of the store, and CipherAES for a new one.
	Cipher string
}

// Wipe overwrites the keys. e may be nil.
func (e *Encryption) Wipe() {
	if e != nil {
		clear(e.Key)
		clear(e.PreviousKey)
	}
}

// Format keeps the keys out of every text.
func (Encryption) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(encryption)") }

func (e *Encryption) validate() error {
	if e == nil {
		return nil
	}
	var faults []error
	if n := len(e.Key); n < minSealingKey || n > maxSealingKey {
		faults = append(faults, fmt.Errorf("%w: Encryption.Key has %d bytes, want %d to %d", ErrConfig, n, minSealingKey, maxSealingKey))
	}
	if n := len(e.PreviousKey); n != 0 && (n < minSealingKey || n > maxSealingKey) {
		faults = append(faults, fmt.Errorf("%w: Encryption.PreviousKey has %d bytes, want %d to %d", ErrConfig, n, minSealingKey, maxSealingKey))
	}
	if !slices.Contains([]string{"", CipherAES, CipherChaCha}, e.Cipher) {
		faults = append(faults, fmt.Errorf("%w: Encryption.Cipher %q is not %s or %s", ErrConfig, e.Cipher, CipherAES, CipherChaCha))
	}
	return errors.Join(faults...)
}

// AtRest says how a server's store is encrypted.
type AtRest struct {
	Cipher string // empty: it is not
	// Resealed: the store key was sealed with PreviousKey, or one of its two copies
	// was not good, and both are sealed with Key now.
	Resealed bool
}

// AtRest returns how the store is encrypted.
func (s *Server) AtRest() AtRest {
	if s.cfg.atRest == nil {
		return AtRest{}
	}
	return s.cfg.atRest.AtRest
}

// atRest is what Config needs of an opened store; nil when it is not encrypted.
// nats-server takes the key as a string, so that it cannot be wiped.
type atRest struct {
	AtRest
	key string
}

// OpenedKey is what nats-server encrypts with, for who must read its files. The zero
// value: they are not encrypted. Keep it out of every file.
type OpenedKey struct {
	Key    string
	Cipher string // CipherAES or CipherChaCha
}

// Format keeps the key out of every text.
func (OpenedKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(store key)") }

func (a *atRest) opened() OpenedKey {
	if a == nil {
		return OpenedKey{}
	}
	return OpenedKey{Key: a.key, Cipher: a.Cipher}
}

// apply sets the key in o. It has no text form on purpose: the rendered text could
// reach a log. Every reload must set it again, alike.
func (a *atRest) apply(o *server.Options) {
	if a == nil {
		return
	}
	o.JetStreamKey = a.key
	o.JetStreamCipher = server.AES
	if a.Cipher == CipherChaCha {
		o.JetStreamCipher = server.ChaCha
	}
}

// CheckEncryption reports what Start would object to in the encryption of the store
// in dir, which need not exist, and changes nothing. e may be nil: no encryption.
//
// Errors: ErrConfig, ErrEncrypted, ErrPlain, ErrWrongKey, ErrNoStoreKey.
func CheckEncryption(dir string, e *Encryption) error {
	_, err := look(dir, e)
	return err
}

// unlock opens the store in dir, or makes its key when nothing is stored yet. The
// caller holds the lock of dir. nats-server must not see the store before: with a
// wrong key, or without one, it starts without the streams and makes new ones in
// their place.
func unlock(dir string, e *Encryption) (*atRest, error) {
	found, err := look(dir, e)
	if err != nil || e == nil {
		return nil, err
	}
	defer clear(found.key)
	if found.key == nil {
		found.key = make([]byte, storeKeyBytes)
		_, _ = rand.Read(found.key) // never fails
		found.cipher = e.Cipher
		if found.cipher == "" {
			found.cipher = CipherAES
		}
	} else if !found.stale {
		return &atRest{AtRest: AtRest{Cipher: found.cipher}, key: string(found.key)}, nil
	}
	if err := writeStoreKey(dir, found.storeKey, e.Key); err != nil {
		return nil, err
	}
	return &atRest{AtRest: AtRest{Cipher: found.cipher, Resealed: found.stale}, key: string(found.key)}, nil
}

// look finds the store key of dir; the key of what it returns is nil when dir is
// new. It changes nothing.
func look(dir string, e *Encryption) (opened, error) {
	if err := e.validate(); err != nil {
		return opened{}, err
	}
	if info, err := os.Stat(dir); err == nil && !info.IsDir() {
		return opened{}, fmt.Errorf("%w: %s is a file, and the store needs a folder", ErrConfig, dir)
	}
	copies := readStoreKey(dir)
	if len(copies) == 0 {
		return opened{}, lookUnsealed(dir, e != nil)
	}
	if e == nil {
		return opened{}, fmt.Errorf("%w: %s holds its sealed key; set storage.encryption.keyFile again, nothing was changed", ErrEncrypted, copies[0].file)
	}
	o, err := openCopies(copies, e)
	if err != nil {
		return opened{}, err
	}
	if e.Cipher != "" && e.Cipher != o.cipher {
		clear(o.key)
		return opened{}, fmt.Errorf("%w: the store in %s is encrypted with %s and its cipher cannot be changed to %s; leave the cipher out", ErrConfig, dir, o.cipher, e.Cipher)
	}
	return o, nil
}

// lookUnsealed judges a store that has no sealed key.
func lookUnsealed(dir string, want bool) error {
	stored, encrypted, err := contents(filepath.Join(dir, server.JetStreamStoreDir))
	switch {
	case err != nil:
		return fmt.Errorf("embed: look for data in %s: %w", dir, err)
	case encrypted:
		return fmt.Errorf("%w: %s holds encrypted data; put %s back from a backup, nothing was changed", ErrNoStoreKey, dir, filepath.Join(dir, storeKeyFile))
	case stored && want:
		return fmt.Errorf("%w: %s was written without a key, and is not converted in place; "+
			"take storage.encryption out, or start with an empty state folder and bring the data over", ErrPlain, dir)
	}
	return nil
}

// contents reports whether there is any file under the folder of nats-server, and
// whether one of them is a key of an encrypted stream, consumer or Raft group.
func contents(dir string) (stored, encrypted bool, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			return nil
		}
		stored = true
		if d.Name() == server.JetStreamMetaFileKey {
			encrypted = true
			return fs.SkipAll
		}
		return nil
	})
	return stored, encrypted, err
}
