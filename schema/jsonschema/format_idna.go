package jsonschema

import (
	"bytes"
	"math"
	"unicode"
)

// isALabel checks the part of an A-label after "xn--": it must be Punycode
// (RFC 3492) of a label that RFC 5892 allows. The bidirectional rule (RFC 5893)
// is not checked.
func isALabel(b []byte) bool {
	var buf [64]rune // an A-label has at most 63 bytes, so at most as many runes
	label, ok := decodePunycode(b, buf[:0])
	if !ok || len(label) == 0 {
		return false
	}
	ascii := true
	for _, r := range label {
		ascii = ascii && r < 0x80
	}
	if ascii || unicode.Is(unicode.M, label[0]) {
		return false
	}
	if len(label) >= 4 && label[2] == '-' && label[3] == '-' {
		return false
	}
	kana, arabic, extended := false, false, false
	for _, r := range label {
		kana = kana || r != 0x30FB && unicode.In(r, unicode.Hiragana, unicode.Katakana, unicode.Han)
		arabic = arabic || r >= 0x660 && r <= 0x669
		extended = extended || r >= 0x6F0 && r <= 0x6F9
	}
	if arabic && extended { // RFC 5892 A.8, A.9: the digits may not be mixed
		return false
	}
	for i, r := range label {
		if r == 0x30FB { // katakana middle dot, A.7
			if !kana {
				return false
			}
		} else if !labelRune(label, i, r) {
			return false
		}
	}
	return true
}

// labelCost is the fuel of formats that hold host names: A-labels are decoded
// and looked up rune by rune.
func labelCost(b []byte) int {
	if len(b) > 254 || !bytes.Contains(b, []byte("--")) {
		return 0
	}
	return 10 * len(b)
}

// decodePunycode appends the decoded label to out.
func decodePunycode(b []byte, out []rune) ([]rune, bool) {
	const base, tmin, tmax, skew, damp = 36, 1, 26, 38, 700
	basic := 0
	for i, c := range b {
		if c == '-' {
			basic = i
		}
	}
	for _, c := range b[:basic] {
		out = append(out, unicode.ToLower(rune(c)))
	}
	if basic > 0 {
		basic++
	}
	n, i, bias := 128, 0, 72
	for pos := basic; pos < len(b); {
		old, w := i, 1
		for k := base; ; k += base {
			if pos >= len(b) {
				return nil, false
			}
			digit := 0
			switch c := b[pos]; {
			case isDigit(c):
				digit = int(c-'0') + 26
			case isAlpha(c):
				digit = int(c | 0x20 - 'a')
			default:
				return nil, false
			}
			pos++
			i += digit * w
			t := min(max(k-bias, tmin), tmax)
			if digit < t {
				break
			}
			w *= base - t
			if i > math.MaxInt32 || w > math.MaxInt32 {
				return nil, false
			}
		}
		size := len(out) + 1
		delta := (i - old) / 2
		if old == 0 {
			delta = (i - old) / damp
		}
		delta += delta / size
		k := 0
		for ; delta > (base-tmin)*tmax/2; k += base {
			delta /= base - tmin
		}
		bias = k + (base-tmin+1)*delta/(delta+skew)
		n += i / size
		i %= size
		if n > unicode.MaxRune {
			return nil, false
		}
		out = append(out, 0)
		copy(out[i+1:], out[i:])
		out[i] = rune(n)
		i++
	}
	return out, true
}

// labelRune applies RFC 5892: the derived property, its exceptions, and those
// contextual rules of appendix A that look at the neighbours.
func labelRune(label []rune, i int, r rune) bool {
	before, after := rune(-1), rune(-1)
	if i > 0 {
		before = label[i-1]
	}
	if i+1 < len(label) {
		after = label[i+1]
	}
	switch r {
	case 0xDF, 0x3C2, 0x6FD, 0x6FE, 0xF0B, 0x3007: // exceptions: allowed
		return true
	case 0x640, 0x7FA, 0x302E, 0x302F, 0x3031, 0x3032, 0x3033, 0x3034, 0x3035, 0x303B: // exceptions: disallowed
		return false
	case 0xB7: // middle dot
		return before == 'l' && after == 'l'
	case 0x375: // Greek keraia
		return after >= 0 && unicode.Is(unicode.Greek, after)
	case 0x5F3, 0x5F4: // Hebrew geresh and gershayim
		return before >= 0 && unicode.Is(unicode.Hebrew, before)
	case 0x200D: // zero width joiner
		return isVirama(before)
	case 0x200C: // zero width non-joiner
		return isVirama(before) || before >= 0 && after >= 0 && isJoining(before) && isJoining(after)
	}
	return r == '-' || unicode.In(r, unicode.Ll, unicode.Lo, unicode.Lm, unicode.Mn, unicode.Mc, unicode.Nd)
}

// isVirama reports canonical combining class 9 for the scripts in use.
func isVirama(r rune) bool {
	switch r {
	case 0x94D, 0x9CD, 0xA4D, 0xACD, 0xB4D, 0xBCD, 0xC4D, 0xCCD, 0xD3B, 0xD3C, 0xD4D, 0xDCA, 0xE3A, 0xEBA, 0xF84,
		0x1039, 0x103A, 0x1714, 0x1734, 0x17D2, 0x1A60, 0x1B44, 0x1BAA, 0x1BAB, 0x1BF2, 0x1BF3, 0x2D7F,
		0xA806, 0xA82C, 0xA8C4, 0xA953, 0xA9C0, 0xAAF6, 0xABED:
		return true
	}
	return false
}

// isJoining stands in for the joining types of RFC 5892 A.1: letters of the
// cursive scripts.
func isJoining(r rune) bool {
	return unicode.In(r, unicode.Arabic, unicode.Syriac, unicode.Mongolian, unicode.Nko, unicode.Mandaic, unicode.Phags_Pa)
}
