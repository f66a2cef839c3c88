package main

import (
	"fmt"
	"slices"
	"testing"

	"github.com/signetbus/signet/client/admin"
)

func clusterOf(down string, names ...string) *admin.ClusterStatus {
	s := &admin.ClusterStatus{Leader: names[0], Size: len(names)}
	for _, name := range names {
		s.Nodes = append(s.Nodes, admin.ClusterNode{Name: name, Member: true, Answers: name != down})
	}
	return s
}

func TestLeavingNodes(t *testing.T) {
	five := clusterOf("", "bus-1", "bus-2", "bus-9", "bus-10", "bus-11")
	tests := []struct {
		name  string
		to    int
		nodes []string
		want  []string
		fails bool
	}{
		{name: "highest first", to: 3, want: []string{"bus-11", "bus-10"}},
		{name: "nothing to do", to: 5},
		{name: "more than there are", to: 7},
		{name: "named", to: 3, nodes: []string{"bus-1", "bus-9"}, want: []string{"bus-1", "bus-9"}},
		{name: "one", nodes: []string{"bus-2"}, want: []string{"bus-2"}},
		{name: "names and number differ", to: 3, nodes: []string{"bus-1"}, fails: true},
		{name: "unknown", nodes: []string{"bus-3"}, fails: true},
		{name: "too few left", nodes: []string{"bus-1", "bus-2", "bus-9"}, fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := leavingNodes(five, tt.to, tt.nodes)
			if (err != nil) != tt.fails || !slices.Equal(got, tt.want) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestMayReplace(t *testing.T) {
	if err := mayReplace(clusterOf("b", "a", "b", "c"), "b"); err != nil {
		t.Error(err)
	}
	without := clusterOf("b", "a", "b", "c")
	without.Leader = ""
	for what, err := range map[string]error{
		"another is down": mayReplace(clusterOf("c", "a", "b", "c"), "b"),
		"a new name":      mayReplace(clusterOf("", "a", "b", "c"), "d"),
		"no quorum":       mayReplace(without, "b"),
	} {
		if err == nil {
			t.Errorf("%s: allowed", what)
		}
	}
}

// Every state of a node has a word of its own in the table.
func TestNodeStates(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range []admin.ClusterNode{
		{Member: true, Answers: true, Current: true, Phase: "ready"},
		{Member: true, Answers: true, Phase: "ready", Lag: 3},
		{Member: true, Answers: true, Current: true, Phase: "ready", Name: "leader"},
		{Member: true},
		{Answers: true},
		{},
	} {
		word := nodeState(&admin.ClusterStatus{Leader: "leader"}, &n)
		if seen[word] {
			t.Errorf("%q twice", fmt.Sprint(word))
		}
		seen[word] = true
	}
}
