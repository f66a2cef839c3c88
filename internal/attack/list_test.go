package attack

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestListIsWhole: at least 40 attacks, numbered without a gap, each with all that a reader
// of a report needs.
func TestListIsWhole(t *testing.T) {
	all := List()
	if len(all) < 40 {
		t.Errorf("%d attacks, want at least 40", len(all))
	}
	names := map[string]bool{}
	for i, a := range all {
		if a.Number != i+1 {
			t.Errorf("attack %d stands at %d", a.Number, i+1)
		}
		if a.Name == "" || a.Control == "" || a.Row == "" || a.Does == "" || a.run == nil || names[a.Name] {
			t.Errorf("attack %d %q lacks something, or its name is another's", a.Number, a.Name)
		}
		names[a.Name] = true
	}
	if _, err := Pick([]int{1, len(all) + 1}); err == nil {
		t.Error("an attack was picked that is not there")
	}
	if some, err := Pick([]int{7, 2, 7}); err != nil || len(some) != 2 || some[0].Number != 2 {
		t.Errorf("picked %v, %v", some, err)
	}
}

var (
	heading = regexp.MustCompile(`^## (\d+)\.`)
	numbers = regexp.MustCompile("; attacks? ([0-9, ]+)$")
)

// TestThreatModelNamesEveryAttack: each attack stands in the row of the threat model that
// it names, and in no other, and no row names an attack that is not there.
func TestThreatModelNamesEveryAttack(t *testing.T) {
	text, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	where := map[int][]string{}
	section, rowed := "", false
	for line := range strings.SplitSeq(string(text), "\n") {
		if m := heading.FindStringSubmatch(line); m != nil {
			section = m[1]
		}
		cells := strings.Split(line, "|")
		if len(cells) < 6 {
			continue
		}
		if strings.Contains(line, "| control |") {
			rowed = strings.TrimSpace(cells[1]) == "row"
			continue
		}
		row := section
		if id := strings.TrimSpace(cells[1]); rowed && id != "–" {
			row += "/" + id
		}
		m := numbers.FindStringSubmatch(strings.TrimSpace(cells[len(cells)-2]))
		if m == nil {
			continue
		}
		for word := range strings.SplitSeq(m[1], ",") {
			n, err := strconv.Atoi(strings.TrimSpace(word))
			if err != nil {
				t.Errorf("the row %.80s has the attack %q", line, word)
			}
			where[n] = append(where[n], row)
		}
	}
	for _, a := range List() {
		if !slices.Equal(where[a.Number], []string{a.Row}) {
			t.Errorf("attack %d %s says that it is of %q, the threat model has it in %q", a.Number, a.Name, a.Row, where[a.Number])
		}
		delete(where, a.Number)
	}
	for n, rows := range where {
		t.Errorf("the threat model has an attack %d, in %v: there is none", n, rows)
	}
}
