package gate

import (
	"errors"
	"strconv"

	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// Errors of SUB that leave the connection open, in nats-server's words.
var (
	errTooManySubs    = errors.New("maximum subscriptions exceeded")
	errInvalidSubject = errors.New("Invalid Subject")
)

// subscribe judges one SUB. A refused one leaves no state.
func (b *batch) subscribe(cmd *command) {
	if b.subs.has(cmd.sid) {
		b.ok() // the first one stays, as on the server
		return
	}
	wild := isInbox(cmd.subject) && wire.CheckRawSubject(cmd.subject, false) != nil
	if b.subs.count() >= b.gate.cfg.Limits.Subscriptions || wild && b.subs.wildInboxes() >= maxWildInboxes {
		r := wire.Refuse(wire.CodeSubscriptionLimited, "subscriptions", "")
		b.note(r, verbNameSubscribe, cmd)
		b.answers = appendErr(b.answers, errTooManySubs.Error())
		return
	}
	s := &subscription{
		sid: string(cmd.sid), subject: string(cmd.subject), queue: string(cmd.queue),
		inbox: isInbox(cmd.subject),
	}
	upstream, refusal := b.judgeSub(b.principal, s)
	if refusal != nil {
		b.refuseSub(s, refusal, cmd)
		return
	}
	b.subs.add(s)
	b.frame = append(b.frame[:0], "SUB "...)
	b.frame = append(b.frame, upstream...)
	b.frame = append(b.frame, ' ')
	if s.queue != "" {
		b.frame = append(b.frame, s.queue...)
		b.frame = append(b.frame, ' ')
	}
	b.frame = append(b.frame, s.sid...)
	b.frame = append(b.frame, '\r', '\n')
	b.admission.Frame(b.frame)
	b.ok()
}

// judgeSub returns the filter to send to the server.
func (c *conn) judgeSub(p *policy.Principal, s *subscription) (upstream string, _ *wire.Refusal) {
	if !s.inbox {
		return jsapi.JudgeSub(p, s.subject, s.queue, c.box.token)
	}
	if wire.CheckRawSubject(s.subject, true) != nil || len(s.subject)+len(c.box.token)+1 > maxReply {
		return "", wire.Refuse(wire.CodeSubjectMalformed, "inbox", "the inbox is malformed or too long")
	}
	if s.queue != "" && (wire.CheckRawSubject(s.queue, false) != nil || len(s.queue) > wire.MaxSubjectBytes) {
		return "", wire.Refuse(wire.CodeSubjectMalformed, "inbox", "the queue name is malformed")
	}
	return string(c.box.appendUp(nil, []byte(s.subject))), nil
}

// refuseSub answers a refused SUB.
func (b *batch) refuseSub(s *subscription, r *wire.Refusal, cmd *command) {
	b.note(r, verbNameSubscribe, cmd)
	b.answers = appendErr(b.answers, subText(s, r))
}

// subText is nats-server's text, which clients parse, with the reason after it.
func subText(s *subscription, r *wire.Refusal) string {
	if r.Code == wire.CodeSubjectMalformed {
		return errInvalidSubject.Error()
	}
	text := "Permissions Violation for Subscription to " + strconv.Quote(s.subject)
	if s.queue != "" {
		text += " using queue " + strconv.Quote(s.queue)
	}
	return text + ": " + reasonText(r)
}

// unsubscribe handles UNSUB, also of a sid that is not there: clients race with
// their own limits.
func (b *batch) unsubscribe(cmd *command) {
	if limit, live := b.subs.limit(cmd.sid, cmd.max); live {
		b.forwardUnsub(string(cmd.sid), limit)
	}
	b.ok()
}

// forwardUnsub sends UNSUB in the order of the batch; limit 0 is at once.
func (b *batch) forwardUnsub(sid string, limit int) {
	b.frame = appendUnsub(b.frame[:0], sid, limit)
	b.admission.Frame(b.frame)
}

func appendUnsub(dst []byte, sid string, limit int) []byte {
	dst = append(dst, "UNSUB "...)
	dst = append(dst, sid...)
	if limit > 0 {
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, int64(limit), 10)
	}
	return append(dst, '\r', '\n')
}
