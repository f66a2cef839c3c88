package gate

import (
	"errors"
	"strconv"

	"github.com/signetbus/signet/internal/wire"
)

// Errors of SUB that leave the connection open, in nats-server's words.
var (
	errTooManySubs    = errors.New("maximum subscriptions exceeded")
	errInvalidSubject = errors.New("Invalid Subject")
)

// subscriber judges SUB and UNSUB. Only the reader uses it.
type subscriber struct {
	s    *session
	out  *batch
	most int // subscriptions at once
}

// subscribe judges one SUB. A refused one leaves no state.
func (u *subscriber) subscribe(cmd *command) {
	b, subs := u.out, &u.s.subs
	if subs.has(cmd.sid) {
		b.ok() // the first one stays, as on the server
		return
	}
	wild := isInbox(cmd.subject) && wire.CheckRawSubject(cmd.subject, false) != nil
	if subs.count() >= u.most || wild && subs.wildInboxes() >= maxWildInboxes {
		r := wire.Refuse(wire.CodeSubscriptionLimited, "subscriptions", "")
		u.s.audit.refused(b.principal, r, cmd.rejected(verbNameSubscribe))
		b.refusals++
		b.err(errTooManySubs.Error())
		return
	}
	sub := &subscription{
		sid: string(cmd.sid), subject: string(cmd.subject), queue: string(cmd.queue),
		inbox: isInbox(cmd.subject),
	}
	filter, refusal := u.s.judge(b.principal, sub)
	if refusal != nil {
		u.s.audit.refused(b.principal, refusal, cmd.rejected(verbNameSubscribe))
		b.refusals++
		b.err(subText(sub, refusal)) // after the sink has set its reference
		return
	}
	subs.add(sub)
	if r := u.tooMany(b.principal, sub); r != nil {
		u.s.audit.refused(b.principal, r, cmd.rejected(verbNameSubscribe))
		b.refusals++
		b.err(errTooManySubs.Error() + ": " + reasonText(r))
		return
	}
	b.forwardSub(sub, filter)
	b.ok()
}

// unsubscribe handles UNSUB, also of a sid that is not there: clients race with
// their own limits.
func (u *subscriber) unsubscribe(cmd *command) {
	if limit, live := u.s.subs.limit(cmd.sid, cmd.max); live {
		u.out.forwardUnsub(string(cmd.sid), limit)
	}
	u.out.ok()
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

func appendUnsub(dst []byte, sid string, limit int) []byte {
	dst = append(dst, "UNSUB "...)
	dst = append(dst, sid...)
	if limit > 0 {
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, int64(limit), 10)
	}
	return append(dst, '\r', '\n')
}
