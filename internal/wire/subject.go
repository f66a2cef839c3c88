package wire

import (
	"errors"
	"strings"
)

// Limits of an event subject.
const (
	MaxSubjectBytes  = 255
	MaxSubjectTokens = 16
)

// Errors of the subject grammar.
var (
	ErrSubjectEmpty    = errors.New("wire: empty subject or token")
	ErrSubjectTooLong  = errors.New("wire: subject over 255 bytes")
	ErrSubjectTokens   = errors.New("wire: subject over 16 tokens")
	ErrSubjectChar     = errors.New("wire: subject has a character outside A-Z a-z 0-9 _ -")
	ErrSubjectWildcard = errors.New("wire: wildcard where a literal subject is needed, or a misplaced wildcard")
)

func tokenChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
}

// CheckSubject reports whether s is a literal event subject: 1 to 16 tokens of
// A-Z a-z 0-9 _ - joined by dots, at most 255 bytes. It does not allocate.
func CheckSubject[T string | []byte](s T) error { return checkGrammar(s, false) }

// CheckFilter is CheckSubject that also allows the wildcard tokens * (one token)
// and > (one or more, last only).
func CheckFilter[T string | []byte](s T) error { return checkGrammar(s, true) }

func checkGrammar[T string | []byte](s T, wildcards bool) error {
	switch {
	case len(s) == 0:
		return ErrSubjectEmpty
	case len(s) > MaxSubjectBytes:
		return ErrSubjectTooLong
	}
	tokens, start := 0, 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			c := s[i]
			if tokenChar(c) {
				continue
			}
			if c != '*' && c != '>' {
				return ErrSubjectChar
			}
			alone := i == start && (i+1 == len(s) || s[i+1] == '.')
			if !wildcards || !alone || c == '>' && i+1 != len(s) {
				return ErrSubjectWildcard
			}
			continue
		}
		if i == start {
			return ErrSubjectEmpty
		}
		if tokens++; tokens > MaxSubjectTokens {
			return ErrSubjectTokens
		}
		start = i + 1
	}
	return nil
}

// CheckRawSubject is the grammar of the subjects that are not events ($JS, $KV,
// $O, $SRV, _INBOX, _R_): non-empty tokens of printable ASCII without space, at
// most 1024 bytes. wildcards says whether * and > may stand as whole tokens;
// where they may not, they may not appear at all as a token.
func CheckRawSubject[T string | []byte](s T, wildcards bool) error {
	if len(s) == 0 {
		return ErrSubjectEmpty
	}
	if len(s) > 1024 {
		return ErrSubjectTooLong
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			if s[i] <= ' ' || s[i] >= 0x7f {
				return ErrSubjectChar
			}
			continue
		}
		if i == start {
			return ErrSubjectEmpty
		}
		if i-start == 1 {
			if c := s[start]; c == '*' || c == '>' {
				if !wildcards || c == '>' && i != len(s) {
					return ErrSubjectWildcard
				}
			}
		}
		start = i + 1
	}
	return nil
}

// Match reports whether the literal subject matches the filter, by the NATS rules.
func Match(filter, subject string) bool {
	for {
		ft, frest, fmore := strings.Cut(filter, ".")
		if ft == ">" && !fmore {
			return subject != ""
		}
		st, srest, smore := strings.Cut(subject, ".")
		if ft != st && ft != "*" || st == "" {
			return false
		}
		if !fmore || !smore {
			return fmore == smore
		}
		filter, subject = frest, srest
	}
}

// Subset reports whether every literal subject that matches inner also matches outer.
func Subset(inner, outer string) bool {
	for {
		ot, orest, omore := strings.Cut(outer, ".")
		if ot == ">" && !omore {
			return inner != ""
		}
		it, irest, imore := strings.Cut(inner, ".")
		if it == ">" || it == "" {
			return false
		}
		if ot != "*" && ot != it {
			return false
		}
		if !omore || !imore {
			return omore == imore
		}
		outer, inner = orest, irest
	}
}

// Overlap reports whether some literal subject matches both filters.
func Overlap(a, b string) bool {
	for {
		at, arest, amore := strings.Cut(a, ".")
		bt, brest, bmore := strings.Cut(b, ".")
		if at == ">" && !amore || bt == ">" && !bmore {
			return a != "" && b != ""
		}
		if at != bt && at != "*" && bt != "*" {
			return false
		}
		if !amore || !bmore {
			return amore == bmore
		}
		a, b = arest, brest
	}
}

// SubsetOfAny reports whether inner is a subset of one of the outer filters. (A
// union may cover inner where no single filter does; that is answered false, so
// a grant must cover by itself.)
func SubsetOfAny(inner string, outer []string) bool {
	for _, o := range outer {
		if Subset(inner, o) {
			return true
		}
	}
	return false
}
