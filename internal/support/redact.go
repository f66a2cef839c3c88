package support

import (
	"bytes"
	"regexp"

	"github.com/nats-io/nkeys"
)

// Marker stands where something was taken out.
const Marker = "[redacted]"

// glue is what may stand between the pieces of a secret that was broken up: blanks,
// line ends, quotes, their escapes in JSON, signs of concatenation.
const glue = `(?:[\s"'` + "`" + `,+>|#]|\\[nrt"'\\]|\\u00[0-9a-fA-F]{2})*`

var (
	// A private key up to its end line; without one, to the end of the text.
	pemBlock = regexp.MustCompile(`(?is)-{2,}\s*BEGIN[ a-z0-9]*PRIVATE\s+KEY.*?(?:-{2,}\s*END[ a-z0-9]*PRIVATE\s+KEY[ a-z]*-{2,}|\z)`)
	// The end of one whose beginning was cut off.
	pemEnd = regexp.MustCompile(`(?i)-{2,}\s*END[ a-z0-9]*PRIVATE\s+KEY[ a-z]*-{2,}`)
	// Private keys in base64 without lines around them: PKCS 8 (Ed25519, EC, RSA), SEC 1.
	derKey = regexp.MustCompile(`(?:MC4CAQAwBQYDK2VwBCIEI|MFECAQEwBQYDK2VwBCIEI|MIG[A-Za-z0-9+/]AgEAMB[A-Z]GByqGSM49AgE|M[HI][A-Za-z0-9+/]{1,2}AgEBBC|MHcCAQEE|MIIE[A-Za-z0-9+/]{2}IBA)[A-Za-z0-9+/=\s]{16,}`)
	// The beginning of a seed, or all of one, in one piece.
	seedPiece = regexp.MustCompile(`(^|[^A-Za-z0-9])(S[UANOCX][A-Z2-7]{18,}|P[A-Z2-7]{90,})`)
	nodeToken = regexp.MustCompile(`(?i)signet-node-v1[^\r\n]*(?:\r?\n[ \t"'>|+#-]*[A-Za-z0-9_.-]{20,}["',]*[ \t]*)*`)
	jwt       = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}` + glue + `\.` + glue + `[A-Za-z0-9_-]{4,}(?:` + glue + `\.` + glue + `[A-Za-z0-9_-]*){0,3}`)
	header    = regexp.MustCompile(`(?i)((?:proxy-)?authorization|set-cookie|cookie)(["'\\]*\s*[:=])[^\r\n]+`)
	bearer    = regexp.MustCompile(`(?i)\b(bearer)([\s"':=\\]+)[^\s"'\\]{6,}`)
	// User information of an address: to the last @ of the word.
	userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*:(?://|\\/\\/))[^\s"'<>]+@`)
	option   = regexp.MustCompile(`(?i)(--?[a-z0-9-]*(?:password|passwd|passphrase|secret|token|api-?key|private-?key)[a-z0-9-]*)([ \t=]+)[^\s]+`)
	// A key that says what its value is, up to the value.
	keyed = regexp.MustCompile(`(?i)([A-Za-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|credential|seed|\bpass\b|\bpwd\b)[A-Za-z0-9_.-]*)["'\\]*[ \t]*[:=][ \t]*`)
)

// Redact returns text without the secrets that it recognises: nkeys seeds, also
// broken up by blanks, quotes and line ends, or in small letters; private keys in PEM
// and bare; node tokens; JSON Web Tokens, bearer tokens, Authorization and Cookie
// headers; user information in addresses; values of keys and options that are called
// password, secret, token and the like. When in doubt, more is taken out. The result
// is at most four times as long as text, and 64 bytes.
func Redact(text []byte) []byte {
	mark := []byte(Marker)
	// Seeds first: what is found by its checksum must be whole for that.
	out := seeds(text)
	out = pemBlock.ReplaceAll(out, mark)
	out = keyEnds(out)
	out = derKey.ReplaceAll(out, mark)
	out = seedPiece.ReplaceAll(out, []byte("${1}"+Marker))
	out = nodeToken.ReplaceAll(out, mark)
	out = jwt.ReplaceAll(out, mark)
	out = header.ReplaceAll(out, []byte("${1}${2} "+Marker))
	out = bearer.ReplaceAll(out, []byte("${1}${2}"+Marker))
	out = userinfo.ReplaceAll(out, []byte("${1}"+Marker+"@"))
	out = option.ReplaceAll(out, []byte("${1}${2}"+Marker))
	return values(out)
}

// maxKeyEnd bounds what is taken out before the end line of a private key.
const maxKeyEnd = 16 << 10

// keyEnds takes out end lines of private keys, with the lines of base64 before them.
func keyEnds(text []byte) []byte {
	var out []byte
	done := 0
	for _, m := range pemEnd.FindAllIndex(text, -1) {
		from := m[0]
		for floor := max(done, m[0]-maxKeyEnd); from > floor; {
			c := text[from-1]
			if c == ' ' || c == '\t' {
				// Only as the indentation of a line.
				line := bytes.TrimRight(text[floor:from], " \t")
				if len(line) > 0 && line[len(line)-1] != '\n' {
					break
				}
				from = floor + len(line)
				continue
			}
			if c != '\n' && c != '\r' && c != '\\' && !base64Byte(c) {
				break
			}
			from--
		}
		out = append(append(out, text[done:from]...), Marker...)
		done = m[1]
	}
	return append(out, text[done:]...)
}

func base64Byte(c byte) bool {
	return c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '+' || c == '/' || c == '='
}

// fileKey are keys that name the file of a secret, which is no secret.
var fileKey = regexp.MustCompile(`(?i)file$`)

// values takes out the values of keys that say that they hold a secret.
func values(text []byte) []byte {
	var out []byte
	for {
		m := keyed.FindSubmatchIndex(text)
		if m == nil {
			return append(out, text...)
		}
		out = append(out, text[:m[1]]...)
		end := 0
		if !fileKey.Match(text[m[2]:m[3]]) {
			if end = valueEnd(text[m[1]:], indent(text[:m[0]])); end > 0 {
				out = append(out, Marker...)
			}
		}
		text = text[m[1]+end:]
	}
}

// indent is the width of the blanks that begin the last line of text.
func indent(text []byte) int {
	line := text[bytes.LastIndexByte(text, '\n')+1:]
	return len(line) - len(bytes.TrimLeft(line, " \t"))
}

// valueEnd returns where the value that begins text ends: a quoted one at its quote;
// any other with its line and the lines after it that are indented deeper than the
// key, as YAML goes on with a value. A quote that never ends is taken for none, and
// one that ends inside a word for one of another value.
func valueEnd(text []byte, depth int) int {
	if len(text) > 0 && (text[0] == '"' || text[0] == '\'') {
		for i := 1; i < len(text); i++ {
			switch {
			case text[i] == '\\' && text[0] == '"':
				i++
			case text[i] == text[0] && text[0] == '\'' && i+1 < len(text) && text[i+1] == text[0]:
				i++
			case text[i] == text[0]:
				if i++; i < len(text) && bytes.IndexByte([]byte(" \t\r\n,;:)]}>"), text[i]) < 0 {
					i += lineEnd(text[i:]) // not the quote that ends it
				}
				return i
			}
		}
	}
	end := lineEnd(text)
	for end < len(text) {
		next := text[end:]
		line := bytes.TrimLeft(next, "\r\n")
		body := bytes.TrimLeft(line, " \t")
		if len(line)-len(body) <= depth || len(body) == 0 || body[0] == '\n' || body[0] == '\r' {
			break
		}
		end += len(next) - len(body) + lineEnd(body)
	}
	return end
}

func lineEnd(text []byte) int {
	if i := bytes.IndexAny(text, "\r\n"); i >= 0 {
		return i
	}
	return len(text)
}

// Bounds of the search for seeds that were broken up.
const (
	seedChars = 58 // of an nkeys seed in base32
	maxGap    = 24 // bytes between two of them
)

// seeds takes out every nkeys seed whose checksum is right.
func seeds(text []byte) []byte {
	var out []byte
	done := 0
	for i := 0; i < len(text); i++ {
		end := seedAt(text[i:])
		if end == 0 {
			continue
		}
		out = append(append(out, text[done:i]...), Marker...)
		i += end - 1
		done = i + 1
	}
	return append(out, text[done:]...)
}

// seedAt returns where a seed that begins text ends, 0 if none begins there: in
// capitals with anything between that is no letter or digit, or in one piece of any
// case.
func seedAt(text []byte) int {
	if text[0] != 'S' && text[0] != 's' {
		return 0
	}
	var seed [seedChars]byte
	n, gap := 0, 0
	split := false
	for i := 0; i < len(text) && gap <= maxGap; i++ {
		c := text[i]
		switch {
		case c >= 'A' && c <= 'Z' || c >= '2' && c <= '7':
		case c >= 'a' && c <= 'z':
			if split {
				return 0
			}
			c -= 'a' - 'A'
		case c == '\\' && i+1 < len(text):
			i, gap, split = i+escape(text[i:]), gap+1, true
			continue
		case c == '0' || c == '1' || c == '8' || c == '9':
			return 0
		default:
			gap, split = gap+1, true
			continue
		}
		if split && lower(text[0]) {
			return 0
		}
		seed[n], n, gap = c, n+1, 0
		if n == 2 && !bytes.ContainsRune([]byte("UANOCX"), rune(c)) {
			return 0
		}
		if n == seedChars {
			if _, _, err := nkeys.DecodeSeed(seed[:]); err != nil {
				return 0
			}
			return i + 1
		}
	}
	return 0
}

func lower(c byte) bool { return c >= 'a' && c <= 'z' }

// escape returns how many bytes follow the backslash that begins text.
func escape(text []byte) int {
	if text[1] == 'u' && len(text) >= 6 {
		return 5
	}
	if c := text[1]; c == 'n' || c == 'r' || c == 't' || c == '"' || c == '\\' {
		return 1
	}
	return 0
}
