package store

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// TestKeepsQuorum: a node may go while a majority of the copies is current elsewhere.
func TestKeepsQuorum(t *testing.T) {
	peer := func(name string, current, offline bool) *jetstream.PeerInfo {
		return &jetstream.PeerInfo{Name: name, Current: current, Offline: offline}
	}
	for _, c := range []struct {
		name     string
		replicas int
		leader   string
		peers    []*jetstream.PeerInfo
		want     bool
	}{
		{"all current, a follower goes", 3, "b", []*jetstream.PeerInfo{peer("a", true, false), peer("c", true, false)}, true},
		{"all current, the leader goes", 3, "a", []*jetstream.PeerInfo{peer("b", true, false), peer("c", true, false)}, true},
		{"another one lags", 3, "b", []*jetstream.PeerInfo{peer("a", true, false), peer("c", false, false)}, false},
		{"another one is away", 3, "a", []*jetstream.PeerInfo{peer("b", true, true), peer("c", true, false)}, false},
		{"no leader", 3, "", []*jetstream.PeerInfo{peer("a", true, false), peer("b", true, false), peer("c", true, false)}, true},
		{"no leader and one away", 3, "", []*jetstream.PeerInfo{peer("a", true, false), peer("b", true, false), peer("c", true, true)}, false},
		{"five, two away", 5, "b", []*jetstream.PeerInfo{peer("a", true, false), peer("c", true, false), peer("d", true, true), peer("e", false, false)}, false},
		{"five, one away", 5, "b", []*jetstream.PeerInfo{peer("a", true, false), peer("c", true, false), peer("d", true, false), peer("e", false, true)}, true},
		{"not a member", 3, "b", []*jetstream.PeerInfo{peer("c", false, true), peer("d", true, false)}, true},
		{"one copy", 1, "a", nil, true},
	} {
		info := &jetstream.StreamInfo{Config: jetstream.StreamConfig{Replicas: c.replicas}, Cluster: &jetstream.ClusterInfo{Leader: c.leader, Replicas: c.peers}}
		if got := keepsQuorum(info, "a"); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}
