package gate

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Judgement is what Failures.Judge says of a delivery.
type Judgement uint8

// The judgements.
const (
	JudgeDeliver  Judgement = iota // it may go to the client
	JudgeWithhold                  // it is one too many
	JudgeUnknown                   // the consumer has to be looked at first
)

// Failures keeps what consumers fail on: an event is stored as a dead letter before it is
// let go. Its methods must not block. Safe for concurrent use.
type Failures interface {
	// Covers reports whether consumers of a stream have dead letters.
	Covers(t *policy.Tenant, stream string) bool
	// Judge is asked about every delivery of an event but its first.
	Judge(tenant, stream, consumer string, sequence, attempt uint64) Judgement
	// Take takes a failure and sees to all that follows. False: not now, nothing was done.
	Take(f *Failure) bool
}

// Failure is one delivery that the consumer gave up, that is one too many, or that may be.
type Failure struct {
	Tenant, Stream, Consumer string

	Ack      string // subject of its acknowledgement
	Sequence uint64 // in Stream
	Attempt  uint64 // from 1
	By       string // "tenant/name" of the client
	First    time.Time

	// Terminated: the client sent +TERM with the text Reason; Reply is where it waits for
	// the server to say so, in upstream form.
	Terminated    bool
	Reason, Reply string

	// Deliver writes the delivery, which JudgeUnknown is about, to the client; Withheld is
	// called instead where it is one too many. Size is what they hold on to in bytes. nil
	// where there is nothing to decide.
	Deliver, Withheld func()
	Size              int
}

// withhold reports whether a delivery, which is not the first one of its event, stays here:
// the event has failed often enough, or it is not known yet whether it has. The relay calls
// it with the frame at [at, at+n) of buf.
func (r *relay) withhold(buf []byte, at, n int, f *frame, d *delivered, now time.Time) bool {
	deps, p := r.failures, r.tally.principal
	if deps == nil || d.attempt < 2 || d.count == nil {
		return false
	}
	stream, consumer := d.count.Stream, d.count.Consumer
	judgement := deps.Judge(p.Tenant.Name, stream, consumer, d.sequence, d.attempt)
	if judgement == JudgeDeliver {
		return false
	}
	failure := &Failure{
		Tenant: p.Tenant.Name, Stream: stream, Consumer: consumer, Ack: string(f.reply),
		Sequence: d.sequence, Attempt: d.attempt, By: p.FullName(), First: r.tally.firsts.get(d.count.tag, d.sequence),
	}
	r.cut(buf, at, n)
	if judgement == JudgeWithhold {
		_ = deps.Take(failure) // else the event stays pending, and comes again
		r.pullAgain(f.sid, stream, consumer)
		return true
	}
	r.tally.message(f, d, now)
	mark := len(r.out)
	r.rewrite(f)
	frame, c := bytes.Clone(r.out[mark:]), r.tally.c
	failure.Size = len(frame)
	// In a goroutine of its own: a client that does not read holds up nobody's dead letters.
	failure.Deliver = func() { c.gate.spawn(c, func() { _ = c.session.down.write(frame) }) }
	sid := bytes.Clone(f.sid)
	failure.Withheld = func() { c.gate.spawn(c, func() { r.pullAgain(sid, stream, consumer) }) }
	if deps.Take(failure) {
		r.out = r.out[:mark]
	}
	return true
}

// pullAgain asks for another event in place of one that was withheld: the server counts
// that as delivered, and the client waits for it. Any goroutine may call it.
func (r *relay) pullAgain(sid []byte, stream, consumer string) {
	filter, ok := r.s.subs.filter(sid)
	if !ok {
		return
	}
	subject, reply, body, ok := r.s.pulls.again(stream, consumer, string(r.s.box.appendUp(nil, []byte(filter))), time.Now())
	if ok {
		_ = r.s.up.write(wire.AppendPub(nil, []byte(subject), []byte(reply), body))
	}
}

// settle takes over an ack that needs more than to be forwarded, and reports whether it
// did: a +TERM waits until the dead letter is stored. A -NAK without a delay gets that of
// the policy.
func (a *apiCaller) settle(v *jsapi.Verdict) bool {
	text, term := bytes.CutPrefix(v.Body, []byte(jsapi.Term))
	nak := string(v.Body) == jsapi.Nak
	if !term && !nak || a.failures == nil {
		return false
	}
	b := a.out
	tenant := b.principal.Tenant
	if !a.failures.Covers(tenant, v.Stream) {
		return false
	}
	attempt, sequence, ok := jsapi.AckNumbers(v.Subject)
	if !ok {
		return false // no such delivery: the server ignores it
	}
	if nak {
		v.Body = jsapi.NakAfter(int64(tenant.Retry(v.Stream, v.Consumer).Delay(attempt, rand.Float64()))) //nolint:gosec // it spreads retries
		return false
	}
	_ = a.failures.Take(&Failure{ // else the event stays pending, and comes again
		Tenant: tenant.Name, Stream: v.Stream, Consumer: v.Consumer, Ack: v.Subject,
		Sequence: sequence, Attempt: attempt, By: b.principal.FullName(), First: a.first([]byte(v.Subject), sequence),
		Terminated: true, Reason: strings.TrimSpace(string(text)), Reply: v.Reply,
	})
	b.accepted()
	return true
}
