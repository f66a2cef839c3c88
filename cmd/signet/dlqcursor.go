package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/durablefile"
)

// cursorFormat is the first member of a cursor file.
const cursorFormat = "signet-dlq-cursor/1"

// maxCursor bounds a cursor file in bytes.
const maxCursor = 4 << 10

// letterCursor is how far a redrive has come, in a file: it can be killed at any moment and
// goes on from there. It belongs to the dead letters of one cluster and to one filter.
type letterCursor struct {
	Format   string `json:"format"`
	DLQ      string `json:"dlq"`   // as the broker names them
	Query    string `json:"query"` // digest of filter and target
	Cursor   uint64 `json:"cursor"`
	UpTo     uint64 `json:"upTo"`
	Redriven int    `json:"redriven"`
	Left     int    `json:"left"`
	Done     bool   `json:"done"`

	file string // empty: it is not kept
}

// openCursor reads a cursor file; one that is not there is a cursor at the start.
func openCursor(file string, q *admin.RedriveRequest) (*letterCursor, error) {
	key, err := json.Marshal(struct {
		admin.DLQFilter
		To string
	}{q.DLQFilter, q.To})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(key)
	fresh := &letterCursor{Format: cursorFormat, Query: hex.EncodeToString(sum[:8]), file: file}
	if file == "" {
		return fresh, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, keepable(file)
	}
	if err != nil {
		return nil, err
	}
	c := &letterCursor{file: file}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	switch err := d.Decode(c); {
	case err != nil || c.Format != cursorFormat || len(text) > maxCursor || c.Cursor > c.UpTo || c.Redriven < 0 || c.Left < 0:
		return nil, &usageError{msg: fmt.Sprintf("--cursor: %s is no cursor of signet dlq redrive", file), fix: "name a file that is not there, to begin at the first letter"}
	case c.Query != fresh.Query:
		return nil, &usageError{msg: fmt.Sprintf("--cursor: %s is of another filter or target", file), fix: "repeat the flags of the run that began it (a --since of a span is another time each run), or name another file"}
	}
	return c, nil
}

// keepable says before a letter is redriven whether there will be a cursor.
func keepable(file string) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".signet-cursor-*")
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	if err != nil {
		return &usageError{msg: fmt.Sprintf("--cursor: no file can be made in %s: %v", filepath.Dir(file), err), fix: "name a file in a folder that is there and may be written"}
	}
	return nil
}

// take notes what a page has done, on disk.
func (c *letterCursor) take(page *admin.RedrivePage) error {
	c.DLQ, c.Cursor, c.UpTo = page.DLQ, page.Cursor, page.UpTo
	c.Done = !page.More && page.Stopped == ""
	if c.file == "" {
		return nil
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return durablefile.Replace(c.file, append(text, '\n'), 0o600)
}
