package broker_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/internal/wire"
)

// headersPolicy has one principal that holds every grantable Nats- header, and one
// that holds none.
const headersPolicy = `tenant: shop
streams:
  - {name: ORDERS, subjects: [orders.>], maxBytes: 16MiB}
  - {name: OTHER, subjects: [other.>], maxBytes: 16MiB}
principals:
  - name: trusted
    identities: [{nkey: '{{nkey "trusted"}}'}]
    publish: [orders.>, other.>]
    headers: [Nats-TTL, Nats-Expected-Stream, Nats-Expected-Last-Sequence, Nats-Expected-Last-Subject-Sequence]
  - {name: plain, identities: [{nkey: '{{nkey "plain"}}'}], publish: [orders.>]}
`

func headersBroker(t *testing.T) *brokertest.Broker {
	t.Helper()
	return newBroker(t, func(o *brokertest.Options) { o.Policy = headersPolicy })
}

func withHeader(name, value string) *nats.Msg {
	msg := nats.NewMsg("orders.x")
	msg.Header[name] = []string{value}
	return msg
}

// wants publishes and returns the code of the store's own refusal, 0 for none.
func wants(t *testing.T, p *peer, name, value string) jetstream.ErrorCode {
	t.Helper()
	_, err := p.js(t).PublishMsg(within(t), withHeader(name, value), jetstream.WithRetryAttempts(0))
	var refusal *jetstream.APIError
	if err != nil && !errors.As(err, &refusal) {
		t.Fatalf("%s: %s: %v", name, value, err)
	}
	if err == nil {
		return 0
	}
	return refusal.ErrorCode
}

// TestRow13TTL: no event expires before its stream says so. Without a grant the
// header is refused; with one the stream refuses it, and nothing is stored.
func TestRow13TTL(t *testing.T) {
	b := headersBroker(t)
	plain, trusted := connect(t, b, "plain"), connect(t, b, "trusted")
	for _, name := range []string{"Nats-TTL", "nats-ttl", "NATS-TTL", "Nats-Ttl"} {
		refusedHeader(t, plain, withHeader(name, "1s"))
	}
	const ttlDisabled = 10166
	for _, v := range []string{"1s", "1", "never"} {
		if code := wants(t, trusted, "Nats-TTL", v); code != ttlDisabled {
			t.Errorf("granted, %s: code %d, want %d", v, code, ttlDisabled)
		}
	}
	if n := streamOf(t, b, "shop", "ORDERS").State.Messages; n != 0 {
		t.Errorf("%d events stored", n)
	}
	for _, name := range []string{"ORDERS", "OTHER", wire.StreamDLQ} {
		if cfg := must(insideJS(t, b, "shop").Stream(within(t), name))(t).CachedInfo().Config; cfg.AllowMsgTTL {
			t.Errorf("%s allows a lifetime per message", name)
		}
	}
}

// TestRow14Expected: a condition on a publish is a capability, granted by the name
// of the header. It decides about the publish that carries it and no other.
func TestRow14Expected(t *testing.T) {
	b := headersBroker(t)
	plain, trusted := connect(t, b, "plain"), connect(t, b, "trusted")
	for _, name := range []string{
		"Nats-Expected-Stream", "Nats-Expected-Last-Sequence", "Nats-Expected-Last-Msg-Id",
		"Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject",
	} {
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			refusedHeader(t, plain, withHeader(spelling, "ORDERS"))
			if spelling != name || strings.HasSuffix(name, "Msg-Id") || strings.HasSuffix(name, "-Subject") {
				refusedHeader(t, trusted, withHeader(spelling, "ORDERS")) // the grant is for exact names
			}
		}
	}
	plain.publish(t, "orders.x", "one")
	for _, c := range []struct {
		name, right, wrong string
		code               jetstream.ErrorCode
	}{
		{"Nats-Expected-Stream", "ORDERS", "OTHER", 10060},
		{"Nats-Expected-Last-Sequence", "%d", "99", 10071},
		{"Nats-Expected-Last-Subject-Sequence", "%d", "99", 10071},
	} {
		before := streamOf(t, b, "shop", "ORDERS").State
		if code := wants(t, trusted, c.name, c.wrong); code != c.code {
			t.Errorf("%s: %s: code %d, want %d", c.name, c.wrong, code, c.code)
		}
		if after := streamOf(t, b, "shop", "ORDERS").State; after != before {
			t.Errorf("%s: a failed condition changed the stream: %+v, was %+v", c.name, after, before)
		}
		plain.publish(t, "orders.x", "in between") // no condition, so none fails
		right := c.right
		if strings.Contains(right, "%d") {
			right = fmt.Sprintf(right, before.LastSeq+1)
		}
		if code := wants(t, trusted, c.name, right); code != 0 {
			t.Errorf("%s: %s: code %d", c.name, right, code)
		}
		if after := streamOf(t, b, "shop", "ORDERS").State; after.Messages != before.Messages+2 {
			t.Errorf("%s: %d events, want %d", c.name, after.Messages, before.Messages+2)
		}
	}
	if n := streamOf(t, b, "shop", "OTHER").State.Messages; n != 0 {
		t.Errorf("%d events in another stream", n)
	}
}

// TestRow39LogInjection: what a client sends reaches the log escaped, in both
// formats: one line for each entry, and every character of it can be seen.
func TestRow39LogInjection(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		t.Run(format, func(t *testing.T) {
			log := &logBuffer{}
			b := newBroker(t, func(o *brokertest.Options) {
				o.Log = log
				if format == "console" {
					o.Log = zerolog.ConsoleWriter{Out: log, NoColor: true}
				}
			})
			r, line := rawTLS(t, b, b.Cred("writer"), `"name":"\u001b[2J\r\nFORGED","lang":"\u001b]0;t\u0007\nFORGED","version":"\u009b2J\u0000\u202e"`)
			r.send("PING\r\n")
			r.line()
			for _, s := range hostileTexts {
				for _, op := range []string{
					"PUB orders." + s + " 1\r\nx\r\n", "PUB orders.x _INBOX." + s + " 1\r\nx\r\n", "SUB orders." + s + " 7\r\n", "SUB orders.x q" + s + " 8\r\n",
				} {
					r.send(op)
				}
				head := "NATS/1.0\r\nNats-" + s + ": " + s + "\r\n\r\n"
				r.send(fmt.Sprintf("HPUB orders.x %d %d\r\n%sx\r\n", len(head), len(head)+1, head))
			}
			r.send("\x1b[31mFORGED\x07 " + line + "\r\n")
			r.rest()
			check(t, b.Shutdown(within(t))) // writes what the audit trail has gathered
			text := log.String()
			if !strings.Contains(text, "refused") || !strings.Contains(text, "connected") {
				t.Fatalf("the log says nothing of it:\n%s", text)
			}
			for l := range strings.Lines(text) {
				l = strings.TrimSuffix(l, "\n")
				if strings.ContainsFunc(l, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("an unprintable character in %q", l)
				}
				if strings.HasPrefix(l, "FORGED") || format == "json" && (l == "" || l[0] != '{' || l[len(l)-1] != '}') {
					t.Errorf("a line of a client's: %q", l)
				}
			}
		})
	}
}

// hostileTexts would move the cursor, end the line, ring, hide or reverse what
// stands beside them; none holds a byte that ends a line of the protocol.
var hostileTexts = []string{"a\u009b31mb", "\x1b[2J", "\x1b]0;t\x07", "\x00", "\x08\x08", "\x7f", "\xff\xfe", "\u0085FORGED", "\u202eevil", "\\n\\x1b", "\"}{\""}
