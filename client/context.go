package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/signetbus/signet/internal/durablefile"
)

// EnvHome names the environment variable that moves the directory of contexts.
// It holds a path, never a secret.
const EnvHome = "SIGNET_HOME"

const (
	contextDir      = "contexts"
	contextSuffix   = ".json"
	selectedFile    = "selected"
	maxContextBytes = 64 * 1024
	maxContextName  = 64
)

// Context is a named way to reach one broker as one principal, shared by the
// SDK and the command line. It holds paths of secrets, never secrets. A file is
// JSON, decoded strictly, mode 0600; relative paths are relative to the
// directory of the file.
type Context struct {
	Name         string `json:"-"`
	URL          string `json:"url"`                    // tls://host:port, several with commas
	NkeySeedFile string `json:"nkeySeedFile,omitempty"` // mode 0600
	// CertificateFile and KeyFile (mode 0600) are as in WithClientCertificate, TokenFile as
	// in WithTokenFile.
	CertificateFile string `json:"certificateFile,omitempty"`
	KeyFile         string `json:"keyFile,omitempty"`
	TokenFile       string `json:"tokenFile,omitempty"`
	CAFile          string `json:"caFile,omitempty"`      // PEM roots; empty: the roots of the system
	RootKey         string `json:"rootKey,omitempty"`     // public root key of the keyring, O...
	KeyringFile     string `json:"keyringFile,omitempty"` // empty: fetched from the broker
}

// ContextsDir returns the directory of the context files:
// $SIGNET_HOME/contexts, else signet/contexts in the user's configuration
// directory. It need not exist.
func ContextsDir() (string, error) {
	home := os.Getenv(EnvHome)
	if home == "" {
		dir, err := os.UserConfigDir()
		if err != nil {
			return "", fmt.Errorf("client: no directory for contexts, set %s: %w", EnvHome, err)
		}
		home = filepath.Join(dir, "signet")
	}
	return filepath.Join(home, contextDir), nil
}

// LoadContext reads the context called name; the empty name is the selected one.
// The paths of the result are absolute or relative to the working directory.
//
// Errors: fs.ErrNotExist when there is none; ErrInvalidOption when the name, a
// member or the file's mode is wrong.
func LoadContext(name string) (*Context, error) {
	if name == "" {
		var err error
		if name, err = SelectedContext(); err != nil {
			return nil, err
		}
	}
	file, err := contextFile(name)
	if err != nil {
		return nil, err
	}
	raw, err := readPrivate(file, maxContextBytes)
	if err != nil {
		return nil, fmt.Errorf("client: context %q: %w", name, err)
	}
	c := Context{Name: name}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, fmt.Errorf("%w: context %q: %w", ErrInvalidOption, name, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: context %q: bytes after the object", ErrInvalidOption, name)
	}
	if c.URL == "" {
		return nil, fmt.Errorf("%w: context %q has no url", ErrInvalidOption, name)
	}
	for _, p := range c.files() {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(file), *p)
		}
	}
	return &c, nil
}

// files are the paths that c holds.
func (c *Context) files() []*string {
	return []*string{&c.NkeySeedFile, &c.CertificateFile, &c.KeyFile, &c.TokenFile, &c.CAFile, &c.KeyringFile}
}

// SaveContext writes c, replacing a context of the same name in one step. The
// file has mode 0600, a new directory 0700.
func SaveContext(c *Context) error {
	file, err := contextFile(c.Name)
	if err != nil {
		return err
	}
	if c.URL == "" {
		return fmt.Errorf("%w: context %q has no url", ErrInvalidOption, c.Name)
	}
	raw, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("client: context %q: %w", c.Name, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("client: context %q: %w", c.Name, err)
	}
	return writePrivate(file, append(raw, '\n'))
}

// ListContexts returns the names of all contexts, sorted. A missing directory is
// an empty list.
func ListContexts() ([]string, error) {
	dir, err := ContextsDir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("client: contexts: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), contextSuffix)
		if ok && e.Type().IsRegular() && checkContextName(name) == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// SelectContext makes the context called name the one that the empty name means.
// It must exist.
func SelectContext(name string) error {
	if _, err := LoadContext(name); err != nil || name == "" {
		return errors.Join(err, checkContextName(name))
	}
	dir, err := ContextsDir()
	if err != nil {
		return err
	}
	return writePrivate(filepath.Join(dir, selectedFile), []byte(name+"\n"))
}

// SelectedContext returns the name of the selected context. With none selected
// it is fs.ErrNotExist.
func SelectedContext() (string, error) {
	dir, err := ContextsDir()
	if err != nil {
		return "", err
	}
	raw, err := os.ReadFile(filepath.Join(dir, selectedFile))
	if err != nil {
		return "", fmt.Errorf("client: no context is selected: %w", err)
	}
	name := strings.TrimSpace(string(raw))
	return name, checkContextName(name)
}

// RemoveContext deletes the context called name, and its selection.
func RemoveContext(name string) error {
	file, err := contextFile(name)
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("client: context %q: %w", name, err)
	}
	if selected, _ := SelectedContext(); selected != name {
		return nil // none is selected, or another one
	}
	if err := os.Remove(filepath.Join(filepath.Dir(file), selectedFile)); err != nil {
		return fmt.Errorf("client: context %q: %w", name, err)
	}
	return nil
}

func contextFile(name string) (string, error) {
	if err := checkContextName(name); err != nil {
		return "", err
	}
	dir, err := ContextsDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name+contextSuffix), nil
}

// checkContextName keeps a name from being a path.
func checkContextName(name string) error {
	if name == "" || len(name) > maxContextName || name[0] == '.' {
		return fmt.Errorf("%w: context name %q: 1 to %d characters, not starting with a dot", ErrInvalidOption, name, maxContextName)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return fmt.Errorf("%w: context name %q has a character outside A-Z a-z 0-9 - _ .", ErrInvalidOption, name)
		}
	}
	return nil
}

// readPrivate reads a file that only its owner may read. The mode is checked on
// the open file, so it cannot be changed in between.
func readPrivate(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // opened for reading: nothing can be lost
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrInvalidOption, name)
	}
	// Windows has no such mode bits; its files are guarded by their ACL.
	if perm := info.Mode().Perm(); runtime.GOOS != "windows" && perm&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %04o, others can use it: chmod 600 %s", ErrInvalidOption, name, perm, name)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%w: %s is over %d bytes", ErrInvalidOption, name, limit)
	}
	// One buffer of the right size: growing one would leave copies of a seed behind.
	raw := make([]byte, info.Size())
	if _, err := io.ReadFull(f, raw); err != nil {
		clear(raw)
		return nil, err
	}
	return raw, nil
}

// writePrivate replaces name in one step: a reader sees the old file or the new.
func writePrivate(name string, data []byte) error {
	if err := durablefile.Replace(name, data, 0o600); err != nil {
		return fmt.Errorf("client: write %s: %w", name, err)
	}
	return nil
}
