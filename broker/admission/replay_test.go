package admission

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// signatureOf returns the entry of the one signature of e.
func signatureOf(t *testing.T, e *cloudevent.Event) json.RawMessage {
	t.Helper()
	text, err := base64.StdEncoding.DecodeString(string(e.Get(wire.AttrDSSE)))
	if err != nil {
		t.Fatal(err)
	}
	var envelope struct{ Signatures []json.RawMessage }
	if err := json.Unmarshal(text, &envelope); err != nil || len(envelope.Signatures) != 1 {
		t.Fatalf("%s: %v", text, err)
	}
	return envelope.Signatures[0]
}

// An event with fewer of its signatures, or with them in another order, is the same
// event to the broker: whoever can read it could publish it again otherwise.
func TestReplayWithOtherSignatures(t *testing.T) {
	f := newFixture(t)
	for _, subject := range []string{"orders.created", "telemetry.cpu"} {
		a, b := f.signed("good", subject), f.signed("second", subject)
		first, second := signatureOf(t, a), signatureOf(t, b)
		both := func(x, y json.RawMessage) *cloudevent.Event {
			return rewrite(t, a, func(s string) string {
				return s[:bytes.Index([]byte(s), first)] + string(x) + "," + string(y) + "]}"
			})
		}
		_, header := f.accepted("both", subject, both(first, second))
		for name, e := range map[string]*cloudevent.Event{"other order": both(second, first), "the first": a, "the second": b} {
			if subject == "telemetry.cpu" {
				f.refused(name, subject, e, wire.CodeReplayed)
				continue
			}
			_, again := f.accepted(name, subject, e)
			if got, want := msgID(t, again), msgID(t, header); got != want {
				t.Errorf("%s: dedup key %s, want %s", name, got, want)
			}
		}
	}
}

// What is acknowledged must be accepted by readers, who compare the validity of the
// broker's key with recordedtime.
func TestSignedEventOutsideTheAttestationKey(t *testing.T) {
	for name, c := range map[string]struct {
		from, to time.Duration // validity of the broker's key, from now
		at       time.Duration // recordedtime
		want     wire.Code
	}{
		"before it began":     {from: 0, to: time.Hour, at: -time.Second, want: wire.CodeUnavailable},
		"as it begins":        {from: 0, to: time.Hour, at: 0},
		"before it ends":      {from: -time.Hour, to: 2 * time.Second, at: time.Second},
		"as it ends":          {from: -time.Hour, to: time.Second, at: time.Second, want: wire.CodeUnavailable},
		"long after it began": {from: -time.Hour, to: time.Hour, at: -time.Minute},
	} {
		f := newFixture(t)
		f.chain.cfg.NotBefore, f.chain.cfg.NotAfter = start.Add(c.from), start.Add(c.to)
		r, _ := f.send("orders.created", f.signed("good", "orders.created", recordedAt(start.Add(c.at))))
		switch {
		case c.want == 0 && r != nil, c.want != 0 && (r == nil || r.Code != c.want || r.Rule != ruleAttestationKey):
			t.Errorf("%s: got %v, want code %d", name, r, c.want)
		}
	}
}

// A key that another principal connects with is no event key either.
func TestConnectionKeyOfAnotherPrincipal(t *testing.T) {
	f := newFixture(t)
	f.accepted("before", "orders.created", f.signed("good", "orders.created"))
	f.chain.cfg.Connections = map[string]string{f.keys["good"].KeyID(): "shop/other"}
	f.refused("after", "orders.created", f.signed("good", "orders.created"), wire.CodeProducerKeyUnknown)
	f.accepted("another key", "orders.created", f.signed("second", "orders.created"))
}
