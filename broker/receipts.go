package broker

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/signetbus/signet/broker/ops"
)

// durabilities are what the other nodes say of their storage.durability. A receipt says
// that an event is on stable storage at a majority of its copies, so one node that
// acknowledges before is enough to make it untrue.
type durabilities struct {
	mu sync.Mutex
	by map[string]Durability // by node, what it said last
}

// heard notes what a node said; one of a release that does not tell says nothing.
func (d *durabilities) heard(node string, is Durability) {
	if node == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.by == nil {
		d.by = map[string]Durability{}
	}
	d.by[node] = is
}

// fault names a node that does not sync, or does not say that it does.
func (d *durabilities) fault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, node := range slices.Sorted(maps.Keys(d.by)) {
		switch d.by[node] {
		case DurabilityUnsafeLazy:
			return fmt.Errorf("the node %s acknowledges before anything is on stable storage (storage.durability), so no acknowledgement is signed", node)
		case "":
			return fmt.Errorf("the node %s does not say whether it syncs (its release is older), so no acknowledgement is signed", node)
		}
	}
	return nil
}

// noReceipt is gate.Deps.NoReceipt.
func noReceipt(b *Broker) error {
	if b.nodes == nil {
		return nil
	}
	return b.nodes.storage.fault()
}

// receiptMetrics are the signed acknowledgements.
func receiptMetrics(b *Broker) []ops.Source {
	return []ops.Source{
		{Name: "signet_receipts_total", Help: "Signed acknowledgements that were asked for, by what became of them.", Kind: ops.Counter, Labels: []string{"result"}, Read: func(emit func(float64, ...string)) {
			s := b.gate.Stats().Receipts
			emit(float64(s.Signed), "signed")
			emit(float64(s.Unsigned), "unsigned")
			emit(float64(s.Expired), "expired")
			emit(float64(s.Refused), "refused")
		}},
		{Name: "signet_receipts_outstanding", Help: "Signed acknowledgements that are waited for now.", Kind: ops.Gauge, Read: func(emit func(float64, ...string)) {
			emit(float64(b.gate.Stats().Receipts.Outstanding))
		}},
	}
}
