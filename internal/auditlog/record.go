package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/signetbus/signet/internal/wire"
)

// Version is that of records, heads and exports.
const Version = 1

// Limits of a record, in bytes.
const (
	MaxText        = 512      // of one text member; what is longer is cut
	MaxRecordBytes = 16 << 10 // of an encoded record: all texts of it, every byte escaped
)

// SystemTenant stands for what belongs to no tenant: the broker itself, its policy as
// a whole, its keys, and whoever did not get as far as being somebody.
const SystemTenant = "_"

// Errors of this package.
var (
	// ErrRecord: not a record in its one encoding.
	ErrRecord = errors.New("auditlog: malformed record")
	// ErrBatch: not a batch of records of one chain with a head.
	ErrBatch = errors.New("auditlog: malformed batch")
	// ErrHead: not a head, or not signed by the node that it is of.
	ErrHead = errors.New("auditlog: not a head of this chain")
	// ErrKeyTime: a head of the node, but of a time at which its key was not valid. It
	// proves nothing.
	ErrKeyTime = errors.New("the key was not valid")
	// ErrExport: not an export, or not whole.
	ErrExport = errors.New("auditlog: malformed export")
	// ErrForeign: the export is of another cluster than the one whose root is trusted.
	ErrForeign = errors.New("auditlog: not under the trusted root")
)

// Kind is what a record is about.
type Kind string

// The kinds.
const (
	KindChain     Kind = "chain"     // the first record of a chain
	KindBroker    Kind = "broker"    // a node has started or stops
	KindLogin     Kind = "login"     // an authentication
	KindRefusal   Kind = "refusal"   // equal refusals of one second
	KindPolicy    Kind = "policy"    // the policy changed, or a change was refused
	KindSchema    Kind = "schema"    // a schema version came or went with the policy
	KindKeys      Kind = "keys"      // the keyring or the node's key changed
	KindAdmin     Kind = "admin"     // a call of the admin API
	KindAPI       Kind = "api"       // a JetStream API request that changes something
	KindRead      Kind = "read"      // stored events were asked for by subject or sequence
	KindDelivered Kind = "delivered" // what a principal got of a consumer in a minute
	KindDelivery  Kind = "delivery"  // one event, on a subject with audit: full
	KindNotice    Kind = "notice"    // what the broker did by itself: streams, consumers, backups
	KindLost      Kind = "lost"      // records that could not be kept, counted
	KindPruned    Kind = "pruned"    // the oldest records of the node go: see PrunedEntry
)

// Kinds returns every kind, in no order. The caller owns the slice.
func Kinds() []Kind {
	return []Kind{
		KindChain, KindBroker, KindLogin, KindRefusal, KindPolicy, KindSchema, KindKeys, KindAdmin, KindAPI,
		KindRead, KindDelivered, KindDelivery, KindNotice, KindLost, KindPruned,
	}
}

// Outcome is how it went.
type Outcome string

// The outcomes.
const (
	OutcomeOK      Outcome = "ok"
	OutcomeRefused Outcome = "refused"
	OutcomeFailed  Outcome = "failed"
	OutcomeBegun   Outcome = "begun" // a change that is about to be tried; its end is a record of its own
)

// Entry is what happened: the part of a record that its writer fills in. It holds no
// payload, no header, no token and no key but public ones.
type Entry struct {
	Time     time.Time `json:"time"`
	Tenant   string    `json:"tenant"` // SystemTenant where it is nobody's
	Kind     Kind      `json:"kind"`
	Outcome  Outcome   `json:"outcome"`
	Who      string    `json:"who,omitempty"`      // tenant/name of the principal
	Remote   string    `json:"remote,omitempty"`   // address of the client
	Subject  string    `json:"subject,omitempty"`  // NATS subject, admin subject, file or part
	Stream   string    `json:"stream,omitempty"`   // of consumers and deliveries
	Consumer string    `json:"consumer,omitempty"` // the same
	First    uint64    `json:"first,omitempty"`    // sequence in Stream, the lowest of a range
	Last     uint64    `json:"last,omitempty"`     // the highest
	Floor    uint64    `json:"floor,omitempty"`    // ack floor: all up to it is done
	Count    uint64    `json:"count,omitempty"`    // how many this record stands for, if that is not one
	Code     wire.Code `json:"code,omitempty"`     // of a refusal
	Rule     string    `json:"rule,omitempty"`     // that decided
	Ref      string    `json:"ref,omitempty"`      // of a refusal, for signet explain; of the chain before, in KindChain
	Version  uint64    `json:"version,omitempty"`  // of the keyring or the schema
	Before   string    `json:"before,omitempty"`   // lower-case hex SHA-256, or a public key
	After    string    `json:"after,omitempty"`
	Detail   string    `json:"detail,omitempty"`
}

// Record is one record of a chain.
type Record struct {
	V     int    `json:"v"`
	Node  string `json:"node"`
	Chain string `json:"chain"` // 16 hex digits, drawn when the chain began
	Seq   uint64 `json:"seq"`   // from 1, without holes
	Prev  string `json:"prev"`  // Hash of the record before, NoHash of the first
	Entry
}

// NoHash is Record.Prev of the first record of a chain.
var NoHash = strings.Repeat("0", 2*sha256.Size)

// HashOf returns the hash of an encoded record: lower-case hex SHA-256 of its bytes.
func HashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Encode returns the encoding of r: compact JSON, members in the order of the struct,
// zero ones left out but v, node, chain, seq, prev, time, tenant, kind and outcome.
//
// Errors: ErrRecord where r has no such encoding.
func (r *Record) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b, err := compact(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if len(b) > MaxRecordBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrRecord, len(b), MaxRecordBytes)
	}
	return b, nil
}

// Decode reads one record. Any other encoding than that of Encode is refused: other
// order, spaces, escapes, numbers or members.
//
// Errors: ErrRecord.
func Decode(line []byte) (*Record, error) {
	if len(line) > MaxRecordBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrRecord, len(line), MaxRecordBytes)
	}
	var r Record
	if err := strict(line, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if again, err := compact(&r); err != nil || !bytes.Equal(again, line) {
		return nil, fmt.Errorf("%w: not in the one encoding", ErrRecord)
	}
	return &r, nil
}

func (r *Record) check() error {
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrRecord, what) }
	switch {
	case r.V != Version:
		return bad("version " + strconv.Itoa(r.V) + ", want " + strconv.Itoa(Version))
	case r.Node == "" || r.Tenant == "" || r.Kind == "" || r.Outcome == "":
		return bad("node, tenant, kind or outcome is missing")
	case !chainOK(r.Chain):
		return bad("chain is not 16 hex digits")
	case r.Seq == 0:
		return bad("seq is 0")
	case !hashOK(r.Prev):
		return bad("prev is not a SHA-256")
	case (r.Seq == 1) != (r.Prev == NoHash):
		return bad("only the first record has no record before it")
	case (r.Seq == 1) != (r.Kind == KindChain):
		return bad("the first record of a chain, and no other, is of kind chain")
	case r.Time.IsZero() || r.Time.Location() != time.UTC:
		return bad("time is missing or not UTC")
	}
	return r.checkPruned()
}

func chainOK(s string) bool { return len(s) == 16 && lowerHex(s) }
func hashOK(s string) bool  { return len(s) == 2*sha256.Size && lowerHex(s) }

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Clean brings an entry to what a record may hold: time in UTC and to the
// microsecond, texts of at most MaxText bytes, and in them nothing that a terminal
// would obey or hide.
func (e *Entry) Clean() {
	e.Time = e.Time.UTC().Truncate(time.Microsecond)
	for _, s := range []*string{&e.Tenant, &e.Who, &e.Remote, &e.Subject, &e.Stream, &e.Consumer, &e.Rule, &e.Ref, &e.Before, &e.After, &e.Detail} {
		*s = cleanText(*s)
	}
	if e.Tenant == "" {
		e.Tenant = SystemTenant
	}
}

func cleanText(s string) string {
	if len(s) > MaxText {
		s = s[:MaxText]
	}
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			q := strconv.Quote(s)
			s = q[1 : len(q)-1]
			break
		}
	}
	if len(s) <= MaxText {
		return s
	}
	s = s[:MaxText]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// compact is encoding/json without its escapes for HTML.
func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// strict refuses unknown members and what follows the value.
func strict(b []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if dec.InputOffset() != int64(len(b)) {
		return errors.New("bytes after the value")
	}
	return nil
}
