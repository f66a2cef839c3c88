package backupfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// Trust is what a backup is verified against.
type Trust struct {
	// Root is the public root key that must have signed the keyring in the backup.
	// Required.
	Root string
	// Ring is the keyring in force at the broker that restores; nil: none. Every
	// event and the manifest must hold under it too, so that what was revoked since
	// is refused, and so that readers can verify what they will be given.
	Ring *keyring.Ring
	// MaxBytes bounds headers and payloads of a stream; nil: unbounded. It is asked
	// before the manifest has verified.
	MaxBytes func(stream string) (int64, error)
}

// Proof is what a verified backup holds.
type Proof struct {
	Head     Head
	Manifest Manifest
	Key      string // that signed the manifest
	Proven   uint64 // events whose attestation holds
	Unproven uint64 // messages that the manifest alone covers: buckets and dead letters

	archives map[string]int64 // where the data frames of each stream begin
}

// Archive returns the snapshot of a stream out of the verified file r. At its end it
// fails if the bytes are not those that were verified.
//
// Errors: ErrFormat where there is no such stream. The reader's: ErrChanged,
// ErrFormat, and those of r.
func (p *Proof) Archive(r io.ReaderAt, stream string) (io.Reader, error) {
	at, ok := p.archives[stream]
	if !ok {
		return nil, fmt.Errorf("%w: no stream %s", ErrFormat, stream)
	}
	for i := range p.Manifest.Streams {
		if s := &p.Manifest.Streams[i]; s.Name == stream {
			f := &Reader{r: io.NewSectionReader(r, at, math.MaxInt64-at), sum: sha256.New()}
			return &checked{section: section{f: f, sum: sha256.New()}, want: s}, nil
		}
	}
	return nil, fmt.Errorf("%w: no stream %s", ErrFormat, stream)
}

// checked is an archive that must be the one of the manifest.
type checked struct {
	section
	want *Stream
}

// Read implements io.Reader.
func (c *checked) Read(p []byte) (int, error) {
	n, err := c.section.Read(p)
	if errors.Is(err, io.EOF) && (c.n != c.want.ArchiveBytes || hex.EncodeToString(c.sum.Sum(nil)) != c.want.SHA256) {
		return n, fmt.Errorf("%w: stream %s, after it was verified", ErrChanged, c.want.Name)
	}
	return n, err
}

// Verify reads a backup to its end and checks everything that can be checked: that
// the keyring in it is signed by the root, that every event of an event stream is
// attested, on its subject, for the tenant of the backup, under a key that was
// valid; that no event is missing between the first and the last; and that header,
// counts and hashes are those of the signed manifest. It needs memory for one
// message.
//
// Errors: ErrForeign, ErrFormat, ErrVersion, ErrTooLarge, ErrNotProven, ErrChanged,
// keyring.ErrRootKey, and those of r and of trust.MaxBytes.
func Verify(r io.Reader, trust Trust) (*Proof, error) {
	f, head, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	p := &prover{trust: trust, proof: Proof{Head: *head, archives: map[string]int64{}}}
	if err := p.keyring(); err != nil {
		return nil, err
	}
	var found []Stream
	for {
		stream, archive, err := f.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if _, twice := p.proof.archives[stream.Name]; twice {
			return nil, fmt.Errorf("%w: stream %s is there twice", ErrFormat, stream.Name)
		}
		p.proof.archives[stream.Name] = int64(f.read)
		counts, err := p.stream(stream, archive)
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", stream.Name, err)
		}
		counts.Name = stream.Name
		counts.ArchiveBytes, counts.SHA256 = f.ArchiveSum()
		found = append(found, counts)
	}
	if err := p.manifest(f, found); err != nil {
		return nil, err
	}
	return &p.proof, nil
}

// prover is one run of Verify.
type prover struct {
	trust Trust
	proof Proof
	ring  *keyring.Ring // of the backup

	then, now *signing.Verifier // under the backup's ring, and under that in force
	event     cloudevent.Event
}

func (p *prover) keyring() error {
	if p.proof.Head.Root != p.trust.Root {
		return fmt.Errorf("%w: its root key is %.60q, the trusted one is %s", ErrForeign, p.proof.Head.Root, p.trust.Root)
	}
	// The time of its expiry is long past when an old backup is needed.
	ring, err := keyring.Parse(p.proof.Head.Keyring, p.trust.Root, time.Time{})
	if errors.Is(err, keyring.ErrRootKey) {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: its keyring: %w", ErrForeign, err)
	}
	p.ring, p.then = ring, signing.NewArchiveVerifier(ring)
	if p.trust.Ring != nil {
		p.now = signing.NewArchiveVerifier(p.trust.Ring)
	}
	return nil
}

func (p *prover) stream(head *StreamHead, archive io.Reader) (Stream, error) {
	limit := int64(-1)
	if p.trust.MaxBytes != nil {
		var err error
		if limit, err = p.trust.MaxBytes(head.Name); err != nil {
			return Stream{}, err
		}
	}
	var config struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(head.Config, &config); err != nil || config.Name != head.Name {
		return Stream{}, fmt.Errorf("%w: configuration of another stream", ErrFormat)
	}
	kind := KindOf(head.Name)
	var bytes int64
	counts, err := scan(archive, func(m *message) error {
		if bytes += int64(len(m.header) + len(m.data)); limit >= 0 && bytes > limit {
			return fmt.Errorf("%w: more than %d bytes are stored in it", ErrTooLarge, limit)
		}
		if !fits(kind, head.Name, m.subject) {
			return fmt.Errorf("%w: message %d is on %.100q, which does not belong there", ErrFormat, m.seq, m.subject)
		}
		if kind != KindEvents {
			p.proof.Unproven++
			return nil
		}
		if err := p.prove(m); err != nil {
			return fmt.Errorf("%w: sequence %d on %s: %w", ErrNotProven, m.seq, m.subject, err)
		}
		p.proof.Proven++
		return nil
	})
	if err != nil {
		return Stream{}, err
	}
	// Nothing deletes from an event stream but its age, from the front.
	if kind == KindEvents && counts.Messages > 0 && (counts.LastSeq-counts.FirstSeq+1 != counts.Messages || counts.LastSeq != counts.EndSeq) {
		return Stream{}, fmt.Errorf("%w: events are missing between %d and %d: %d of them", ErrChanged,
			counts.FirstSeq, counts.EndSeq, counts.EndSeq-counts.FirstSeq+1-counts.Messages)
	}
	return counts, nil
}

// fits reports whether a stream of this kind can have a message on subject. The
// subjects of an event stream may have changed since; what each event was published
// on is in its attestation.
func fits(kind Kind, stream, subject string) bool {
	if wire.CheckRawSubject(subject, false) != nil {
		return false
	}
	switch kind {
	case KindDLQ:
		return strings.HasPrefix(subject, wire.PrefixDLQ)
	case KindRetry:
		return strings.HasPrefix(subject, wire.PrefixRetry) || strings.HasPrefix(subject, wire.PrefixRedrive)
	case KindKV:
		return strings.HasPrefix(subject, wire.PrefixKV+strings.TrimPrefix(stream, prefixKV)+".")
	case KindObject:
		return strings.HasPrefix(subject, wire.PrefixObject+strings.TrimPrefix(stream, prefixObject)+".")
	}
	return wire.CheckSubject(subject) == nil
}

// prove verifies one event as a reader of the tenant would.
func (p *prover) prove(m *message) error {
	headers, err := headerMap(m.header)
	if err != nil {
		return err
	}
	if err := p.event.FromHeaderMap(headers, m.data); err != nil {
		return err
	}
	signing.Restore(&p.event)
	a, err := p.then.Verify(&p.event, m.subject)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(a.Principal, p.proof.Head.Tenant+"/") {
		return fmt.Errorf("it is of %s, not of the tenant %s", a.Principal, p.proof.Head.Tenant)
	}
	if p.now != nil {
		if _, err := p.now.Verify(&p.event, m.subject); err != nil {
			return fmt.Errorf("under the keyring in force: %w (key %s)", err, a.KeyID)
		}
	}
	return nil
}

// manifest checks the signed manifest against what was found.
func (p *prover) manifest(f *Reader, found []Stream) error {
	payload, key, err := signing.VerifyStatement(f.signed, PayloadType, p.ring)
	if err != nil {
		return fmt.Errorf("%w: manifest: %w", ErrChanged, err)
	}
	m := &p.proof.Manifest
	if err := strict(payload, m); err != nil {
		return err
	}
	if !key.ValidAt(m.Created) {
		return fmt.Errorf("%w: manifest: key %s was not valid at %s", ErrChanged, key.ID, m.Created.Format(time.RFC3339))
	}
	if p.trust.Ring != nil {
		if now, ok := p.trust.Ring.ByID(key.ID); !ok || now.Role != keyring.RoleBroker || !now.ValidAt(m.Created) {
			return fmt.Errorf("%w: manifest: key %s is not valid under the keyring in force", ErrChanged, key.ID)
		}
	}
	p.proof.Key = key.ID
	head := &p.proof.Head
	want := Manifest{
		Version: Version, ID: head.ID, Tenant: head.Tenant, Node: head.Node, Created: head.Created,
		Policy: head.Policy, Root: head.Root, Streams: found, Bytes: f.before, SHA256: f.digest,
	}
	if want.Streams == nil {
		want.Streams = []Stream{}
	}
	have, err := json.Marshal(&want)
	if err != nil {
		return fmt.Errorf("backupfile: %w", err)
	}
	if !bytes.Equal(have, payload) {
		return fmt.Errorf("%w: header, counts or hashes are not those that %s signed", ErrChanged, key.ID)
	}
	return nil
}

var errHeaders = errors.New("backupfile: its headers cannot be read")

// headerMap parses a stored header block: what a broker wrote, so strictly. The
// limits of clients do not hold here, since the broker adds headers of its own.
func headerMap(block []byte) (map[string][]string, error) {
	rest, ok := strings.CutPrefix(string(block), wire.HeaderLine)
	if !ok {
		return nil, errHeaders
	}
	out := map[string][]string{}
	for {
		line, more, ok := strings.Cut(rest, "\r\n")
		if !ok {
			return nil, errHeaders
		}
		if line == "" {
			if more != "" {
				return nil, errHeaders
			}
			return out, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" {
			return nil, errHeaders
		}
		out[name] = append(out[name], strings.Trim(value, " \t"))
		rest = more
	}
}
