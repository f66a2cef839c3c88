package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/signetbus/signet/broker/translog"
	"github.com/signetbus/signet/signing/tlog"
)

// TestHeadsThatNoCheckpointCovers: a log of the heads that stands still, whichever node
// writes it, does not prove the trail. What has just come is not late, nor what another
// clock stored in the future.
func TestHeadsThatNoCheckpointCovers(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	note := &tlog.Note{Checkpoint: tlog.Checkpoint{Time: now.Add(-time.Hour)}}
	at := func(ago time.Duration) translog.Held {
		return translog.Held{Stored: now.UnixNano(), Since: now.Add(-ago).UnixNano()}
	}
	covered := translog.Held{Stored: now.Add(-time.Hour).UnixNano(), Covered: true}
	for name, tt := range map[string]struct {
		held []translog.Held
		late bool
	}{
		"none":            {},
		"covered":         {held: []translog.Held{covered}},
		"just came":       {held: []translog.Held{covered, at(headsLate)}},
		"of an hour":      {held: []translog.Held{covered, at(0), at(time.Hour)}, late: true},
		"from the future": {held: []translog.Held{at(-time.Hour)}},
	} {
		err := lateHeads(note, tt.held, now)
		if (err != nil) != tt.late || err != nil && !strings.Contains(err.Error(), "since 2026-03-01T11:00:00Z is in no checkpoint") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
