package policy

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the .want files")

// TestBadBundles compares every fault of testdata/bad/*.yaml with the .want file beside it.
func TestBadBundles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 15 {
		t.Fatalf("got %d files, err %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(name, func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			b, err := Parse(name+".yaml", src)
			if err == nil || b != nil {
				t.Fatal("accepted")
			}
			want := strings.TrimSuffix(file, ".yaml") + ".want"
			got := err.Error() + "\n"
			if *update {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			wanted, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(wanted) {
				t.Errorf("got:\n%s\nwant:\n%s", got, wanted)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	_, err := Parse("p.yaml", []byte("tenant: shop\nfoo: 1\nbar: 2\n"))
	list := Faults(err)
	if len(list) != 2 || list[0].At != (Position{"p.yaml", 2, 1}) || list[1].At.Line != 3 {
		t.Errorf("got %v", list)
	}
	if Faults(errors.New("x")) != nil || Faults(nil) != nil {
		t.Error("faults out of nothing")
	}
	_, err = Parse("p.yaml", []byte("tenant: shop\nroles: {"+strings.Repeat("'': {},", 150)+"}\n"))
	if !errors.Is(err, ErrTooManyFaults) || len(Faults(err)) != maxFaults {
		t.Errorf("got %d faults", len(Faults(err)))
	}
}
