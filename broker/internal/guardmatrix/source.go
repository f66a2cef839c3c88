package guardmatrix

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Source is what the server's own source says.
type Source struct {
	// Literals are all its string literals that are control subjects or begin one, with *
	// for every verb of a format.
	Literals []string
	// Members are the JSON members of the request bodies, by struct.
	Members map[string][]Member
}

// Member of a request body: its name and Go type.
type Member struct{ Name, Type string }

// controlSubject is what begins a control subject: a dollar sign and capitals, or _R_ and
// _GR_.
var controlSubject = regexp.MustCompile(`^(\$[A-Z][A-Z_a-z0-9]*|_G?R_)(\.|$)`)

var formatVerb = regexp.MustCompile(`%[sd]`)

// ReadSource reads the source of the nats-server that this build uses.
func ReadSource() (*Source, error) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/nats-io/nats-server/v2/server").Output()
	if err != nil {
		return nil, fmt.Errorf("guardmatrix: find the server's source: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "*.go"))
	if err != nil {
		return nil, err
	}
	s := &Source{Members: map[string][]Member{}}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		ast.Inspect(f, s.take)
	}
	slices.Sort(s.Literals)
	s.Literals = slices.Compact(s.Literals)
	return s, nil
}

func (s *Source) take(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(n.Value)
		if n.Kind == token.STRING && err == nil && controlSubject.MatchString(text) && !strings.Contains(text, " ") {
			s.Literals = append(s.Literals, formatVerb.ReplaceAllString(text, "*"))
		}
	case *ast.TypeSpec:
		if t, ok := n.Type.(*ast.StructType); ok && slices.Contains(schemas(), n.Name.Name) {
			s.Members[n.Name.Name] = members(t)
		}
	}
	return true
}

func schemas() (out []string) {
	for i := range Controls {
		out = append(out, Controls[i].Schema...)
	}
	return out
}

func members(t *ast.StructType) (out []Member) {
	for _, f := range t.Fields.List {
		if f.Tag == nil {
			continue // embedded: listed under its own name
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
		if name != "" && name != "-" {
			out = append(out, Member{name, typeName(f.Type)})
		}
	}
	return out
}

func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return typeName(e.X) + "." + e.Sel.Name
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.ArrayType:
		return "[]" + typeName(e.Elt)
	case *ast.MapType:
		return "map"
	}
	return "?"
}
