package policy

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const base = `tenant: shop
streams: [{name: O, subjects: [orders.>], maxBytes: 1MiB}]
limits: {slow: {messages: 1/s}}
subjects: [{match: orders.x, contentType: text/plain}]
roles: {r: {publish: [orders.*.created], limit: slow}}
principals:
  - {name: a, roles: [r], subscribe: [orders.eu.>]}
  - {name: b, publish: [orders.b], types: [com.*], discover: true}
`

// TestCompare: what a change means for each principal, whatever moved in the text.
func TestCompare(t *testing.T) {
	for _, tt := range []struct {
		name, from, to string
		want           []string
	}{
		{"nothing", "", "", nil},
		{"a role is narrowed", "publish: [orders.*.created], limit: slow}}", "limit: slow}}\n#", []string{"shop/a loses publish orders.*.created (role r/publish[0] p.yaml:5:23)"}},
		{"the same from elsewhere", "name: a, roles: [r],", "name: a, roles: [r], publish: [orders.*.created, orders.eu.created],", nil},
		{
			"narrowed", "subscribe: [orders.eu.>]", "subscribe: [orders.eu.x]",
			[]string{"shop/a loses subscribe orders.eu.> (principal a/subscribe[0] p.yaml:7:39)"},
		},
		{
			"widened", "subscribe: [orders.eu.>]", "subscribe: [orders.>]",
			[]string{"shop/a gains subscribe orders.> (principal a/subscribe[0] p.yaml:7:39)"},
		},
		{
			"types opened", "types: [com.*], ", "",
			[]string{"shop/b gains type * (default-type)"},
		},
		{
			"types closed", "types: [com.*]", "types: [com.x]",
			[]string{"shop/b loses type com.* (principal b/types[0] p.yaml:8:44)"},
		},
		{"disabled", "name: b,", "name: b, disabled: true,", []string{
			"shop/b loses everything: it is disabled, and its connections are cut",
			"shop/b loses publish orders.b (principal b/publish[0] p.yaml:8:25)",
			"shop/b loses type com.* (principal b/types[0] p.yaml:8:44)",
			"shop/b loses discover (principal b/discover p.yaml:8:62)",
		}},
		{"identities", "name: b,", "name: b, identities: [{spiffe: 'spiffe://shop/b'}, {dns: b.example.org}],", []string{
			"shop/b gains identity spiffe spiffe://shop/b", "shop/b gains identity dns b.example.org",
		}},
		{"limit", "slow: {messages: 1/s}", "slow: {messages: 2/s}", []string{
			"tenant shop changes limit slow: messages 1/s, burst 1s -> messages 2/s, burst 1s",
		}},
		{"rule", "contentType: text/plain", "contentType: text/plain, mode: audit", []string{
			"tenant shop changes subject rule orders.x: contentType text/plain -> contentType text/plain, mode audit",
		}},
		{"mode", "name: b,", "name: b, mode: audit,", []string{"shop/b changes mode: enforce -> audit"}},
		{"stream", "maxBytes: 1MiB", "maxBytes: 2MiB", []string{
			"tenant shop changes stream O: subjects [orders.>], maxBytes 1MiB, maxAge 720h0m0s, duplicateWindow 4m0s -> subjects [orders.>], maxBytes 2MiB, maxAge 720h0m0s, duplicateWindow 4m0s",
		}},
		{"a grant gets an end", "publish: [orders.b]", "publish: [{grant: orders.b, until: 2100-01-01T00:00:00Z}]", []string{
			"shop/b loses publish orders.b: from 2100-01-01T00:00:00Z on (principal b/publish[0] p.yaml:8:25)",
		}},
		{"a grant with an end and a wider one without", "subscribe: [orders.eu.>]", "subscribe: [{grant: orders.eu.>, until: 2100-01-01T00:00:00Z}, orders.eu.>]", nil},
		{"a principal gets an end", "name: b,", "name: b, until: 2100-01-01T00:00:00Z,", []string{"shop/b changes until: none -> 2100-01-01T00:00:00Z"}},
		{"a token needs a claim", "name: b,", "name: b, identities: [{oidc: {issuer: 'https://ci.example', subject: x, claims: {env: production}}}],", []string{
			"shop/b gains identity oidc https://ci.example x with env=production",
		}},
		{"quota", "limits:", "quota: {connections: 3}\nlimits:", []string{"tenant shop changes quota: as by default -> connections 3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(base, tt.from) {
				t.Fatal("the edit hits nothing")
			}
			a, b := compileAt(t, base, time.Now(), nil), compileAt(t, strings.Replace(base, tt.from, tt.to, 1), time.Now(), nil)
			var got []string
			for _, c := range Compare(a, b) {
				got = append(got, c.String())
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
			}
			// The way back loses what the way there has gained.
			back := 0
			for _, c := range Compare(b, a) {
				if c.What == Gains {
					back++
				}
			}
			lost := 0
			for _, g := range got {
				if strings.Contains(g, " loses ") && !strings.Contains(g, "everything") {
					lost++
				}
			}
			if back != lost {
				t.Errorf("%d losses, %d gains on the way back", lost, back)
			}
			if same := SameStores(a, b); same != (tt.name != "stream") {
				t.Errorf("same stores: %v", same)
			}
		})
	}
}

// TestCompareClaims: a second identity of the same subject that asks for fewer claims lets
// in more tokens, though every name was there before; so does a claim that goes.
func TestCompareClaims(t *testing.T) {
	with := func(identities string) *Set {
		return compileAt(t, strings.Replace(base, "name: b,", "name: b, identities: ["+identities+"],", 1), time.Now(), nil)
	}
	const strict, open = "{oidc: {issuer: 'https://ci.example', subject: x, claims: {env: production}}}", "{oidc: {issuer: 'https://ci.example', subject: x}}"
	for _, tt := range []struct {
		name, from, to string
		want           []string
	}{
		{"another one without claims", strict, strict + ", " + open, []string{"shop/b gains identity oidc https://ci.example x"}},
		{"the claim goes", strict, open, []string{"shop/b loses identity oidc https://ci.example x with env=production: connections with it are cut", "shop/b gains identity oidc https://ci.example x"}},
		{"the same", strict + ", " + open, open + ", " + strict, nil},
	} {
		var got []string
		for _, c := range Compare(with(tt.from), with(tt.to)) {
			got = append(got, c.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got\n  %s\nwant\n  %s", tt.name, strings.Join(got, "\n  "), strings.Join(tt.want, "\n  "))
		}
	}
}

// TestPackedFiles: a bundle that has travelled is the one that was read, schemas
// included, and says nothing of where it lay.
func TestPackedFiles(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("shop/a.yaml", base)
	put("shop/b.yaml", "tenant: shop\nschemas: [{name: s, version: 1, file: schemas/s.json}]\n")
	put("shop/schemas/s.json", `{"type": "object"}`)
	put("other/p.yaml", "tenant: other\nprincipals: [{name: p}]\n")
	b, files, err := LoadFiles([]string{filepath.Join(dir, "shop"), filepath.Join(dir, "other")})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := Pack(files)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Pack(files)
	if err != nil || !bytes.Equal(packed, again) {
		t.Error("the same files give other bytes")
	}
	out, err := Unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range out {
		got = append(got, f.Name)
	}
	if want := []string{"other/p.yaml", "shop/a.yaml", "shop/b.yaml", "shop/schemas/s.json"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	moved, err := ParseFiles(out)
	if err != nil {
		t.Fatal(err)
	}
	if moved.Digest() != b.Digest() {
		t.Errorf("digest %s, was %s", moved.Digest(), b.Digest())
	}
	set, err := Compile(moved)
	if err != nil {
		t.Fatal(err)
	}
	if s := set.Tenant("shop").Schemas[0]; s.File != "" || string(s.Text) != `{"type": "object"}` {
		t.Errorf("schema from %q: %s", s.File, s.Text)
	}
}

// TestPackedFilesAreChecked: names that would leave the bundle and packages that are
// larger than a bundle are refused.
func TestPackedFilesAreChecked(t *testing.T) {
	for _, name := range []string{"", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\nb", strings.Repeat("x", 256)} {
		if _, err := Pack([]File{{Name: name, Text: []byte("x")}}); err == nil {
			t.Errorf("name %q is taken", name)
		}
	}
	if _, err := Pack([]File{{Name: "a"}, {Name: "a"}}); err == nil {
		t.Error("a name twice is taken")
	}
	if _, err := Pack([]File{{Name: "a", Schema: true, Text: make([]byte, MaxSchemaBytes+1)}}); err == nil {
		t.Error("a large schema is taken")
	}
	if _, err := ParseFiles([]File{{Name: "d/p.yaml", Text: []byte("tenant: shop\nschemas: [{name: s, version: 1, file: ../s.json}]\n")}, {Name: "s.json", Schema: true, Text: []byte("{}")}}); err == nil {
		t.Error("a schema beside the folder of its policy file is taken")
	}
	bomb, err := Pack([]File{{Name: "a", Text: make([]byte, MaxBundleBytes)}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(bomb); err != nil {
		t.Errorf("as large as may be: %v", err)
	}
}

func FuzzUnpack(f *testing.F) {
	good, err := Pack([]File{{Name: "p.yaml", Text: []byte(base)}, {Name: "s.json", Schema: true, Text: []byte("{}")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, packed []byte) {
		files, err := Unpack(packed)
		if err != nil {
			return
		}
		again, err := Pack(files)
		if err != nil {
			t.Fatalf("what was unpacked cannot be packed: %v", err)
		}
		if _, err := Unpack(again); err != nil {
			t.Fatal(err)
		}
		_, _ = ParseFiles(files)
	})
}
