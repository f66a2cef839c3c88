package translog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/signetbus/signet/signing/tlog"
)

const (
	// attestedRing bounds what is remembered for all logs of a node, and attestedMost one
	// event of it. A log that is further behind than that computes everything itself: a
	// small event takes about 1 KiB with its headers, and a log is half a second behind
	// under load.
	attestedRing = 32 << 20
	attestedMost = attestedRing / 256
	// attestedPlaces is the number of places at which an event is looked for; a power of
	// two. It is several times as many events as the ring holds, so few share a place.
	attestedPlaces = 1 << 16
	// attestedHead is what stands before the bytes of an event: three lengths and the digest.
	attestedHead = 3*4 + sha256.Size
	// proveEvery: of so many events whose digest is remembered, one is computed all the same.
	proveEvery = 64
)

// Attested remembers the events that the gates of this node attested last, with the digest
// of each, so that the log does not compute again what was computed milliseconds before: of
// a leaf that is more than half of the work.
//
// The log says what is stored, so it takes nothing from a header, and nothing on the word
// of whoever published. It takes a digest only for a message that has come back from the
// store equal to what the gate hashed and wrote: every byte of subject, header block and
// payload is compared, so a byte that was changed on the way to the store, in it or on the
// way back makes the log compute the digest of what is there. What is left to believe is
// that hashing is a function of the bytes: that an event as the gate writes it reads back
// as the event that it has hashed. Every reader's check of an attestation rests on the
// same, tests hold it, and the log proves it for one event of proveEvery; where it does
// not hold, nothing is taken any more.
//
// It holds nothing before a log is written on this node. Safe for concurrent use.
type Attested struct {
	seed  maphash.Seed // of the places: a sender cannot make its events share one
	wrong atomic.Bool  // a digest was not that of the bytes: none is taken any more

	mu      sync.Mutex
	streams map[[2]string]*AttestedStream
	writers int // logs that this node writes
	ring    []byte
	head    uint64   // bytes that were written since the ring was made, and its length
	places  []uint64 // where the event with a key begins, as head then was; 0: nowhere
	next    uint64   // where the one begins that is behind the last that was found
}

// NewAttested returns one that remembers nothing yet.
func NewAttested() *Attested {
	return &Attested{seed: maphash.MakeSeed(), streams: map[[2]string]*AttestedStream{}}
}

// Stream returns the part for one stream of an account, always the same.
func (a *Attested) Stream(account, stream string) *AttestedStream {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := [2]string{account, stream}
	if a.streams[k] == nil {
		a.streams[k] = &AttestedStream{all: a}
	}
	return a.streams[k]
}

// AttestedStream is what is remembered for one stream. Safe for concurrent use.
type AttestedStream struct {
	all     *Attested
	writers atomic.Int32
}

// Wanted says whether this node writes the log of the stream, so that Put is of use.
func (s *AttestedStream) Wanted() bool { return s.writers.Load() > 0 }

// Put remembers an attested event as it goes to the store, and the SHA-256 of the PAE that
// was attested. It keeps no reference to its arguments. What is too long is not remembered.
func (s *AttestedStream) Put(subject, block, data []byte, digest [sha256.Size]byte) {
	a := s.all
	n := attestedHead + len(subject) + len(block) + len(data)
	if n > attestedMost || !s.Wanted() || a.wrong.Load() {
		return
	}
	key := maphash.Bytes(a.seed, block)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.writers == 0 {
		return
	}
	if a.ring == nil {
		a.ring, a.places, a.head = make([]byte, attestedRing), make([]uint64, attestedPlaces), attestedRing
	}
	if end := a.ring[a.head%attestedRing:]; len(end) < n { // none is in two parts
		clear(end)
		a.head += uint64(len(end))
	}
	at := a.head
	a.head += uint64(n)
	b := a.ring[at%attestedRing:][:n]
	binary.LittleEndian.PutUint32(b, uint32(len(subject)))
	binary.LittleEndian.PutUint32(b[4:], uint32(len(block)))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(data)))
	copy(b[12:], digest[:])
	b = b[attestedHead:]
	b = b[copy(b, subject):]
	b = b[copy(b, block):]
	copy(b, data)
	a.places[key%attestedPlaces] = at
}

// digest returns the digest of an event that is stored with exactly these bytes, if it is
// remembered.
func (s *AttestedStream) digest(subject string, block, data []byte) (sum tlog.Hash, ok bool) {
	a := s.all
	if len(block) == 0 || a.wrong.Load() {
		return sum, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	// Most come back in the order in which they went out.
	if sum, ok = a.at(a.next, subject, block, data); ok {
		return sum, true
	}
	if a.ring == nil {
		return sum, false
	}
	return a.at(a.places[maphash.Bytes(a.seed, block)%attestedPlaces], subject, block, data)
}

// at returns the digest of the event that begins at a place, if it is this one, and notes
// where the one after it begins.
func (a *Attested) at(place uint64, subject string, block, data []byte) (sum tlog.Hash, ok bool) {
	if place == 0 || place >= a.head || a.head-place > attestedRing { // nothing, or written over
		return sum, false
	}
	n := attestedHead + len(subject) + len(block) + len(data)
	b := a.ring[place%attestedRing:]
	if len(b) < n || int(binary.LittleEndian.Uint32(b)) != len(subject) || int(binary.LittleEndian.Uint32(b[4:])) != len(block) || int(binary.LittleEndian.Uint32(b[8:])) != len(data) {
		return sum, false
	}
	sum = tlog.Hash(b[12:attestedHead])
	b = b[attestedHead:n]
	if string(b[:len(subject)]) != subject {
		return sum, false
	}
	b = b[len(subject):]
	if !bytes.Equal(b[:len(block)], block) || !bytes.Equal(b[len(block):], data) {
		return sum, false
	}
	a.next = place + uint64(n)
	return sum, true
}

// write says that this node writes the log of the stream from now on, until done.
func (s *AttestedStream) write() (done func()) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.all.writers++
	s.writers.Add(1)
	return func() {
		s.all.mu.Lock()
		defer s.all.mu.Unlock()
		s.writers.Add(-1)
		if s.all.writers--; s.all.writers == 0 {
			s.all.ring, s.all.places, s.all.head, s.all.next = nil, nil, 0, 0
		}
	}
}
