package broker

import (
	"context"

	"github.com/signetbus/signet/broker/gate"
	"github.com/signetbus/signet/broker/ops"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/broker/schedule"
	"github.com/signetbus/signet/internal/wire"
)

// startSchedules starts what publishes for schedules.
func startSchedules(ctx context.Context, b startup) error {
	r, err := schedule.NewRunner(scheduleConfig(b.Broker))
	if err != nil {
		return err
	}
	b.firings.Store(r)
	r.Start(ctx)
	b.running("schedules", r.Shutdown)
	return nil
}

// scheduleConfig tells a refused firing as a refused publish of a client.
func scheduleConfig(b *Broker) schedule.Config {
	refusals := newSink(b, "schedule")
	return schedule.Config{
		Store: b.store, Chain: b.chain.Load, Policy: b.Policy,
		LetsIn: func(p *policy.Principal) bool { return b.material.Load().trust.door.Lets(p) },
		Refused: func(r *wire.Refusal, rej *schedule.Rejected) {
			refusals.Refused(r, &gate.Rejected{
				Verb: policy.VerbPublish, Tenant: rej.Tenant, Principal: rej.Principal, Subject: []byte(rej.Subject),
				Header: rej.Header, Payload: rej.Payload, Store: rej.Store, Schema: rej.Schema,
			})
		},
		Ended: func(tenant, principal, name, why string) {
			b.trail.Event("schedule-ended", tenant, tenant+"/"+principal, "", name+": "+why)
		},
		Log: b.component("schedule"),
	}
}

func scheduleMetrics(b *Broker) []ops.Source {
	return []ops.Source{{
		Name: "signet_schedule_firings_total", Help: "Firings of schedules that this node worked, by what came of them.", Kind: ops.Counter, Labels: []string{"outcome"},
		Read: func(emit func(float64, ...string)) {
			if r := b.firings.Load(); r != nil {
				for _, o := range schedule.Outcomes() {
					emit(float64(r.Count(o)), o.String())
				}
			}
		},
	}}
}
