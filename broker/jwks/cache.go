package jwks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/internal/durablefile"
)

// cached is the file of the keys of one issuer.
type cached struct {
	Version int             `json:"version"`
	Issuer  string          `json:"issuer"`
	Fetched time.Time       `json:"fetched"`
	Keys    json.RawMessage `json:"jwks"`
}

const cacheVersion = 1

// readCache returns what is kept; nothing where there is no file.
func readCache(file, issuer string) (*identity.KeySet, time.Time, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, nil
	}
	if info, e := os.Stat(file); err == nil && (e != nil || info.Mode().Perm()&0o022 != 0) {
		err = errors.New("the group or others may write it: chmod go-w")
	}
	var c cached
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(text))
		dec.DisallowUnknownFields()
		err = dec.Decode(&c)
	}
	if err == nil && (c.Version != cacheVersion || c.Issuer != issuer) {
		err = errors.New("it is of another version or issuer")
	}
	var keys *identity.KeySet
	if err == nil {
		keys, err = identity.ParseKeySet(c.Keys)
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%w: %s: %w", ErrCache, file, err)
	}
	if now := time.Now(); c.Fetched.After(now) {
		c.Fetched = now // the clock was set; an age below zero would never end
	}
	return keys, c.Fetched, nil
}

// writeCache replaces the file in one step.
func writeCache(file, issuer string, doc []byte, at time.Time) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w: %w", ErrCache, err)
		}
	}()
	text, err := json.Marshal(&cached{Version: cacheVersion, Issuer: issuer, Fetched: at.UTC(), Keys: doc})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return durablefile.Replace(file, text, 0o600)
}
