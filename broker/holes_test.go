package broker

import (
	"testing"

	"github.com/signetbus/signet/broker/internal/embed"
)

// TestHolesAreAlarms: a stream that nothing may be taken out of has no holes but those
// with a known reason; one look is not enough, the second alarms, once.
func TestHolesAreAlarms(t *testing.T) {
	d := damageState{allowed: map[string]uint64{"shop/KNOWN": 2}}
	states := []embed.StreamState{
		{Account: "shop", Name: "WHOLE", AppendOnly: true, Messages: 10, FirstSeq: 5, LastSeq: 14},
		{Account: "shop", Name: "NEW", AppendOnly: true},
		{Account: "shop", Name: "EMPTY", AppendOnly: true, FirstSeq: 15, LastSeq: 14},
		{Account: "shop", Name: "ORDERS", AppendOnly: true, Messages: 7744, FirstSeq: 1, LastSeq: 12000, Deleted: 4256},
		{Account: "shop", Name: "KNOWN", AppendOnly: true, Messages: 8, FirstSeq: 1, LastSeq: 10, Deleted: 2},
		{Account: "shop", Name: "KV_settings", Messages: 1, FirstSeq: 1, LastSeq: 10, Deleted: 9},
	}
	if fresh := d.judge(states); len(fresh) != 0 {
		t.Errorf("the first look alarms: %v", fresh)
	}
	if fresh := d.judge(states); len(fresh) != 1 || fresh["shop/ORDERS"] != "4256 messages between sequence 1 and 12000 are missing" {
		t.Errorf("the second look: %v", fresh)
	}
	if fresh := d.judge(states); len(fresh) != 0 {
		t.Errorf("the third look alarms again: %v", fresh)
	}
	if k := d.known(); len(k) != 1 {
		t.Errorf("known: %v", k)
	}
	states[3].Messages, states[3].Deleted = 12000, 0
	if d.judge(states); len(d.known()) != 0 {
		t.Error("a stream that is whole again is still damaged")
	}
}
