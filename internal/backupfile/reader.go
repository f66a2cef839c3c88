package backupfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Reader takes a backup apart, front to back, and believes nothing of it: what it
// gives out is proven by Verify only. Not safe for concurrent use.
type Reader struct {
	r    io.Reader
	sum  hash.Hash
	read uint64
	err  error // the first; it stays

	stream  *section // the stream that is being read
	streams int
	signed  []byte // the manifest's envelope, once it was reached
	digest  string // of everything before it
	before  uint64
}

// NewReader reads the header of a backup.
//
// Errors: ErrFormat, ErrVersion, ErrTooLarge, and those of r.
func NewReader(r io.Reader) (*Reader, *Head, error) {
	f := &Reader{r: r, sum: sha256.New()}
	var begin [len(magic)]byte
	if err := f.full(begin[:]); err != nil {
		return nil, nil, err
	}
	if version := len(magic) - 4; string(begin[:version]) != magic[:version] {
		return nil, nil, fmt.Errorf("%w: it does not begin like one", ErrFormat)
	} else if string(begin[version:]) != magic[version:] {
		return nil, nil, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, binary.BigEndian.Uint32(begin[version:]), Version)
	}
	kind, body, err := f.next()
	if err != nil {
		return nil, nil, err
	}
	var head Head
	if kind != frameHead {
		return nil, nil, fmt.Errorf("%w: no header", ErrFormat)
	}
	if err := strict(body, &head); err != nil {
		return nil, nil, err
	}
	if head.Version != Version || !hexID.MatchString(head.ID) {
		return nil, nil, fmt.Errorf("%w: version or id of the header", ErrFormat)
	}
	return f, &head, nil
}

// Next returns the next stream with its archive, which must be read to its end
// first, or io.EOF when the manifest was reached and the file ends after it.
//
// Errors: ErrFormat, ErrTooLarge, and those of the underlying reader.
func (f *Reader) Next() (*StreamHead, io.Reader, error) {
	if f.err != nil {
		return nil, nil, f.err
	}
	if f.signed != nil {
		return nil, nil, io.EOF
	}
	if f.stream != nil && !f.stream.ended {
		return nil, nil, f.fail(fmt.Errorf("%w: a stream that was not read to its end", ErrFormat))
	}
	before, digest := f.read, hex.EncodeToString(f.sum.Sum(nil))
	kind, body, err := f.next()
	if err != nil {
		return nil, nil, err
	}
	switch kind {
	case frameStream:
		var head StreamHead
		if err := strict(body, &head); err != nil {
			return nil, nil, f.fail(err)
		}
		if f.streams++; f.streams > MaxStreams || !PlainStream(head.Name) {
			return nil, nil, f.fail(fmt.Errorf("%w: stream name %.100q", ErrFormat, head.Name))
		}
		f.stream = &section{f: f, sum: sha256.New()}
		return &head, f.stream, nil
	case frameManifest:
		var more [1]byte
		if n, err := io.ReadFull(f.r, more[:]); n != 0 || !errors.Is(err, io.EOF) {
			return nil, nil, f.fail(fmt.Errorf("%w: bytes after the manifest", ErrFormat))
		}
		f.signed, f.before, f.digest = bytes.Clone(body), before, digest
		return nil, nil, io.EOF
	}
	return nil, nil, f.fail(fmt.Errorf("%w: frame %q where a stream or the manifest must be", ErrFormat, kind))
}

// ArchiveSum returns length and SHA-256 of the archive that was read to its end.
func (f *Reader) ArchiveSum() (n uint64, digest string) {
	if f.stream == nil {
		return 0, ""
	}
	return f.stream.n, hex.EncodeToString(f.stream.sum.Sum(nil))
}

// section is the archive of one stream.
type section struct {
	f     *Reader
	rest  uint32 // bytes left of the data frame
	ended bool
	sum   hash.Hash
	n     uint64
}

// Read implements io.Reader.
func (s *section) Read(p []byte) (int, error) {
	for s.rest == 0 {
		if s.f.err != nil {
			return 0, s.f.err
		}
		if s.ended {
			return 0, io.EOF
		}
		kind, size, err := s.f.head()
		if err != nil {
			return 0, err
		}
		switch {
		case kind == frameEnd && size == 0:
			s.ended = true
		case kind == frameData && size > 0:
			s.rest = size
		default:
			return 0, s.f.fail(fmt.Errorf("%w: frame %q inside a stream", ErrFormat, kind))
		}
	}
	if len(p) == 0 {
		return 0, nil
	}
	p = p[:min(len(p), int(s.rest))]
	if err := s.f.full(p); err != nil {
		return 0, err
	}
	s.sum.Write(p)
	s.n += uint64(len(p))
	s.rest -= uint32(len(p))
	return len(p), nil
}

// most is the bound of a frame's body, by its type; false: there is no such type.
func most(kind byte) (int, bool) {
	switch kind {
	case frameHead:
		return MaxHeadBytes, true
	case frameStream:
		return MaxConfigBytes, true
	case frameData:
		return MaxDataBytes, true
	case frameEnd:
		return 0, true
	case frameManifest:
		return MaxManifestBytes, true
	}
	return 0, false
}

func (f *Reader) head() (kind byte, size uint32, err error) {
	var head [frameHeadBytes]byte
	if err := f.full(head[:]); err != nil {
		return 0, 0, err
	}
	kind, size = head[0], binary.BigEndian.Uint32(head[1:])
	limit, ok := most(kind)
	if !ok {
		return 0, 0, f.fail(fmt.Errorf("%w: unknown frame %q", ErrFormat, kind))
	}
	if uint64(size) > uint64(limit) {
		return 0, 0, f.fail(fmt.Errorf("%w: frame %q of %d bytes, limit %d", ErrTooLarge, kind, size, limit))
	}
	return kind, size, nil
}

// next reads a whole frame. Memory grows with what really comes, not with what the
// frame promises.
func (f *Reader) next() (kind byte, body []byte, err error) {
	kind, size, err := f.head()
	if err != nil {
		return 0, nil, err
	}
	var b bytes.Buffer
	n, err := io.CopyN(&b, f.r, int64(size))
	f.sum.Write(b.Bytes())
	f.read += uint64(n)
	if err != nil {
		return 0, nil, f.fail(short(err))
	}
	return kind, b.Bytes(), nil
}

func (f *Reader) full(p []byte) error {
	n, err := io.ReadFull(f.r, p)
	f.sum.Write(p[:n])
	f.read += uint64(n)
	if err != nil {
		return f.fail(short(err))
	}
	return nil
}

func (f *Reader) fail(err error) error {
	if f.err == nil {
		f.err = err
	}
	return f.err
}

// short words the end of a file that must go on.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends too early", ErrFormat)
	}
	return err
}

// strict decodes JSON that our own writer wrote: no unknown members, and the same
// bytes when it is encoded again.
func strict(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	again, err := json.Marshal(into)
	if err != nil || !bytes.Equal(again, body) {
		return fmt.Errorf("%w: JSON that is not as a broker writes it", ErrFormat)
	}
	return nil
}
