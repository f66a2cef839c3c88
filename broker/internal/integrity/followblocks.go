package integrity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// turn goes to the next block if there is one; more false: nothing is behind the end
// that was met.
func (f *Follower) turn() (more bool, err error) {
	if f.file == nil {
		err := f.seek()
		return f.file != nil, err
	}
	next, err := f.successor()
	if next == 0 || err != nil {
		return false, err
	}
	// It was written to its end before the next one was made.
	if n, err := f.fill(); n > 0 || err != nil {
		return true, err
	}
	if f.end > f.start {
		return false, f.fault("%s at byte %d", KindTruncated, f.at-int64(f.end-f.start))
	}
	return true, f.open(next)
}

// successor returns the block behind this one, 0 if there is none.
func (f *Follower) successor() (uint32, error) {
	now, err := os.Stat(f.path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("%w: %w", ErrStore, err)
	case err == nil && os.SameFile(f.info, now):
		if now.Size() < f.at {
			return 0, f.fault("it has %d bytes, and %d were read", now.Size(), f.at)
		}
		_, err := os.Stat(f.after)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("%w: %w", ErrStore, err)
		}
		return f.index + 1, nil
	}
	list, err := listBlocks(f.msgs)
	if err != nil {
		return 0, err
	}
	for _, b := range list {
		if b.index > f.index {
			return b.index, nil
		}
	}
	return 0, f.fault("it was removed or replaced, and none comes after it")
}

// openNow does not wait for somebody to write to what is no file but a pipe.
func openNow(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// openRegular is openNow of what must be a file.
func openRegular(name string) (*os.File, error) {
	f, err := openNow(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", name)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// open goes to the start of a block.
func (f *Follower) open(index uint32) error {
	path := filepath.Join(f.msgs, blockName(index))
	file, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.fault("%s is gone", blockName(index))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	if f.file != nil {
		_ = f.file.Close()
	}
	f.path, f.after = path, filepath.Join(f.msgs, blockName(index+1))
	f.file, f.index, f.at, f.start, f.end, f.stream = file, index, 0, 0, 0, nil
	if f.info, err = file.Stat(); err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	if f.hash, err = newHasher(blockKey(f.store, index), false); err != nil {
		return err
	}
	return f.sameFolder()
}

// sameFolder: a stream that was deleted and made anew has its files where the old one had.
func (f *Follower) sameFolder() error {
	mine, err := f.dir.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	now, err := os.Stat(f.msgs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err != nil || !os.SameFile(mine, now) {
		return f.fault("its folder was removed or replaced")
	}
	return nil
}

// seek opens the block that holds the sequence from, or would: the last that does not
// begin behind it, or else the first. Where there is none yet, it leaves the file nil.
func (f *Follower) seek() error {
	list, err := listBlocks(f.msgs)
	if err != nil || len(list) == 0 {
		return err
	}
	for i := len(list) - 1; i >= 0; i-- {
		if err := f.open(list[i].index); err != nil {
			return err
		}
		if i == 0 {
			break
		}
		first, err := f.first()
		if err != nil {
			return err
		}
		if first > 0 && first <= f.from {
			break
		}
	}
	return f.open(f.index)
}

// first returns the first sequence that a record of the block holds, 0 if none does.
func (f *Follower) first() (uint64, error) {
	for {
		for f.Buffered() {
			r, kind := f.hash.read(f.buf[f.start:f.end])
			if kind != "" {
				return 0, f.fault("%s at byte %d", kind, f.at-int64(f.end-f.start))
			}
			if !r.tomb && r.seq > 0 {
				return r.seq, nil
			}
			f.start += r.size
		}
		if n, err := f.fill(); n == 0 || err != nil {
			return 0, err
		}
	}
}
