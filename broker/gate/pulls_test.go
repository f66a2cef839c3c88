package gate

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"
)

func TestOneMore(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		passed     time.Duration
		want       string // empty: nothing is asked
	}{
		{"no body", ``, time.Hour, `{"batch":1}`},
		{"no wait", `{"batch":10,"no_wait":true}`, time.Hour, `{"batch":1,"no_wait":true}`},
		{"time left", `{"batch":10,"expires":30000000000,"group":"g","max_bytes":5}`, 10 * time.Second, `{"batch":1,"expires":20000000000,"group":"g"}`},
		{"with heartbeats", `{"expires":30000000000,"batch":1,"idle_heartbeat":5000000000}`, time.Second, `{"batch":1,"expires":29000000000,"idle_heartbeat":5000000000}`},
		{"too short for heartbeats", `{"expires":30000000000,"batch":1,"idle_heartbeat":5000000000}`, 21 * time.Second, `{"batch":1,"expires":9000000000}`},
		{"over", `{"expires":1000000000,"batch":1}`, time.Second, ``},
		{"not JSON", `7`, 0, ``},
	} {
		got, ok := oneMore([]byte(tt.body), tt.passed)
		if !ok {
			got = nil
		}
		var is, want any
		_ = json.Unmarshal(got, &is)
		_ = json.Unmarshal([]byte(tt.want), &want)
		if ok != (tt.want != "") || !reflect.DeepEqual(is, want) {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestPullAgain: the newest pull of that consumer, for whoever listens, among the latest.
func TestPullAgain(t *testing.T) {
	var l pulls
	now := time.Unix(1000, 0)
	const body = `{"batch":5,"expires":60000000000}`
	note := func(consumer, reply string, at time.Duration) {
		l.note(pull{stream: "S", consumer: consumer, reply: reply, body: []byte(body), at: now.Add(at)})
	}
	ask := func(consumer, filter string) string {
		_, reply, _, ok := l.again("S", consumer, filter, now.Add(2*time.Second))
		if !ok {
			return ""
		}
		return reply
	}
	if got := ask("a", "_INBOX.t.>"); got != "" {
		t.Errorf("out of nothing: %s", got)
	}
	note("a", "_INBOX.t.x.1", 0)
	note("a", "_INBOX.t.x.2", time.Second)
	note("b", "_INBOX.t.x.3", time.Second)
	for _, tt := range []struct{ consumer, filter, want string }{
		{"a", "_INBOX.t.x.*", "_INBOX.t.x.2"},
		{"a", "_INBOX.t.x.1", "_INBOX.t.x.1"},
		{"b", "_INBOX.t.x.1", ""},
		{"b", "_INBOX.t.>", "_INBOX.t.x.3"},
		{"c", "_INBOX.t.>", ""},
	} {
		if got := ask(tt.consumer, tt.filter); got != tt.want {
			t.Errorf("%s on %s: %q, want %q", tt.consumer, tt.filter, got, tt.want)
		}
	}
	for i := range maxPulls {
		note("c", fmt.Sprint("_INBOX.t.y.", i), time.Second)
	}
	if got := ask("a", "_INBOX.t.>"); got != "" || len(l.list) != maxPulls {
		t.Errorf("what was long ago is still there: %s, %d", got, len(l.list))
	}
}

// TestFirsts: the time of a first delivery is that of the event and the consumer, or none.
func TestFirsts(t *testing.T) {
	tl, _ := tallyOf(t)
	tl.c.access.creds = creds()
	tl.begin()
	for _, seq := range []int{7, 7 + firstSlots, 9} {
		tell(tl, &frame{subject: []byte("orders.a"), reply: ackOf("c1", 1, seq)})
	}
	tell(tl, &frame{subject: []byte("orders.a"), reply: ackOf("c1", 2, 11)})
	tl.end()
	for seq, want := range map[int]bool{7: false, 7 + firstSlots: true, 9: true, 11: false, 10: false} {
		at := tl.first(ackOf("c1", 3, seq), uint64(seq))
		if got := at.Equal(time.Unix(1700000000, 0)); got != want || !got && !at.IsZero() {
			t.Errorf("of %d: %s", seq, at)
		}
		if at := tl.first(ackOf("c2", 3, seq), uint64(seq)); !at.IsZero() {
			t.Errorf("of %d and another consumer: %s", seq, at)
		}
	}
	if at := tl.first([]byte("$JS.ACK.ORDERS"), 1); !at.IsZero() {
		t.Errorf("of no ack subject: %s", at)
	}
}
