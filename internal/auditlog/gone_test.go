package auditlog

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPrunedAgainstHeadsFromOutside: who has the key of a node says that it pruned what a
// logged head names. Another hash than that of the head is a fault; what went though older
// records are there is not proved; a chain that is gone as a whole is named.
func TestPrunedAgainstHeadsFromOutside(t *testing.T) {
	for name, tt := range map[string]struct {
		left int    // messages of n1
		last uint64 // that the pruned record names, beyond the head
		hash bool   // of the head
		ok   bool
		open string
		gone bool
	}{
		"another hash":         {left: 0, last: 0, ok: false},
		"its hash":             {left: 0, last: 0, hash: true, ok: true, gone: true},
		"beyond the head":      {left: 0, last: 5, ok: true, gone: true},
		"older ones are there": {left: 2, last: 5, ok: true, open: "what is before them is there"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, _, lines := logged(t)
			end := tr.writers["n1"].Position()
			p := Pruning{Chain: end.Chain, First: 1, Last: end.Seq + tt.last, Hash: strings.Repeat("7", 64), From: began, Until: began.Add(time.Minute), Why: PrunedSize}
			if tt.hash {
				p.Hash = end.Hash
			}
			w, at := NewWriter("shop", ChainID{"n1", "00000000000000ff"}), began.Add(2*time.Minute)
			data, _, _, err := w.Batch([]Entry{{Time: at, Kind: KindChain, Outcome: OutcomeOK}, p.Entry(at, "shop")}, at, tr.keys["n1"])
			if err != nil {
				t.Fatal(err)
			}
			left := 0
			tr.messages = slices.DeleteFunc(tr.messages, func(m []byte) bool {
				b, err := ParseBatch(m)
				if err != nil {
					t.Fatal(err)
				}
				if b.ID().Node == "n1" {
					left++
				}
				return b.ID().Node == "n1" && left > tt.left
			})
			tr.messages = append(tr.messages, data)
			r := tr.against(lines...)
			if r.OK != tt.ok || !tt.ok && (r.Faults[0].What != FaultForged || !strings.Contains(r.Faults[0].Detail, "and the log has it")) {
				t.Errorf("%+v", r.Faults)
			}
			if open := slices.ContainsFunc(r.Open, func(o Open) bool { return strings.Contains(o.Why, "what is before them is there") }); open != (tt.open != "") {
				t.Errorf("open: %+v", r.Open)
			}
			if tt.ok && tt.gone != (len(r.Gone) == 1 && r.Gone[0].Position == end && strings.Contains(r.Gone[0].String(), "the node says that it pruned it")) {
				t.Errorf("gone: %+v", r.Gone)
			}
		})
	}
}
