package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What is wrong with a checkpoint that was kept is said, and nothing that is advised writes
// over it: it may be the only evidence.
func TestDamagedCheckpointIsNotToBeOverwritten(t *testing.T) {
	signer, ring, now := logKeys(t)
	k := newKeptTree(t, signer, now.Add(-50*time.Minute), 10)
	good := k.at(5, 5)
	for _, tt := range []struct{ name, text, says string }{
		{"windows", strings.ReplaceAll(good, "\n", "\r\n"), "end as those of Windows"},
		{"byte order mark", "\ufeff" + good, "byte order mark"},
		{"UTF-16", "\xff\xfes\x00i\x00", "UTF-16"},
		{"without its last line end", good[:len(good)-1], "cut off"},
		{"cut off", good[:100], "cut off"},
		{"another version", strings.ReplaceAll(good, "signet/log/v1/", "signet/log/v2/"), "its version is v2"},
		{"JSON", `{"checkpoint": "` + strings.ReplaceAll(good, "\n", "\\n") + `"}`, "the JSON of"},
		{"altered", strings.Replace(good, "first 1", "first  1", 1), "altered"},
		{"empty", "", "it is empty"},
		{"something else", "tenants: {}\n", "holds no checkpoints"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "a checkpoint")
			if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := readCheckpoints(file, "", nil, ring)
			var u *usageError
			if !errors.As(err, &u) || !strings.Contains(u.msg, tt.says) {
				t.Fatalf("got %v, want %q", err, tt.says)
			}
			if u.fix == "" || strings.Contains(strings.ReplaceAll(u.fix, "> COPY", ""), "> ") {
				t.Errorf("fix %q", u.fix)
			}
		})
	}
}
