package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
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
			_, err := readCheckpoints(t.Context(), file, "", nil, ring)
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

// What is given as evidence is a file or a pipe: a device may have no end.
func TestEvidenceIsNoDevice(t *testing.T) {
	_, ring, _ := logKeys(t)
	a := &app{stderr: &bytes.Buffer{}}
	for _, name := range []string{"/dev/zero", t.TempDir()} {
		for read, err := range map[string]error{
			"log":        second(readCheckpoints(t.Context(), name, "", nil, ring)),
			"checkpoint": second(readKeptLog(t.Context(), a, []string{name}, ring)),
			"head":       second(readHeads(t.Context(), []string{name})),
		} {
			if exitCode(err) != exitUsage || !strings.Contains(err.Error(), "neither a file nor a pipe") {
				t.Errorf("%s of %s: %v", read, name, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A pipe is read, without bound of its length; the end of the context ends a read that waits,
// and an open that nobody answers.
func TestEvidenceFromAPipe(t *testing.T) {
	signer, ring, now := logKeys(t)
	k := newKeptTree(t, signer, now.Add(-50*time.Minute), 10)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ended := errors.New("ended")
	for _, tt := range []struct {
		name   string
		writes string
		stays  bool // the writer does not close it
		ends   bool
	}{
		{"whole", k.at(5, 5), false, false},
		{"that goes silent", k.at(5, 5), true, true},
		{"that nobody opens", "", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			closed := make(chan struct{})
			go func() {
				defer close(closed)
				if tt.writes == "" {
					cancel(ended)
					return
				}
				w, err := os.OpenFile(pipe, os.O_WRONLY, 0)
				if err != nil {
					t.Error(err)
					return
				}
				defer w.Close()
				if _, err := w.WriteString(tt.writes); err != nil {
					t.Error(err)
				}
				if tt.stays {
					cancel(ended)
					<-t.Context().Done()
				}
			}()
			run, err := readCheckpoints(ctx, pipe, "", nil, ring)
			switch {
			case !tt.ends && (err != nil || run.newest.Size != 5):
				t.Errorf("got %v", err)
			case tt.ends && (err == nil || ctx.Err() == nil):
				t.Errorf("got %+v, %v", run, err)
			}
			if !tt.stays {
				<-closed
			}
		})
	}
}

// Lines of any number are read, and those that are too long passed over.
func TestBoundedLines(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	for _, tt := range []struct {
		text string
		want []string
	}{
		{"", nil},
		{"a\nb", []string{"a\n", "b"}},
		{"a\n\nb\n", []string{"a\n", "\n", "b\n"}},
		{"a\n" + long + "\nb\n", []string{"a\n", "b\n"}},
		{long, nil},
		{long[:100_000] + "\nb", []string{long[:100_000] + "\n", "b"}},
	} {
		var got []string
		if err := boundedLines(strings.NewReader(tt.text), 150_000, func(line []byte) { got = append(got, string(line)) }); err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("of %.20q: %d lines, %v; want %d", tt.text, len(got), err, len(tt.want))
		}
	}
	stop := errors.New("stop")
	if err := boundedLines(iotest.ErrReader(stop), 10, func([]byte) {}); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}
