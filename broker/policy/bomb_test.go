package policy

import (
	"strings"
	"testing"
	"time"
)

// TestBombs: files that are small and expensive are refused, or read, in bounded
// time, and never exhaust the stack.
func TestBombs(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, MaxFileBytes/len(s)) }
	var indent strings.Builder
	for i := range 1400 {
		indent.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	var sequences strings.Builder
	for i := range 1400 {
		sequences.WriteString(strings.Repeat(" ", i) + "-\n")
	}
	for _, tt := range []struct{ name, src string }{
		{"too large", strings.Repeat("#", MaxFileBytes+1)},
		{"open brackets", fill("[")},
		{"open braces", fill("{")},
		{"brackets", fill("[]")},
		{"nested maps in flow", fill("{a: ")},
		{"sequence entries", fill("- ")},
		{"explicit keys", fill("? ")},
		{"colons", fill(": ")},
		{"commas", "[" + strings.Repeat(",", MaxFileBytes-1)},
		{"deep indentation", indent.String()},
		{"deep sequences", sequences.String()},
		{"anchors", fill("a: &a b\n")},
		{"aliases", "a: &a [x]\n" + strings.Repeat("- *a\n", 200_000)},
		{"tags", fill("!!str ")},
		{"documents", fill("---\n")},
		{"directives", fill("%YAML 1.2\n")},
		{"open quote", fill("\"")},
		{"escapes", "\"" + strings.Repeat("\\u0041", 170_000)},
		{"literals", fill("|\n")},
		{"literal lines", "a: |\n" + strings.Repeat(" x\n", 300_000)},
		{"plain lines", strings.Repeat("x\n", 500_000)},
		{"indented plain lines", "a: b\n" + strings.Repeat(" x\n", 300_000)},
		{"same key", fill("a: 1\n")},
		{"comments", fill("#\n")},
		{"carriage returns", fill("\r")},
		{"spaces", fill(" ")},
		{"tabs", fill("\t")},
		{"one long word", fill("x")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			b, err := Parse("bomb.yaml", []byte(tt.src))
			if err == nil || b != nil {
				t.Errorf("accepted")
			}
			if d := time.Since(start); d > time.Minute { // 1 s alone; the machine may be busy
				t.Errorf("took %v", d)
			} else {
				t.Logf("%v: %.100s", d, err)
			}
		})
	}
}
