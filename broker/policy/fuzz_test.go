package policy

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzPolicy: no input panics; what is accepted compiles, keeps its digest, and
// its faults always name the file.
func FuzzPolicy(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/good/*.y*ml", "testdata/limits/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		b, err := Parse("fuzz.yaml", src)
		if err != nil {
			for _, fault := range Faults(err) {
				if fault.At.File == "" || fault.Msg == "" {
					t.Errorf("fault without place or text: %+v", fault)
				}
			}
			if b != nil {
				t.Error("a bundle beside an error")
			}
			return
		}
		s, err := Compile(b)
		if err != nil {
			t.Fatalf("valid but does not compile: %v", err)
		}
		if s.Digest() != b.Digest() || len(s.Digest()) != 64 {
			t.Errorf("digest %q", s.Digest())
		}
		for _, tenant := range s.Tenants() {
			if tenant.Name == "" {
				t.Error("tenant without name")
			}
			for i := range tenant.Streams {
				for _, subject := range tenant.Streams[i].Subjects {
					if c := subject[0]; c == '$' || c == '_' || c == '*' || c == '>' {
						t.Errorf("stream captures %s", subject)
					}
				}
			}
			for _, p := range tenant.Principals() {
				for _, pattern := range append(p.PublishPatterns(), p.SubscribePatterns()...) {
					if c := pattern[0]; c == '$' || c == '_' || c == '*' || c == '>' {
						t.Errorf("%s reaches %s", p.FullName(), pattern)
					}
				}
			}
		}
	})
}
