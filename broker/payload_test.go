package broker

import (
	"encoding/base64"
	"testing"

	"github.com/signetbus/signet/broker/audit"
	"github.com/signetbus/signet/internal/auditlog"
)

// However little clients may send, the trail must get into its stream and out again.
func TestServerPayloadHoldsTheTrail(t *testing.T) {
	const frame = 64 << 10 // of JSON around a page
	for _, gate := range []ByteSize{1024, 64 << 10, DefaultMaxPayloadBytes, 8 << 20} {
		got := serverPayload(gate)
		if got < int(gate)+headerBudget {
			t.Errorf("gate.maxPayload %d: %d does not hold it and its header", gate, got)
		}
		if most := auditlog.MaxBatchBytes + headerBudget; got < most {
			t.Errorf("gate.maxPayload %d: %d does not hold a batch of %d", gate, got, most)
		}
		if most := base64.StdEncoding.EncodedLen(audit.MaxReadBytes) + frame; got < most {
			t.Errorf("gate.maxPayload %d: %d does not hold a page of %d", gate, got, most)
		}
	}
}
