package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The walls of the house; the aims are half of them.
const (
	maxProdLines   = 600
	maxTestLines   = 1000
	maxFuncLines   = 100
	maxMethods     = 25
	maxStructField = 20
)

type goFile struct {
	path string
	test bool
	gen  bool
	fset *token.FileSet
	ast  *ast.File
	src  []byte
}

func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); strings.HasPrefix(name, ".") && name != ".." && path != "../.." || name == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, goFile{
			path: strings.TrimPrefix(path, "../../"), test: strings.HasSuffix(path, "_test.go"),
			gen: ast.IsGenerated(f), fset: fset, ast: f, src: src,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("found only %d Go files: the walk is broken", len(files))
	}
	return files
}

func TestSizes(t *testing.T) {
	methods := map[string]int{}
	for _, f := range goFiles(t) {
		if f.gen {
			continue
		}
		most := maxProdLines
		if f.test {
			most = maxTestLines
		}
		if n := strings.Count(string(f.src), "\n"); n > most {
			t.Errorf("%s has %d lines, the wall is %d: which two things live in one room?", f.path, n, most)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				checkFunc(t, f, n)
				if recv := receiver(n); recv != "" && !f.test {
					methods[filepath.Dir(f.path)+"."+recv]++
				}
			case *ast.TypeSpec:
				if st, ok := n.Type.(*ast.StructType); ok && !f.test && st.Fields.NumFields() > maxStructField {
					t.Errorf("%s: struct %s has %d fields, the wall is %d", f.path, n.Name.Name, st.Fields.NumFields(), maxStructField)
				}
			}
			return true
		})
	}
	for name, n := range methods {
		if n > maxMethods {
			t.Errorf("%s has %d methods, the wall is %d", name, n, maxMethods)
		}
	}
}

func checkFunc(t *testing.T, f goFile, fn *ast.FuncDecl) {
	if fn.Body == nil || f.test {
		return
	}
	if n := f.fset.Position(fn.End()).Line - f.fset.Position(fn.Pos()).Line; n > maxFuncLines {
		t.Errorf("%s: func %s has %d lines, the wall is %d", f.path, fn.Name.Name, n, maxFuncLines)
	}
}

func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

func TestPackageComments(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range goFiles(t) {
		if f.test || f.ast.Name.Name == "main" && strings.Contains(string(f.src), "//go:build ignore") {
			continue
		}
		dir := filepath.Dir(f.path)
		has := f.ast.Doc != nil && len(strings.Fields(f.ast.Doc.Text())) >= 8
		documented[dir] = documented[dir] || has
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no package comment that says what it is for", dir)
		}
	}
}

var forbiddenName = regexp.MustCompile(`(?i)^(utils?|common|managers?|helpers?|misc)$|Manager$|Helper$`)

func TestForbiddenNames(t *testing.T) {
	for _, f := range goFiles(t) {
		if forbiddenName.MatchString(f.ast.Name.Name) || forbiddenName.MatchString(strings.TrimSuffix(filepath.Base(f.path), ".go")) {
			t.Errorf("%s: the name says nothing: name it after what it does", f.path)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if ts, ok := n.(*ast.TypeSpec); ok && forbiddenName.MatchString(ts.Name.Name) {
				t.Errorf("%s: type %s: the name says nothing", f.path, ts.Name.Name)
			}
			return true
		})
	}
}

var (
	sleeps = regexp.MustCompile(`\btime\.Sleep\(`)
	skips  = regexp.MustCompile(`\bt\.Skip(f|Now)?\(|\bb\.Skip(f|Now)?\(`)
)

func TestTestsNeitherSleepNorSkip(t *testing.T) {
	for _, f := range goFiles(t) {
		if !f.test || strings.HasPrefix(f.path, "internal/archtest/") {
			continue
		}
		if sleeps.Match(f.src) {
			t.Errorf("%s sleeps: wait for the thing itself", f.path)
		}
		if skips.Match(f.src) {
			t.Errorf("%s skips: a skip hides a missing part", f.path)
		}
	}
}

// Plugins and dynamic discovery are ways in that nobody audits.
func TestForbiddenImports(t *testing.T) {
	for _, f := range goFiles(t) {
		for _, imp := range f.ast.Imports {
			switch path := strings.Trim(imp.Path.Value, `"`); path {
			case "plugin", "io/ioutil", "math/rand":
				t.Errorf("%s imports %s", f.path, path)
			case "net/http/pprof", "expvar":
				t.Errorf("%s imports %s: it registers handlers behind our back", f.path, path)
			}
		}
	}
}
