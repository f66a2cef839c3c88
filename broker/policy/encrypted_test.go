package policy

import (
	"strings"
	"testing"
)

func TestEncryptedRules(t *testing.T) {
	for _, c := range []struct{ name, rules, want string }{
		{"encrypted", "{match: a.>, encrypted: true}", ""},
		{"with a limit and a signature", "{match: a.>, encrypted: true, require: producer, maxPayload: 1KiB}", ""},
		{"no word", "{match: a.>, encrypted: yes}", "encrypted"},
		{"with a schema", "{match: a.>, encrypted: true, schema: s}", "encrypted: true and schema: the broker cannot see what is encrypted"},
		{"with a content type", "{match: a.>, encrypted: true, contentType: application/json}", "leave contentType out"},
		{"of requests", "{match: rpc.a.b, encrypted: true}", "requests are not events"},
		{"a narrower rule that is silent", "{match: a.>, encrypted: true}, {match: a.x, maxPayload: 1KiB}", "say encrypted: true here too, or encrypted: false to do without"},
		{"in the other order", "{match: a.x, schema: s}, {match: a.>, encrypted: true}", "say encrypted: true here too"},
		{"a narrower rule in the clear", "{match: a.>, encrypted: true}, {match: a.x, encrypted: false, schema: s}", ""},
		{"a wider rule in the clear", "{match: a.>, schema: s}, {match: a.x, encrypted: true}", ""},
	} {
		text := "tenant: shop\nstreams: [{name: A, subjects: [a.>], maxBytes: 1MiB}]\n" +
			"schemas: [{name: s, version: 1, text: '{}'}]\nsubjects: [" + c.rules + "]\n"
		b, err := Parse("p.yaml", []byte(text))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if err != nil {
			continue
		}
		set, err := Compile(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Tenant("shop").Binding("a.y"); strings.HasPrefix(c.rules, "{match: a.>, encrypted: true") && (got == nil || !got.Encrypted) {
			t.Errorf("%s: the rule of a.y is %+v", c.name, got)
		}
	}
}
