package tlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// Errors of checkpoints.
var (
	// ErrMalformed: not in the one accepted encoding.
	ErrMalformed = errors.New("tlog: malformed")
	// ErrUnknownKey: signed by a key that is not in the keyring as a broker's.
	ErrUnknownKey = errors.New("tlog: the checkpoint is signed by no broker key of the keyring")
	// ErrKeyNotValid: the key was not valid at the time of the checkpoint.
	ErrKeyNotValid = errors.New("tlog: the key was not valid at the time of the checkpoint")
	// ErrKeyRevoked: the key has been revoked, so that the time of the checkpoint counts for nothing.
	ErrKeyRevoked = errors.New("tlog: the key of the checkpoint has been revoked")
	// ErrFuture: the checkpoint claims a time that has not come.
	ErrFuture = errors.New("tlog: the checkpoint is from the future")
	// ErrBadSignature: the signature is not that of the text.
	ErrBadSignature = errors.New("tlog: the signature of the checkpoint does not match")
)

// MaxCheckpointBytes bounds a checkpoint.
const MaxCheckpointBytes = 2048

// MaxSkew is how far the clock of the broker that signed a checkpoint may be before that
// of its reader.
const MaxSkew = 5 * time.Minute

const (
	timeLayout    = "2006-01-02T15:04:05.000Z"
	createdLayout = "2006-01-02T15:04:05.000000000Z"
	startLayout   = "20060102T150405Z"
	noteAlg       = 1 // Ed25519 in a C2SP signed note
	noteSigBytes  = 4 + ed25519.SignatureSize
	noteLead      = "— "
)

// Origin names one log: one run of the log of one stream. A log that is started anew
// has another Start, so it is another origin and contradicts nothing.
type Origin struct {
	Cluster string // of the cluster, or the node without one
	Tenant  string
	Stream  string
	Start   time.Time // whole seconds
}

var originParts = regexp.MustCompile(`^[A-Za-z0-9_.$-]{1,256}$`)

// String returns the origin line: signet/log/v1/<cluster>/<tenant>/<stream>/<start>.
func (o Origin) String() string {
	return signing.LogOriginPrefix + strings.Join([]string{o.Cluster, o.Tenant, o.Stream, o.ID()}, "/")
}

// ID returns the start as the origin and the subjects of tiles have it.
func (o Origin) ID() string { return o.Start.UTC().Format(startLayout) }

// ParseOrigin reads an origin line.
//
// Errors: ErrMalformed.
func ParseOrigin(line string) (Origin, error) {
	rest, ok := strings.CutPrefix(line, signing.LogOriginPrefix)
	part := strings.Split(rest, "/")
	if !ok || len(part) != 4 {
		return Origin{}, fmt.Errorf("%w: origin %q", ErrMalformed, line)
	}
	start, err := time.Parse(startLayout, part[3])
	o := Origin{Cluster: part[0], Tenant: part[1], Stream: part[2], Start: start}
	if err != nil || o.String() != line {
		return Origin{}, fmt.Errorf("%w: origin %q", ErrMalformed, line)
	}
	for _, p := range part[:3] {
		if !originParts.MatchString(p) {
			return Origin{}, fmt.Errorf("%w: origin %q", ErrMalformed, line)
		}
	}
	return o, nil
}

// Checkpoint is the state of a log at a time, as a broker signed it.
type Checkpoint struct {
	Origin Origin
	Size   int64 // leaves
	Root   Hash
	First  uint64    // sequence of the leaf with index 0, at least 1
	Time   time.Time // by the broker's clock, whole milliseconds
	// Created is when the stream was made, by which one that was deleted and made anew
	// is told from it.
	Created time.Time
}

// Next returns the first sequence that the log does not cover.
func (c *Checkpoint) Next() uint64 { return c.First + uint64(c.Size) }

// Index returns the index of the leaf of a sequence.
//
// Errors: ErrSize for one that the log does not cover.
func (c *Checkpoint) Index(seq uint64) (int64, error) {
	if seq < c.First || seq >= c.Next() {
		return 0, fmt.Errorf("%w: sequence %d; the log covers %d up to, not including, %d", ErrSize, seq, c.First, c.Next())
	}
	return int64(seq - c.First), nil
}

// text is what is signed.
func (c *Checkpoint) text() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\nfirst %d\ntime %s\ncreated %s\n", c.Origin, c.Size, c.Root, c.First,
		c.Time.UTC().Format(timeLayout), c.Created.UTC().Format(createdLayout))
}

// Sign returns the signed note of c.
//
// Errors: ErrMalformed if c cannot be written, signing.ErrNote.
func (c *Checkpoint) Sign(s *signing.Signer) ([]byte, error) {
	text := c.text()
	if back, err := parseText(string(text)); err != nil {
		return nil, err
	} else if !bytes.Equal(back.text(), text) {
		return nil, fmt.Errorf("%w: a checkpoint that reads otherwise than it is written", ErrMalformed)
	}
	sig, err := s.SignNote(text)
	if err != nil {
		return nil, err
	}
	return appendNote(text, c.Origin.String(), s.Public(), sig), nil
}

func appendNote(text []byte, name string, public ed25519.PublicKey, sig []byte) []byte {
	raw := binary.BigEndian.AppendUint32(nil, noteKeyHash(name, public))
	raw = append(raw, sig...)
	text = append(text, '\n')
	text = append(text, noteLead+name+" "...)
	text = base64.StdEncoding.AppendEncode(text, raw)
	return append(text, '\n')
}

// noteKeyHash is the key id of a C2SP signed note.
func noteKeyHash(name string, public ed25519.PublicKey) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write([]byte{noteAlg})
	h.Write(public)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// Note is a checkpoint with its signature, which may not be verified yet.
type Note struct {
	Checkpoint
	keyHash uint32
	sig     []byte
	raw     []byte
}

// Bytes returns the signed note as it was parsed. It must not be changed.
func (n *Note) Bytes() []byte { return n.raw }

// ParseNote reads a signed checkpoint strictly: the text that Sign writes and one
// signature, whose name is the origin. It verifies nothing: see Note.Verify.
//
// Errors: ErrMalformed.
func ParseNote(note []byte) (*Note, error) {
	if len(note) > MaxCheckpointBytes {
		return nil, fmt.Errorf("%w: checkpoint of %d bytes, limit %d", ErrMalformed, len(note), MaxCheckpointBytes)
	}
	text, line, ok := strings.Cut(string(note), "\n\n")
	if !ok {
		return nil, fmt.Errorf("%w: checkpoint without a signature", ErrMalformed)
	}
	text += "\n"
	c, err := parseText(text)
	if err != nil {
		return nil, err
	}
	code, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), noteLead+c.Origin.String()+" ")
	raw, err := base64.StdEncoding.Strict().DecodeString(code)
	if !ok || err != nil || len(raw) != noteSigBytes {
		return nil, fmt.Errorf("%w: signature line of the checkpoint", ErrMalformed)
	}
	n := &Note{Checkpoint: *c, keyHash: binary.BigEndian.Uint32(raw), sig: raw[4:], raw: bytes.Clone(note)}
	want := []byte(text + "\n" + noteLead + c.Origin.String() + " " + base64.StdEncoding.EncodeToString(raw) + "\n")
	if !bytes.Equal(want, note) {
		return nil, fmt.Errorf("%w: checkpoint is not in its one encoding", ErrMalformed)
	}
	return n, nil
}

func parseText(text string) (*Checkpoint, error) {
	bad := func(what string) (*Checkpoint, error) {
		return nil, fmt.Errorf("%w: %s of the checkpoint", ErrMalformed, what)
	}
	line := strings.Split(text, "\n")
	if len(line) != 7 || line[6] != "" {
		return bad("number of lines")
	}
	var c Checkpoint
	var err error
	if c.Origin, err = ParseOrigin(line[0]); err != nil {
		return nil, err
	}
	if c.Size, err = strconv.ParseInt(line[1], 10, 64); err != nil || c.Size < 0 || c.Size > MaxSize {
		return bad("size")
	}
	if c.Root, err = tlog.ParseHash(line[2]); err != nil {
		return bad("root")
	}
	value := func(i int, name string) string {
		v, ok := strings.CutPrefix(line[i], name+" ")
		if !ok {
			err = ErrMalformed
		}
		return v
	}
	first, when, created := value(3, "first"), value(4, "time"), value(5, "created")
	if err != nil {
		return bad("extension lines")
	}
	if c.First, err = strconv.ParseUint(first, 10, 63); err != nil || c.First == 0 {
		return bad("first sequence")
	}
	if c.Time, err = time.Parse(timeLayout, when); err != nil {
		return bad("time")
	}
	if c.Created, err = time.Parse(createdLayout, created); err != nil {
		return bad("time of the stream's creation")
	}
	if string(c.text()) != text {
		return bad("encoding")
	}
	return &c, nil
}

// VerifyAt is Verify for a reader whose clock says now: a time that has not come is no
// time at which a key can have been valid.
//
// Errors: those of Verify, ErrFuture.
func (n *Note) VerifyAt(ring *keyring.Ring, now time.Time) (keyring.Key, error) {
	key, err := n.Verify(ring)
	if err == nil {
		err = n.CheckTime(now)
	}
	return key, err
}

// CheckTime says whether the time of c can be, for a reader whose clock says now.
//
// Errors: ErrFuture.
func (c *Checkpoint) CheckTime(now time.Time) error {
	if c.Time.After(now.Add(MaxSkew)) {
		return fmt.Errorf("%w: it says %s, the clock here %s: compare the clocks of the nodes and of this machine", ErrFuture, c.Time.Format(timeLayout), now.UTC().Format(timeLayout))
	}
	return nil
}

// Verify checks that a broker key of ring signed n, and that the key was valid at the
// time of the checkpoint. The expiry of ring is the caller's to check, and that the time
// has come: see VerifyAt.
//
// Errors: ErrUnknownKey, ErrKeyNotValid, ErrBadSignature.
func (n *Note) Verify(ring *keyring.Ring) (keyring.Key, error) {
	if ring == nil {
		return keyring.Key{}, fmt.Errorf("tlog: %w", signing.ErrNoKeyring)
	}
	name, text := n.Origin.String(), n.text()
	found := ErrUnknownKey
	for _, k := range ring.Keys() { // four bytes tell keys apart, but prove nothing
		if k.Role != keyring.RoleBroker || noteKeyHash(name, k.Public()) != n.keyHash {
			continue
		}
		switch {
		case !ed25519.Verify(k.Public(), text, n.sig):
			found = ErrBadSignature
		case !k.ValidAt(n.Time):
			found = fmt.Errorf("%w: %s at %s", ErrKeyNotValid, k.ID, n.Time.Format(timeLayout))
		default:
			return k, nil
		}
	}
	return keyring.Key{}, found
}
