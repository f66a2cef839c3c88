package integrity

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrFollow: the blocks of a stream cannot be followed from where the follower is: a
// record is not sound, or a block is not what it was. Open another follower; where that
// ends at the same sequence, ask the server.
var ErrFollow = errors.New("integrity: the blocks of the stream cannot be followed")

// A follower takes followBuffer of memory, and up to followMost where that much comes
// between two looks, or one record where that is longer.
const (
	followBuffer = 16 << 10
	followMost   = 256 << 10
)

// Stored is one message as it is on disk. Subject, Headers and Payload are views that the
// next call of Follower.Next overwrites; Time is in nanoseconds since 1970.
type Stored struct {
	Seq                       uint64
	Time                      int64
	Subject, Headers, Payload []byte
}

// Follower reads the messages of one stream from its block files while nats-server
// appends to them, in order of their sequences, and verifies the checksum of each. It
// asks the server nothing: what it returns is what the file system has, so a message that
// the server has not handed to the file system yet comes a moment later.
//
// It is for streams from which only age takes messages: one that was deleted within the
// stream is still in its block until the server writes that anew.
//
// The server appends to its last block, makes the next one only when everything before is
// in its file, and writes no block anew but those before the last; what it has replaced
// or removed stays readable to whom it is open. What is otherwise is ErrFollow.
//
// Not safe for concurrent use.
type Follower struct {
	msgs  string   // the folder of the blocks
	dir   *os.File // msgs as it was first; open, so that no other can pass for it
	store string   // the stream, as the keys of checksums name it
	vault *vault
	from  uint64 // nothing below it is returned
	last  uint64 // sequence of the last record that holds one

	index  uint32 // of file
	file   *os.File
	info   fs.FileInfo   // of file as it was opened
	path   string        // of file
	after  string        // of the block behind it
	at     int64         // where in the file the next byte is to be read
	stream cipher.Stream // nil: in the clear
	hash   *hasher
	buf    []byte // what was read and not returned is buf[start:end]
	start  int
	end    int
}

// Follow opens a follower of a stream that begins at the sequence from, or behind it where
// that is not there any more. dir is what Options.Dir is; key is nil where the store is
// not encrypted.
//
// Errors: ErrFollow, ErrStore, ErrWrongKey.
func Follow(dir string, key *StoreKey, account, stream string, from uint64) (*Follower, error) {
	f := &Follower{
		msgs: filepath.Join(dir, storeFolder, account, "streams", stream, "msgs"), store: stream,
		vault: key.vault(folder{account: account, name: stream}, &keyCount{}), from: max(from, 1),
		buf: make([]byte, followBuffer),
	}
	var err error
	if f.dir, err = openNow(f.msgs); err == nil {
		err = f.seek()
	} else {
		err = fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Close lets the files go. What Next has returned stays.
func (f *Follower) Close() {
	for _, file := range []**os.File{&f.file, &f.dir} {
		if *file != nil {
			_ = (*file).Close()
			*file = nil
		}
	}
}

// Buffered says whether Next returns a message, or an error, without reading the disk.
func (f *Follower) Buffered() bool {
	b := f.buf[f.start:f.end]
	if len(b) < recordHead {
		return false
	}
	size, _, _, _ := lengths(b)
	return size <= len(b)
}

// Next returns the next message. ok false: there is none yet.
//
// Errors: ErrFollow, ErrStore, ErrWrongKey. After one, it is at its end.
func (f *Follower) Next(m *Stored) (ok bool, err error) {
	for {
		if ok, err := f.take(m); ok || err != nil {
			return ok, err
		}
		n, err := f.fill()
		if err != nil {
			return false, err
		}
		if n > 0 {
			continue
		}
		if more, err := f.turn(); !more || err != nil {
			return false, err
		}
	}
}

// take returns the next message of the buffer.
func (f *Follower) take(m *Stored) (ok bool, err error) {
	for f.Buffered() {
		b := f.buf[f.start:f.end]
		r, kind := f.hash.read(b)
		if kind != "" {
			return false, f.fault("%s at byte %d", kind, f.at-int64(len(b)))
		}
		f.start += r.size
		switch {
		case r.tomb || r.seq == 0:
			continue
		case r.seq <= f.last:
			return false, f.fault("sequence %d comes after %d", r.seq, f.last)
		}
		if f.last = r.seq; r.erased || r.seq < f.from {
			continue
		}
		*m = messageOf(b[:r.size], &r)
		return true, nil
	}
	return false, nil
}

// messageOf cuts a sound record, which is b.
func messageOf(b []byte, r *record) Stored {
	_, slen, headers, _ := lengths(b)
	body := b[recordHead : r.size-hashSize : r.size-hashSize]
	m := Stored{Seq: r.seq, Time: r.ts, Subject: body[:slen:slen], Payload: body[slen:]}
	if headers {
		hlen := binary.LittleEndian.Uint32(m.Payload)
		m.Headers, m.Payload = m.Payload[4:4+hlen:4+hlen], m.Payload[4+hlen:]
	}
	return m
}

func (f *Follower) fault(format string, args ...any) error {
	return fmt.Errorf("%w: %s: %s", ErrFollow, filepath.Join(f.msgs, blockName(f.index)), fmt.Sprintf(format, args...))
}

// fill reads on in the block; n 0: this is its end for now.
func (f *Follower) fill() (n int, err error) {
	if f.file == nil {
		return 0, nil
	}
	if f.start > 0 {
		f.end = copy(f.buf, f.buf[f.start:f.end])
		f.start = 0
	}
	if f.end >= recordHead { // of a record that is longer, or not all there
		size, _, _, _ := lengths(f.buf[:f.end])
		if size > maxRecord {
			return 0, f.fault("%s at byte %d", KindStructure, f.at-int64(f.end))
		}
		if size > len(f.buf) {
			f.buf = append(f.buf, make([]byte, size-len(f.buf))...)
		}
	}
	if n, err = f.file.ReadAt(f.buf[f.end:], f.at); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if n == 0 {
		return 0, nil
	}
	if f.vault != nil {
		if err := f.unlock(); err != nil {
			return 0, err
		}
		f.stream.XORKeyStream(f.buf[f.end:f.end+n], f.buf[f.end:f.end+n])
	}
	f.end += n
	if f.at += int64(n); f.at > maxBlock {
		return 0, f.fault("no block is so large")
	}
	if f.end == len(f.buf) && f.end < followMost { // there is more
		f.buf = append(f.buf, make([]byte, f.end)...)
	}
	return n, nil
}

// unlock opens the key of the block, which the server writes before the first byte.
func (f *Follower) unlock() error {
	if f.stream != nil {
		return nil
	}
	key, err := f.vault.block(f.path, f.index)
	switch {
	case err != nil:
		return err
	case key == nil:
		return f.fault("its key file is not there")
	case key.bad:
		return f.fault("its key file does not open")
	}
	f.stream = key.stream()
	return nil
}
