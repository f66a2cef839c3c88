package payload

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nkeys"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// RecordType is the CloudEvents type of the event that carries a record; its data is
// JSON.
const RecordType = "dev.signet.encryption.key.v1"

// Limits of a record.
const (
	MaxRecipients  = 256
	MaxRecordBytes = 64 << 10
)

// wrappedBytes is the length of a wrapped key: version, nonce, tag, key.
const wrappedBytes = len(nkeys.XKeyVersionV1) + 24 + 16 + keyBytes

// recordVersion is the version of the record, and timeLayout how it writes a time.
const (
	recordVersion = 1
	timeLayout    = "2006-01-02T15:04:05Z"
)

// Errors of records. ErrRecord covers every fault of form and content.
var (
	ErrRecord       = errors.New("payload: the key record is not valid")
	ErrRecipients   = errors.New("payload: a key needs 1 to 256 recipients")
	ErrNotRecipient = errors.New("payload: the key is not wrapped to any of these recipient keys")
	ErrUnwrap       = errors.New("payload: the wrapped key cannot be opened with the recipient's key")
	ErrSeed         = errors.New("payload: not the seed of a recipient key (SX...)")
)

// Record is what recipients need to use a key.
type Record struct {
	KeyID      string
	Subject    string // NATS subject of the events, literal
	Created    time.Time
	Sender     string    // public half (X...) of the key pair that wrapped it, of this record alone
	Recipients []Wrapped // ascending by Key, each once
}

// Wrapped is the key, for one recipient.
type Wrapped struct {
	Key string // public key of the recipient, X...
	Box []byte // nkeys xkv1: version, nonce, nacl box
}

// NewEpoch makes a key and its record for the recipients, public keys X..., each once.
// Created is now, cut to whole seconds.
//
// Errors: ErrRecipients, ErrRecord.
func NewEpoch(natsSubject string, recipients []string, now time.Time) (*Key, *Record, error) {
	var raw [keyBytes]byte
	rand.Read(raw[:]) // never fails: it ends the program instead
	sender, err := nkeys.CreateCurveKeys()
	if err != nil {
		return nil, nil, err
	}
	defer sender.Wipe()
	defer clear(raw[:])
	return newEpoch(raw[:], sender, rand.Reader, natsSubject, recipients, now)
}

// newEpoch is NewEpoch with everything that is random given.
func newEpoch(raw []byte, sender nkeys.KeyPair, nonces io.Reader, natsSubject string, recipients []string, now time.Time) (*Key, *Record, error) {
	if len(recipients) == 0 || len(recipients) > MaxRecipients {
		return nil, nil, fmt.Errorf("%w: %d", ErrRecipients, len(recipients))
	}
	key, err := newKey(raw)
	if err != nil {
		return nil, nil, err
	}
	r := &Record{KeyID: key.id, Subject: natsSubject, Created: now.UTC().Truncate(time.Second)}
	if r.Sender, err = sender.PublicKey(); err != nil {
		return nil, nil, err
	}
	for _, to := range slices.Sorted(slices.Values(recipients)) {
		if err := keyring.CheckRecipientKey(to); err != nil {
			return nil, nil, fmt.Errorf("%w: recipient %q: %w", ErrRecord, to, err)
		}
		box, err := sender.SealWithRand(raw, to, nonces)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: recipient %q: %w", ErrRecord, to, err)
		}
		r.Recipients = append(r.Recipients, Wrapped{Key: to, Box: box})
	}
	return key, r, r.check()
}

// RecordSubject returns the NATS subject of a record: those who look for a key derive it from
// what they have verified. principal is the tenant/name that publishes.
func RecordSubject(prefix, principal, keyID string) string {
	_, name, _ := strings.Cut(principal, "/")
	return prefix + "." + name + "." + keyID
}

// check is what ParseRecord and NewEpoch both hold to.
func (r *Record) check() error {
	fault := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrRecord}, args...)...)
	}
	if err := CheckKeyID(r.KeyID); err != nil {
		return fault("%w", err)
	}
	if err := wire.CheckSubject(r.Subject); err != nil {
		return fault("%w", err)
	}
	if y := r.Created.Year(); y < 1 || y > 9999 {
		return fault("created is outside the years 1 to 9999")
	}
	if err := keyring.CheckRecipientKey(r.Sender); err != nil {
		return fault("sender: %w", err)
	}
	if len(r.Recipients) == 0 || len(r.Recipients) > MaxRecipients {
		return fault("%d recipients, 1 to %d are wanted", len(r.Recipients), MaxRecipients)
	}
	for i := range r.Recipients {
		w := &r.Recipients[i]
		if i > 0 && r.Recipients[i-1].Key >= w.Key {
			return fault("recipients are not in order, or one is there twice")
		}
		if err := keyring.CheckRecipientKey(w.Key); err != nil {
			return fault("recipient %q: %w", w.Key, err)
		}
		if len(w.Box) != wrappedBytes {
			return fault("recipient %s: wrapped key of %d bytes, want %d", w.Key, len(w.Box), wrappedBytes)
		}
	}
	return nil
}

// Data returns the JSON of the record, in its one encoding. No value needs an escape.
func (r *Record) Data() []byte {
	b := make([]byte, 0, 320+192*len(r.Recipients))
	b = fmt.Appendf(b, `{"version":%d,"keyId":"%s","subject":"%s","created":"%s","sender":"%s","recipients":[`,
		recordVersion, r.KeyID, r.Subject, r.Created.UTC().Format(timeLayout), r.Sender)
	for i := range r.Recipients {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"key":"`...), r.Recipients[i].Key...), `","wrapped":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Recipients[i].Box)
		b = append(b, `"}`...)
	}
	return append(b, "]}"...)
}

// recordJSON is the record as encoding/json reads it.
type recordJSON struct {
	Version    int    `json:"version"`
	KeyID      string `json:"keyId"`
	Subject    string `json:"subject"`
	Created    string `json:"created"`
	Sender     string `json:"sender"`
	Recipients []struct {
		Key     string `json:"key"`
		Wrapped []byte `json:"wrapped"`
	} `json:"recipients"`
}

// ParseRecord reads the data of a record. It keeps no reference to data.
//
// Errors: ErrRecord, also for every encoding but the one that Data writes.
func ParseRecord(data []byte) (*Record, error) {
	if len(data) > MaxRecordBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrRecord, len(data), MaxRecordBytes)
	}
	var j recordJSON
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&j); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if j.Version != recordVersion {
		return nil, fmt.Errorf("%w: version %d, this reader knows %d", ErrRecord, j.Version, recordVersion)
	}
	created, err := time.Parse(timeLayout, j.Created)
	if err != nil {
		return nil, fmt.Errorf("%w: created: not a time", ErrRecord)
	}
	r := &Record{KeyID: j.KeyID, Subject: j.Subject, Created: created, Sender: j.Sender}
	for _, w := range j.Recipients {
		r.Recipients = append(r.Recipients, Wrapped{Key: w.Key, Box: w.Wrapped})
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(r.Data(), data) {
		return nil, fmt.Errorf("%w: not in its one encoding", ErrRecord)
	}
	return r, nil
}

// Reader holds the keys of a recipient.
type Reader struct {
	keys map[string]nkeys.KeyPair // by public key
}

// NewReader takes the seeds (SX...) of one or more recipient keys, which are not kept
// as text: a recipient whose key was rotated needs the old one for old events.
//
// Errors: ErrSeed.
func NewReader(seeds ...[]byte) (*Reader, error) {
	r := &Reader{keys: make(map[string]nkeys.KeyPair, len(seeds))}
	for _, seed := range seeds {
		pair, err := nkeys.FromCurveSeed(bytes.TrimSpace(seed))
		if err != nil {
			return nil, ErrSeed // never echo what may be a secret
		}
		public, err := pair.PublicKey()
		if err != nil {
			return nil, ErrSeed
		}
		r.keys[public] = pair
	}
	if len(r.keys) == 0 {
		return nil, fmt.Errorf("%w: there is none", ErrSeed)
	}
	return r, nil
}

// Open returns the key of a record. It must be the one that the record's id commits to.
//
// Errors: ErrNotRecipient, ErrUnwrap, ErrKeyID.
func (r *Reader) Open(rec *Record) (*Key, error) {
	for i := range rec.Recipients {
		w := &rec.Recipients[i]
		pair := r.keys[w.Key]
		if pair == nil {
			continue
		}
		raw, err := pair.Open(w.Box, rec.Sender)
		if err != nil {
			return nil, fmt.Errorf("%w: %s", ErrUnwrap, w.Key)
		}
		defer clear(raw)
		key, err := newKey(raw)
		if err != nil {
			return nil, err
		}
		if key.id != rec.KeyID {
			return nil, ErrKeyID
		}
		return key, nil
	}
	return nil, ErrNotRecipient
}

// Keys returns the public keys (X...) of the reader, sorted.
func (r *Reader) Keys() []string {
	keys := make([]string, 0, len(r.keys))
	for public := range r.keys {
		keys = append(keys, public)
	}
	slices.Sort(keys)
	return keys
}
