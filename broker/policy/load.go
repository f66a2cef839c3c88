package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Load reads a policy from files and directories (all *.yaml and *.yml directly in
// them, except names that start with a dot). Files that the group or others may write
// are refused, schema files included: whoever can write the policy owns the bus. So is a
// directory that they may write, unless its file system is read-only.
// Schema files are found relative to the policy file that names them and may not
// lie outside its directory. The error joins every *Fault.
func Load(paths []string) (*Bundle, error) {
	l := loader{cache: make(map[string][]byte)}
	sources, err := l.sources(paths)
	if err != nil {
		return nil, err
	}
	return parseAll(sources, l.schema)
}

// sources reads the policy files of paths.
func (l *loader) sources(paths []string) ([]Source, error) {
	if len(paths) == 0 {
		return nil, errors.New("policy: no policy file given")
	}
	var files []string
	for _, p := range paths {
		list, err := expand(p)
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		files = append(files, list...)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	if len(files) > MaxFiles {
		return nil, fmt.Errorf("policy: %d files, at most %d", len(files), MaxFiles)
	}
	var f faults
	var sources []Source
	for _, name := range files {
		data, err := l.readFile(name)
		if err != nil {
			f.add(Position{File: name}, "%v", err)
			continue
		}
		sources = append(sources, Source{Name: name, Data: data})
	}
	return sources, f.err()
}

// expand lists the policy files that one path means.
func expand(path string) ([]string, error) {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 && !readOnly(path) {
		return nil, fmt.Errorf("%s: the group or others may put files into it (mode %04o): chmod go-w", path, mode)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		name := e.Name()
		if ext := filepath.Ext(name); e.IsDir() || name[0] == '.' || ext != ".yaml" && ext != ".yml" {
			continue
		}
		list = append(list, filepath.Join(path, name))
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s holds no *.yaml file", path)
	}
	return list, nil
}

// loader reads files within the limits of a bundle; a schema file that many
// entries name is read once, and all share its bytes.
type loader struct {
	cache map[string][]byte
	total int
}

func (l *loader) readFile(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, plainError(err)
	}
	return l.read(file, MaxFileBytes)
}

// schema implements opener. os.Root keeps "..", absolute paths and symbolic links
// from leaving the directory of the policy file.
func (l *loader) schema(policyFile, rel string) (data []byte, path string, err error) {
	dir := filepath.Dir(policyFile)
	path = filepath.Join(dir, rel)
	if data, ok := l.cache[path]; ok {
		return data, path, nil
	}
	if !filepath.IsLocal(rel) {
		return nil, path, fmt.Errorf("%q must be a relative path below the directory of the policy file", rel)
	}
	file, err := os.OpenInRoot(dir, rel)
	if err != nil {
		return nil, path, fmt.Errorf("%q: %w", rel, plainError(err))
	}
	if data, err = l.read(file, MaxSchemaBytes); err != nil {
		return nil, path, fmt.Errorf("%q: %w", rel, err)
	}
	l.cache[path] = data
	return data, path, nil
}

// read checks what was opened, not what the name pointed to before, and closes it.
func (l *loader) read(file *os.File, most int) ([]byte, error) {
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, plainError(err)
	}
	switch mode := info.Mode(); {
	case !mode.IsRegular():
		return nil, errors.New("not a regular file")
	case mode.Perm()&0o022 != 0:
		return nil, fmt.Errorf("the group or others may write it (mode %04o): chmod go-w", mode.Perm())
	}
	data, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	if err != nil {
		return nil, plainError(err)
	}
	if len(data) > most {
		return nil, fmt.Errorf("over %d bytes", most)
	}
	if l.total += len(data); l.total > MaxBundleBytes {
		return nil, fmt.Errorf("the bundle is over %d bytes", MaxBundleBytes)
	}
	return data, nil
}

// plainError drops the path from an error of os, which the fault names already.
func plainError(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return errors.New(strings.TrimSpace(p.Err.Error()))
	}
	return err
}
