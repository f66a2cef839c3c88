package gate

import (
	"strconv"
	"strings"

	"github.com/signetbus/signet/internal/wire"
)

// Values of Rejected.Verb.
const (
	verbNameConnect   = "connect"
	verbNamePublish   = "publish"
	verbNameSubscribe = "subscribe"
	verbNameProtocol  = "protocol"
)

// maxErrText bounds the text of one -ERR in bytes; clients read control lines of
// 4,096 bytes.
const maxErrText = 2048

// rejected is what the sink is told of a refused operation.
func (c *command) rejected(verb string) Rejected {
	return Rejected{Verb: verb, Subject: c.subject, Reply: c.reply, Header: c.header, Payload: c.payload}
}

// apiForm is how callers of the JetStream API read a refusal.
type apiForm struct {
	apiType string // of the response; empty for none
	status  bool   // a status frame, for a pull
}

// refuse answers a refused publish.
func (b *batch) refuse(cmd *command, r *wire.Refusal) {
	b.refuseAs(cmd, r, cmd.rejected(verbNamePublish), apiForm{})
}

// refuseAs answers a refused publish: on its reply subject, if it is an inbox that
// this client listens on, as a JetStream API error or, for a pull, as a status
// frame; otherwise as -ERR. The answer is a frame of the gate: it does not pass the
// server, so echo:false clients get it too. It is never a 503: clients retry those.
func (b *batch) refuseAs(cmd *command, r *wire.Refusal, what Rejected, form apiForm) {
	b.s.audit.refused(b.principal, r, what)
	b.refusals++
	var targets []target
	if len(cmd.reply) > 0 && (!form.status || b.s.opts.Headers) && b.s.box.replyProblem(cmd.reply) == "" {
		targets = b.s.subs.inject(cmd.reply)
	}
	if len(targets) == 0 {
		text := "Permissions Violation for Publish to "
		if b.s.opts.Pedantic && r.Code == wire.CodeSubjectMalformed {
			text = "Invalid Publish Subject " // what nats-server tells a pedantic client
		}
		b.err(text + strconv.Quote(clipSubject(cmd.subject)) + ": " + reasonText(r))
		return
	}
	var body []byte
	if !form.status {
		body = r.Answer(form.apiType, b.explain)
	}
	for _, t := range targets {
		if form.status {
			b.answers = appendStatus(b.answers, cmd.reply, t.sid, r)
		} else {
			b.answers = wire.AppendMsg(b.answers, cmd.reply, []byte(t.sid), nil, body)
		}
		// The server does not know of this delivery: its own count must end earlier.
		if t.end || t.limit > 0 {
			b.forwardUnsub(t.sid, t.limit)
		}
		b.spill()
	}
}

// err answers with -ERR.
func (b *batch) err(text string) {
	b.answers = appendErr(b.answers, text)
	b.spill()
}

// appendStatus appends the status that pulling clients read: 400, which ends their
// loop, or 429 where the same pull passes later, which does not.
func appendStatus(dst, subject []byte, sid string, r *wire.Refusal) []byte {
	status := "400 "
	if r.RetryAfter > 0 {
		status = "429 "
	}
	header := "NATS/1.0 " + status + sanitize(reasonText(r)) + "\r\n\r\n"
	size := strconv.Itoa(len(header))
	dst = append(dst, "HMSG "...)
	dst = append(dst, subject...)
	dst = append(dst, ' ')
	dst = append(dst, sid...)
	dst = append(dst, ' ')
	dst = append(dst, size...)
	dst = append(dst, ' ')
	dst = append(dst, size...)
	dst = append(dst, '\r', '\n')
	dst = append(dst, header...)
	return append(dst, '\r', '\n')
}

// reasonText is a refusal in one line for a caller.
func reasonText(r *wire.Refusal) string {
	var s strings.Builder
	s.WriteString(r.Code.String())
	s.WriteString(": ")
	s.WriteString(r.Code.Entry().Title)
	if r.Detail != "" {
		s.WriteString(": " + r.Detail)
	}
	if r.Rule != "" {
		s.WriteString(" (rule " + r.Rule + ")")
	}
	if r.RetryAfter > 0 {
		s.WriteString(" retry after " + r.RetryAfter.String())
	}
	if r.Ref != "" {
		s.WriteString(" ref " + r.Ref)
	}
	return s.String()
}

// appendErr appends one -ERR frame.
func appendErr(dst []byte, text string) []byte {
	dst = append(dst, "-ERR '"...)
	dst = append(dst, sanitize(text)...)
	return append(dst, "'\r\n"...)
}

// sanitize makes s safe inside one control line: no control characters, no quote
// that would end the text, bounded.
func sanitize(s string) string {
	if len(s) > maxErrText {
		s = s[:maxErrText]
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r == 0x7f:
			return ' '
		case r == '\'':
			return '`'
		}
		return r
	}, s)
}

func clipSubject(b []byte) string {
	if len(b) > wire.MaxSubjectBytes {
		b = b[:wire.MaxSubjectBytes]
	}
	return string(b)
}
