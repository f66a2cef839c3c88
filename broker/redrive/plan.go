package redrive

import (
	"context"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// planConsumer brings a letter to the consumer that failed, by its retry queue: the
// original bytes, read by nobody but those who read that consumer.
func (r *Redriver) planConsumer(ctx context.Context, l *letter) (*delivery, error) {
	f := l.rec
	if l.tenant.Stream(f.Origin.Stream) == nil {
		l.stop(adminapi.VerdictGone, "the policy has no stream "+f.Origin.Stream+" any more")
		return nil, nil
	}
	c, err := store.ConsumerFor(ctx, r.cfg.Store, l.tenant.Name, f.Origin.Stream, f.Origin.Consumer)
	if err != nil {
		return nil, err
	}
	if c == nil {
		l.stop(adminapi.VerdictGone, "stream "+f.Origin.Stream+" has no consumer "+f.Origin.Consumer+" any more: let its owner make it again, or use --to all")
		return nil, nil
	}
	owner := principal(l.tenant, c.Owner)
	switch {
	case !c.Durable:
		l.stop(adminapi.VerdictUnsupported, "consumer "+f.Origin.Consumer+" is no durable: it belongs to one subscription, and nobody would read its retry queue; use --to all")
		return nil, nil
	case !c.Wants(f.NATSSubject):
		// Its durable is for what its consumer reads, and goes when the owner may not read that.
		l.stop(adminapi.VerdictGone, "consumer "+f.Origin.Consumer+" does not read "+f.NATSSubject+" any more: make it with the filter that it had, or use --to all")
		return nil, nil
	case owner == nil:
		l.stop(adminapi.VerdictRefused, "the owner of the consumer is not in the policy, or disabled: "+c.Owner)
		l.out.Code = wire.CodePrincipalRevoked
		return nil, nil
	case !acl.Subscribe(owner, f.NATSSubject).Allowed:
		d := acl.Subscribe(owner, f.NATSSubject)
		refusal := wire.Refuse(wire.CodeSubscribeDenied, d.Rule, owner.FullName()+", who owns consumer "+f.Origin.Consumer+", may not read "+f.NATSSubject+" now")
		l.refuse(adminapi.VerdictRefused, refusal)
		return nil, nil
	case l.noRoom():
		return nil, nil
	}
	header := l.headers()
	if header == nil {
		return nil, nil
	}
	if refusal := r.cfg.Room(len(l.rec.Payload)); refusal != nil {
		l.refuse(adminapi.VerdictFull, refusal)
		return nil, nil
	}
	header.Set(wire.HeaderRedriveStream, f.Origin.Stream)
	header.Set(wire.HeaderRedriveConsumer, f.Origin.Consumer)
	header.Set(wire.HeaderRedriveSubject, f.NATSSubject)
	header.Set(wire.HeaderRedriveSequence, strconv.FormatUint(f.Origin.Sequence, 10))
	header.Set(wire.HeaderMsgID, l.msgID())
	return &delivery{
		stream: wire.StreamRetry, window: store.RetryWindow, drains: true,
		msg: &nats.Msg{Subject: wire.RetrySubject(f.Origin.Stream, f.Origin.Consumer), Header: header, Data: l.rec.Payload},
		ready: func(ctx context.Context) error {
			return store.EnsureRetry(ctx, r.cfg.Store, l.tenant.Name, c, func(filters []string) bool { return jsapi.ReadsWithin(owner, f.Origin.Stream, filters) })
		},
	}, nil
}

// noRoom stops what has no queue to go to.
func (l *letter) noRoom() bool {
	if wire.RetryConsumer(l.rec.Origin.Stream, l.rec.Origin.Consumer) == "" {
		l.stop(adminapi.VerdictUnsupported, "the names of stream and consumer are too long for a retry queue: use --to all")
		return true
	}
	return false
}

// principal finds a principal that may act now.
func principal(t *policy.Tenant, fullName string) *policy.Principal {
	for _, p := range t.Principals() {
		if p.FullName() == fullName && !p.Disabled {
			return p
		}
	}
	return nil
}

// sender is who published the event of the letter; nil with a verdict if he may not now.
func (l *letter) sender(name string) *policy.Principal {
	p := principal(l.tenant, name)
	if p == nil {
		l.stop(adminapi.VerdictRefused, "who published it is not in the policy any more, or disabled: "+name)
		l.out.Code = wire.CodePrincipalRevoked
	}
	return p
}

// planRefused publishes a letter of the door for everybody: it goes through the whole
// admission, as of the principal that sent it, and is attested now.
func (r *Redriver) planRefused(l *letter) *delivery {
	p := l.sender(l.rec.Principal)
	if p == nil {
		return nil
	}
	block, ok := l.without(func(name []byte) bool { return string(name) == wire.HeaderAck })
	if !ok {
		return nil
	}
	return r.admit(l, p, &admission.Publish{Subject: []byte(l.rec.NATSSubject), Header: block, Payload: l.rec.Payload}, false)
}

// planFixed publishes another payload in place of that of the letter: a new event, of who
// redrives it.
func (r *Redriver) planFixed(l *letter) *delivery {
	if l.event != nil && string(l.event.ContentType) == wire.EncryptedContentType {
		l.stop(adminapi.VerdictUnsupported, "its payload is encrypted: publish the event anew, encrypted, and purge the letter")
		return nil
	}
	block, ok := l.without(func(name []byte) bool {
		return wire.HasPrefixFold(name, wire.PrefixNats) || wire.HasPrefixFold(name, wire.PrefixSignet) || ofTheOldEvent[string(name)]
	})
	if !ok {
		return nil
	}
	if len(block) == 0 {
		block = []byte(wire.HeaderLine + "\r\n")
	}
	// The event has an id that is the same when this is tried again.
	block = wire.AppendHeader(block[:len(block)-2], wire.HeaderMsgID, []byte(l.msgID()))
	block = append(block, '\r', '\n')
	return r.admit(l, l.order.By, &admission.Publish{Subject: []byte(l.rec.NATSSubject), Header: block, Payload: l.order.Payload}, true)
}

// ofTheOldEvent are the headers that say who made the event, and when.
var ofTheOldEvent = map[string]bool{
	wire.PrefixAttribute + "id": true, wire.PrefixAttribute + "source": true, wire.PrefixAttribute + "time": true,
	wire.PrefixAttribute + wire.AttrAttestation: true, wire.PrefixAttribute + wire.AttrExpanded: true, wire.PrefixAttribute + wire.AttrDSSE: true,
	wire.PrefixAttribute + wire.AttrAuthID: true, wire.PrefixAttribute + wire.AttrAuthType: true,
	wire.PrefixAttribute + wire.AttrRecordedTime: true, wire.PrefixAttribute + wire.AttrNATSSubject: true,
	wire.PrefixAttribute + wire.AttrSequence: true, wire.PrefixAttribute + wire.AttrExpiryTime: true,
}

// admit has p publish the event.
func (r *Redriver) admit(l *letter, p *policy.Principal, publish *admission.Publish, anew bool) *delivery {
	seen := l.rec.Time
	if anew {
		seen = l.now
	}
	block, payload, refusal := admission.Redrive(r.cfg.Chain().Session(p), publish, seen, l.now, l.order.DryRun)
	if refusal != nil {
		l.refuse(verdictOn(refusal), refusal)
		return nil
	}
	if l.order.DryRun {
		return l.toAll(nats.Header{}, nil)
	}
	header := l.headersOf(block)
	if header == nil {
		return nil
	}
	if header.Get(wire.HeaderMsgID) == "" {
		header.Set(wire.HeaderMsgID, l.msgID())
	}
	return l.toAll(header, payload)
}

// verdictOn is what a refusal means for a letter: one that passes by itself must not have a
// run leave the letter behind.
func verdictOn(r *wire.Refusal) string {
	switch {
	case r.Code == wire.CodeConflict:
		return adminapi.VerdictUnsupported
	case r.Code.Class() == wire.ClassRateLimited, r.Code.Class() == wire.ClassUnavailable:
		return adminapi.VerdictFull
	}
	return adminapi.VerdictRefused
}

// planStored publishes for everybody what was stored once already: as it was, with its old
// attestation, if the policy would let it in from who sent it.
func (r *Redriver) planStored(l *letter) *delivery {
	if l.order.Own {
		l.stop(adminapi.VerdictRefused, "to publish for all what a consumer failed on needs the area dlq: the event may be another's")
		l.out.Code = wire.CodeAdminDenied
		return nil
	}
	if l.event == nil {
		l.stop(adminapi.VerdictUnsupported, "it is no event")
		return nil
	}
	att, err := r.verifier.Verify(restored(l.event), l.rec.NATSSubject)
	if err != nil {
		l.stop(adminapi.VerdictRefused, "its attestation does not hold: "+err.Error())
		l.out.Code = wire.CodeAttestationForbidden
		return nil
	}
	p := l.sender(att.Principal)
	if p == nil {
		return nil
	}
	header := l.headers()
	if header == nil {
		return nil
	}
	block := []byte(wire.HeaderLine)
	for name, values := range header {
		if !wire.HasPrefixFold([]byte(name), wire.PrefixSignet) {
			block = wire.AppendHeader(block, name, []byte(values[0]))
		}
	}
	block = append(block, '\r', '\n')
	_, what, refusal := r.cfg.Judge().Event(p, l.rec.NATSSubject, block, l.rec.Payload, l.now)
	if refusal == nil && acl.Classify(l.tenant, l.rec.NATSSubject) != acl.ClassEvent {
		refusal = wire.Refuse(wire.CodeConflict, "redrive", "no stream of the policy has this subject any more")
	}
	if refusal == nil {
		refusal = r.cfg.Room(len(l.rec.Payload))
	}
	if refusal != nil {
		if refusal.Detail == "" {
			refusal.Detail = what
		}
		l.refuse(verdictOn(refusal), refusal)
		return nil
	}
	header.Set(wire.HeaderMsgID, l.msgID())
	return l.toAll(header, l.rec.Payload)
}

func (l *letter) toAll(header nats.Header, payload []byte) *delivery {
	st := l.tenant.StreamFor(l.rec.NATSSubject)
	if st == nil {
		l.stop(adminapi.VerdictGone, "no stream of the policy has this subject any more")
		return nil
	}
	header.Set(wire.HeaderRedriveCount, strconv.Itoa(l.out.Count))
	header.Set(wire.HeaderRedriveLetter, strconv.FormatUint(l.Sequence, 10))
	return &delivery{stream: st.Name, window: st.DuplicateWindow, drains: st.Retention != policy.RetentionLimits, msg: &nats.Msg{Subject: l.rec.NATSSubject, Header: header, Data: payload}}
}
