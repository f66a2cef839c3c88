package client_test

import (
	"errors"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
)

const cronPolicy = `tenant: shop
streams:
  - {name: TICKS, subjects: [ticks.>], maxBytes: 64MiB}
principals:
  - {name: ticker, identities: [{nkey: '{{nkey "ticker"}}'}], headers: [Nats-Schedule-Cron], publish: [ticks.>]}
  - {name: reader, identities: [{nkey: '{{nkey "reader"}}'}], subscribe: [ticks.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [keys]}
`

// TestSchedules: firings come with ids and times of their own and verify, until the schedule
// is replaced or removed.
func TestSchedules(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{Policy: cronPolicy})
	ctx := within(t, 2*time.Minute)
	mine := client.SchedulesOf(b.Client("ticker"))
	ticks := listen(t, b.Client("reader"), "ticks.>")
	ev := &client.Event{Type: "tick", Subject: "s", DataContentType: "application/json", Data: []byte("{\"n\": 1}\n"), Extensions: map[string]string{"of": "mine"}}
	info, err := mine.Put(ctx, client.Schedule{Name: "beat", Spec: "@every 1s", NATSSubject: "ticks.beat", Event: ev})
	if err != nil || info.Spec != "@every 1s" || info.Principal != "ticker" || info.Bytes != len(ev.Data) {
		t.Fatalf("%+v, %v", info, err)
	}
	ids := map[string]bool{}
	var last time.Time
	for range 3 {
		d := next(t, ticks)
		if ids[d.Event.ID] || !d.Event.Time.After(last) || d.Principal != "shop/ticker" || d.NATSSubject != "ticks.beat" {
			t.Errorf("%+v after %v", d.Event, last)
		}
		if string(d.Event.Data) != string(ev.Data) || d.Event.Type != "tick" || d.Event.Subject != "s" || d.Event.Extensions["of"] != "mine" {
			t.Errorf("%+v", d.Event)
		}
		ids[d.Event.ID], last = true, d.Event.Time
	}
	// Another event in its place, and then none.
	if _, err := mine.Put(ctx, client.Schedule{Name: "beat", Spec: "* * * * * *", NATSSubject: "ticks.cron", Event: client.NewEvent("cron", nil)}); err != nil {
		t.Fatal(err)
	}
	for d := next(t, ticks); d.NATSSubject != "ticks.cron"; d = next(t, ticks) {
	}
	if d := next(t, ticks); d.NATSSubject != "ticks.cron" || d.Event.Type != "cron" {
		t.Errorf("%+v", d.Event)
	}
	list, err := mine.List(ctx)
	if err != nil || len(list) != 1 || list[0].NATSSubject != "ticks.cron" || list[0].Type != "cron" || !list[0].Next.After(list[0].Put) {
		t.Errorf("%+v, %v", list, err)
	}
	if err := mine.Remove(ctx, "beat"); err != nil {
		t.Fatal(err)
	}
	if list, err := mine.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	if err := mine.Remove(ctx, "beat"); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
	// A header that repeats is still refused, and says what to do.
	_, err = b.Client("ticker").Publish(ctx, "ticks.x", client.NewEvent("t", nil), client.WithHeader("Nats-Schedule-Cron", "@hourly"))
	if !errors.Is(err, client.ErrDenied) {
		t.Errorf("the right is no header: %v", err)
	}
}
