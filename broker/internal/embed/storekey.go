package embed

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/signetbus/signet/internal/durablefile"
)

// The sealed store key: a JSON object in two equal files, because a store whose
// key is lost is lost. Sealed with AES-256-GCM under HKDF-SHA256(Key, salt).
const (
	storeKeyFile   = "store-key.json"
	storeKeyCopy   = "store-key.copy.json"
	storeKeyFormat = "signet-store-key/1"
	storeKeyBytes  = 32
	saltBytes      = 16
	maxKeyFile     = 4 << 10

	minSealingKey = 32
	maxSealingKey = 1024
)

// storeKey is an opened key: what nats-server gets.
type storeKey struct {
	key    []byte
	cipher string
}

// sealed is the content of a file. Salt and nonce are new with each sealing.
type sealed struct {
	Format string `json:"format"`
	Cipher string `json:"cipher"`
	Salt   []byte `json:"salt"`
	Nonce  []byte `json:"nonce"`
	Key    []byte `json:"key"` // ciphertext and tag

	file string
	text []byte
	bad  error // why the file cannot be used; the other one may
}

// opened is a store key and whether the files must be written anew.
type opened struct {
	storeKey
	stale bool
}

// aead is the cipher that seals, of one sealing key and one salt.
func aead(key, salt []byte) (cipher.AEAD, error) {
	kek, err := hkdf.Key(sha256.New, key, salt, storeKeyFormat, 32)
	if err != nil {
		return nil, err
	}
	defer clear(kek)
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// bound is what the seal also covers, so that the name of the cipher cannot be
// exchanged.
func (s *sealed) bound() []byte { return []byte(s.Format + "\n" + s.Cipher) }

func seal(k storeKey, key []byte) ([]byte, error) {
	s := sealed{Format: storeKeyFormat, Cipher: k.cipher, Salt: make([]byte, saltBytes)}
	_, _ = rand.Read(s.Salt) // never fails
	a, err := aead(key, s.Salt)
	if err != nil {
		return nil, err
	}
	s.Nonce = make([]byte, a.NonceSize())
	_, _ = rand.Read(s.Nonce)
	s.Key = a.Seal(nil, s.Nonce, k.key, s.bound())
	text, err := json.Marshal(s)
	return append(text, '\n'), err
}

var errSeal = errors.New("the key does not open it")

func (s *sealed) open(key []byte) (storeKey, error) {
	if s.bad != nil {
		return storeKey{}, s.bad
	}
	a, err := aead(key, s.Salt)
	if err != nil {
		return storeKey{}, err
	}
	k, err := a.Open(nil, s.Nonce, s.Key, s.bound())
	if err != nil {
		return storeKey{}, errSeal
	}
	return storeKey{key: k, cipher: s.Cipher}, nil
}

// parse reads a file strictly.
func (s *sealed) parse() error {
	if len(s.text) > maxKeyFile {
		return errors.New("too large for a sealed store key")
	}
	d := json.NewDecoder(bytes.NewReader(s.text))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return errors.New("not a sealed store key")
	}
	if s.Format != storeKeyFormat {
		return fmt.Errorf("format %.40q is not %q: written by another release", s.Format, storeKeyFormat)
	}
	const nonce, tag = 12, 16
	if len(s.Salt) != saltBytes || len(s.Nonce) != nonce || len(s.Key) != storeKeyBytes+tag || s.Cipher != CipherAES && s.Cipher != CipherChaCha {
		return errors.New("not a sealed store key")
	}
	return nil
}

// readStoreKey reads the files of dir that exist, the first one first.
func readStoreKey(dir string) (out []*sealed) {
	for _, name := range []string{storeKeyFile, storeKeyCopy} {
		s := &sealed{file: filepath.Join(dir, name)}
		var err error
		s.text, err = os.ReadFile(s.file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if s.bad = err; err == nil {
			s.bad = s.parse()
		}
		out = append(out, s)
	}
	return out
}

// openCopies opens the first copy that either key opens, Key first. The copies
// differ after a crash in the middle of a change: both then hold the same store
// key, one sealed with each sealing key.
func openCopies(copies []*sealed, e *Encryption) (opened, error) {
	var faults []string
	var unread []error
	for _, c := range copies {
		var io *fs.PathError
		if errors.As(c.bad, &io) {
			unread = append(unread, c.bad)
		}
	}
	if len(unread) == len(copies) {
		return opened{}, fmt.Errorf("embed: read the sealed store key: %w", errors.Join(unread...))
	}
	for i, key := range [][]byte{e.Key, e.PreviousKey} {
		if len(key) == 0 {
			continue
		}
		for _, c := range copies {
			k, err := c.open(key)
			if err != nil {
				if i == 0 {
					faults = append(faults, c.file+": "+err.Error())
				}
				continue
			}
			stale := i > 0 || len(copies) != 2 || !bytes.Equal(copies[0].text, copies[1].text)
			return opened{storeKey: k, stale: stale}, nil
		}
	}
	tried := "the key of storage.encryption.keyFile"
	if len(e.PreviousKey) > 0 {
		tried += " and that of previousKeyFile"
	}
	return opened{}, fmt.Errorf("%w: tried %s; use the key that the store was made with, or name it as previousKeyFile; nothing was changed (%s)",
		ErrWrongKey, tried, strings.Join(faults, "; "))
}

// writeStoreKey seals k with key into both files, first the first one: whatever
// moment the power goes, one of them is whole.
func writeStoreKey(dir string, k storeKey, key []byte) error {
	text, err := seal(k, key)
	if err != nil {
		return fmt.Errorf("embed: seal the store key: %w", err)
	}
	for _, name := range []string{storeKeyFile, storeKeyCopy} {
		if err := durablefile.Replace(filepath.Join(dir, name), text, 0o600); err != nil {
			return fmt.Errorf("embed: write the sealed store key: %w", err)
		}
	}
	return nil
}
