package main

import (
	"errors"
	"testing"
)

// acknowledged makes a ledger of two publishers with n acknowledged events each,
// stored in turn: publisher 0 at odd sequences.
func acknowledged(n int) *ledger {
	l := newLedger()
	l.publisher()
	l.publisher()
	for i := range n {
		for p := range 2 {
			l.ack(p, l.send(p), uint64(2*i+p+1))
		}
	}
	return l
}

func TestVerdict(t *testing.T) {
	type event struct {
		publisher, number int
		sequence          uint64
	}
	all := []event{{0, 1, 1}, {1, 1, 2}, {0, 2, 3}, {1, 2, 4}}
	for _, c := range []struct {
		name   string
		events []event
		want   func(*verdict) int
	}{
		{"all there", all, nil},
		{"one lost", all[:3], func(v *verdict) int { return v.Lost }},
		{"one twice", append(all[:4:4], event{1, 2, 5}), func(v *verdict) int { return v.Twice }},
		{"moved", []event{{0, 1, 1}, {1, 1, 2}, {0, 2, 3}, {1, 2, 5}}, func(v *verdict) int { return v.Moved }},
		{"never sent", append(all[:4:4], event{1, 3, 5}), func(v *verdict) int { return v.Foreign }},
		{"unknown publisher", append(all[:4:4], event{7, 1, 5}), func(v *verdict) int { return v.Foreign }},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := acknowledged(2).judge()
			for _, e := range c.events {
				v.event(subjectOf(e.publisher), encode(e.publisher, e.number), e.sequence)
			}
			v.close()
			err := v.err()
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, errBroken) || c.want(v) != 1 {
				t.Fatalf("want it found once, got %v %+v", err, v)
			}
		})
	}
}

func TestVerdictSeesDisorderAndChangedBytes(t *testing.T) {
	l := newLedger()
	p := l.publisher()
	l.send(p) // neither has an acknowledgement, so that both may be anywhere
	l.send(p)
	v := l.judge()
	v.event(subjectOf(p), encode(p, 2), 1)
	v.event(subjectOf(p), encode(p, 1), 2)
	if v.Disorder != 1 {
		t.Errorf("disorder %d, want 1", v.Disorder)
	}
	v = l.judge()
	v.event(subjectOf(p), append(encode(p, 1), ' '), 1)
	v.event("faults.other", encode(p, 1), 2)
	if v.Foreign != 2 {
		t.Errorf("foreign %d, want 2", v.Foreign)
	}
	if v.close(); v.err() == nil {
		t.Error("a run without acknowledgements must fail")
	}
}
