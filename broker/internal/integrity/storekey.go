package integrity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/chacha20poly1305"
)

// ErrWrongKey: the store is encrypted, and no key file in it opens with the key that was
// given, or none was given. It is not damage: nothing is judged, and nothing set aside.
var ErrWrongKey = errors.New("integrity: wrong key for the encrypted store")

const (
	metaKey = "meta.key"
	// seedSize is what a key file holds, between a nonce and a tag.
	seedSize = 32
	// maxKey bounds what is read of a key file: nats-server writes 64 or 72 bytes.
	maxKey = 4 << 10
)

// StoreKey is the key that nats-server encrypts a store with. Make it with NewStoreKey;
// nil means that the store is not encrypted.
type StoreKey struct {
	key    string
	chacha bool
}

// NewStoreKey takes what nats-server got as its JetStream key and cipher: ChaCha20, or
// else AES-256.
func NewStoreKey(key string, chacha bool) *StoreKey { return &StoreKey{key: key, chacha: chacha} }

// Format keeps the key out of every text.
func (StoreKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "(store key)") }

// keyCount tells a wrong key from key files that are damaged.
type keyCount struct{ opened, failed atomic.Int64 }

func (n *keyCount) err(dir string) error {
	if n.opened.Load() > 0 || n.failed.Load() == 0 {
		return nil
	}
	return fmt.Errorf("%w: none of the %d key files in %s opens, so the store key is that of another store; "+
		"put back the store-key.json that belongs to this store, from a backup of this node, and start again; nothing was changed",
		ErrWrongKey, n.failed.Load(), dir)
}

// vault opens the key files of one folder: of a stream with its consumers, or of a Raft
// group. nil: the store is not encrypted. Each file has a key of its own, which lies in
// a key file beside it, sealed with the HMAC of the store key over who the file is.
type vault struct {
	*StoreKey
	info   string // the account, or the group
	name   string
	chacha bool
	count  *keyCount
}

func (k *StoreKey) vault(f folder, n *keyCount) *vault {
	switch {
	case k == nil:
		return nil
	case f.raft:
		// nats-server sets no cipher for these: ChaCha20, whatever the store has.
		return &vault{StoreKey: k, info: f.name, name: f.name, chacha: true, count: n}
	}
	return &vault{StoreKey: k, info: f.account, name: f.name, chacha: k.chacha, count: n}
}

// lock is the opened key file of one file, or two: a configuration and a state. nil: the
// file is not encrypted, which nats-server, too, tells by the missing key file.
type lock struct {
	aead   cipher.AEAD
	seed   []byte
	nonce  []byte
	chacha bool
	raw    []byte
	bad    bool // the key file is damaged, or sealed with another store key
}

// open reads a key file. context is what nats-server binds it to: the stream, or
// stream.consumer, or stream:block.
func (v *vault) open(file, context string) (*lock, error) {
	if v == nil {
		return nil, nil
	}
	raw, err := readKey(file)
	if err != nil || raw == nil {
		return nil, err
	}
	l := unlock(raw, v.sealing(context), v.chacha)
	if l.bad {
		v.count.failed.Add(1)
	} else {
		v.count.opened.Add(1)
	}
	return l, nil
}

// block opens the key file of the block in file.
func (v *vault) block(file string, index uint32) (*lock, error) {
	if v == nil {
		return nil, nil
	}
	return v.open(strings.TrimSuffix(file, ".blk")+".key", fmt.Sprintf("%s:%d", v.name, index))
}

// readKey returns nil where there is no file, and not nil for one that is empty.
func readKey(file string) ([]byte, error) {
	f, err := openRegular(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxKey))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	return raw, nil
}

// sealing is the key that the key file of context is sealed with.
func (v *vault) sealing(context string) []byte {
	h := hmac.New(sha256.New, []byte(v.key))
	_, _ = io.WriteString(h, v.info)
	_, _ = io.WriteString(h, context)
	return h.Sum(nil)
}

func newAEAD(key []byte, chacha bool) (cipher.AEAD, error) {
	if chacha {
		return chacha20poly1305.NewX(key)
	}
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithNonceSize(b, aes.BlockSize)
}

// unlock opens the bytes of a key file: nonce, sealed seed, tag.
func unlock(raw, sealing []byte, chacha bool) *lock {
	l := &lock{raw: raw, chacha: chacha, bad: true}
	outer, err := newAEAD(sealing, chacha)
	if err != nil || len(raw) != outer.NonceSize()+seedSize+outer.Overhead() {
		return l
	}
	l.nonce = raw[:outer.NonceSize()]
	if l.seed, err = outer.Open(nil, l.nonce, raw[len(l.nonce):], nil); err != nil {
		return l
	}
	l.aead, err = newAEAD(l.seed, chacha)
	l.bad = err != nil
	return l
}

// blank reports whether the key file holds nothing, as one does whose content a power
// cut has taken.
func (l *lock) blank() bool { return zeroRun(l.raw) == len(l.raw) }

// text returns what a small file says (a configuration, a state, an index) and whether
// its tag agrees. Where it does not, a bit that has flipped in the file is one in the
// text, as in a file that is not encrypted: what can be read of it still helps to judge.
func (l *lock) text(b []byte) ([]byte, bool) {
	if l == nil || len(b) == 0 {
		return b, true
	}
	if l.bad || len(b) < len(l.nonce)+l.aead.Overhead() {
		return nil, false
	}
	nonce, body := b[:len(l.nonce)], b[len(l.nonce):]
	plain, err := l.aead.Open(nil, nonce, body, nil)
	if err == nil {
		return plain, true
	}
	plain = make([]byte, len(body)-l.aead.Overhead())
	// Both ciphers only add a key stream, and it is what zeros are sealed as.
	stream := l.aead.Seal(nil, nonce, plain, nil)
	subtle.XORBytes(plain, body, stream[:len(plain)])
	return plain, false
}

// minHole is the shortest run of zeros in an encrypted block that is taken for a hole
// of the disk: the cipher makes one of this length once in 2^256 bytes.
const minHole = 32

// records decrypts a block in place. Where the disk holds zeros, so do the records: the
// scan judges a page that was never written as it does in a block that is not encrypted.
// It returns those places.
func (l *lock) records(raw []byte) (holes [][2]int) {
	if l == nil || len(raw) == 0 {
		return nil
	}
	holes = holesIn(raw)
	l.stream().XORKeyStream(raw, raw)
	for _, h := range holes {
		clear(raw[h[0]:h[1]])
	}
	return holes
}

// maxEdge is how many zeros before a hole are looked at as the end of what was written
// there: the cipher ends one record in 256 with one, and one in 2^32 with so many.
const maxEdge = 4

// edges decrypts the first n bytes of each hole: they may be the end of a record that
// the cipher happened to make zero.
func (l *lock) edges(raw []byte, holes [][2]int, n int) {
	stream := make([]byte, len(raw))
	l.stream().XORKeyStream(stream, stream)
	for _, h := range holes {
		end := min(h[0]+n, h[1])
		copy(raw[h[0]:end], stream[h[0]:end])
	}
}

// stream is the key stream of the block from its start: nats-server appends under one
// that runs on, and writes what it compacts or compresses anew under the same.
func (l *lock) stream() cipher.Stream {
	if l.chacha {
		s, err := chacha20.NewUnauthenticatedCipher(l.seed, l.nonce)
		if err != nil {
			panic("integrity: " + err.Error()) // of other lengths than unlock has checked
		}
		return s
	}
	b, err := aes.NewCipher(l.seed)
	if err != nil {
		panic("integrity: " + err.Error())
	}
	return cipher.NewCTR(b, l.nonce)
}

var noBytes [minHole]byte

func holesIn(raw []byte) (out [][2]int) {
	for at := 0; ; {
		i := bytes.Index(raw[at:], noBytes[:])
		if i < 0 {
			return out
		}
		from := at + i
		at = from + zeroRun(raw[from:])
		out = append(out, [2]int{from, at})
	}
}

// shortEnd returns where the last sector of a block begins if it is a hole that is too
// short for minHole, or -1.
func shortEnd(raw []byte) int {
	at := len(raw) / sector * sector
	if n := len(raw) - at; n == 0 || n >= minHole || zeroRun(raw[at:]) != n {
		return -1
	}
	return at
}
