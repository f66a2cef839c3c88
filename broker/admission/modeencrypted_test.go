package admission

import (
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

// TestModeNeverOpensEncryption: no mode lets a payload in the clear onto a subject for
// encrypted ones, whatever else it spares.
func TestModeNeverOpensEncryption(t *testing.T) {
	for _, mode := range []string{"audit", "off"} {
		f := newFixtureOf(t, `
tenant: shop
streams: [{name: ORDERS, subjects: [orders.>], maxBytes: 1MiB, unsafeSchedules: true}]
subjects: [{match: orders.secret.>, encrypted: true, mode: `+mode+`}]
principals: [{name: checkout, identities: [{nkey: %s}], publish: [orders.>], headers: [Nats-Schedule, Nats-Schedule-Target]}]
`)
		if r, _ := f.one("orders.secret.x", "clear"); code(r) != wire.CodeEncryptionRequired {
			t.Errorf("%s: got %v", mode, r)
		}
		// Nor does one that waits there to become an event elsewhere.
		if r, _ := f.one("orders.secret.plan", "clear", "Nats-Schedule: @at 2100-01-01T00:00:00Z", "Nats-Schedule-Target: orders.open"); code(r) != wire.CodeHeaderDenied {
			t.Errorf("%s: a plan in the clear: %v", mode, r)
		}
		if r, _ := f.one("orders.open.plan", "clear", "Nats-Schedule: @at 2100-01-01T00:00:00Z", "Nats-Schedule-Target: orders.secret.x"); code(r) != wire.CodeEncryptionRequired {
			t.Errorf("%s: a plan for an encrypted subject: %v", mode, r)
		}
		j := NewJudge(f.chain.cfg.Validator, 0)
		if _, _, r := j.Event(f.session.p, "orders.secret.x", nil, []byte("clear"), start); code(r) != wire.CodeEncryptionRequired {
			t.Errorf("%s: the judge: %v", mode, r)
		}
	}
}
