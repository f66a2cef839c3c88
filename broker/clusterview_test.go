package broker

import (
	"maps"
	"testing"

	"github.com/signetbus/signet/broker/internal/embed"
	"github.com/signetbus/signet/internal/adminapi"
	"github.com/signetbus/signet/internal/wire"
)

// viewOf is a cluster of size nodes, n1 leading, of which those of down do not answer.
func viewOf(size int, down string, groups ...embed.Group) *clusterView {
	names := []string{"n1", "n2", "n3", "n4", "n5"}[:size]
	var views []*nodeView
	for _, name := range names {
		v := &nodeView{nodeInfo: nodeInfo{Node: name, Phase: phaseNames[phaseReady], Policy: "p", Keyring: 1}}
		v.Cluster = embed.ClusterState{Name: "c", Self: name, Leader: "n1", Size: size, Current: true}
		for _, p := range names {
			if p != name {
				v.Cluster.Peers = append(v.Cluster.Peers, embed.ClusterPeer{Name: p, Current: p != down, Online: p != down})
			}
		}
		for i := range groups {
			if groups[i].Leader == name {
				v.Groups = append(v.Groups, groups[i])
			}
		}
		if name != down {
			views = append(views, v)
		}
	}
	return newClusterView("n1", names, views)
}

func groupOf(stream, leader string, members ...string) embed.Group {
	g := embed.Group{Account: "shop", Stream: stream, Wanted: 3, Leader: leader}
	for _, name := range members {
		g.Members = append(g.Members, embed.ClusterPeer{Name: name, Current: true, Online: true})
	}
	return g
}

func TestClusterMayEvacuateAndRemove(t *testing.T) {
	whole := groupOf("A", "n1", "n1", "n2", "n3")
	on5 := groupOf("B", "n1", "n1", "n2", "n5")
	moving := groupOf("C", "n1", "n1", "n2", "n3")
	moving.Moving = true
	tests := []struct {
		name             string
		view             *clusterView
		node             string
		evacuate, remove wire.Code
	}{
		{"runs and holds nothing", viewOf(5, "", whole), "n5", 0, wire.CodeConflict},
		{"stopped and holds nothing", viewOf(5, "n5", whole), "n5", 0, 0},
		{"stopped and holds a stream", viewOf(5, "n5", on5), "n5", 0, wire.CodeConflict},
		{"another stream is moving", viewOf(5, "n5", moving), "n5", wire.CodeConflict, 0},
		{"one of three", viewOf(3, "n3"), "n3", wire.CodeConflict, wire.CodeConflict},
		{"another is down", viewOf(4, "n3"), "n4", wire.CodeConflict, wire.CodeConflict},
		{"unknown", viewOf(5, ""), "n9", wire.CodeNotFound, wire.CodeNotFound},
	}
	code := func(err error) wire.Code {
		if err == nil {
			return 0
		}
		return wire.AsRefusal(err).Code
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.view.mayEvacuate(tt.node); code(err) != tt.evacuate {
				t.Errorf("evacuate: %v, want %d", err, tt.evacuate)
			}
			if err := tt.view.mayRemove(tt.node); code(err) != tt.remove {
				t.Errorf("remove: %v, want %d", err, tt.remove)
			}
			if err := tt.view.mayRescue([]string{tt.node}); err == nil {
				t.Error("a rescue with a leader")
			}
		})
	}
	lost := viewOf(5, "")
	lost.state.Leader = ""
	if err := lost.mayEvacuate("n5"); code(err) != wire.CodeUnavailable {
		t.Errorf("evacuate without a quorum: %v", err)
	}
	if err := lost.mayRemove("n5"); code(err) != wire.CodeUnavailable {
		t.Errorf("remove without a quorum: %v", err)
	}
}

func TestClusterBalance(t *testing.T) {
	var groups []embed.Group
	for _, stream := range []string{"A", "B", "C", "D", "E", "F"} {
		groups = append(groups, groupOf(stream, "n1", "n1", "n2", "n3"))
	}
	moves, leads := viewOf(3, "", groups...).balance()
	if want := map[string]int{"n1": 2, "n2": 2, "n3": 2}; !maps.Equal(leads, want) || len(moves) != 4 {
		t.Errorf("%v, %v", moves, leads)
	}
	// Nobody is made leader that has no copy, or is down.
	moves, leads = viewOf(5, "n3", groups...).balance()
	if want := map[string]int{"n1": 3, "n2": 3, "n4": 0, "n5": 0}; !maps.Equal(leads, want) || len(moves) != 3 {
		t.Errorf("%v, %v", moves, leads)
	}
}

func TestClusterStatusTellsOnlyTheTenantsStreams(t *testing.T) {
	mine, other := groupOf("MINE", "n1", "n1", "n2", "n3"), groupOf("SECRET", "n2", "n1", "n2", "n3")
	other.Account = "rival"
	mine.Members[2].Current = false
	s := viewOf(3, "", mine, other).status("shop")
	if len(s.Streams) != 1 || s.Streams[0].Name != "MINE" || s.Others != (adminapi.ClusterTotals{Streams: 1, Whole: 1}) {
		t.Errorf("%+v", s)
	}
	if got := s.Streams[0]; got.Whole || len(got.CannotLose) != 2 || len(s.Problems) != 1 || s.Problems[0].Stream != "MINE" {
		t.Errorf("%+v, %+v", got, s.Problems)
	}
	s = viewOf(3, "n3", other).status("shop")
	if len(s.Problems) != 1 || s.Problems[0].Node != "n3" {
		t.Errorf("%+v", s.Problems)
	}
}
