package tlog

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

const (
	// ProofFormat is the value of format in a proof document.
	ProofFormat = "signet/log-proof/v1"
	// MaxProofBytes bounds a proof document.
	MaxProofBytes = 64 << 20
	// maxHashes is the longest list of hashes in a proof: two sides of 48 levels.
	maxHashes = 2 * 48
)

// Proof shows that the log has these leaves at these sequences, one after the other
// without a gap, under a signed checkpoint. It holds everything that a verifier needs
// but the root key.
type Proof struct {
	First      uint64 // sequence of Leaves[0]
	Leaves     []ProofLeaf
	Hashes     []Hash
	Checkpoint []byte // signed note
	Keyring    []byte // signed document
}

// ProofLeaf is what is proven to stand at one sequence.
type ProofLeaf struct {
	Kind        Kind
	Stored      int64  // nanoseconds since 1970
	NATSSubject string // of an Event and a Message
	Headers     Hash   // of an Event: digest of its other headers
	Event       *cloudevent.Event
	Block, Data []byte // of a Message: header block and payload
}

// leafJSON is a leaf in a document.
type leafJSON struct {
	Kind     string          `json:"kind"`
	StoredNs int64           `json:"storedNs,omitempty"`
	Subject  string          `json:"natsSubject,omitempty"`
	Headers  string          `json:"otherHeaders,omitempty"`
	Event    json.RawMessage `json:"event,omitempty"`
	Block    []byte          `json:"headers_base64,omitempty"`
	Data     []byte          `json:"data_base64,omitempty"`
}

type proofJSON struct {
	Format     string     `json:"format"`
	First      uint64     `json:"first"`
	Leaves     leavesJSON `json:"leaves"`
	Hashes     hashesJSON `json:"hashes"`
	Checkpoint string     `json:"checkpoint"`
	Keyring    string     `json:"keyring"`
}

// leavesJSON and hashesJSON stop at their limit: an element of a list costs much more
// memory than the bytes that it is read from.
type (
	leavesJSON []leafJSON
	hashesJSON []string
)

func (l *leavesJSON) UnmarshalJSON(doc []byte) error {
	return atMost(doc, MaxRange, (*[]leafJSON)(l))
}

func (h *hashesJSON) UnmarshalJSON(doc []byte) error {
	return atMost(doc, maxHashes, (*[]string)(h))
}

// atMost decodes a list of at most limit elements, strictly.
func atMost[T any](doc []byte, limit int, out *[]T) error {
	*out = nil
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if t, err := dec.Token(); err != nil || t != json.Delim('[') {
		return fmt.Errorf("%w: not a list", ErrMalformed)
	}
	for dec.More() {
		if len(*out) == limit {
			return fmt.Errorf("%w: a list of more than %d", ErrMalformed, limit)
		}
		var one T
		if err := dec.Decode(&one); err != nil {
			return err
		}
		*out = append(*out, one)
	}
	_, err := dec.Token()
	return err
}

var kindNames = map[Kind]string{Absent: "absent", Event: "event", Message: "message"}

// String returns the word that documents have for k.
func (k Kind) String() string { return kindNames[k] }

// Encode returns the document of p, which is the only one that ParseProof takes for it.
//
// Errors: ErrMalformed for what does not fit in a document.
func (p *Proof) Encode() ([]byte, error) {
	out := proofJSON{
		Format: ProofFormat, First: p.First, Leaves: make([]leafJSON, 0, len(p.Leaves)), Hashes: []string{},
		Checkpoint: string(p.Checkpoint), Keyring: string(p.Keyring),
	}
	for i := range p.Leaves {
		l := &p.Leaves[i]
		j := leafJSON{Kind: kindNames[l.Kind], StoredNs: l.Stored, Subject: l.NATSSubject}
		switch l.Kind {
		case Event:
			j.Headers = l.Headers.String()
			j.Event = cloudevent.AppendJSON(nil, l.Event)
		case Message:
			j.Block, j.Data = l.Block, l.Data
		}
		out.Leaves = append(out.Leaves, j)
	}
	for _, h := range p.Hashes {
		out.Hashes = append(out.Hashes, h.String())
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(&out); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if b.Len() > MaxProofBytes {
		return nil, fmt.Errorf("%w: a proof of %d bytes, limit %d: ask for fewer sequences", ErrMalformed, b.Len(), MaxProofBytes)
	}
	return b.Bytes(), nil
}

// IsProof says whether doc claims to be a proof document; it need not be a good one.
func IsProof(doc []byte) bool {
	return bytes.HasPrefix(doc, []byte("{\n \"format\": \""+ProofFormat+"\""))
}

// ParseProof reads a document strictly. It verifies nothing: see Proof.Verify.
//
// Errors: ErrMalformed.
func ParseProof(doc []byte) (*Proof, error) {
	if len(doc) > MaxProofBytes {
		return nil, fmt.Errorf("%w: a proof of %d bytes, limit %d", ErrMalformed, len(doc), MaxProofBytes)
	}
	var in proofJSON
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf("%w: the proof is not its JSON: %w", ErrMalformed, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: bytes after the proof", ErrMalformed)
	}
	switch {
	case in.Format != ProofFormat:
		return nil, fmt.Errorf("%w: format %q; this verifier reads %s", ErrMalformed, in.Format, ProofFormat)
	case len(in.Leaves) == 0 || len(in.Leaves) > MaxRange:
		return nil, fmt.Errorf("%w: %d leaves, want 1 to %d", ErrMalformed, len(in.Leaves), MaxRange)
	case len(in.Hashes) > maxHashes:
		return nil, fmt.Errorf("%w: %d hashes, limit %d", ErrMalformed, len(in.Hashes), maxHashes)
	}
	p := &Proof{First: in.First, Checkpoint: []byte(in.Checkpoint), Keyring: []byte(in.Keyring)}
	for i := range in.Leaves {
		l, err := in.Leaves[i].decode()
		if err != nil {
			return nil, fmt.Errorf("sequence %d: %w", in.First+uint64(i), err)
		}
		p.Leaves = append(p.Leaves, *l)
	}
	for _, text := range in.Hashes {
		h, err := parseHash(text)
		if err != nil {
			return nil, err
		}
		p.Hashes = append(p.Hashes, h)
	}
	// encoding/json takes other letter cases, repeated members, any white space and
	// any escape; only what Encode writes is accepted.
	if again, err := p.Encode(); err != nil || !bytes.Equal(again, doc) {
		return nil, fmt.Errorf("%w: the proof is not in its one encoding; was it edited or re-printed?", ErrMalformed)
	}
	return p, nil
}

func parseHash(text string) (Hash, error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != len(Hash{}) {
		return Hash{}, fmt.Errorf("%w: hash %q", ErrMalformed, text)
	}
	return Hash(raw), nil
}

func (j *leafJSON) decode() (*ProofLeaf, error) {
	l := &ProofLeaf{Stored: j.StoredNs, NATSSubject: j.Subject, Block: j.Block, Data: j.Data}
	switch j.Kind {
	case kindNames[Absent]:
		if l.Stored != 0 || l.NATSSubject != "" || len(j.Event)+len(j.Block)+len(j.Data)+len(j.Headers) > 0 {
			return nil, fmt.Errorf("%w: an absent leaf with content", ErrMalformed)
		}
		return l, nil
	case kindNames[Message]:
		if len(j.Event)+len(j.Headers) > 0 {
			return nil, fmt.Errorf("%w: a message with members of an event", ErrMalformed)
		}
		l.Kind = Message
		return l, nil
	case kindNames[Event]:
	default:
		return nil, fmt.Errorf("%w: leaf of the kind %q", ErrMalformed, j.Kind)
	}
	l.Kind = Event
	var err error
	if l.Headers, err = parseHash(j.Headers); err != nil {
		return nil, err
	}
	if len(j.Block)+len(j.Data) > 0 {
		return nil, fmt.Errorf("%w: an event with members of a message", ErrMalformed)
	}
	l.Event = new(cloudevent.Event)
	if err := l.Event.FromJSON(j.Event, nil); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return l, nil
}

// Verified is what a proof proves.
type Verified struct {
	Checkpoint *Checkpoint
	Key        keyring.Key   // the broker that signed the checkpoint
	Ring       *keyring.Ring // may have expired: a newer one may revoke more
	Leaves     []VerifiedLeaf
}

// VerifiedLeaf is one proven sequence.
type VerifiedLeaf struct {
	*ProofLeaf
	Sequence uint64
	// Attestation of an Event whose own signature holds too; else Unattested says why not.
	// Of an event whose key has been revoked, it also says that the log had the event
	// before that.
	Attestation *signing.Attestation
	Unattested  error
}

// Verify checks everything: the keyring against the pinned root key, the signature of
// the checkpoint, and that the leaves of all sequences from First on are in the log.
// ring, if not nil, is used in place of the keyring in p: a newer one that the caller
// has verified. Neither ring's expiry is looked at: a proof is for later.
//
// Of its own time, an event and a checkpoint say what the holder of the key likes. So a
// checkpoint by a key that has been revoked proves nothing: the log has another one by now.
// And an attestation by such a key counts only if the log was begun before the revocation and
// says that the event was stored before it; docs/spec/log.md, section 7, says what that leaves.
//
// Errors: those of keyring.Parse, of ParseNote and Note.VerifyAt, ErrKeyRevoked, ErrSize,
// ErrProof, signing.ErrMalformed.
func (p *Proof) Verify(rootKey string, ring *keyring.Ring) (*Verified, error) {
	if ring == nil {
		var err error
		if ring, err = keyring.Parse(p.Keyring, rootKey, time.Time{}); err != nil {
			return nil, err
		}
	}
	note, err := ParseNote(p.Checkpoint)
	if err != nil {
		return nil, err
	}
	out := &Verified{Checkpoint: &note.Checkpoint, Ring: ring}
	if out.Key, err = note.VerifyAt(ring, time.Now()); err != nil {
		return nil, err
	}
	if !out.Key.RevokedAt.IsZero() {
		return nil, fmt.Errorf("%w: %s is revoked from %s on: get a new proof",
			ErrKeyRevoked, out.Key.ID, out.Key.RevokedAt.Format(time.RFC3339))
	}
	from, err := note.Index(p.First)
	if err != nil {
		return nil, err
	}
	var h Hasher
	hashes := make([]Hash, 0, len(p.Leaves))
	verifier := signing.NewArchiveVerifier(ring)
	for i := range p.Leaves {
		seq := p.First + uint64(i)
		l, err := p.Leaves[i].leaf(&h, seq)
		if err != nil {
			return nil, fmt.Errorf("sequence %d: %w", seq, err)
		}
		hashes = append(hashes, l.Hash())
		out.Leaves = append(out.Leaves, out.attested(verifier, &p.Leaves[i], seq))
	}
	root, err := RangeRoot(note.Size, from, hashes, p.Hashes)
	if err != nil {
		return nil, err
	}
	if root != note.Root {
		return nil, ErrProof
	}
	return out, nil
}

// leaf makes the leaf anew from what the proof says.
func (l *ProofLeaf) leaf(h *Hasher, seq uint64) (Leaf, error) {
	switch l.Kind {
	case Absent:
		return Leaf{}, nil
	case Event:
		return h.OfEvent(seq, l.Stored, l.Event, l.NATSSubject, l.Headers)
	}
	made := h.Stored(seq, l.Stored, l.NATSSubject, l.Block, l.Data)
	if made.Kind != Message {
		return Leaf{}, fmt.Errorf("%w: an event that is called a message", ErrMalformed)
	}
	return made, nil
}

func (v *Verified) attested(verifier *signing.Verifier, l *ProofLeaf, seq uint64) VerifiedLeaf {
	out := VerifiedLeaf{ProofLeaf: l, Sequence: seq}
	if l.Kind != Event {
		return out
	}
	a, err := verifier.Verify(l.Event, l.NATSSubject)
	if err == nil {
		err = v.beforeRevocation(a.KeyID, time.Unix(0, l.Stored).UTC())
	}
	if err != nil {
		out.Unattested = err
	} else {
		out.Attestation = &a
	}
	return out
}

// beforeRevocation judges an attestation by the time of the log.
func (v *Verified) beforeRevocation(id string, stored time.Time) error {
	key, _ := v.Ring.ByID(id)
	switch {
	case key.RevokedAt.IsZero():
		return nil
	case !stored.Before(key.RevokedAt):
		return fmt.Errorf("%w: %s is revoked from %s on, and the log has the event since %s only",
			signing.ErrKeyNotValid, id, key.RevokedAt.Format(time.RFC3339), stored.Format(time.RFC3339))
	case !v.Checkpoint.Origin.Start.Before(key.RevokedAt):
		return fmt.Errorf("%w: %s is revoked from %s on, and the log was begun at %s only",
			signing.ErrKeyNotValid, id, key.RevokedAt.Format(time.RFC3339), v.Checkpoint.Origin.Start.Format(time.RFC3339))
	}
	return nil
}

// LeafOf returns the leaf of a stored message as a proof has it. seq and stored are as
// the stream has them; block and data are kept.
func LeafOf(h *Hasher, stored int64, natsSubject string, block, data []byte) ProofLeaf {
	if e, headers, ok := h.Decode(natsSubject, block, data); ok {
		e = e.Clone()
		e.DelExt(wire.AttrNATSSubject) // it stands beside the event
		return ProofLeaf{Kind: Event, Stored: stored, NATSSubject: natsSubject, Headers: headers, Event: e}
	}
	return ProofLeaf{Kind: Message, Stored: stored, NATSSubject: natsSubject, Block: block, Data: data}
}
