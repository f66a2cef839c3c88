package guardmatrix

import (
	_ "embed"
	"strings"
)

//go:embed known.txt
var knownText string

// Kinds of what is in known.txt.
const (
	guarded = "guarded"
	nobody  = "nobody"
)

// known is known.txt, by literal.
var known = func() map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(knownText) {
		if kind, literal, ok := strings.Cut(strings.TrimSpace(line), " "); ok && kind != "#" {
			out[strings.TrimSpace(literal)] = kind
		}
	}
	return out
}()
