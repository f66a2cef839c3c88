package cloudevent

import (
	"fmt"
	"unicode/utf8"
)

// Validate checks that e can be stored, signed and read back the same by every
// binding:
//   - id, source and type are there;
//   - extension names are 1 to 20 of a-z 0-9, sorted, unique, and not the name of
//     a core attribute or of the data; at most MaxExtensions of them, none empty;
//   - values are UTF-8 without control characters (U+0000-1F, U+007F-9F),
//     noncharacters and bidirectional controls;
//   - source is made of the characters of a URI-reference; dataschema too, and
//     has a scheme;
//   - time is one that ParseTime reads;
//   - all attributes together take at most MaxAttrBytes as headers.
//
// It says nothing about Data, and does not allocate unless it fails.
//
// Errors: ErrMissing, ErrAttribute, ErrTooMany, ErrTooLarge.
func (e *Event) Validate() error {
	size := len("ce-specversion: 1.0\r\n")
	for i, f := range [...]struct {
		name  string
		value []byte
	}{
		{"id", e.ID},
		{"source", e.Source},
		{"type", e.Type},
		{"datacontenttype", e.ContentType},
		{"dataschema", e.DataSchema},
		{"subject", e.Subject},
		{"time", e.Time},
	} {
		if len(f.value) == 0 {
			if i < 3 {
				return fmt.Errorf("%w: %s", ErrMissing, f.name)
			}
			continue
		}
		n, reason := checkValue(f.value)
		if reason != "" {
			return attrError(ErrAttribute, []byte(f.name), reason)
		}
		size += len("ce-: \r\n") + len(f.name) + n
	}
	if !uriChars(e.Source) {
		return attrError(ErrAttribute, []byte("source"), "not a URI-reference in ASCII")
	}
	if len(e.DataSchema) > 0 && (!uriChars(e.DataSchema) || !hasScheme(e.DataSchema)) {
		return attrError(ErrAttribute, []byte("dataschema"), "not an absolute URI in ASCII")
	}
	if len(e.Time) > 0 {
		if _, ok := ParseTime(e.Time); !ok {
			return attrError(ErrAttribute, []byte("time"), "not an RFC 3339 time")
		}
	}
	return e.validateExt(size)
}

func (e *Event) validateExt(size int) error {
	if len(e.Ext) > MaxExtensions {
		return ErrTooMany
	}
	for i := range e.Ext {
		a := &e.Ext[i]
		if err := checkName(a.Name); err != nil {
			return err
		}
		switch {
		case e.slot(a.Name) != nil || string(a.Name) == "specversion":
			return attrError(ErrAttribute, a.Name, "core attribute among the extensions")
		case i > 0 && string(e.Ext[i-1].Name) >= string(a.Name):
			return attrError(ErrAttribute, a.Name, "extensions not sorted or not unique")
		case len(a.Value) == 0:
			return attrError(ErrAttribute, a.Name, "empty value")
		}
		n, reason := checkValue(a.Value)
		if reason != "" {
			return attrError(ErrAttribute, a.Name, reason)
		}
		size += len("ce-: \r\n") + len(a.Name) + n
	}
	if size > MaxAttrBytes {
		return fmt.Errorf("%w: %d bytes as headers, limit %d", ErrTooLarge, size, MaxAttrBytes)
	}
	return nil
}

// checkValue says what is wrong with an attribute value, and how long it is when
// percent-encoded.
func checkValue(v []byte) (encoded int, reason string) {
	encoded = len(v)
	for i := 0; i < len(v); {
		c := v[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == 0x7f {
				return 0, "control character"
			}
			if encodeByte[c] {
				encoded += 2
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(v[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			return 0, "not UTF-8"
		case r <= 0x9f:
			return 0, "control character"
		case bidiControl(r):
			return 0, "bidirectional control character"
		case r >= 0xfdd0 && r <= 0xfdef || r&0xfffe == 0xfffe:
			return 0, "noncharacter"
		}
		encoded += 2 * n
		i += n
	}
	return encoded, ""
}

// bidiControl names the characters that make a text look different from what it
// says.
func bidiControl(r rune) bool {
	return r == 0x061c || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// uriChars reports whether v has only characters of RFC 3986, with every percent
// sign followed by two hex digits.
func uriChars(v []byte) bool {
	for i, c := range v {
		if !uriByte[c] {
			return false
		}
		if c == '%' && (i+2 >= len(v) || unhex[v[i+1]]|unhex[v[i+2]] > 0x0f) {
			return false
		}
	}
	return true
}

func hasScheme(v []byte) bool {
	for i, c := range v {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
		case i > 0 && (c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.'):
		default:
			return i > 0 && c == ':'
		}
	}
	return false
}

var uriByte = func() (t [256]bool) {
	for _, c := range []byte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~:/?#[]@!$&'()*+,;=%") {
		t[c] = true
	}
	return t
}()
