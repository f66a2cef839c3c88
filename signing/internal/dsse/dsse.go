// Package dsse is the part of DSSE v1.0.2 (Dead Simple Signing Envelope) that
// Signet needs: the pre-authentication encoding and a strict codec for the JSON
// envelope with exactly one signature.
//
// Writers and readers know one layout only, byte for byte:
//
//	{"payloadType":"T","payload":"B64","signatures":[{"keyid":"K","sig":"B64"}]}
//
// so an envelope has one encoding and Parse followed by Append gives back the
// same bytes. The package checks no signature, keeps no state and starts no
// goroutine. Format: docs/spec/envelope.md.
package dsse

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strconv"
)

// ErrMalformed says that an envelope is not in the one accepted layout.
var ErrMalformed = errors.New("dsse: malformed envelope")

// Envelope is a decoded envelope. KeyID is an unauthenticated hint.
type Envelope struct {
	PayloadType string
	Payload     []byte
	KeyID       string
	Sig         []byte
}

// AppendPAE appends the bytes that a DSSE signature covers:
// "DSSEv1" SP len(type) SP type SP len(body) SP body.
func AppendPAE(dst []byte, payloadType string, body []byte) []byte {
	dst = append(dst, "DSSEv1 "...)
	dst = strconv.AppendInt(dst, int64(len(payloadType)), 10)
	dst = append(dst, ' ')
	dst = append(dst, payloadType...)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, ' ')
	return append(dst, body...)
}

// The fixed pieces of the layout, in order.
const (
	openType   = `{"payloadType":"`
	openBody   = `","payload":"`
	openKey    = `","signatures":[{"keyid":"`
	openSig    = `","sig":"`
	closeWhole = `"}]}`
)

// Append appends the JSON of e. PayloadType and KeyID must be printable ASCII
// without quote and backslash; both are constants or nkeys strings in Signet.
func Append(dst []byte, e *Envelope) []byte {
	dst = append(dst, openType...)
	dst = append(dst, e.PayloadType...)
	dst = append(dst, openBody...)
	dst = base64.StdEncoding.AppendEncode(dst, e.Payload)
	dst = append(dst, openKey...)
	dst = append(dst, e.KeyID...)
	dst = append(dst, openSig...)
	dst = base64.StdEncoding.AppendEncode(dst, e.Sig)
	return append(dst, closeWhole...)
}

// Parse decodes the JSON of one envelope. It keeps no reference to b. Any other
// layout, whitespace, escape, second signature or base64 variant is ErrMalformed.
func Parse(b []byte) (*Envelope, error) {
	rest := b
	var e Envelope
	fields := [...]struct {
		open string
		into func(text []byte) bool
	}{
		{openType, func(t []byte) bool { e.PayloadType = string(t); return plain(t) }},
		{openBody, func(t []byte) bool { return decode(&e.Payload, t) }},
		{openKey, func(t []byte) bool { e.KeyID = string(t); return plain(t) }},
		{openSig, func(t []byte) bool { return decode(&e.Sig, t) }},
	}
	for _, f := range fields {
		var ok bool
		if rest, ok = bytes.CutPrefix(rest, []byte(f.open)); !ok {
			return nil, ErrMalformed
		}
		end := bytes.IndexByte(rest, '"')
		if end < 0 || !f.into(rest[:end]) {
			return nil, ErrMalformed
		}
		rest = rest[end:]
	}
	// The comparison with a fresh encoding is what makes "one encoding only" true
	// whatever the scanner above lets through.
	if string(rest) != closeWhole || !bytes.Equal(Append(make([]byte, 0, len(b)), &e), b) {
		return nil, ErrMalformed
	}
	return &e, nil
}

func plain(t []byte) bool {
	for _, c := range t {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	return len(t) > 0
}

func decode(into *[]byte, t []byte) bool {
	var err error
	*into, err = base64.StdEncoding.Strict().AppendDecode(nil, t)
	return err == nil
}
