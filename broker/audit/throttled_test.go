package audit

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/internal/wire"
)

func TestThrottles(t *testing.T) {
	now := time.Unix(6_000_000, 0)
	trail := New(Config{Log: zerolog.Nop(), Now: func() time.Time { return now }})
	refuse := func(tenant, principal, rule string, code wire.Code) {
		r := wire.Refuse(code, rule, "")
		r.Principal, r.RetryAfter = principal, 3*time.Second
		trail.Refused(r, Origin{Tenant: tenant})
	}
	for range 3 {
		refuse("shop", "shop/a", "limit writer", wire.CodeRateLimited)
	}
	now = now.Add(4 * time.Minute)
	refuse("shop", "shop/a", "limit writer", wire.CodeRateLimited)
	refuse("shop", "shop/b", "quota shop", wire.CodeByteRateLimited)
	refuse("shop", "shop/b", "storage.softWatermark", wire.CodePriorityShed)
	refuse("shop", "shop/b", "default-deny/publish", wire.CodePublishDenied) // is no limit
	refuse("", "", "gate.maxConnections", wire.CodeConnectionLimited)        // nobody yet

	is := func(want ...string) {
		t.Helper()
		var got []string
		for _, row := range trail.Throttled().List(now) {
			got = append(got, fmt.Sprintf("%s %s %d: %d of %d, %s", row.Principal, row.Rule, int(row.Code), row.Recent, row.Total, row.RetryAfter))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got:\n%q\nwant:\n%q", got, want)
		}
	}
	is("shop/a limit writer 40500: 4 of 4, 3s", "shop/b quota shop 40501: 1 of 1, 3s", "shop/b storage.softWatermark 40903: 1 of 1, 3s")
	now = now.Add(6 * time.Minute) // the first three are over, to the minute
	is("shop/a limit writer 40500: 1 of 4, 3s", "shop/b quota shop 40501: 1 of 1, 3s", "shop/b storage.softWatermark 40903: 1 of 1, 3s")
	now = now.Add(time.Hour)
	is("shop/a limit writer 40500: 0 of 4, 3s", "shop/b quota shop 40501: 0 of 1, 3s", "shop/b storage.softWatermark 40903: 0 of 1, 3s")
}

// TestThrottlesAreBounded: whatever rules and principals there are, and old rows make room.
func TestThrottlesAreBounded(t *testing.T) {
	var all Throttles
	now := time.Unix(6_000_000, 0)
	fill := func(name string) {
		for i := range 2 * maxThrottles {
			r := wire.Refuse(wire.CodeRateLimited, "limit x", "")
			r.Principal = fmt.Sprintf("shop/%s%d", name, i)
			all.add(r, "shop", now)
		}
	}
	fill("a")
	rows := all.List(now)
	if len(rows) != maxThrottles+1 || rows[0].Rule != Others || rows[0].Recent != maxThrottles || rows[0].Principal != "" {
		t.Fatalf("%d rows, the first is %+v", len(rows), rows[0])
	}
	now = now.Add(ThrottledMinutes * time.Minute)
	fill("b")
	named := 0
	for _, row := range all.List(now) {
		if row.Rule != Others && row.Principal[:6] == "shop/b" {
			named++
		}
	}
	if named != maxThrottles {
		t.Errorf("%d of the later ones have a row, want %d", named, maxThrottles)
	}
}
