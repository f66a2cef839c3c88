package broker

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/signetbus/signet/broker/internal/embed"
)

// EncryptionConfig is encryption at rest: of everything under State that clients
// sent. The zero value means none.
type EncryptionConfig struct {
	// KeyFile holds the key, mode 0600: 32 bytes as 64 hex digits or as base64, or 32
	// to 1024 random bytes as they are. Read at start only.
	KeyFile string `yaml:"keyFile"`
	// PreviousKeyFile holds the key before a change. It is needed for one start.
	PreviousKeyFile string `yaml:"previousKeyFile"`
	// Cipher is aes-256 or chacha20, fixed when the store is made. Default: that of
	// the store, and aes-256 for a new one.
	Cipher string `yaml:"cipher"`
}

func (e *EncryptionConfig) files() []*string { return []*string{&e.KeyFile, &e.PreviousKeyFile} }

func (e *EncryptionConfig) validate() error {
	var faults []error
	if e.KeyFile == "" && (e.PreviousKeyFile != "" || e.Cipher != "") {
		faults = append(faults, errors.New("broker: storage.encryption.keyFile is required with previousKeyFile and cipher"))
	}
	switch e.Cipher {
	case "", embed.CipherAES, embed.CipherChaCha:
	default:
		faults = append(faults, fmt.Errorf("broker: storage.encryption.cipher: want one of %s, %s, got %q", embed.CipherAES, embed.CipherChaCha, e.Cipher))
	}
	return errors.Join(faults...)
}

// load reads the keys; nil when there is no encryption. The caller wipes them.
func (e *EncryptionConfig) load() (*embed.Encryption, error) {
	if e.KeyFile == "" {
		return nil, nil
	}
	out := &embed.Encryption{Cipher: e.Cipher}
	var err, errPrevious error
	out.Key, err = readStoreKey("keyFile", e.KeyFile)
	if e.PreviousKeyFile != "" {
		out.PreviousKey, errPrevious = readStoreKey("previousKeyFile", e.PreviousKeyFile)
	}
	if err := errors.Join(err, errPrevious); err != nil {
		out.Wipe()
		return nil, err
	}
	return out, nil
}

// checkEncryption is what a start would object to, with nothing changed.
func checkEncryption(cfg *Config) error {
	e, err := cfg.Storage.Encryption.load()
	if err != nil {
		return err
	}
	defer e.Wipe()
	return embed.CheckEncryption(cfg.State, e)
}

// logAtRest says once a start how the store is, and what is left to do.
func (b *Broker) logAtRest() {
	switch at := b.server.AtRest(); {
	case at.Resealed:
		b.log.Warn().Str("cipher", at.Cipher).Msg("the store key was sealed anew with the key of keyFile: keep that key safe, and take previousKeyFile out of the configuration if it is there")
	case at.Cipher != "":
		b.log.Info().Str("cipher", at.Cipher).Msg("the store is encrypted")
	default:
		b.log.Info().Msg("the store is not encrypted (storage.encryption)")
	}
}

// storeKey makes the key of a new state. It is never made again: a store that is
// there was made with the one that is lost, or with none.
func storeKey(st *State) error {
	if _, err := os.Stat(st.Config); err == nil {
		return nil
	}
	key := make([]byte, storeKeyBytes)
	_, _ = rand.Read(key) // never fails
	text := append(hex.AppendEncode(nil, key), '\n')
	defer clear(key)
	defer clear(text)
	return keep(st.StoreKey, text)
}

func readStoreKey(name, file string) ([]byte, error) {
	text, err := readSecret(file)
	if err != nil {
		return nil, fmt.Errorf("broker: read storage.encryption.%s: %w", name, err)
	}
	key, err := parseStoreKey(text)
	if len(key) == 0 || &key[0] != &text[0] {
		clear(text)
	}
	if err != nil {
		return nil, fmt.Errorf("broker: storage.encryption.%s %s: %w", name, file, err)
	}
	return key, nil
}

const (
	storeKeyBytes    = 32
	maxStoreKeyBytes = 1024
	minDistinct      = 8 // of 32 random bytes fewer are different once in 10^37
)

var errStoreKey = errors.New("want 32 bytes as 64 hex digits or as base64, or 32 to 1024 random bytes, and no passphrase; openssl rand -hex 32 makes one")

// parseStoreKey takes a key in one of three forms. Text in no form is refused, not
// taken for raw bytes: it is a passphrase, or a key that was cut.
func parseStoreKey(text []byte) ([]byte, error) {
	key := text
	if line := bytes.TrimSpace(text); printable(line) {
		if key = decodeKey(hex.Decode, line, 2*storeKeyBytes); key == nil {
			key = decodeKey(base64.StdEncoding.Strict().Decode, line, base64.StdEncoding.EncodedLen(storeKeyBytes))
		}
	}
	if len(key) < storeKeyBytes || len(key) > maxStoreKeyBytes {
		return nil, errStoreKey
	}
	var seen [256]bool
	distinct := 0
	for _, b := range key {
		if !seen[b] {
			seen[b] = true
			distinct++
		}
	}
	if distinct < minDistinct {
		return nil, fmt.Errorf("these are no random bytes: %w", errStoreKey)
	}
	return key, nil
}

// decodeKey is the key that a line of exactly that length stands for, or nil.
func decodeKey(decode func(dst, src []byte) (int, error), line []byte, length int) []byte {
	if len(line) != length {
		return nil
	}
	key := make([]byte, length)
	n, err := decode(key, line)
	if err != nil || n != storeKeyBytes {
		clear(key)
		return nil
	}
	return key[:n]
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
