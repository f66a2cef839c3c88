package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

func block(lines ...string) string {
	return HeaderLine + strings.Join(append(lines, "", ""), "\r\n")
}

type headerCase struct {
	name, in string
	err      error
}

func runHeaders(t *testing.T, tests []headerCase) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h Headers
			if err := h.Parse([]byte(tt.in)); !errors.Is(err, tt.err) {
				t.Errorf("Parse(%.120q) = %v, want %v", tt.in, err, tt.err)
			}
		})
	}
}

func TestParse(t *testing.T) {
	var h Headers
	if err := h.Parse([]byte(block("A: 1", "b:2", "A:  three \t", "empty:", "c: x: y", "d: Ω"))); err != nil {
		t.Fatal(err)
	}
	want := []string{"A=1", "b=2", "A=three", "empty=", "c=x: y", "d=Ω"}
	for i, l := range h.All() {
		if got := string(l.Name) + "=" + string(l.Value); got != want[i] {
			t.Errorf("header %d: %q, want %q", i, got, want[i])
		}
	}
	if h.N != len(want) {
		t.Errorf("N = %d, want %d", h.N, len(want))
	}
	if v, ok := h.Get("A"); !ok || string(v) != "1" {
		t.Errorf("Get(A) = %q, %v", v, ok)
	}
	for _, name := range []string{"a", "B", ""} {
		if v, ok := h.Get(name); ok {
			t.Errorf("Get(%q) = %q: names are compared byte for byte", name, v)
		}
	}
	if err := h.Parse(nil); err != nil || h.N != 0 {
		t.Errorf("no block: %v, %d headers", err, h.N)
	}
	if err := h.Parse([]byte(block())); err != nil || h.N != 0 {
		t.Errorf("block without headers: %v, %d headers", err, h.N)
	}
}

// TestRow02HeaderBomb: at most 32 headers in 4096 bytes.
func TestRow02HeaderBomb(t *testing.T) {
	lines := func(n int) []string {
		l := make([]string, n)
		for i := range l {
			l[i] = fmt.Sprintf("h%d: v", i)
		}
		return l
	}
	sized := func(n int) string {
		empty := len(block("a: "))
		return block("a: " + strings.Repeat("x", n-empty))
	}
	runHeaders(t, []headerCase{
		{"31", block(lines(31)...), nil},
		{"32", block(lines(32)...), nil},
		{"33", block(lines(33)...), ErrHeaderCount},
		{"400", block(lines(400)...), ErrHeaderCount},
		{"4095 bytes", sized(4095), nil},
		{"4096 bytes", sized(4096), nil},
		{"4097 bytes", sized(4097), ErrHeaderSize},
		{"60 KiB", sized(60 << 10), ErrHeaderSize},
		{"5000 headers", block(lines(5000)...), ErrHeaderSize},
	})
}

// TestRow03HeaderControlBytes: what two parsers could read in two ways is refused.
func TestRow03HeaderControlBytes(t *testing.T) {
	tests := []headerCase{
		{"bare LF in a value", block("a: b\nNats-Rollup: all"), ErrHeaderValue},
		{"bare LF after the version", "NATS/1.0\na: b\r\n\r\n", ErrHeaderLine},
		{"bare CR in a value", block("a: b\rc"), ErrHeaderEnd},
		{"CR CR LF", "NATS/1.0\r\na: b\r\r\n\r\n", ErrHeaderEnd},
		{"NUL in a value", block("a: b\x00"), ErrHeaderValue},
		{"ESC in a value", block("a: \x1b[2J"), ErrHeaderValue},
		{"DEL in a value", block("a: \x7f"), ErrHeaderValue},
		{"tab in a value", block("a: b\tc"), ErrHeaderValue},
		{"C1 control in a value", block("a: \u0085"), ErrHeaderValue},
		{"last C1 control in a value", block("a: \u009f"), ErrHeaderValue},
		{"not UTF-8", block("a: \xff"), ErrHeaderValue},
		{"overlong UTF-8", block("a: \xc0\xaf"), ErrHeaderValue},
		{"UTF-8 cut", block("a: \xe2\x82"), ErrHeaderValue},
		{"UTF-8 surrogate", block("a: \xed\xa0\x80"), ErrHeaderValue},
		{"UTF-8", block("a: \u00a0€😀\ufffd"), nil},
		{"NUL in a name", block("a\x00: b"), ErrHeaderName},
		{"space in a name", block("a b: c"), ErrHeaderName},
		{"space before the colon", block("a : c"), ErrHeaderName},
		{"name not ASCII", block("é: c"), ErrHeaderName},
		{"no name", block(": c"), ErrHeaderName},
		{"no colon", block("abc"), ErrHeaderName},
		{"folded line", block("a: b", " c: d"), ErrHeaderName},
		{"garbage", "garbage", ErrHeaderLine},
		{"no version", "a: b\r\n\r\n", ErrHeaderLine},
		{"status line", "NATS/1.0 503\r\n\r\n", ErrHeaderLine},
		{"version only", "NATS/1.0\r\n", ErrHeaderEnd},
		{"no empty line", "NATS/1.0\r\na: b\r\n", ErrHeaderEnd},
		{"no line end", "NATS/1.0\r\na: b", ErrHeaderEnd},
		{"CR at the end", "NATS/1.0\r\na: b\r", ErrHeaderEnd},
		{"bytes behind", block("a: b") + "c: d\r\n\r\n", ErrHeaderEnd},
	}
	runHeaders(t, tests)
	for c := range 256 {
		token := c > ' ' && c < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, rune(c))
		var h Headers
		err := h.Parse([]byte(block("a" + string([]byte{byte(c)}) + "b: v")))
		if c == ':' {
			continue // then the name is a
		}
		if (err == nil) != token {
			t.Errorf("name with byte %#x: %v, want accepted: %v", c, err, token)
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	in := []byte(block("ce-id: 1", "ce-subject: Ω", "Nats-Msg-Id: 2", "x!#$: y"))
	var h Headers
	if n := testing.AllocsPerRun(100, func() {
		if err := h.Parse(in); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestFold(t *testing.T) {
	tests := []struct {
		a, b          string
		equal, prefix bool
	}{
		{"ce-id", "CE-ID", true, true},
		{"ce-id", "ce-", false, true},
		{"ce", "ce-", false, false},
		{"", "", true, true},
		{"[", "{", false, false},
		{"@", "`", false, false},
		{"\u212a", "k", false, false},
		{"Zz", "zZ", true, true},
	}
	for _, tt := range tests {
		if got := EqualFold(tt.a, tt.b); got != tt.equal || EqualFold([]byte(tt.a), tt.b) != got {
			t.Errorf("EqualFold(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.equal)
		}
		if got := HasPrefixFold([]byte(tt.a), tt.b); got != tt.prefix {
			t.Errorf("HasPrefixFold(%q, %q) = %v, want %v", tt.a, tt.b, got, tt.prefix)
		}
	}
}

// FuzzHeaderBlock: what parses is written and parsed again to the same headers,
// holds nothing that could end a line, and reads the same line by line.
func FuzzHeaderBlock(f *testing.F) {
	for _, s := range []string{
		"", block(), block("a: b"), block("a: b\nc: d"), block("ce-id: 1", "Ce-Id: 2"), "NATS/1.0 503\r\n\r\n", block("a:\t b \t"),
		block("a: €", "b:"), block("a: \xff"), "NATS/1.0\r\n\r\n\r\n", block(strings.Repeat("a: b\r\n", 32)), block("a:b:c"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var h Headers
		if h.Parse(in) != nil || len(in) == 0 {
			return
		}
		out := []byte(HeaderLine)
		for _, l := range h.All() {
			if len(l.Name) == 0 || bytes.ContainsAny(l.Name, " \t\r\n:") || bytes.ContainsAny(l.Value, "\r\n\x00") || !utf8.Valid(l.Value) {
				t.Fatalf("header %q: %q accepted", l.Name, l.Value)
			}
			out = AppendHeader(out, string(l.Name), l.Value)
		}
		out = append(out, "\r\n"...)
		lines := strings.Split(strings.TrimSuffix(string(in), "\r\n\r\n"), "\r\n")
		if len(lines)-1 != h.N {
			t.Fatalf("%d headers out of %d lines", h.N, len(lines)-1)
		}
		for i, line := range lines[1:] {
			name, value, _ := strings.Cut(line, ":")
			if name != string(h.List[i].Name) || strings.Trim(value, " \t") != string(h.List[i].Value) {
				t.Fatalf("line %q read as %q: %q", line, h.List[i].Name, h.List[i].Value)
			}
		}
		var back Headers
		if len(out) > MaxHeaderBytes {
			return // a space was added after a colon that had none
		}
		if err := back.Parse(out); err != nil || back.N != h.N {
			t.Fatalf("own block %q: %v", out, err)
		}
		for i, l := range h.All() {
			if !bytes.Equal(l.Name, back.List[i].Name) || !bytes.Equal(l.Value, back.List[i].Value) {
				t.Fatalf("header %d changed", i)
			}
		}
	})
}
