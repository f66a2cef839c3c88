package durablefile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "ring.json")
	for i, mode := range []fs.FileMode{0o600, 0o644, 0o600} {
		want := fmt.Appendf(nil, "content %d", i)
		if err := Replace(name, want, mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v; want %v", info.Mode().Perm(), err, mode)
		}
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

// TestReplaceFails: what cannot be written leaves the file, and nothing beside it.
func TestReplaceFails(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(name, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(name, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	long := filepath.Join(dir, strings.Repeat("n", 255))
	if err := os.WriteFile(long, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Replace(long, []byte("new"), 0o600); err == nil {
		t.Error("a temporary file with a name of over 255 bytes was made")
	}
	if got, err := os.ReadFile(long); err != nil || string(got) != "old" {
		t.Errorf("%q, %v", got, err)
	}
	if err := Replace(filepath.Join(dir, "none", "x"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("left behind: %v", got)
	}
}

// TestReplaceDoesNotFollow: a link in the place of the file is replaced, and what it
// points to stays as it is.
func TestReplaceDoesNotFollow(t *testing.T) {
	dir := t.TempDir()
	victim, name := filepath.Join(dir, "victim"), filepath.Join(dir, "name")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, name); err != nil {
		t.Fatal(err)
	}
	if err := Replace(name, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(victim); string(got) != "mine" {
		t.Errorf("the file behind the link has %q", got)
	}
}

// TestReplaceAtTheSameTime: of many writers one wins, whole, and a reader meanwhile
// sees no part.
func TestReplaceAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "f")
	content := func(i int) []byte { return bytes.Repeat([]byte{byte('a' + i)}, 64<<10) }
	whole := func(b []byte) bool {
		return len(b) == 64<<10 && bytes.Count(b, b[:1]) == len(b)
	}
	if err := Replace(name, content(0), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 4 {
				if err := Replace(name, content(i), 0o600); err != nil {
					t.Error(err)
				}
				if b, err := os.ReadFile(name); err != nil || !whole(b) {
					t.Errorf("a part: %d bytes, %v", len(b), err)
				}
			}
		})
	}
	wg.Wait()
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

// TestSweep: what a killed writer left goes when it is old; nothing else does.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "node.seed")
	old := time.Now().Add(-2 * abandoned)
	for n, at := range map[string]time.Time{
		".node.seed.123.tmp": old, ".node.seed.9.tmp": time.Now(), ".node.seed.x1.tmp": old, ".node.seed..tmp": old,
		".other.seed.123.tmp": old, "node.seed": old, "node.seed.123.tmp": old,
	} {
		file := filepath.Join(dir, n)
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chtimes(file, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := sweep(name); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(names(t, dir), " ")
	if want := ".node.seed..tmp .node.seed.9.tmp .node.seed.x1.tmp .other.seed.123.tmp node.seed node.seed.123.tmp"; got != want {
		t.Errorf("left: %s\nwant: %s", got, want)
	}
	// The first call of a process does it, for that file.
	other := filepath.Join(dir, "other.seed")
	if err := Replace(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".other.seed.123.tmp")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a killed process left of %s is there: %v", other, err)
	}
	if err := sweep(filepath.Join(dir, "none", "f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
}
