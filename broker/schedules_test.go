package broker_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/signetbus/signet/broker"
	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/broker/schedule"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/client/admin"
	"github.com/signetbus/signet/internal/wire"
)

const (
	tickerGrant = "name: ticker, identities: [{nkey: '{{nkey \"ticker\"}}'}], headers: [Nats-Schedule-Cron], publish: [ticks.>]"

	cronPolicy = `tenant: shop
streams:
  - {name: TICKS, subjects: [ticks.>], maxBytes: 64MiB}
ephemeral: [now.>]
schemas:
  - {name: any, version: 1, text: '{"type":"object"}'}
subjects:
  - {match: ticks.checked, schema: any}
  - {match: ticks.signed, require: producer}
principals:
  - {` + tickerGrant + `}
  - {name: other, identities: [{nkey: '{{nkey "other"}}'}], headers: [Nats-Schedule-Cron], publish: [ticks.>, now.>]}
  - {name: unable, identities: [{nkey: '{{nkey "unable"}}'}], headers: [Nats-Schedule, Nats-Schedule-Target], publish: [ticks.>], subscribe: [ticks.>]}
  - {name: root, identities: [{nkey: '{{nkey "root"}}'}], admin: [audit, consumers, dlq, keys, refusals, schedules, status, streams]}
`
)

func cronBroker(t *testing.T, change ...func(*brokertest.Options)) *brokertest.Broker {
	return newBroker(t, append([]func(*brokertest.Options){func(o *brokertest.Options) { o.Policy = cronPolicy }}, change...)...)
}

// put puts a schedule that publishes {} each second.
func put(t testing.TB, c *client.Client, name, subject string) {
	t.Helper()
	must(client.SchedulesOf(c).Put(within(t), client.Schedule{
		Name: name, Spec: "@every 1s", NATSSubject: subject, Event: &client.Event{Type: "tick", DataContentType: "application/json", Data: []byte("{}")},
	}))(t)
}

// eventsOn are the events of a stream on a subject, as they are stored.
func eventsOn(t testing.TB, b *brokertest.Broker, stream, subject string) (out []*jetstream.RawStreamMsg) {
	t.Helper()
	s := must(insideJS(t, b, "shop").Stream(within(t), stream))(t)
	for seq := uint64(1); ; {
		m, err := s.GetMsg(within(t), seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out
		}
		check(t, err)
		out, seq = append(out, m), m.Sequence+1
	}
}

func fired(t testing.TB, b *brokertest.Broker, subject string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d events on %s", n, subject), func() bool { return len(eventsOn(t, b, "TICKS", subject)) >= n })
}

// schedulesLeft are the names of the schedules that are stored.
func schedulesLeft(t testing.TB, api *admin.API) (names []string) {
	t.Helper()
	for _, s := range must(admin.SchedulesOf(api).List(within(t)))(t) {
		names = append(names, s.Principal+"."+s.Name)
	}
	return names
}

// TestScheduleEndsWithItsPrincipal: who is gone, is disabled or has lost the right publishes
// nothing more, and the schedule does not come back with it.
func TestScheduleEndsWithItsPrincipal(t *testing.T) {
	for name, text := range map[string]string{
		"gone":     strings.Replace(cronPolicy, "  - {"+tickerGrant+"}\n", "", 1),
		"disabled": edit(t, cronPolicy, tickerGrant, tickerGrant+", disabled: true"),
		"right":    edit(t, cronPolicy, tickerGrant, strings.Replace(tickerGrant, "headers: [Nats-Schedule-Cron], ", "", 1)),
		"all":      strings.ReplaceAll(cronPolicy, "headers: [Nats-Schedule-Cron], ", ""), // the tenant has nobody with the right
	} {
		t.Run(name, func(t *testing.T) {
			var log logBuffer
			b := cronBroker(t, logTo(&log))
			api := admin.New(b.Client("root"))
			put(t, b.Client("ticker"), "beat", "ticks.beat")
			fired(t, b, "ticks.beat", 1)
			reload(t, b, text)
			eventually(t, "the end of the schedule", func() bool { return len(eventsOn(t, b, wire.StreamSchedules, "$SIGNET.SCHEDULE.>")) == 0 })
			eventually(t, "the record of it", func() bool {
				return strings.Contains(log.String(), `"event":"schedule-ended"`) && strings.Contains(log.String(), "shop/ticker")
			})
			n := len(eventsOn(t, b, "TICKS", "ticks.beat"))
			reload(t, b, cronPolicy)
			put(t, b.Client("other"), "beat", "ticks.other")
			fired(t, b, "ticks.other", 2)
			if got := len(eventsOn(t, b, "TICKS", "ticks.beat")); got != n || len(schedulesLeft(t, api)) != 1 {
				t.Errorf("%d events, there were %d", got, n)
			}
		})
	}
}

// TestFiringIsJudgedAnew: the policy of the moment counts, for the publish grant and the
// schema; what it refuses is a dead letter as that of a client, and the schedule goes on.
func TestFiringIsJudgedAnew(t *testing.T) {
	b := cronBroker(t)
	c := b.Client("ticker")
	put(t, c, "plain", "ticks.plain")
	put(t, c, "checked", "ticks.checked")
	fired(t, b, "ticks.checked", 1)
	fired(t, b, "ticks.plain", 1)
	strict := edit(t, cronPolicy, `'{"type":"object"}'`, `'{"type":"object","required":["n"]}'`)
	strict = edit(t, edit(t, strict, tickerGrant, strings.Replace(tickerGrant, "ticks.>", "ticks.checked", 1)), "name: any, version: 1", "name: any, version: 2")
	reload(t, b, strict)
	api := admin.New(b.Client("root"))
	eventually(t, "a dead letter", func() bool { return lettersLeft(t, api) > 0 })
	page := must(api.DLQList(within(t), admin.DLQQuery{}))(t)
	if e := page.Entries[0]; e.Reason != "schema" || e.Principal != "shop/ticker" || e.Subject != "ticks.checked" || e.Type != "tick" {
		t.Errorf("%+v", e)
	}
	eventually(t, "a refusal by the grant", func() bool {
		list := must(api.Refusals(within(t), admin.RefusalsQuery{Subject: "ticks.plain"}, 0))(t)
		return len(list.Entries) > 0 && list.Entries[0].Code == wire.CodePublishDenied && list.Entries[0].Principal == "shop/ticker"
	})
	plain, checked := len(eventsOn(t, b, "TICKS", "ticks.plain")), len(eventsOn(t, b, "TICKS", "ticks.checked"))
	reload(t, b, cronPolicy)
	fired(t, b, "ticks.plain", plain+1)
	fired(t, b, "ticks.checked", checked+1)
}

// TestScheduleOutlivesTheBroker: a schedule is kept over a restart.
func TestScheduleOutlivesTheBroker(t *testing.T) {
	b := cronBroker(t)
	put(t, b.Client("ticker"), "beat", "ticks.beat")
	fired(t, b, "ticks.beat", 1)
	stop(t, b)
	addr := b.Addr().String()
	b = brokertest.New(t, brokertest.Options{Policy: cronPolicy, Dir: b.State.Dir, Change: func(c *broker.Config) {
		quickDrain(c)
		c.Listen = addr
	}})
	n := len(eventsOn(t, b, "TICKS", "ticks.beat"))
	fired(t, b, "ticks.beat", n+2)
	ids := map[string]bool{}
	for _, m := range eventsOn(t, b, "TICKS", "ticks.beat") {
		id := m.Header.Get("ce-id")
		if ids[id] {
			t.Errorf("%s came twice", id)
		}
		ids[id] = true
	}
}

// TestFiringThatComesTwice: a node that ends between the publish and its acknowledgement has
// the firing come again. It is one event; and after the window of the stream, in which nobody
// can tell, it is not published again.
func TestFiringThatComesTwice(t *testing.T) {
	b := cronBroker(t)
	var ahead atomic.Int64 // of the clock
	count := b.RunSchedules(t, func(m jetstream.Msg) error {
		meta, err := m.Metadata()
		if err != nil || meta.NumDelivered > 1 {
			ahead.Store(0)
			return m.Ack()
		}
		if strings.HasSuffix(m.Subject(), ".late") {
			ahead.Store(int64(time.Hour))
		}
		return m.Nak()
	}, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	c := client.SchedulesOf(b.Client("other"))
	for name, subject := range map[string]string{"soon": "ticks.soon", "late": "ticks.late"} {
		must(c.Put(within(t), client.Schedule{Name: name, Spec: "@every 2s", NATSSubject: subject, Event: client.NewEvent("t", nil)}))(t)
	}
	eventually(t, "firings that come twice", func() bool { return count(schedule.Repeated) > 0 && count(schedule.Missed) > 0 })
	for _, subject := range []string{"ticks.soon", "ticks.late"} {
		moments := map[string]bool{}
		for _, m := range eventsOn(t, b, "TICKS", subject) {
			if at := m.Header.Get("ce-time"); moments[at] {
				t.Errorf("%s: two events of %s", subject, at)
			} else {
				moments[at] = true
			}
		}
		if len(moments) == 0 {
			t.Errorf("%s: no event", subject)
		}
	}
}

// TestFiringWaitsForItsRate: what a rate refuses is tried again, and takes from the limit of
// the principal.
func TestFiringWaitsForItsRate(t *testing.T) {
	b := cronBroker(t, func(o *brokertest.Options) {
		o.Policy = edit(t, cronPolicy, tickerGrant, tickerGrant+", limit: slow") + "limits:\n  slow: {messages: 1/h, burst: 1h}\n"
	})
	put(t, b.Client("ticker"), "beat", "ticks.beat")
	fired(t, b, "ticks.beat", 1)
	other := client.SchedulesOf(b.Client("other"))
	must(other.Put(within(t), client.Schedule{Name: "fast", Spec: "* * * * * *", NATSSubject: "ticks.fast", Event: client.NewEvent("t", nil)}))(t)
	fired(t, b, "ticks.fast", 3) // what waits holds nobody up
	if n := len(eventsOn(t, b, "TICKS", "ticks.beat")); n != 1 {
		t.Errorf("%d events, want 1 in an hour", n)
	}
	list := must(admin.New(b.Client("root")).Refusals(within(t), admin.RefusalsQuery{Subject: "ticks.beat"}, admin.MaxWait))(t)
	if len(list.Entries) == 0 || list.Entries[0].Code != wire.CodeRateLimited || list.Entries[0].Principal != "shop/ticker" {
		t.Errorf("%+v", list.Entries)
	}
}

// TestCronMomentsAreTheServers: every form of specification is taken by the server, and it
// fires when we say.
func TestCronMomentsAreTheServers(t *testing.T) {
	b := cronBroker(t)
	c := client.SchedulesOf(b.Client("other"))
	for _, spec := range []string{
		"@every 1h30m", "@every 8784h", "@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually",
		"* * * * *", "*/5 * * * *", "0 9 * * mon-fri", "0 0 12 1,15 jan-jun/2 *", "0 0 29 2 *", "0-30/5 0 * 31 12 sat", "0 0 0 */2 * 1",
	} {
		if _, err := c.Put(within(t), client.Schedule{Name: "s", Spec: spec, NATSSubject: "ticks.s", Event: client.NewEvent("t", nil)}); err != nil {
			t.Errorf("%s: %v", spec, err)
		}
	}
	check(t, c.Remove(within(t), "s"))
	info := must(c.Put(within(t), client.Schedule{Name: "even", Spec: "*/2 * * * * *", NATSSubject: "ticks.even", Event: client.NewEvent("t", nil)}))(t)
	fired(t, b, "ticks.even", 2)
	first := eventsOn(t, b, "TICKS", "ticks.even")[0]
	if at := must(time.Parse(time.RFC3339, first.Header.Get("ce-time")))(t); at.Before(info.Next) {
		t.Errorf("it fired at %v, before %v", at, info.Next)
	}
	if info.Next.Second()%2 != 0 {
		t.Errorf("%v", info.Next)
	}
}

// TestSchedulesAreTheBrokers: clients reach neither schedules nor firings but by the requests
// for their own, whatever they are granted.
func TestSchedulesAreTheBrokers(t *testing.T) {
	b := cronBroker(t)
	other, unable := client.SchedulesOf(b.Client("other")), client.SchedulesOf(b.Client("unable"))
	put(t, b.Client("ticker"), "secret", "ticks.secret")
	if _, err := unable.Put(within(t), client.Schedule{Name: "s", Spec: "@hourly", NATSSubject: "ticks.x", Event: client.NewEvent("t", nil)}); !errors.Is(err, client.ErrDenied) {
		t.Errorf("without the right: %v", err)
	}
	if _, err := unable.List(within(t)); !errors.Is(err, client.ErrDenied) {
		t.Errorf("without the right: %v", err)
	}
	if list := must(other.List(within(t)))(t); len(list) != 0 {
		t.Errorf("others' schedules: %+v", list)
	}
	if err := other.Remove(within(t), "secret"); !errors.Is(err, client.ErrNotFound) {
		t.Errorf("another's schedule: %v", err)
	}
	theirs := admin.SchedulesOf(admin.New(b.Client("other")))
	if _, err := theirs.List(within(t)); !errors.Is(err, client.ErrDenied) {
		t.Errorf("others' schedules: %v", err)
	}
	if err := theirs.Remove(within(t), "ticker", "secret"); !errors.Is(err, client.ErrDenied) {
		t.Errorf("another's schedule: %v", err)
	}
	for _, who := range []string{"other", "root"} {
		p := connect(t, b, who)
		for _, subject := range []string{"$SIGNET.FIRING.ticker.secret", "$SIGNET.SCHEDULE.ticker.secret"} {
			a := p.send(t, subject, "{}", "Nats-Schedule-Next", "2026-01-01T00:00:00Z")
			if a.code() == 0 {
				t.Errorf("%s wrote %s: %+v", who, subject, a)
			}
		}
		for subject, body := range map[string]string{
			"$JS.API.STREAM.MSG.GET.SIGNET_SCHEDULES":            `{"seq":1}`,
			"$JS.API.DIRECT.GET.SIGNET_SCHEDULES":                `{"seq":1}`,
			"$JS.API.STREAM.MSG.DELETE.SIGNET_SCHEDULES":         `{"seq":1}`,
			"$JS.API.STREAM.PURGE.SIGNET_SCHEDULES":              "",
			"$JS.API.STREAM.INFO.SIGNET_SCHEDULES":               `{"subjects_filter":">"}`,
			"$JS.API.CONSUMER.CREATE.SIGNET_SCHEDULES.x":         `{"stream_name":"SIGNET_SCHEDULES","config":{"name":"x","filter_subject":"$SIGNET.SCHEDULE.>","ack_policy":"explicit"}}`,
			"$JS.API.CONSUMER.MSG.NEXT.SIGNET_SCHEDULES.firings": `{"batch":1,"no_wait":true}`,
			"$JS.API.CONSUMER.DELETE.SIGNET_SCHEDULES.firings":   "",
			"$JS.API.CONSUMER.PAUSE.SIGNET_SCHEDULES.firings":    `{"pause_until":"2100-01-01T00:00:00Z"}`,
			"$JS.ACK.SIGNET_SCHEDULES.firings.1.1.1.1.0":         "+ACK",
		} {
			m, err := p.Request(subject, []byte(body), patience)
			check(t, err)
			shown := who == "root" && strings.Contains(subject, "STREAM.INFO")
			if !shown && m.Header.Get("Status") == "" && !strings.Contains(string(m.Data), `"error"`) || strings.Contains(string(m.Data), "secret") {
				t.Errorf("%s asked %s: %v %s", who, subject, m.Header, m.Data)
			}
		}
	}
	fired(t, b, "ticks.secret", 2) // it goes on
	api := admin.New(b.Client("root"))
	check(t, admin.SchedulesOf(api).Remove(within(t), "ticker", "secret"))
	eventually(t, "both calls on record, without what is published", func() bool {
		text := ""
		for _, r := range must(api.Audit(within(t), admin.AuditQuery{Kind: "admin"}, time.Second))(t).Records {
			text += string(r)
		}
		return strings.Contains(text, "schedules.put") && strings.Contains(text, "schedules.rm") && strings.Contains(text, "ticks.secret") && !strings.Contains(text, "application/json")
	})
	if left := schedulesLeft(t, api); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// TestSchedulesAreBounded: what is no schedule is refused, and says why.
func TestSchedulesAreBounded(t *testing.T) {
	b := cronBroker(t)
	other := client.SchedulesOf(b.Client("other"))
	with := func(change func(*client.Schedule)) client.Schedule {
		s := client.Schedule{Name: "s", Spec: "@hourly", NATSSubject: "ticks.x", Event: &client.Event{Type: "t", Data: []byte("x")}}
		change(&s)
		return s
	}
	event := func(e client.Event) func(*client.Schedule) { return func(s *client.Schedule) { s.Event = &e } }
	for _, tt := range []struct {
		name  string
		s     client.Schedule
		want  error
		words string
	}{
		{"a name", with(func(s *client.Schedule) { s.Name = "a.b" }), client.ErrMalformed, "name"},
		{"no name", with(func(s *client.Schedule) { s.Name = "" }), client.ErrMalformed, "name"},
		{"a specification", with(func(s *client.Schedule) { s.Spec = "every hour" }), client.ErrMalformed, "fields of cron"},
		{"too often", with(func(s *client.Schedule) { s.Spec = "@every 100ms" }), client.ErrMalformed, "least interval"},
		{"never", with(func(s *client.Schedule) { s.Spec = "0 0 30 2 *" }), client.ErrMalformed, "never comes"},
		{"once", with(func(s *client.Schedule) { s.Spec = "@at 2100-01-01T00:00:00Z" }), client.ErrMalformed, "@every"},
		{"a subject that is granted", with(func(s *client.Schedule) { s.NATSSubject = "ticks.x" }), nil, ""},
		{"an undeclared subject", with(func(s *client.Schedule) { s.NATSSubject = "else.x" }), client.ErrDenied, ""},
		{"a system subject", with(func(s *client.Schedule) { s.NATSSubject = "$SIGNET.FIRING.other.s" }), client.ErrMalformed, ""},
		{"a subject that is not stored", with(func(s *client.Schedule) { s.NATSSubject = "now.x" }), client.ErrConflict, "streams only"},
		{"a subject that wants a signature", with(func(s *client.Schedule) { s.NATSSubject = "ticks.signed" }), client.ErrBadSignature, ""},
		{"against the schema", with(func(s *client.Schedule) { s.NATSSubject = "ticks.checked"; s.Event.Data = []byte("[]") }), client.ErrSchemaViolation, ""},
		{"an id", with(event(client.Event{ID: "1"})), client.ErrMalformed, "no id"},
		{"a time", with(event(client.Event{Time: time.Now()})), client.ErrMalformed, "no time"},
		{"an expirytime", with(event(client.Event{Extensions: map[string]string{"expirytime": "2100-01-01T00:00:00Z"}})), client.ErrMalformed, "no expirytime"},
		{"a signature", with(event(client.Event{Extensions: map[string]string{"dssematerial": "x"}})), client.ErrMalformed, ""},
		{"another's source", with(event(client.Event{Source: "/shop/ticker"})), client.ErrDenied, "source"},
		{"a payload", with(event(client.Event{Data: make([]byte, client.MaxSchedulePayload+1)})), client.ErrTooLarge, ""},
		{"no event", with(func(s *client.Schedule) { s.Event = nil }), client.ErrMalformed, ""},
	} {
		_, err := other.Put(within(t), tt.s)
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.words) {
			t.Errorf("%s: %v, want %v %s", tt.name, err, tt.want, tt.words)
		}
	}
	if err := other.Remove(within(t), "s"); err != nil { // of ticks.x
		t.Error(err)
	}
	if err := other.Remove(within(t), "s"); !errors.Is(err, client.ErrNotFound) {
		t.Error(err)
	}
	for n := range client.MaxSchedules {
		must(other.Put(within(t), with(func(s *client.Schedule) { s.Name = fmt.Sprint("s", n) })))(t)
	}
	if _, err := other.Put(within(t), with(func(s *client.Schedule) { s.Name = "one-more" })); !errors.Is(err, client.ErrConflict) || !strings.Contains(err.Error(), "32 schedules") {
		t.Errorf("one more: %v", err)
	}
	must(other.Put(within(t), with(func(s *client.Schedule) { s.Name, s.Spec = "s0", "@daily" })))(t) // in place of another
	if list := must(other.List(within(t)))(t); len(list) != client.MaxSchedules || list[0].Spec != "0 0 0 * * *" || list[0].Next.IsZero() {
		t.Errorf("%+v", list)
	}
	put(t, b.Client("ticker"), "mine", "ticks.mine") // the bound is each principal's
}
