package tlog

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// A file of checkpoints is read to its end, whatever stands between them: a line that was
// torn by a power cut, in the middle or at the end, costs that one.
func TestScanNotes(t *testing.T) {
	c := testCheckpoint()
	one := string(mustSign(t, &c))
	c.Size++
	two := string(mustSign(t, &c))
	altered := strings.Replace(two, "first 17", "first 1x", 1)
	for _, tt := range []struct {
		name, file string
		sizes      []int64
		torn       int
	}{
		{"empty", "", nil, 0},
		{"whole", one + two, []int64{3, 4}, 0},
		{"torn at the end", one + two[:70], []int64{3}, 1},
		{"without the last line end", one + two[:len(two)-1], []int64{3}, 1},
		{"torn in the middle of a line", one + two[:70] + "\n" + two, []int64{3, 4}, 1},
		{"torn without a line end", one[:70] + two, nil, 1},
		{"torn after a line", one[:strings.Index(one, "\nfirst")+1] + two + one, []int64{4, 3}, 1},
		{"altered", one + altered + two, []int64{3, 4}, 1},
		{"other text", "hello\n\n" + one + "\n\nbye\n" + two, []int64{3, 4}, 2},
		{"a long line", strings.Repeat("x", 5*MaxCheckpointBytes) + "\n" + one, []int64{3}, 1},
		{"an empty line between", one + "\n" + two, []int64{3, 4}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var sizes []int64
			torn, err := ScanNotes(strings.NewReader(tt.file), func(n *Note) error {
				sizes = append(sizes, n.Size)
				return nil
			})
			if err != nil || torn != tt.torn || len(sizes) != len(tt.sizes) {
				t.Fatalf("sizes %v, torn %d, %v; want %v, %d", sizes, torn, err, tt.sizes, tt.torn)
			}
			for i := range sizes {
				if sizes[i] != tt.sizes[i] {
					t.Errorf("sizes %v, want %v", sizes, tt.sizes)
				}
			}
		})
	}
	stop := errors.New("enough")
	if _, err := ScanNotes(strings.NewReader(one+two), func(*Note) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// Where a checkpoint stands is said by lines, whatever is between them.
func TestScanNoteLines(t *testing.T) {
	c := testCheckpoint()
	one := string(mustSign(t, &c))
	long := strings.Repeat("x", 5*MaxCheckpointBytes) + "\n"
	var lines []int
	if _, err := ScanNoteLines(strings.NewReader(one+one+one[:70]+"\n"+one+long+"\n"+one), func(line int, _ *Note) error {
		lines = append(lines, line)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	torn := 1 + strings.Count(one[:70], "\n")
	want := []int{1, 9, 17 + torn, 17 + torn + 8 + 2}
	if !slices.Equal(lines, want) {
		t.Errorf("lines %v, want %v", lines, want)
	}
}

// What a sink holds is read by whoever verifies: no bytes hurt, and a whole checkpoint at
// the end is found behind any of them that ends its line.
func FuzzScanNotes(f *testing.F) {
	c := testCheckpoint()
	one := mustSign(f, &c)
	f.Add([]byte(nil))
	f.Add(one)
	f.Add(one[:90])
	f.Add(append(bytes.Clone(one[:90]), '\n'))
	f.Fuzz(func(t *testing.T, junk []byte) {
		file := append(append(bytes.Clone(junk), '\n'), one...)
		var last *Note
		if _, err := ScanNotes(bytes.NewReader(file), func(n *Note) error {
			last = n
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if last == nil || !bytes.Equal(last.Bytes(), one) {
			t.Fatalf("behind %q the checkpoint is not found", junk)
		}
	})
}
