package policy

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSpec: the example of the specification is a valid policy, and every key that
// the reader knows is in the specification.
func TestSpec(t *testing.T) {
	data, err := os.ReadFile("../../docs/spec/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	spec := string(data)
	_, rest, _ := strings.Cut(spec, "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no example")
	}
	if _, err := Parse("example.yaml", []byte(example)); err != nil {
		t.Error(err)
	}

	// A word like no key makes the reader list all keys of each mapping.
	_, err = Parse("p.yaml", []byte(`tenant: shop
zzzzzzzzzz: 1
streams: [{zzzzzzzzzz: 1}]
kv: [{zzzzzzzzzz: 1}]
objects: [{zzzzzzzzzz: 1}]
roles: {r: {zzzzzzzzzz: 1, kv: {zzzzzzzzzz: 1}, publish: [{zzzzzzzzzz: 1}]}}
principals: [{zzzzzzzzzz: 1, identities: [{zzzzzzzzzz: 1}, {oidc: {zzzzzzzzzz: 1}}], roles: [{zzzzzzzzzz: 1}]}]
limits: {l: {zzzzzzzzzz: 1}}
schemas: [{zzzzzzzzzz: 1}]
subjects: [{zzzzzzzzzz: 1}]
deadLetter: {zzzzzzzzzz: 1}
audit: {zzzzzzzzzz: 1}
quota: {zzzzzzzzzz: 1}
`))
	lists := regexp.MustCompile(`known keys: (.*)`).FindAllStringSubmatch(err.Error(), -1)
	if len(lists) != 17 {
		t.Fatalf("got %d lists of keys, want 17:\n%v", len(lists), err)
	}
	for _, list := range lists {
		for _, key := range strings.Split(list[1], ", ") {
			if !regexp.MustCompile("[`{ ]" + key + "[`:]").MatchString(spec) {
				t.Errorf("key %s is not in docs/spec/policy.md", key)
			}
		}
	}
	for _, area := range AdminAreas {
		if !strings.Contains(spec, "`"+area+"`") {
			t.Errorf("admin area %s is not in docs/spec/policy.md", area)
		}
	}
}
