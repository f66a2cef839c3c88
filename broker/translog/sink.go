package translog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signetbus/signet/signing/tlog"
)

// sink appends checkpoints to a file off the store, so that whoever can rewrite the
// store cannot rewrite all of its history.
type sink struct {
	path   string
	folder bool
	every  time.Duration
	failed func(error)

	mu   sync.Mutex
	last map[string][]byte // by file name: what has not been written yet
}

func newSink(path string, every time.Duration, failed func(error)) (*sink, error) {
	k := &sink{path: path, every: every, failed: failed, last: map[string][]byte{}}
	if path == "" {
		return k, nil
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("translog: sink: %w", err)
	default:
		k.folder = info.IsDir()
	}
	if !k.folder { // fail at the start rather than after a minute
		return k, k.append(path, nil)
	}
	return k, nil
}

// keep remembers a checkpoint for the next time that the sink is written.
func (k *sink) keep(note []byte, o *tlog.Origin) {
	if k.path == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last[o.Tenant+"."+o.Stream+".checkpoints"] = note
}

func (k *sink) run(ctx context.Context) {
	if k.path == "" {
		return
	}
	t := time.NewTicker(k.every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			k.flush()
			return
		case <-t.C:
			k.flush()
		}
	}
}

func (k *sink) flush() {
	k.mu.Lock()
	due := k.last
	k.last = map[string][]byte{}
	k.mu.Unlock()
	for name, note := range due {
		file := k.path
		if k.folder {
			file = filepath.Join(k.path, name)
		}
		if err := k.append(file, note); err != nil {
			k.failed(err)
			k.mu.Lock()
			if k.last[name] == nil { // nothing newer came meanwhile
				k.last[name] = note
			}
			k.mu.Unlock()
		}
	}
}

func (k *sink) append(file string, note []byte) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644) //nolint:gosec // checkpoints are public
	if err != nil {
		return fmt.Errorf("translog: sink: %w", err)
	}
	_, err = f.Write(note)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("translog: sink: %w", err)
	}
	return nil
}
