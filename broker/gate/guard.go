package gate

import (
	"context"
	"strings"
	"time"

	"github.com/signetbus/signet/broker/jsapi"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const subjectUserInfo = "$SYS.REQ.USER.INFO"

// isAPI reports whether the read guard judges publishes to s.
func isAPI(s []byte) bool {
	return hasPrefix(s, "$JS.") || string(s) == subjectUserInfo
}

// apiCaller judges publishes to the JetStream API by the read guard. Only the
// reader uses it.
type apiCaller struct {
	s      *session
	out    *batch
	life   context.Context // of the connection
	judge  *jsapi.Guard
	owners *ownerCache
	rates  apiRates                    // of the principal
	mapper func(string) (string, bool) // s.box.mapReply, made once
	who    func() *Connection          // says whose requests they are

	failures Failures                                    // nil: nobody keeps them
	first    func(ack []byte, sequence uint64) time.Time // of the relay's tally

	consumers      func(context.Context, *policy.Principal) (map[ConsumerName]bool, error) // Deps.Consumers
	consumersAgain time.Time                                                               // when they are counted anew
}

// call judges one request to the JetStream API, an ack or a flow control answer.
func (a *apiCaller) call(cmd *command) error {
	b := a.out
	if r := a.rates.take(cmd.subject, b.now); r != nil {
		b.refuseAs(cmd, r, cmd.rejected(verbNamePublish), apiForm{status: hasPrefix(cmd.subject, apiMsgNext)})
		return nil
	}
	if err := b.headers.Parse(cmd.header); err != nil {
		b.refuse(cmd, wire.Refuse(wire.CodeHeaderMalformed, "read-guard", strings.TrimPrefix(err.Error(), "wire: ")))
		return nil
	}
	if a.mapper == nil {
		a.mapper = a.s.box.mapReply
	}
	tenant := b.principal.Tenant.Name
	req := jsapi.Request{
		Principal: b.principal, Session: a.s.box.token,
		Subject: string(cmd.subject), Reply: string(cmd.reply),
		Header: &b.headers, Body: cmd.payload, MapInbox: a.mapper,
	}
	v := a.judge.Judge(&req, func(stream, consumer string) (string, bool, bool) {
		owner, ok := a.owners.get(ownerKey{tenant, stream, consumer}, b.now)
		return owner, ok, ok
	})
	if v.Action == jsapi.NeedOwner {
		// The look-up is the only thing on this path that waits: what is accepted
		// already must not wait with it.
		if err := b.flush(); err != nil {
			return err
		}
		owner, found, refusal := a.owners.ask(a.life, ownerKey{tenant, v.Stream, v.Consumer})
		b.resume()
		req.Principal = b.principal
		if refusal != nil {
			b.refuseAs(cmd, refusal, cmd.rejected(verbNamePublish), apiForm{v.APIType, v.Status})
			return nil
		}
		v = a.judge.Judge(&req, func(string, string) (string, bool, bool) { return owner, found, true })
	}
	switch {
	case v.Action != jsapi.Forward:
		r := v.Refusal
		if r == nil {
			r = wire.Refuse(wire.CodeInternal, "read-guard", "")
		}
		b.refuseAs(cmd, r, cmd.rejected(verbNamePublish), apiForm{v.APIType, v.Status})
		return nil
	case v.Effect != jsapi.EffectNone:
		if v.Effect == jsapi.EffectCreated && a.consumers != nil && countsConsumers(b.principal) {
			if err := b.flush(); err != nil {
				return err
			}
			p := b.principal // that the verdict is about
			refusal := a.tooManyConsumers(p, ConsumerName{v.Stream, v.Consumer}, v.Reply)
			b.resume()
			if refusal != nil {
				b.refuseAs(cmd, refusal, cmd.rejected(verbNamePublish), apiForm{v.APIType, v.Status})
				return nil
			}
			if b.principal != p {
				return a.call(cmd)
			}
		}
		a.owners.forget(ownerKey{tenant, v.Stream, v.Consumer}, b.now)
	}
	if access := v.Access(); access != jsapi.AccessOther {
		a.s.audit.sink.Requested(a.who(), access, &v)
	}
	if hasPrefix(cmd.subject, wire.PrefixJSAck) && a.settle(&v) {
		return nil
	}
	if p, ok := pullOf(v.Subject, v.Stream, v.Consumer, v.Reply, v.Body, b.now); ok {
		a.s.pulls.note(p)
	}
	b.forward([]byte(v.Subject), []byte(v.Reply), v.Header, v.Body)
	return nil
}
