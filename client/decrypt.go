package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/payload"
)

const (
	maxOpenedKeys = 1024            // keys that a client keeps
	keyRetry      = 5 * time.Second // before a record that could not be had is asked for again
	// For how many keys without a record a young event is put back in patienceEvery, for
	// each once: made-up key ids must not hold a reader up. An ordered subscription waits
	// with everything that comes after, the others go on meanwhile.
	patienceEvery   = time.Minute
	patience        = 32
	patienceOrdered = 1
)

// jsNoMessage is JetStream's code for: nothing is stored on this subject.
const jsNoMessage = 10037

// Errors of decryption.
var (
	// ErrDecryption says that a payload is encrypted and could not be decrypted. Its cause
	// is one of package payload (ErrNotRecipient, ErrAltered, ...), ErrNoKeyRecord, or why
	// the record could not be fetched or does not verify.
	ErrDecryption = errors.New("client: the payload cannot be decrypted")
	// ErrNoKeyRecord says that the key of an event is not stored where it should be: it was
	// purged, has expired, or KeyPrefix is another one.
	ErrNoKeyRecord = errors.New("client: the record of the encryption key is not stored")
	// ErrNotEncrypted says that an event came in the clear, and the subscription wants it
	// encrypted.
	ErrNotEncrypted = errors.New("client: the payload is not encrypted, and this subscription wants it to be")
)

// RequireEncryption delivers only events whose payload was encrypted; others go to
// WithInvalidHandler, with ErrNotEncrypted, and are terminated. The policy of the broker
// can refuse them at publishing (encrypted: true); with this option the broker need not
// be believed in that. It does not say who has encrypted: everybody can, the broker
// included; RequireProducer does. Without WithDecryption the content type alone says that
// it was encrypted.
func RequireEncryption() SubOption {
	return func(c *subConfig) error { c.encrypted = true; return nil }
}

// decrypter holds the keys of a recipient and those that it has opened.
type decrypter struct {
	reader *payload.Reader
	prefix string
	now    func() time.Time

	mu      sync.Mutex // guards the rest; never held while a record is fetched
	opened  map[recordName]openedKey
	failed  map[recordName]failedKey
	patient time.Time // when the first of waits was put back
	waits   int       // keys in patienceEvery since then that an event was put back for
}

// recordName is where a record is looked for. The principal is part of it: a recipient
// has the keys of others, and could publish a record with one as its own.
type recordName struct{ principal, id string }

// openedKey is a key of a record that was verified.
type openedKey struct {
	key     *payload.Key
	subject string // that it is for
}

// failedKey keeps a record that cannot be had from being asked for with every event.
type failedKey struct {
	err    error
	till   time.Time
	waited bool // an event was put back for it
}

func newDecrypter(reader *payload.Reader, prefix string) *decrypter {
	return &decrypter{reader: reader, prefix: prefix, now: time.Now, opened: map[recordName]openedKey{}, failed: map[recordName]failedKey{}}
}

// decrypt replaces an encrypted payload of a verified delivery. stored is when the event
// was, zero of an ephemeral one.
func (s *Subscription) decrypt(d *Delivery, stored time.Time) error {
	if d.Event.DataContentType != wire.EncryptedContentType {
		if s.cfg.encrypted {
			return ErrNotEncrypted
		}
		return nil
	}
	dec := s.client.cfg.decryption
	if dec == nil {
		d.Ciphertext = true
		return nil
	}
	id := d.Event.Extensions[wire.AttrEncryptionKey]
	key, err := dec.keyOf(s, d, id, stored)
	if err != nil {
		return fmt.Errorf("%w: key %s of %s: %w", ErrDecryption, id, d.Principal, err)
	}
	contentType, data, err := key.Decrypt(payload.Bound{
		Principal: d.Principal, NATSSubject: d.NATSSubject, Source: d.Event.Source, ID: d.Event.ID, Type: d.Event.Type,
	}, d.Event.Data)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDecryption, err)
	}
	d.Event.DataContentType, d.Event.Data, d.KeyID = contentType, data, id
	delete(d.Event.Extensions, wire.AttrEncryptionKey) // published again it would be a lie
	return nil
}

// keyOf returns the key of an event, which must be of the same principal and subject.
func (r *decrypter) keyOf(s *Subscription, d *Delivery, id string, stored time.Time) (*payload.Key, error) {
	if err := payload.CheckKeyID(id); err != nil {
		return nil, err
	}
	name := recordName{d.Principal, id}
	r.mu.Lock()
	got, failed := r.opened[name], r.failed[name]
	r.mu.Unlock()
	if got.key == nil && r.now().Before(failed.till) {
		return nil, failed.err
	}
	if got.key == nil {
		var err error
		if got, err = r.open(s.life.ctx, s.client, name); err != nil {
			r.mu.Lock()
			if errors.Is(err, ErrNoKeyRecord) && !failed.waited && r.mayWait(stored, s.cfg.ordered) {
				failed.waited, err = true, fmt.Errorf("%w: %w", errLater, err)
			}
			makeRoom(r.failed)
			r.failed[name] = failedKey{err, r.now().Add(keyRetry), failed.waited}
			r.mu.Unlock()
			return nil, err
		}
		r.mu.Lock()
		makeRoom(r.opened)
		r.opened[name] = got
		delete(r.failed, name)
		r.mu.Unlock()
	}
	if got.subject != d.NATSSubject {
		return nil, fmt.Errorf("%w: it is for the subject %s", payload.ErrRecord, got.subject)
	}
	return got.key, nil
}

// makeRoom keeps a cache within its bound; what goes is fetched again when it is needed.
func makeRoom[T any](m map[recordName]T) {
	for name := range m {
		if len(m) < maxOpenedKeys {
			return
		}
		delete(m, name)
	}
}

// open fetches and verifies the record of a key and opens it. What is not known now is
// errLater.
func (r *decrypter) open(ctx context.Context, c *Client, name recordName) (openedKey, error) {
	call, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	natsSubject := payload.RecordSubject(r.prefix, name.principal, name.id)
	msg, at, err := c.js().lastOn(call, natsSubject)
	if err != nil {
		return openedKey{}, err
	}
	record, by, err := verifyRecord(ctx, c, msg, at)
	if err != nil {
		return openedKey{}, fmt.Errorf("the record on %s: %w", natsSubject, err)
	}
	if by != name.principal || record.KeyID != name.id {
		return openedKey{}, fmt.Errorf("%w: the one on %s is of %s, for key %s", payload.ErrRecord, natsSubject, by, record.KeyID)
	}
	key, err := r.reader.Open(record)
	if err != nil {
		return openedKey{}, err
	}
	return openedKey{key: key, subject: record.Subject}, nil
}

// mayWait says whether an event stored then is put back because its record is not there.
// It was stored before the event, but a leader that has just come to be may not have it
// yet, nor those of other keys. The caller holds mu.
func (r *decrypter) mayWait(stored time.Time, ordered bool) bool {
	now := r.now()
	if stored.IsZero() || now.Sub(stored) > clockSlack {
		return false
	}
	if now.Sub(r.patient) >= patienceEvery {
		r.patient, r.waits = now, 0
	}
	limit := patience
	if ordered {
		limit = patienceOrdered
	}
	if r.waits >= limit {
		return false
	}
	r.waits++
	return true
}

// verifyRecord reads a record out of an event that is verified like every other.
func verifyRecord(ctx context.Context, c *Client, msg *nats.Msg, stored time.Time) (record *payload.Record, by string, err error) {
	var dec decoder
	rec, err := dec.decode(msg)
	if err != nil {
		return nil, "", err
	}
	att, err := attestation(ctx, c, rec, msg.Subject, stored)
	if err != nil {
		return nil, "", err
	}
	if len(rec.Get(wire.AttrDSSE)) > 0 {
		// What the keyring says of the key may change after the record was stored, and the
		// event names the key by its digest.
		_, err := c.producer.Verify(rec, msg.Subject)
		if err != nil && !errors.Is(err, signing.ErrUnknownKey) && !errors.Is(err, signing.ErrKeyNotValid) {
			return nil, "", err
		}
	}
	if string(rec.Type) != payload.RecordType {
		return nil, "", fmt.Errorf("%w: an event of another type", payload.ErrRecord)
	}
	record, err = payload.ParseRecord(rec.Data)
	return record, att.Principal, err
}

// storedMsg is a message as JetStream answers with it.
type storedMsg struct {
	apiAnswer
	Message *struct {
		Subject string    `json:"subject"`
		Header  []byte    `json:"hdrs"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
}

// lastOn returns the last stored message of a literal subject and when it was stored,
// by the word of the stream's leader: a direct get may ask a replica that is behind.
//
// Errors: ErrNoKeyRecord when there is none, errLater when that cannot be told, and
// payload.ErrRecord for what no broker stores.
func (c jsAPI) lastOn(ctx context.Context, natsSubject string) (*nats.Msg, time.Time, error) {
	stream, err := c.streamFor(ctx, natsSubject)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("%w: %w", errLater, err)
	}
	request := struct {
		LastBySubject string `json:"last_by_subj"`
	}{natsSubject}
	var answer storedMsg
	err = c.request(ctx, "get", "STREAM.MSG.GET."+stream, request, &answer)
	var refused *Error
	switch m := answer.Message; {
	case errors.As(err, &refused) && refused.Code == jsNoMessage:
		return nil, time.Time{}, fmt.Errorf("%w on %s: %w", ErrNoKeyRecord, natsSubject, err)
	case err != nil:
		return nil, time.Time{}, fmt.Errorf("%w: %w", errLater, atSubject(err, natsSubject))
	case m == nil || m.Subject != natsSubject:
		return nil, time.Time{}, fmt.Errorf("%w: the answer is not the message on %s", payload.ErrRecord, natsSubject)
	default:
		header, err := nats.DecodeHeadersMsg(m.Header)
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("%w: %w", payload.ErrRecord, err)
		}
		return &nats.Msg{Subject: m.Subject, Header: header, Data: m.Data}, m.Time, nil
	}
}
