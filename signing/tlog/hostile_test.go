package tlog

import (
	"bytes"
	"errors"
	"runtime"
	"testing"
)

// A list is not read beyond its limit: a file from anywhere must not cost its reader
// gigabytes.
func TestHostileProofAllocation(t *testing.T) {
	for name, tt := range map[string]struct{ member, element string }{
		"leaves": {"leaves", "{},"},
		"hashes": {"hashes", `"",`},
	} {
		t.Run(name, func(t *testing.T) {
			doc := []byte("{\n \"format\": \"" + ProofFormat + "\",\n \"" + tt.member + "\": [")
			doc = append(doc, bytes.Repeat([]byte(tt.element), 5<<20)...)
			doc = append(doc, tt.element[:2]+"]}"...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := ParseProof(doc)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want %v", err, ErrMalformed)
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > 128<<20 {
				t.Errorf("%d MiB allocated for a document of %d MiB", got>>20, len(doc)>>20)
			}
		})
	}
}
