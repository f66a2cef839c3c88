package admission

import (
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/internal/wire"
)

// TestRedrive: what Redrive lets in is what Publish would have, but for the moment at which
// a signature must have been in time, and a dry run leaves nothing behind.
func TestRedrive(t *testing.T) {
	f := newFixture(t)
	event := func(subject, data string, lines ...string) *Publish {
		block := wire.HeaderLine + strings.Join(append(lines, ""), "\r\n") + "\r\n"
		return &Publish{Subject: []byte(subject), Header: []byte(block), Payload: []byte(data)}
	}
	signed := func(subject string) *Publish {
		e := f.signed("good", subject)
		return &Publish{Subject: []byte(subject), Header: []byte(wire.HeaderLine + string(cloudevent.AppendHeaders(nil, e)) + "\r\n"), Payload: e.Data}
	}
	// The keys of the fixture are good for an hour around start; the node's, too.
	later := start.Add(30 * time.Minute)
	for _, tt := range []struct {
		name string
		p    *Publish
		seen time.Time
		want wire.Code // 0: let in
	}{
		{"an event", event("orders.x", "{}"), start, 0},
		{"one that is right now", event("orders.checked", `{"id":1}`), start, 0},
		{"one that is still wrong", event("orders.checked", `{"id":"x"}`), start, wire.CodeSchemaViolation},
		{"without a grant", event("elsewhere", "{}"), start, wire.CodePublishDenied},
		{"with the attestation of somebody", event("orders.x", "{}", "ce-attestation: x", "ce-specversion: 1.0", "ce-id: 1", "ce-source: /partner/x", "ce-type: com.acme.x"), start, wire.CodeAttestationForbidden},
		{"with a condition of then", event("orders.x", "{}", "Nats-Expected-Last-Sequence: 1"), start, wire.CodeConflict},
		{"with a broker's header", event("orders.x", "{}", "Signet-Redrive-Count: 0"), start, wire.CodeHeaderDenied},
		{"of no stream", event("telemetry.x", "{}"), start, wire.CodeConflict},
		{"of the admin API", event("$SIGNET.API.dlq.ls", "{}"), start, wire.CodeConflict},
		{"with a missing signature", event("orders.signed", "{}"), start, wire.CodeSignatureRequired},
		{"signed, and seen in time", signed("orders.signed"), start, 0},
		{"signed, and seen late", signed("orders.signed"), later, wire.CodeOutsideReplayWindow},
	} {
		for _, dry := range []bool{true, false} {
			block, payload, r := Redrive(f.chain.Session(f.session.Principal()), tt.p, tt.seen, later, dry)
			switch {
			case tt.want == 0 && r != nil, tt.want != 0 && (r == nil || r.Code != tt.want):
				t.Errorf("%s, dry %v: %v, want %v", tt.name, dry, r, tt.want)
			case r != nil && (r.Principal != "shop/checkout" || r.Subject != string(tt.p.Subject) || block != nil):
				t.Errorf("%s: %v", tt.name, r)
			case r == nil && dry && block != nil:
				t.Errorf("%s: a dry run makes something", tt.name)
			}
			if r != nil || dry {
				continue
			}
			var h wire.Headers
			var e cloudevent.Event
			if err := h.Parse(block); err != nil || e.FromHeaders(&h, payload, nil) != nil || string(payload) != string(tt.p.Payload) || string(e.Get(wire.AttrAuthID)) != "shop/checkout" {
				t.Errorf("%s: %v, made %q", tt.name, err, block)
			}
		}
	}
	// What it takes, it takes from the limits; a dry run does not.
	limited := event("orders.limited", "{}")
	redrive := func(dry bool) *wire.Refusal {
		_, _, r := Redrive(f.chain.Session(f.session.Principal()), limited, start, later, dry)
		return r
	}
	for range 5 {
		if r := redrive(true); r != nil {
			t.Fatal(r)
		}
	}
	for i := range 3 {
		if r := redrive(false); (r == nil) != (i < 2) {
			t.Errorf("redrive %d: %v", i, r)
		}
	}
}
