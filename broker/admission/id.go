package admission

import (
	"crypto/rand"
	"encoding/binary"
)

// idSource makes event identifiers for publishes that name none: 14 random and 8
// counting base-62 characters, 22 in all, unique across connections by the random
// part (83 bits) and within one by the counter.
type idSource struct {
	prefix [14]byte
	next   uint64
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func newIDSource() idSource {
	var src idSource
	var raw [29]byte
	_, _ = rand.Read(raw[:]) // never fails since Go 1.24
	for i := range src.prefix {
		// 16 random bits modulo 62: the bias is below 0.1 % and of no use to anyone.
		src.prefix[i] = base62[binary.LittleEndian.Uint16(raw[2*i:])%62]
	}
	src.next = uint64(raw[28])
	return src
}

func (s *idSource) append(dst []byte) []byte {
	dst = append(dst, s.prefix[:]...)
	n := s.next
	s.next++
	var digits [8]byte
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = base62[n%62]
		n /= 62
	}
	return append(dst, digits[:]...)
}
