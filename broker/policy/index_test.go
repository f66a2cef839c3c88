package policy

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/signetbus/signet/internal/wire"
)

// drawPattern draws from a small alphabet, so that patterns meet often.
func drawPattern(t *rapid.T, label string, wildcards bool) string {
	words := []string{"a", "b", "c"}
	if wildcards {
		words = append(words, "*", "*")
	}
	tokens := rapid.SliceOfN(rapid.SampledFrom(words), 1, 4).Draw(t, label)
	if wildcards && rapid.IntRange(0, 3).Draw(t, label+" tail") == 0 {
		tokens[len(tokens)-1] = ">"
	}
	return strings.Join(tokens, ".")
}

func TestIndexModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var patterns []string
		var x index
		for i := range rapid.IntRange(0, 12).Draw(t, "patterns") {
			patterns = append(patterns, drawPattern(t, "pattern", true))
			x.add(patterns[i], i)
		}
		filter := drawPattern(t, "filter", rapid.Bool().Draw(t, "wildcards"))

		got := x.covers(filter)
		if want := wire.SubsetOfAny(filter, patterns); (got >= 0) != want {
			t.Fatalf("covers(%s) in %v = %d, want covered %v", filter, patterns, got, want)
		}
		if got >= 0 && !wire.Subset(filter, patterns[got]) {
			t.Fatalf("covers(%s) = %s, which does not", filter, patterns[got])
		}
		if got >= 0 {
			for _, p := range patterns {
				if wire.Subset(filter, p) && p != patterns[got] && wire.Subset(p, patterns[got]) {
					t.Fatalf("covers(%s) = %s, but %s is more specific", filter, patterns[got], p)
				}
			}
		}

		met := make(map[string]bool)
		x.overlapping(filter, func(i int) bool { met[patterns[i]] = true; return true })
		for _, p := range patterns {
			if wire.Overlap(p, filter) != met[p] {
				t.Fatalf("overlapping(%s): %s is %v, want %v", filter, p, met[p], !met[p])
			}
		}

		if n := x.nearest(filter); n >= 0 {
			first, _, _ := strings.Cut(filter, ".")
			start, _, _ := strings.Cut(patterns[n], ".")
			if start != first && start != "*" {
				t.Fatalf("nearest(%s) = %s: nothing in common", filter, patterns[n])
			}
		}
	})
}

func TestIntersectModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawPattern(t, "a", true), drawPattern(t, "b", true)
		subject := drawPattern(t, "subject", false)
		both := intersect(a, b)
		if (both == "") == wire.Overlap(a, b) {
			t.Fatalf("intersect(%s, %s) = %q", a, b, both)
		}
		if both == "" {
			return
		}
		if err := wire.CheckFilter(both); err != nil {
			t.Fatalf("intersect(%s, %s) = %q: %v", a, b, both, err)
		}
		if want := wire.Match(a, subject) && wire.Match(b, subject); wire.Match(both, subject) != want {
			t.Fatalf("intersect(%s, %s) = %s: %s matches %v, want %v", a, b, both, subject, !want, want)
		}
	})
}

func TestNearest(t *testing.T) {
	patterns := []string{"orders.*.created", "orders.eu.paid", "payments.>"}
	g := newSubjectGrants([]Grant{{Pattern: patterns[0]}, {Pattern: patterns[1]}, {Pattern: patterns[2]}})
	for _, tt := range []struct{ filter, want string }{
		{"orders.eu.shipped", "orders.eu.paid"},
		{"orders.us.shipped", "orders.*.created"},
		{"orders", "orders.*.created"},
		{"stock.x", ""},
	} {
		got := ""
		if n := g.Nearest(tt.filter); n != nil {
			got = n.Pattern
		}
		if got != tt.want {
			t.Errorf("Nearest(%s) = %q, want %q", tt.filter, got, tt.want)
		}
	}
	if !slices.Equal(patterns, []string{g.All()[0].Pattern, g.All()[1].Pattern, g.All()[2].Pattern}) {
		t.Error("order was not kept")
	}
}

func TestNameGrants(t *testing.T) {
	list := []Grant{{Pattern: "/shop/a"}, {Pattern: "/shop/web*"}}
	with, without := newNameGrants(list, true), newNameGrants(list, false)
	for _, tt := range []struct {
		name          string
		with, without bool
	}{
		{"/shop/a", true, true},
		{"/shop/ab", false, false},
		{"/shop/web", true, false},
		{"/shop/web2", true, false},
		{"/shop/we", false, false},
		{"/shop/web*", true, true},
		{"", false, false},
	} {
		if got := with.Match(tt.name) != nil; got != tt.with {
			t.Errorf("Match(%q) = %v, want %v", tt.name, got, tt.with)
		}
		if got := without.Match(tt.name) != nil; got != tt.without {
			t.Errorf("exact Match(%q) = %v, want %v", tt.name, got, tt.without)
		}
	}
}
