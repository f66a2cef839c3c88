package main

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// TestStuckPublishers: those without an acknowledgement since then, and of them those that
// wait for their id.
func TestStuckPublishers(t *testing.T) {
	since := time.Now()
	p, w := &pulse{last: []time.Time{since, since.Add(time.Nanosecond)}}, &workload{}
	if got := p.silent(since); !slices.Equal(got, []int{0}) {
		t.Errorf("silent %v, want 0", got)
	}
	if w.waitsForID(0) {
		t.Error("one that has not failed yet")
	}
	w.note(0, errors.New("nats: no responders available for request"))
	if w.waitsForID(0) {
		t.Error("one that nobody answers")
	}
	w.note(0, errors.New(`{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}`))
	if !w.waitsForID(0) {
		t.Error("one whose id is taken for on its way")
	}
}
