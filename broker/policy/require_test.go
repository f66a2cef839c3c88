package policy

import (
	"strings"
	"testing"
)

// A narrower rule that does not say what its events must bear would let in what the
// wider one refuses.
func TestNarrowRuleTakesNoDemandBack(t *testing.T) {
	for _, c := range []struct{ wide, narrow, want string }{
		{"require: producer", "maxPayload: 1KiB", "subject rule a.x: it holds in place of a.> at p.yaml:4:5, which has require: producer; say require: producer here too, or require: attested"},
		{"require: logged", "maxPayload: 1KiB", "which has require: logged"},
		{"require: producer", "require: attested", ""},
		{"require: producer", "require: producer", ""},
		{"require: attested", "maxPayload: 1KiB", ""},
		{"maxPayload: 1KiB", "maxPayload: 1KiB", ""},
		{"maxPayload: 1KiB", "require: producer", ""},
	} {
		for _, order := range [][2]string{{"a.>", "a.x"}, {"a.x", "a.>"}} {
			rules := map[string]string{"a.>": c.wide, "a.x": c.narrow}
			text := "tenant: shop\nstreams: [{name: A, subjects: [a.>], maxBytes: 1MiB, log: true}]\nsubjects:\n"
			for _, match := range order {
				text += "  - {match: " + match + ", " + rules[match] + "}\n"
			}
			b, err := Parse("p.yaml", []byte(text))
			if err == nil {
				_, err = Compile(b)
			}
			want := c.want
			if order[0] == "a.x" {
				want = strings.Replace(want, ":4:5", ":5:5", 1)
			}
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %v, want %q", text, err, want)
			}
		}
	}
}
