package broker

import (
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/redrive"
	"github.com/signetbus/signet/broker/store"
	"github.com/signetbus/signet/internal/wire"
	"github.com/signetbus/signet/signing/keyring"
)

// letterBook is what the admin API reads and works dead letters with.
type letterBook struct {
	*store.Store
	*redrive.Redriver
}

// newRedriver makes what brings dead letters back, by the policy and keys in force.
func newRedriver(b *Broker) (*redrive.Redriver, error) {
	return redrive.New(redrive.Config{
		Store: b.store, Chain: b.chain.Load,
		Judge: func() *admission.Judge {
			return admission.NewJudge(b.material.Load().validator, int(b.cfg.Gate.MaxPayload))
		},
		Ring: func() *keyring.Ring { return b.material.Load().ring },
		Room: func(payload int) *wire.Refusal {
			s := b.guards.shortage.Load()
			if s == nil || payload <= s.Most {
				return nil
			}
			return wire.Refuse(wire.CodeUnavailable, s.Rule, s.Detail)
		},
		Done: func(tenant, by, detail string) { b.trail.Event("dlq-redriven", tenant, by, "", detail) },
	})
}
