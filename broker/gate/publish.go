package gate

import (
	"context"
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

const subjectUserInfo = "$SYS.REQ.USER.INFO"

// handlePublish judges one PUB or HPUB. Refusals are answered; an error ends the
// connection.
func (b *batch) handlePublish(cmd *command) error {
	switch {
	case hasPrefix(cmd.subject, "$JS.") || string(cmd.subject) == subjectUserInfo:
		return b.guard(cmd)
	case isInbox(cmd.subject):
		b.publishInbox(cmd)
		return nil
	case hasPrefix(cmd.subject, wire.PrefixRouted):
		if !b.handed.has(cmd.subject, b.now) {
			b.refuse(cmd, wire.Refuse(wire.CodeInboxDenied, "inbox", ""))
			return nil
		}
		b.forwardReply(cmd, cmd.subject)
		return nil
	default:
		return b.admit(cmd)
	}
}

// mapReply returns the upstream form of the reply subject, nil for none. A reply
// subject that may not be is refused here; ok is then false.
func (b *batch) mapReply(cmd *command) (reply []byte, ok bool) {
	if len(cmd.reply) == 0 {
		return nil, true
	}
	if why := b.box.replyProblem(cmd.reply); why != "" {
		b.refuse(cmd, wire.Refuse(wire.CodeReplyDenied, "reply", why))
		return nil, false
	}
	return b.upstreamInbox(cmd.reply), true
}

// upstreamInbox maps an inbox into the scratch of the batch, where it stays valid
// until the flush: when the scratch grows, earlier views keep its old array.
func (b *batch) upstreamInbox(subject []byte) []byte {
	at := len(b.scratch)
	b.scratch = b.box.appendUp(b.scratch, subject)
	return b.scratch[at:len(b.scratch):len(b.scratch)]
}

// mapInbox is upstreamInbox for the read guard.
func (b *batch) mapInbox(client string) (string, bool) {
	if b.box.replyProblem([]byte(client)) != "" {
		return "", false
	}
	if strings.HasPrefix(client, b.box.up) {
		return client, true
	}
	return b.box.up + client[len(wire.PrefixInbox):], true
}

// admit hands a publish to admission. A limit that says wait may hold the batch,
// within one budget for the whole batch; everything before it is sent on first.
func (b *batch) admit(cmd *command) error {
	reply, ok := b.mapReply(cmd)
	if !ok {
		return nil
	}
	b.publish.Subject, b.publish.Reply = cmd.subject, reply
	b.publish.Header, b.publish.Payload = cmd.header, cmd.payload
	refusal := b.admission.Publish(&b.publish)
	for refusal != nil && b.mayWait(refusal) {
		wait := refusal.RetryAfter
		reply = append([]byte(nil), reply...) // the flush ends the scratch
		if err := b.flush(); err != nil {
			return err
		}
		sleep(b.life, wait)
		b.waited += wait
		b.begin()
		b.publish.Subject, b.publish.Reply = cmd.subject, reply
		b.publish.Header, b.publish.Payload = cmd.header, cmd.payload
		refusal = b.admission.Publish(&b.publish)
	}
	if refusal != nil {
		b.rejected = b.admission.Rejection()
		b.refuse(cmd, refusal)
		return nil
	}
	b.messages++
	b.ok()
	return nil
}

func (b *batch) mayWait(r *wire.Refusal) bool {
	return r.RetryAfter > 0 && b.admission.Rejection().MayWait &&
		b.waited+r.RetryAfter <= b.gate.cfg.Timeouts.WaitMax
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

// publishInbox forwards a publish to an inbox: one of this client's own that it
// listens on, or one that was handed to it.
func (b *batch) publishInbox(cmd *command) {
	if wire.CheckRawSubject(cmd.subject, false) != nil {
		b.refuse(cmd, wire.Refuse(wire.CodeSubjectMalformed, "inbox", "an inbox must be literal"))
		return
	}
	switch {
	case b.handed.has(cmd.subject, b.now):
		b.forwardReply(cmd, cmd.subject)
	case b.subs.hasInbox(cmd.subject):
		b.forwardReply(cmd, b.upstreamInbox(cmd.subject))
	default:
		b.refuse(cmd, wire.Refuse(wire.CodeInboxDenied, "inbox", ""))
	}
}

// forwardReply forwards an answer as it is, but for headers that a client may not
// set: Signet- names and Nats- names, except those of a service's error.
func (b *batch) forwardReply(cmd *command, subject []byte) {
	reply, ok := b.mapReply(cmd)
	if !ok {
		return
	}
	if r := checkReplyHeaders(&b.headers, cmd.header); r != nil {
		b.refuse(cmd, r)
		return
	}
	if len(cmd.header) > 0 {
		b.frame = wire.AppendHPub(b.frame[:0], subject, reply, cmd.header, cmd.payload)
	} else {
		b.frame = wire.AppendPub(b.frame[:0], subject, reply, cmd.payload)
	}
	b.admission.Frame(b.frame)
	b.messages++
	b.ok()
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
