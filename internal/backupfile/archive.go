package backupfile

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/s2"
)

// archiveMagic begins what a JetStream snapshot holds once it is decompressed.
const archiveMagic = "NATSARC1"

const (
	stateEntry     = "state.json"
	consumerPrefix = "consumers/"
	maxNameBytes   = 1024
)

// message is one stored message; its slices are valid during the call.
type message struct {
	subject string
	seq     uint64
	header  []byte // the header block, empty if there is none
	data    []byte
}

// entry is the head of one entry of an archive.
type entry struct {
	name         string
	time         int64
	seq          uint64
	header, data int64 // bytes
}

// scanner reads a snapshot: state, consumers, messages, end.
type scanner struct {
	r   *bufio.Reader
	buf []byte
	out Stream
}

// scan reads one snapshot of a stream to its end, calls each (if it is not nil) for
// every message and returns what it counted. It checks what the restore of
// nats-server relies on, and more: plain names, bounded sizes, ascending sequences
// up to the stream's last, the end mark, and nothing after it.
//
// Errors: ErrFormat, ErrTooLarge, those of each and of r.
func scan(r io.Reader, each func(*message) error) (Stream, error) {
	s := &scanner{r: bufio.NewReader(s2.NewReader(r, s2.ReaderAllocBlock(64<<10)))}
	if err := s.all(each); err != nil {
		return Stream{}, err
	}
	// The decompressor stops where it needs no more; the rest of the section, if
	// there is one, is not part of the archive.
	if n, err := io.Copy(io.Discard, r); err != nil {
		return Stream{}, err
	} else if n > 0 {
		return Stream{}, fmt.Errorf("%w: bytes after the archive", ErrFormat)
	}
	return s.out, nil
}

func (s *scanner) all(each func(*message) error) error {
	var begin [len(archiveMagic)]byte
	if _, err := io.ReadFull(s.r, begin[:]); err != nil {
		return archiveErr(err)
	}
	if string(begin[:]) != archiveMagic {
		return fmt.Errorf("%w: a snapshot of an unknown form (nats-server 2.15 writes %s)", ErrFormat, archiveMagic)
	}
	first, err := s.state()
	if err != nil {
		return err
	}
	for range s.out.Consumers {
		if err := s.consumer(); err != nil {
			return err
		}
	}
	for last := first - 1; ; {
		e, err := s.entry()
		if err != nil {
			return err
		}
		if *e == (entry{}) {
			break
		}
		if e.seq <= last || e.seq > s.out.EndSeq {
			return fmt.Errorf("%w: sequence %d after %d of %d", ErrFormat, e.seq, last, s.out.EndSeq)
		}
		last = e.seq
		if err := s.message(e, each); err != nil {
			return err
		}
	}
	if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: entries after the end of the archive", ErrFormat)
	}
	return nil
}

// state reads the first entry, and returns the first sequence of the stream.
func (s *scanner) state() (first uint64, err error) {
	e, err := s.entry()
	if err != nil {
		return 0, err
	}
	if e.name != stateEntry || e.seq != 0 || e.header != 0 || e.data > maxStateBytes {
		return 0, fmt.Errorf("%w: no state of the stream", ErrFormat)
	}
	body, err := s.body(e)
	if err != nil {
		return 0, err
	}
	var state struct {
		First     uint64 `json:"first_seq"`
		Last      uint64 `json:"last_seq"`
		Consumers int    `json:"consumer_count"`
	}
	if err := json.Unmarshal(body, &state); err != nil {
		return 0, fmt.Errorf("%w: state of the stream: %w", ErrFormat, err)
	}
	switch {
	case state.Consumers < 0 || state.Consumers > maxConsumers:
		return 0, fmt.Errorf("%w: %d consumers", ErrTooLarge, state.Consumers)
	case state.First == 0 && state.Last != 0, state.First > 0 && state.First-1 > state.Last:
		return 0, fmt.Errorf("%w: sequences %d to %d", ErrFormat, state.First, state.Last)
	}
	s.out.EndSeq, s.out.Consumers = state.Last, state.Consumers
	return max(state.First, 1), nil
}

// consumer checks that the entry is of the consumer that it says, by a name that is
// no path: the server makes a folder of it.
func (s *scanner) consumer() error {
	e, err := s.entry()
	if err != nil {
		return err
	}
	name, ok := strings.CutPrefix(e.name, consumerPrefix)
	if !ok || e.seq != 0 || e.header != 0 || !plainConsumer.MatchString(name) {
		return fmt.Errorf("%w: entry %.100q where a consumer must be", ErrFormat, e.name)
	}
	if e.data > maxConsumerBytes {
		return fmt.Errorf("%w: consumer %s of %d bytes", ErrTooLarge, name, e.data)
	}
	body, err := s.body(e)
	if err != nil {
		return err
	}
	var c struct {
		Config *struct {
			Name    string `json:"name"`
			Durable string `json:"durable_name"`
		} `json:"config"`
		State *json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return fmt.Errorf("%w: consumer %s: %w", ErrFormat, name, err)
	}
	if c.Config == nil || c.State == nil || c.Config.Name != "" && c.Config.Name != name || c.Config.Durable != "" && c.Config.Durable != name {
		return fmt.Errorf("%w: consumer %s is of another name, or has no configuration or no state", ErrFormat, name)
	}
	return nil
}

func (s *scanner) message(e *entry, each func(*message) error) error {
	switch {
	case e.seq == 0 || e.name == "":
		return fmt.Errorf("%w: entry %.100q among the messages", ErrFormat, e.name)
	case e.header > maxHeaderBytes, e.header+e.data > maxMessageBytes:
		return fmt.Errorf("%w: message %d of %d bytes", ErrTooLarge, e.seq, e.header+e.data)
	}
	body, err := s.body(e)
	if err != nil {
		return err
	}
	if s.out.Messages == 0 {
		s.out.FirstSeq = e.seq
	}
	s.out.LastSeq = e.seq
	s.out.Messages++
	s.out.Bytes += uint64(len(body))
	if each == nil {
		return nil
	}
	return each(&message{subject: e.name, seq: e.seq, header: body[:e.header:e.header], data: body[e.header:]})
}

// entry reads the head of the next entry.
func (s *scanner) entry() (*entry, error) {
	var e entry
	n, err := binary.ReadUvarint(s.r)
	if err != nil {
		return nil, archiveErr(err)
	}
	if e.time, err = binary.ReadVarint(s.r); err != nil {
		return nil, archiveErr(err)
	}
	var sizes [2]uint64
	if e.seq, err = binary.ReadUvarint(s.r); err != nil {
		return nil, archiveErr(err)
	}
	for i := range sizes {
		if sizes[i], err = binary.ReadUvarint(s.r); err != nil {
			return nil, archiveErr(err)
		}
		if sizes[i] > maxMessageBytes {
			return nil, fmt.Errorf("%w: entry of %d bytes", ErrTooLarge, sizes[i])
		}
	}
	e.header, e.data = int64(sizes[0]), int64(sizes[1])
	if n > maxNameBytes {
		return nil, fmt.Errorf("%w: name of %d bytes", ErrTooLarge, n)
	}
	name := make([]byte, n)
	if _, err := io.ReadFull(s.r, name); err != nil {
		return nil, archiveErr(err)
	}
	e.name = string(name)
	return &e, nil
}

// body reads headers and payload of an entry into the scanner's buffer, which grows
// with what really comes.
func (s *scanner) body(e *entry) ([]byte, error) {
	const step = 1 << 20
	s.buf = s.buf[:0]
	for rest := int(e.header + e.data); rest > 0; {
		n := min(rest, step)
		have := len(s.buf)
		s.buf = append(s.buf, make([]byte, n)...)
		if _, err := io.ReadFull(s.r, s.buf[have:]); err != nil {
			return nil, archiveErr(err)
		}
		rest -= n
	}
	return s.buf, nil
}

// archiveErr is an error of the decompressor or of the reader behind it.
func archiveErr(err error) error {
	for _, known := range []error{ErrFormat, ErrTooLarge, ErrChanged} {
		if errors.Is(err, known) {
			return err
		}
	}
	return fmt.Errorf("%w: archive: %w", ErrFormat, err)
}
