package admission

import (
	"bytes"
	"crypto/sha256"
	"errors"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
)

// brokerAttributes are set by the broker alone: a client's value would be a claim
// that looks like ours. producerAttributes are too, but on an event that its producer
// has signed.
var (
	brokerAttributes   = [...]string{wire.AttrAttestation, wire.AttrExpanded, wire.AttrAuthType, wire.AttrAuthID}
	producerAttributes = [...]string{wire.AttrNATSSubject, wire.AttrRecordedTime, signing.AttrExactTime}
)

// ownExtensions is how many extensions an event has beside the client's: those three
// that complete sets, the attestation, and the two that are derived, natssubject and
// exacttime, which stand beside them off the bus. Readers count them all.
const ownExtensions = 6

var (
	authType         = []byte(wire.DefaultAuthType)
	nameAuthType     = []byte(wire.AttrAuthType)
	nameAuthID       = []byte(wire.AttrAuthID)
	nameRecordedTime = []byte(wire.AttrRecordedTime)
)

// grantMemo remembers the last source and type that were granted, which on most
// connections are the only ones.
type grantMemo struct{ source, eventType []byte }

// admitEvent reads the CloudEvent, checks its signature if it has one, the grants and
// the schema, completes it and adds it to the batch.
func (s *Session) admitEvent(rt *route, p *Publish, extra []byte) *wire.Refusal {
	sl := s.nextSlot()
	e := &sl.event
	hadID, r := s.decode(sl, p)
	signed := false
	if r == nil {
		r = requireEncryption(rt, e)
	}
	if r == nil && s.late != nil {
		r = chargeTyped(s, rt, p, e)
	}
	if r == nil {
		r = ownAttributes(e)
	}
	if r == nil {
		signed, r = openSignature(s, rt, p, e)
	}
	if r == nil {
		r = s.complete(rt, e, signed)
	}
	if r == nil && signed {
		r = checkSignature(s, p, e)
	}
	if r == nil {
		r = schemaBlinded(rt, e)
	}
	if r == nil {
		r = s.checkSchema(rt, e.ContentType, e.Data)
	}
	if r == nil && signed && rt.class == acl.ClassEphemeral {
		r = replayed(s.chain.cfg.Seen.take(seenIDIn(s, e), s.p.FullName(), s.signedAt, s.now))
	}
	if r != nil {
		s.events = s.events[:len(s.events)-1]
		return r
	}
	if hadID && rt.class == acl.ClassEvent {
		at := len(s.arena)
		s.arena = append(s.arena, extra...)
		s.arena = append(s.arena, wire.HeaderMsgID...)
		s.arena = append(s.arena, ':', ' ')
		s.arena = s.appendMsgID(s.arena, e, signed)
		s.arena = append(s.arena, '\r', '\n')
		extra = s.arena[at:len(s.arena):len(s.arena)]
	}
	i := s.batch.Add(e, p.Subject)
	if i < 0 {
		// No verifier would accept it: Validate and complete let something through
		// that they should not have.
		s.events = s.events[:len(s.events)-1]
		return wire.Refuse(wire.CodeEventMalformed, "cloudevents", "the event cannot be attested")
	}
	if sl.logged = nil; rt.logged != nil && rt.logged.Wanted() {
		sl.logged, sl.digest = rt.logged, s.batch.LastDigest()
	}
	reply := p.Reply
	if s.asked {
		reply = ask(s, p, e)
	}
	s.ops = append(s.ops, op{event: i, subject: p.Subject, reply: reply, extra: extra})
	return nil
}

func (s *Session) nextSlot() *slot {
	n := len(s.events)
	if n < cap(s.events) {
		s.events = s.events[:n+1]
		s.events[n].event.Reset()
	} else {
		s.events = append(s.events, slot{})
	}
	return &s.events[n]
}

// decode fills e from binary mode, structured mode or raw bytes. hadID says
// whether the client named the event, which makes it subject to deduplication.
func (s *Session) decode(sl *slot, p *Publish) (hadID bool, _ *wire.Refusal) {
	e := &sl.event
	structured, err := cloudevent.IsStructured(&s.headers)
	if err != nil {
		return false, eventRefusal(err)
	}
	if structured {
		// Two homes for one attribute would be two meanings.
		for _, h := range s.headers.All() {
			if wire.HasPrefixFold(h.Name, wire.PrefixAttribute) {
				return false, wire.Refuse(wire.CodeEventMalformed, "cloudevents", "ce- header beside a structured event")
			}
		}
		err = e.FromJSON(p.Payload, &sl.scratch)
	} else {
		err = e.FromHeaders(&s.headers, p.Payload, &sl.scratch)
	}
	if err != nil {
		return false, eventRefusal(err)
	}
	if len(e.ID) == 0 {
		if id, ok := s.headers.Get(wire.HeaderMsgID); ok {
			e.ID = id
		}
	}
	return len(e.ID) > 0, nil
}

// ownAttributes refuses the attributes that only the broker sets.
func ownAttributes(e *cloudevent.Event) *wire.Refusal {
	for _, name := range brokerAttributes {
		if len(e.Get(name)) > 0 {
			return wire.Refuse(wire.CodeAttestationForbidden, "broker-attributes", "attribute "+name)
		}
	}
	if len(e.Get(wire.AttrDSSE)) == 0 {
		for _, name := range producerAttributes {
			if len(e.Get(name)) > 0 {
				return wire.Refuse(wire.CodeAttestationForbidden, "broker-attributes", "attribute "+name)
			}
		}
	}
	return nil
}

// complete fills what the client left out, checks the grants on source and type,
// and sets what the broker states. Of a signed event nothing is left out: what the
// producer signed stays as it is, recordedtime too.
func (s *Session) complete(rt *route, e *cloudevent.Event, signed bool) *wire.Refusal {
	if len(e.ID) == 0 {
		at := len(s.arena)
		s.arena = s.ids.append(s.arena)
		e.ID = s.arena[at:len(s.arena):len(s.arena)]
	}
	if len(e.Source) == 0 {
		e.Source = s.source
	}
	if len(e.Type) == 0 {
		e.Type = rt.eventType
	}
	if len(e.Time) == 0 {
		e.Time = s.recorded
	}
	if len(e.ContentType) == 0 {
		e.ContentType = rt.mediaType
	}
	if len(e.Ext) > cloudevent.MaxExtensions-ownExtensions {
		return wire.Refuse(wire.CodeEventMalformed, "cloudevents", "too many extension attributes beside those that the broker adds")
	}
	e.SetExt(nameAuthID, s.authID)
	e.SetExt(nameAuthType, authType)
	if !signed {
		e.SetExt(nameRecordedTime, s.recorded)
	}
	if err := e.Validate(); err != nil {
		return eventRefusal(err)
	}
	if !bytes.Equal(e.Source, s.source) && !bytes.Equal(e.Source, s.grants.source) {
		d := use(s, acl.Source(s.p, string(e.Source)))
		if !d.Allowed {
			return wire.Refuse(wire.CodeSourceDenied, "sources", "source "+printable(e.Source))
		}
		if d.Spared == nil {
			s.grants.source = append(s.grants.source[:0], e.Source...)
		} else if !s.dry {
			d.Spared.Add() // each time: it is not remembered
		}
	}
	if !bytes.Equal(e.Type, s.grants.eventType) {
		d := use(s, acl.Type(s.p, string(e.Type)))
		if !d.Allowed {
			return wire.Refuse(wire.CodeTypeDenied, "types", "type "+printable(e.Type))
		}
		if d.Spared == nil {
			s.grants.eventType = append(s.grants.eventType[:0], e.Type...)
		} else if !s.dry {
			d.Spared.Add()
		}
	}
	return nil
}

// checkSchema is what the subjects section demands of the payload.
func (s *Session) checkSchema(rt *route, contentType, payload []byte) *wire.Refusal {
	if rt.binding == nil {
		return nil
	}
	if want := rt.binding.ContentType; want != "" && string(contentType) != want {
		return rt.judged(wire.Refuse(wire.CodeContentTypeMismatch, rt.binding.Rule, "want "+want))
	}
	if rt.validator == nil {
		return nil
	}
	v := rt.validator.Validate(contentType, payload)
	if v.OK {
		return nil
	}
	r := rt.judged(v.Refusal("schema " + rt.schemaName))
	if r != nil {
		s.rejected.Schema = rt.schemaName
	}
	return r
}

// mediaType is the declared content type of a request that is not an event.
func (s *Session) mediaType(rt *route) []byte {
	for _, h := range s.headers.All() {
		if wire.EqualFold(h.Name, wire.HeaderContentType) {
			return h.Value
		}
	}
	return rt.mediaType
}

func eventRefusal(err error) *wire.Refusal {
	code := wire.CodeEventMalformed
	switch {
	case errors.Is(err, cloudevent.ErrDuplicate), errors.Is(err, cloudevent.ErrHeaderCase):
		code = wire.CodeHeaderDuplicate
	case errors.Is(err, cloudevent.ErrJSON):
		code = wire.CodeJSONMalformed
	}
	return wire.Refuse(code, "cloudevents", err.Error())
}

// appendMsgID appends the stored dedup key: lower-case base32 of 130 bits of
// SHA-256(who 0 source 0 id), where who is the principal, with producerScope before it
// if the event is signed. So nobody can spend another publisher's identifier, and a
// signed event is the same event with every subset and order of its signatures, and
// signed anew with another key of its principal (docs/spec/envelope.md).
func (s *Session) appendMsgID(dst []byte, e *cloudevent.Event, signed bool) []byte {
	at := len(dst)
	if signed {
		dst = append(dst, producerScope...)
	}
	dst = appendMsgKey(dst, s.p.FullName(), e)
	sum := sha256.Sum256(dst[at:])
	const digits = "abcdefghijklmnopqrstuvwxyz234567" // lower case: no "N" (docs/adr/0005-attestation-text.md)
	dst = dst[:at]
	var acc uint32
	var bits uint
	for i := 0; len(dst)-at < 26; i++ {
		acc = acc<<8 | uint32(sum[i])
		for bits += 8; bits >= 5 && len(dst)-at < 26; bits -= 5 {
			dst = append(dst, digits[acc>>(bits-5)&31])
		}
	}
	return dst
}

// producerScope keeps signed and unsigned events of one principal apart: it has a
// zero byte, and no principal has.
const producerScope = "producer\x00"

func appendMsgKey(dst []byte, who string, e *cloudevent.Event) []byte {
	dst = append(dst, who...)
	dst = append(dst, 0)
	dst = append(dst, e.Source...)
	dst = append(dst, 0)
	return append(dst, e.ID...)
}

// appendEvent appends the HPUB frame of one attested event.
func (s *Session) appendEvent(dst []byte, o *op) []byte {
	sl := &s.events[o.event]
	e := &sl.event
	b := append(s.block[:0], wire.HeaderLine...)
	b = append(b, o.extra...)
	signing.Shorten(e) // what is signed is in the batch already
	b = cloudevent.AppendHeaders(b, e)
	b = append(b, wire.PrefixAttribute+wire.AttrAttestation+": "...)
	b = s.batch.AppendAttestation(b, o.event)
	b = append(b, "\r\n\r\n"...)
	s.block = b
	if sl.logged != nil {
		sl.logged.Put(o.subject, b, e.Data, sl.digest)
	}
	return wire.AppendHPub(dst, o.subject, o.reply, b, e.Data)
}
