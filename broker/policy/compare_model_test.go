package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestCompareModel: whatever a principal may do by one policy and not by the other is in
// the comparison, for every subject of a small world and random grants, with templates,
// roles and times.
func TestCompareModel(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	var world []string
	for _, a := range []string{"p", "q", "x"} {
		world = append(world, "o."+a)
		for _, b := range []string{"p", "y"} {
			world = append(world, "o."+a+"."+b)
		}
	}
	pattern := rapid.SampledFrom([]string{
		"o.>", "o.*", "o.*.*", "o.p", "o.q", "o.x", "o.p.>", "o.*.y", "o.x.p", "o.{principal}", "o.{principal}.*", "o.x.{principal}",
	})
	until := rapid.SampledFrom([]string{"", "2026-05-01T00:00:00Z", "2026-07-01T00:00:00Z"})
	list := func(rt *rapid.T, name string) string {
		var out []string
		for range rapid.IntRange(0, 3).Draw(rt, name) {
			p := "'" + pattern.Draw(rt, "pattern") + "'"
			if u := until.Draw(rt, "until"); u != "" {
				p = "{grant: " + p + ", until: " + u + "}"
			}
			out = append(out, p)
		}
		return "[" + strings.Join(out, ", ") + "]"
	}
	compiled := func(rt *rapid.T) *Set {
		src := "tenant: shop\nephemeral: [o.>]\nroles: {r: {publish: " + list(rt, "role") + "}}\nprincipals:\n"
		for _, name := range []string{"p", "q"} {
			if rapid.Bool().Draw(rt, "there") {
				src += fmt.Sprintf("  - {name: %s, roles: [r], disabled: %v, publish: %s}\n", name, rapid.IntRange(0, 4).Draw(rt, "disabled") == 0, list(rt, "own"))
			}
		}
		if strings.HasSuffix(src, "principals:\n") {
			src += "  - {name: z}\n"
		}
		b, err := Parse("p.yaml", []byte(src))
		if err != nil {
			rt.Fatalf("%v\n%s", err, src)
		}
		s, err := CompileAt(b, now, nil)
		if err != nil {
			rt.Fatal(err)
		}
		return s
	}
	may := func(s *Set, who, subject string) bool {
		p := s.Principal("shop", who)
		return p != nil && !p.Disabled && p.Grants.Publish.Covers(subject) != nil
	}
	differs, same := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		a, b := compiled(rt), compiled(rt)
		told := map[string]bool{}
		for _, c := range Compare(a, b) {
			told[c.Principal+" "+c.What] = true
		}
		for _, who := range []string{"p", "q"} {
			for _, subject := range world {
				before, after := may(a, who, subject), may(b, who, subject)
				what := ""
				switch {
				case before && !after:
					what = Loses
				case after && !before:
					what = Gains
				default:
					same++
					continue
				}
				differs++
				if !told["shop/"+who+" "+what] {
					rt.Fatalf("%s %s %s, and nothing tells: %v", who, what, subject, Compare(a, b))
				}
			}
		}
	})
	t.Logf("%d decisions that differ, %d that do not", differs, same)
	if differs == 0 || same == 0 {
		t.Error("nothing was compared")
	}
}
