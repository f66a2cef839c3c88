package support

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// maxEntry bounds one entry; what is longer loses its end.
const maxEntry = 32 << 20

// ManifestName is the first entry of a bundle.
const ManifestName = "manifest.json"

// Entry describes one file of a bundle.
type Entry struct {
	Name   string `json:"name"`
	What   string `json:"what"`
	Bytes  int    `json:"bytes"`
	SHA256 string `json:"sha256"`
	data   []byte
}

// Manifest says what a bundle holds, and what could not be had.
type Manifest struct {
	Made    time.Time `json:"made"`
	Version string    `json:"version"` // of signet
	Entries []Entry   `json:"entries"` // in the order of the archive
	Missing []string  `json:"missing,omitempty"`
}

// Bundle collects entries.
type Bundle struct{ m Manifest }

// New returns an empty bundle.
func New(now time.Time, version string) *Bundle {
	return &Bundle{Manifest{Made: now.UTC().Truncate(time.Second), Version: string(Redact([]byte(version))), Entries: []Entry{}}}
}

// Add redacts data and appends it as name; what says in a few words what it is.
func (b *Bundle) Add(name, what string, data []byte) {
	if len(data) > maxEntry {
		data = data[:maxEntry]
	}
	data = Redact(data)
	sum := sha256.Sum256(data)
	b.m.Entries = append(b.m.Entries, Entry{
		Name: string(Redact([]byte(name))), What: string(Redact([]byte(what))), Bytes: len(data), SHA256: hex.EncodeToString(sum[:]), data: data,
	})
}

// AddJSON is Add for a value.
func (b *Bundle) AddJSON(name, what string, v any) {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		b.Miss(name, err)
		return
	}
	b.Add(name, what, buf.Bytes())
}

// Miss notes that an entry could not be made.
func (b *Bundle) Miss(name string, err error) {
	b.m.Missing = append(b.m.Missing, string(Redact([]byte(name+": "+err.Error()))))
}

// Manifest returns what the bundle holds so far. The caller must not change it.
func (b *Bundle) Manifest() *Manifest { return &b.m }

// Write makes file, mode 0600, with the manifest and the entries in the order of
// Add. A file that is there is never overwritten; one that could not be written
// whole is removed.
//
// Errors: fs.ErrExist, or those of the file system.
func (b *Bundle) Write(file string) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	if err := b.write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

func (b *Bundle) write(w io.Writer) error {
	manifest, err := json.MarshalIndent(b.m, "", "  ")
	if err != nil {
		return fmt.Errorf("support: manifest: %w", err)
	}
	zip := gzip.NewWriter(w)
	out := tar.NewWriter(zip)
	for _, e := range append([]Entry{{Name: ManifestName, data: Redact(append(manifest, '\n'))}}, b.m.Entries...) {
		h := tar.Header{Name: "signet-support/" + e.Name, Mode: 0o600, Size: int64(len(e.data)), ModTime: b.m.Made, Typeflag: tar.TypeReg}
		if err := out.WriteHeader(&h); err != nil {
			return fmt.Errorf("support: %s: %w", e.Name, err)
		}
		if _, err := out.Write(e.data); err != nil {
			return fmt.Errorf("support: %s: %w", e.Name, err)
		}
	}
	return errors.Join(out.Close(), zip.Close())
}
