package jsonschema

import (
	"strings"
	"sync"
	"testing"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/schema"
)

func TestContentType(t *testing.T) {
	v := mustCompile(t, `{}`, "")
	for ct, want := range map[string]bool{
		"": true, "application/json": true, "Application/JSON": true, "application/json; charset=utf-8": true,
		`application/json;charset="UTF-8"`: true, "application/problem+json": true, "application/vnd.x+JSON;v=1": true,
		"text/json": false, "application/jsonx": false, "application/+json": false, "application/xml": false,
		"application/json; charset=utf-16": false, "json": false, "application/": false,
	} {
		got := v.Validate([]byte(ct), []byte("1"))
		if got.OK != want || !want && got.Code != wire.CodeContentTypeMismatch {
			t.Errorf("%q: %+v", ct, got)
		}
	}
}

func TestViolations(t *testing.T) {
	v := mustCompile(t, orderSchema, "")
	bad := strings.Replace(string(order(2, 0)), `"qty":2`, `"qty":0,"colour":"secret-value","skv":1`, 1)
	bad = strings.Replace(bad, `"EUR"`, `"secret-currency"`, 1)
	got := v.Validate(nil, []byte(bad))
	want := []wire.Violation{
		{At: "/currency", Rule: "enum", SchemaAt: "/properties/currency/enum", Want: `"EUR","USD","GBP"`, Got: "string of 15 characters", Message: "must be one of the listed values"},
		{At: "/items/1/qty", Rule: "minimum", SchemaAt: "/$defs/item/properties/qty/minimum", Want: "1", Got: "number", Message: "must be at least 1"},
		{At: "/items/1", Rule: "additionalProperties", SchemaAt: "/$defs/item/additionalProperties", Got: `property "colour"`, Message: "not declared"},
		{At: "/items/1", Rule: "additionalProperties", SchemaAt: "/$defs/item/additionalProperties", Got: `property "skv"`, Message: `not declared; did you mean "sku"?`},
	}
	if got.OK || got.Code != wire.CodeSchemaViolation || got.Truncated || len(got.Violations) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		g := got.Violations[i]
		if g.Offset == 0 {
			t.Errorf("%d: no offset", i)
		}
		g.Offset = 0
		if g != w {
			t.Errorf("%d: got  %+v\nwant %+v", i, g, w)
		}
	}
	if got.Offset != strings.Index(bad, `"secret-currency"`) {
		t.Errorf("offset %d", got.Offset)
	}
	if got.Detail != "at /currency: must be one of the listed values" {
		t.Errorf("detail %q", got.Detail)
	}
}

// TestValuesAreNotEchoed puts a marker in every value of payloads that break
// every rule, and looks for it in everything that is told.
func TestValuesAreNotEchoed(t *testing.T) {
	v := mustCompile(t, `{"properties":{
	 "a":{"const":"x"},"b":{"enum":["x",1]},"c":{"format":"uri"},"d":{"pattern":"^x$"},"e":{"maxLength":1},"f":{"type":"integer"},
	 "g":{"not":{}},"h":{"anyOf":[{"const":1},{"minLength":99}]},"i":{"oneOf":[{},{}]},"j":{"contains":{"const":1}},"k":{"maximum":1}}}`, "")
	got := v.Validate(nil, []byte(`{"a":"s3cret","b":"s3cret","c":" s3cret","d":"s3cret","e":"s3cret","f":"s3cret","g":"s3cret","h":"s3cret","i":"s3cret","j":["s3cret"],"k":424242}`))
	if len(got.Violations) != 10 || !got.Truncated {
		t.Errorf("%d violations, truncated %v; want 10 and true", len(got.Violations), got.Truncated)
	}
	r := got.Refusal("subjects[0]")
	told := string(r.Answer("", true)) + r.Error() + got.Detail
	if strings.Contains(told, "s3cret") || strings.Contains(told, "424242") {
		t.Errorf("a value is told: %s", told)
	}
}

func TestNamesAreCutAndEscaped(t *testing.T) {
	v := mustCompile(t, `{"additionalProperties":{"additionalProperties":false}}`, "")
	long := strings.Repeat("n", 200)
	for _, c := range []struct{ name, at string }{
		{`a/b~c`, `/a~1b~0c`},
		{`a\u001b[31m\nb`, `/a\x1b[31m\nb`},
		{`\u202e`, `/\u202e`},
		{`é`, `/\u00e9`},
		{long, "/" + long[:61] + `\u2026`},
	} {
		got := v.Validate(nil, []byte(`{"`+c.name+`":{"`+c.name+`":1}}`))
		if len(got.Violations) != 1 || got.Violations[0].At != c.at {
			t.Errorf("%.20s: %+v, want at %s", c.name, got.Violations, c.at)
			continue
		}
		for _, s := range []string{got.Violations[0].At, got.Violations[0].Got, got.Detail} {
			for _, r := range s {
				if r < 0x20 || r > 0x7e {
					t.Errorf("%.20s: %q is not printable ASCII", c.name, s)
				}
			}
		}
	}
}

// TestPointerIsCut: long names at every level do not make the answer long.
func TestPointerIsCut(t *testing.T) {
	v := mustCompile(t, `{"additionalProperties":{"$ref":"#"},"type":"object"}`, "")
	name := strings.Repeat("é", 500)
	data := strings.Repeat(`{"`+name+`":`, 30) + "1" + strings.Repeat("}", 30)
	got := v.Validate(nil, []byte(data))
	if len(got.Violations) != 1 || len(got.Violations[0].At) > maxPointerBytes+200 || !strings.HasSuffix(got.Violations[0].At, "/...") {
		t.Errorf("%+v", got)
	}
}

// TestNearestBranch: of the branches of a union the one with the right tag is
// explained.
func TestNearestBranch(t *testing.T) {
	v := mustCompile(t, `{"oneOf":[
	 {"required":["kind"],"properties":{"kind":{"const":"circle"},"r":{"type":"number"}}},
	 {"required":["kind","w","h"],"properties":{"kind":{"const":"box"},"w":{"type":"number"},"h":{"type":"number"}}}]}`, "")
	got := v.Validate(nil, []byte(`{"kind":"box","w":"1"}`))
	if len(got.Violations) != 3 || got.Violations[0].At != "/w" || got.Violations[1].Rule != "required" || got.Violations[2].Rule != "oneOf" {
		t.Errorf("%+v", got.Violations)
	}
	v = mustCompile(t, `{"oneOf":[{"minimum":1},{"maximum":5}]}`, "")
	got = v.Validate(nil, []byte(`3`))
	if len(got.Violations) != 1 || !strings.Contains(got.Violations[0].Message, "more than one branch (0 and 1)") {
		t.Errorf("%+v", got.Violations)
	}
}

func TestViolationsLimit(t *testing.T) {
	v := mustCompile(t, `{"items":{"type":"string"}}`, "")
	got := v.Validate(nil, []byte(items(5000)))
	if len(got.Violations) != 10 || !got.Truncated || got.Violations[9].At != "/9" {
		t.Errorf("%d violations, truncated %v", len(got.Violations), got.Truncated)
	}
}

// TestConcurrent shares one validator; run with -race.
func TestConcurrent(t *testing.T) {
	v := mustCompile(t, orderSchema, "")
	good, bad := order(24, 2048), []byte(`{"id":1}`)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if got := v.Validate(nil, good); !got.OK {
					t.Errorf("good: %+v", got)
				}
				if got := v.Validate(nil, bad); got.OK || got.Code != wire.CodeSchemaViolation {
					t.Errorf("bad: %+v", got)
				}
			}
		})
	}
	wg.Wait()
}

func TestConcurrentCompile(t *testing.T) {
	e := New(schema.Limits{})
	var wg sync.WaitGroup
	for _, event := range []string{"issues", "push", "pull_request", "star", "issues", "push"} {
		wg.Go(func() {
			if _, err := e.Compile(t.Context(), webhookDocument(event)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
