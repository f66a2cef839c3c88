package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
	"github.com/signetbus/signet/signing/payload"
)

// maxEpochs bounds the subjects that a client has keys for. One more forgets another
// subject's key, which then begins a new epoch.
const maxEpochs = 4096

var (
	// ErrEncryption says that a payload could not be encrypted, so the event was not sent.
	ErrEncryption = errors.New("client: the payload cannot be encrypted, so the event was not sent")

	errNoRecipient = errors.New("the keyring has no valid recipient key of this tenant for the subject")
	errWhoseTenant = errors.New("the keyring has recipients of several tenants, and only the broker says which one this principal is of: set Encryption.Tenant (signet pub --tenant), or sign with an event key")
	errForeignKey  = errors.New("the keyring does not say that this principal is who signs")
	errKeySubject  = errors.New("the subject is under Encryption.KeyPrefix, where this client publishes key records in the clear and nothing else")
	errEncrypted   = errors.New("the event is encrypted already; it can be published again by a client without WithEncryption")
)

// encrypter encrypts what a client publishes. A nil one encrypts nothing.
type encrypter struct {
	cfg    Encryption
	caller string // tenant/name, by the word of the broker
	// eventKey is the id of the event key, whose holder the keyring names; or empty.
	eventKey string
	ring     func() *keyring.Ring
	// publish stores a key record, in the clear, and returns when it is on stable storage.
	publish func(ctx context.Context, natsSubject string, ev *Event) error
	now     func() time.Time

	mu     sync.Mutex // guards epochs; never held while something is sent
	epochs map[string]*subjectKeys
}

// subjectKeys is what one subject is encrypted with.
type subjectKeys struct {
	now  atomic.Pointer[epoch]
	turn chan struct{} // capacity 1: held by who begins an epoch
}

// epoch is immutable but for the counter of its key.
type epoch struct {
	key        *payload.Key
	recipients []string
	ends       time.Time     // of the key
	ring       *keyring.Ring // that recipients are from
	review     time.Time     // when ring may say something else, by itself
}

func newEncrypter(c *Client, caller string) (*encrypter, error) {
	if c.cfg.encryption == nil {
		return nil, nil
	}
	tenant, _, _ := strings.Cut(caller, "/")
	if want := c.cfg.encryption.Tenant; want != "" && want != tenant {
		return nil, fmt.Errorf("%w: WithEncryption: the broker says that this is %s, Tenant is %s", ErrInvalidOption, caller, want)
	}
	e := &encrypter{
		cfg: *c.cfg.encryption, caller: caller, ring: c.ring.current, now: time.Now, epochs: map[string]*subjectKeys{},
		publish: func(ctx context.Context, natsSubject string, ev *Event) error {
			ctx, cancel := c.cfg.deadline(ctx)
			defer cancel()
			_, err := publish(ctx, c, natsSubject, ev, nil)
			return err
		},
	}
	if c.cfg.producer != nil {
		e.eventKey = c.cfg.producer.KeyID()
	}
	return e, nil
}

// covers says whether events on the subject are encrypted.
func (e *encrypter) covers(natsSubject string) bool {
	return e != nil && (len(e.cfg.Subjects) == 0 || slices.ContainsFunc(e.cfg.Subjects, func(filter string) bool { return wire.Match(filter, natsSubject) }))
}

// encrypt returns ev with its payload encrypted, complete in everything that the
// ciphertext is bound to; or ev itself, where nothing is to be encrypted. The key of
// the subject may have to be stored first, within ctx.
func (e *encrypter) encrypt(ctx context.Context, natsSubject string, ev *Event) (*Event, error) {
	if ev == nil || !e.covers(natsSubject) {
		return ev, nil
	}
	if strings.HasPrefix(natsSubject, e.cfg.KeyPrefix+".") {
		return nil, notEncrypted(natsSubject, ev.ID, errKeySubject)
	}
	out := *ev
	if out.ID == "" {
		out.ID = NewID()
	}
	if err := wire.CheckSubject(natsSubject); err != nil {
		return nil, malformed("publish", natsSubject, out.ID, err)
	}
	if _, marked := ev.Extensions[wire.AttrEncryptionKey]; marked || ev.DataContentType == wire.EncryptedContentType {
		return nil, malformed("publish", natsSubject, out.ID, errEncrypted)
	}
	if out.Source == "" {
		out.Source = "/" + e.caller
	}
	if out.Type == "" {
		out.Type = natsSubject
	}
	if out.DataContentType == "" {
		out.DataContentType = wire.DefaultContentType
	}
	bound := payload.Bound{Principal: e.caller, NATSSubject: natsSubject, Source: out.Source, ID: out.ID, Type: out.Type}
	for {
		key, err := e.keyFor(ctx, natsSubject)
		if err != nil {
			return nil, notEncrypted(natsSubject, out.ID, err)
		}
		frame, err := key.Encrypt(bound, out.DataContentType, out.Data)
		if errors.Is(err, payload.ErrSpent) {
			continue // others used it up meanwhile
		}
		if err != nil {
			return nil, notEncrypted(natsSubject, out.ID, err)
		}
		out.DataContentType, out.Data = wire.EncryptedContentType, frame
		out.Extensions = maps.Clone(ev.Extensions)
		if out.Extensions == nil {
			out.Extensions = make(map[string]string, 1)
		}
		out.Extensions[wire.AttrEncryptionKey] = key.ID()
		return &out, nil
	}
}

// keyFor returns the key that is good for the subject now, and begins an epoch if there
// is none.
func (e *encrypter) keyFor(ctx context.Context, natsSubject string) (*payload.Key, error) {
	s := e.subject(natsSubject)
	if ep := s.now.Load(); e.usable(ep) {
		return ep.key, nil
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ep := s.now.Load()
	if e.usable(ep) { // somebody was faster
		return ep.key, nil
	}
	for {
		next, err := e.review(ctx, natsSubject, ep)
		if err != nil {
			return nil, err
		}
		s.now.Store(next)
		// A recipient may have been revoked while the record was stored.
		if e.usable(next) {
			return next.key, nil
		}
		if ep = next; ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

func (e *encrypter) subject(natsSubject string) *subjectKeys {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.epochs[natsSubject]
	if s == nil {
		for other := range e.epochs {
			if len(e.epochs) < maxEpochs {
				break
			}
			delete(e.epochs, other)
		}
		s = &subjectKeys{turn: make(chan struct{}, 1)}
		e.epochs[natsSubject] = s
	}
	return s
}

// usable says whether the epoch needs no look at the keyring.
func (e *encrypter) usable(ep *epoch) bool {
	return ep != nil && ep.ring == e.ring() && e.now().Before(ep.review) && e.lasts(ep)
}

// lasts says whether the key may go on, if its recipients are still the right ones.
func (e *encrypter) lasts(ep *epoch) bool {
	return ep != nil && ep.key.Used() < e.cfg.EpochEvents && e.now().Before(ep.ends)
}

// review looks who the recipients are now, and goes on with the key or stores the record
// of a new one.
func (e *encrypter) review(ctx context.Context, natsSubject string, old *epoch) (*epoch, error) {
	now, ring := e.now(), e.ring()
	if ring == nil || !now.Before(ring.Expires()) {
		return nil, fmt.Errorf("%w: none that is in force, so nobody knows the recipients", ErrKeyring)
	}
	// A broker that names another tenant must not so choose other recipients: the event
	// key tells the tenant, or Tenant does, which newEncrypter has compared.
	if key, ok := ring.ByID(e.eventKey); e.eventKey != "" && (!ok || key.Principal != e.caller) {
		return nil, fmt.Errorf("%w: it does not have the event key %s as one of %s", errForeignKey, e.eventKey, e.caller)
	}
	tenant, _, _ := strings.Cut(e.caller, "/")
	if e.eventKey == "" && e.cfg.Tenant == "" && ring.HasOtherRecipients(tenant) {
		return nil, errWhoseTenant
	}
	recipients, until := ring.Recipients(tenant, natsSubject, now)
	if len(recipients) == 0 {
		return nil, errNoRecipient
	}
	next := &epoch{recipients: recipients, ring: ring, review: ring.Expires()}
	if !until.IsZero() && until.Before(next.review) {
		next.review = until
	}
	if e.lasts(old) && slices.Equal(old.recipients, recipients) {
		next.key, next.ends = old.key, old.ends
		return next, nil
	}
	key, record, err := payload.NewEpoch(natsSubject, recipients, now)
	if err != nil {
		return nil, err
	}
	next.key, next.ends = key, now.Add(e.cfg.EpochAge)
	return next, e.publish(ctx, payload.RecordSubject(e.cfg.KeyPrefix, e.caller, key.ID()), &Event{
		ID: key.ID(), Type: payload.RecordType, DataContentType: ContentTypeJSON, Data: record.Data(),
	})
}

// notEncrypted words what kept an event from being encrypted. Where that is a refusal
// of the record, it has its class and code, but the id of the event.
func notEncrypted(natsSubject, id string, err error) error {
	e := &Error{
		Op: "publish", Class: string(wire.ClassConflict), Title: "not encrypted, so not sent", Subject: natsSubject,
		Fix: "signet keys issue --role recipient enters a recipient into the keyring",
	}
	var refused *Error
	switch {
	case errors.As(err, &refused):
		e = new(Error)
		*e = *refused
		e.Title = "the record of the encryption key was not stored, so the event was not sent: " + refused.Title
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrKeyring):
		e.Class, e.Fix = string(wire.ClassUnavailable), ""
	case !errors.Is(err, errNoRecipient):
		e.Fix = ""
	}
	e.EventID, e.Err = id, fmt.Errorf("%w: %w", ErrEncryption, err)
	return e
}
