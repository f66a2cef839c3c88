package broker

import (
	"time"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// judgeOf answers what admission would make of an event, by the policy in force.
func judgeOf(b *Broker) func(*policy.Principal, string, []byte) (acl.Explanation, []wire.Violation) {
	return func(p *policy.Principal, subject string, event []byte) (acl.Explanation, []wire.Violation) {
		j := admission.NewJudge(b.material.Load().validator, int(b.cfg.Gate.MaxPayload))
		return j.CanPublish(p, subject, event, time.Now())
	}
}
