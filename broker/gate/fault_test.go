package gate

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/broker/identity"
	"github.com/signetbus/signet/broker/policy"
	"github.com/signetbus/signet/internal/wire"
)

// TestFailedFlushInABatchIsTheLast: where a batch is flushed in its middle and the
// client has gone, the end of the batch must not flush a second time.
func TestFailedFlushInABatchIsTheLast(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct{ name, principal, send string }{
		{"owner look-up", "reader", "PUB $JS.API.CONSUMER.MSG.NEXT.ORDERS.nobody _INBOX.a.b 0\r\n\r\n"},
		{"limit wait", "waiter", strings.Repeat("PUB orders.a.held _INBOX.a.b 0\r\n\r\n", 30)},
	} {
		t.Run(row.name, func(t *testing.T) {
			up := &pipeConn{}
			c := newConn(w.gate, &pipeConn{})
			defer c.life.end()
			c.session.up.nc = up
			c.session.down.err = io.ErrClosedPipe
			c.access.principal.Store(w.set.Principal("shop", row.principal))
			c.reader.refresh()
			send := "PUB forbidden.x 0\r\n\r\n" + row.send + "PUB forbidden.x 0\r\n\r\n"
			c.reader.in.w = copy(c.reader.in.room(len(send)), send)
			for range 2 { // whatever is asked of it after that
				if err := c.reader.batch.failed; err == nil {
					err = c.reader.process()
					if err != io.ErrClosedPipe { //nolint:errorlint // it is set above
						t.Errorf("process: %v", err)
					}
				} else if got := c.reader.batch.flush(); got != err { //nolint:errorlint // the same one
					t.Errorf("flush again: %v", got)
				}
			}
			c.reader.in.release()
		})
	}
}

// sabotage is a Sink, Owners and Barrier that has faults.
type sabotage struct {
	*recorder
	refused   func()
	connected func(*Connection)
}

func (s *sabotage) Refused(r *wire.Refusal, j *Rejected) {
	if s.refused != nil {
		s.refused()
	}
	s.recorder.Refused(r, j)
}

func (s *sabotage) Connected(c *Connection) {
	if s.connected != nil {
		s.connected(c)
	}
}

const secret = "the payload of somebody"

func (s *sabotage) ConsumerOwner(context.Context, string, string, string) (string, bool, error) {
	panic(secret)
}

func (s *sabotage) Wait(context.Context) error { panic(secret) }

// TestPanicEndsOnlyItsConnection: a fault of the broker in any goroutine of a
// connection is counted, told once without payload, and costs nobody else anything.
func TestPanicEndsOnlyItsConnection(t *testing.T) {
	pull := "PUB $JS.API.CONSUMER.MSG.NEXT.ORDERS.nobody _INBOX.a.b 0\r\n\r\n"
	for _, row := range []struct {
		name, principal, send, where string
		options                      func(w **world, s *sabotage) worldOption
	}{
		{"reader", "reader", pull, "(*reader).process", func(_ **world, s *sabotage) worldOption {
			return func(_ *Config, d *Deps) { d.Owners = s }
		}},
		{"flusher", "writer", "SUB _INBOX.a.* 1\r\nPUB orders.a _INBOX.a.b 1\r\nx\r\n", "(*holder).flush", func(_ **world, s *sabotage) worldOption {
			return func(_ *Config, d *Deps) { d.Barrier = s }
		}},
		{"relay", "reader", "PING\r\n", "(*relay).chunk", func(w **world, s *sabotage) worldOption {
			s.connected = func(who *Connection) { // runs before the relay does
				for _, c := range (*w).gate.snapshot() {
					if c.greeting.id == who.ID && who.Principal == "reader" {
						c.relay.counters = nil
					}
				}
			}
			return func(*Config, *Deps) {}
		}},
		{"handshake", "reader", "", "(*handshake).run", func(_ **world, _ *sabotage) worldOption {
			return func(_ *Config, d *Deps) {
				d.Authenticate = func(ctx context.Context, set *policy.Set, c *identity.Credentials) (identity.Login, *wire.Refusal) {
					p, r := identity.Nkey(ctx, set, c)
					if p.Principal != nil && p.Principal.Name == "reader" {
						panic(secret)
					}
					return p, r
				}
			}
		}},
		{"end", "reader", "PUB payments.a 0\r\n\r\n", "(*sabotage).Refused", func(_ **world, s *sabotage) worldOption {
			s.refused = func() { panic(secret) } // again when the end is reported
			return func(*Config, *Deps) {}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			w := new(world)
			s := &sabotage{recorder: &recorder{}}
			option := row.options(&w, s)
			w = newWorld(t, option, func(_ *Config, d *Deps) { d.Sink = s })
			victim := w.connect("server")
			r := w.login(row.principal, quiet)
			r.send(row.send)
			for r.line() != "EOF" {
			}
			w.until("only the other is left", func() bool { return w.gate.Stats().Connections == 1 })
			check(t, victim.FlushTimeout(testTimeout))
			w.until("it is counted", func() bool { return w.gate.Stats().Panics >= 1 })
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.panics) != 1 || !strings.Contains(s.panics[0], row.where) {
				t.Errorf("told %d times: %q", len(s.panics), s.panics)
			}
			if strings.Contains(strings.Join(s.panics, ""), secret) {
				t.Error("the payload is in what the sink is told")
			}
			if st := w.embed.Stats(); st.Tickets > 2 { // the victim's and the test's
				t.Errorf("%d tickets", st.Tickets)
			}
		})
	}
}

// TestLargeAnswerOfTheServer: the largest event comes back in base64 inside JSON, and
// what the buffer grew for it is given back.
func TestLargeAnswerOfTheServer(t *testing.T) {
	w := newWorld(t)
	_, err := w.jetstream("writer").Publish(w.ctx(), "orders.big", make([]byte, DefaultMaxPayload-4096))
	check(t, err)
	nc := w.connect("reader")
	m, err := nc.Request("$JS.API.STREAM.MSG.GET.ORDERS", []byte(`{"last_by_subj":"orders.big"}`), testTimeout)
	check(t, err)
	if len(m.Data) < DefaultMaxPayload*4/3-8192 {
		t.Errorf("%d bytes: %.200s", len(m.Data), m.Data)
	}
	check(t, nc.Flush())

	var b window
	b.filled(copy(b.room(4<<20), make([]byte, 4<<20)))
	b.r = b.w
	if n := len(b.room(0)); n > largeBuffer {
		t.Errorf("%d bytes are kept", n)
	}
	b.release()
}

// TestBarrierHoldsAcksWithHeaders: what reads like an acknowledgement is held in
// either form of a message.
func TestBarrierHoldsAcksWithHeaders(t *testing.T) {
	b := &gatedBarrier{open: make(chan error)}
	w := newWorld(t, func(_ *Config, d *Deps) { d.Barrier = b })
	server := w.connect("server")
	_, err := server.Subscribe("rpc.billing.charge", func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Header: nats.Header{"x": {"1"}}, Data: []byte(`{"stream":"ORDERS","seq":7}`)})
	})
	check(t, err)
	check(t, server.Flush())
	r := w.login("caller", quiet)
	r.send("SUB _INBOX.a.* 1\r\nPUB rpc.billing.charge _INBOX.a.b 0\r\n\r\n")
	w.until("it is held", func() bool { return w.gate.Stats().HeldAcks == 1 })
	if got := r.pong(); len(got) != 0 {
		t.Errorf("before the barrier: %q", got)
	}
	select {
	case b.open <- nil:
	case <-time.After(testTimeout):
		t.Fatal("nobody waits at the barrier")
	}
	r.want("HMSG _INBOX.a.b 1 ")
}
