package archtest

import (
	"flag"
	"fmt"
	"go/ast"
	"go/doc"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

// The documents are part of the build: what they name must exist, and the tables
// that can be had from the code are compared with it.

var update = flag.Bool("update", false, "write the import table of docs/ARCHITECTURE.md anew")

const architecture = "docs/ARCHITECTURE.md"

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// between returns the lines between two marker comments.
func between(t *testing.T, text, name string) (before, inside, after string) {
	t.Helper()
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	before, rest, ok := strings.Cut(text, begin)
	inside, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no section %q", architecture, name)
	}
	return before + begin, inside, end + after
}

func TestImportTableDocument(t *testing.T) {
	text := readDoc(t, architecture)
	before, got, after := between(t, text, "import table")
	want := importTable(t)
	if *update {
		if err := os.WriteFile(filepath.Join("../..", architecture), []byte(before+want+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	// The words of a package comment may change without the table; its rules may not.
	have := map[string]bool{}
	for line := range strings.Lines(got) {
		have[rules(line)] = true
	}
	rows := 0
	for line := range strings.Lines(want) {
		rows++
		if !have[rules(line)] {
			t.Errorf("missing in %s: %s", architecture, line)
		}
	}
	if rows != strings.Count(got, "\n") || t.Failed() {
		t.Errorf("the import table differs from imports_test.go: go test ./internal/archtest -run TestImportTableDocument -update")
	}
}

// rules is a row without its second column, which says what the package is.
func rules(row string) string {
	cells := strings.Split(strings.ReplaceAll(row, `\|`, ""), "|")
	return strings.Join(slices.Delete(cells, min(2, len(cells)), min(3, len(cells))), "|")
}

// importTable renders the import table with the first sentence of each package.
func importTable(t *testing.T) string {
	synopsis := map[string]string{}
	for _, f := range goFiles(t) {
		// A generator that is run by hand (package main) does not speak for its folder.
		if dir := filepath.Dir(f.path); f.ast.Doc != nil && !f.test && (f.ast.Name.Name != "main" || within(dir, "cmd")) {
			text := new(doc.Package).Synopsis(f.ast.Doc.Text())
			synopsis[dir] = strings.ReplaceAll(strings.TrimPrefix(text, "Package "+f.ast.Name.Name+" "), "|", `\|`)
		}
	}
	names := make([]string, 0, len(allowed))
	for name := range allowed {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	b.WriteString("| package | what it is | may import of ours | may import of others |\n|---|---|---|---|\n")
	for _, name := range names {
		var ours, others []string
		for _, imp := range allowed[name] {
			if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
				others = append(others, "`"+imp+"`")
			} else {
				ours = append(ours, "`"+imp+"`")
			}
		}
		if slices.Equal(allowed[name], []string{"*"}) {
			ours, others = []string{"anything"}, []string{"anything"}
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, synopsis[name], orNone(ours), orNone(others))
	}
	return b.String()
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "–"
	}
	return strings.Join(list, ", ")
}

// ofTheProduct reports whether the tables of the architecture cover a file.
func ofTheProduct(f goFile) bool {
	for _, other := range []string{"bench", "cmd", "examples", "internal", "broker/brokertest"} {
		if within(f.path, other) && !within(f.path, "internal/wire") && !within(f.path, "internal/cloudevent") {
			return false
		}
	}
	return !f.test && !f.gen && f.ast.Name.Name != "main"
}

// TestGoroutineTable: whoever starts a goroutine says so in the table.
func TestGoroutineTable(t *testing.T) {
	_, table, _ := between(t, readDoc(t, architecture), "goroutines")
	starts := map[string]bool{}
	for _, f := range goFiles(t) {
		if !ofTheProduct(f) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				starts[f.path] = true
			case *ast.CallExpr:
				if s, ok := n.Fun.(*ast.SelectorExpr); ok && s.Sel.Name == "Go" {
					starts[f.path] = true
				}
			}
			return true
		})
	}
	compareWithTable(t, "goroutine", starts, table)
}

// TestLockTable: every mutex has a row.
func TestLockTable(t *testing.T) {
	_, table, _ := between(t, readDoc(t, architecture), "locks")
	locks := map[string]bool{}
	for _, f := range goFiles(t) {
		if !ofTheProduct(f) {
			continue
		}
		for _, decl := range f.ast.Decls {
			for owner, names := range mutexes(decl) {
				for _, name := range names {
					locks[filepath.Dir(f.path)+" "+owner+"."+name] = true
				}
			}
		}
	}
	compareWithTable(t, "lock", locks, table)
}

// mutexes returns the names of mutexes by the type or function that has them.
func mutexes(decl ast.Decl) map[string][]string {
	out := map[string][]string{}
	collect := func(owner string, root ast.Node) {
		ast.Inspect(root, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				if isMutex(n.Type) {
					for _, name := range n.Names {
						out[owner] = append(out[owner], name.Name)
					}
				}
			case *ast.ValueSpec:
				if isMutex(n.Type) {
					for _, name := range n.Names {
						out[owner] = append(out[owner], name.Name)
					}
				}
			}
			return true
		})
	}
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Body != nil {
			collect(d.Name.Name, d.Body)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				collect(s.Name.Name, s.Type)
			case *ast.ValueSpec:
				collect("package", s)
			}
		}
	}
	return out
}

func isMutex(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "sync" && (s.Sel.Name == "Mutex" || s.Sel.Name == "RWMutex")
}

// compareWithTable compares what the code has with the first column of a table.
func compareWithTable(t *testing.T, what string, have map[string]bool, table string) {
	t.Helper()
	listed := map[string]bool{}
	for _, line := range strings.Split(table, "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, name := range code.FindAllStringSubmatch(cells[1], -1) {
			listed[name[1]] = true
		}
	}
	for name := range have {
		if !listed[name] {
			t.Errorf("the %s table of %s has no row for %s", what, architecture, name)
		}
	}
	for name := range listed {
		if !have[name] {
			t.Errorf("the %s table of %s names %s, which the code does not have", what, architecture, name)
		}
	}
	t.Logf("compared %d rows", len(have))
}

var (
	code     = regexp.MustCompile("`([^`]+)`")
	testName = regexp.MustCompile(`^(?:([a-z0-9/]+)\.)?((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]*)(?:/(.+))?$`)
	link     = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	makeCall = regexp.MustCompile(`\bmake ([a-z-]+)\b`)
)

// documents are the Markdown files of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md", "bench/*.md", "examples/*/*.md"} {
		found, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			out = append(out, strings.TrimPrefix(filepath.ToSlash(f), "../../"))
		}
	}
	if len(out) < 10 {
		t.Fatalf("found only %v", out)
	}
	return out
}

// TestNamedTestsExist: a control without its test is a wish. A name in code style
// is `TestX`, `folder.TestX` or either with `/subtest`, whose name must stand
// in a test file of the package.
func TestNamedTestsExist(t *testing.T) {
	tests, source := map[string]bool{}, map[string]string{}
	for _, f := range goFiles(t) {
		if !f.test {
			continue
		}
		dir := filepath.Dir(f.path)
		source[dir] += string(f.src)
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				tests[dir+"."+fn.Name.Name], tests[fn.Name.Name] = true, true
			}
		}
	}
	named := 0
	for _, name := range documents(t) {
		for _, c := range code.FindAllStringSubmatch(readDoc(t, name), -1) {
			m := testName.FindStringSubmatch(c[1])
			if m == nil {
				continue
			}
			named++
			dir, fn, sub := m[1], m[2], m[3]
			full := fn
			if dir != "" {
				full = dir + "." + fn
			}
			if !tests[full] {
				t.Errorf("%s names the test %s, which does not exist", name, full)
			} else if sub != "" && !strings.Contains(source[dir], `"`+sub+`"`) {
				t.Errorf("%s names the subtest %q of %s, which does not exist", name, sub, full)
			}
		}
	}
	if named < 40 {
		t.Errorf("found only %d names of tests in the documents", named)
	}
	t.Logf("%d names of tests", named)
}

// TestThreatRowsHaveTests: each row of the threat tables names a test, or says that
// there is none.
func TestThreatRowsHaveTests(t *testing.T) {
	rows := 0
	for _, line := range strings.Split(readDoc(t, "docs/threat-model.md"), "\n") {
		cells := strings.Split(line, "|")
		if len(cells) < 6 || strings.Contains(line, "---") || strings.Contains(line, "| control |") {
			continue
		}
		rows++
		last := cells[len(cells)-2]
		if !strings.Contains(last, "`") && !strings.Contains(last, "none yet") {
			t.Errorf("no test in the row %s", line)
		}
	}
	if rows < 30 {
		t.Errorf("found only %d rows", rows)
	}
}

var rowName = regexp.MustCompile(`^Row([0-9]{2})(?: |[A-Z])`)

// TestBadInputRowsHaveTests: each row of the list of bad inputs that this release
// covers has a test TestRowNN... or a subtest "RowNN ...". Section 9 of the threat
// model has the others.
func TestBadInputRowsHaveTests(t *testing.T) {
	have := map[string]bool{}
	for _, f := range goFiles(t) {
		if !f.test {
			continue
		}
		for _, decl := range f.ast.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				if m := rowName.FindStringSubmatch(strings.TrimPrefix(fn.Name.Name, "Test")); m != nil {
					have[m[1]] = true
				}
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if m := rowName.FindStringSubmatch(strings.Trim(lit.Value, "\"`")); m != nil {
					have[m[1]] = true
				}
			}
			return true
		})
	}
	for row := 1; row <= 40; row++ {
		if row == 20 || row == 21 || row == 34 { // section 10 of the threat model
			continue
		}
		if name := fmt.Sprintf("%02d", row); !have[name] {
			t.Errorf("row %s of the list of bad inputs has no test TestRow%s... and no subtest \"Row%s ...\"", name, name, name)
		}
	}
}

func TestFuzzTargetsAreListed(t *testing.T) {
	text := readDoc(t, "TESTING.md")
	for _, f := range goFiles(t) {
		for _, decl := range f.ast.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || !f.test || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			if name := filepath.Dir(f.path) + "." + fn.Name.Name; !strings.Contains(text, "`"+name+"`") {
				t.Errorf("TESTING.md does not list %s", name)
			}
		}
	}
}

func TestLinksResolve(t *testing.T) {
	for _, name := range documents(t) {
		for _, l := range link.FindAllStringSubmatch(readDoc(t, name), -1) {
			if strings.Contains(l[1], ":") {
				continue
			}
			if _, err := os.Stat(filepath.Join("../..", filepath.Dir(name), l[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, l[1], err)
			}
		}
	}
}

func TestMakeTargetsExist(t *testing.T) {
	makefile := "\n" + readDoc(t, "Makefile")
	for _, name := range documents(t) {
		for _, c := range code.FindAllStringSubmatch(readDoc(t, name), -1) {
			for _, m := range makeCall.FindAllStringSubmatch(c[1], -1) {
				if !strings.Contains(makefile, "\n"+m[1]+":") {
					t.Errorf("%s says make %s, which is no target", name, m[1])
				}
			}
		}
	}
}

var metricName = regexp.MustCompile(`"(signet_[a-z_]+)"`)

func TestMetricsAreListed(t *testing.T) {
	text, found := readDoc(t, "docs/operations.md"), 0
	for _, f := range goFiles(t) {
		if f.test || filepath.Dir(f.path) != "broker" {
			continue
		}
		for _, m := range metricName.FindAllStringSubmatch(string(f.src), -1) {
			found++
			if !strings.Contains(text, "| `"+m[1]+"` |") {
				t.Errorf("docs/operations.md does not list the metric %s", m[1])
			}
		}
	}
	if listed := strings.Count(text, "\n| `signet_"); listed != found || found == 0 {
		t.Errorf("docs/operations.md lists %d metrics, the code has %d", listed, found)
	}
}
