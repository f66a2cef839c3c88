package policy

import (
	"strings"
	"testing"
	"time"
)

func TestAuditRetention(t *testing.T) {
	set := func(text string) (*Set, error) {
		b, err := Parse("p.yaml", []byte(text))
		if err != nil {
			return nil, err
		}
		return Compile(b)
	}
	s, err := set("tenant: shop\naudit: {maxBytes: 256MiB, maxAge: 14d}\n")
	if err != nil {
		t.Fatal(err)
	}
	if a := s.Tenant("shop").Audit; a.MaxBytes != 256*MiB || a.MaxAge != 14*24*time.Hour {
		t.Errorf("%+v", a)
	}
	for text, want := range map[string]string{
		"tenant: shop\naudit: {maxBytes: 64KiB}\n":                                         "p.yaml:2:",
		"tenant: shop\naudit: {maxAge: 1m}\n":                                              "p.yaml:2:",
		"tenant: shop\naudit: {keep: 1}\n":                                                 "known keys",
		"tenant: shop\naudit: {maxAge: 14d}\n---\ntenant: shop\naudit: {maxBytes: 1MiB}\n": "declared twice",
	} {
		if _, err := set(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
