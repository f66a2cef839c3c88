package jsapi

import (
	"strings"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// JudgeSub gives the verdict for a SUB of anything but an inbox (the gate maps
// those first): event and ephemeral subjects by subscribe grants, rpc. subjects by
// serve grants, $SRV.<verb>[.<name>[.<id>]] by a serve grant on the service. All
// else is refused; $KV and $O are read through consumers. queue may be empty; the
// session is not looked at. upstream is the filter to send on.
//
// A filter that begins with a wildcard is refused whatever the grants say: on the
// server it would also match inboxes, $JS and $KV of the whole tenant.
func JudgeSub(p *policy.Principal, filter, queue, _ string) (upstream string, _ *wire.Refusal) {
	refuse := func(code wire.Code, rule, detail string) (string, *wire.Refusal) {
		r := wire.Refuse(code, rule, detail)
		r.Subject, r.Principal = filter, p.FullName()
		return "", r
	}
	const rule = "read-guard/subscribe"
	if queue != "" && (wire.CheckRawSubject(queue, false) != nil || len(queue) > wire.MaxSubjectBytes) {
		return refuse(wire.CodeSubjectMalformed, rule, "the queue name is malformed")
	}
	if strings.HasPrefix(filter, wire.PrefixService) {
		d := acl.ServiceSubject(p, filter).Use()
		if wire.CheckRawSubject(filter, false) != nil || !d.Allowed {
			return refuse(wire.CodeServeDenied, d.Rule, "no serve grant for this service")
		}
		return filter, nil
	}
	if strings.HasPrefix(filter, "$") || strings.HasPrefix(filter, "_") {
		return refuse(wire.CodeSubscribeDenied, rule, "this subject space is not open to subscriptions")
	}
	if err := wire.CheckFilter(filter); err != nil {
		return refuse(wire.CodeSubjectMalformed, rule, strings.TrimPrefix(err.Error(), "wire: "))
	}
	if endpoint, ok := strings.CutPrefix(filter, wire.PrefixRPC); ok {
		if d := acl.Serve(p, endpoint).Use(); !d.Allowed {
			return refuse(wire.CodeServeDenied, d.Rule, "no serve grant covers the endpoint")
		}
		return filter, nil
	}
	if filter[0] == '*' || filter[0] == '>' {
		return refuse(wire.CodeSubscribeDenied, rule, "the first token must be literal; a consumer reads whole streams")
	}
	d := acl.Subscribe(p, filter).Use()
	d.Spared.Add()
	if !d.Allowed {
		_, r := refuse(wire.CodeSubscribeDenied, d.Rule, "no subscribe grant covers the filter")
		r.Explain = acl.Explain(p, policy.VerbSubscribe, filter).Wire()
		return "", r
	}
	return filter, nil
}
