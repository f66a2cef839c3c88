package broker

import (
	"strings"
	"testing"
	"time"
)

func TestAhead(t *testing.T) {
	sent := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	got := sent.Add(100 * time.Millisecond)
	for _, tc := range []struct {
		name string
		now  time.Time
		want time.Duration
	}{
		{"does not say", time.Time{}, 0},
		{"read meanwhile", sent.Add(50 * time.Millisecond), 0},
		{"behind", sent.Add(-2 * time.Second), -2 * time.Second},
		{"ahead", got.Add(30 * time.Second), 30 * time.Second},
	} {
		if d := ahead(tc.now, sent, got); d != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, d, tc.want)
		}
	}
}

// A node with another clock is a problem of the cluster, and one within the limit is not.
func TestClusterStatusTellsOfClocks(t *testing.T) {
	for _, tc := range []struct {
		ahead time.Duration
		want  bool
	}{{0, false}, {clockLimit, false}, {clockLimit + time.Millisecond, true}, {-30 * time.Second, true}} {
		v := viewOf(3, "")
		v.views["n2"].ahead = tc.ahead
		told := false
		s := v.status("shop")
		for _, p := range s.Problems {
			told = told || p.Node == "n2" && strings.Contains(p.What, "clock") && p.Fix != ""
		}
		if told != tc.want {
			t.Errorf("%v ahead: told %v, want %v: %+v", tc.ahead, told, tc.want, s.Problems)
		}
	}
}
