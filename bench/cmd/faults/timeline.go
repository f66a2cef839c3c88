package main

import (
	"fmt"
	"time"
)

// timeline watches the times of stored events in the order of the stream.
type timeline struct {
	last    time.Time
	back    int           // times that one is before the one before it
	largest time.Duration // of those
}

func (t *timeline) add(at time.Time) {
	if d := t.last.Sub(at); d > 0 && !t.last.IsZero() {
		t.back++
		t.largest = max(t.largest, d)
	}
	t.last = at
}

func (t *timeline) String() string {
	return fmt.Sprintf("%d steps back, the largest %v", t.back, t.largest.Round(time.Second))
}

// tellTimes prints what wrong clocks have left in the stream.
func (v *verdict) tellTimes(what string) {
	if v.l.clocks > 0 {
		fmt.Printf("%s: in the order of the stream, recorded times have %v; times of storing have %v\n", what, &v.recorded, &v.kept)
	}
}
