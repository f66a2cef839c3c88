package jsonschema

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/signetbus/signet/schema"
)

// kind is the type of one JSON value.
type kind uint8

const (
	kindNull kind = iota
	kindFalse
	kindTrue
	kindNumber
	kindString
	kindArray
	kindObject
)

// value is one parsed JSON value. The values of a document stand in one slice in
// document order: an array is followed by its items, an object by name, value,
// name, value; next leads over the whole subtree.
type value struct {
	kind    kind
	escaped bool  // string: the text is scratch[n:m], not data[start:end]
	integer bool  // number: written without fraction and exponent
	start   int32 // first byte; for a string, after the quote
	end     int32 // byte after the last; for a string, the closing quote
	next    int32 // index of the value that follows the subtree
	n       int32 // items, members, or the start of the unescaped text
	m       int32 // end of the unescaped text
}

// document is one parsed text. Documents are pooled: every slice keeps its
// capacity unless a large payload made it large.
type document struct {
	data    []byte
	values  []value
	scratch []byte // unescaped strings
	pos     int    // of the parser
	limits  schema.Limits
	seen    []int32 // open-addressed table of member names, of one object at a time
}

// What the pool keeps at most per document: enough for a payload of some 64 KiB.
const (
	keepValues  = 1 << 14
	keepScratch = 1 << 16
	keepSeen    = 1 << 12
)

var documents = sync.Pool{New: func() any { return new(document) }}

func takeDocument() *document { return documents.Get().(*document) }

// release returns d to the pool; no view of it may be used afterwards.
func (d *document) release() {
	d.data = nil
	d.values, d.scratch = d.values[:0], d.scratch[:0]
	if cap(d.values) > keepValues {
		d.values = nil
	}
	if cap(d.scratch) > keepScratch {
		d.scratch = nil
	}
	if cap(d.seen) > keepSeen {
		d.seen = nil
	}
	documents.Put(d)
}

// add begins a value. It writes the fields in place: appending a composite
// literal stalls on its own small stores and cost a fifth of the whole scan.
func (d *document) add(k kind, start int) int {
	i := len(d.values)
	if i < cap(d.values) {
		d.values = d.values[:i+1]
	} else {
		d.values = append(d.values, value{})
	}
	v := &d.values[i]
	v.kind, v.escaped, v.integer = k, false, false
	v.start, v.n, v.m = int32(start), 0, 0
	return i
}

// close ends the value i at d.pos, after all of its children.
func (d *document) close(i int) {
	d.values[i].end = int32(d.pos)
	d.values[i].next = int32(len(d.values))
}

// text returns the unescaped text of the string i.
func (d *document) text(i int) []byte {
	v := &d.values[i]
	if v.escaped {
		return d.scratch[v.n:v.m]
	}
	return d.data[v.start:v.end]
}

// token returns the bytes of the number i as written.
func (d *document) token(i int) []byte {
	v := &d.values[i]
	return d.data[v.start:v.end]
}

// find returns the index of the name in object i, -1 if it has none.
func (d *document) find(i int, name []byte) int {
	n, key := d.values[i].n, i+1
	for range n {
		if string(d.text(key)) == string(name) {
			return key
		}
		key = int(d.values[key+1].next)
	}
	return -1
}

// offset is the first byte of value i; of a string, its quote.
func (d *document) offset(i int) int {
	v := &d.values[i]
	if v.kind == kindString {
		return int(v.start) - 1
	}
	return int(v.start)
}

// got names type and size, never the value.
func (d *document) got(i int) string {
	v := &d.values[i]
	switch v.kind {
	case kindNull:
		return "null"
	case kindTrue, kindFalse:
		return "boolean"
	case kindNumber:
		return "number"
	case kindString:
		return fmt.Sprintf("string of %d characters", runeCount(d.text(i)))
	case kindArray:
		return fmt.Sprintf("array of %d items", v.n)
	default:
		return fmt.Sprintf("object of %d members", v.n)
	}
}

// pairwise is up to how many members names are compared each with each: below
// it that is faster than a table.
const pairwise = 8

var nameSeed = maphash.MakeSeed()

// checkDuplicates refuses the object i if two names are equal after unescaping.
func (d *document) checkDuplicates(i int) *ScanError {
	n := int(d.values[i].n)
	if n < 2 {
		return nil
	}
	if n <= pairwise {
		return d.checkPairwise(i, n)
	}
	size := 32
	for size < 2*n {
		size *= 2
	}
	if cap(d.seen) < size {
		d.seen = make([]int32, size)
	}
	seen := d.seen[:size]
	clear(seen)
	mask := uint64(size - 1)
	key := i + 1
	for range n {
		name := d.text(key)
		slot := maphash.Bytes(nameSeed, name) & mask
		for seen[slot] != 0 {
			if bytes.Equal(d.text(int(seen[slot])), name) {
				return &ScanError{int(d.values[key].start), ReasonDuplicate}
			}
			slot = (slot + 1) & mask
		}
		seen[slot] = int32(key)
		key = int(d.values[key+1].next)
	}
	return nil
}

func (d *document) checkPairwise(i, n int) *ScanError {
	var names [pairwise][]byte
	key := i + 1
	for k := range n {
		name := d.text(key)
		for _, other := range names[:k] {
			if len(other) == len(name) && string(other) == string(name) {
				return &ScanError{int(d.values[key].start), ReasonDuplicate}
			}
		}
		names[k] = name
		key = int(d.values[key+1].next)
	}
	return nil
}
