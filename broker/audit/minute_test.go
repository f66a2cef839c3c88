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
		m.Each(auditlog.Entry{Tenant: "shop", Kind: auditlog.KindLogin, Outcome: auditlog.OutcomeOK, Who: "shop/loop", Detail: fmt.Sprint(i)})
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
