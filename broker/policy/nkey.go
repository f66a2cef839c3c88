package policy

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
)

var nkeyEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

const nkeyPrefixUser = 20 << 3 // encodes to 'U'

// checkUserNkey reports what is wrong with a public user nkey: 'U', base32, the
// prefix byte, 32 bytes of key and a CRC-16 (XMODEM, little endian) over both.
// The text must be the canonical encoding, so that a key has one spelling only.
// The error never repeats the text, which may be a seed put in the wrong place.
func checkUserNkey(s string) error {
	switch {
	case s == "":
		return errors.New("nkey is empty")
	case s[0] == 'S':
		return errors.New("this looks like an nkey seed, which is secret: put the public key (U...) here and replace the leaked seed")
	case s[0] != 'U' || len(s) != 56:
		return errors.New("not a public user nkey: U and 55 more characters are expected")
	}
	raw, err := nkeyEncoding.DecodeString(s)
	if err != nil || len(raw) != 35 || raw[0] != nkeyPrefixUser || nkeyEncoding.EncodeToString(raw) != s {
		return errors.New("not a public user nkey: bad encoding")
	}
	if crc16(raw[:33]) != binary.LittleEndian.Uint16(raw[33:]) {
		return errors.New("not a public user nkey: checksum mismatch, a character is wrong")
	}
	return nil
}

// crc16 is CRC-16/XMODEM.
func crc16(data []byte) uint16 {
	var crc uint16
	for _, b := range data {
		crc ^= uint16(b) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
