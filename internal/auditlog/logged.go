package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/tlog"
)

const (
	// maxLoggedBytes bounds a logged head: a checkpoint, a head of one chain, a path of
	// 48 hashes.
	maxLoggedBytes = 16 << 10
	// maxLogged bounds the logged heads of one export.
	maxLogged = 1024
	// loggedMark is how the line of a logged head begins.
	loggedMark = `{"logged":`
)

// ErrLogged: not a head that the log of the heads has.
var ErrLogged = errors.New("auditlog: not a logged head")

// HeadSubject is the subject of a node's heads for a tenant, in the stream HEADS.
func HeadSubject(tenant, node string) string { return wire.AtNode(wire.PrefixHeads+tenant, node) }

// Logged is a head as the stream HEADS has it, and the proof that the log of that stream
// has it under a signed checkpoint.
type Logged struct {
	Sequence   uint64   `json:"logged"` // in the stream
	Stored     int64    `json:"storedNs"`
	Subject    string   `json:"subject"`
	Block      []byte   `json:"headers_base64"` // header block
	Head       string   `json:"head"`
	Hashes     [][]byte `json:"hashes"` // of the path from the leaf to the root
	Checkpoint string   `json:"checkpoint"`
}

// Encode returns the one line of l.
//
// Errors: ErrLogged if it is too long.
func (l *Logged) Encode() ([]byte, error) {
	out := *l
	out.Block = append([]byte{}, out.Block...) // none is "", not null
	out.Hashes = append([][]byte{}, out.Hashes...)
	line, err := compact(&out)
	if err == nil && len(line) > maxLoggedBytes {
		err = fmt.Errorf("%d bytes, limit %d", len(line), maxLoggedBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLogged, err)
	}
	return line, nil
}

// ParseLogged reads a line strictly. It verifies nothing: see Verify.
//
// Errors: ErrLogged.
func ParseLogged(line []byte) (*Logged, error) {
	if len(line) > maxLoggedBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrLogged, len(line), maxLoggedBytes)
	}
	var l Logged
	if err := strict(line, &l); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLogged, err)
	}
	if again, err := l.Encode(); err != nil || !bytes.Equal(again, line) {
		return nil, fmt.Errorf("%w: not in the one encoding", ErrLogged)
	}
	for i, h := range l.Hashes {
		if len(h) != sha256.Size {
			return nil, fmt.Errorf("%w: hash %d has %d bytes, want %d", ErrLogged, i+1, len(h), sha256.Size)
		}
	}
	return &l, nil
}

// isLogged tells the line of a logged head from that of a record.
func isLogged(line []byte) bool { return bytes.HasPrefix(line, []byte(loggedMark)) }

// Verify checks that the log of the heads has l, under a checkpoint that a broker key of
// ring signed, and that it is a head of a node of its own chain of the tenant. now is the
// clock of the reader.
//
// Errors: ErrLogged; also ErrKeyTime or tlog.ErrKeyNotValid if all that is wrong is that
// the key of the head or of the checkpoint was not valid then, and tlog.ErrFuture if the
// time of the checkpoint has not come.
func (l *Logged) Verify(tenant string, ring *keyring.Ring, now time.Time) (*Head, *tlog.Checkpoint, error) {
	note, err := l.inLog(ring, now)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: sequence %d of %s: %w", ErrLogged, l.Sequence, wire.StreamHeads, err)
	}
	h, err := OpenHead([]byte(l.Head), ring)
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%w: sequence %d of %s: %w", ErrLogged, l.Sequence, wire.StreamHeads, err)
	case h.Tenant != tenant || h.Seal || len(h.Chains) != 1 || h.Chains[0].Node != h.Node || l.Subject != HeadSubject(tenant, h.Node):
		return nil, nil, fmt.Errorf("%w: sequence %d of %s is no head of a node of its own chain of tenant %q", ErrLogged, l.Sequence, wire.StreamHeads, tenant)
	}
	return h, &note.Checkpoint, nil
}

// inLog checks the checkpoint, and that its log has the message.
func (l *Logged) inLog(ring *keyring.Ring, now time.Time) (*tlog.Note, error) {
	note, err := tlog.ParseNote([]byte(l.Checkpoint))
	if err != nil {
		return nil, err
	}
	if o := &note.Origin; o.Tenant != wire.BrokerAccount || o.Stream != wire.StreamHeads {
		return nil, fmt.Errorf("the checkpoint is of another log, %s", o)
	}
	if _, err := note.VerifyAt(ring, now); err != nil {
		return nil, err
	}
	at, err := note.Index(l.Sequence)
	if err != nil {
		return nil, err
	}
	path := make([]tlog.Hash, len(l.Hashes))
	for i := range path {
		path[i] = tlog.Hash(l.Hashes[i])
	}
	var h tlog.Hasher
	leaf := h.Stored(l.Sequence, l.Stored, l.Subject, l.Block, []byte(l.Head))
	root, err := tlog.RangeRoot(note.Size, at, []tlog.Hash{leaf.Hash()}, path)
	if err == nil && root != note.Root {
		err = tlog.ErrProof
	}
	return note, err
}

// LoggedUpTo says how far a log covers a chain: a checkpoint covers a head that the node
// signed, and the head all records up to its own.
type LoggedUpTo struct {
	Seq    uint64    `json:"seq"`    // last record that is covered
	Head   uint64    `json:"head"`   // sequence of the head in the stream HEADS
	Stored time.Time `json:"stored"` // since when it is there
	Log    string    `json:"log"`    // origin of the checkpoint
	Size   int64     `json:"size"`   // of the checkpoint
	Time   time.Time `json:"time"`   // of the checkpoint
	// Through is the later chain of the node whose first record holds the end of this one,
	// and which is covered; empty: the head is of this chain.
	Through string `json:"through,omitempty"`
}

// ExpectLogged is Expect for a head that the log of the heads has. It does not speak for
// the end of its chain, as what a node says when it is asked does: nodes publish heads now
// and then. A head or a checkpoint of a time at which its key was not valid, and a checkpoint
// of a time that has not come, prove nothing; the trail is not proved then.
//
// Errors: ErrLogged.
func (v *Verifier) ExpectLogged(line []byte) error {
	l, err := ParseLogged(line)
	if err != nil {
		return err
	}
	if v.log != "" && l.Checkpoint != v.log {
		return fmt.Errorf("%w: sequence %d of %s: it is under another checkpoint than the one that was held against those from outside", ErrLogged, l.Sequence, wire.StreamHeads)
	}
	h, cp, err := l.Verify(v.tenant, v.ring, time.Now())
	if errors.Is(err, ErrKeyTime) || provesNothing(err) {
		v.Open("", "a head in the log of the heads proves nothing: "+err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	expect(v, h, false)
	if c, p := v.chain(h.Chains[0].ChainID), &h.Chains[0]; c.Logged == nil || c.Logged.Seq < p.Seq {
		c.Logged = &LoggedUpTo{
			Seq: p.Seq, Head: l.Sequence, Stored: time.Unix(0, l.Stored).UTC(), Log: cp.Origin.String(), Size: cp.Size, Time: cp.Time,
		}
	}
	return nil
}

// ExpectRecent is Expect for a head of the stream HEADS that its log does not cover yet.
// As ExpectLogged it does not speak for the end of its chain.
//
// Errors: those of OpenHead but ErrKeyTime.
func (v *Verifier) ExpectRecent(doc []byte) error {
	h, err := OpenHead(doc, v.ring)
	if errors.Is(err, ErrKeyTime) {
		return nil
	}
	if err == nil && h.Tenant == v.tenant {
		expect(v, h, false)
	}
	return err
}

// LogFault is a fault of the log of the heads itself, as the broker that was asked found
// it: what it covered may be gone.
func (v *Verifier) LogFault(why string) { v.fault(Fault{What: FaultLog, Detail: why}) }

// throughLater notes which chains a later one of their node covers: its first record holds
// the hash of their last one.
func throughLater(v *Verifier, ids []ChainID) {
	for i := len(ids) - 1; i >= 0; i-- {
		c := v.chains[ids[i]]
		chain, number, ok := strings.Cut(c.After, "/")
		if !ok || c.Logged == nil {
			continue
		}
		last, _ := strconv.ParseUint(number, 10, 64)
		before := v.chains[ChainID{c.Node, chain}]
		if before == nil || !before.seen || before.Seq != last || before.Logged != nil && before.Logged.Seq >= last {
			continue
		}
		through := *c.Logged
		through.Seq, through.Through = last, c.Chain
		before.Logged = &through
	}
}

// inLogToo names the log where it has the head that a fault is known by.
func inLogToo(c *walked, seq uint64) string {
	if c.Logged == nil || c.Logged.Through != "" || c.Logged.Seq != seq {
		return ""
	}
	return fmt.Sprintf("; the head is sequence %d of %s, and the log has it: checkpoint of %s", c.Logged.Head, wire.StreamHeads, c.Logged.Time.Format(time.RFC3339))
}

// HeadPosition reads what a head of one chain names, and when it was made, without a look
// at its signature: for its own writer.
func HeadPosition(doc []byte) (at Position, made time.Time, ok bool) {
	var envelope struct {
		Type    string `json:"payloadType"`
		Payload []byte `json:"payload"`
	}
	var h Head
	if json.Unmarshal(doc, &envelope) != nil || envelope.Type != HeadType || strict(envelope.Payload, &h) != nil || h.check() != nil || len(h.Chains) != 1 {
		return at, made, false
	}
	return h.Chains[0], h.Time, true
}
