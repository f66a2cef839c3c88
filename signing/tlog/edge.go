package tlog

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	// TileHeight is the height of a tile; TileWidth the number of its hashes (C2SP
	// tlog-tiles).
	TileHeight = 8
	TileWidth  = 1 << TileHeight
	// MaxSize is the size of the largest log.
	MaxSize = 1 << 48
	// tileLevels is the number of levels of tiles of the largest log.
	tileLevels = 48 / TileHeight
)

// Errors of trees and tiles.
var (
	// ErrTiles: tiles that are not those of the root.
	ErrTiles = errors.New("tlog: the tiles are not those of the checkpoint")
	// ErrSize: a log beyond MaxSize, or an index outside of a log.
	ErrSize = errors.New("tlog: outside of the log")
)

// Tile is one tile: Hashes are the nodes of the tree at height Level*TileHeight, from
// Index*TileWidth on; fewer than TileWidth in the last tile of a level.
type Tile struct {
	Level  int
	Index  int64
	Hashes []Hash
}

// Bytes returns the hashes one after the other, as C2SP tlog-tiles has them.
func (t *Tile) Bytes() []byte {
	b := make([]byte, 0, len(t.Hashes)*tlog.HashSize)
	for i := range t.Hashes {
		b = append(b, t.Hashes[i][:]...)
	}
	return b
}

// constants are the hashes of complete subtrees of absent leaves by the level of the
// tile that they stand in.
var constants = func() (c [tileLevels + 1]Hash) {
	c[0] = absent
	for i := 1; i <= tileLevels; i++ {
		c[i] = c[i-1]
		for range TileHeight {
			c[i] = tlog.NodeHash(c[i], c[i])
		}
	}
	return c
}()

// Edge is the growing right edge of a log: its size and the tiles that are not full.
// The zero value is the empty log. It belongs to one goroutine.
type Edge struct {
	levels [tileLevels + 1]edgeLevel
	size   int64
	full   []Tile
}

type edgeLevel struct {
	tile    []Hash // of the last tile; never full
	index   int64  // of that tile
	changed bool   // since Take
}

// Size returns the number of leaves.
func (e *Edge) Size() int64 { return e.size }

// Append adds one leaf.
//
// Errors: ErrSize.
func (e *Edge) Append(leaf Hash) error {
	if e.size >= MaxSize {
		return fmt.Errorf("%w: it has %d leaves", ErrSize, e.size)
	}
	e.add(0, leaf)
	e.size++
	return nil
}

// AppendAbsent adds n absent leaves. What it costs grows with the logarithm of n, not
// with n: subtrees of absent leaves are constants, and their tiles are not stored.
//
// Errors: ErrSize.
func (e *Edge) AppendAbsent(n int64) error {
	if n < 0 || n > MaxSize-e.size {
		return fmt.Errorf("%w: %d absent sequences after %d leaves", ErrSize, n, e.size)
	}
	for n > 0 {
		level, width := 0, int64(1)
		for level < tileLevels && len(e.levels[level].tile) == 0 && n >= width<<TileHeight {
			level++
			width <<= TileHeight
		}
		e.add(level, constants[level])
		for below := range level { // whose tiles were skipped
			e.levels[below].index += width >> (TileHeight * (below + 1))
		}
		e.size += width
		n -= width
	}
	return nil
}

func (e *Edge) add(level int, h Hash) {
	l := &e.levels[level]
	if l.tile == nil {
		l.tile = make([]Hash, 0, TileWidth) // not grown eight times and copied
	}
	l.tile = append(l.tile, h)
	l.changed = true
	if len(l.tile) < TileWidth {
		return
	}
	if !constant(level, l.tile) {
		e.full = append(e.full, Tile{Level: level, Index: l.index, Hashes: l.tile})
	}
	root := listRoot(l.tile)
	l.tile, l.index, l.changed = nil, l.index+1, false
	e.add(level+1, root)
}

func constant(level int, tile []Hash) bool {
	for i := range tile {
		if tile[i] != constants[level] {
			return false
		}
	}
	return true
}

// Take returns the tiles that became full or changed since the last call, the lowest
// first: what must be stored before a checkpoint of Size names them. A full tile of
// nothing but absent leaves is not among them.
func (e *Edge) Take() []Tile {
	out := e.full
	e.full = nil
	for level := range e.levels {
		if l := &e.levels[level]; l.changed && len(l.tile) > 0 {
			out = append(out, Tile{Level: level, Index: l.index, Hashes: append([]Hash(nil), l.tile...)})
			l.changed = false
		}
	}
	return out
}

// Root returns the root of the log; that of an empty log is SHA-256 of nothing.
func (e *Edge) Root() Hash {
	var carry *Hash
	for level := range e.levels {
		list := e.levels[level].tile
		if carry != nil {
			list = append(list[:len(list):len(list)], *carry)
		}
		if len(list) > 0 {
			root := listRoot(list)
			carry = &root
		}
	}
	if carry == nil {
		empty, _ := tlog.TreeHash(0, nil) // cannot fail
		return empty
	}
	return *carry
}

// listRoot is the root of an RFC 6962 tree over list, whose last element may be the
// root of a smaller subtree than the others: the split is at the same place then.
func listRoot(list []Hash) Hash {
	level := append(make([]Hash, 0, len(list)), list...)
	for len(level) > 1 {
		next := level[:0]
		for i := 0; i < len(level); i += 2 {
			if i+1 == len(level) {
				next = append(next, level[i])
				break
			}
			next = append(next, tlog.NodeHash(level[i], level[i+1]))
		}
		level = next
	}
	return level[0]
}

// ReadTile returns the bytes of a stored tile, empty if there is none. They may be more
// or fewer than wanted: a tile grows, and what a tile of absent leaves would hold is
// not stored.
type ReadTile func(level int, index int64) ([]byte, error)

// NewEdge returns the edge of the log of this size and root from its stored tiles.
//
// Errors: ErrTiles if they are others, ErrSize, or that of read.
func NewEdge(size int64, root Hash, read ReadTile) (*Edge, error) {
	if size < 0 || size > MaxSize {
		return nil, fmt.Errorf("%w: size %d", ErrSize, size)
	}
	e := &Edge{size: size}
	for level := range e.levels {
		width := int(size >> (TileHeight * level) & (TileWidth - 1))
		l := &e.levels[level]
		l.index = size >> (TileHeight * (level + 1))
		if width == 0 {
			continue
		}
		data, err := read(level, l.index)
		if err != nil {
			return nil, err
		}
		data = fit(data, level, width)
		l.tile = make([]Hash, width, TileWidth)
		for i := range l.tile {
			l.tile[i] = Hash(data[i*tlog.HashSize:])
		}
	}
	if e.Root() != root {
		return nil, fmt.Errorf("%w: size %d", ErrTiles, size)
	}
	return e, nil
}

// fit cuts a tile to width hashes, or fills it up with those of absent leaves. Nothing
// of it is trusted until a root has been computed over it.
func fit(data []byte, level, width int) []byte {
	want := width * tlog.HashSize
	if len(data) >= want {
		return data[:want:want]
	}
	data = append(make([]byte, 0, want), data[:len(data)/tlog.HashSize*tlog.HashSize]...)
	for len(data) < want {
		data = append(data, constants[min(level, tileLevels)][:]...)
	}
	return data
}

// NewHashReader returns a reader of the hashes of the log of this size and root. Every
// hash that it returns is authenticated against root.
//
// Errors of its ReadHashes: ErrTiles, or that of read.
func NewHashReader(size int64, root Hash, read ReadTile) tlog.HashReader {
	inner := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, &tileReader{read: read})
	return tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		if len(indexes) == 0 {
			return nil, nil
		}
		hashes, err := inner.ReadHashes(indexes)
		var failed *readError
		switch {
		case errors.As(err, &failed):
			return nil, failed.err
		case err != nil:
			return nil, fmt.Errorf("%w: %w", ErrTiles, err)
		}
		return hashes, nil
	})
}

// readError tells what a store answered from what a tile proved.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

type tileReader struct{ read ReadTile }

func (*tileReader) Height() int                     { return TileHeight }
func (*tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func (r *tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	out := make([][]byte, len(tiles))
	for i, t := range tiles {
		data, err := r.read(t.L, t.N)
		if err != nil {
			return nil, &readError{err}
		}
		out[i] = fit(data, t.L, t.W)
	}
	return out, nil
}
