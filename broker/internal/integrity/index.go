package integrity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"github.com/minio/highwayhash"
)

// index is what index.db says: the state that the server wrote every two minutes and at
// its stop. It may be older than the blocks; then its last sequence is a lower bound.
type index struct {
	Messages, FirstSeq, LastSeq uint64
	firstTS, lastTS             int64
	blocks                      []indexBlock
}

type indexBlock struct {
	index       uint32
	first, last uint64
	lastTS      int64
	deleted     uint64
}

const (
	maxIndex    = 512 << 20
	indexMagic  = 11
	dmapMagic   = 22
	dmapNode    = 8 + 32*8 + 2
	dmapNodeOld = 8 + 64*8 + 2
)

var errIndex = errors.New("index.db cannot be read")

// readIndex returns nil without an error if there is none, or one that nats-server
// would throw away as well: a power cut may leave it half written.
func readIndex(dir, store string, l *lock) (*index, error) {
	file := filepath.Join(dir, "index.db")
	fi, err := os.Stat(file)
	if err != nil || fi.Size() > maxIndex || fi.Size() < 32 {
		if os.IsNotExist(err) || err == nil {
			return nil, nil
		}
		return nil, err
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256([]byte(store))
	body := raw[:len(raw)-hashSize]
	h, err := highwayhash.NewDigest64(key[:])
	if err != nil {
		return nil, err
	}
	_, _ = h.Write(body)
	if !bytes.Equal(h.Sum(nil), raw[len(body):]) {
		return nil, nil
	}
	text, whole := l.text(body)
	if !whole {
		return nil, nil
	}
	return parseIndex(text)
}

// parseIndex reads the state without its hash.
func parseIndex(b []byte) (*index, error) {
	if len(b) < 2 || b[0] != indexMagic || b[1] < 1 || b[1] > 4 {
		return nil, errIndex
	}
	r := cursor{b: b[2:]}
	version := b[1]
	var x index
	x.Messages = r.uint()
	r.uint() // bytes
	x.FirstSeq = r.uint()
	base := r.int()
	x.firstTS = base
	x.LastSeq = r.uint()
	x.lastTS = r.int()
	for n := r.uint(); n > 0 && !r.bad; n-- {
		r.skip(r.uint()) // subject
		total := r.uint()
		r.uint()
		if total > 1 || version >= 4 {
			r.uint()
		}
	}
	n := r.uint()
	if r.bad || n > uint64(len(r.b)) {
		return nil, errIndex
	}
	for ; n > 0 && !r.bad; n-- {
		var blk indexBlock
		blk.index = uint32(r.uint())
		r.uint() // bytes
		blk.first = r.uint()
		r.int() // time of the first message
		blk.last = r.uint()
		blk.lastTS = r.int() + base
		blk.deleted = r.uint()
		if version >= 2 {
			r.uint() // messages with a lifetime
		}
		if version >= 3 {
			r.uint() // messages with a schedule
		}
		if blk.deleted > 0 {
			r.skipDeleted()
		}
		x.blocks = append(x.blocks, blk)
	}
	if r.bad {
		return nil, errIndex
	}
	return &x, nil
}

type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) uint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) int() int64 {
	v, n := binary.Varint(c.b)
	if n <= 0 {
		c.bad, c.b = true, nil
		return 0
	}
	c.b = c.b[n:]
	return v
}

func (c *cursor) skip(n uint64) {
	if n > uint64(len(c.b)) {
		c.bad, c.b = true, nil
		return
	}
	c.b = c.b[n:]
}

// skipDeleted passes over the set of deleted sequences of one block.
func (c *cursor) skipDeleted() {
	if len(c.b) < 10 || c.b[0] != dmapMagic {
		c.bad, c.b = true, nil
		return
	}
	node := uint64(dmapNode)
	if c.b[1] == 1 {
		node = dmapNodeOld
	}
	nodes := uint64(binary.LittleEndian.Uint32(c.b[2:]))
	c.skip(10 + nodes*node)
}
