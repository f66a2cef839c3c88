package broker

import (
	"errors"
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

// A node starts only while more clocks agree with its own than do not, its own counted.
func TestWrongClock(t *testing.T) {
	of := func(ahead ...time.Duration) (infos []nodeInfo) {
		for _, d := range ahead {
			infos = append(infos, nodeInfo{Node: "other", ahead: d})
		}
		return infos
	}
	const far = clockBound + time.Second
	for _, tc := range []struct {
		name  string
		infos []nodeInfo
		says  string // empty: it starts
		tie   bool   // it waits
	}{
		{"nobody heard of", nil, "", false},
		{"within the bound", of(clockBound, -clockBound), "", false},
		{"the other one is wrong, or this one", of(far), "behind", true},
		{"both differ", of(-far, -far), "ahead of", false},
		{"one of two differs", of(far, 0), "", false},
		{"two of three differ", of(far, far, 0), "behind", true},
		{"three of four differ", of(far, far, far, 0), "behind", false},
		{"two of four differ", of(far, -far, 0, 0), "", false},
	} {
		err := wrongClock(tc.infos)
		switch {
		case tc.says == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.says != "" && (errors.Is(err, ErrClock) == tc.tie || errors.Is(err, errClocks) != tc.tie || !strings.Contains(err.Error(), tc.says)):
			t.Errorf("%s: %v, want one that says %q, tie %v", tc.name, err, tc.says, tc.tie)
		}
	}
}

// TestClockWasSet: a clock that is set is noticed, by how much, and one that goes on is not.
func TestClockWasSet(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	c := clockSet{wall: at}
	for i, tc := range []struct{ wall, steady, want time.Duration }{
		{0, 0, 0},
		{2 * time.Second, 2 * time.Second, 0},
		{time.Hour, time.Hour, 0},              // both stood still, or both went on
		{time.Hour + clockLimit, time.Hour, 0}, // within what a time service slews
		{time.Hour + 10*time.Minute + clockLimit, time.Hour, 10 * time.Minute},  // ahead
		{time.Hour + 2*time.Second, time.Hour + time.Second, -10 * time.Minute}, // and back
		{time.Hour + 3*time.Second, time.Hour + 2*time.Second, 0},               // goes on
	} {
		if d := c.look(at.Add(tc.wall), tc.steady); d.Round(2*time.Second) != tc.want {
			t.Errorf("look %d: %v, want %v", i, d, tc.want)
		}
	}
}

// TestClockHealth: a node whose clock is far from that of most is not well until a comparison
// finds it right; where nobody can tell who is wrong, nobody is.
func TestClockHealth(t *testing.T) {
	const far = clockBound + time.Second
	b := &Broker{storage: storage{nodes: &nodes{}}}
	if err := clockHealth(&Broker{}); err != nil {
		t.Errorf("a broker by itself: %v", err)
	}
	if err := clockHealth(b); err != nil {
		t.Errorf("before the first comparison: %v", err)
	}
	for _, tc := range []struct {
		name  string
		ahead map[string]time.Duration
		want  bool
	}{
		{"right", map[string]time.Duration{"n2": 0, "n3": time.Minute}, false},
		{"wrong", map[string]time.Duration{"n2": far, "n3": far}, true},
		{"the other one is", map[string]time.Duration{"n2": 0, "n3": -far}, false},
		{"nobody can tell", map[string]time.Duration{"n2": far}, false},
	} {
		b.nodes.clocks.Store(&tc.ahead)
		if err := clockHealth(b); errors.Is(err, ErrClock) != tc.want {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
