package admission

import (
	"crypto/rand"
	"encoding/binary"
)

// idSource makes event identifiers for publishes that name none: 14 random and 8
// counting characters, 22 in all, unique across connections by the random part (83
// bits) and within one by the counter.
type idSource struct {
	prefix [14]byte
	next   uint64
}

// idDigits are letters and digits without "N", which nats-server looks for in the
// headers of every message (docs/adr/0005-attestation-text.md).
const idDigits = "0123456789ABCDEFGHIJKLMOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func newIDSource() idSource {
	var src idSource
	var raw [29]byte
	_, _ = rand.Read(raw[:]) // never fails since Go 1.24
	for i := range src.prefix {
		// 16 random bits modulo 61: the bias is below 0.1 % and of no use to anyone.
		src.prefix[i] = idDigits[binary.LittleEndian.Uint16(raw[2*i:])%uint16(len(idDigits))]
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
		digits[i] = idDigits[n%uint64(len(idDigits))]
		n /= uint64(len(idDigits))
	}
	return append(dst, digits[:]...)
}
