package integrity

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
)

const testKey = "0123456789abcdef0123456789abcdef"

// variant is a way to store: plain, or with one of the ciphers of nats-server.
type variant struct {
	name   string
	key    *StoreKey // nil: plain
	cipher server.StoreCipher
	first  int // which trial of TestClusterHeals it begins with
}

func variants() []variant { return append([]variant{{name: "plain"}}, encrypted()...) }

func encrypted() []variant {
	return []variant{
		{"chacha20", NewStoreKey(testKey, true), server.ChaCha, 0},
		{"aes-256", NewStoreKey(testKey, false), server.AES, 1},
	}
}

func (v variant) server(o *server.Options) {
	if v.key != nil {
		o.JetStreamKey, o.JetStreamCipher = v.key.key, v.cipher
	}
}

func (v variant) harms() []harm {
	if v.key == nil {
		return harms()
	}
	return append(keyHarms(), harms()...)
}

// orders is the stream ORDERS in dir.
func (v variant) orders(dir string) stored {
	return stored{
		msgs:  filepath.Join(dir, "jetstream/$G/streams/ORDERS/msgs"),
		vault: v.key.vault(folder{account: "$G", name: "ORDERS"}, &keyCount{}),
	}
}

// stored is a stream on disk.
type stored struct {
	msgs  string
	vault *vault
}

func (s stored) lock(t *testing.T, file string) *lock {
	t.Helper()
	var index uint32
	if _, err := fmt.Sscanf(filepath.Base(file), "%d.blk", &index); err != nil {
		t.Fatal(err)
	}
	l, err := s.vault.block(file, index)
	if err != nil || s.vault != nil && (l == nil || l.bad) {
		t.Fatalf("the key of %s: %v", file, err)
	}
	return l
}

// read returns the records of a block.
func (s stored) read(t *testing.T, file string) []byte {
	t.Helper()
	raw := read(t, file)
	s.lock(t, file).records(raw)
	return raw
}

func (s stored) write(t *testing.T, file string, records []byte) {
	t.Helper()
	if l := s.lock(t, file); l != nil {
		l.stream().XORKeyStream(records, records)
	}
	write(t, file, records)
}

// keyHarms are the ways to damage the keys of an encrypted stream.
func keyHarms() []harm {
	flipped := func(t *testing.T, r *rand.Rand, file string) string {
		t.Helper()
		at, bit := r.IntN(len(read(t, file))), byte(1)<<r.IntN(8)
		flip(t, file, int64(at), bit)
		return fmt.Sprintf("%s byte %d bit %x", filepath.Base(file), at, bit)
	}
	of := func(t *testing.T, s stored, block int) string {
		t.Helper()
		return filepath.Join(s.msgs, strings.TrimSuffix(mustBlocks(t, s.msgs)[block].name, ".blk")+".key")
	}
	some := func(t *testing.T, r *rand.Rand, s stored) string {
		t.Helper()
		return of(t, s, r.IntN(len(mustBlocks(t, s.msgs))))
	}
	return []harm{
		{name: "bit flip in the key of a block", do: func(t *testing.T, r *rand.Rand, s stored) string {
			return flipped(t, r, some(t, r, s))
		}},
		{name: "bit flip in the key of the stream", do: func(t *testing.T, r *rand.Rand, s stored) string {
			return flipped(t, r, filepath.Join(filepath.Dir(s.msgs), metaKey))
		}},
		{name: "truncated key", do: func(t *testing.T, r *rand.Rand, s stored) string {
			return truncate(t, some(t, r, s), 1+r.IntN(60))
		}},
		{name: "zeroed key", do: func(t *testing.T, _ *rand.Rand, s stored) string {
			file := of(t, s, 1)
			write(t, file, make([]byte, len(read(t, file))))
			return filepath.Base(file)
		}},
		{name: "removed key of a block", do: func(t *testing.T, r *rand.Rand, s stored) string {
			file := some(t, r, s)
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			return filepath.Base(file)
		}},
		{name: "removed key of the stream", do: func(t *testing.T, _ *rand.Rand, s stored) string {
			if err := os.Remove(filepath.Join(filepath.Dir(s.msgs), metaKey)); err != nil {
				t.Fatal(err)
			}
			return metaKey
		}},
		{name: "swapped keys", do: func(t *testing.T, _ *rand.Rand, s stored) string {
			a, b := of(t, s, 0), of(t, s, 2)
			ra, rb := read(t, a), read(t, b)
			write(t, a, rb)
			write(t, b, ra)
			return filepath.Base(a) + " and " + filepath.Base(b)
		}},
	}
}
