package jsonschema

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	lib "github.com/santhosh-tekuri/jsonschema/v6"

	gh "github.com/signetbus/signet/examples/githubwebhooks"
	"github.com/signetbus/signet/schema"
)

// oracle compiles text with the library alone, format checks ours; the answer
// gives the schema of a fragment.
func oracle(t testing.TB, text []byte) func(ref string) *lib.Schema {
	t.Helper()
	doc, err := lib.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := lib.NewCompiler()
	c.AssertFormat()
	for name, check := range formatChecks {
		c.RegisterFormat(libraryFormat(name, check))
	}
	if err := c.AddResource("https://example.com/s", doc); err != nil {
		t.Fatal(err)
	}
	return func(ref string) *lib.Schema { return c.MustCompile("https://example.com/s" + ref) }
}

// oracleSchemas use every keyword that the evaluator has.
var oracleSchemas = []string{
	orderSchema,
	`{"$schema":"http://json-schema.org/draft-07/schema#","definitions":{"p":{"type":["string","null"],"minLength":2,"maxLength":4}},
	  "properties":{"a":{"$ref":"#/definitions/p"},"b":{"items":[{"type":"integer"},{"const":1.0}],"additionalItems":{"enum":["x",1,null,[1],{"k":1}]}},
	   "c":{"contains":{"type":"number","multipleOf":0.5}},"d":{"propertyNames":{"pattern":"^[a-z]+$"},"additionalProperties":{"type":"boolean"},"minProperties":1,"maxProperties":2}},
	  "dependencies":{"a":["b"],"c":{"required":["d"]}},"patternProperties":{"^x-":{"type":"integer","exclusiveMinimum":-1,"exclusiveMaximum":10}},
	  "if":{"required":["a"]},"then":{"required":["b"]},"else":{"not":{"required":["x-no"]}}}`,
	`{"$defs":{"t":{"properties":{"v":{"type":"number","minimum":-1.5,"maximum":1e3},"next":{"$ref":"#/$defs/t"}},"unevaluatedProperties":false,
	   "allOf":[{"properties":{"k":true}},{"anyOf":[{"required":["k"],"properties":{"m":{"uniqueItems":true}}},{"properties":{"n":{"type":"null"}}}]}]}},
	  "$ref":"#/$defs/t","dependentRequired":{"k":["v"]},"dependentSchemas":{"n":{"properties":{"v":{"type":"integer"}}}}}`,
	`{"prefixItems":[{"type":"string"},{"oneOf":[{"type":"integer"},{"minimum":5},{"multipleOf":3}]}],"contains":{"type":"boolean"},"minContains":0,"maxContains":2,
	  "unevaluatedItems":{"type":["null","number"]},"minItems":1,"maxItems":6,"uniqueItems":true}`,
}

// compare answers by both; a payload that the scanner refuses is not compared.
func compare(t *testing.T, v schema.Validator, o *lib.Schema, data []byte) (valid bool) {
	got := v.Validate(nil, data)
	if got.Code != 0 && got.Code.Class() != "schema-violation" {
		return false
	}
	doc, err := lib.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%q: the scanner accepts what encoding/json refuses: %v", data, err)
	}
	if err := o.Validate(doc); (err == nil) != got.OK {
		t.Fatalf("%.2000s\nours: %+v\noracle: %v", data, got, err)
	}
	if !got.OK && len(got.Violations) == 0 {
		t.Fatalf("%s: refused without a violation: %+v", data, got)
	}
	return got.OK
}

// randomValue makes a small JSON value of the words that the schemas use.
func randomValue(r *rand.Rand, depth int) string {
	scalars := []string{
		"null", "true", "false", "0", "1", "1.0", "-1", "2.5", "3", "10e-1", "999", "1e3", "0.50", "-1.5", "1000.001",
		`"x"`, `"ab"`, `"abc"`, `"abcde"`, `"é"`, `"\u00e9\u00e9"`, `"EUR"`, `"2026-11-22T10:00:00Z"`, "[1]", `{"k":1}`, `{"k":1.0}`, "[]", "{}",
	}
	n := r.IntN(4)
	switch k := r.IntN(8); {
	case depth > 0 && k < 4:
		names := r.Perm(11)
		var parts []string
		for _, i := range names[:min(n+r.IntN(4), len(names))] {
			name := []string{"a", "b", "c", "d", "x-no", "x-1", "v", "next", "k", "m", "n"}[i]
			parts = append(parts, fmt.Sprintf("%q:%s", name, randomValue(r, depth-1)))
		}
		return "{" + strings.Join(parts, ",") + "}"
	case depth > 0 && k < 6:
		var parts []string
		for range n {
			parts = append(parts, randomValue(r, depth-1))
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	return scalars[r.IntN(len(scalars))]
}

// TestAgainstLibrary compares the evaluator with the library on random values.
func TestAgainstLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for k, text := range oracleSchemas {
		v, o := mustCompile(t, text, ""), oracle(t, []byte(text))("")
		valid := 0
		const rounds = 4000
		for range rounds {
			if compare(t, v, o, []byte(randomValue(r, 4))) {
				valid++
			}
		}
		t.Logf("schema %d: %d of %d valid", k, valid, rounds)
		if k > 0 && (valid == 0 || valid == rounds) {
			t.Errorf("schema %d: the comparison is one-sided", k)
		}
	}
}

// TestMutatedDeliveries compares on real payloads with one value replaced or one
// member dropped.
func TestMutatedDeliveries(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	validators := webhookValidators(t)
	compileRef := oracle(t, gh.Schema())
	oracles := map[string]*lib.Schema{}
	n, valid := 0, 0
	for d := range gh.Deliveries() {
		if n++; n%3 != 0 {
			continue
		}
		if oracles[d.Event] == nil {
			oracles[d.Event] = compileRef(gh.Definition(d.Event))
		}
		for round := range 3 {
			var doc any
			if err := json.Unmarshal(d.Payload, &doc); err != nil {
				t.Fatal(err)
			}
			if round > 0 {
				mutate(r, doc)
			}
			data, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			if compare(t, validators[d.Event], oracles[d.Event], data) {
				valid++
			}
		}
	}
	t.Logf("%d of %d valid", valid, n)
}

// mutate changes one place of v.
func mutate(r *rand.Rand, v any) {
	for {
		var next any
		switch c := v.(type) {
		case map[string]any:
			names := make([]string, 0, len(c))
			for name := range c {
				names = append(names, name)
			}
			if len(names) == 0 {
				return
			}
			name := names[r.IntN(len(names))]
			next = c[name]
			if r.IntN(3) == 0 || !isContainer(next) {
				switch r.IntN(3) {
				case 0:
					delete(c, name)
				case 1:
					c[name] = json.RawMessage(randomValue(r, 1))
				case 2:
					c[name+"_"] = c[name]
				}
				return
			}
		case []any:
			if len(c) == 0 {
				return
			}
			next = c[r.IntN(len(c))]
		default:
			return
		}
		v = next
	}
}

func isContainer(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return true
	}
	return false
}

// FuzzValidate: no schema and payload make the engine panic, a verdict is never
// without a code, and the library agrees where both may judge.
func FuzzValidate(f *testing.F) {
	for _, s := range oracleSchemas {
		f.Add([]byte(s), []byte(`{"a":"ab","b":[1,1],"k":{"v":1}}`))
		f.Add([]byte(s), []byte(`["x",3,true,null]`))
	}
	f.Add([]byte(forest), []byte(strings.Repeat(`{"a":`, 18)+"1"+strings.Repeat("}", 18)))
	f.Add([]byte(chain(6)), []byte("1"))
	f.Add([]byte(`{"$ref":"file:///etc/passwd"}`), []byte("1"))
	f.Add([]byte(`{"minimum":0}`), []byte("1e308"))
	engine := New(schema.Limits{})
	f.Fuzz(func(t *testing.T, text, data []byte) {
		v, err := engine.Compile(t.Context(), schema.Document{Name: "f", Version: 1, Format: schema.FormatJSONSchema, Text: text})
		if err != nil {
			return
		}
		got := v.Validate(nil, data)
		if got.OK != (got.Code == 0) {
			t.Fatalf("%+v", got)
		}
		if len(got.Violations) > 10 {
			t.Fatalf("%d violations", len(got.Violations))
		}
	})
}
