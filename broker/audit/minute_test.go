package audit

import (
	"fmt"
	"testing"

	"github.com/signetbus/signet/internal/auditlog"
)

func TestMinuteGathersAndIsBounded(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	m := NewMinute(j)
	for i := range 3 * maxMinute {
		m.Count(auditlog.Entry{Tenant: "shop", Kind: auditlog.KindDelivered, Outcome: auditlog.OutcomeOK, Who: "shop/a", Stream: "S", Consumer: fmt.Sprint("c", i), First: 1, Last: 1})
	}
	if len(m.entries) > maxMinute+1 {
		t.Errorf("%d entries", len(m.entries))
	}
	m.Flush(nil)
	for _, seq := range []uint64{7, 3, 9} {
		m.Count(auditlog.Entry{Tenant: "shop", Kind: auditlog.KindDelivered, Outcome: auditlog.OutcomeOK, Who: "shop/b", Stream: "S", Consumer: "c", First: seq, Last: seq + 1, Count: 2})
	}
	for i := range MaxEach + 40 {
		m.Each(auditlog.Entry{Tenant: "shop", Kind: auditlog.KindLogin, Outcome: auditlog.OutcomeOK, Who: "shop/loop", Remote: fmt.Sprint("192.0.2.1:", i), Detail: "go"})
	}
	m.Flush(func(tenant, stream, consumer string) uint64 { return uint64(len(tenant + stream + consumer)) })
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	logins, counted := 0, uint64(0)
	for i := range records {
		switch e := &records[i]; {
		case e.Who == "shop/b":
			if e.First != 3 || e.Last != 10 || e.Count != 6 || e.Floor != 6 {
				t.Errorf("%+v", e.Entry)
			}
		case e.Kind == auditlog.KindLogin && e.Count > 0:
			counted += e.Count
		case e.Kind == auditlog.KindLogin:
			logins++
		}
	}
	if logins != MaxEach || counted != 40 {
		t.Errorf("%d logins and %d counted, want %d and 40", logins, counted, MaxEach)
	}
}

// TestRepeatsKeepTheirDetails: what is counted beyond MaxEach is equal; what differs, in
// an address too, stays apart.
func TestRepeatsKeepTheirDetails(t *testing.T) {
	r := newJournalRig(t, 16<<20)
	j := r.open(nil)
	j.Attach(r.stream)
	m := NewMinute(j)
	each := func(i int, consumer, remote string) {
		m.Each(auditlog.Entry{
			Tenant: "shop", Kind: auditlog.KindAPI, Outcome: auditlog.OutcomeBegun, Who: "shop/a", Remote: fmt.Sprint(remote, ":", i),
			Subject: "$JS.API.CONSUMER.CREATE.S." + consumer, Stream: "S", Consumer: consumer, Detail: "filter=" + consumer,
		})
	}
	for i := range MaxEach + 7 {
		each(i, "again", "192.0.2.1")
	}
	each(0, "other", "192.0.2.1")  // the one that would hide among the others
	each(0, "again", "192.0.2.99") // from elsewhere
	m.Flush(nil)
	r.settle(j)
	records, report := r.read("shop")
	if !report.OK {
		t.Fatalf("%+v", report.Faults)
	}
	total, counted, other, elsewhere := uint64(0), uint64(0), 0, 0
	for i := range records {
		e := &records[i]
		if e.Kind != auditlog.KindAPI {
			continue
		}
		total += max(e.Count, 1)
		if e.Count > 0 {
			counted = e.Count
		}
		if e.Consumer == "other" && e.Subject == "$JS.API.CONSUMER.CREATE.S.other" && e.Detail == "filter=other" {
			other++
		}
		if e.Remote == "192.0.2.99:0" && e.Consumer == "again" {
			elsewhere++
		}
	}
	if total != MaxEach+9 || counted != 7 || other != 1 || elsewhere != 1 {
		t.Errorf("%d in all, %d counted, the other one %d times, from elsewhere %d times", total, counted, other, elsewhere)
	}
}
