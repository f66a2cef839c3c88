package gate

import (
	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// session is what the two directions of a connection share: the links to both
// peers, what the client said of itself, and its inboxes and subscriptions. The
// handshake sets opts and the connections of the links; after it they do not change.
// Every other part that changes has a lock of its own.
type session struct {
	down    link // to the client
	up      link // to the server
	opts    connectOptions
	box     inbox
	handed  *handed
	subs    subscriptions
	acks    signedAcks
	pulls   pulls
	flights flights
	asked   asked
	audit   witness
}

// judge returns the filter to send to the server for a SUB of p.
func (s *session) judge(p *policy.Principal, sub *subscription) (upstream string, _ *wire.Refusal) {
	if !sub.inbox {
		return jsapi.JudgeSub(p, sub.subject, sub.queue, s.box.token)
	}
	if wire.CheckRawSubject(sub.subject, true) != nil || len(sub.subject)+len(s.box.token)+1 > maxReply {
		return "", wire.Refuse(wire.CodeSubjectMalformed, "inbox", "the inbox is malformed or too long")
	}
	if sub.queue != "" && (wire.CheckRawSubject(sub.queue, false) != nil || len(sub.queue) > wire.MaxSubjectBytes) {
		return "", wire.Refuse(wire.CodeSubjectMalformed, "inbox", "the queue name is malformed")
	}
	return string(s.box.appendUp(nil, []byte(sub.subject))), nil
}

// recheck ends the subscriptions that p may not have. The server's own check ends
// them too when it reloads; this is at once and says why. The reader and Reload call
// it.
func (s *session) recheck(p *policy.Principal) {
	for _, sub := range s.subs.list() {
		if sub.inbox {
			continue
		}
		_, refusal := s.judge(p, sub)
		if refusal == nil {
			continue
		}
		s.subs.drop(sub)
		if s.up.write(appendUnsub(nil, sub.sid, 0)) != nil {
			return
		}
		s.audit.refused(p, refusal, Rejected{Verb: verbNameSubscribe, Subject: []byte(sub.subject)})
		if s.down.write(appendErr(nil, subText(sub, refusal))) != nil {
			return
		}
	}
}

// witness counts what one connection was refused and tells the sink. Any goroutine
// may call it.
type witness struct {
	sink     Sink
	counters *counters
	remote   string
}

// refused completes a refusal of p, which is nil before authentication, and reports
// it. A nil refusal is none.
func (w *witness) refused(p *policy.Principal, r *wire.Refusal, what Rejected) {
	if r == nil {
		return
	}
	what.Remote = w.remote
	if p != nil {
		what.Tenant, what.Principal = p.Tenant.Name, p.Name
		r.Principal = p.FullName()
	}
	if r.Subject == "" {
		r.Subject = string(what.Subject)
	}
	w.counters.refuse(r.Code)
	w.sink.Refused(r, &what)
}
