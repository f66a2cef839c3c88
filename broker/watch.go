package broker

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
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
}

func watch(files []string, changed func(), failed func(error)) (*watcher, error) {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("broker: watch files: %w", err)
	}
	names := map[string]bool{}
	dirs := map[string]bool{}
	for _, f := range files {
		names[filepath.Clean(f)] = true
		dirs[filepath.Dir(f)] = true
	}
	for d := range dirs {
		if err := fs.Add(d); err != nil {
			_ = fs.Close()
			return nil, fmt.Errorf("broker: watch %s: %w", d, err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &watcher{fs: fs, stop: stop}
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.run(ctx, names, changed, failed)
	}()
	return w, nil
}

func (w *watcher) run(ctx context.Context, names map[string]bool, changed func(), failed func(error)) {
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
			// A watched folder given as policy counts with everything in it, and
			// ..data is how Kubernetes swaps a mounted secret.
			if names[filepath.Clean(e.Name)] || names[filepath.Dir(e.Name)] || filepath.Base(e.Name) == "..data" {
				timer.Reset(settle)
			}
		case <-timer.C:
			changed()
		}
	}
}

// close stops watching and waits for a running call of changed.
func (w *watcher) close() error {
	w.stop()
	err := w.fs.Close()
	w.wg.Wait()
	return err
}
