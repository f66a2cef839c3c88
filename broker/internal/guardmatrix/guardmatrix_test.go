package guardmatrix

import (
	"slices"
	"strings"
	"testing"
)

// TestEveryControlSubjectIsKnown compares known.txt with the source of the server: what a
// new version brings, somebody must put into the matrix first.
func TestEveryControlSubjectIsKnown(t *testing.T) {
	src, err := ReadSource()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range src.Literals {
		if known[l] == "" {
			t.Errorf("nats-server has the control subject %q, which known.txt does not: decide who may use it, and put it there", l)
		}
	}
	kinds := map[string]int{}
	for l, kind := range known {
		kinds[kind]++
		if !slices.Contains(src.Literals, l) {
			t.Errorf("known.txt has %q, which nats-server does not have any more", l)
		}
		if !slices.Contains([]string{guarded, nobody, "part", "name", "bucket", "routed"}, kind) {
			t.Errorf("%s has the unknown kind %q", l, kind)
		}
		if kind == guarded && !slices.ContainsFunc(Controls, func(c Control) bool { return c.Rule != Nobody && sameShape(c.Subject, l) }) {
			t.Errorf("%q is guarded, and no control of the matrix has its shape", l)
		}
	}
	for i := range Controls {
		for _, name := range Controls[i].Schema {
			if _, ok := src.Members[name]; !ok {
				t.Errorf("nats-server has no struct %s any more, which %s decodes", name, Controls[i].Subject)
			}
		}
	}
	t.Logf("%d control subjects in the source of the server: %v", len(src.Literals), kinds)
}

// sameShape: a template of a control is of the form of a literal of the server. An ack has
// its numbers behind.
func sameShape(subject, literal string) bool {
	x, y := strings.Split(subject, "."), strings.Split(literal, ".")
	if y[len(y)-1] == ">" {
		y[len(y)-1] = "*"
	}
	if strings.HasPrefix(subject, "$JS.ACK.") && len(x) > len(y) {
		x = x[:len(x)-5-strings.Count(subject, ".more.tokens")*2]
	}
	if len(x) != len(y) {
		return false
	}
	for i := range x {
		if x[i] != y[i] && y[i] != "*" {
			return false
		}
	}
	return true
}
