package broker

import (
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/signetbus/signet/broker/diskguard"
)

// TestDoorLogNamesTheLimit: one line for each limit that grew, and none for the others.
func TestDoorLogNamesTheLimit(t *testing.T) {
	var out strings.Builder
	log, d := zerolog.New(&out), doorLog{}
	d.report(log, map[string]uint64{"gate.maxConnections": 3, "gate.maxMemory": 0})
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"limit":"gate.maxConnections","connections":3`) {
		t.Errorf("got %s", got)
	}
	out.Reset()
	d.report(log, map[string]uint64{"gate.maxConnections": 3, "gate.maxMemory": 0})
	if out.Len() != 0 {
		t.Errorf("nothing has grown: %s", out.String())
	}
	d.report(log, map[string]uint64{"gate.maxConnections": 5, "gate.maxMemory": 1})
	if got := out.String(); !strings.Contains(got, `"limit":"gate.maxConnections","connections":2`) || !strings.Contains(got, `"limit":"gate.maxMemory","connections":1`) {
		t.Errorf("got %s", got)
	}
}

// TestOutOfSpace tells a store without space from one that is broken otherwise.
func TestOutOfSpace(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   string
		worst diskguard.Level
		want  bool
	}{
		{"its own words", "JetStream stream 'shop > ORDERS' write error: write 1.blk: no space left on device", diskguard.OK, true},
		{"a failed sync on a full volume", "stable storage reported an error", diskguard.Hard, true},
		{"a failed sync", "stable storage reported an error", diskguard.Soft, false},
	} {
		if got := outOfSpace(errors.New(c.err), c.worst); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
