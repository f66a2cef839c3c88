package schema

import (
	"testing"

	"github.com/signetbus/signet/internal/wire"
)

func TestLimitsEffective(t *testing.T) {
	d := DefaultLimits()
	if d != d.Effective() {
		t.Fatal("Effective is not idempotent on the defaults")
	}
	got := Limits{Payload: -1, Depth: 1 << 30, NumberBytes: 1000, ExponentAbs: 5}.Effective()
	if got.Payload != 1<<20 || got.Depth != 256 || got.NumberBytes != 64 || got.ExponentAbs != 5 {
		t.Fatalf("got %+v", got)
	}
	if n := d.Fuel.Steps(256); n != 10000+64*256 {
		t.Errorf("Steps(256) = %d", n)
	}
	if n := d.Fuel.Steps(1 << 20); n != d.Fuel.Max {
		t.Errorf("Steps(1 MiB) = %d", n)
	}
}

func TestVerdictRefusal(t *testing.T) {
	if r := (&Verdict{OK: true}).Refusal("x"); r != nil {
		t.Errorf("OK verdict gave %v", r)
	}
	if r := (&Verdict{}).Refusal("x"); r == nil || r.Code != wire.CodeInternal {
		t.Errorf("zero verdict gave %v, want CodeInternal", r)
	}
	r := (&Verdict{Code: wire.CodeSchemaViolation, Detail: "d", Truncated: true}).Refusal("subjects[0]")
	if r.Code != wire.CodeSchemaViolation || r.Rule != "subjects[0]" || r.Detail != "d" || !r.Truncated {
		t.Errorf("got %+v", r)
	}
}

func TestDocumentID(t *testing.T) {
	d := Document{Name: "order", Version: 3, Text: []byte("{}")}
	if d.ID() != "order@3" {
		t.Errorf("ID = %q", d.ID())
	}
	e := d
	e.Ref = "#/x"
	if d.SHA256() != e.SHA256() {
		t.Error("SHA256 depends on Ref")
	}
}
