package gate

import (
	"strings"
	"time"

	"github.com/signetbus/signet/internal/wire"
)

const subjectUserInfo = "$SYS.REQ.USER.INFO"

// handlePublish judges one PUB or HPUB. Refusals are answered; an error ends the
// connection.
func (c *conn) handlePublish(cmd *command) error {
	switch {
	case hasPrefix(cmd.subject, "$JS.") || string(cmd.subject) == subjectUserInfo:
		return c.guard(cmd)
	case isInbox(cmd.subject):
		c.publishInbox(cmd)
		return nil
	case hasPrefix(cmd.subject, wire.PrefixRouted):
		if !c.handed.has(cmd.subject, c.batch.now) {
			c.refuse(cmd, wire.Refuse(wire.CodeInboxDenied, "inbox", ""))
			return nil
		}
		c.forwardReply(cmd, cmd.subject)
		return nil
	default:
		return c.admit(cmd)
	}
}

// mapReply returns the upstream form of the reply subject, nil for none. A reply
// subject that may not be is refused here; ok is then false.
func (c *conn) mapReply(cmd *command) (reply []byte, ok bool) {
	if len(cmd.reply) == 0 {
		return nil, true
	}
	if why := c.box.replyProblem(cmd.reply); why != "" {
		c.refuse(cmd, wire.Refuse(wire.CodeReplyDenied, "reply", why))
		return nil, false
	}
	return c.upstreamInbox(cmd.reply), true
}

// upstreamInbox maps an inbox into the scratch of the batch, where it stays valid
// until the flush: when the scratch grows, earlier views keep its old array.
func (c *conn) upstreamInbox(subject []byte) []byte {
	b := &c.batch
	at := len(b.scratch)
	b.scratch = c.box.appendUp(b.scratch, subject)
	return b.scratch[at:len(b.scratch):len(b.scratch)]
}

// mapInbox is upstreamInbox for the read guard.
func (c *conn) mapInbox(client string) (string, bool) {
	if c.box.replyProblem([]byte(client)) != "" {
		return "", false
	}
	if strings.HasPrefix(client, c.box.up) {
		return client, true
	}
	return c.box.up + client[len(wire.PrefixInbox):], true
}

// admit hands a publish to admission. A limit that says wait may hold the batch,
// within one budget for the whole batch; everything before it is sent on first.
func (c *conn) admit(cmd *command) error {
	reply, ok := c.mapReply(cmd)
	if !ok {
		return nil
	}
	b := &c.batch
	b.publish.Subject, b.publish.Reply = cmd.subject, reply
	b.publish.Header, b.publish.Payload = cmd.header, cmd.payload
	refusal := b.admission.Publish(&b.publish)
	for refusal != nil && c.mayWait(refusal) {
		wait := refusal.RetryAfter
		reply = append([]byte(nil), reply...) // the flush ends the scratch
		if err := c.flush(); err != nil {
			return err
		}
		c.sleep(wait)
		b.waited += wait
		b.begin()
		b.publish.Subject, b.publish.Reply = cmd.subject, reply
		b.publish.Header, b.publish.Payload = cmd.header, cmd.payload
		refusal = b.admission.Publish(&b.publish)
	}
	if refusal != nil {
		c.refuse(cmd, refusal)
		return nil
	}
	b.messages++
	c.ok()
	return nil
}

func (c *conn) mayWait(r *wire.Refusal) bool {
	return r.RetryAfter > 0 && c.batch.admission.Rejection().MayWait &&
		c.batch.waited+r.RetryAfter <= c.gate.cfg.Timeouts.WaitMax
}

// sleep waits, but not longer than the connection lives.
func (c *conn) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.life.Done():
	}
}

// publishInbox forwards a publish to an inbox: one of this client's own that it
// listens on, or one that was handed to it.
func (c *conn) publishInbox(cmd *command) {
	if wire.CheckRawSubject(cmd.subject, false) != nil {
		c.refuse(cmd, wire.Refuse(wire.CodeSubjectMalformed, "inbox", "an inbox must be literal"))
		return
	}
	switch {
	case c.handed.has(cmd.subject, c.batch.now):
		c.forwardReply(cmd, cmd.subject)
	case c.subs.hasInbox(cmd.subject):
		c.forwardReply(cmd, c.upstreamInbox(cmd.subject))
	default:
		c.refuse(cmd, wire.Refuse(wire.CodeInboxDenied, "inbox", ""))
	}
}

// forwardReply forwards an answer as it is, but for headers that a client may not
// set: Signet- names and Nats- names, except those of a service's error.
func (c *conn) forwardReply(cmd *command, subject []byte) {
	reply, ok := c.mapReply(cmd)
	if !ok {
		return
	}
	b := &c.batch
	if r := c.checkReplyHeaders(cmd.header); r != nil {
		c.refuse(cmd, r)
		return
	}
	if len(cmd.header) > 0 {
		b.frame = wire.AppendHPub(b.frame[:0], subject, reply, cmd.header, cmd.payload)
	} else {
		b.frame = wire.AppendPub(b.frame[:0], subject, reply, cmd.payload)
	}
	b.admission.Frame(b.frame)
	b.messages++
	c.ok()
}

// checkReplyHeaders also re-parses the block strictly: only a block with one
// meaning is forwarded.
func (c *conn) checkReplyHeaders(block []byte) *wire.Refusal {
	h := &c.batch.headers
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
