package policy

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// File is one file of a bundle that travels: a policy file, or a schema that one names.
type File struct {
	Name   string `json:"name"` // below the folder that all files of the bundle have in common
	Text   []byte `json:"text"`
	Schema bool   `json:"schema,omitempty"`
}

// ErrFiles: packed files that Pack cannot have written.
var ErrFiles = errors.New("policy: not the files of a bundle")

// LoadFiles is Load that also returns the files, in order of their names, such as
// ParseFiles takes.
func LoadFiles(paths []string) (*Bundle, []File, error) {
	l := loader{cache: make(map[string][]byte)}
	sources, err := l.sources(paths)
	if err != nil {
		return nil, nil, err
	}
	b, err := parseAll(sources, l.schema)
	if err != nil {
		return nil, nil, err
	}
	var files []File
	for _, s := range sources {
		files = append(files, File{Name: s.Name, Text: s.Data})
	}
	for _, path := range slices.Sorted(maps.Keys(l.cache)) {
		files = append(files, File{Name: path, Text: l.cache[path], Schema: true})
	}
	if err := shorten(files); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return b, files, nil
}

// shorten names the files relative to the folder that all have in common: where it lies
// on the disk of whoever applies them is nobody's business.
func shorten(files []File) error {
	common := ""
	for i := range files {
		abs, err := filepath.Abs(files[i].Name)
		if err != nil {
			return fmt.Errorf("policy: %w", err)
		}
		files[i].Name = abs
		dir := filepath.Dir(abs)
		for i > 0 && dir != common && !strings.HasPrefix(dir, strings.TrimSuffix(common, "/")+"/") {
			common = filepath.Dir(common)
		}
		if i == 0 {
			common = dir
		}
	}
	for i := range files {
		files[i].Name = strings.TrimPrefix(strings.TrimPrefix(files[i].Name, common), string(filepath.Separator))
	}
	return nil
}

// ParseFiles reads a bundle from files that hold its schemas, too. Errors: as ParseAll;
// ErrFiles for names that no bundle has.
func ParseFiles(files []File) (*Bundle, error) {
	if err := checkFiles(files); err != nil {
		return nil, err
	}
	var sources []Source
	schemas := map[string][]byte{}
	for _, f := range files {
		if f.Schema {
			schemas[f.Name] = f.Text
		} else {
			sources = append(sources, Source{Name: f.Name, Data: f.Text})
		}
	}
	return parseAll(sources, func(policyFile, rel string) ([]byte, string, error) {
		data, ok := schemas[filepath.Join(filepath.Dir(policyFile), rel)]
		if !ok || !filepath.IsLocal(rel) {
			return nil, "", fmt.Errorf("%q is not among the files of the bundle", rel)
		}
		return data, "", nil // no path: there is no file to watch
	})
}

func checkFiles(files []File) error {
	seen, total := map[string]bool{}, 0
	for _, f := range files {
		if f.Name == "" || len(f.Name) > 255 || !filepath.IsLocal(f.Name) || filepath.Clean(f.Name) != f.Name || strings.ContainsFunc(f.Name, func(r rune) bool { return r < ' ' }) || seen[f.Name] {
			return fmt.Errorf("%w: name %q", ErrFiles, f.Name)
		}
		seen[f.Name] = true
		if f.Schema && len(f.Text) > MaxSchemaBytes {
			return fmt.Errorf("%w: %s is over %d bytes", ErrFiles, f.Name, MaxSchemaBytes)
		}
		if total += len(f.Text); total > MaxBundleBytes {
			return fmt.Errorf("%w: over %d bytes", ErrFiles, MaxBundleBytes)
		}
	}
	return nil
}

// Pack compresses the files of a bundle. The same files give the same bytes.
func Pack(files []File) ([]byte, error) {
	if err := checkFiles(files); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err == nil {
		err = json.NewEncoder(z).Encode(files)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return out.Bytes(), nil
}

// maxPacked bounds what packed files may be when they are unpacked: text is base64 in
// the JSON.
const maxPacked = MaxBundleBytes/3*4 + 1<<20

// Unpack reads what Pack wrote. What unpacks to more than a bundle may have is not read
// to its end. Errors: ErrFiles.
func Unpack(packed []byte) ([]File, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFiles, err)
	}
	text, err := io.ReadAll(io.LimitReader(z, maxPacked+1))
	if err == nil && len(text) > maxPacked {
		err = fmt.Errorf("over %d bytes", maxPacked)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFiles, err)
	}
	var files []File
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&files); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFiles, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: there is something behind them", ErrFiles)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: none", ErrFiles)
	}
	return files, checkFiles(files)
}
