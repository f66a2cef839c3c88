package jsonschema

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
)

// soon is what a refusal may take, at most. It is the budget of one payload; the
// measured times are far below it.
const soon = 250 * time.Millisecond

func compile(text, ref string) (schema.Validator, error) {
	return New(schema.Limits{}).Compile(context.Background(), schema.Document{
		Name: "test", Version: 1, Format: schema.FormatJSONSchema, Text: []byte(text), Ref: ref,
	})
}

// chain is a schema of n definitions that each ask for the next one twice: 2^n
// visits of one value.
func chain(n int) string {
	var b strings.Builder
	b.WriteString(`{"$ref":"#/$defs/d0","$defs":{`)
	for i := range n {
		fmt.Fprintf(&b, `"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
	}
	fmt.Fprintf(&b, `"d%d":{"type":"integer"}}}`, n)
	return b.String()
}

// forest is the recursive schema of some 180 bytes whose two branches both
// descend: 2^depth visits without a budget.
const forest = `{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"properties":{"a":{"$ref":"#/$defs/n"}},"required":["x"]},` +
	`{"properties":{"a":{"$ref":"#/$defs/n"}},"required":["y"]}]}}}`

// TestRow31SchemaBlowUp: a chain whose cost doubles with each link is refused at
// registration; what is let in is quick.
func TestRow31SchemaBlowUp(t *testing.T) {
	for _, c := range []struct {
		n       int
		refused bool
	}{{8, false}, {10, false}, {15, true}, {20, true}, {300, true}} {
		start := time.Now()
		v, err := compile(chain(c.n), "")
		if took := time.Since(start); took > 5*soon*slowdown {
			t.Errorf("2^%d: registration took %v", c.n, took)
		}
		if c.refused {
			if !errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), "references expanded") {
				t.Errorf("2^%d: got %v, want a refusal for its cost", c.n, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("2^%d: %v", c.n, err)
		}
		start = time.Now()
		got := v.Validate(nil, []byte("1"))
		if took := time.Since(start); took > soon*slowdown || !got.OK {
			t.Errorf("2^%d: %v after %v", c.n, got, took)
		}
	}
}

// TestRow33Recursion: a schema that reaches itself without descending is refused; one
// that descends is stopped by the depth of the payload or by the steps it takes.
func TestRow33Recursion(t *testing.T) {
	refusedAtRegistration(t, []unfit{
		{"self", `{"$ref":"#"}`, "", "reaches itself"},
		{"self through anyOf", `{"anyOf":[{"$ref":"#"},{"type":"null"}]}`, "", "reaches itself"},
		{"self through oneOf and if", `{"$defs":{"a":{"oneOf":[{"if":{"$ref":"#/$defs/a"}}]}},"$ref":"#/$defs/a"}`, "", "reaches itself"},
		{"self through not", `{"not":{"$ref":"#"}}`, "", "reaches itself"},
		{"self through dependentSchemas", `{"dependentSchemas":{"a":{"$ref":"#"}}}`, "", "reaches itself"},
		{"deep", `{"a":` + nested(64) + `}`, "", "nested too deep"},
	})
	v, err := compile(forest, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, depth := range []int{4, 16, 18, 31} {
		data := []byte(strings.Repeat(`{"a":`, depth) + "{}" + strings.Repeat("}", depth))
		start := time.Now()
		got := v.Validate(nil, data)
		if took := time.Since(start); took > soon*slowdown {
			t.Errorf("depth %d: took %v", depth, took)
		}
		want := wire.CodeSchemaFuelSpent
		if depth == 4 {
			want = wire.CodeSchemaViolation
		}
		if got.OK || got.Code != want {
			t.Errorf("depth %d: got %v, want %v", depth, got.Code, want)
		}
	}
	if got := v.Validate(nil, []byte(`{"x":1,"a":{"y":2}}`)); !got.OK {
		t.Errorf("a small valid payload: %+v", got)
	}
	// Deeper than the scanner goes, and unclosed: neither reaches the schema.
	for _, data := range []string{strings.Repeat(`{"a":`, 9000) + "{}" + strings.Repeat("}", 9000), strings.Repeat("[", 1<<20)} {
		start := time.Now()
		got := v.Validate(nil, []byte(data))
		if took := time.Since(start); took > soon*slowdown {
			t.Errorf("%d bytes of nesting: took %v", len(data), took)
		}
		if got.OK || got.Code == wire.CodeSchemaFuelSpent || got.Code == wire.CodeSchemaViolation {
			t.Errorf("%d bytes of nesting: %v", len(data), got.Code)
		}
	}
}

// TestFuelTime fills the largest payload with the dearest nodes: even then one
// validation ends within the budget.
func TestFuelTime(t *testing.T) {
	unique := mustCompile(t, `{"items":{"items":{"uniqueItems":true,"anyOf":[{"maxItems":1},{"items":{"type":"null"}},{"minItems":2,"not":{"contains":{"const":"x"}}}]}}}`, "")
	slow := mustCompile(t, `{"items":{"pattern":"(a|b|ab)*c(x{1,50}y){1,9}$"}}`, "")
	one := "[" + strings.TrimSuffix(strings.Repeat(`[1,2,3],`, 9000), ",") + "]"
	arrays := "[" + strings.TrimSuffix(strings.Repeat(one+",", 14), ",") + "]"
	regex := mustCompile(t, `{"items":{"format":"regex"}}`, "")
	classes := "[" + strings.TrimSuffix(strings.Repeat(`"`+strings.Repeat(`\\pL`, 170)+`",`, 1400), ",") + "]"
	text := `["` + strings.Repeat("ab", 100<<10) + `","` + strings.Repeat("ab", 100<<10) + `"]`
	for _, c := range []struct {
		name, data string
		v          schema.Validator
	}{{"arrays", arrays, unique}, {"pattern", text, slow}, {"regex format", classes, regex}} {
		start := time.Now()
		got := c.v.Validate(nil, []byte(c.data))
		took := time.Since(start)
		t.Logf("%s: %d bytes, %v in %v", c.name, len(c.data), got.Code, took)
		if took > 10*soon*slowdown { // generous: CI cores are shared
			t.Errorf("%s: took %v", c.name, took)
		}
		if got.OK || got.Code != wire.CodeSchemaFuelSpent {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// TestExplainTime: saying what is wrong is bounded too.
func TestExplainTime(t *testing.T) {
	var props, bad strings.Builder
	for i := range 900 {
		fmt.Fprintf(&props, `"%s%d":{},`, strings.Repeat("p", 50), i)
		fmt.Fprintf(&bad, `"%sx%d":1,`, strings.Repeat("p", 50), i)
	}
	closed := `{"additionalProperties":false,"properties":{` + strings.TrimSuffix(props.String(), ",") + `}}`
	v := mustCompile(t, `{"items":{"oneOf":[`+strings.TrimSuffix(strings.Repeat(closed+",", 8), ",")+`]}}`, "")
	one := `{` + strings.TrimSuffix(bad.String(), ",") + `},`
	for _, data := range []string{"[" + strings.TrimSuffix(one, ",") + "]", "[" + strings.TrimSuffix(strings.Repeat(one, 15), ",") + "]"} {
		start := time.Now()
		got := v.Validate(nil, []byte(data))
		took := time.Since(start)
		t.Logf("%d bytes: %v in %v, %d violations", len(data), got.Code, took, len(got.Violations))
		if got.OK || got.Code != wire.CodeSchemaViolation || len(got.Violations) == 0 || !got.Truncated {
			t.Errorf("%v, %d violations, truncated %v", got.Code, len(got.Violations), got.Truncated)
		}
		if took > 10*soon {
			t.Errorf("took %v", took)
		}
	}
}

// TestShortNumbers are the nine bytes that stop a process which hands them to the
// library.
func TestShortNumbers(t *testing.T) {
	v := mustCompile(t, `{"properties":{"total":{"minimum":0}}}`, "")
	for _, n := range []string{"1e10000000", "1e2000000", "1e5000000", "1e1000000", "1e309"} {
		start := time.Now()
		got := v.Validate(nil, []byte(`{"total":`+n+`}`))
		if got.OK || got.Code != wire.CodeJSONMalformed || got.Offset != 9 || time.Since(start) > soon {
			t.Errorf("%s: %+v after %v", n, got, time.Since(start))
		}
	}
	if _, err := compile(`{"minimum":1e2000000}`, ""); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("in a schema: %v", err)
	}
}

func TestBigNumbersStayExact(t *testing.T) {
	v := mustCompile(t, `{"maximum":9007199254740992}`, "")
	if v.Validate(nil, []byte("9007199254740993")).OK {
		t.Error("2^53+1 was read as 2^53")
	}
	v = mustCompile(t, `{"const":9007199254740993}`, "")
	if v.Validate(nil, []byte("9007199254740992")).OK {
		t.Error("2^53 equals 2^53+1")
	}
	if !v.Validate(nil, []byte("9.007199254740993e15")).OK {
		t.Error("the same number, written otherwise, differs")
	}
	v = mustCompile(t, `{"multipleOf":0.01}`, "")
	for text, want := range map[string]bool{"19.99": true, "0.001": false, "1e308": true, "1e-308": false, "-4.35": true} {
		if got := v.Validate(nil, []byte(text)).OK; got != want {
			t.Errorf("multipleOf 0.01: %s: %v", text, got)
		}
	}
}

// TestRow30SchemaReferences: file, network and relative references are refused, and
// the refusal shows nothing of what they name.
func TestRow30SchemaReferences(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret.json")
	if err := os.WriteFile(secret, []byte(`{"const":"hunter2"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	symlink := filepath.Join(t.TempDir(), "linked.json")
	if err := os.Symlink(secret, symlink); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{
		"file://" + secret, secret, "file://" + symlink, symlink, "secret.json", "../secret.json", "http://localhost:1/x.json", "https://example.com/x",
		"data:application/json,{}", "urn:example:x", "ftp://example.com/x", "//example.com/x",
	} {
		for _, text := range []string{
			fmt.Sprintf(`{"$ref":%q}`, ref),
			fmt.Sprintf(`{"properties":{"a":{"anyOf":[{"$ref":%q}]}}}`, ref),
			fmt.Sprintf(`{"$id":"https://example.org/s","$defs":{"a":{"$dynamicRef":%q}},"$ref":"#/$defs/a"}`, ref),
		} {
			_, err := compile(text, "")
			if !errors.Is(err, schema.ErrRefused) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

// unfit is a document that must be refused, and words of the refusal.
type unfit struct{ name, text, ref, want string }

func refusedAtRegistration(t *testing.T, cases []unfit) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			_, err := compile(c.text, c.ref)
			if !errors.Is(err, schema.ErrRefused) {
				t.Fatalf("got %v, want a refusal", err)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %q", err, c.want)
			}
			if took := time.Since(start); took > 20*soon*slowdown {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestRow32Patterns: patterns outside RE2 or over their bounds are refused; those
// within run in linear time, or out of steps.
func TestRow32Patterns(t *testing.T) {
	long := strings.Repeat("a", 513)
	refusedAtRegistration(t, []unfit{
		{"look-ahead", `{"pattern":"^(?=a)b"}`, "", "(?="},
		{"back-reference", `{"pattern":"(a)\\1"}`, "", `\1`},
		{"long pattern", `{"pattern":"` + long + `"}`, "", "513 bytes"},
		{"repeat bomb", `{"pattern":"(x{999}){999}"}`, "", "repeat"},
		{"many instructions", `{"pattern":"` + strings.Repeat(`\\pL{999}`, 12) + `"}`, "", "instructions"},
		{"pattern property", `{"patternProperties":{"(?!a)":{}}}`, "", "(?!"},
	})
	v := mustCompile(t, `{"pattern":"(a+)+$"}`, "")
	start := time.Now()
	got := v.Validate(nil, []byte(`"`+strings.Repeat("a", 50_000)+`!"`))
	if took := time.Since(start); took > 10*soon*slowdown {
		t.Errorf("(a+)+$ on 50 kB: took %v", took)
	}
	if got.OK || got.Code != wire.CodeSchemaViolation && got.Code != wire.CodeSchemaFuelSpent {
		t.Errorf("(a+)+$ on 50 kB: %+v", got)
	}
	if got := v.Validate(nil, []byte(`"aaa"`)); !got.OK {
		t.Errorf("a short match: %+v", got)
	}
}

func TestRefusedAtRegistration(t *testing.T) {
	many := strings.TrimSuffix(strings.Repeat(`{},`, 10001), ",")
	refusedAtRegistration(t, []unfit{
		{"not JSON", `{`, "", "text ends too early"},
		{"duplicate keyword", `{"type":"string","type":"object"}`, "", "duplicate member name"},
		{"not a schema", `[]`, "", "object or a boolean"},
		{"metaschema", `{"type":"strnig"}`, "", "not valid against metaschema"},
		{"draft-04", `{"$schema":"http://json-schema.org/draft-04/schema#"}`, "", "is not taken"},
		{"2019-09", `{"$schema":"https://json-schema.org/draft/2019-09/schema"}`, "", "is not taken"},
		{"own metaschema", `{"$schema":"https://example.com/meta"}`, "", "is not taken"},
		{"embedded draft", `{"$ref":"#/$defs/a","$defs":{"a":{"$id":"https://example.com/a","$schema":"http://json-schema.org/draft-04/schema#"}}}`, "", "another dialect"},
		{"unknown format", `{"properties":{"a":{"format":"colour"}}}`, "", `unknown format "colour"`},
		{"idn-hostname", `{"format":"idn-hostname"}`, "", "unknown format"},
		{"missing ref", `{"$ref":"#/$defs/none"}`, "", "none"},
		{"ref of the binding", `{}`, "#/none", "none"},
		{"ref without #", `{}`, "x", "must begin with #"},
		{"65 branches", `{"anyOf":[` + strings.TrimSuffix(strings.Repeat(`{"type":"null"},`, 65), ",") + `]}`, "", "65 branches"},
		{"too large", `"` + strings.Repeat("x", 512<<10) + `"`, "", "size limit"},
		{"too many nodes", `{"x":[` + many + `],"y":[` + many + `]}`, "", "objects and booleans"},
		{"huge bound", `{"maxLength":1e30}`, "", "maxLength over"},
		{"dynamic scope", `{"$dynamicRef":"#a","$defs":{"a":{"$dynamicAnchor":"a"},"b":{"$id":"b","$dynamicAnchor":"a"}}}`, "", "more than one place"},
	})
}

// TestFaultsAreJoined: one error names every fault.
func TestFaultsAreJoined(t *testing.T) {
	_, err := compile(`{"properties":{"a":{"format":"colour"},"b":{"format":"shade"},"c":{"maxItems":1e20}}}`, "")
	for _, want := range []string{"colour", "shade", "/properties/c", "maxItems"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// TestOnlyWhatIsReached: a fault in a part of the document that the binding does
// not reach does not refuse it, except where the metaschema finds it.
func TestOnlyWhatIsReached(t *testing.T) {
	const text = `{"$defs":{"good":{"type":"string"},"bad":{"format":"colour"}}}`
	if _, err := compile(text, "#/$defs/good"); err != nil {
		t.Error(err)
	}
	if _, err := compile(text, "#/$defs/bad"); !errors.Is(err, schema.ErrRefused) {
		t.Error(err)
	}
}

// TestRegistrationTime: no document within the size limit takes long to register
// or to refuse, whatever the library finds hard in it.
func TestRegistrationTime(t *testing.T) {
	list := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, strings.ReplaceAll(format, "#N", "%[1]d"), i)
		}
		return b.String()
	}
	// The library is quadratic in these; the race detector makes it tenfold slower.
	const many = 9000 / (1 + slowdown/5)
	const draft07 = `"$schema":"http://json-schema.org/draft-07/schema",`
	for _, c := range []struct{ name, text, want string }{
		{"properties", `{"properties":{` + list(many, `"p#N":{"type":"string"}`) + `}}`, ""},
		{"resources", `{"$defs":{` + list(many, `"p#N":{"$id":"x#N"}`) + `}}`, ""},
		{"nodes", `{"properties":{` + list(5900, `"p#N":{"not":{}}`) + `}}`, "nodes are reached"},
		{"odd references", `{"x":[` + strings.TrimSuffix(strings.Repeat(`{},`, 3000), ",") + `],"properties":{` + list(3000, `"p#N":{"$ref":"#/x/#N"}`) + `}}`, "outside of the definitions"},
		{"$defs in draft-07", `{` + draft07 + `"$defs":{` + list(4000, `"p#N":{}`) + `},"properties":{` + list(4000, `"p#N":{"$ref":"#/$defs/p#N"}`) + `}}`, "outside of the definitions"},
		{"patterns", `{"properties":{` + list(many, `"p#N":{"pattern":"(a|b|c#N)*x{1,900}"}`) + `}}`, "not valid against metaschema"},
		{"faults", `{"properties":{` + list(many, `"p#N":{"type":1}`) + `}}`, "not valid against metaschema"},
	} {
		start := time.Now()
		_, err := compile(c.text, "")
		took := time.Since(start)
		t.Logf("%s: %d bytes, %v", c.name, len(c.text), took)
		if took > 100*soon*slowdown { // shared cores; alone it is some 1 s at most
			t.Errorf("%s: took %v", c.name, took)
		}
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (!errors.Is(err, schema.ErrRefused) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case err != nil && len(err.Error()) > 4096:
			t.Errorf("%s: an error of %d bytes", c.name, len(err.Error()))
		}
	}
}

func TestContextAndFormat(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d := schema.Document{Name: "a", Version: 1, Format: schema.FormatJSONSchema, Text: []byte(`{}`)}
	if _, err := New(schema.Limits{}).Compile(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	d.Format = "avro"
	if _, err := New(schema.Limits{}).Compile(context.Background(), d); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("avro: %v", err)
	}
}

// TestPanicIsARefusal: whatever goes wrong inside, the caller gets a verdict
// without payload bytes.
func TestPanicIsARefusal(t *testing.T) {
	v := &validator{root: &plan{format: &namedFormat{name: "boom", check: func(b []byte) bool { panic("secret " + string(b)) }}}, limits: schema.DefaultLimits()}
	got := v.Validate(nil, []byte(`"hunter2"`))
	if got.OK || got.Code != wire.CodeInternal || strings.Contains(got.Detail, "hunter2") {
		t.Errorf("got %+v", got)
	}
	if got := mustCompile(t, `{"type":"string"}`, "").Validate(nil, []byte(`"x"`)); !got.OK {
		t.Errorf("after a panic: %+v", got)
	}
}

func TestEngineCache(t *testing.T) {
	e := New(schema.Limits{})
	for i := range 3 * cachedTexts {
		d := schema.Document{Name: "a", Version: i, Format: schema.FormatJSONSchema, Text: fmt.Appendf(nil, `{"const":%d}`, i)}
		v, err := e.Compile(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		if !v.Validate(nil, fmt.Appendf(nil, "%d", i)).OK {
			t.Errorf("document %d refuses its own constant", i)
		}
	}
	if len(e.texts) != cachedTexts || len(e.order) != cachedTexts {
		t.Errorf("%d texts, %d in order", len(e.texts), len(e.order))
	}
}
