package gate

import (
	"time"

	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/ratelimit"
)

// apiBurst is how much of a rate of API requests may be used at once.
const apiBurst = 2 * time.Second

// The rules that a refused API request names.
const (
	ruleAPIRate     = "gate.apiRate"
	ruleAPIReadRate = "gate.apiReadRate"
)

// apiRates are the buckets that all connections of a principal share; nil is no
// limit. They are apart from the limits of the policy, which are about publishes: who
// floods can still ask for keys, and asking costs no publish. nats-server works the JetStream API off in one queue for all accounts and
// drops all of it when it gets long, so one principal must not be able to fill it.
type apiRates struct{ reads, rest *ratelimit.Bucket }

func newAPIRates(t *ratelimit.Table, p *policy.Principal, l *Limits) (r apiRates) {
	bucket := func(rule string, rate float64) *ratelimit.Bucket {
		if rate < 0 {
			return nil
		}
		return t.Bucket(p.FullName(), rule, ratelimit.Limit{Name: rule, Messages: rate, Burst: apiBurst})
	}
	return apiRates{reads: bucket(ruleAPIReadRate, l.APIReadRate), rest: bucket(ruleAPIRate, l.APIRate)}
}

const (
	apiMsgNext   = wire.PrefixJSAPI + "CONSUMER.MSG.NEXT."
	apiDirectGet = wire.PrefixJSAPI + "DIRECT.GET."
	apiMsgGet    = wire.PrefixJSAPI + "STREAM.MSG.GET."
)

// take charges one request, before anything else is done for it: what the guard
// denies, or looks an owner up for, costs too.
func (r *apiRates) take(subject []byte, now time.Time) *wire.Refusal {
	bucket, rule := r.rest, ruleAPIRate
	switch {
	case hasPrefix(subject, wire.PrefixJSAck), hasPrefix(subject, wire.PrefixJSFC):
		return nil
	case hasPrefix(subject, apiMsgNext), hasPrefix(subject, apiDirectGet), hasPrefix(subject, apiMsgGet):
		bucket, rule = r.reads, ruleAPIReadRate
	}
	if bucket == nil {
		return nil
	}
	d := bucket.Take(now.UnixNano(), 0)
	if d.OK {
		return nil
	}
	refusal := wire.Refuse(wire.CodeRateLimited, rule, "")
	refusal.RetryAfter = d.RetryAfter
	return refusal
}
