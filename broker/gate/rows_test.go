package gate

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/signetbus/signet/internal/wire"
)

// The rows of the table of bad inputs that are decided at the gate. Each shows what
// the client is told, that nothing got in, and that the others are untouched.

// setUp is in the advisory about a request by which newWorld made its streams.
var setUp = regexp.MustCompile(`"subject":"\$JS\.API\.STREAM\.CREATE\.(ORDERS|PAYMENTS|KV_CONFIG|OBJ_FILES)"`)

// spy sees everything that the server delivers in the tenant's account.
type spy struct {
	w   *world
	sub *nats.Subscription
}

func (w *world) spy() *spy {
	w.t.Helper()
	sub, err := w.nc.SubscribeSync(">")
	check(w.t, err)
	check(w.t, w.nc.Flush())
	w.t.Cleanup(func() { _ = sub.Unsubscribe() })
	return &spy{w: w, sub: sub}
}

// nothing fails if a message got in; the caller has had a PONG after what it sent.
func (s *spy) nothing() {
	s.w.t.Helper()
	check(s.w.t, s.w.nc.Flush())
	for {
		n, _, err := s.sub.Pending()
		check(s.w.t, err)
		if n == 0 {
			return
		}
		m, err := s.sub.NextMsg(testTimeout)
		check(s.w.t, err)
		if strings.HasPrefix(m.Subject, "$JS.EVENT.ADVISORY.STREAM.") {
			continue // the server's own, about the streams of the test
		}
		if m.Subject == "$JS.EVENT.ADVISORY.API" && setUp.Match(m.Data) {
			continue // the same, late
		}
		s.w.t.Errorf("delivered: %q reply %q %q", m.Subject, m.Reply, m.Data)
	}
}

const quiet = `"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1`

// pong sends PING and returns the lines before the PONG.
func (r *raw) pong() []string {
	r.t.Helper()
	r.send("PING\r\n")
	var lines []string
	for {
		switch l := r.line(); {
		case l == "PONG":
			return lines
		case l == "EOF":
			return append(lines, l)
		case l != "PING" && !strings.HasPrefix(l, "INFO "):
			lines = append(lines, l)
		}
	}
}

// closed reads to the end and returns the last line before it.
func (r *raw) closed() string {
	r.t.Helper()
	last := ""
	for {
		l := r.line()
		if l == "EOF" {
			return last
		}
		if l != "PING" && !strings.HasPrefix(l, "INFO ") {
			last = l
		}
	}
}

func TestRow01PayloadOverMax(t *testing.T) {
	w := newWorld(t)
	bystander := w.connect("writer")
	for _, row := range []struct{ name, send, want string }{
		{"one over", "PUB orders.a 1048577\r\n", "-ERR 'Maximum Payload Violation'"},
		{"2 GiB", "PUB orders.a 2147483648\r\n", "-ERR 'Parser Error'"},
		{"half a GiB", "PUB orders.a 536870912\r\n", "-ERR 'Maximum Payload Violation'"},
		{"negative", "PUB orders.a -1\r\n", "-ERR 'Parser Error'"},
		{"20 digits", "PUB orders.a 18446744073709551616\r\n", "-ERR 'Parser Error'"},
		{"header over", "HPUB orders.a 12 1048577\r\n", "-ERR 'Maximum Payload Violation'"},
		{"header larger than total", "HPUB orders.a 20 12\r\n", "-ERR 'Parser Error'"},
		{"longer than said", "PUB orders.a 1\r\nxyz\r\n", "-ERR 'Parser Error'"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := w.spy()
			r := w.login("writer", quiet)
			r.send(row.send)
			if got := r.closed(); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
			s.nothing()
		})
	}
	check(t, bystander.Flush())
	if w.gate.Stats().Refused[wire.CodePayloadTooLarge] != 3 {
		t.Errorf("counted %v", w.gate.Stats().Refused)
	}
}

func hpub(subject, block, payload string) string {
	return fmt.Sprintf("HPUB %s %d %d\r\n%s%s\r\n", subject, len(block), len(block)+len(payload), block, payload)
}

func TestRow02HeaderBomb(t *testing.T) {
	w := newWorld(t)
	s := w.spy()
	r := w.login("writer", quiet)
	for name, block := range map[string]string{
		"count": "NATS/1.0\r\n" + strings.Repeat("a: b\r\n", 33) + "\r\n",
		"bytes": "NATS/1.0\r\na: " + strings.Repeat("b", 4096) + "\r\n\r\n",
		"60k":   "NATS/1.0\r\na: " + strings.Repeat("b", 60<<10) + "\r\n\r\n",
		"5000":  "NATS/1.0\r\n" + strings.Repeat("a: b\r\n", 5000) + "\r\n",
	} {
		r.send(hpub("telemetry.a", block, "x"))
		if got := r.pong(); len(got) != 1 || !strings.Contains(got[0], "HeadersTooLarge") {
			t.Errorf("%s: %q", name, got)
		}
	}
	s.nothing()
	r.send(hpub("telemetry.a", "NATS/1.0\r\n"+strings.Repeat("a: b\r\n", 5)+"\r\n", "x"))
	if got := r.pong(); len(got) != 0 {
		t.Errorf("a legal block: %q", got)
	}
}

func TestRow03HeaderBytes(t *testing.T) {
	w := newWorld(t)
	s := w.spy()
	r := w.login("writer", quiet)
	for name, block := range map[string]string{
		"bare CR":      "NATS/1.0\r\na: b\rc\r\n\r\n",
		"bare LF":      "NATS/1.0\r\na: b\nNats-Rollup: all\r\n\r\n",
		"NUL":          "NATS/1.0\r\na: b\x00\r\n\r\n",
		"ESC":          "NATS/1.0\r\na: \x1b[2J\r\n\r\n",
		"bare colon":   "NATS/1.0\r\n: b\r\n\r\n",
		"no colon":     "NATS/1.0\r\nab\r\n\r\n",
		"status":       "NATS/1.0 503\r\n\r\n",
		"no end":       "NATS/1.0\r\na: b\r\n",
		"other magic":  "HTTP/1.1\r\na: b\r\n\r\n",
		"second block": "NATS/1.0\r\n\r\nNATS/1.0\r\na: b\r\n\r\n",
	} {
		r.send(hpub("telemetry.a", block, "x"))
		if got := r.pong(); len(got) != 1 || !strings.Contains(got[0], "HeaderMalformed") {
			t.Errorf("%s: %q", name, got)
		}
	}
	s.nothing()
}

func TestRow04WildcardPublish(t *testing.T) {
	w := newWorld(t)
	s := w.spy()
	for _, who := range []string{"writer", "reader", "server", "buckets"} {
		r := w.login(who, quiet)
		for _, subject := range []string{"orders.*", "orders.>", ">", "*", "*.a", "telemetry.>", "_INBOX.>", "_INBOX.*", "$KV.CONFIG.*", "rpc.billing.>", "$JS.API.*"} {
			r.send("PUB " + subject + " 1\r\nx\r\n")
			if got := r.pong(); len(got) != 1 || !strings.HasPrefix(got[0], "-ERR 'Permissions Violation for Publish to ") {
				t.Errorf("%s to %s: %q", who, subject, got)
			}
		}
	}
	s.nothing()
}

func TestRow05SubjectBytes(t *testing.T) {
	w := newWorld(t)
	s := w.spy()
	r := w.login("writer", quiet)
	for _, subject := range []string{
		"orders.a\x00", "orders.\x1b[2J", "orders.\xff\xfe", "orders.\u0430", "orders.a'b", "orders.a\"b", "orders..a", ".orders", "orders.",
		"orders." + strings.Repeat("a", 256), "orders" + strings.Repeat(".a", 16), "orders.a\x7f", "orders.a/b",
	} {
		r.send("PUB " + subject + " 1\r\nx\r\n")
		if got := r.pong(); len(got) != 1 || !strings.Contains(got[0], "SubjectMalformed") {
			t.Errorf("%q: %q", subject, got)
		} else if strings.ContainsAny(got[0], "\x00\x1b\x7f") {
			t.Errorf("%q: control bytes came back: %q", subject, got[0])
		}
	}
	s.nothing()
}

func TestRow06SubjectBlanks(t *testing.T) {
	w := newWorld(t)
	s := w.spy()
	for name, send := range map[string]string{
		"space":   "PUB orders.a b c 1\r\nx\r\n",
		"tab":     "PUB orders.a\tb\tc 1\r\nx\r\n",
		"CR":      "PUB orders.a\rb 1\r\nx\r\n",
		"CRLF":    "PUB orders.a\r\nPUB payments.a 1\r\nx\r\n",
		"LF":      "PUB orders.a\n 1\r\nx\r\n",
		"nothing": "PUB \n1\r\n",
	} {
		r := w.login("writer", quiet)
		r.send(send)
		if got := r.closed(); got != "-ERR 'Parser Error'" {
			t.Errorf("%s: %q", name, got)
		}
	}
	s.nothing()
}

func TestRow07SystemSubjects(t *testing.T) {
	w := newWorld(t)
	s := w.spy()
	for _, who := range principalNames {
		r := w.login(who, quiet)
		for _, subject := range []string{
			"$SYS.REQ.ACCOUNT.PING.CONNZ", "$SYS.REQ.SERVER.PING", "$SYS.ACCOUNT.x.CLAIMS.UPDATE", "$JS.API.STREAM.DELETE.ORDERS",
			"$JS.API.STREAM.PURGE.ORDERS", "$JS.API.STREAM.CREATE.X", "$JS.API.STREAM.SNAPSHOT.ORDERS", "$JS.API.META.LEADER.STEPDOWN",
			"$JS.hub.API.INFO", "$JSC.CI.x", "$NRG.V.x", "$GR.x", "_GR_.x.y", "_R_.x", "$MQTT.msgs", "$LDS.x", "$KV.OTHER.key", "$O.OTHER.M.x",
			"_INBOX.someone.else", "$SIGNET.DLQ.schema.x", "$SIGNET.API.policy.apply", "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.ORDERS.c",
			"$JS.ACK.ORDERS.c.1.1.1.0.0", "$JS.FC.ORDERS.c.x", "signet.secret",
		} {
			r.send("PUB " + subject + " 2\r\n{}\r\n")
			if got := r.pong(); len(got) != 1 || !strings.HasPrefix(got[0], "-ERR 'Permissions Violation for Publish to ") {
				t.Errorf("%s to %s: %q", who, subject, got)
			}
		}
	}
	s.nothing()
}

func TestRow08InboxTheft(t *testing.T) {
	w := newWorld(t)
	// A thief listens on every inbox that it can name.
	thief := w.login("narrow", quiet)
	for i, filter := range []string{"_INBOX.>", "_INBOX.*", "_INBOX.*.>", "_INBOX.victim.*", "_INBOX.*.reply"} {
		thief.send(fmt.Sprintf("SUB %s %d\r\n", filter, i+1))
	}
	if got := thief.pong(); len(got) != 0 {
		t.Fatalf("the thief's own inboxes: %q", got)
	}
	for i, filter := range []string{">", "*", "*.>", "*.victim.*", "_INBOX", "$JS.>", "$KV.>", "$SYS.>", "_R_.>", "$SRV.PING", "$SIGNET.>"} {
		thief.send(fmt.Sprintf("SUB %s %d\r\n", filter, i+100))
		if got := thief.pong(); len(got) != 1 || !strings.HasPrefix(got[0], "-ERR 'Permissions Violation for Subscription to ") {
			t.Errorf("SUB %s: %q", filter, got)
		}
	}
	server := w.login("server", quiet)
	server.send("SUB rpc.billing.charge 1\r\n")
	server.pong()
	victim := w.login("caller", quiet)
	victim.send("SUB _INBOX.victim.reply 7\r\nPUB rpc.billing.charge _INBOX.victim.reply 4\r\ncash\r\n")
	if got := victim.pong(); len(got) != 0 {
		t.Fatalf("the victim: %q", got)
	}
	f := strings.Fields(server.want("HMSG rpc.billing.charge 1 _INBOX."))
	inbox := f[3]
	// Whoever sees the inbox still cannot listen on it or write to it.
	thief.send("SUB " + inbox + " 50\r\nSUB " + inbox[:strings.LastIndexByte(inbox, '.')] + ".* 51\r\n")
	thief.pong()
	thief.send("PUB " + inbox + " 4\r\nevil\r\n")
	if got := thief.pong(); len(got) != 0 {
		// It listens on that name in its own space, so this is a message to itself.
		for _, l := range got {
			if strings.HasPrefix(l, "-ERR") {
				t.Logf("told: %s", l)
			}
		}
	}
	stranger := w.login("narrow", quiet)
	stranger.send("PUB " + inbox + " 4\r\nevil\r\n")
	if got := stranger.pong(); len(got) != 1 || !strings.Contains(got[0], "InboxDenied") {
		t.Errorf("a publish to another's inbox: %q", got)
	}
	server.send("PUB " + inbox + " 4\r\npaid\r\n")
	if got := victim.want("MSG _INBOX.victim.reply 7 4"); got != "MSG _INBOX.victim.reply 7 4" {
		t.Errorf("the answer: %q", got)
	}
	if got := victim.line(); got != "paid" {
		t.Errorf("the answer's payload: %q", got)
	}
	for _, l := range thief.pong() {
		if strings.Contains(l, "paid") {
			t.Errorf("the thief read %q", l)
		}
	}
}

func TestRow15TraceOnly(t *testing.T) {
	w := newWorld(t)
	r := w.login("writer", quiet)
	r.send("SUB _INBOX.a 1\r\n")
	for _, h := range []string{"Nats-Trace-Only: true", "Nats-Trace-Dest: orders.a", "nats-trace-dest: orders.a", "Nats-Rollup: all", "Nats-Schedule-Target: payments.a", "Nats-Request-Info: {}", "Signet-Principal: shop/admin"} {
		r.send(strings.Replace(hpub("orders.a", "NATS/1.0\r\n"+h+"\r\n\r\n", "x"), "orders.a", "orders.a _INBOX.a", 1))
		got := strings.Join(r.pong(), "\n")
		if !strings.Contains(got, "MSG _INBOX.a 1") || !strings.Contains(got, `"err_code":4010`) {
			t.Errorf("%s: %q", h, got)
		}
	}
	s, err := w.js.Stream(w.ctx(), "ORDERS")
	check(t, err)
	if n := s.CachedInfo().State.Msgs; n != 0 {
		t.Errorf("stored %d", n)
	}
}

// TestRow16Deputy tries the four ways in which the server writes for a client: the
// target is a subject that the client may not publish to.
func TestRow16Deputy(t *testing.T) {
	w := newWorld(t)
	_, err := w.js.Publish(w.ctx(), "orders.eu.created", []byte("pay 100"))
	check(t, err)
	const target = "payments.made"
	for _, row := range []struct{ name, who, send string }{
		{"PubAck", "writer", "PUB orders.eu.created " + target + " 1\r\nx\r\n"},
		{"direct get", "reader", "PUB $JS.API.DIRECT.GET.ORDERS.orders.eu.created " + target + " 0\r\n\r\n"},
		{"pull", "reader", "PUB $JS.API.CONSUMER.MSG.NEXT.ORDERS.mine " + target + " 11\r\n{\"batch\":1}\r\n"},
		{"push consumer", "reader", func() string {
			body := `{"stream_name":"ORDERS","config":{"deliver_subject":"` + target + `","deliver_policy":"all","ack_policy":"none","filter_subject":"orders.eu.created"},"action":"create"}`
			return fmt.Sprintf("PUB $JS.API.CONSUMER.CREATE.ORDERS _INBOX.x %d\r\n%s\r\n", len(body), body)
		}()},
		{"ack with a reply", "reader", "PUB $JS.ACK.ORDERS.mine.1.1.1.0.0 " + target + " 4\r\n+NXT\r\n"},
		{"control channel", "writer", "PUB orders.eu.created _INBOX.x.$FI 1\r\nx\r\n"},
		{"ack as reply", "writer", "PUB orders.eu.created $JS.ACK.a.b.1.1.1.1.1 1\r\nx\r\n"},
		{"routed reply", "writer", "PUB orders.eu.created _R_.x 1\r\nx\r\n"},
		{"wildcard reply", "writer", "PUB orders.eu.created _INBOX.* 1\r\nx\r\n"},
		{"long reply", "writer", "PUB orders.eu.created _INBOX." + strings.Repeat("a", 250) + " 1\r\nx\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			sub, err := w.nc.SubscribeSync(target)
			check(t, err)
			check(t, w.nc.Flush())
			r := w.login(row.who, quiet)
			if strings.Contains(row.send, ".mine") {
				body := `{"stream_name":"ORDERS","config":{"durable_name":"mine","deliver_policy":"all","ack_policy":"explicit","filter_subject":"orders.>"},"action":""}`
				r.send(fmt.Sprintf("SUB _INBOX.c 9\r\nPUB $JS.API.CONSUMER.CREATE.ORDERS.mine.orders.> _INBOX.c %d\r\n%s\r\n", len(body), body))
				r.want("MSG _INBOX.c 9")
				r.line()
			}
			r.send("SUB _INBOX.x 1\r\n" + row.send)
			got := strings.Join(r.pong(), "\n")
			if !strings.Contains(got, "-ERR 'Permissions Violation for Publish") && !strings.Contains(got, `"err_code":40`) {
				t.Errorf("told %q", got)
			}
			check(t, w.nc.Flush())
			if n, _, _ := sub.Pending(); n != 0 {
				t.Errorf("%d messages on the denied subject", n)
			}
			check(t, sub.Unsubscribe())
		})
	}
}

func TestRow35Slowloris(t *testing.T) {
	// Who logs in on a busy machine needs more time than the silent one is to be given.
	strict := newWorld(t, func(c *Config, _ *Deps) { c.Timeouts.Auth = 150 * time.Millisecond })
	silent, _ := strict.dial()
	if got := silent.closed(); got != "-ERR 'Authentication Timeout'" {
		t.Errorf("without CONNECT: %q", got)
	}
	w := newWorld(t, func(c *Config, _ *Deps) { c.Timeouts.Message = 150 * time.Millisecond })
	idle := w.login("writer", quiet)
	idle.pong()
	for name, start := range map[string]string{"line": "PUB orders.a", "payload": "PUB orders.a 100\r\nabc", "header": "HPUB orders.a 50 100\r\nNATS/1.0\r\n"} {
		r := w.login("writer", quiet)
		r.pong()
		began := time.Now()
		r.send(start)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Add(1)
		go func() { // drips a byte at a time
			defer wg.Done()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					if _, err := r.nc.Write([]byte("x")); err != nil {
						return
					}
				}
			}
		}()
		got := r.closed()
		close(stop)
		wg.Wait()
		if got != "-ERR 'Stale Connection'" || time.Since(began) > testTimeout {
			t.Errorf("%s: %q after %v", name, got, time.Since(began))
		}
	}
	if got := idle.pong(); len(got) != 0 {
		t.Errorf("an idle connection: %q", got)
	}
}

func TestRow36Floods(t *testing.T) {
	w := newWorld(t, func(c *Config, _ *Deps) {
		c.Limits.Connections, c.Limits.Subscriptions = 20, 100
		c.Timeouts.Auth = testTimeout // those who only connect stay for the whole flood
	})
	victim := w.connect("writer")
	t.Run("connections", func(t *testing.T) {
		var open []net.Conn
		refused := 0
		for range 60 {
			nc, err := net.Dial("tcp", w.gate.Addr().String())
			check(t, err)
			open = append(open, nc)
			var b [16]byte
			check(t, nc.SetReadDeadline(time.Now().Add(testTimeout)))
			if n, _ := nc.Read(b[:]); !strings.HasPrefix(string(b[:n]), "INFO") {
				refused++
			}
		}
		if refused != 41 {
			t.Errorf("refused %d of 60, with one of 20 taken", refused)
		}
		check(t, victim.Flush())
		for _, nc := range open {
			nc.Close()
		}
	})
	t.Run("subscriptions", func(t *testing.T) {
		w.until("the flood is gone", func() bool { return w.gate.Stats().Connections == 1 })
		r := w.login("reader", quiet)
		var b strings.Builder
		for i := range 200 {
			fmt.Fprintf(&b, "SUB orders.%d %d\r\n", i, i)
		}
		r.send(b.String())
		got := r.pong()
		if len(got) != 100 || got[0] != "-ERR 'maximum subscriptions exceeded'" {
			t.Errorf("%d answers, %q", len(got), got[:min(1, len(got))])
		}
		r.send("UNSUB 0\r\nSUB orders.x 1000\r\n")
		if got := r.pong(); len(got) != 0 {
			t.Errorf("after one UNSUB: %q", got)
		}
	})
	t.Run("rate per address", func(t *testing.T) {
		d := newDoorman(10, 5)
		now, admitted := time.Unix(1000, 0), 0
		a := &net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 1}
		b := &net.TCPAddr{IP: net.ParseIP("2001:db8::2"), Port: 2} // the same /64
		for i := range 20 {
			if d.admit([]net.Addr{a, b}[i%2], now) {
				admitted++
			}
		}
		if admitted != 5 {
			t.Errorf("admitted %d of a burst of 5", admitted)
		}
		if d.admit(a, now.Add(50*time.Millisecond)) || !d.admit(a, now.Add(101*time.Millisecond)) {
			t.Error("the rate is not 10 per second")
		}
		if !d.admit(&net.TCPAddr{IP: net.ParseIP("192.0.2.1")}, now) {
			t.Error("another address was refused")
		}
	})
}

// until waits for a condition without sleeping in the test's name: it yields to the
// goroutines that bring it about.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(testTimeout); !ok(); <-tick.C {
		if time.Now().After(end) {
			w.t.Fatalf("not in time: %s", what)
		}
	}
}

func TestRow40Connect(t *testing.T) {
	w := newWorld(t)
	public, _ := w.keys["writer"].PublicKey()
	for _, row := range []struct{ name, send, want string }{
		{"over 16 KiB", "CONNECT {\"name\":\"" + strings.Repeat("x", 16<<10) + "\"}\r\n", "-ERR 'maximum control line exceeded'"},
		{"never ends", "CONNECT " + strings.Repeat("[", 17<<10), "-ERR 'maximum control line exceeded'"},
		{"deep", "CONNECT {\"x\":" + strings.Repeat("[", 8000) + strings.Repeat("]", 8000) + "}\r\n", "-ERR 'Authorization Violation'"},
		{"not JSON", "CONNECT x\r\n", "-ERR 'Parser Error'"},
		{"twice a member", "CONNECT {\"nkey\":\"a\",\"nkey\":\"b\"}\r\n", "-ERR 'Parser Error'"},
		{"bytes after it", "CONNECT {} {}\r\n", "-ERR 'Parser Error'"},
		{"wrong type", "CONNECT {\"verbose\":\"yes\"}\r\n", "-ERR 'Parser Error'"},
		{"case twin", "CONNECT {\"NKEY\":\"" + public + "\"}\r\n", "-ERR 'Authorization Violation'"},
		{"account", "CONNECT {\"account\":\"SYS\"}\r\n", "-ERR 'Authorization Violation'"},
		{"nobody", "CONNECT {}\r\n", "-ERR 'Authorization Violation'"},
		{"protocol", "CONNECT {\"protocol\":2}\r\n", "-ERR 'invalid client protocol'"},
		{"no_responders", "CONNECT {\"no_responders\":true}\r\n", "-ERR 'no responders requires headers support'"},
		{"PUB first", "PUB orders.a 1\r\nx\r\n", "-ERR 'Authorization Violation'"},
		{"PING first", "PING\r\n", "-ERR 'Authorization Violation'"},
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", "-ERR 'Authorization Violation'"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r, _ := w.dial()
			r.send(row.send)
			if got := r.closed(); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
	t.Run("second CONNECT", func(t *testing.T) {
		r := w.login("writer", quiet)
		r.send("CONNECT {}\r\n")
		if got := r.closed(); got != "-ERR 'Parser Error'" {
			t.Errorf("got %q", got)
		}
	})
	check(t, w.connect("writer").Flush())
}
