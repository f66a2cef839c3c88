package gate

import (
	"errors"
	"io"
	"os"

	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// reader is the way up after the handshake: it reads from the client, hands each
// operation to the part that judges it, and flushes what a read led to. It runs in
// the connection's first goroutine, which owns every field.
type reader struct {
	intake
	life      *lifetime
	access    *access
	admission func(*policy.Principal) *admission.Session
	rates     func(*policy.Principal) apiRates

	batch   batch
	publish publisher
	api     apiCaller
	subs    subscriber
}

func (r *reader) init(c *conn) {
	g := c.gate
	cfg, s, b := &g.cfg, &c.session, &r.batch
	r.intake = intake{
		link: &s.down, bytes: &g.counters.bytesIn, limit: cfg.Timeouts.Message,
		parse: parser{maxLine: cfg.Limits.ControlLine, maxConnect: cfg.Limits.Connect, maxPayload: cfg.Limits.Payload},
	}
	r.life, r.access, r.admission = &c.life, &c.access, g.deps.Admission
	r.rates = func(p *policy.Principal) apiRates { return newAPIRates(&g.rates, p, &cfg.Limits) }
	b.s, b.counters, b.explain, b.refresh = s, &g.counters, cfg.ExplainToCaller, r.refresh
	r.publish = publisher{s: s, out: b, life: c.life.ctx, waitMax: cfg.Timeouts.WaitMax}
	if g.deps.Receipt != nil {
		r.publish.receipts = &s.acks
	}
	r.api = apiCaller{
		s: s, out: b, life: c.life.ctx, judge: g.deps.Guard, owners: &g.owners, who: c.describe,
		failures: g.deps.Failures, first: c.relay.tally.first, consumers: g.deps.Consumers,
	}
	r.subs = subscriber{s: s, out: b, most: cfg.Limits.Subscriptions}
}

// run handles batches until the connection ends. It returns nil when the gate or
// the server ended it, io.EOF when the client did, and a *fatal for -ERR.
func (r *reader) run() error {
	r.refresh()
	for {
		// What the handshake read too much is the first batch.
		if err := r.process(); err != nil {
			return err
		}
		if err := r.arm(); err != nil {
			return err
		}
		if r.life.woken() {
			return nil
		}
		switch err := r.fill(); {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if r.life.woken() {
				return nil
			}
			return &fatal{err: errStale, refusal: wire.Refuse(wire.CodeProtocolViolation, "message-deadline", "a message took too long to arrive")}
		default:
			return err
		}
	}
}

// refresh takes over what Reload has changed: the principal, or how it is admitted.
func (r *reader) refresh() {
	renewals := r.access.renewals.Load() // before the principal: what comes later is seen next time
	p, b := r.access.principal.Load(), &r.batch
	if p == b.principal && renewals == b.renewals {
		return
	}
	first := b.principal == nil
	b.principal, b.admission, b.renewals = p, r.admission(p), renewals
	r.api.rates = r.rates(p)
	r.publish.rates = r.api.rates
	if !first {
		// A SUB that was judged by the old policy while Reload looked at the table.
		b.s.recheck(p)
	}
}

// process handles every whole operation in the window as one batch.
func (r *reader) process() error {
	if !r.ready() {
		return nil
	}
	r.refresh()
	r.batch.begin()
	var failed error
	var cmd command
	for failed == nil {
		more, err := r.next(&cmd)
		if err != nil {
			failed = &fatal{err: err, refusal: violation(err)}
			break
		}
		if !more {
			break
		}
		failed = r.handle(&cmd)
	}
	// What came before a violation counts. After a flush that failed in the middle
	// this one does nothing: the batch has ended with it.
	if err := r.batch.flush(); err != nil && failed == nil {
		failed = err
	}
	if failed == nil {
		r.atone()
	}
	r.publish.rest()
	return failed
}

// violation is the audit record of a protocol error.
func violation(err error) *wire.Refusal {
	code := wire.CodeProtocolViolation
	if err == errPayload { //nolint:errorlint // a sentinel of this package, never wrapped
		code = wire.CodePayloadTooLarge
	}
	return wire.Refuse(code, "protocol", err.Error())
}

// handle judges one operation. Refusals are answered; an error ends the connection.
func (r *reader) handle(cmd *command) error {
	switch cmd.verb {
	case verbPub:
		if isAPI(cmd.subject) {
			return r.api.call(cmd)
		}
		return r.publish.handle(cmd)
	case verbSub:
		r.subs.subscribe(cmd)
	case verbUnsub:
		r.subs.unsubscribe(cmd)
	case verbPing:
		r.batch.admission.Frame(pingFrame)
	case verbPong:
		r.batch.admission.Frame(pongFrame)
	case verbOK:
	case verbErr:
		return io.EOF // as nats-server: a client that reports an error is done
	default:
		return &fatal{err: errArguments, refusal: wire.Refuse(wire.CodeProtocolViolation, "connect", "a second CONNECT")}
	}
	return nil
}
