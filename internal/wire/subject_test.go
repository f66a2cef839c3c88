package wire

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// modelMatch is the NATS rule said as plainly as possible: on token lists.
func modelMatch(filter, subject []string) bool {
	if len(filter) == 1 && filter[0] == ">" {
		return len(subject) > 0
	}
	if len(filter) == 0 || len(subject) == 0 {
		return len(filter) == len(subject)
	}
	return (filter[0] == "*" || filter[0] == subject[0]) && modelMatch(filter[1:], subject[1:])
}

var (
	genToken   = rapid.SampledFrom([]string{"a", "b", "ab"})
	genLiteral = rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(genToken, 1, 4).Draw(t, "tokens"), ".")
	})
	genFilter = rapid.Custom(func(t *rapid.T) string {
		tokens := rapid.SliceOfN(rapid.OneOf(genToken, rapid.Just("*")), 0, 4).Draw(t, "tokens")
		if len(tokens) == 0 || rapid.Bool().Draw(t, "full") {
			tokens = append(tokens, ">")
		}
		return strings.Join(tokens, ".")
	})
)

// universe holds every literal subject that can tell two generated filters apart:
// up to one token more than a filter has, over the alphabet and one token outside.
var universe = func() []string {
	var all []string
	level := []string{""}
	for range 6 {
		var next []string
		for _, s := range level {
			for _, tok := range []string{"a", "b", "ab", "z"} {
				next = append(next, strings.TrimPrefix(s+"."+tok, "."))
			}
		}
		all = append(all, next...)
		level = next
	}
	return all
}()

func TestMatchModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		filter, subject := genFilter.Draw(t, "filter"), genLiteral.Draw(t, "subject")
		want := modelMatch(strings.Split(filter, "."), strings.Split(subject, "."))
		if got := Match(filter, subject); got != want {
			t.Fatalf("Match(%q, %q) = %v, want %v", filter, subject, got, want)
		}
	})
}

// TestFilterAlgebra checks Subset and Overlap against Match over the universe.
func TestFilterAlgebra(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genFilter.Draw(t, "a"), genFilter.Draw(t, "b")
		subset, overlap := true, false
		for _, s := range universe {
			inA, inB := Match(a, s), Match(b, s)
			subset = subset && (!inA || inB)
			overlap = overlap || inA && inB
		}
		if got := Subset(a, b); got != subset {
			t.Fatalf("Subset(%q, %q) = %v, want %v", a, b, got, subset)
		}
		if got := Overlap(a, b); got != overlap || Overlap(b, a) != overlap {
			t.Fatalf("Overlap(%q, %q) = %v, %v the other way, want %v", a, b, got, Overlap(b, a), overlap)
		}
		if !Subset(a, a) || !Overlap(a, a) || !Subset(a, ">") {
			t.Fatalf("%q is not a subset of itself and of >", a)
		}
		if got := SubsetOfAny(a, []string{"q", b}); got != subset {
			t.Fatalf("SubsetOfAny(%q, q and %q) = %v, want %v", a, b, got, subset)
		}
	})
}

func TestMatchTable(t *testing.T) {
	tests := []struct {
		filter, subject string
		want            bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"*", "a", true},
		{"*", "a.b", false},
		{"*.*", "a.b", true},
		{">", "a", true},
		{">", "a.b.c", true},
		{"a.>", "a", false},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c", true},
		{"a.*.c", "a.b.c", true},
		{"a.*.>", "a.b", false},
		{"", "", false},
		{"a", "", false},
		{">", "", false},
		{"*", "", false},
		{"a.*", "a.", false},
		{"a.>", "a.", false},
	}
	for _, tt := range tests {
		if got := Match(tt.filter, tt.subject); got != tt.want {
			t.Errorf("Match(%q, %q) = %v, want %v", tt.filter, tt.subject, got, tt.want)
		}
	}
}

func TestSubsetTable(t *testing.T) {
	tests := []struct {
		inner, outer string
		want         bool
	}{
		{">", "*", false},
		{"*", ">", true},
		{">", ">", true},
		{"a.>", "a.*", false},
		{"a.*", "a.>", true},
		{"a.>", ">", true},
		{"a.>", "*.>", true},
		{"*.>", "a.>", false},
		{"a", "a.>", false},
		{"a.b", "*.*", true},
		{"a.>", "a.*.>", false},
		{"a.*.>", "a.>", true},
		{"", ">", false},
		{"", "a", false},
		{"a.", "a.*", false},
	}
	for _, tt := range tests {
		if got := Subset(tt.inner, tt.outer); got != tt.want {
			t.Errorf("Subset(%q, %q) = %v, want %v", tt.inner, tt.outer, got, tt.want)
		}
	}
	if SubsetOfAny("a", nil) {
		t.Error("a subject is called a subset of no grant")
	}
}

// TestRow04Wildcards: a literal subject has no wildcard.
func TestRow04Wildcards(t *testing.T) {
	for _, s := range []string{"zz.*", "zz.>", "*", ">", "*.zz", "zz.*.a", "a*", "a.b>", "a.>.b", ">.a", "*a", "**"} {
		if err := CheckSubject(s); !errors.Is(err, ErrSubjectWildcard) {
			t.Errorf("CheckSubject(%q) = %v, want ErrSubjectWildcard", s, err)
		}
	}
	for s, want := range map[string]error{
		"zz.*": nil, "zz.>": nil, "*": nil, ">": nil, "*.zz.*": nil, "*.>": nil,
		"a*": ErrSubjectWildcard, "a.>.b": ErrSubjectWildcard, ">>": ErrSubjectWildcard, "a.b*.c": ErrSubjectWildcard,
	} {
		if err := CheckFilter(s); !errors.Is(err, want) {
			t.Errorf("CheckFilter(%q) = %v, want %v", s, err, want)
		}
	}
}

// TestRow05SubjectCharacters: tokens are A-Z a-z 0-9 _ -, at most 16 in 255 bytes.
func TestRow05SubjectCharacters(t *testing.T) {
	allowed := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
	for c := range 256 {
		s := "a" + string([]byte{byte(c)}) + "b"
		var want error
		switch {
		case c == '.' || strings.IndexByte(allowed, byte(c)) >= 0:
		case c == '*' || c == '>':
			want = ErrSubjectWildcard
		default:
			want = ErrSubjectChar
		}
		if err := CheckSubject(s); !errors.Is(err, want) {
			t.Errorf("CheckSubject(%q) = %v, want %v", s, err, want)
		}
		if err := CheckSubject([]byte(s)); !errors.Is(err, want) {
			t.Errorf("CheckSubject([]byte(%q)) = %v, want %v", s, err, want)
		}
	}
	tests := []struct {
		name, subject string
		err           error
	}{
		{"NUL", "a.\x00", ErrSubjectChar},
		{"ESC", "a.\x1b[2J", ErrSubjectChar},
		{"not UTF-8", "a.\xff", ErrSubjectChar},
		{"homoglyph", "p\u0430yments", ErrSubjectChar},
		{"line end", "a.b\r\nPUB c 0\r\n", ErrSubjectChar},
		{"dollar", "$SYS.REQ", ErrSubjectChar},
		{"empty", "", ErrSubjectEmpty},
		{"dot", ".", ErrSubjectEmpty},
		{"dot first", ".a", ErrSubjectEmpty},
		{"dot last", "a.", ErrSubjectEmpty},
		{"two dots", "a..b", ErrSubjectEmpty},
		{"255 bytes", strings.Repeat("a", 255), nil},
		{"256 bytes", strings.Repeat("a", 256), ErrSubjectTooLong},
		{"16 tokens", strings.Repeat("a.", 15) + "a", nil},
		{"17 tokens", strings.Repeat("a.", 16) + "a", ErrSubjectTokens},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := CheckSubject(tt.subject); !errors.Is(err, tt.err) {
				t.Errorf("CheckSubject = %v, want %v", err, tt.err)
			}
			if err := CheckFilter(tt.subject); !errors.Is(err, tt.err) {
				t.Errorf("CheckFilter = %v, want %v", err, tt.err)
			}
		})
	}
}

func TestCheckRawSubject(t *testing.T) {
	tests := []struct {
		subject         string
		literal, filter error
	}{
		{"$JS.API.INFO", nil, nil},
		{"$KV.b.a/b=c\\d", nil, nil},
		{"_INBOX.a.*", ErrSubjectWildcard, nil},
		{"_INBOX.>", ErrSubjectWildcard, nil},
		{">.a", ErrSubjectWildcard, ErrSubjectWildcard},
		{"$O.b.M.a*b>", nil, nil},
		{"a b", ErrSubjectChar, ErrSubjectChar},
		{"a\tb", ErrSubjectChar, ErrSubjectChar},
		{"a\x7f", ErrSubjectChar, ErrSubjectChar},
		{"a\xc3\xa9", ErrSubjectChar, ErrSubjectChar},
		{"", ErrSubjectEmpty, ErrSubjectEmpty},
		{"a..b", ErrSubjectEmpty, ErrSubjectEmpty},
		{"a.", ErrSubjectEmpty, ErrSubjectEmpty},
		{strings.Repeat("a", 1024), nil, nil},
		{strings.Repeat("a", 1025), ErrSubjectTooLong, ErrSubjectTooLong},
	}
	for _, tt := range tests {
		if err := CheckRawSubject(tt.subject, false); !errors.Is(err, tt.literal) {
			t.Errorf("CheckRawSubject(%.40q, false) = %v, want %v", tt.subject, err, tt.literal)
		}
		if err := CheckRawSubject([]byte(tt.subject), true); !errors.Is(err, tt.filter) {
			t.Errorf("CheckRawSubject(%.40q, true) = %v, want %v", tt.subject, err, tt.filter)
		}
	}
}

var (
	reSubject = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){0,15}$`)
	reFilter  = regexp.MustCompile(`^(([A-Za-z0-9_-]+|\*)\.){0,15}([A-Za-z0-9_-]+|\*|>)$`)
	reRaw     = regexp.MustCompile(`^[!-~]+$`)
)

// checkGrammars compares the three checks with regular expressions.
func checkGrammars(t interface{ Fatalf(string, ...any) }, s string) {
	if got, want := CheckSubject(s) == nil, len(s) <= 255 && reSubject.MatchString(s); got != want {
		t.Fatalf("CheckSubject(%q) accepts: %v, want %v", s, got, want)
	}
	if got, want := CheckFilter(s) == nil, len(s) <= 255 && reFilter.MatchString(s); got != want {
		t.Fatalf("CheckFilter(%q) accepts: %v, want %v", s, got, want)
	}
	tokens := strings.Split(s, ".")
	raw, rawWild := len(s) <= 1024 && reRaw.MatchString(s), true
	for i, tok := range tokens {
		raw = raw && tok != ""
		rawWild = rawWild && (tok != ">" || i == len(tokens)-1)
	}
	literal := raw
	for _, tok := range tokens {
		literal = literal && tok != "*" && tok != ">"
	}
	if got := CheckRawSubject(s, false) == nil; got != literal {
		t.Fatalf("CheckRawSubject(%q, false) accepts: %v, want %v", s, got, literal)
	}
	if got := CheckRawSubject(s, true) == nil; got != (raw && rawWild) {
		t.Fatalf("CheckRawSubject(%q, true) accepts: %v, want %v", s, got, raw && rawWild)
	}
	if CheckSubject(s) == nil && (CheckFilter(s) != nil || CheckRawSubject(s, false) != nil) {
		t.Fatalf("%q is a subject, but no filter or no raw subject", s)
	}
}

func TestGrammarModel(t *testing.T) {
	piece := rapid.SampledFrom([]string{"a", "B9", "_", "-", ".", ".", ".", "*", ">", " ", "$", "é", "\x00", "\r\n", "\xff", "a.a.a.a.a", strings.Repeat("x", 100)})
	rapid.Check(t, func(t *rapid.T) {
		checkGrammars(t, strings.Join(rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces"), ""))
	})
}

// FuzzSubject checks the grammars, and that what the checks accept obeys the
// laws of filters.
func FuzzSubject(f *testing.F) {
	for _, s := range [][2]string{
		{"orders.created", "orders.*"},
		{"a", ">"},
		{"a.b.c", "a.>"},
		{"*", "*"},
		{"$JS.API.INFO", "a..b"},
		{"", "."},
		{"_INBOX.x.*", "a.>.b"},
		{"a\x00b", "\xff"},
		{strings.Repeat("a.", 16), strings.Repeat("a", 256)},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		checkGrammars(t, a)
		checkGrammars(t, b)
		if CheckFilter(a) != nil || CheckFilter(b) != nil {
			Match(a, b) // must not panic, whatever they are
			Subset(a, b)
			Overlap(a, b)
			return
		}
		if Subset(a, b) && !Overlap(a, b) {
			t.Fatalf("%q is inside %q without overlap", a, b)
		}
		if Overlap(a, b) != Overlap(b, a) {
			t.Fatalf("overlap of %q and %q depends on the order", a, b)
		}
		if Subset(a, b) && Subset(b, a) && a != b {
			t.Fatalf("%q and %q are inside each other", a, b)
		}
		if CheckSubject(a) == nil {
			want := modelMatch(strings.Split(b, "."), strings.Split(a, "."))
			if Match(b, a) != want || Subset(a, b) != want || Overlap(a, b) != want {
				t.Fatalf("filter %q, subject %q: match %v, subset %v, overlap %v, want %v", b, a, Match(b, a), Subset(a, b), Overlap(a, b), want)
			}
		}
	})
}

func TestSubjectChecksDoNotAllocate(t *testing.T) {
	subject := []byte("orders.eu.created")
	if n := testing.AllocsPerRun(100, func() {
		if CheckSubject(subject) != nil || !Match("orders.*.created", "orders.eu.created") || !Subset("orders.eu.created", "orders.>") {
			t.Error("sample subject refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}
