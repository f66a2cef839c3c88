package strictyaml

import (
	"strings"
	"testing"
	"time"
)

type inner struct {
	Size int    `yaml:"size"`
	Name string `yaml:"name"`
}

type doc struct {
	Listen string           `yaml:"listen"`
	Wait   time.Duration    `yaml:"wait"`
	On     bool             `yaml:"on"`
	List   []string         `yaml:"list"`
	Inner  inner            `yaml:"inner"`
	Many   map[string]inner `yaml:"many"`
}

func TestDecode(t *testing.T) {
	var d doc
	d.Inner.Name = "kept"
	err := Decode("a.yaml", []byte("listen: 'x:1'\nwait: 30s\non: true\nlist: [a, b]\ninner: {size: 3}\nmany:\n  one: {name: n}\n"), &d)
	if err != nil {
		t.Fatal(err)
	}
	if d.Listen != "x:1" || d.Wait != 30*time.Second || !d.On || len(d.List) != 2 || d.Inner.Size != 3 || d.Inner.Name != "kept" || d.Many["one"].Name != "n" {
		t.Fatalf("got %+v", d)
	}
}

func TestEveryFaultAtOnce(t *testing.T) {
	src := "listne: x\nwait: soon\non: 1\non: true\nlist: a\ninner:\n  sise: 3\n  size: big\nmany: &a {}\n"
	err := Decode("b.yaml", []byte(src), &doc{})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`b.yaml:1:1: unknown key "listne"`, "b.yaml:2:7: wait: want a duration", "b.yaml:3:5: on: want true or false",
		`b.yaml:4:1: document: key "on" stands twice`, "b.yaml:5:7: list: want a list", `b.yaml:7:3: unknown key "sise" in inner`,
		"b.yaml:8:9: inner.size: want a whole number", "many: anchors",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("missing %q in:\n%v", want, err)
		}
	}
}

func TestSyntaxErrorAndEmpty(t *testing.T) {
	if err := Decode("c.yaml", []byte("a: [1\n"), &doc{}); err == nil {
		t.Error("broken YAML accepted")
	}
	if err := Decode("d.yaml", nil, &doc{}); err != nil {
		t.Error(err)
	}
	if err := Decode("e.yaml", []byte("on: true\n---\non: false\n"), &doc{}); err == nil {
		t.Error("two documents accepted")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("listen: x\ninner: {size: 3}\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("? a\n: b\n"))
	f.Fuzz(func(_ *testing.T, src []byte) {
		var d doc
		_ = Decode("f.yaml", src, &d) // must not panic
	})
}
