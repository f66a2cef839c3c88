package main

import (
	"strings"
	"testing"

	"github.com/signetbus/signet/internal/cloudevent"
	"github.com/signetbus/signet/signing"
	"github.com/signetbus/signet/signing/tlog"
)

// What is proven is said as it is: an absent sequence is no event, and a message has no
// signature of its own.
func TestProvenWords(t *testing.T) {
	event := tlog.VerifiedLeaf{Sequence: 7, ProofLeaf: &tlog.ProofLeaf{Kind: tlog.Event, Event: new(cloudevent.Event)}, Attestation: &signing.Attestation{}}
	message := tlog.VerifiedLeaf{Sequence: 8, ProofLeaf: &tlog.ProofLeaf{Kind: tlog.Message}}
	absent := tlog.VerifiedLeaf{Sequence: 9, ProofLeaf: &tlog.ProofLeaf{}}
	next, last, absentNext := event, event, absent
	next.Sequence, last.Sequence, absentNext.Sequence = 8, 11, 10
	for _, tt := range []struct {
		leaves []tlog.VerifiedLeaf
		says   string
		good   bool
	}{
		{[]tlog.VerifiedLeaf{event}, "PROVEN: sequence 7", true},
		{[]tlog.VerifiedLeaf{absent}, "PROVEN ABSENT: sequence 9", true},
		{[]tlog.VerifiedLeaf{event, next}, "none missing", true},
		{[]tlog.VerifiedLeaf{event, message}, "none missing", false},
		{[]tlog.VerifiedLeaf{event, message, absent}, "PROVEN IN PART: sequences 7 to 9 of  stand in the log since , but 1 of 3 have no event: 9", false},
		{[]tlog.VerifiedLeaf{absent, absentNext}, "PROVEN ABSENT: sequences 9 to 10", true},
		{[]tlog.VerifiedLeaf{event, absent, absentNext, last}, "but 2 of 4 have no event: 9-10", true},
	} {
		v := &tlog.Verified{Checkpoint: &tlog.Checkpoint{}, Leaves: tt.leaves}
		if got := provenHeadline(v); !strings.Contains(got, tt.says) || (strings.Contains(got, "none missing") && !strings.Contains(tt.says, "none missing")) {
			t.Errorf("got %q, want %q", got, tt.says)
		}
		if got := allAttested(v); got != tt.good {
			t.Errorf("%s: all attested %v, want %v", tt.says, got, tt.good)
		}
	}
	if got := leafOf(&message); got.Reason == "" {
		t.Error("a message is shown as attested")
	}
}
