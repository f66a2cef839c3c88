package policy

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestInlineText: a schema as a block scalar keeps its text, whatever stands in it.
func TestInlineText(t *testing.T) {
	b, err := Parse("p.yaml", []byte(`tenant: shop
schemas:
  - name: order
    version: 3
    text: |
      {
        "type": "object", "pattern": "[[[[ &a *b !c ? # {{{{",
                                                                                                                                            "x": [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]
      }
`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	if text := string(s.Tenant("shop").Schemas[0].Text); !strings.HasPrefix(text, "{\n  \"type\"") {
		t.Errorf("got %q", text)
	}
}

// TestRolesAreMerged: grants of roles come first, a limit that two roles name
// applies once, and equal grants keep the first rule.
func TestRolesAreMerged(t *testing.T) {
	b, err := Parse("p.yaml", []byte(`tenant: shop
ephemeral: [a.>]
limits: {slow: {messages: 60/m}, wide: {bytes: 1MiB/s, match: a.b.>}}
roles:
  one: {publish: [a.x], limit: slow}
  two: {publish: [a.x, a.y], limit: slow}
principals: [{name: p, roles: [one, two], publish: [a.x, a.z], limit: wide}]
`))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Compile(b)
	if err != nil {
		t.Fatal(err)
	}
	p := s.Principal("shop", "p")
	if g := p.Grants.Publish.Covers("a.x"); g.Rule != "role one/publish[0]" {
		t.Errorf("a.x by %s", g.Rule)
	}
	if n := len(p.Grants.Publish.All()); n != 5 {
		t.Errorf("got %d grants, want 5", n)
	}
	if len(p.Limits) != 2 || p.Limits[0].Rule != "limit slow" || p.Limits[0].Messages != 1 || p.Limits[0].Burst != DefaultBurst {
		t.Errorf("limits: %+v", p.Limits)
	}
	if wide := p.Limits[1]; wide.Applies("a.x") || !wide.Applies("a.b.c") {
		t.Error("match of a limit is ignored")
	}
}

// TestSetConcurrent: lookups from many goroutines, for the race detector.
func TestSetConcurrent(t *testing.T) {
	s := loadGood(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 500 {
				p := s.Principal("shop", "checkout")
				p.Grants.Publish.Covers("orders.eu.created")
				p.Grants.Publish.Nearest("orders.eu.x")
				p.Tenant.StreamFor("orders.x")
				p.Tenant.Binding(fmt.Sprintf("orders.r%d.created", n+i))
				s.ByNkey(p.Nkeys[0])
			}
		})
	}
	wg.Wait()
}

// BenchmarkLoad reads a policy of 2,000 principals.
func BenchmarkLoad(b *testing.B) {
	var src strings.Builder
	src.WriteString("tenant: shop\nephemeral: [a.>]\nroles: {r: {publish: [a.x, a.y]}}\nprincipals:\n")
	for i := range 2000 {
		fmt.Fprintf(&src, "  - {name: p%d, roles: [r], publish: [a.p%d.*]}\n", i, i)
	}
	for b.Loop() {
		bundle, err := Parse("p.yaml", []byte(src.String()))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Compile(bundle); err != nil {
			b.Fatal(err)
		}
	}
}
