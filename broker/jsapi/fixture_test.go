package jsapi

import (
	"strings"
	"testing"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

const bundle = `
tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 1MiB}
  - {name: METERS, subjects: [meters.a, meters.b], maxBytes: 1MiB}
ephemeral: [telemetry.>]
kv:
  - {bucket: cfg, maxBytes: 1MiB}
  - {bucket: secret, maxBytes: 1MiB}
objects:
  - {bucket: files, maxBytes: 1MiB}
  - {bucket: vault, maxBytes: 1MiB}
principals:
  - {name: part, subscribe: [orders.*.paid, orders.*.sent], kv: {read: [cfg]}, objects: {read: [files]}}
  - {name: whole, subscribe: [orders.>, telemetry.>], kv: {read: [cfg], write: [cfg]}, objects: {read: [files], write: [files]}}
  - {name: writer, publish: [orders.>]}
  - {name: shared, subscribe: [orders.*.paid], consumers: [ORDERS.theirs]}
  - {name: other, subscribe: [orders.*.paid]}
  - {name: sharedwide, subscribe: [orders.>], consumers: [ORDERS.theirs]}
  - {name: sharedall, consumers: [ORDERS.*]}
  - {name: admin, admin: [streams, consumers]}
  - {name: server, serve: [billing.*], subscribe: [orders.*.paid]}
  - {name: none}
`

var set = func() *policy.Set {
	b, err := policy.Parse("test.yaml", []byte(bundle))
	if err == nil {
		err = b.Validate()
	}
	if err != nil {
		panic(err)
	}
	s, err := policy.Compile(b)
	if err != nil {
		panic(err)
	}
	return s
}()

func principal(name string) *policy.Principal {
	p := set.Principal("shop", name)
	if p == nil {
		panic("no principal " + name)
	}
	return p
}

const session = "SESSIONTOKEN"

// mapInbox is what the gate does: idempotent for its own output.
func mapInbox(s string) (string, bool) {
	rest, ok := strings.CutPrefix(s, "_INBOX.")
	if !ok || rest == "" {
		return "", false
	}
	if strings.HasPrefix(rest, session+".") {
		return s, true
	}
	return "_INBOX." + session + "." + rest, true
}

// owners: "mine" belongs to whoever asks, "theirs" to somebody else, "brokers" to the
// broker, "bare" has no owner, "unknown" must be looked up, everything else does not exist.
func owners(self string) OwnerFunc {
	return func(_, consumer string) (string, bool, bool) {
		switch consumer {
		case "mine":
			return self, true, true
		case "theirs":
			return "shop/other", true, true
		case "bare":
			return "", true, true
		case "brokers":
			return wire.BrokerAccount, true, true
		case "unknown":
			return "", false, false
		}
		return "", false, true
	}
}

func judge(name, subject, reply, body string) Verdict {
	p := principal(name)
	r := &Request{Principal: p, Session: session, Subject: subject, Reply: reply, Body: []byte(body), MapInbox: mapInbox}
	return New(Config{}).Judge(r, owners(p.FullName()))
}

const inbox = "_INBOX.a.b"

// want is a verdict in one word: "forward", "owner", or the name of a code.
func outcome(v Verdict) string {
	switch v.Action {
	case Forward:
		return "forward"
	case NeedOwner:
		return "owner"
	default:
		return v.Refusal.Code.Entry().Name
	}
}

type row struct{ name, who, subject, body, want string }

func runRows(t *testing.T, rows []row) {
	t.Helper()
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			v := judge(tt.who, tt.subject, inbox, tt.body)
			if got := outcome(v); got != tt.want {
				t.Errorf("%s on %s %s: got %s (%v), want %s", tt.who, tt.subject, tt.body, got, v.Refusal, tt.want)
			}
			if v.Action == NeedOwner && (v.Stream == "" || v.Consumer == "" || v.APIType == "" && !v.Status && strings.HasPrefix(tt.subject, wire.PrefixJSAPI)) {
				t.Errorf("a look-up that fails could not be answered: %+v", v)
			}
			if v.Action != Refuse {
				return
			}
			r := v.Refusal
			if !strings.HasPrefix(r.Rule, "read-guard/") || r.Subject != tt.subject || r.Principal != "shop/"+tt.who || r.Detail == "" {
				t.Errorf("refusal lacks rule, subject, principal or detail: %+v", r)
			}
			if strings.HasPrefix(tt.subject, wire.PrefixJSAPI) && !v.Status && v.APIType == "" && r.Code != wire.CodeAPIDenied {
				t.Errorf("refusal of %s has no API type", tt.subject)
			}
		})
	}
}
