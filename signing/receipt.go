package signing

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// ReceiptType is the DSSE payload type of a receipt, a signed acknowledgement.
const ReceiptType = "application/vnd.signet.receipt.v1+json"

// MaxReceiptBytes bounds the envelope of a receipt. It has room for attributes as
// long as a header block may be, escaped in JSON and then in base64.
const MaxReceiptBytes = 64 << 10

// Errors of receipts.
var (
	// ErrReceipt says that something is not a receipt in the one accepted form.
	ErrReceipt = errors.New("signing: not a receipt")
	// ErrOtherEvent says that a receipt does not vouch for the event that it is held
	// against.
	ErrOtherEvent = errors.New("signing: the receipt is not of this event")
)

// Receipt is the statement of a node that a stream has stored an event: a signed
// acknowledgement (docs/spec/receipt.md). Of a duplicate nobody has looked at what
// is stored: then Event is nil, and the receipt says only that the stream has an
// event of this principal, source and id at Sequence.
type Receipt struct {
	Node        string    `json:"node"`      // that relayed the acknowledgement; its key has signed
	Tenant      string    `json:"tenant"`    // whose stream it is
	Principal   string    `json:"principal"` // tenant/name that published: the authid of the event
	Subject     string    `json:"subject"`   // that the event was published on
	Stream      string    `json:"stream"`
	Sequence    uint64    `json:"sequence"` // in the stream, from 1
	Duplicate   bool      `json:"duplicate"`
	ID          string    `json:"id"` // of the event, like the next four: what the broker filled in is there too
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	ContentType string    `json:"datacontenttype"`
	Recorded    string    `json:"recordedtime"`
	Event       []byte    `json:"event,omitempty"` // SHA-256 of the PAE that the attestation signs; nil of a duplicate
	Time        time.Time `json:"time"`            // when the node had the acknowledgement, by its clock, whole seconds
	Policy      string    `json:"policy"`          // digest of the policy in force when the event was let in, lower-case hex
}

// encode returns the payload: one text for each receipt.
func (r *Receipt) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// check refuses what says less than a receipt must.
func (r *Receipt) check() error {
	for name, v := range map[string]string{
		"node": r.Node, "tenant": r.Tenant, "principal": r.Principal, "subject": r.Subject, "stream": r.Stream, "id": r.ID,
		"source": r.Source, "type": r.Type, "datacontenttype": r.ContentType, "policy": r.Policy,
	} {
		if v == "" || !utf8.ValidString(v) {
			return fmt.Errorf("%w: %s is empty or not UTF-8", ErrReceipt, name)
		}
	}
	recorded, ok := cloudevent.ParseTime([]byte(r.Recorded))
	switch {
	case !ok || recorded.Format(secondsLayout) != r.Recorded:
		return fmt.Errorf("%w: recordedtime is not YYYY-MM-DDTHH:MM:SSZ", ErrReceipt)
	case r.Sequence == 0:
		return fmt.Errorf("%w: no sequence", ErrReceipt)
	case r.Duplicate != (len(r.Event) == 0), !r.Duplicate && len(r.Event) != sumBytes:
		return fmt.Errorf("%w: the digest of the event is missing, or of a duplicate", ErrReceipt)
	case !strings.HasPrefix(r.Principal, r.Tenant+"/"):
		return fmt.Errorf("%w: the principal is of another tenant", ErrReceipt)
	case r.Time.IsZero() || !r.Time.Equal(r.Time.Truncate(time.Second)) || r.Time.Location() != time.UTC:
		return fmt.Errorf("%w: time is not in whole seconds UTC", ErrReceipt)
	}
	return nil
}

// SignReceipt returns the envelope of r, which must be complete. Of a duplicate the
// digest of what was sent is left out: it need not be what is stored.
//
// Errors: ErrReceipt, ErrStatement (too large).
func (s *Signer) SignReceipt(r Receipt) ([]byte, error) {
	if r.Duplicate {
		r.Event = nil
	}
	r.Time = r.Time.UTC().Truncate(time.Second)
	if err := r.check(); err != nil {
		return nil, err
	}
	payload, err := r.encode()
	if err != nil {
		return nil, err
	}
	doc, err := s.SignStatement(ReceiptType, payload)
	if err == nil && len(doc) > MaxReceiptBytes {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrReceipt, len(doc), MaxReceiptBytes)
	}
	return doc, err
}

// VerifyReceipt checks the envelope of a receipt: its form, its signature under a
// broker key of ring, that the key is the one of the node that it names, and that the
// key was valid when the event was acknowledged. Whether it is of the event that the
// caller has in mind is for Covers. The expiry of ring is not looked at.
//
// Errors: ErrReceipt, ErrStatement, ErrNoKeyring, ErrUnknownKey, ErrKeyNotValid,
// ErrBadSignature.
func VerifyReceipt(doc []byte, ring *keyring.Ring) (*Receipt, keyring.Key, error) {
	if len(doc) > MaxReceiptBytes {
		return nil, keyring.Key{}, fmt.Errorf("%w: %d bytes, limit %d", ErrReceipt, len(doc), MaxReceiptBytes)
	}
	payload, key, err := VerifyStatement(doc, ReceiptType, ring)
	if err != nil {
		return nil, key, err
	}
	r, err := decodeReceipt(payload)
	switch {
	case err != nil:
		return nil, key, err
	case key.Principal != r.Node:
		return nil, key, fmt.Errorf("%w: %s is the key of %q, not of the node %q", ErrKeyNotValid, key.ID, key.Principal, r.Node)
	case !key.ValidAt(r.Time):
		return nil, key, fmt.Errorf("%w: %s at %s", ErrKeyNotValid, key.ID, r.Time.Format(secondsLayout))
	}
	return r, key, nil
}

// decodeReceipt reads a payload. Encoding it again must give the same bytes: so a
// member that is unknown, repeated, misplaced or written in another way is refused.
func decodeReceipt(payload []byte) (*Receipt, error) {
	r := new(Receipt)
	if err := json.Unmarshal(payload, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReceipt, err)
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	again, err := r.encode()
	if err != nil || !bytes.Equal(again, payload) {
		return nil, fmt.Errorf("%w: the payload is not in the layout of docs/spec/receipt.md", ErrReceipt)
	}
	return r, nil
}

// Covers checks that r vouches for exactly e: every attribute, the data, and the
// subject, which r names. e is as a reader has it, with its attestation or, off the
// bus, with the expanded one. The receipt of a duplicate covers no event.
//
// Errors: ErrOtherEvent, ErrMalformed.
func (r *Receipt) Covers(e *cloudevent.Event) error {
	if len(r.Event) == 0 {
		return fmt.Errorf("%w: it is of a duplicate, and says only that the stream had an event of this principal, source and id", ErrOtherEvent)
	}
	candidates := []*cloudevent.Event{e}
	if len(e.Get(wire.AttrAttestation)) == 0 {
		// Which of the two the attestation stands in does not matter here: the digest
		// decides, and it is the same for no other event.
		for _, name := range []string{wire.AttrExpanded, wire.AttrDSSE} {
			if text := e.Get(name); len(text) > 0 {
				candidates = append(candidates, without(e, string(text)))
			}
		}
	}
	var failed error
	for _, c := range candidates {
		sum, err := EventDigest(c, r.Subject)
		if err != nil {
			failed = err
			continue
		}
		if bytes.Equal(sum[:], r.Event) {
			return nil
		}
		failed = nil
	}
	if failed != nil {
		return failed
	}
	return ErrOtherEvent
}

// EventDigest returns the SHA-256 of what a broker signs for e on natsSubject: of the
// PAE of docs/spec/envelope.md section 3, which covers all attributes and the data.
// The attributes authid, authtype and recordedtime must be set.
//
// Errors: ErrMalformed.
func EventDigest(e *cloudevent.Event, natsSubject string) ([sha256.Size]byte, error) {
	var d digester
	if _, err := d.digest(e, []byte(natsSubject)); err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(d.pae[1:]), nil
}

// LastDigest returns EventDigest of the event that was added last. It panics if there
// is none.
func (b *Batch) LastDigest() [sha256.Size]byte {
	if b.n == 0 {
		panic("signing: LastDigest of an empty batch")
	}
	return sha256.Sum256(b.d.pae[1:])
}
