//go:build suite

package jsonschema

// The official JSON-Schema-Test-Suite. It is not part of this repository: get it
// from https://github.com/json-schema-org/JSON-Schema-Test-Suite or from the npm
// package @json-schema-org/tests, and run
//
//	SIGNET_JSONSCHEMA_SUITE=/path/to/suite go test -tags suite ./schema/jsonschema
//
// where the path holds tests/draft7 and tests/draft2020-12.

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/signetbus/signet/schema"
)

type suiteGroup struct {
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"schema"`
	Tests       []struct {
		Description string          `json:"description"`
		Data        json.RawMessage `json:"data"`
		Valid       bool            `json:"valid"`
	} `json:"tests"`
}

func suiteFolder(t *testing.T) string {
	dir := os.Getenv("SIGNET_JSONSCHEMA_SUITE")
	if dir == "" {
		t.Fatal("SIGNET_JSONSCHEMA_SUITE must name the folder of the JSON-Schema-Test-Suite")
	}
	return dir
}

// withDialect adds $schema to a schema object that has none.
func withDialect(text json.RawMessage, draft string) []byte {
	var m map[string]json.RawMessage
	if json.Unmarshal(text, &m) != nil || m["$schema"] != nil {
		return text
	}
	m["$schema"], _ = json.Marshal(draft)
	b, _ := json.Marshal(m)
	return b
}

func runSuite(t *testing.T, glob, draft string) (pass int, wrong, refused []string) {
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %d files", glob, err, len(files))
	}
	e := New(schema.Limits{})
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var groups []suiteGroup
		if err := json.Unmarshal(b, &groups); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		for _, g := range groups {
			v, err := e.Compile(context.Background(), schema.Document{
				Name: name, Version: 1, Format: schema.FormatJSONSchema, Text: withDialect(g.Schema, draft),
			})
			if err != nil {
				t.Logf("refused: %s: %s: %v", name, g.Description, err)
				refused = append(refused, name)
				continue
			}
			for _, c := range g.Tests {
				got := v.Validate(nil, c.Data)
				if got.OK == c.Valid {
					pass++
					continue
				}
				wrong = append(wrong, name)
				t.Logf("otherwise: %s: %s: %s: %.200s: got %v %s", name, g.Description, c.Description, c.Data, got.OK, got.Detail)
			}
		}
	}
	return pass, wrong, refused
}

// TestSuite runs the whole suite. What is answered otherwise, and what is
// refused at registration, is listed in full: it is what docs/spec/schema.md says.
func TestSuite(t *testing.T) {
	dir := suiteFolder(t)
	type counts = map[string]int
	for _, c := range []struct {
		path, draft    string
		wrong, refused counts
	}{
		{
			"draft7/*.json", Draft07 + "#",
			counts{},
			counts{"refRemote": 11 /* references leave the document */, "format": 2 /* idn-email, idn-hostname */},
		},
		{
			"draft2020-12/*.json", Draft202012,
			counts{"format": 17 /* formats are asserted */},
			counts{
				"refRemote": 15, "dynamicRef": 12, "unevaluatedItems": 1, "unevaluatedProperties": 1, // dynamic scope, other documents
				"defs": 1, "ref": 1, // reference to the 2020-12 metaschema, which has a dynamic scope
				"vocabulary": 2, // metaschema of their own
				"format":     2, // idn-email, idn-hostname
			},
		},
		{
			"draft7/optional/*.json", Draft07 + "#",
			counts{"content": 4 /* annotation only */, "ecmascript-regex": 10 /* \s is ASCII in RE2 */},
			counts{"cross-draft": 1, "ecmascript-regex": 2},
		},
		{
			"draft2020-12/optional/*.json", Draft202012,
			counts{"ecmascript-regex": 10},
			counts{"cross-draft": 1, "ecmascript-regex": 2, "dynamicRef": 1, "format-assertion": 2},
		},
		{
			"draft7/optional/format/*.json", Draft07 + "#",
			counts{"ecmascript-regex": 5 /* RE2 is another language */},
			counts{"idn-email": 1, "idn-hostname": 2, "unknown": 1},
		},
		{
			"draft2020-12/optional/format/*.json", Draft202012,
			counts{"ecmascript-regex": 5},
			counts{"idn-email": 1, "idn-hostname": 2, "unknown": 1},
		},
	} {
		t.Run(c.path, func(t *testing.T) {
			pass, wrong, refused := runSuite(t, filepath.Join(dir, "tests", filepath.FromSlash(c.path)), c.draft)
			if got := count(wrong); !maps.Equal(got, c.wrong) {
				t.Errorf("answered otherwise: %v, want %v", got, c.wrong)
			}
			if got := count(refused); !maps.Equal(got, c.refused) {
				t.Errorf("groups refused: %v, want %v", got, c.refused)
			}
			t.Logf("%d pass, %d otherwise, %d groups refused", pass, len(wrong), len(refused))
		})
	}
}

func count(names []string) map[string]int {
	m := map[string]int{}
	for _, n := range names {
		m[n]++
	}
	return m
}
