package translog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

// remembered is how many of the last checkpoints of each log in the sink are held: more
// than one, since what is there need not verify.
const remembered = 16

// sink appends checkpoints to a file off the store, so that whoever can rewrite the
// store cannot rewrite all of its history.
type sink struct {
	path   string
	folder bool
	every  time.Duration
	failed func(error)

	mu   sync.Mutex
	last map[string][]byte // by file name: what has not been written yet

	reading sync.Mutex // guards read and seen; held while a file is read
	read    map[string]int64
	seen    map[string][]*tlog.Note // by cluster, tenant and stream
}

func newSink(path string, every time.Duration, failed func(error)) (*sink, error) {
	k := &sink{path: path, every: every, failed: failed, last: map[string][]byte{}, read: map[string]int64{}, seen: map[string][]*tlog.Note{}}
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

func sinkName(o *tlog.Origin) string { return o.Tenant + "." + o.Stream + ".checkpoints" }

// keep remembers a checkpoint for the next time that the sink is written.
func (k *sink) keep(note []byte, o *tlog.Origin) {
	if k.path == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last[sinkName(o)] = note
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
		if err := k.append(k.file(name), note); err != nil {
			k.failed(err)
			k.mu.Lock()
			if k.last[name] == nil { // nothing newer came meanwhile
				k.last[name] = note
			}
			k.mu.Unlock()
		}
	}
}

func (k *sink) file(name string) string {
	if k.folder {
		return filepath.Join(k.path, name)
	}
	return k.path
}

// append writes one checkpoint at the end of a file. A part of one that an abrupt end has
// left there gets a line end, behind which readers find the next: other nodes may write
// the same file, so nothing is taken out of it.
func (k *sink) append(file string, note []byte) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // checkpoints are public
	if err != nil {
		return fmt.Errorf("translog: sink: %w", err)
	}
	if len(note) > 0 && !endsLine(f) {
		note = append([]byte{'\n'}, note...)
	}
	_, err = f.Write(note)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("translog: sink: %w", err)
	}
	return nil
}

func endsLine(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return true
	}
	var end [1]byte
	_, err = f.ReadAt(end[:], info.Size()-1)
	return err == nil && end[0] == '\n'
}

// newest returns the last checkpoint of a log that the sink has and that a key of ring has
// signed, of whichever run; nil if there is none. Start of o is not looked at.
func (k *sink) newest(o *tlog.Origin, ring *keyring.Ring) (*tlog.Note, error) {
	if k.path == "" {
		return nil, nil
	}
	k.reading.Lock()
	defer k.reading.Unlock()
	if err := k.catchUp(k.file(sinkName(o))); err != nil {
		return nil, fmt.Errorf("translog: the sink cannot be compared with: %w", err)
	}
	var best *tlog.Note
	for _, n := range k.seen[runsOf(&tlog.Origin{Cluster: o.Cluster, Tenant: o.Tenant, Stream: o.Stream})] {
		if best != nil && (n.Origin.Start.Before(best.Origin.Start) || n.Origin.Start.Equal(best.Origin.Start) && n.Size < best.Size) {
			continue
		}
		if _, err := n.Verify(ring); err == nil {
			best = n
		}
	}
	return best, nil
}

func runsOf(o *tlog.Origin) string { return o.Cluster + "/" + o.Tenant + "/" + o.Stream }

// catchUp reads what has come to a file, and the end of what was read once more: it may
// have been the beginning of a checkpoint.
func (k *sink) catchUp(file string) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	from := max(k.read[file]-tlog.MaxCheckpointBytes, 0)
	if info.Size() < k.read[file] {
		from = 0 // another file has its name
	}
	_, err = tlog.ScanNotes(io.NewSectionReader(f, from, info.Size()-from), func(n *tlog.Note) error {
		name := runsOf(&n.Origin)
		all := append(k.seen[name], n)
		k.seen[name] = all[max(len(all)-remembered, 0):]
		return nil
	})
	if err == nil {
		k.read[file] = info.Size()
	}
	return err
}
