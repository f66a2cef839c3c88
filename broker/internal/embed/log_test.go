package embed

import (
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestLogLine(t *testing.T) {
	for _, tc := range []struct {
		name, format string
		args         []any
		want         string
	}{
		{"plain", "a %d", []any{1}, "a 1"},
		{"bytes are a payload", "Malformed JetStream API Request: %q", []any{[]byte("secret")}, `Malformed JetStream API Request: "(6 bytes)"`},
		{"parser error", "%s", []any{"cid:1 - parser ERROR, i=0: proto='secret'..."}, "cid:1 - parser ERROR, i=0: proto=(cut)"},
		{"JSON error", "Invalid JetStream request '%s > %s': %v", []any{"a", "b", `unknown field "secret"`}, "Invalid JetStream request 'a > b':(cut)"},
		{"control characters", "a\r\nb\x1b[2J%s", []any{"\xff"}, "a  b [2J?"},
		{"long", "%s", []any{strings.Repeat("x", 600)}, strings.Repeat("x", 512) + "..."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := line(tc.format, tc.args); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// Nothing of a payload, a token or a malformed request may reach the log, debug
// lines included.
func TestLogHoldsNoPayload(t *testing.T) {
	var mu sync.Mutex
	var text strings.Builder
	s := start(t, func(c *Config) {
		c.Debug = true
		c.Log = func(level, msg string) {
			mu.Lock()
			defer mu.Unlock()
			text.WriteString(level + " " + msg + "\n")
		}
	})
	nc := internal(t, s, "shop")
	if _, err := nc.Request("$JS.API.STREAM.CREATE.S", []byte(`{"hunter2":1}`), nats.DefaultTimeout); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Request("$JS.API.STREAM.CREATE.S", []byte(`hunter2`), nats.DefaultTimeout); err != nil {
		t.Fatal(err)
	}
	conn, err := s.Dial(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("CONNECT {\"auth_token\":\"hunter2\"}\r\nhunter2 hunter2\r\n")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the refusal is logged", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(text.String(), "authentication error") && strings.Contains(text.String(), "Invalid JetStream request")
	})
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(text.String(), "hunter2") {
		t.Errorf("the log holds what it must not:\n%s", text.String())
	}
}
