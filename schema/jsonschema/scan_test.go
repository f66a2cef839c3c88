package jsonschema

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
)

func object(keys int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"k%d":%d`, i, i)
	}
	return b.String() + "}"
}

func items(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestScanAccepts(t *testing.T) {
	for _, text := range []string{
		`null`, `true`, `false`, `0`, `-0`, `1.5e3`, `1E+308`, `1e-308`, `""`, `"a"`, `[]`, `{}`, " \t\r\n[ 1 , 2 ]\n",
		`{"a":1,"A":2}`, `"\u0041\ud83d\ude00\"\\\/\b\f\n\r\t"`, `"é漢😀"`, `"\u0000"`, "\"\x7f\"",
		`{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}`,
		nested(32), object(1024), items(10000),
		`"` + strings.Repeat("x", 256<<10) + `"`,
		strings.Repeat("1", 64),
	} {
		if err := Scan([]byte(text), schema.Limits{}); err != nil {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

func TestScanRefuses(t *testing.T) {
	for _, c := range []struct {
		name, text string
		reason     Reason
		offset     int
	}{
		{"empty", "", ReasonEmpty, 0},
		{"blank", "  ", ReasonUnexpectedEnd, 2},
		{"byte order mark", "\xef\xbb\xbf{}", ReasonBOM, 0},
		{"UTF-16", "\xff\xfe{\x00", ReasonBOM, 0},
		{"trailing value", `{} {}`, ReasonTrailing, 3},
		{"trailing text", `{"a":1} zzz`, ReasonTrailing, 8},
		{"trailing NUL", "1\x00", ReasonTrailing, 1},
		{"duplicate", `{"a":1,"b":2,"a":3}`, ReasonDuplicate, 14},
		{"duplicate escaped", `{"type":1,"t\u0079pe":2}`, ReasonDuplicate, 11},
		{"duplicate nested", `{"x":[{"a":1,"a":1}]}`, ReasonDuplicate, 14},
		{"duplicate empty name", `{"":1,"":2}`, ReasonDuplicate, 7},
		{"duplicate surrogates", `{"😀":1,"\ud83d\ude00":2}`, ReasonDuplicate, 11},
		{"duplicate in a large object", object(100)[:len(object(100))-1] + `,"k\u0037":0}`, ReasonDuplicate, len(object(100)) + 1},
		{"invalid UTF-8", "\"\xc3(\"", ReasonUTF8, 1},
		{"overlong", "\"\xc0\xaf\"", ReasonUTF8, 1},
		{"raw surrogate", "\"\xed\xa0\x80\"", ReasonUTF8, 1},
		{"beyond U+10FFFF", "\"\xf4\x90\x80\x80\"", ReasonUTF8, 1},
		{"invalid UTF-8 after an escape", "\"\\n\xff\"", ReasonUTF8, 3},
		{"lone high", `"\ud800"`, ReasonSurrogate, 1},
		{"lone low", `"\udc00"`, ReasonSurrogate, 1},
		{"high high", `"\ud800\ud800"`, ReasonSurrogate, 1},
		{"high then text", `"\ud800x"`, ReasonSurrogate, 1},
		{"control", "\"a\x01\"", ReasonControl, 2},
		{"control after an escape", "\"\\n\x1f\"", ReasonControl, 3},
		{"newline in a string", "\"\n\"", ReasonControl, 1},
		{"bad escape", `"\x41"`, ReasonEscape, 1},
		{"short unicode escape", `"\u12"`, ReasonEscape, 1},
		{"open string", `"abc`, ReasonUnexpectedEnd, 4},
		{"open escape", `"abc\`, ReasonUnexpectedEnd, 4},
		{"depth 33", nested(33), ReasonDepth, 32},
		{"depth a million", strings.Repeat("[", 1<<20), ReasonDepth, 32},
		{"objects at depth 33", strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33), ReasonDepth, 32 * 5},
		{"1,025 keys", object(1025), ReasonKeys, len(object(1024))},
		{"10,001 items", items(10001), ReasonItems, 20001},
		{"long string", `"` + strings.Repeat("x", 256<<10+1) + `"`, ReasonString, 1},
		{"long string with an escape", `"\n` + strings.Repeat("x", 256<<10) + `"`, ReasonString, 1},
		{"long number", strings.Repeat("1", 65), ReasonNumber, 0},
		{"exponent", `{"total":1e309}`, ReasonExponent, 9},
		{"exponent of the panic", `{"total":1e2000000}`, ReasonExponent, 9},
		{"negative exponent", `1e-309`, ReasonExponent, 0},
		{"exponent overflow", `1e99999999999999999999`, ReasonExponent, 0},
		{"leading zero", `01`, ReasonNumberSyntax, 0},
		{"bare minus", `-`, ReasonNumberSyntax, 0},
		{"bare point", `1.`, ReasonNumberSyntax, 0},
		{"bare exponent", `1e`, ReasonNumberSyntax, 0},
		{"plus", `+1`, ReasonSyntax, 0},
		{"NaN", `NaN`, ReasonSyntax, 0},
		{"cut literal", `tru`, ReasonSyntax, 0},
		{"single quotes", `{'a':1}`, ReasonSyntax, 1},
		{"comment", `/**/1`, ReasonSyntax, 0},
		{"trailing comma", `[1,]`, ReasonSyntax, 3},
		{"trailing comma in an object", `{"a":1,}`, ReasonSyntax, 7},
		{"missing colon", `{"a" 1}`, ReasonSyntax, 5},
		{"missing value", `{"a":`, ReasonUnexpectedEnd, 5},
		{"open array", `[1`, ReasonUnexpectedEnd, 2},
		{"wrong end", `[1}`, ReasonSyntax, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Scan([]byte(c.text), schema.Limits{})
			var se *ScanError
			if !errors.As(err, &se) {
				t.Fatalf("got %v, want a ScanError", err)
			}
			if se.Reason != c.reason || se.Offset != c.offset {
				t.Errorf("got %q at %d, want %q at %d", se.Reason, se.Offset, c.reason, c.offset)
			}
			if se.Code() != wire.CodeJSONMalformed {
				t.Errorf("code %v", se.Code())
			}
		})
	}
}

func TestScanPayloadLimit(t *testing.T) {
	l := schema.Limits{Payload: 10}
	if err := Scan([]byte(`"12345678"`), l); err != nil {
		t.Errorf("10 bytes: %v", err)
	}
	var se *ScanError
	if err := Scan([]byte(`"123456789"`), l); !errors.As(err, &se) || se.Code() != wire.CodePayloadTooLarge {
		t.Errorf("11 bytes: %v", err)
	}
}

// slowCheck is the oracle of the scanner: encoding/json tokens, with duplicate
// names and UTF-8 checked by hand.
func slowCheck(data []byte) error {
	if !json.Valid(data) || !utf8.Valid(data) {
		return errors.New("invalid")
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.UseNumber()
	return slowValue(dec)
}

func slowValue(dec *json.Decoder) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	switch tok {
	case json.Delim('['):
		for dec.More() {
			if err := slowValue(dec); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	case json.Delim('{'):
		seen := map[string]bool{}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return err
			}
			if seen[name.(string)] {
				return errors.New("duplicate")
			}
			seen[name.(string)] = true
			if err := slowValue(dec); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	}
	if err == io.EOF {
		err = nil
	}
	return err
}

// FuzzScan: what the scanner accepts, encoding/json accepts too and reads without
// loss; and what it refuses as malformed or duplicate, the oracle refuses too,
// save for the rules that encoding/json does not have.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"b":[true,false,null,-1.5e10,"\u00e9\ud83d\ude00"]}`, `{"a":1,"\u0061":2}`, `"\ud800"`, "\"\xff\"", `[1,2`, `1e999`,
		object(12), nested(5), "\xef\xbb\xbf1", ` { } `,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		err := Scan(data, schema.Limits{})
		oracle := slowCheck(data)
		if err == nil && oracle != nil {
			t.Fatalf("accepted %q, oracle says %v", data, oracle)
		}
		var se *ScanError
		if errors.As(err, &se) && oracle == nil {
			switch se.Reason {
			case ReasonDuplicate, ReasonSyntax, ReasonTrailing, ReasonUnexpectedEnd, ReasonEscape, ReasonControl,
				ReasonNumberSyntax, ReasonUTF8, ReasonEmpty:
				// encoding/json decodes a lone surrogate to U+FFFD, so the oracle
				// may see a duplicate that is none, never the reverse.
				t.Fatalf("refused %q: %v; the oracle accepts", data, err)
			}
		}
	})
}
