package jsonschema

import (
	"bytes"
	"cmp"
	"math/big"
	"strconv"
)

// maxDigits is the most significant digits that a number token can have: the
// hard limit of schema.Limits.NumberBytes.
const maxDigits = 64

// decimal is an exact decimal number, 0.d1d2…dn x 10^exp, without leading or
// trailing zero digits; n == 0 is zero. No step of it allocates but multipleOf on
// numbers that do not fit an int64.
type decimal struct {
	neg    bool
	small  bool  // int64 holds the value, digits may be unset
	n      int   // significant digits
	exp    int   // place of the decimal point
	int64  int64 // the value when small
	digits [maxDigits]byte
}

// parse reads a JSON number token with at most maxDigits significant digits.
func (x *decimal) parse(tok []byte, integer bool) {
	if integer && len(tok) <= 18 {
		x.parseSmall(tok)
		return
	}
	x.neg, x.small, x.n, x.exp = false, false, 0, 0
	i := 0
	if tok[0] == '-' {
		x.neg = true
		i++
	}
	point := false
	for ; i < len(tok); i++ {
		c := tok[i]
		if c == '.' {
			point = true
			continue
		}
		if c|0x20 == 'e' {
			e, _ := strconv.Atoi(string(tok[i+1:])) // at most 4 digits: the scanner saw to it
			x.exp += e
			break
		}
		if x.n == 0 && c == '0' {
			if point {
				x.exp--
			}
			continue
		}
		if !point {
			x.exp++
		}
		if x.n < maxDigits {
			x.digits[x.n] = c
			x.n++
		}
	}
	x.trim()
}

func (x *decimal) parseSmall(tok []byte) {
	x.small, x.neg = true, tok[0] == '-'
	if x.neg {
		tok = tok[1:]
	}
	var v int64
	for _, c := range tok {
		v = v*10 + int64(c-'0')
	}
	if x.neg {
		v = -v
	}
	x.int64 = v
}

// trim drops trailing zero digits and gives zero one form.
func (x *decimal) trim() {
	for x.n > 0 && x.digits[x.n-1] == '0' {
		x.n--
	}
	if x.n == 0 {
		x.neg, x.exp = false, 0
	}
}

// expand fills the digits of a small number.
func (x *decimal) expand() {
	if !x.small || x.n > 0 {
		return
	}
	var buf [24]byte
	tok := strconv.AppendInt(buf[:0], x.int64, 10)
	x.neg = x.int64 < 0
	if x.neg {
		tok = tok[1:]
	}
	if x.int64 == 0 {
		tok = nil
	}
	x.n = copy(x.digits[:], tok)
	x.exp = x.n
	x.trim()
}

// isInteger reports whether x has no fraction: 1.0 and 10e-1 are integers.
func (x *decimal) isInteger() bool { return x.small || x.n <= x.exp }

// compare returns -1, 0 or 1 as x is below, equal to or above y.
func (x *decimal) compare(y *decimal) int {
	if x.small && y.small {
		return cmp.Compare(x.int64, y.int64)
	}
	x.expand()
	if y.small && y.n == 0 && y.int64 != 0 {
		expanded := *y // y is the caller's, and may be shared
		y = &expanded
		y.expand()
	}
	if x.n == 0 || y.n == 0 || x.neg != y.neg {
		return cmp.Compare(x.sign(), y.sign())
	}
	c := cmp.Compare(x.exp, y.exp)
	if c == 0 {
		c = bytes.Compare(x.digits[:x.n], y.digits[:y.n])
	}
	if x.neg {
		return -c
	}
	return c
}

// sign returns -1, 0 or 1.
func (x *decimal) sign() int {
	switch {
	case x.n == 0:
		return 0
	case x.neg:
		return -1
	}
	return 1
}

// multipleOf reports whether x is an integral multiple of y, which is above zero.
func (x *decimal) multipleOf(y *decimal) bool {
	if x.small && y.small {
		return x.int64%y.int64 == 0
	}
	a, ea := x.big()
	b, eb := y.big()
	// Both exponents are bounded by the scanner, so the scaled integers stay
	// under some 1,000 digits.
	low := min(ea, eb)
	scale(a, ea-low)
	scale(b, eb-low)
	return b.Sign() != 0 && a.Rem(a, b).Sign() == 0
}

// big returns x as m x 10^e.
func (x *decimal) big() (m *big.Int, e int) {
	if x.small {
		return big.NewInt(x.int64), 0
	}
	m = new(big.Int)
	if x.n > 0 {
		m.SetString(string(x.digits[:x.n]), 10)
	}
	return m, x.exp - x.n
}

func scale(m *big.Int, e int) {
	if e > 0 {
		m.Mul(m, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(e)), nil))
	}
}

// newDecimal converts a schema number. The schema text passed the scanner, so
// the number has at most maxDigits significant digits.
func newDecimal(r *big.Rat) *decimal {
	if r == nil {
		return nil
	}
	x := new(decimal)
	if r.IsInt() && r.Num().IsInt64() {
		x.small, x.int64 = true, r.Num().Int64()
		x.expand() // compare may then read it from many goroutines
		return x
	}
	// A decimal fraction p/(2^a 5^b) needs max(a, b) places, and that is at most
	// the bits of the denominator.
	x.parse([]byte(r.FloatString(r.Denom().BitLen())), false)
	return x
}

// String returns the number for messages.
func (x *decimal) String() string {
	if x.small {
		return strconv.FormatInt(x.int64, 10)
	}
	s := "0." + string(x.digits[:x.n]) + "e" + strconv.Itoa(x.exp)
	if f, err := strconv.ParseFloat(s, 64); err == nil && x.n <= 15 {
		s = strconv.FormatFloat(f, 'g', -1, 64)
	}
	if x.neg {
		s = "-" + s
	}
	return s
}
