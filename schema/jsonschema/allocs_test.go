//go:build !race

package jsonschema

import (
	"testing"

	"github.com/signetbus/signet/schema"
)

// The race detector makes sync.Pool drop entries at random, so allocations are
// counted without it only.

func TestScanAllocates(t *testing.T) {
	text := []byte(`{"id":"0190b6c2","n":[1,2.5,{"a\n":true}],"o":` + object(20) + `}`)
	if n := testing.AllocsPerRun(200, func() {
		if err := Scan(text, schema.Limits{}); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestValidateAllocates(t *testing.T) {
	v := mustCompile(t, orderSchema, "")
	for _, s := range sizes {
		data := order(s.items, s.size)
		if n := testing.AllocsPerRun(200, func() { v.Validate(nil, data) }); n > 0 {
			t.Errorf("%s: %v allocations, want 0", s.name, n)
		}
	}
}
