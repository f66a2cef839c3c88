package broker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/signetbus/signet/broker/policy"
)

// settle is how long files must be quiet before they are read: editors and
// secret mounts write in several steps.
const settle = 150 * time.Millisecond

// watcher calls changed when one of the watched files changes. It watches their
// folders, because editors and Kubernetes replace files by renaming.
type watcher struct {
	fs   *fsnotify.Watcher
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu    sync.Mutex
	names map[string]bool // files, and folders that count with everything in them
	dirs  map[string]bool // that fs watches
}

// watch starts to watch files. failed is told what goes wrong later.
func watch(files []string, changed func(), failed func(error)) (*watcher, error) {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("broker: watch files: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{fs: fs, stop: stop, dirs: map[string]bool{}}
	if err := w.set(files); err != nil {
		stop()
		return nil, errors.Join(err, fs.Close())
	}
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.run(ctx, changed, failed)
	}()
	return w, nil
}

// set replaces the watched files. Folders that were watched stay so: their other
// files are ignored.
func (w *watcher) set(files []string) error {
	if w == nil {
		return nil // it is started later, with the files of then
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = map[string]bool{}
	var faults []error
	for _, f := range files {
		w.names[filepath.Clean(f)] = true
		dir := filepath.Dir(f)
		if w.dirs[dir] {
			continue
		}
		if err := w.fs.Add(dir); err != nil {
			faults = append(faults, fmt.Errorf("broker: watch %s: %w", dir, err))
			continue
		}
		w.dirs[dir] = true
	}
	return errors.Join(faults...)
}

// counts reports whether a change of the file is one of ours. ..data is how
// Kubernetes swaps a mounted secret.
func (w *watcher) counts(file string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[filepath.Clean(file)] || w.names[filepath.Dir(file)] || filepath.Base(file) == "..data"
}

func (w *watcher) run(ctx context.Context, changed func(), failed func(error)) {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-w.fs.Errors:
			failed(err)
		case e := <-w.fs.Events:
			if w.counts(e.Name) {
				timer.Reset(settle)
			}
		case <-timer.C:
			changed()
		}
	}
}

// watchedFiles are the files that a reload reads under the policy set.
func watchedFiles(cfg *Config, set *policy.Set) []string {
	files := append([]string{cfg.Keys.Keyring, cfg.Keys.Node, nextSeed(cfg), cfg.TLS.Certificate, cfg.TLS.Key}, cfg.Policy...)
	files = append(files, authorityFiles(&cfg.Authentication)...)
	for _, t := range set.Tenants() {
		for i := range t.Schemas {
			if f := t.Schemas[i].File; f != "" {
				files = append(files, f)
			}
		}
	}
	return files
}

// close stops watching and waits for a running call of changed.
func (w *watcher) close() error {
	w.stop()
	err := w.fs.Close()
	w.wg.Wait()
	return err
}
