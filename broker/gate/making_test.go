package gate

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// TestConsumersAtOnce: consumers that are asked for at the same time, one behind the other
// or over several connections, do not go over the limit together.
func TestConsumersAtOnce(t *testing.T) {
	const most, tries = 3, 12
	for name, tt := range map[string]struct {
		conns int
		named bool
	}{"one connection": {1, true}, "several": {4, true}, "without a name": {2, false}} {
		t.Run(name, func(t *testing.T) {
			conns := tt.conns
			w := limited(t, fmt.Sprintf("consumers: %d", most), func(c *Config, _ *Deps) { c.Limits.APIRate = -1 })
			var answers sync.WaitGroup
			var mu sync.Mutex
			made, refused := 0, 0
			var list []*nats.Conn
			for range conns {
				nc := w.connect("reader")
				inbox := nats.NewInbox()
				_, err := nc.Subscribe(inbox, func(m *nats.Msg) {
					var a struct {
						Error *struct {
							Code int `json:"err_code"`
						} `json:"error"`
					}
					err := json.Unmarshal(m.Data, &a)
					mu.Lock()
					defer mu.Unlock()
					defer answers.Done()
					switch {
					case err == nil && a.Error == nil:
						made++
					case err == nil && a.Error.Code == int(wire.CodeConsumersLimited):
						refused++
					default:
						t.Errorf("%s", m.Data)
					}
				})
				check(t, err)
				answers.Add(tries)
				for i := range tries {
					subject, durable := "$JS.API.CONSUMER.CREATE.ORDERS", ""
					if tt.named {
						name := fmt.Sprintf("c%d-%d", len(list), i)
						subject, durable = subject+"."+name+".orders.>", `"durable_name":"`+name+`",`
					}
					check(t, nc.PublishRequest(subject, inbox, []byte(`{"stream_name":"ORDERS","action":"create","config":{`+durable+`"filter_subject":"orders.>","ack_policy":"explicit"}}`)))
				}
				list = append(list, nc)
			}
			for _, nc := range list {
				check(t, nc.Flush())
			}
			answers.Wait()
			// One without a name counts twice between being made and being answered.
			if made > most || tt.named && made != most || made+refused != conns*tries {
				t.Errorf("%d are made and %d refused, want %d and %d", made, refused, most, conns*tries-most)
			}
		})
	}
}

// TestMakings: what is asked for counts those before it until they are answered, refused or
// too old, and what has no name yet is not taken for another one.
func TestMakings(t *testing.T) {
	var m makings
	now := time.Unix(1000, 0)
	of := func(n int) ConsumerName { return ConsumerName{"S", fmt.Sprint(n)} }
	first, second, third := m.begin(of(1), now), m.begin(ConsumerName{Stream: "S"}, now), m.begin(ConsumerName{Stream: "S"}, now)
	names := map[ConsumerName]bool{}
	for _, name := range m.before(m.begin(of(4), now)) {
		names[name] = true
	}
	if len(names) != 3 || !names[of(1)] || len(m.before(first)) != 0 || len(m.before(third)) != 2 {
		t.Errorf("got %v", m.list)
	}
	m.end(second)
	m.end(second)
	if len(m.before(third)) != 1 {
		t.Errorf("what was answered counts: %v", m.list)
	}
	u, a := &usage{}, &asked{}
	one, two := u.making.begin(of(1), now), u.making.begin(of(2), now)
	a.add([]byte("r"), one)
	a.add([]byte("r"), two)
	a.answered(u, []byte("x"))
	if a.answered(u, []byte("r")); len(u.making.list) != 1 || u.making.list[0].number != two {
		t.Errorf("one answer leaves %v", u.making.list)
	}
	a.answered(u, []byte("r"))
	if a.answered(u, []byte("r")); len(u.making.list) != 0 || a.waiting.Load() != 0 {
		t.Errorf("all are answered, and %v count", u.making.list)
	}
	if n := m.begin(of(5), now.Add(makingTTL)); len(m.before(n)) != 0 {
		t.Errorf("what is never answered counts for ever: %v", m.list)
	}
}
