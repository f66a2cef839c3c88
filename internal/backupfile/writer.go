package backupfile

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"slices"
)

// Signer signs the manifest: *signing.Signer.
type Signer interface {
	SignStatement(payloadType string, payload []byte) ([]byte, error)
}

// Writer writes one backup. Not safe for concurrent use; after an error it must not
// be used any more.
type Writer struct {
	w       io.Writer
	sum     hash.Hash
	written uint64
	head    Head
	streams []Stream
}

// NewWriter writes the header. head.Version is set.
//
// Errors: ErrTooLarge, and those of w.
func NewWriter(w io.Writer, head Head) (*Writer, error) {
	head.Version = Version
	head.Created = head.Created.UTC().Truncate(1e9)
	f := &Writer{w: w, sum: sha256.New(), head: head}
	if err := f.write([]byte(magic)); err != nil {
		return nil, err
	}
	return f, f.document(frameHead, &head, MaxHeadBytes)
}

// Stream writes one stream: save writes the archive to the writer that it is given,
// while its contents are counted. save must not keep the writer.
//
// Errors: those of save and of the underlying writer; ErrFormat when save wrote no
// whole archive.
func (f *Writer) Stream(head StreamHead, save func(io.Writer) error) error {
	if !PlainStream(head.Name) || slices.ContainsFunc(f.streams, func(s Stream) bool { return s.Name == head.Name }) {
		return fmt.Errorf("%w: stream name %q", ErrFormat, head.Name)
	}
	if err := f.document(frameStream, &head, MaxConfigBytes); err != nil {
		return err
	}
	counts, err := f.archive(save)
	if err != nil {
		return fmt.Errorf("stream %s: %w", head.Name, err)
	}
	counts.Name = head.Name
	f.streams = append(f.streams, counts)
	return f.frame(frameEnd, nil)
}

// archive passes what save writes on into data frames, and through the reader of
// archives, which counts it.
func (f *Writer) archive(save func(io.Writer) error) (Stream, error) {
	pr, pw := io.Pipe()
	var counts Stream
	scanned := make(chan error, 1)
	go func() {
		var err error
		counts, err = scan(pr, nil)
		pr.CloseWithError(err) // nil: io.ErrClosedPipe for what comes after the archive
		scanned <- err
	}()
	data := &dataWriter{f: f, sum: sha256.New()}
	err := save(io.MultiWriter(data, pw))
	pw.CloseWithError(err) // nil: the end
	scanErr := <-scanned
	if err != nil {
		return Stream{}, err
	}
	if scanErr != nil {
		return Stream{}, scanErr
	}
	counts.ArchiveBytes, counts.SHA256 = data.n, hex.EncodeToString(data.sum.Sum(nil))
	return counts, nil
}

// Finish writes the manifest, signed by s. The file is whole after it.
//
// Errors: ErrTooLarge, those of s and of the underlying writer.
func (f *Writer) Finish(s Signer) (*Manifest, error) {
	m := &Manifest{
		Version: Version, ID: f.head.ID, Tenant: f.head.Tenant, Node: f.head.Node, Created: f.head.Created,
		Policy: f.head.Policy, Root: f.head.Root, Streams: f.streams,
		Bytes: f.written, SHA256: hex.EncodeToString(f.sum.Sum(nil)),
	}
	if m.Streams == nil {
		m.Streams = []Stream{}
	}
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("backupfile: %w", err)
	}
	doc, err := s.SignStatement(PayloadType, payload)
	if err != nil {
		return nil, err
	}
	if len(doc) > MaxManifestBytes {
		return nil, fmt.Errorf("%w: manifest of %d bytes", ErrTooLarge, len(doc))
	}
	return m, f.frame(frameManifest, doc)
}

func (f *Writer) document(kind byte, v any, most int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("backupfile: %w", err)
	}
	if len(body) > most {
		return fmt.Errorf("%w: %c frame of %d bytes", ErrTooLarge, kind, len(body))
	}
	return f.frame(kind, body)
}

func (f *Writer) frame(kind byte, body []byte) error {
	var head [frameHeadBytes]byte
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(body)))
	if err := f.write(head[:]); err != nil {
		return err
	}
	return f.write(body)
}

func (f *Writer) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	f.sum.Write(b)
	f.written += uint64(len(b))
	_, err := f.w.Write(b)
	return err
}

// dataWriter cuts an archive into data frames.
type dataWriter struct {
	f   *Writer
	sum hash.Hash
	n   uint64
}

// Write implements io.Writer.
func (d *dataWriter) Write(p []byte) (int, error) {
	for part := range slices.Chunk(p, MaxDataBytes) {
		if err := d.f.frame(frameData, part); err != nil {
			return 0, err
		}
	}
	d.sum.Write(p)
	d.n += uint64(len(p))
	return len(p), nil
}
