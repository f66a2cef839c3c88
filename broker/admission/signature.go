package admission

import (
	"errors"
	"slices"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/keyring"
)

// ruleSignature is the rule that refusals of a producer signature name, where no
// rule of the policy does.
const ruleSignature = "producer-signature"

// ruleAttestationKey is the rule of refusals for want of a key that may attest.
const ruleAttestationKey = "attestation-key"

// openSignature is the cheap half of judging a producer signature: form, keys,
// scope, time, replay. No hashing of the event and no curve operation happen in it;
// nothing is remembered. e is as the client sent it. signed says whether there is one.
func openSignature(s *Session, rt *route, p *Publish, e *cloudevent.Event) (signed bool, _ *wire.Refusal) {
	if len(e.Get(wire.AttrDSSE)) == 0 {
		if rt.binding != nil && rt.binding.Require == policy.RequireProducer {
			return false, rt.judged(wire.Refuse(wire.CodeSignatureRequired, rt.binding.Rule, ""))
		}
		return false, nil
	}
	if s.claim == nil {
		s.claim = new(signing.Claim)
	}
	if err := s.chain.producers.Read(s.claim, e); err != nil {
		return true, signatureRefusal(err)
	}
	if len(e.ID) == 0 || len(e.Source) == 0 || len(e.Type) == 0 || len(e.ContentType) == 0 || len(e.Time) == 0 {
		return true, wire.Refuse(wire.CodeSignatureUnsupported, ruleSignature, "a signed event has id, source, type, datacontenttype and time: nobody may add them afterwards")
	}
	recorded, err := signing.RecordedTime(e)
	if err != nil {
		return true, wire.Refuse(wire.CodeSignatureUnsupported, ruleSignature, "a signed event has recordedtime, when it is published, as YYYY-MM-DDTHH:MM:SSZ")
	}
	// Readers compare the keyring with recordedtime, which is the producer's here.
	if cfg := &s.chain.cfg; recorded.Before(cfg.NotBefore) || !recorded.Before(cfg.NotAfter) {
		return true, wire.Refuse(wire.CodeUnavailable, ruleAttestationKey, "the broker's attestation key was not or will not be valid at the recordedtime of the event: sign it anew, and look at the clock")
	}
	keys := s.claim.Keys()
	for i := range keys {
		if r := judgeKey(s, &keys[i], p, e, recorded); r != nil {
			return true, r
		}
	}
	if on := e.Get(wire.AttrNATSSubject); len(on) > 0 && string(on) != string(p.Subject) {
		return true, wire.Refuse(wire.CodeProducerKeySubject, ruleSignature, "signed for "+printable(on))
	}
	if r := inWindow(s, recorded); r != nil {
		return true, r
	}
	s.signedAt = recorded
	if rt.class == acl.ClassEphemeral {
		return true, replayed(s.chain.cfg.Seen.look(seenIDIn(s, e), s.p.FullName(), recorded, s.now))
	}
	if rt.forgets && s.seenAt.IsZero() {
		return true, outlived(s.chain.cfg.Seen.missed(recorded, s.now))
	}
	return true, nil
}

// outlived refuses an event that a stream which forgets may have had before this process
// began, by how much it was recorded before that. What was recorded later the stream's
// deduplication knows for as long as it is to be known, stored or not. RetryAfter tells it
// from an event that is too old: signed anew the same event is taken, by a clock that is
// behind only then.
func outlived(missed time.Duration) *wire.Refusal {
	if missed <= 0 {
		return nil
	}
	r := wire.Refuse(wire.CodeOutsideReplayWindow, ruleSignature, "this node has started since its recordedtime, and its stream does not keep what it would know it by: sign it anew, with the same id")
	r.RetryAfter = missed
	return r
}

// judgeKey says whether this key may sign this event for this principal.
func judgeKey(s *Session, k *keyring.Key, p *Publish, e *cloudevent.Event, recorded time.Time) *wire.Refusal {
	refuse := func(code wire.Code, detail string) *wire.Refusal {
		return wire.Refuse(code, ruleSignature, "key "+k.ID+detail)
	}
	switch {
	case !k.ValidAt(recorded) || !k.ValidAt(s.now):
		return refuse(wire.CodeProducerKeyNotValid, " is not valid now, or not at the recordedtime of the event")
	case k.Principal != s.p.FullName():
		return refuse(wire.CodeProducerKeyPrincipal, "")
	case connectionKey(s, k):
		return refuse(wire.CodeProducerKeyNotValid, " is the key of a connection")
	case s.chain.cfg.Connections[k.ID] != "":
		return refuse(wire.CodeProducerKeyUnknown, " is the key of the connections of another principal")
	case !k.CoversSource(string(e.Source)):
		return refuse(wire.CodeProducerKeySource, ", source "+printable(e.Source))
	case !k.CoversSubject(string(p.Subject)):
		return refuse(wire.CodeProducerKeySubject, "")
	}
	return nil
}

// connectionKey reports whether the principal logs in with k, under whatever prefix:
// a server can have a connection key sign anything, so its signature proves nothing.
func connectionKey(s *Session, k *keyring.Key) bool {
	return slices.ContainsFunc(s.p.Nkeys, k.SameAs)
}

// inWindow is the time half of the replay check; the other half is the stream's
// deduplication, or Seen.
func inWindow(s *Session, recorded time.Time) *wire.Refusal {
	detail := ""
	seen := s.now
	if !s.seenAt.IsZero() {
		seen = s.seenAt // it was in time when the broker refused it
	}
	switch age := seen.Sub(recorded); {
	case age >= policy.ReplayPast:
		detail = "it is " + age.Truncate(time.Second).String() + " old, less than " + policy.ReplayPast.String() + " is wanted"
	case age < -policy.ReplayFuture:
		detail = "it is " + (-age).Truncate(time.Second).String() + " ahead of the broker's clock, at most " + policy.ReplayFuture.String() + " is let in"
	default:
		return nil
	}
	return wire.Refuse(wire.CodeOutsideReplayWindow, ruleSignature, detail)
}

// seenIDIn names a signed event whatever connection it comes on and whichever of its
// signatures it bears: all its keys are of the principal that sends it (judgeKey).
func seenIDIn(s *Session, e *cloudevent.Event) seenID {
	at := len(s.arena)
	s.arena = appendMsgKey(append(s.arena, producerScope...), s.p.FullName(), e)
	id := seenIDOf(s.arena[at:])
	s.arena = s.arena[:at]
	return id
}

func replayed(v seenVerdict) *wire.Refusal {
	switch v {
	case seenNew:
		return nil
	case seenBefore:
		return wire.Refuse(wire.CodeReplayed, ruleSignature, "")
	case seenForgotten:
		return wire.Refuse(wire.CodeOutsideReplayWindow, ruleSignature, "this node does not remember what it let in at its recordedtime: it has started since, or its clock was set")
	}
	r := wire.Refuse(wire.CodeUnavailable, ruleSignature, "this node remembers as many signed ephemeral events as it can")
	r.RetryAfter = seenStep
	return r
}

// checkSignature is the expensive half: hashes, curve, and what must be remembered
// only of an event whose signature holds. e is completed by now.
func checkSignature(s *Session, p *Publish, e *cloudevent.Event) *wire.Refusal {
	if err := s.chain.producers.Check(s.claim, e, p.Subject); err != nil {
		return signatureRefusal(err)
	}
	// Readers derive both; they cost every reader of the stored event.
	e.DelExt(wire.AttrNATSSubject)
	e.DelExt(signing.AttrExactTime)
	return nil
}

func signatureRefusal(err error) *wire.Refusal {
	code := wire.CodeSignatureUnsupported
	switch {
	case errors.Is(err, signing.ErrUnknownKey):
		code = wire.CodeProducerKeyUnknown
	case errors.Is(err, signing.ErrKeyNotValid):
		code = wire.CodeProducerKeyNotValid
	case errors.Is(err, signing.ErrBadSignature):
		code = wire.CodeProducerSignatureInvalid
	case errors.Is(err, signing.ErrNoKeyring):
		code = wire.CodeUnavailable
	}
	return wire.Refuse(code, ruleSignature, err.Error())
}
