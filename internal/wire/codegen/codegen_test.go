package codegen

import (
	"strings"
	"testing"
)

const row = `{"code": 40100, "name": "A", "class": "Malformed", "status": 400, "title": "t", "fix": "f"}`

// TestFaults: a registry that breaks a rule is not rendered, and all its faults
// are told.
func TestFaults(t *testing.T) {
	tests := []struct {
		name, registry, want string
	}{
		{"good", "[" + row + "]", ""},
		{"no JSON", "[", "codegen: "},
		{"unknown key", `[{"codee": 1}]`, "unknown field"},
		{"code below", "[" + strings.Replace(row, "40100", "39999", 1) + "]", "outside 40000-40999"},
		{"code above", "[" + strings.Replace(row, "40100", "41000", 1) + "]", "outside 40000-40999"},
		{"code twice", "[" + row + "," + strings.Replace(row, `"A"`, `"B"`, 1) + "]", "not above"},
		{"name twice", "[" + row + "," + strings.Replace(row, "40100", "40101", 1) + "]", "used twice"},
		{"class", "[" + strings.Replace(row, "Malformed", "Odd", 1) + "]", "unknown class"},
		{"status", "[" + strings.Replace(row, "400,", "200,", 1) + "]", "no HTTP error"},
		{"no fix", "[" + strings.Replace(row, `"f"`, `""`, 1) + "]", "title or fix"},
		{"bar in the title", "[" + strings.Replace(row, `"t"`, `"a|b"`, 1) + "]", "title or fix"},
		{"two faults", "[" + strings.NewReplacer("400,", "200,", "Malformed", "Odd").Replace(row) + "]", "unknown class \"Odd\"\ncodegen: 40100 A: status 200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, goErr := Go([]byte(tt.registry))
			_, tableErr := Table([]byte(tt.registry))
			for _, err := range []error{goErr, tableErr} {
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error = %v, want %q", err, tt.want)
				}
			}
		})
	}
}

func TestDocument(t *testing.T) {
	got, err := Document([]byte("head\n"+TableBegin+"old\n"+TableEnd+"tail\n"), []byte("["+row+"]"))
	want := "head\n" + TableBegin + "| code | name | class | status | title | what to do |\n|---|---|---|---|---|---|\n| 40100 | A | malformed | 400 | t | f |\n" + TableEnd + "tail\n"
	if err != nil || string(got) != want {
		t.Errorf("Document = %q, %v\nwant %q", got, err, want)
	}
	for _, doc := range []string{"", TableBegin, TableEnd, TableEnd + TableBegin} {
		if _, err := Document([]byte(doc), []byte("["+row+"]")); err == nil {
			t.Errorf("Document(%q) has no error", doc)
		}
	}
}
