package gate

import (
	"context"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// publisher judges publishes, but for those to the JetStream API: events and the
// other classes that admission knows, and answers to inboxes. Only the reader uses
// it.
type publisher struct {
	s        *session
	out      *batch
	life     context.Context    // of the connection
	rates    apiRates           // of the principal, for requests to the admin API
	receipts admission.Receipts // nil: no acknowledgement is signed
	waitMax  time.Duration      // that one batch may be held for limits
	waited   time.Duration      // of the batch so far
	event    admission.Publish
}

// rest lets go of what belongs to one batch.
func (p *publisher) rest() {
	p.waited = 0
	p.event = admission.Publish{}
}

// handle judges one PUB or HPUB. Refusals are answered; an error ends the
// connection.
func (p *publisher) handle(cmd *command) error {
	switch {
	case isInbox(cmd.subject):
		p.toInbox(cmd)
		return nil
	case hasPrefix(cmd.subject, wire.PrefixRouted):
		if !p.s.handed.has(cmd.subject, p.out.now) {
			p.out.refuse(cmd, wire.Refuse(wire.CodeInboxDenied, "inbox", ""))
			return nil
		}
		p.answer(cmd, cmd.subject)
		return nil
	case hasPrefix(cmd.subject, wire.PrefixAdmin):
		if r := p.rates.take(cmd.subject, p.out.now); r != nil {
			p.out.refuse(cmd, r)
			return nil
		}
		return p.admit(cmd)
	default:
		return p.admit(cmd)
	}
}

// mapReply returns the upstream form of the reply subject, nil for none. A reply
// subject that may not be is refused here; ok is then false.
func (p *publisher) mapReply(cmd *command) (reply []byte, ok bool) {
	if len(cmd.reply) == 0 {
		return nil, true
	}
	why := p.s.box.replyProblem(cmd.reply)
	if why == "" && isControl(cmd.reply) && !mayFastBatch(p.out.principal, cmd) {
		why = controlProblem
	}
	if why != "" {
		p.out.refuse(cmd, wire.Refuse(wire.CodeReplyDenied, "reply", why))
		return nil, false
	}
	return p.out.upstreamInbox(cmd.reply), true
}

// mayFastBatch: the control channel of a fast batch acts on the stream of the subject, so
// it goes along with an event only, of whoever has the right by its name, where the
// stream takes them.
func mayFastBatch(p *policy.Principal, cmd *command) bool {
	subject := string(cmd.subject)
	s := p.Tenant.StreamFor(subject)
	return s != nil && s.FastBatches && acl.Classify(p.Tenant, subject) == acl.ClassEvent && acl.Header(p, policy.FastBatch).Use().Allowed
}

// admit hands a publish to admission. A limit that says wait may hold the batch,
// within one budget for the whole batch; everything before it is sent on first.
func (p *publisher) admit(cmd *command) error {
	reply, ok := p.mapReply(cmd)
	if !ok {
		return nil
	}
	refusal := p.ask(cmd, reply)
	for refusal != nil && p.mayWait(refusal) {
		wait := refusal.RetryAfter
		reply = append([]byte(nil), reply...) // the flush ends the scratch
		if err := p.out.flush(); err != nil {
			return err
		}
		sleep(p.life, wait)
		p.waited += wait
		p.out.resume()
		refusal = p.ask(cmd, reply)
	}
	if refusal != nil {
		what, why := cmd.rejected(verbNamePublish), p.out.admission.Rejection()
		what.Store, what.Schema = why.Store, why.Schema
		p.out.refuseAs(cmd, refusal, what, apiForm{})
		return nil
	}
	p.out.accepted()
	return nil
}

// ask asks admission once. reply must stay valid until the flush.
func (p *publisher) ask(cmd *command, reply []byte) *wire.Refusal {
	p.event.Subject, p.event.Reply = cmd.subject, reply
	p.event.Header, p.event.Payload = cmd.header, cmd.payload
	p.event.Receipts, p.event.Flights = p.receipts, &p.s.flights
	if isControl(reply) {
		// Of a fast batch, which the server paces: it answers one of many, on a subject of its choice.
		p.event.Flights = nil
	}
	r := p.out.admission.Publish(&p.event)
	p.s.flights.settle(r == nil, reply, p.out.now)
	return r
}

func (p *publisher) mayWait(r *wire.Refusal) bool {
	return r.RetryAfter > 0 && p.out.admission.Rejection().MayWait && p.waited+r.RetryAfter <= p.waitMax
}

// sleep waits for d, but not longer than life.
func sleep(life context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-life.Done():
	}
}

// toInbox forwards a publish to an inbox: one of this client's own that it listens
// on, or one that was handed to it.
func (p *publisher) toInbox(cmd *command) {
	if wire.CheckRawSubject(cmd.subject, false) != nil {
		p.out.refuse(cmd, wire.Refuse(wire.CodeSubjectMalformed, "inbox", "an inbox must be literal"))
		return
	}
	switch {
	case p.s.handed.has(cmd.subject, p.out.now):
		p.answer(cmd, cmd.subject)
	case p.s.subs.hasInbox(cmd.subject):
		p.answer(cmd, p.out.upstreamInbox(cmd.subject))
	default:
		p.out.refuse(cmd, wire.Refuse(wire.CodeInboxDenied, "inbox", ""))
	}
}

// answer forwards an answer as it is, but for headers that a client may not set:
// Signet- names and Nats- names, except those of a service's error.
func (p *publisher) answer(cmd *command, subject []byte) {
	reply, ok := p.mapReply(cmd)
	if !ok {
		return
	}
	if r := checkReplyHeaders(&p.out.headers, cmd.header); r != nil {
		p.out.refuse(cmd, r)
		return
	}
	p.out.forward(subject, reply, cmd.header, cmd.payload)
}

// checkReplyHeaders also re-parses the block strictly: only a block with one
// meaning is forwarded.
func checkReplyHeaders(h *wire.Headers, block []byte) *wire.Refusal {
	if err := h.Parse(block); err != nil {
		return wire.Refuse(wire.CodeHeaderMalformed, "reply", strings.TrimPrefix(err.Error(), "wire: "))
	}
	for _, e := range h.All() {
		service := wire.EqualFold(e.Name, "Nats-Service-Error") || wire.EqualFold(e.Name, "Nats-Service-Error-Code")
		if wire.HasPrefixFold(e.Name, wire.PrefixSignet) || wire.HasPrefixFold(e.Name, wire.PrefixNats) && !service {
			return wire.Refuse(wire.CodeHeaderDenied, "reply", "header "+string(e.Name)+" is not allowed on answers")
		}
	}
	return nil
}
