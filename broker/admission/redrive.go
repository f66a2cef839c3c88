package admission

import (
	"bytes"
	"strconv"
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/internal/wire"
)

const (
	ruleRedrive = "redrive"
	ruleFiring  = "schedule"
)

// Redrive judges an event that was refused once, by everything that Publish asks, and
// returns what is to be stored: header block and payload, the caller's to keep. It takes
// from the limits as a publish does. seen is when the broker got the event first: a
// signature was in time then or is not in time; whether its key may sign is asked for now.
// With dry nothing is counted, taken or made, and whether the rates would allow it is not
// asked.
//
// Only events of streams can be redriven, and none whose headers act on the moment of a
// publish, such as a condition on a sequence. The session must be new, and is spent.
func Redrive(s *Session, p *Publish, seen, now time.Time, dry bool) (block, payload []byte, _ *wire.Refusal) {
	s.seenAt = seen
	return onBehalf(s, p, now, dry, redrivable)
}

// Fire judges an event that the broker publishes for the principal of s because a moment of
// a schedule has come, by everything that Publish asks, and attests it: nothing of what was
// said when the schedule was put counts. What it returns, what dry is and which session it
// wants are as for Redrive; Session.Rejection says afterwards whether a refused one is kept.
func Fire(s *Session, p *Publish, now time.Time, dry bool) (block, payload []byte, _ *wire.Refusal) {
	return onBehalf(s, p, now, dry, firable)
}

// onBehalf publishes for a principal what no connection of it sends. may refuses beforehand.
func onBehalf(s *Session, p *Publish, now time.Time, dry bool, may func(*Session, *route, *Publish) *wire.Refusal) (block, payload []byte, _ *wire.Refusal) {
	s.dry = dry
	s.Begin(now)
	fail := func(r *wire.Refusal) ([]byte, []byte, *wire.Refusal) {
		if s.work != nil {
			s.release()
		}
		r.Principal, r.Subject = s.p.FullName(), string(p.Subject)
		return nil, nil, r
	}
	rt, r := s.resolve(string(p.Subject))
	if r == nil {
		r = may(s, rt, p)
	}
	if r != nil {
		return fail(r)
	}
	if dry {
		rt.limits, rt.spared, rt.logged = limits{}, nil, nil
	}
	if r := s.Publish(p); r != nil {
		return fail(r)
	}
	if dry {
		s.release()
		return nil, nil, nil
	}
	return splitFrame(s.Flush(nil))
}

// redrivable refuses what cannot be published as it was.
func redrivable(s *Session, rt *route, p *Publish) *wire.Refusal {
	if rt.class != acl.ClassEvent {
		return wire.Refuse(wire.CodeConflict, ruleRedrive, "only events of streams are redriven: on this subject nothing is stored, and nobody would say that it arrived")
	}
	if err := s.headers.Parse(p.Header); err != nil {
		return headerRefusal(err)
	}
	for _, h := range s.headers.All() {
		if wire.HasPrefixFold(h.Name, wire.PrefixNats) && !wire.EqualFold(h.Name, wire.HeaderMsgID) {
			return wire.Refuse(wire.CodeConflict, ruleRedrive, "header "+printable(h.Name)+" was about the moment of the publish: publish the event anew")
		}
	}
	return nil
}

// firable refuses what a schedule cannot publish.
func firable(_ *Session, rt *route, _ *Publish) *wire.Refusal {
	if rt.class != acl.ClassEvent {
		return wire.Refuse(wire.CodeConflict, ruleFiring, "a schedule publishes events of streams only: elsewhere nothing would know a firing that comes twice")
	}
	return nil
}

// splitFrame takes the one HPUB of a flush apart.
func splitFrame(frame []byte) (block, payload []byte, _ *wire.Refusal) {
	line, rest, ok := bytes.Cut(frame, []byte("\r\n"))
	words := bytes.Fields(line)
	if !ok || len(words) != 4 || string(words[0]) != "HPUB" {
		return nil, nil, wire.Refuse(wire.CodeInternal, ruleRedrive, "")
	}
	head, err := strconv.Atoi(string(words[2]))
	all, e := strconv.Atoi(string(words[3]))
	if err != nil || e != nil || head < 0 || head > all || all > len(rest) {
		return nil, nil, wire.Refuse(wire.CodeInternal, ruleRedrive, "")
	}
	return rest[:head], rest[head:all], nil
}
