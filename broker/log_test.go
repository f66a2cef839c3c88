package broker_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/signetbus/signet/broker/brokertest"
	"github.com/signetbus/signet/client"
	"github.com/signetbus/signet/schema"
	"github.com/signetbus/signet/schema/jsonschema"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// TestLogLinesAreStrictJSON: what collects our log may be as strict as we are, and
// no payload stands in it.
func TestLogLinesAreStrictJSON(t *testing.T) {
	var log lines
	b := brokertest.New(t, brokertest.Options{Log: &log})
	app := b.Client("app")
	_, err := app.Publish(t.Context(), "orders.created", client.NewEvent("x", []byte(`{"id":"planted-secret"}`)))
	if err == nil {
		t.Fatal("accepted")
	}
	_, err = app.Publish(t.Context(), "nowhere.at.all", client.NewEvent("x", []byte("planted-secret")))
	if err == nil {
		t.Fatal("accepted")
	}
	stop(t, b)
	text := log.b.String()
	if !strings.Contains(text, `"event":"refused"`) || strings.Contains(text, "planted-secret") {
		t.Errorf("the log has no refusal, or a payload:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if err := jsonschema.Scan([]byte(strings.TrimSpace(line)), schema.DefaultLimits()); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
}

// TestFailedReloadIsVisible: not only in the log.
func TestFailedReloadIsVisible(t *testing.T) {
	b := brokertest.New(t, brokertest.Options{})
	good, err := os.ReadFile(b.State.Policy)
	check(t, err)
	value := func() string {
		c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := c.Get("http://" + b.OpsAddr().String() + "/metrics")
		check(t, err)
		defer resp.Body.Close()
		for line := range strings.Lines(string(must(io.ReadAll(resp.Body))(t))) {
			if v, ok := strings.CutPrefix(line, "signet_reload_ok "); ok {
				return strings.TrimSpace(v)
			}
		}
		return "none"
	}
	check(t, os.WriteFile(b.State.Policy, []byte("tenant: ["), 0o600))
	if err := b.Reload(t.Context()); err == nil || value() != "0" {
		t.Errorf("a faulty policy: %v, signet_reload_ok %s", err, value())
	}
	check(t, os.WriteFile(b.State.Policy, good, 0o600))
	check(t, b.Reload(t.Context()))
	if v := value(); v != "1" {
		t.Errorf("after the repair: signet_reload_ok %s", v)
	}
}
