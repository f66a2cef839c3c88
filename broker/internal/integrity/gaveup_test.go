package integrity

import (
	"testing"
	"time"
)

// A stream whose very first writes failed on a full disk has lost nothing: the server has
// given them up, and nothing of them was acknowledged.
func TestFirstWritesThatFailed(t *testing.T) {
	const begin = int64(1_790_000_000_000_000_000)
	given := index{FirstSeq: 2, LastSeq: 1, firstTS: begin, lastTS: begin}
	for _, tt := range []struct {
		name    string
		change  func(*join, *index)
		damaged bool
	}{
		{"given up", func(*join, *index) {}, false},
		{"a few", func(_ *join, x *index) { x.FirstSeq, x.LastSeq, x.lastTS = 10, 9, begin+int64(time.Second) }, false},
		{"over minutes, and so synced", func(_ *join, x *index) { x.lastTS += int64(time.Minute) }, true},
		{"the index has one of them", func(_ *join, x *index) { x.FirstSeq, x.Messages = 1, 1 }, true},
		{"no time is known", func(_ *join, x *index) { x.firstTS = 0 }, true},
		{"every write is synced", func(j *join, _ *index) { j.LazySync = false }, true},
		{"sealed since, with nothing in it", func(j *join, _ *index) { j.sealed, j.known = true, map[uint32]knownBlock{1: {}} }, false},
		{"verified before, with something in it", func(j *join, _ *index) {
			j.known = map[uint32]knownBlock{1: {blockSummary: blockSummary{Messages: 1, Last: 1}}}
		}, true},
		{"others are there", func(j *join, x *index) { j.r.LastSeq, x.FirstSeq, x.LastSeq = 3, 5, 4 }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			j, x := &join{check: &check{Options: Options{LazySync: true}}, r: &Replica{}, m: &meta{}, msgs: "msgs"}, given
			tt.change(j, &x)
			if j.tail(&x); j.r.Damaged() != tt.damaged {
				t.Errorf("damage %+v", j.r.Damage)
			}
		})
	}
}
