package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker/acl"
	"github.com/signetbus/signet/broker/admission"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// Plan implements admin.Policies.
func (p policyAdmin) Plan(ctx context.Context, q *adminapi.PolicyPlanRequest, tenant string) (*adminapi.PolicyPlan, error) {
	b := p.b
	files, err := policy.Unpack(q.Files)
	if q.Version > 0 {
		a, e := findVersion(ctx, b, q.Version)
		switch {
		case e != nil:
			return nil, e
		case !a.holds():
			return nil, wire.Refuse(wire.CodeConflict, "policy", fmt.Sprintf("version %d gives the policy back to the files of the nodes: it has none of its own", q.Version))
		}
		files, err = policy.Unpack(a.Files)
	}
	if err != nil {
		return nil, wire.Refuse(wire.CodeRequestMalformed, "policy", err.Error())
	}
	m := b.material.Load()
	out := &adminapi.PolicyPlan{InForce: m.policy.Digest(), Partial: tenant != ""}
	next := &material{loaded: time.Now(), counts: policy.NewCounts()}
	if next.bundle, err = policy.ParseFiles(files); err == nil {
		if next.policy, err = policy.CompileAt(next.bundle, next.loaded, next.counts); err == nil {
			err = next.compileSchemas(ctx)
		}
	}
	if err == nil {
		_, err = declaredAccounts(next.policy, &b.cfg)
	}
	if err != nil {
		out.Faults = planFaults(err)
		return out, nil
	}
	if out.Faults, out.Ungiven, out.Unasked = ungivenAnywhere(ctx, b, next.policy, m.policy); len(out.Faults) > 0 {
		return out, nil
	}
	out.Digest = next.policy.Digest()
	for _, c := range policy.Compare(m.policy, next.policy) {
		if tenant != "" && c.Tenant != tenant {
			continue
		}
		if c.At.File != "" {
			c.At.File = filepath.Base(c.At.File) // where it lies on the node is nobody's business
		}
		if len(out.Changes) == adminapi.MaxPlanChanges {
			out.More++
			continue
		}
		out.Changes = append(out.Changes, adminapi.PolicyChange{
			Tenant: c.Tenant, Principal: c.Principal, What: c.What, Of: c.Of, Name: c.Name, Detail: c.Detail, Rule: c.Rule,
			File: c.At.File, Line: c.At.Line, Text: c.String(),
		})
	}
	if q.Hours > 0 {
		if !b.replay.CompareAndSwap(false, true) {
			return nil, wire.Refuse(wire.CodeUnavailable, "policy", "this node is judging stored events for another plan: try again in half a minute, or plan with --hours 0")
		}
		defer b.replay.Store(false)
		out.Replay = replayPolicy(ctx, b, m.policy, next, tenant, time.Duration(q.Hours)*time.Hour)
	}
	return out, nil
}

func planFaults(err error) []adminapi.PolicyFault {
	var out []adminapi.PolicyFault
	for _, f := range policy.Faults(err) {
		out = append(out, faultOf(f))
	}
	if len(out) == 0 {
		out = append(out, adminapi.PolicyFault{Message: err.Error()})
	}
	return out
}

// replay judges stored events by another policy.
type replay struct {
	next  *material
	judge *admission.Judge
	out   *adminapi.PolicyReplayed
	group map[replayKey]int // position in out.Refusals
	until time.Time
}

type replayKey struct {
	principal, eventType string
	code                 wire.Code
	rule                 string
}

// replayPolicy judges what the streams of the tenants have got since then, as far as it is
// still there and there is time: newest streams first would favour one of them, so each
// gets its share of the events.
func replayPolicy(ctx context.Context, b *Broker, now *policy.Set, next *material, tenant string, span time.Duration) *adminapi.PolicyReplayed {
	began := time.Now()
	r := &replay{
		next: next, judge: admission.NewJudge(next.validator, int(b.cfg.Gate.MaxPayload)), group: map[replayKey]int{},
		out: &adminapi.PolicyReplayed{Since: began.Add(-span).UTC().Truncate(time.Second)}, until: began.Add(adminapi.MaxPlanSeconds * time.Second),
	}
	type part struct{ tenant, stream string }
	var parts []part
	for _, t := range now.Tenants() {
		for i := range t.Streams {
			if tenant != "" && t.Name != tenant {
				continue
			}
			// A reader of its own would have a say in what such a stream keeps.
			if how := t.Streams[i].Retention; how != policy.RetentionLimits {
				r.out.Cut = fmt.Sprintf("%s of tenant %s: retention %s, not replayed", t.Streams[i].Name, t.Name, how)
			} else {
				parts = append(parts, part{t.Name, t.Streams[i].Name})
			}
		}
	}
	for i, p := range parts {
		share := (adminapi.MaxPlanEvents - r.out.Events) / (len(parts) - i)
		if err := r.stream(ctx, b, p.tenant, p.stream, share); err != nil {
			r.out.Cut = fmt.Sprintf("%s of tenant %s: %v", p.stream, p.tenant, err)
			if ctx.Err() != nil {
				break
			}
		}
	}
	slices.SortStableFunc(r.out.Refusals, func(a, b adminapi.PolicyRefusals) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Principal, b.Principal), cmp.Compare(a.Type, b.Type))
	})
	return r.out
}

// replayBatch is how many events are fetched at a time.
const replayBatch = 500

var errReplayMany = errors.New("it has more events than are replayed at a time: ask for fewer hours")

var errReplayLong = errors.New("there was no time for all of its events: ask for fewer hours")

// stream replays one stream up to the end that it has now.
func (r *replay) stream(ctx context.Context, b *Broker, tenant, name string, most int) error {
	conn, err := b.store.Conn(tenant)
	if err != nil {
		return err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	s, err := js.Stream(ctx, name)
	if err != nil {
		return err
	}
	info, err := s.Info(ctx)
	if err != nil || info.State.Msgs == 0 || info.State.LastTime.Before(r.out.Since) {
		return err
	}
	c, err := js.OrderedConsumer(ctx, name, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartTimePolicy, OptStartTime: &r.out.Since,
		InactiveThreshold: 30 * time.Second, Metadata: map[string]string{wire.MetaOwner: wire.BrokerAccount},
	})
	if err != nil {
		return err
	}
	for n, empty := 0, 0; ; {
		batch, err := c.FetchNoWait(replayBatch)
		if err != nil {
			return err
		}
		got, ended := 0, false
		for m := range batch.Messages() { // to its end: it is filled by a goroutine
			got++
			meta, err := m.Metadata()
			if err != nil || ended || n == most {
				continue
			}
			r.event(tenant, name, m, meta.Sequence.Stream)
			n++
			ended = meta.Sequence.Stream >= info.State.LastSeq
		}
		if empty++; got > 0 {
			empty = 0
		}
		switch {
		case ended || empty > 2: // what is at the end may have been taken away
			return nil
		case n == most:
			return errReplayMany
		case batch.Error() != nil:
			return batch.Error()
		case time.Now().After(r.until) || ctx.Err() != nil:
			return errReplayLong
		}
	}
}

func (r *replay) event(tenant, stream string, m jetstream.Msg, seq uint64) {
	r.out.Events++
	header := m.Headers()
	who := header.Get(wire.PrefixAttribute + wire.AttrAuthID)
	found := adminapi.PolicyRefusals{
		Tenant: tenant, Principal: who, Type: header.Get(wire.PrefixAttribute + "type"), Subject: m.Subject(), Stream: stream, Sequence: seq, Count: 1,
	}
	p := r.next.policy.PrincipalByFullName(who)
	if p == nil || p.Disabled || p.Tenant.Name != tenant {
		found.Code, found.Rule, found.Detail = wire.CodePrincipalRevoked, "principals", "the principal is gone or disabled"
	} else {
		_, what, refusal := r.judge.Event(p, m.Subject(), blockOf(header), m.Data(), r.next.loaded)
		if refusal == nil {
			refusal = withoutRight(p, header)
		}
		if refusal == nil {
			return
		}
		found.Code, found.Rule, found.Detail = refusal.Code, refusal.Rule, refusal.Detail
		if found.Detail == "" {
			found.Detail = what
		}
	}
	r.out.Refused++
	key := replayKey{found.Principal, found.Type, found.Code, found.Rule}
	if i, ok := r.group[key]; ok {
		r.out.Refusals[i].Count++
	} else if len(r.out.Refusals) < adminapi.MaxPlanRefusals {
		r.group[key] = len(r.out.Refusals)
		r.out.Refusals = append(r.out.Refusals, found)
	}
}

// withoutRight judges the headers of a stored event that p needed a right for.
func withoutRight(p *policy.Principal, header nats.Header) *wire.Refusal {
	for name := range header {
		if name == "Nats-Rollup" && header.Get("Nats-Schedule") != "" {
			continue // the server's own: it keeps one schedule on a subject
		}
		if policy.IsHeaderRight(name) && !acl.Header(p, name).Allowed {
			return wire.Refuse(wire.CodeHeaderDenied, "headers", "header "+name)
		}
	}
	if target := header.Get("Nats-Schedule-Target"); target != "" {
		if d := acl.Publish(p, target); !d.Allowed {
			return wire.Refuse(wire.CodePublishDenied, d.Rule, "the target of its schedule, "+target)
		}
	}
	return nil
}

// blockOf writes headers as they came.
func blockOf(header nats.Header) []byte {
	block := []byte(wire.HeaderLine)
	for name, values := range header {
		for _, v := range values {
			block = wire.AppendHeader(block, name, []byte(v))
		}
	}
	return append(block, '\r', '\n')
}
