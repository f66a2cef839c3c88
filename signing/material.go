package signing

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"sync"
)

// maxSignatures bounds the signatures in one dssematerial of a producer.
const maxSignatures = 4

// maxMaterialBytes bounds what a dssematerial holds once its base64 is undone.
const maxMaterialBytes = maxDSSEBytes / 4 * 3

// The fixed pieces of a producer's dssematerial, which has one layout like every
// envelope of Signet (package dsse), with up to maxSignatures signatures.
const (
	materialOpen = `{"payloadType":"` + PayloadType + `","payload":"`
	materialSigs = `","signatures":[`
	materialKey  = `{"keyid":"`
	materialSig  = `","sig":"`
	materialNext = `"},`
	materialEnd  = `"}]}`
)

// material is a decoded dssematerial of a producer. It is reusable; everything is
// a view of its own memory, valid until the next parse.
type material struct {
	json   [maxMaterialBytes]byte
	values [maxMaterialBytes]byte // what was base64 in json, one after the other
	used   int                    // of values

	body []byte // what was signed, as transmitted
	sigs [maxSignatures]materialSignature
	n    int
}

type materialSignature struct {
	keyID  []byte
	single []byte  // 64 bytes: a signature of the event; empty: merkle
	merkle compact // a signature of the root of a tree
}

var materials = sync.Pool{New: func() any { return new(material) }}

// checkMaterialForm reports what is wrong with the form of a dssematerial.
func checkMaterialForm(text []byte) error {
	m := materials.Get().(*material)
	defer materials.Put(m)
	return m.parse(text)
}

// parse decodes text. There is one layout: base64 of RFC 4648 section 4 without
// line ends, of JSON without white space, members in order, no others, no escapes,
// no key twice. So an envelope has exactly one text, and what this reads no other
// JSON parser reads differently. It looks at no key and checks no signature, and
// allocates only to fail.
func (m *material) parse(text []byte) error {
	m.n, m.used, m.body = 0, 0, nil
	if len(text) > maxDSSEBytes {
		return fmt.Errorf("%w: dssematerial of %d bytes, limit %d", ErrMalformed, len(text), maxDSSEBytes)
	}
	if hasLineEnd(text) { // the decoder would skip them
		return fmt.Errorf("%w: dssematerial has line ends", ErrMalformed)
	}
	size, err := strictBase64.Decode(m.json[:], text)
	if err != nil {
		return fmt.Errorf("%w: dssematerial is not base64 with padding", ErrMalformed)
	}
	rest, ok := bytes.CutPrefix(m.json[:size], []byte(materialOpen))
	if !ok {
		return fmt.Errorf("%w: dssematerial is not a DSSE envelope in the layout of the specification", ErrMalformed)
	}
	value, rest, ok := bytes.Cut(rest, []byte(materialSigs))
	if ok {
		m.body, ok = m.decode(value)
	}
	if !ok || len(m.body) == 0 {
		return fmt.Errorf("%w: payload of dssematerial", ErrMalformed)
	}
	for {
		if m.n == maxSignatures {
			return fmt.Errorf("%w: dssematerial has more than %d signatures", ErrMalformed, maxSignatures)
		}
		var last bool
		if rest, last, err = m.parseSignature(rest); err != nil {
			return err
		}
		if last {
			break
		}
	}
	if len(rest) > 0 {
		return fmt.Errorf("%w: bytes after dssematerial", ErrMalformed)
	}
	return nil
}

var strictBase64 = base64.StdEncoding.Strict()

// parseSignature reads one signature and returns what is behind it; last says that
// the envelope ended with it.
func (m *material) parseSignature(b []byte) (rest []byte, last bool, _ error) {
	bad := func(what string) ([]byte, bool, error) {
		return nil, false, fmt.Errorf("%w: signature %d of dssematerial: %s", ErrMalformed, m.n+1, what)
	}
	b, ok := bytes.CutPrefix(b, []byte(materialKey))
	if !ok {
		return bad("layout")
	}
	s := &m.sigs[m.n]
	*s = materialSignature{}
	if s.keyID, b, ok = bytes.Cut(b, []byte(materialSig)); !ok || !keyText(s.keyID) {
		return bad("keyid")
	}
	for i := range m.n {
		if bytes.Equal(m.sigs[i].keyID, s.keyID) {
			return bad("key is there twice")
		}
	}
	end := bytes.IndexByte(b, '"')
	if end < 0 {
		return bad("layout")
	}
	sig, ok := m.decode(b[:end])
	if !ok {
		return bad("sig is not base64")
	}
	switch b = b[end:]; {
	case len(sig) == ed25519.SignatureSize:
		s.single = sig
	case len(sig) > 0 && sig[0] == kindMerkle:
		if err := s.merkle.parseMerkle(sig[1:]); err != nil {
			return nil, false, err
		}
	default:
		return bad("sig is neither ed25519 nor merkle-ed25519")
	}
	m.n++
	if rest, ok = bytes.CutPrefix(b, []byte(materialNext)); ok {
		return rest, false, nil
	}
	if rest, ok = bytes.CutPrefix(b, []byte(materialEnd)); !ok {
		return bad("layout")
	}
	return rest, true, nil
}

// decode undoes the base64 of one value. There is room: the values are parts of
// json, which is as large.
func (m *material) decode(text []byte) ([]byte, bool) {
	if hasLineEnd(text) {
		return nil, false
	}
	n, err := strictBase64.Decode(m.values[m.used:], text)
	if err != nil {
		return nil, false
	}
	at := m.used
	m.used += n
	return m.values[at:m.used:m.used], true
}

// keyText reports whether b could be an nkeys public key.
func keyText(b []byte) bool {
	const length = 56
	for _, c := range b {
		if (c < 'A' || c > 'Z') && (c < '2' || c > '7') {
			return false
		}
	}
	return len(b) == length
}

// appendMaterial appends the base64 of an envelope with one signature.
func appendMaterial(dst, body []byte, keyID string, sig []byte) []byte {
	var buf [maxMaterialBytes]byte
	b := append(buf[:0], materialOpen...)
	b = base64.StdEncoding.AppendEncode(b, body)
	b = append(b, materialSigs...)
	b = append(b, materialKey...)
	b = append(b, keyID...)
	b = append(b, materialSig...)
	b = base64.StdEncoding.AppendEncode(b, sig)
	b = append(b, materialEnd...)
	return base64.StdEncoding.AppendEncode(dst, b)
}
