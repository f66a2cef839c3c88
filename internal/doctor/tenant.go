package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/signetbus/signet/client/admin"
)

// streams judges streams and dead letters of the tenant.
func (f online) streams(s *admin.Status, t Thresholds) {
	for i := range s.Streams {
		st := &s.Streams[i]
		f.full(idStreamFull, st.Name, float64(st.Bytes), float64(st.MaxBytes), t,
			"raise maxBytes of the stream in the policy, or lower maxAge; a full stream refuses publishes")
	}
	d := &s.DeadLetters
	f.full(idLettersFull, "", float64(d.Bytes), float64(d.MaxBytes), t, "signet dlq ls; read and clear them, then find out who sends them")
	f.above(idLetters, "", float64(d.Messages), "", t.DeadLetters, "signet dlq ls; signet dlq show SEQ", "%d dead letters", d.Messages)
}

func (f online) full(id, object string, have, most float64, t Thresholds, fix string) {
	if most <= 0 {
		f.add(id, object, OK, "", "%s, no limit", bytesText(uint64(have)))
		return
	}
	percent := 100 * have / most
	f.above(id, object, percent, "%", t.Full, fix, "%.1f%% full: %s of %s", percent, bytesText(uint64(have)), bytesText(uint64(most)))
}

// tenant judges what needs more questions to the broker.
func (f online) tenant(ctx context.Context, n *Node, s *admin.Status, target *Target, t Thresholds, now func() time.Time) {
	c, err := connect(ctx, n, target.Timeout)
	if err != nil {
		f.add(idConsumers, n.Address, Unknown, "signet status", "%s", oneLine(err))
		return
	}
	defer c.Close()
	api := admin.New(c)
	ask := func() (*admin.ConsumerList, error) {
		return bounded(ctx, target.Timeout, func(ctx context.Context) (*admin.ConsumerList, error) { return api.Consumers(ctx, admin.MaxListLimit) })
	}
	list, err := ask()
	if err != nil {
		f.refused(idConsumers, n.Address, "status.consumers", err)
	} else {
		f.add(idConsumers, n.Address, OK, "", "%d consumers, %d were looked at", list.Total, len(list.Consumers))
		f.consumers(list.Consumers, s.Streams, t, now())
		if target.Sample > 0 {
			f.fallsBehind(ctx, list, ask, target.Sample)
		}
	}
	f.refusals(ctx, n.Address, api, target.Timeout, t, now())
	if len(target.Nodes) > 1 {
		f.copies(ctx, n.Address, api, target.Timeout)
	}
}

// copies asks how the replicated streams of the tenant stand.
func (f online) copies(ctx context.Context, address string, api *admin.API, limit time.Duration) {
	s, err := bounded(ctx, limit, api.ClusterStatus)
	if err != nil {
		f.refused(idLeader, address, "cluster.status", err)
		return
	}
	var out []Replication
	for i := range s.Streams {
		t := &s.Streams[i]
		if t.Wanted < 2 {
			continue
		}
		r := Replication{Stream: t.Name, Leader: t.Leader, Want: t.Wanted}
		for _, c := range t.Replicas {
			if c.Current && c.Online {
				r.Current++
			}
		}
		out = append(out, r)
	}
	f.replication(out)
}

// consumers judges each consumer by itself.
func (f online) consumers(list []admin.ConsumerStatus, streams []admin.StreamStatus, t Thresholds, now time.Time) {
	for i := range list {
		c := &list[i]
		name := c.Stream + " " + c.Name
		who := "the service of " + cmp.Or(c.Owner, "its owner") + " does not read: is it running? signet refusals tail"
		if c.Pending > 0 || c.AckPending > 0 {
			// What finished nothing since it was made stands still since then.
			since := c.LastAck
			if since.IsZero() {
				since = c.Created
			}
			idle := now.Sub(since)
			f.above(idStuck, name, idle.Seconds(), "s", t.Stuck, who, "nothing was finished for %s; %d to deliver, %d to acknowledge", idle.Round(time.Second), c.Pending, c.AckPending)
		} else {
			f.add(idStuck, name, OK, "", "nothing to do")
		}
		f.above(idRedelivered, name, float64(c.Redelivered), "", t.Redelivered, "look into the log of "+cmp.Or(c.Owner, "its owner")+
			": which event can it not process?", "%d events were delivered more than once", c.Redelivered)
		at := slices.IndexFunc(streams, func(s admin.StreamStatus) bool { return s.Name == c.Stream })
		if at >= 0 {
			f.unread(name, c, &streams[at], t, now, who)
		}
	}
}

// unread finds a consumer whose next event is the oldest one of its stream, while
// that is about to be removed for its age.
func (f online) unread(name string, c *admin.ConsumerStatus, s *admin.StreamStatus, t Thresholds, now time.Time, fix string) {
	if s.MaxAgeMs <= 0 || s.Messages == 0 || c.Pending == 0 && c.AckPending == 0 || c.AckFloor >= s.FirstSeq {
		return
	}
	limit := time.Duration(s.MaxAgeMs) * time.Millisecond
	age := now.Sub(s.FirstTime)
	f.above(idUnread, name, 100*age.Seconds()/limit.Seconds(), "%", t.Unread, fix+"; or raise maxAge of the stream",
		"its oldest event to do is %s old, and is removed at %s", age.Round(time.Second), limit)
}

// fallsBehind looks twice: what has more to do and finished nothing in between.
func (f online) fallsBehind(ctx context.Context, before *admin.ConsumerList, ask func() (*admin.ConsumerList, error), sample time.Duration) {
	timer := time.NewTimer(sample)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return
	case <-timer.C:
	}
	after, err := ask()
	if err != nil {
		f.add(idFallsBehind, "", Unknown, "signet status", "%s", oneLine(err))
		return
	}
	f.grown(before.Consumers, after.Consumers, sample)
}

func (f online) grown(before, after []admin.ConsumerStatus, sample time.Duration) {
	was := map[string]*admin.ConsumerStatus{}
	for i := range before {
		was[before[i].Stream+" "+before[i].Name] = &before[i]
	}
	for i := range after {
		c := &after[i]
		name := c.Stream + " " + c.Name
		old := was[name]
		if old == nil {
			continue
		}
		more := float64(c.Pending) + float64(c.AckPending) - float64(old.Pending) - float64(old.AckPending)
		fd := f.add(idFallsBehind, name, OK, "", "%+.0f to do in %s", more, sample)
		if more > 0 && c.AckFloor == old.AckFloor {
			fd.Severity, fd.Fix = Warning, "is the service of "+cmp.Or(c.Owner, "its owner")+" running?"
			fd.What = fmt.Sprintf("%.0f more to do in %s, and nothing was finished", more, sample)
		}
		fd.measure(more, "", Pair{Warning: 1})
	}
}

// refusals counts what was refused lately.
func (f online) refusals(ctx context.Context, address string, api *admin.API, timeout time.Duration, t Thresholds, now time.Time) {
	counts, who := map[int]uint64{}, map[int]string{}
	names := map[int]string{}
	q := admin.RefusalsQuery{Since: now.Add(-t.RefusalWindow), Limit: admin.MaxListLimit}
	for {
		page, err := bounded(ctx, timeout, func(ctx context.Context) (*admin.RefusalList, error) { return api.Refusals(ctx, q, 0) })
		if err != nil {
			f.refused(idRefusals, address, "refusals.ls", err)
			return
		}
		for i := range page.Entries {
			r := &page.Entries[i]
			counts[int(r.Code)] += r.Count
			who[int(r.Code)], names[int(r.Code)] = r.Principal, r.Name
		}
		if len(page.Entries) == 0 || page.Cursor <= q.After {
			break
		}
		q.After = page.Cursor
	}
	if len(counts) == 0 {
		f.add(idRefusals, "", OK, "", "none in %s", t.RefusalWindow).measure(0, "", t.Refusals)
		return
	}
	for _, code := range sortedKeys(counts) {
		f.above(idRefusals, fmt.Sprintf("%d %s", code, names[code]), float64(counts[code]), "", t.Refusals,
			fmt.Sprintf("signet refusals tail --code %d --since %s --follow=false", code, t.RefusalWindow),
			"%d in %s, the last of %s", counts[code], t.RefusalWindow, cmp.Or(who[code], "nobody known"))
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
